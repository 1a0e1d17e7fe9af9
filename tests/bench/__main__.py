# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast is the collection, measured beside what users have today?

    python tests/bench [NAME...] [--runs N] [--quick] [--full] [--output FILE]

Runs the benches (all without a NAME), one after the other, and writes their tables into docs/benchmarks.md; what was
not run keeps its tables. `--quick` is a smoke run with tiny fleets, printed and not written unless there is an --output.
`--full` adds the lines that take hours. Exit status: 0, 1 if a bench broke, 3 if a target was missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import logging
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / folder) for folder in ("lab", "integration", "tools"))]

import report
from harness import Settings

BENCHES = ("limits", "control_plane", "inventory", "connect", "plain_ssh", "soak")
BROKEN, MISSED = 1, 3
log = logging.getLogger("bench")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=(__doc__ or "").partition("\n\n")[2])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}")
    parser.add_argument("--runs", type=int, default=3, help="how often each side runs (default: 3)")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--full", action="store_true", help="also what takes hours")
    parser.add_argument("--output", type=Path, help="default: docs/benchmarks.md, or only print in a smoke run")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}")
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    if asked.output is not None and not asked.output.parent.is_dir():
        parser.error(f"there is no folder {asked.output.parent}")
    asked.names = [name for name in BENCHES if name in asked.names or not asked.names]
    return asked


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(name: str, settings: Settings) -> report.Outcome:
    """One bench to its end, however it ends."""
    outcome = report.Outcome()
    try:
        for section in importlib.import_module(name).sections(settings):
            if settings.quick:
                # The targets are for real sizes.
                unjudged = [dataclasses.replace(line, met=None) for line in section.lines]
                section = dataclasses.replace(section, lines=unjudged)
            outcome.sections.append(section)
            say(f"{name}: {section.title}\n{report.table(section.lines)}")
    except Exception as exc:  # whatever breaks a bench, the others are worth having
        log.exception("%s broke", name)
        outcome.broken = report.anonymous(f"{type(exc).__name__}: {exc}", settings.scratch)
    return outcome


def command_of(asked: argparse.Namespace, name: str) -> str:
    """The command that makes this part of the file again."""
    flags = [flag for flag, given in (("--quick", asked.quick), ("--full", asked.full)) if given]
    return shlex.join(["python", "tests/bench", name, "--runs", str(asked.runs), *flags])


def main() -> int:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(128 + signal.SIGTERM))
    outcomes: dict[str, report.Outcome] = {}
    parts: dict[str, str] = {}
    output = asked.output or (None if asked.quick else report.ROOT / "docs" / "benchmarks.md")
    for name in asked.names:
        say(f"{name} begins")
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            settings = Settings(
                Path(scratch), runs=1 if asked.quick else asked.runs, quick=asked.quick, full=asked.full
            )
            outcomes[name] = run(name, settings)
        parts[name] = report.part(
            name,
            outcomes[name],
            command=command_of(asked, name),
            made_on=report.machine(),
            date=datetime.date.today(),
            quick=asked.quick,
        )
        if output is None:
            print(parts[name], flush=True)
        else:
            # After each bench: hours of measuring are not lost with what comes later.
            old = output.read_text("utf-8") if output.exists() else ""
            report.write(output, report.merge(old, parts, BENCHES))
    for name, outcome in outcomes.items():
        for line in outcome.missed:
            say(f"{name}: missed: {line.name}: {line.ours}, target {line.target}")
    if any(outcome.broken is not None for outcome in outcomes.values()):
        return BROKEN
    return MISSED if any(outcome.missed for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
