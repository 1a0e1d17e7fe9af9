# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How are gates run, and what is said of them afterwards?

A gate passes, fails, or is not run for a reason that is told. One that fails does not keep the others from running. Each writes
a log of its own; what a gate could only do in part is told too. Two gates run at a time, those that fill the machine alone.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "test"
TAIL = 60
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
COLOURS = {PASSED: "32", FAILED: "31", NOT_RUN: "33"}


class Failed(Exception):
    """The gate found a fault."""


class NotRun(Exception):
    """The gate cannot run here; the text says why."""


class Log:
    """What one gate does: runs programs, keeps what they print, and remembers what was left out."""

    def __init__(self, path: pathlib.Path, env: Mapping[str, str], show: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.env = dict(env)
        self.note = ""
        self.left_out: list[str] = []
        self._show = show
        self._file = path.open("w", encoding="utf-8")

    def write(self, text: str) -> None:
        """Add text to the log."""
        self._file.write(text)
        self._file.flush()
        if self._show:
            sys.stdout.write(text)
            sys.stdout.flush()

    def run(
        self,
        *command: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: pathlib.Path = ROOT,
        timeout: float = 1200,
    ) -> str:
        """Run a program and return what it printed; any exit status but 0 fails the gate. `timeout` is in seconds."""
        words = [os.fspath(word) for word in command]
        self.write(f"$ {shlex.join(words)}\n")
        lines: list[str] = []
        with (
            subprocess.Popen(
                words,
                cwd=cwd,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            ) as process,
            _Running(process, timeout) as running,
        ):
            for line in process.stdout or ():
                lines.append(line)
                self.write(line)
        if running.too_long:
            raise Failed(f"{words[0]} did not end within {timeout:.0f} s")
        if process.returncode:
            raise Failed(f"{pathlib.Path(words[0]).name} ended with status {process.returncode}")
        return "".join(lines)

    def tail(self) -> str:
        """The end of the log."""
        self._file.flush()
        return "\n".join(self.path.read_text(encoding="utf-8").splitlines()[-TAIL:])

    def close(self) -> None:
        """No more is written."""
        self._file.close()


class _Running:
    """A process of a gate, as long as it runs: ended with its children when it takes too long or the user gives up."""

    all: dict[int, subprocess.Popen[str]] = {}  # noqa: RUF012

    def __init__(self, process: subprocess.Popen[str], timeout: float) -> None:
        self.process = process
        self.too_long = False
        self._timer = threading.Timer(timeout, self._end)

    def _end(self) -> None:
        self.too_long = True
        end(self.process)

    def __enter__(self) -> Self:
        self.all[self.process.pid] = self.process
        self._timer.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._timer.cancel()
        self.process.wait()
        del self.all[self.process.pid]


def end(process: subprocess.Popen[str]) -> None:
    """Ask a process to stop, so that it stops what it has started; insist after 20 s."""
    for number, patience in ((signal.SIGINT, 20.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@dataclass(frozen=True)
class Gate:
    """One check: `run` raises Failed or NotRun. `alone`: it uses all of the machine. `group`: the word that selects it."""

    name: str
    group: str
    run: Callable[[Log], None]
    alone: bool = False


@dataclass
class Result:
    """What became of a gate."""

    gate: Gate
    status: str = NOT_RUN
    note: str = "stopped before it was its turn"
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)


def paint(status: str, text: str) -> str:
    """Colour a text by status, on a terminal."""
    return f"\033[{COLOURS[status]}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _run(result: Result, env: Mapping[str, str], show: bool, speak: threading.Lock) -> None:
    gate, started = result.gate, time.monotonic()
    log = Log(LOGS / (re.sub(r"[^a-z0-9.]+", "-", gate.name.lower()).strip("-") + ".log"), env, show)
    try:
        gate.run(log)
        result.status, result.note = PASSED, log.note
    except NotRun as reason:
        result.status, result.note = NOT_RUN, str(reason)
    except Failed as fault:
        result.status, result.note = FAILED, "; ".join(filter(None, (log.note, str(fault))))
        log.write(f"{fault}\n")
    except (OSError, ValueError, KeyError, LookupError) as fault:
        result.status, result.note = FAILED, f"{type(fault).__name__}: {fault}"
        log.write(f"{result.note}\n")
    result.left_out = log.left_out
    result.seconds = time.monotonic() - started
    with speak:
        if result.status == FAILED and not show:
            print(f"\n---- {gate.name}: the end of {log.path.relative_to(ROOT)}\n{log.tail()}\n----\n")
        print(f"{paint(result.status, result.status):8} {result.seconds:6.1f} s  {gate.name}", flush=True)
    log.close()


def run(gates: Sequence[Gate], env: Mapping[str, str]) -> int:
    """Run the gates, print the summary in the gates' order, and return the exit status: 1 when any of them failed."""
    results = [Result(gate) for gate in gates]
    show, speak, stopped = len(gates) == 1, threading.Lock(), False
    with ThreadPoolExecutor(2) as pool:
        try:
            for future in [pool.submit(_run, result, env, show, speak) for result in results if not result.gate.alone]:
                future.result()
            for result in results:
                if result.gate.alone:
                    pool.submit(_run, result, env, show, speak).result()
        except KeyboardInterrupt:
            stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_Running.all.values()):
                end(process)
    summarise(results)
    return 130 if stopped else int(any(result.status == FAILED for result in results))


def summarise(results: Sequence[Result]) -> None:
    """Print what became of every gate, and what was left out with its reason."""
    width = max(len(result.gate.name) for result in results)
    print("\n" + "=" * 100)
    for result in results:
        status = paint(result.status, f"{result.status:8}")
        print(f"{status} {result.gate.name:{width}} {result.seconds:6.1f} s  {result.note}".rstrip())
    for result in results:
        for reason in result.left_out:
            print(f"{paint(NOT_RUN, f'{NOT_RUN:8}')} {result.gate.name}: {reason}")
    count = {status: sum(result.status == status for result in results) for status in COLOURS}
    print("=" * 100)
    print(", ".join(f"{count[status]} {status}" for status in COLOURS))
