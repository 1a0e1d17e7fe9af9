# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a measurement belong to its run, with everything that the run started?"""

from __future__ import annotations

import os
import pathlib
import sys
import time

import pytest
from harness import Broken, Sample, alternating, measure, median

ENV = {"PATH": os.environ["PATH"]}
BURN = "import os\nwhile sum(os.times()[:2]) < {seconds}: pass\n"
HOLD = "held = bytearray({mb} << 20)\n"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_cpu_and_memory_are_those_of_one_run() -> None:
    big = measure(python(HOLD.format(mb=120) + BURN.format(seconds=0.2)), env=ENV)
    assert big.peak_mb >= 120
    assert big.cpu >= 0.2
    small = measure(python(""), env=ENV)
    assert small.peak_mb < 40
    assert small.cpu < 0.2


def test_memory_of_the_bench_itself_is_no_floor() -> None:
    held = bytearray(100 << 20)
    assert measure(["true"], env=ENV).peak_mb < 40
    assert held


def test_grandchildren_count() -> None:
    inner = HOLD.format(mb=60) + BURN.format(seconds=0.2)
    found = measure(python(f"import subprocess, sys\nsubprocess.run({python(inner)!r}, check=True)"), env=ENV)
    assert found.peak_mb >= 60
    assert found.cpu >= 0.2


def test_what_outlives_the_command_counts_and_is_left_alone(tmp_path: pathlib.Path) -> None:
    """As a master of ssh does, which holds the output open, too."""
    done, over = tmp_path / "done", tmp_path / "over"
    orphan = BURN.format(seconds=0.2) + (
        f"import pathlib, time\npathlib.Path({str(done)!r}).touch()\n"
        f"while not pathlib.Path({str(over)!r}).exists(): time.sleep(0.02)\n"
        f"pathlib.Path({str(done)!r}).unlink()\n"
    )
    parent = (
        "import os, subprocess, time\n"
        f"subprocess.Popen({python(orphan)!r}, start_new_session=True)\n"
        f"while not os.path.exists({str(done)!r}): time.sleep(0.02)\n"
    )
    try:
        found = measure(python(parent), env=ENV, keep_stdout=True, timeout=30)
        assert found.cpu >= 0.2
        assert done.exists()
    finally:
        over.touch()
    deadline = time.monotonic() + 10
    while done.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not done.exists(), "it was not left alone"


def test_memory_of_all_processes() -> None:
    inner = HOLD.format(mb=40) + "print(flush=True)\ninput()"
    both = (
        "import subprocess, time\n"
        f"started = [subprocess.Popen({python(inner)!r}, stdin=-1, stdout=-1) for _ in 'ab']\n"
        "for one in started: one.stdout.readline()\n"
        "time.sleep(0.5)\n"
        "for one in started: one.communicate(b'\\n')\n"
    )
    found = measure(python(both), env=ENV, sample_every=0.05)
    assert found.peak_mb < 80
    assert found.tree_mb is not None
    assert found.tree_mb >= 80
    assert measure(["true"], env=ENV).tree_mb is None


def test_output_and_status() -> None:
    found = measure(["sh", "-c", "echo told; exit 3"], env=ENV, statuses=(3,), keep_stdout=True)
    assert (found.stdout, found.status) == ("told\n", 3)
    with pytest.raises(Broken, match=r"ended with 3: it broke"):
        measure(["sh", "-c", "echo it broke >&2; exit 3"], env=ENV)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(Broken, match="ended with 127: no-such-program: No such file"):
        measure(["no-such-program"], env=ENV)


def test_a_program_that_does_not_end(tmp_path: pathlib.Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(Broken, match=r"still running after 0\.3 s"):
        measure(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], env=ENV, timeout=0.3)
    assert not pathlib.Path(f"/proc/{pid.read_text().strip()}").exists()


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str) -> Sample:
        order.append(name)
        return Sample(wall=len(order), cpu=0, peak_mb=0)

    ours, theirs = alternating(3, lambda: side("ours"), lambda: side("theirs"))
    assert order == ["ours", "theirs"] * 3
    assert (median(ours, "wall"), median(theirs, "wall")) == (3, 4)
