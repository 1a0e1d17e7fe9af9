# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in docs/benchmarks.md?

One part for each bench, between two markers, with the command, the date and the machine that made it: a run of one bench
replaces its own part and leaves the others as they are. No path and no name of a host gets in.
"""

from __future__ import annotations

import datetime
import getpass
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import Line, Section

ROOT = Path(__file__).resolve().parents[2]
_HEAD = """\
# Benchmarks

Written by `make bench` (`python tests/bench`) on the lab, a stand-in for Azure on the loopback interface: the lab shares the machine's cores with
what is measured, and CPU and memory of the lab are not counted. Each figure is the median of several runs; sides that are compared run in turn.
CPU is user and system time of a program and everything it starts. Memory is the peak of the largest process, unless the line says
otherwise. The ratio is ours divided by what stands beside it. A target that is not met is shown as such.
"""
_PART = re.compile(r"^<!-- bench: (\w+) -->\n(.*?)^<!-- end: \1 -->\n", re.MULTILINE | re.DOTALL)
_COLUMNS = ("", "ours", "beside", "ratio", "target", "met")


@dataclass
class Outcome:
    """What one bench brought: its sections, and why it broke if it did."""

    sections: list[Section] = field(default_factory=list)
    broken: str | None = None

    @property
    def missed(self) -> list[Line]:
        return [line for section in self.sections for line in section.lines if line.met is False]


def machine() -> str:
    """What the figures were made on."""
    model = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.partition(",")[0]
    return ", ".join(
        [
            f"{os.cpu_count()} cores ({model.group(1).strip() if model else platform.machine()})",
            f"{int(memory.group(1)) / 2**20:.0f} GB" if memory else "memory unknown",
            f"Python {platform.python_version()}",
            f"ansible-core {importlib.metadata.version('ansible-core')}",
            ssh.replace("_", " "),
        ]
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


def anonymous(text: str, scratch: Path | None = None) -> str:
    """`text` without places and names of this machine."""
    places = {str(scratch or ""): "SCRATCH", str(ROOT): ".", sys.prefix: "PYTHON", str(Path.home()): "~"}
    for place in sorted(filter(None, places), key=len, reverse=True):
        text = text.replace(place, places[place])
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "HOST", text).replace(f"/{getpass.getuser()}/", "/USER/")


def ratio(value: float | None) -> str:
    """Three significant digits, and no more after the point than they need."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def table(lines: Sequence[Line]) -> str:
    met = {True: "yes", False: "**no**", None: ""}
    rows = [(line.name, line.ours, line.theirs, ratio(line.ratio), line.target, met[line.met]) for line in lines]
    cells = [_COLUMNS, ("---",) * len(_COLUMNS), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in cells)


def part(name: str, outcome: Outcome, *, command: str, made_on: str, date: datetime.date, quick: bool = False) -> str:
    """The part of one bench."""
    blocks = [
        f"## {name}\n\n`{command}`, {date.isoformat()}: {made_on}.\n",
        *(["A quick run: these figures show that the bench works and mean nothing else.\n"] if quick else []),
        *(
            f"### {section.title}\n\n{table(section.lines)}" + "".join(f"\n{note}\n" for note in section.notes)
            for section in outcome.sections
        ),
    ]
    if outcome.broken is not None:
        fenced = outcome.broken.replace("```", "'''")
        blocks.append(f"**This bench broke; what is missing above was not measured.**\n\n```text\n{fenced}\n```\n")
    return f"<!-- bench: {name} -->\n" + "\n".join(blocks) + f"<!-- end: {name} -->\n"


def merge(old: str, parts: Mapping[str, str], order: Iterable[str]) -> str:
    """The whole document: parts that were made now, and those of the old document that were not."""
    kept = {found.group(1): found.group(0) for found in _PART.finditer(old)}
    return "\n".join([_HEAD, *((kept | dict(parts))[name] for name in order if name in kept or name in parts)])


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
