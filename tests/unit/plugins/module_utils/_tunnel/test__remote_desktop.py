# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do programs for remote desktops get what they need, and nothing that somebody slipped in?"""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._remote_desktop import command, file, installed

ADDRESS = "127.0.0.1:50001"


def test_the_file_says_where_and_who_and_asks_for_the_password() -> None:
    content = file(ADDRESS, "CONTOSO\\j\u00f6rg")
    assert content.startswith(b"\xff\xfe")
    assert content.decode("utf-16").split("\r\n") == [
        "full address:s:127.0.0.1:50001",
        "prompt for credentials:i:1",
        "authentication level:i:2",
        "username:s:CONTOSO\\j\u00f6rg",
        "",
    ]
    assert "username" not in file(ADDRESS, None).decode("utf-16")


@pytest.mark.parametrize("user", ["ada\r\nalternate shell:s:calc", "ada\n", "ada\u2028", "ada\x00", "ad\u202ea"])
def test_a_name_cannot_add_a_line(user: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a user"):
        file(ADDRESS, user)
    with pytest.raises(InputError, match="cannot be the name of a user"):
        command("/usr/bin/xfreerdp3", ADDRESS, user, [])


def test_freerdp_gets_no_password() -> None:
    assert command("/usr/bin/xfreerdp3", ADDRESS, "ada", ["/f", "/cert:tofu", "/size:80%"]) == [
        *("/usr/bin/xfreerdp3", "/v:127.0.0.1:50001", "/u:ada", "/f", "/cert:tofu", "/size:80%")
    ]
    assert command("/usr/bin/xfreerdp3", ADDRESS, None, []) == ["/usr/bin/xfreerdp3", "/v:127.0.0.1:50001"]
    for argument in (
        "/p:secret",
        "/P:secret",
        "-p",
        "--password:secret",
        "/password:secret",
        "/gp:x",
        "/g:x,u:a,p:secret",
    ):
        with pytest.raises(InputError, match="FreeRDP asks for it") as refused:
            command("/usr/bin/xfreerdp3", ADDRESS, "ada", [argument])
        assert "secret" not in str(refused.value)


def test_the_newest_freerdp_is_taken(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed() is None
    for name in ("wlfreerdp", "xfreerdp"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "xfreerdp3").touch(mode=0o644)
    assert installed() == os.path.join(tmp_path, "xfreerdp")
