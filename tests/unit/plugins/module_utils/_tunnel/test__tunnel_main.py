# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are commands that cannot be answered with a sentence, and files put where nobody can put a trap?"""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel import _main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tunnel", "web01"], "There is nothing to forward."),
        (["tunnel", "web01", "-L", "80"], "-L 80: that is no forward."),
        (["tunnel", "web01", "-L", "0:a:1", "--local-port", "1"], "--local-port and --port are for --service WAC."),
        (["tunnel", "web01", "-L", "0:a:1", "--service", "WAC"], "-L is for ssh"),
        (["tunnel", "web01", "-L", "0:a:1", "--", "x"], "'x' is one argument too many."),
        (["tunnel", "web01", "-L", "192.0.2.1:0:a:1"], "192.0.2.1 is no address of this computer."),
        (["rdp", "web01", "--", "/f"], "Install FreeRDP, or leave them out."),
    ],
)
def test_what_cannot_be_is_told_before_anything_happens(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert _main.main(arguments) == 2
    told = capfd.readouterr().err
    assert told.startswith("arcfleet.ssh: ")
    assert sentence in told


@pytest.mark.parametrize(
    "arguments",
    [[], ["tunnel"], ["rdp", "web01", "--port", "x"], ["tunnel", "web01", "--secret", "s"], ["dance", "web01"]],
)
def test_the_usage_is_shown_for_the_rest(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main.main(arguments)
    assert ended.value.code == 2
    assert "usage: arcfleet" in capsys.readouterr().err


def test_other_computers_are_let_in_by_name_only_and_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # It goes no further than to the question for ssh, which is not there.
    monkeypatch.setenv("PATH", "")
    _main.main(["tunnel", "web01", "-L", "0:a:1", "-L", "localhost:0:a:1", "-L", "[::1]:0:a:1"])
    assert "Warning" not in capfd.readouterr().err
    for arguments in (["-L", "*:0:a:1"], ["-L", "0:a:1", "--bind", "0.0.0.0"]):
        _main.main(["tunnel", "web01", *arguments])
        assert "Warning: other computers can use this tunnel, too" in capfd.readouterr().err


def test_a_signal_ends_what_goes_on() -> None:
    cleaned = []

    async def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)
        return 7

    assert asyncio.run(_main._until_told(work())) == 0
    assert cleaned == [True]


def test_a_file_is_its_owner_s_whatever_was_there(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "win01.rdp"
    path.touch(mode=0o644)
    _main._write(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["win01.rdp"]
    tmp_path.chmod(0o777)
    with pytest.raises(InputError, match="others may write to the directory"):
        _main._write(str(path), b"trap")
    assert path.read_bytes() == b"new"
