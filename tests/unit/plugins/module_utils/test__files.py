# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a file replaced wholly or not at all, and never where others may put one?"""

from __future__ import annotations

import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _files
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_mode(place: pathlib.Path) -> None:
    file = place / "deep" / "config"
    _files.replace_text(str(file), "a\n")
    assert (file.read_text(encoding="utf-8"), stat.S_IMODE(file.stat().st_mode)) == ("a\n", 0o600)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    _files.replace_text(str(file), "b\n")
    assert (file.read_text(encoding="utf-8"), stat.S_IMODE(file.stat().st_mode)) == ("b\n", 0o644)
    assert os.listdir(file.parent) == ["config"]


def test_a_write_that_fails_leaves_the_old_file(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "config"
    file.write_text("old", encoding="utf-8")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        _files.replace_text(str(file), "new")
    assert (os.listdir(place), file.read_text(encoding="utf-8")) == (["config"], "old")


@pytest.mark.parametrize("step", ["os.fchmod", "os.fsync", "os.replace"])
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(place: pathlib.Path, step: str) -> None:
    file = place / "file"
    file.write_text("old\n", encoding="utf-8")
    file.chmod(0o600)
    program = f"""
import os, signal
from ansible_collections.arcfleet.ssh.plugins.module_utils._files import replace_text
{step} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
replace_text({str(file)!r}, "new" * 100000)
"""
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": f"{sys.prefix}/collections"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert file.read_text(encoding="utf-8") == "old\n"
    # What is left of it is nobody else's to read, and the next run does not mind.
    for left in place.iterdir():
        assert stat.S_IMODE(left.stat().st_mode) == 0o600, left
    _files.replace_text(str(file), "new\n")
    assert file.read_text(encoding="utf-8") == "new\n"


def test_bytes_that_are_no_text_stay_as_they_are(place: pathlib.Path) -> None:
    file = place / "config"
    file.write_bytes(b"# caf\xe9\r\nHost *\n")
    text = _files.read_text(str(file))
    assert text is not None
    _files.replace_text(str(file), text + "x\n")
    assert file.read_bytes() == b"# caf\xe9\r\nHost *\nx\n"
    assert _files.read_text(str(place / "none")) is None


def test_a_link_stays_a_link(place: pathlib.Path) -> None:
    (place / "dotfiles").mkdir(mode=0o700)
    (place / "dotfiles" / "config").write_text("old", encoding="utf-8")
    (place / "config").symlink_to(place / "dotfiles" / "config")
    assert _files.settled(str(place / "config")) == str(place / "dotfiles" / "config")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_directory_that_others_may_write_to_is_refused(place: pathlib.Path, mode: int) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(InputError, match="others may write"):
        _files.settled(str(shared / "config"))
    # A link from there leads where its owner wants, a link to there to what somebody else put there.
    (shared / "link").symlink_to(place / "config")
    (place / "link").symlink_to(shared / "config")
    for link in (shared / "link", place / "link"):
        with pytest.raises(InputError, match="others may write"):
            _files.settled(str(link))


def test_a_file_in_a_directory_to_come_is_fine(place: pathlib.Path) -> None:
    assert _files.settled(str(place / "new" / "config")) == str(place / "new" / "config")
