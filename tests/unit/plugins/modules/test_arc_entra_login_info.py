# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module refuse what it cannot ask sshd, and try the repository only where that is of use?"""

from __future__ import annotations

import os
from typing import Any

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._entra_login import (
    Ground,
    Look,
    Registrations,
    parse_os_release,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import SshdError
from ansible_collections.arcfleet.ssh.plugins.modules import arc_entra_login_info

OPTIONS: dict[str, Any] = {
    "users": ["someone@example.org"],
    "source": "extension",
    "repository": "https://m",
    "probe": "missing",
    "proxy": "",
}


@pytest.mark.parametrize("user", ["", "a,addr=10.0.0.1", "a b", "user=a"])
def test_names_that_sshd_would_take_for_criteria(user: str) -> None:
    with pytest.raises(InputError, match="cannot be a login name"):
        arc_entra_login_info.work({**OPTIONS, "users": [user]}, "/nowhere")


def test_without_root_become_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SshdError, match="become: true"):
        arc_entra_login_info.work(OPTIONS, "/nowhere")


@pytest.mark.parametrize(
    ("probe", "installed", "expected"),
    [
        ("missing", False, True),
        ("missing", True, False),
        ("always", True, True),
        ("never", False, False),
    ],
)
def test_when_the_repository_is_tried(
    monkeypatch: pytest.MonkeyPatch, probe: str, installed: bool, expected: bool
) -> None:
    tried: list[bool] = []

    def ground(*_options: str, probe: bool) -> Ground:
        tried.append(probe)
        return Ground(parse_os_release("ID=debian\nVERSION_ID=12\n"))

    seen = Look([], [], Registrations(nsswitch=False, pam=False, sshd=False), installed)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(arc_entra_login_info, "look", lambda *_options: seen)
    monkeypatch.setattr(arc_entra_login_info, "ground", ground)
    result = arc_entra_login_info.work({**OPTIONS, "probe": probe}, "/nowhere")
    assert tried == [expected]
    assert result["installed"] is installed
