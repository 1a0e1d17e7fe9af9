# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How close does a run come to the time that Azure's token buckets allow at best?

The playbook `arcfleet.ssh.enable` on labs that enforce the buckets, beside the bound that follows from the requests it made.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import arm
from control_plane import LATENCY_MS, enablement, figure
from harness import Line, Section, Settings


def sizes(settings: Settings) -> tuple[int, ...]:
    if settings.quick:
        return (6,)
    return (200, 1000, 10_000) if settings.full else (200, 1000)


def sections(settings: Settings) -> Iterator[Section]:
    """Wall time beside the bound of ARM's token buckets."""
    lines = []
    for machines in sizes(settings):
        for kind, runs in enablement(settings, machines, throttle=True).items():
            least = statistics.median(arm.bound(run.requests.buckets) for run in runs)
            wall = figure(runs, "wall")
            last = runs[-1].requests
            lines.append(
                Line(
                    f"{machines:,} machines, {kind}: wall",
                    f"{wall:.1f} s ({last})",
                    f"{least:.1f} s" if least else "0 s: the buckets hold all requests",
                    wall / least if least else None,
                    "≤ 1.1" if least else "",
                    wall <= 1.1 * least if least else None,
                )
            )
    notes = [
        f"""\
Beside: the least time that ARM's token buckets allow for the requests that were made, if all are full at the start (reads 250 and 25 a
second, writes 200 and 10 a second, for each subscription and principal). {LATENCY_MS:g} ms of latency; the lab enforces the buckets."""
    ]
    if 10_000 not in sizes(settings):
        notes.append("""\
10,000 machines are not measured here: Azure lets their 20,000 writes through in 33 minutes, each time (`--full` does). The next table has
them without token buckets.""")
    yield Section("Enable, at the pace that Azure allows", lines, notes)
