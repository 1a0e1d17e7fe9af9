# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does it take to keep a fleet in order for a month, and what does an hour cost in which nothing happens?

The long form of tests/integration/test_soak.py: what drifts, what the runs find, and whether the reports tell all of it once. And the playbook
`arcfleet.ssh.enforce` on a fleet of ten thousand that is in order, by its ledger and without one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator

from harness import Line, Sample, Section, Settings, alternating, measure, median
from soaking import HALF_A_DAY, Day, Soak

from arclab.client import Lab
from on_lab import ansible, environment

SEED = 20261121
# What an hourly run on a quiet subscription may ask of Azure.
REQUESTS = 100


def sections(settings: Settings) -> Iterator[Section]:
    """The quiet hour first, then the month."""
    yield quiet(settings, 6 if settings.quick else 10_000)
    # The short form of the month is a test.
    if not settings.quick:
        yield month(settings, machines=100, days=30)


def quiet(settings: Settings, machines: int) -> Section:
    """A run that finds nothing, beside one that has to read everything."""
    lab = Lab.up(settings.scratch / "quiet", machines=machines)
    try:
        directory = settings.scratch / "ledger"
        ansible(
            lab, "ansible-playbook", *enforce(directory, arc_enforcement_mode="repair", arc_enforcement_confirmed=True)
        )
        # The writes of the first run are news to the second.
        lab.advance(HALF_A_DAY)
        ansible(lab, "ansible-playbook", *enforce(directory))
        lab.advance(3600)
        requests: list[list[int]] = [[], []]

        def run(side: int, **more: object) -> Sample:
            lab.clear_journal()
            command = ["ansible-playbook", "-i", lab.env["ARCLAB_INVENTORY"], *enforce(directory, **more)]
            sample = measure(command, env=environment(lab), cwd=lab.state_dir)
            requests[side].append(len(lab.journal(kind="arm")))
            return sample

        runs = 1 if settings.quick else settings.runs
        by_ledger, whole = alternating(runs, lambda: run(0), lambda: run(1, arc_enforcement_full_every=0))
    finally:
        lab.down()
    asked, all_asked = max(requests[0]), max(requests[1])
    return Section(
        f"Enforcement of {machines:,} machines in which nothing happened",
        [
            Line(
                "requests, inventory included",
                f"{asked}",
                f"every machine read: {all_asked}",
                asked / all_asked,
                f"≤ {REQUESTS}",
                asked <= REQUESTS,
            ),
            *(
                Line(name, f"{ours:.1f} s", f"{theirs:.1f} s", ours / theirs)
                for name, ours, theirs in (
                    ("wall", median(by_ledger, "wall"), median(whole, "wall")),
                    ("CPU", median(by_ledger, "cpu"), median(whole, "cpu")),
                )
            ),
        ],
        [
            "One subscription, a quiet activity log. The lab enforces no token buckets: under Azure's, reading 10,000 machines takes 7 minutes."
        ],
    )


def enforce(directory: object, **more: object) -> list[str]:
    """The arguments of a run that keeps its ledger in `directory`."""
    return ["arcfleet.ssh.enforce", "-e", json.dumps({"arc_enforcement_directory": str(directory), **more})]


def month(settings: Settings, machines: int, days: int) -> Section:
    """The table of a soak."""
    lab = Lab.up(settings.scratch / "soak", machines=machines, operation_seconds=0.05)
    try:
        soak = Soak(lab, SEED)
        for number in range(1, days + 1):
            soak.live(Day(number))
        wrong, needless, told = soak.wrong(), soak.needless(), soak.told()
    finally:
        lab.down()
    untold = sum((soak.drifted - told).values())
    twice = sum((told - soak.drifted).values())
    later = soak.days[1:] or soak.days
    return Section(
        f"{days} days of {machines} machines, each with drift, throttling, broken answers and expired tokens",
        [
            _count("resources that are not what they shall be, at the end", len(wrong)),
            _count("differences that no report tells", untold),
            _count("differences that are told more than once", twice),
            _count("writes to what was right already", len(needless)),
            Line("differences told as mended", f"{sum(told.values())}"),
            Line(
                "changes that the activity log tells; does not tell", f"{_sum(later, 'told')}; {_sum(later, 'silent')}"
            ),
            Line("machines that appeared; vanished", f"{_sum(later, 'came')}; {_sum(later, 'went')}"),
            Line("controllers killed in the middle of a repair", f"{_sum(later, 'killed')}"),
            Line("runs that left something to the next", f"{_sum(later, 'unfinished')}"),
            Line("requests of a run by the ledger; of a full read", f"{_median(later, 0)}; {_median(later, -1)}"),
        ],
        [
            "Two runs a day in mode repair, of which one goes by the ledger and one reads everything; the lab's clock goes ahead.",
            f"Seed {SEED}. The short form is in `make test`.",
        ],
    )


def _count(name: str, found: int) -> Line:
    return Line(name, str(found), target="0", met=found == 0)


def _sum(days: list[Day], name: str) -> int:
    return sum(getattr(day, name) for day in days)


def _median(days: list[Day], which: int) -> str:
    return f"{statistics.median(day.requests[which] for day in days):.0f}"
