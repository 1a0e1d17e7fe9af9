# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do ssh's files become what they shall be, and does nobody else's line change?"""

from __future__ import annotations

import os
import pathlib
import stat
from typing import Any

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _files, _ssh_config_files
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_config import render
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_config_files import entries, shared_at, write

SUB = "11111111-2222-3333-4444-555555555555"
USERS = "# mine\nHost *\n  User me\n"


def raw(name: str, group: str = "rg", sub: str = SUB, **more: Any) -> dict[str, Any]:
    identifier = f"/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}"
    return {"id": identifier, "ssh_args": f"-o 'ProxyCommand=p --resource-id {identifier} --port %p'", **more}


def text(*names: str) -> str:
    return render(entries([raw(name) for name in names])[0], control_path=None, control_persist="no")


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path / ".ssh"


def run(home: pathlib.Path, wanted: str | None, *, check_mode: bool = False, include: bool = True) -> Any:
    config = str(home / "config") if include else None
    return write(str(home / "arcfleet.conf"), wanted, config, check_mode=check_mode)


def files(home: pathlib.Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in home.iterdir()}


def test_written_then_left_alone_then_gone(home: pathlib.Path) -> None:
    (home / "config").write_text(USERS, encoding="utf-8")
    foreseen = run(home, text("a", "b"), check_mode=True)
    assert files(home) == {"config": USERS}
    done = run(home, text("a", "b"))
    assert (foreseen.changed, foreseen.counts, foreseen.after) == (done.changed, done.counts, done.after)
    assert done.counts == {"created": 2, "updated": 0, "deleted": 0, "unchanged": 0}
    assert set(done.after) == {"a", "b", "all machines"}
    assert stat.S_IMODE((home / "arcfleet.conf").stat().st_mode) == 0o600
    assert files(home)["config"].endswith(USERS)
    again = run(home, text("a", "b"))
    assert (again.changed, again.before, again.after) == (False, {}, {})
    assert run(home, text("a")).counts["deleted"] == 1
    assert run(home, None).changed
    assert files(home) == {"config": USERS}
    assert not run(home, None).changed


def test_where_there_was_nothing_nothing_is_left(home: pathlib.Path) -> None:
    run(home, text("a"))
    assert set(files(home)) == {"arcfleet.conf", "config"}
    assert stat.S_IMODE((home / "config").stat().st_mode) == 0o600
    run(home, None)
    assert files(home) == {}


def test_a_file_of_somebody_else_is_not_touched(home: pathlib.Path) -> None:
    (home / "arcfleet.conf").write_text(USERS, encoding="utf-8")
    for wanted in (text("a"), None):
        with pytest.raises(InputError, match="was not written by"):
            run(home, wanted)
    assert files(home) == {"arcfleet.conf": USERS}


def test_without_the_include_the_users_file_is_left_alone(home: pathlib.Path) -> None:
    (home / "config").write_text(USERS, encoding="utf-8")
    assert not run(home, text("a"), include=False).included
    assert files(home)["config"] == USERS


@pytest.mark.parametrize("failing", ["arcfleet.conf", "config"])
def test_what_cannot_be_written_is_named_and_ssh_can_go_on(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    (home / "config").write_text(USERS, encoding="utf-8")

    def replace(file: str, content: str) -> None:
        if os.path.basename(file) == failing:
            raise OSError(28, "No space left on device", file)
        _files.replace_text(file, content)

    monkeypatch.setattr(_ssh_config_files, "replace_text", replace)
    with pytest.raises(ArcError, match=f"{failing} cannot be written: No space"):
        run(home, text("a"))
    # Nothing includes a file that is not there.
    assert files(home)["config"] == USERS
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home.parent / "cache"))
    assert run(home, text("a")).changed
    assert "Include" in files(home)["config"]


def test_machines_of_one_name_get_longer_ones() -> None:
    other = "99999999-2222-3333-4444-555555555555"
    found, shared = entries([raw("web01"), raw("web01", sub=other), raw("web01", "g2"), raw("db01", host="main")])
    names = [one.names[0] for one in found]
    assert names == [f"web01.rg.{SUB}", f"web01.rg.{other}", "web01.g2", "main"]
    assert shared == ["web01"]


def test_a_machine_that_is_named_twice_and_an_id_that_is_none_are_refused() -> None:
    with pytest.raises(InputError, match="more than once"):
        entries([raw("web01"), raw("WEB01")])
    with pytest.raises(InputError, match="not the resource id"):
        entries([{"id": "web01", "ssh_args": ""}])


def test_connections_are_shared_beside_the_file_or_not_at_all() -> None:
    assert shared_at("/h/.ssh/arcfleet.conf", "2h30m") == "/h/.ssh/arc-%C"
    assert shared_at("/h/x", "no") is None
    assert shared_at("/h/x", "False") is None
    with pytest.raises(InputError, match="neither a time nor no"):
        shared_at("/h/x", "10m\nProxyCommand x")
    with pytest.raises(InputError, match="too long"):
        shared_at(f"/{'d' * 50}/x", "10m")
    assert shared_at(f"/{'d' * 50}/x", "no") is None
