# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do fault rules strike whom and as often as they say?"""

from __future__ import annotations

import pytest

from arclab.faults import Fault, Faults

PATH = "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/web01/extensions/X"


def take(faults: Faults, **asked: str) -> int | None:
    fault = faults.take(**{"kind": "arm", "method": "GET", "path": PATH, "machine": "web01", **asked})
    return fault.id if fault else None


def only(**rule: object) -> Faults:
    faults = Faults()
    faults.add(Fault.from_json({"status": 503, **rule}))
    return faults


@pytest.mark.parametrize(
    ("rule", "asked", "strikes"),
    [
        ({}, {}, True),
        ({}, {"kind": "relay"}, False),
        ({"kind": "graph"}, {"kind": "graph"}, True),
        ({"method": "put"}, {"method": "PUT"}, True),
        ({"method": "PUT"}, {}, False),
        ({"path": "EXTENSIONS/x$"}, {}, True),
        ({"path": "runCommands"}, {}, False),
        ({"machine": "WEB01"}, {}, True),
        ({"machine": "web0"}, {}, False),
        ({"principal": "p1"}, {"principal": "p1"}, True),
        ({"principal": "p1"}, {}, False),
    ],
)
def test_a_rule_matches_what_it_names(rule: dict[str, str], asked: dict[str, str], strikes: bool) -> None:
    assert (take(only(**rule), **asked) is not None) is strikes


def test_skip_and_times_are_counted_by_matching_requests() -> None:
    faults = only(skip=1, times=2, method="GET")
    assert take(faults, method="PUT") is None
    assert [take(faults) is not None for _number in range(5)] == [False, True, True, False, False]


def test_probability_is_repeatable() -> None:
    first, second = only(probability=0.5, seed=3), only(probability=0.5, seed=3)
    draws = [take(first) is not None for _number in range(50)]
    assert draws == [take(second) is not None for _number in range(50)]
    assert 10 < sum(draws) < 40


def test_the_first_rule_that_strikes_wins() -> None:
    faults = Faults()
    faults.add(Fault.from_json({"status": 500, "times": 1}))
    faults.add(Fault.from_json({"status": 503}))
    assert [take(faults), take(faults)] == [1, 2]


def test_rules_can_be_cleared_one_by_one() -> None:
    faults = Faults()
    for status in (500, 502, 503):
        faults.add(Fault.from_json({"status": status}))
    assert faults.clear(2) == 1
    assert [rule.id for rule in faults.rules] == [1, 3]
    assert faults.clear() == 2
    assert take(faults) is None


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"statsu": 503}, "statsu"),
        ({"kind": "dns", "status": 1}, "kind"),
        ({"method": "GET"}, "effect"),
        ({"status": 500, "when": "later"}, "when"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(rule: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault.from_json(rule)
