# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the way back bring back what was there, whatever had been done until then?

systemd is a stand-in here that writes down what it was told; with a real one everything runs again in tests/machines.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Callable

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _sshd_way_back
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import SshdError
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd_way_back import WayBack, land, write

OLD, MINE = "# old\nPort 22\n", "Port 2222\n"


class Place:
    """A machine's folders below a temporary one."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.ssh, self.units, self.state = root / "ssh", root / "units", root / "state"
        self.main, self.own = self.ssh / "sshd_config", self.ssh / "00-arcfleet.conf"
        self.log = root / "log"
        self.ssh.mkdir()
        self.units.mkdir()
        self.main.write_text(OLD)
        self.main.chmod(0o640)
        self.way_back = WayBack(str(self.state))

    def begin(self, *paths: pathlib.Path, seconds: int = 30) -> None:
        with self.way_back.lock():
            self.way_back.begin([str(path) for path in paths or (self.main, self.own)], "ssh.service", seconds)

    def fire(self) -> int:
        """What the timer does."""
        bin_ = self.root / "bin"
        bin_.mkdir(exist_ok=True)
        systemctl = bin_ / "systemctl"
        systemctl.write_text(f'#!/bin/sh\necho "$*" >>{self.log}\n')
        systemctl.chmod(0o755)
        script = (self.state / "way-back").read_text().replace("PATH=", f"PATH={bin_}:", 1)
        return subprocess.run(["sh", "-c", script], check=False, timeout=20).returncode

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.ssh.iterdir())}


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)

    def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
        with made.log.open("a") as file:
            file.write(" ".join(words) + "\n")
        return subprocess.CompletedProcess(words, 0, "", "")

    for name, value in (("STATE", made.state), ("UNITS", made.units)):
        script = _sshd_way_back.SCRIPT.replace(getattr(_sshd_way_back, name), str(value))
        monkeypatch.setattr(_sshd_way_back, "SCRIPT", script)
        monkeypatch.setattr(_sshd_way_back, name, str(value))
    monkeypatch.setattr(_sshd_way_back, "systemctl", systemctl)
    return made


def test_the_script_is_one_that_sh_can_read() -> None:
    assert subprocess.run(["sh", "-n"], input=_sshd_way_back.SCRIPT, text=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_script_is_one_that_shellcheck_likes() -> None:
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-e", "SC2181,SC2015", "-"], input=_sshd_way_back.SCRIPT, text=True, check=False
    )
    assert done.returncode == 0


def test_a_change_that_is_confirmed_stays_and_leaves_nothing_behind(place: Place) -> None:
    place.begin()
    assert place.way_back.pending
    assert sorted(path.name for path in place.units.iterdir()) == [_sshd_way_back.SERVICE, _sshd_way_back.TIMER]
    assert "OnActiveSec=30s" in (place.units / _sshd_way_back.TIMER).read_text()
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o700
    land({str(place.main): MINE, str(place.own): "x\n"}, str(place.main))
    assert place.way_back.confirm() and not place.way_back.confirm()
    assert place.files() == {"00-arcfleet.conf": "x\n", "sshd_config": MINE}
    assert list(place.units.iterdir()) == [] and os.listdir(place.state) == ["lock"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.main, place.own)] == [0o640, 0o640]


def test_the_way_back_brings_back_the_very_files(place: Place) -> None:
    before = place.main.stat()
    place.begin()
    land({str(place.main): MINE, str(place.own): "x\n"}, str(place.main))
    place.log.unlink()
    assert place.fire() == 0
    assert place.files() == {"sshd_config": OLD}
    after = place.main.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime)
    assert "reload ssh.service" in place.log.read_text() and list(place.units.iterdir()) == []
    assert "was rolled back at 2" in (place.way_back.rolled_back() or "")
    assert "within 30 seconds" in (place.way_back.rolled_back() or "")
    place.way_back.forget()
    assert place.way_back.rolled_back() is None and os.listdir(place.state) == ["lock"]


def killed_before_anything_landed(place: Place) -> None:
    place.begin()


def killed_with_half_a_file(place: Place) -> None:
    place.begin()
    (place.ssh / f"{_sshd_way_back.NEW}00-arcfleet.conf").write_text("Po")


def killed_after_one_of_two(place: Place) -> None:
    place.begin()
    land({str(place.own): "x\n"}, str(place.main))


def killed_in_the_way_back(place: Place) -> None:
    place.begin()
    land({str(place.main): MINE, str(place.own): "x\n"}, str(place.main))
    (place.ssh / f"{_sshd_way_back.WAS}sshd_config").rename(place.main)


def killed_while_saving(place: Place) -> None:
    place.begin()
    (place.state / "saved").rename(place.state / "saving")


@pytest.mark.parametrize(
    "kill",
    [
        killed_before_anything_landed,
        killed_with_half_a_file,
        killed_after_one_of_two,
        killed_in_the_way_back,
        killed_while_saving,
    ],
)
def test_whatever_had_been_done(place: Place, kill: Callable[[Place], None]) -> None:
    kill(place)
    assert place.fire() == 0
    with place.way_back.lock():
        place.way_back.tidy([str(place.ssh)])
    assert place.files() == {"sshd_config": OLD}
    assert not place.way_back.pending


def test_a_second_change_before_the_first_was_confirmed_goes_back_to_what_was_there_first(place: Place) -> None:
    place.begin(place.own)
    land({str(place.own): "first\n"}, str(place.main))
    place.begin(place.own, place.main, seconds=40)
    land({str(place.own): "second\n", str(place.main): MINE}, str(place.main))
    assert "OnActiveSec=40s" in (place.units / _sshd_way_back.TIMER).read_text()
    assert place.fire() == 0
    assert place.files() == {"sshd_config": OLD}
    assert "within 40 seconds" in (place.way_back.rolled_back() or "")


def test_names_with_blanks_and_line_feeds(place: Place) -> None:
    odd = place.ssh / "a b\n"
    odd.write_text("was\n")
    place.begin(odd)
    land({str(odd): "is\n"}, str(place.main))
    assert place.fire() == 0 and odd.read_text() == "was\n"


def test_without_a_timer_nothing_is_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1 if words[0] == "restart" else 0, "", "Unit is masked.\n")

    monkeypatch.setattr(_sshd_way_back, "systemctl", systemctl)
    with pytest.raises(SshdError, match="cannot be started, so nothing was changed: Unit is masked"):
        place.begin()
    assert not place.way_back.pending and list(place.units.iterdir()) == []


@pytest.mark.parametrize("where", ["units", "state"])
def test_what_cannot_be_saved_is_not_changed(place: Place, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    real = os.rename

    def rename(source: str, target: str) -> None:
        if str(getattr(place, where)) in target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(SshdError, match=r"so nothing was changed: No space left.*Free some space"):
        place.begin()
    assert place.files() == {"sshd_config": OLD} and not place.way_back.pending
    assert list(place.units.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_or_not_at_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SshdError, match=r"sshd_config cannot be written: No space left on device\. Free some space"):
        write(str(place.main), MINE, 0o644, like=str(place.main))
    assert place.files() == {"sshd_config": OLD}


def test_a_link_in_the_place_of_a_draft_is_not_followed(place: Place) -> None:
    (place.root / "else").write_text("keep")
    (place.ssh / f"{_sshd_way_back.NEW}sshd_config").symlink_to(place.root / "else")
    write(str(place.main), MINE, 0o644, like=str(place.main))
    assert (place.root / "else").read_text() == "keep" and place.main.read_text() == MINE


def test_only_a_session_that_is_newer_than_the_change_proves_it(place: Place) -> None:
    place.begin()
    assert not place.way_back.proven_by(1e9)
    place.way_back.landed()
    assert place.way_back.proven_by(1e9) and place.way_back.proven_by(None)
    assert not place.way_back.proven_by(0.0)
    (place.state / "saved" / "landed").write_text("another-boot 99999999999\n")
    assert place.way_back.proven_by(0.0)


def test_two_runs_wait_for_each_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sshd_way_back, "LOCK_PATIENCE", 0)
    with (
        place.way_back.lock(),
        pytest.raises(SshdError, match="another run has been changing sshd"),
        WayBack(str(place.state)).lock(),
    ):
        pass
