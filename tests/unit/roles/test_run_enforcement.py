# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the program that systemd and cron start tell drift from failure, and let one run at a time begin?"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import pathlib
import sys

import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "roles" / "arc_enforcement" / "files" / "run_enforcement.py"
DRIFTED = {"drift_left": True, "problems": [], "machines": {"a": {"status": "drifted"}}, "subscriptions": {}}
ORDERED = {"drift_left": False, "problems": [], "machines": {"a": {"status": "in_order"}}, "subscriptions": {}}


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("run_enforcement", PROGRAM)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def run(program, tmp_path):
    """Run a shell command with one report before and another one from it; the exit status."""

    def run(status, *, before=None, after=None, command=None):
        report = tmp_path / "drift.json"
        if before is not None:
            report.write_text(json.dumps(before))
        new = tmp_path / "new"
        new.write_text(after if isinstance(after, str) else json.dumps(after))
        words = command or ["sh", "-c", f"{'' if after is None else f'mv {new} {report};'} exit {status}"]
        return program.main(["--lock", str(tmp_path / "lock"), "--report", str(report), "--", *words])

    return run


@pytest.mark.parametrize(
    ("status", "before", "after", "expected"),
    [
        (0, None, ORDERED, 0),
        (0, ORDERED, ORDERED, 0),
        # No machine was there to look at.
        (0, ORDERED, None, 66),
        (0, None, None, 66),
        (2, ORDERED, DRIFTED, 10),
        (4, None, DRIFTED, 10),
        # The report is of an earlier run.
        (2, DRIFTED, None, 2),
        (2, None, {**DRIFTED, "problems": ["A login failed."]}, 2),
        (2, None, {**DRIFTED, "machines": {"a": {"status": "drifted"}, "b": {"status": "failed"}}}, 2),
        (2, None, {**DRIFTED, "subscriptions": {"s": {"status": "failed"}}}, 2),
        (2, None, ORDERED, 2),
        (2, None, "half a rep", 2),
        (2, None, [], 2),
        (250, None, None, 250),
    ],
)
def test_the_status_says_what_became_of_the_run(run, capfd, status, before, after, expected):
    assert run(status, before=before, after=after) == expected
    assert bool(capfd.readouterr().err) == bool(expected)


def test_a_command_that_is_missing_and_one_that_is_killed_are_told(run, capfd):
    assert run(0, command=["/nowhere/ansible-playbook"]) == 127
    assert "/nowhere/ansible-playbook cannot be run: No such file or directory." in capfd.readouterr().err
    assert run(0, command=["sh", "-c", "kill -TERM $$"]) == 143
    assert "signal 15" in capfd.readouterr().err


def test_a_second_run_leaves_and_does_nothing(run, tmp_path, capfd):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(0, after=ORDERED) == 75
        assert "nothing was done" in capfd.readouterr().err
        assert not (tmp_path / "drift.json").exists()
    assert run(0, after=ORDERED) == 0


def test_the_lock_is_held_as_long_as_the_command_runs(run, tmp_path):
    held = (
        f"import fcntl, os\nfcntl.flock(os.open({str(tmp_path / 'lock')!r}, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    assert run(0, command=[sys.executable, "-c", held]) == 1


def test_a_lock_that_cannot_be_made_is_named(program, tmp_path, capfd):
    words = ["--lock", str(tmp_path / "none" / "lock"), "--report", str(tmp_path / "r"), "--", "true"]
    assert program.main(words) == 1
    assert f"The lock {tmp_path}/none/lock cannot be opened" in capfd.readouterr().err
