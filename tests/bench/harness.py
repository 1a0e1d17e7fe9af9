# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How is one thing measured beside another?

A measurement is a program that runs to its end: wall clock, CPU seconds of it and all its descendants, peak memory of
its largest process (see launcher.py). Two things that are compared run alternately, several times, in one run; the medians are compared, so
that a busy machine disturbs both sides alike. Nothing here judges by time alone: a target is a ratio, or a figure that
the issue of the machine's owner names for this kind of machine.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_LAUNCHER = Path(__file__).resolve().parent / "launcher.py"


class Broken(Exception):
    """A program under measurement did not do its work: its figures would mean nothing."""


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall clock, seconds of CPU (user and system, with all descendants), peak MB of its largest
    process, and of all processes together (`tree_mb`, shared pages counted once; `None` unless it was sampled)."""

    wall: float
    cpu: float
    peak_mb: float
    stdout: str = ""
    tree_mb: float | None = None
    status: int = 0


@dataclass(frozen=True)
class Settings:
    """`scratch` is an empty directory of mode 0700 for this bench; `runs` how often each side runs; `quick` a smoke run,
    `full` one that also takes the hours that some lines need."""

    scratch: Path
    runs: int = 3
    quick: bool = False
    full: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table: `ours` beside `theirs` as texts with units, their `ratio`, the `target` and whether it is met.

    The ratio is ours divided by theirs, so less is better for all but throughput, and a target of "4 times less" is
    written `≤ 0.25`. `ratio` and `met` are `None` where there is nothing to compare or no target.
    """

    name: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Section:
    """One table of docs/benchmarks.md; `notes` are sentences below it."""

    title: str
    lines: Sequence[Line]
    notes: Sequence[str] = field(default_factory=tuple)


def measure(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    statuses: Sequence[int] = (0,),
    keep_stdout: bool = False,
    timeout: float = 3600.0,
    sample_every: float = 0.0,
) -> Sample:
    """Run `command` to its end, seconds `timeout` at most. Raises Broken when its exit status is none of `statuses`.

    `sample_every` seconds the memory of the whole tree of processes is summed up; that takes a little CPU beside them.
    """
    words = [os.fspath(word) for word in command]
    reading, writing = os.pipe()
    # Files, not pipes: what outlives the command (a master of ssh) may hold its output open for ever.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, os.fdopen(reading, "rb") as result:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _LAUNCHER, str(writing), str(timeout), str(sample_every), *words],
                env=dict(env),
                cwd=cwd,
                stdin=stdin,
                stdout=output if keep_stdout else subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        with process:
            try:
                told = result.read()
            except BaseException:
                process.terminate()
                raise
        stdout, stderr = _text(output), _text(errors)
    if not told:
        raise Broken(f"{shlex.join(words)} was interrupted: {stderr[-2000:]}")
    figures = json.loads(told)
    if figures["timed_out"]:
        raise Broken(f"{shlex.join(words)} was still running after {timeout:g} s: {stderr[-2000:]}")
    if figures["status"] not in statuses:
        said = (stderr or stdout)[-2000:]
        raise Broken(f"{shlex.join(words)} ended with {figures['status']}: {said}")
    return Sample(figures["wall"], figures["cpu"], figures["peak_mb"], stdout, figures["tree_mb"], figures["status"])


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def alternating(runs: int, *sides: Callable[[], Sample]) -> list[list[Sample]]:
    """Each side measured `runs` times, in turn."""
    samples: list[list[Sample]] = [[] for _side in sides]
    for _run in range(runs):
        for index, side in enumerate(sides):
            samples[index].append(side())
    return samples


def median(samples: Sequence[Sample], figure: str) -> float:
    """The median of `wall`, `cpu`, `peak_mb` or `tree_mb`."""
    return float(statistics.median(getattr(sample, figure) for sample in samples))
