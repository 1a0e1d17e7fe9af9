# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does docs/benchmarks.md say what was measured, and keep what was not measured again?"""

from __future__ import annotations

import datetime
import pathlib
import socket
from collections.abc import Sequence

import pytest
import report
from harness import Line, Section

ORDER = ("first", "second", "third")


def part(name: str, *sections: Section, broken: str | None = None) -> str:
    outcome = report.Outcome(list(sections), broken)
    return report.part(name, outcome, command="python x", made_on="2 cores", date=datetime.date(2026, 11, 21))


def section(title: str, lines: Sequence[Line] = ()) -> Section:
    return Section(title, lines)


def test_a_partial_run_keeps_the_other_parts() -> None:
    whole = report.merge("", {name: part(name, section("old")) for name in ORDER}, ORDER)
    again = report.merge(whole, {"second": part("second", section("new"))}, ORDER)
    assert again == whole.replace(part("second", section("old")), part("second", section("new")))
    assert again.count("### old") == 2


def test_parts_keep_their_order() -> None:
    late = report.merge("", {"third": part("third")}, ORDER)
    both = report.merge(late, {"first": part("first")}, ORDER)
    assert both.index("bench: first") < both.index("bench: third")
    assert "bench: second" not in both


def test_a_bench_that_broke_is_named() -> None:
    text = part("first", section("what worked"), broken="Broken: no such thing")
    assert "### what worked" in text
    assert "This bench broke" in text
    assert "Broken: no such thing" in text


def test_lines() -> None:
    rows = report.table(
        [
            Line("a|b", "2 s", "4 s", 0.5, "≤ 0.25", False),
            Line("much", "1 s", "0.001 s", 1000.4, "≤ 2000", True),
            Line("alone", "1 s"),
        ]
    ).splitlines()
    assert rows[2:] == [
        r"| a\|b | 2 s | 4 s | 0.500 | ≤ 0.25 | **no** |",
        "| much | 1 s | 0.001 s | 1000 | ≤ 2000 | yes |",
        "| alone | 1 s |  |  |  |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.00471, "0.00471"), (0.25, "0.250"), (1.1, "1.10"), (17.04, "17.0"), (213, "213")]
)
def test_ratios(value: float | None, text: str) -> None:
    assert report.ratio(value) == text


def test_missed_targets() -> None:
    missed = Line("slow", "9 s", target="≤ 1 s", met=False)
    outcome = report.Outcome([section("x", [Line("fast", "1 s", met=True), missed, Line("free", "1 s")])])
    assert outcome.missed == [missed]


def test_no_place_and_no_name_of_the_machine(tmp_path: pathlib.Path) -> None:
    text = f"{tmp_path}/lab {report.ROOT}/tests on {socket.gethostname()}: {pathlib.Path.home()}/x"
    assert report.anonymous(text, tmp_path) == "SCRATCH/lab ./tests on HOST: ~/x"
    assert socket.gethostname() not in report.machine()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "benchmarks.md"
    report.write(file, "old\n")
    with pytest.raises(UnicodeEncodeError):
        report.write(file, "new \udcff\n")
    assert file.read_text("utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [file]
