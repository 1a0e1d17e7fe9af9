# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a repair that nobody watches do no more than it may?"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._repair import decide

SSH = {"service_name": "SSH", "port": 22}
SATURDAY = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)
NIGHTS = [{"start": "22:00", "end": "04:00", "days": ["sat"]}]


def key(number):
    return f"/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg/providers/microsoft.hybridcompute/machines/m{number}"


def fleet(count, **special):
    return [{"id": key(number), "host": f"m{number}", **special.get(f"m{number}", {})} for number in range(count)]


def found(*drifted, action="create", **more):
    """Findings in which these machines differ."""
    entries = {
        key(number): {
            "name": f"m{number}",
            "host": f"m{number}",
            "action": action,
            "before": None,
            "after": SSH,
            **more,
        }
        for number in drifted
    }
    return {"service_configuration": [{"machines": entries}]}


def decision(machines, looked, canary=None, now=SATURDAY, percent=10, always=0, confirmed=False):
    return decide(machines, looked, canary or {}, now=now, percent=percent, always=always, confirmed=confirmed)


def hosts(part):
    return sorted(part.values())


def test_what_drifted_is_repaired_and_nothing_else():
    made = decision(fleet(100), found(1, 2))
    assert hosts(made.rest) == ["m1", "m2"] and not made.canaries and not made.deferred and made.held_back is None


def test_a_machine_that_could_not_be_read_is_not_written():
    failure = {"code": "X", "message": "m1: no.", "status": 500, "request_id": None, "hint": None}
    assert not decision(fleet(100), found(1, failure=failure)).rest


@pytest.mark.parametrize(
    ("count", "drifted", "more", "repaired"),
    [
        (100, 10, {}, True),
        (100, 11, {}, False),
        (100, 11, {"confirmed": True}, True),
        (9, 1, {}, False),
        (9, 5, {"always": 5}, True),
        (9, 6, {"always": 5}, False),
        (9, 9, {"percent": 100}, True),
    ],
)
def test_a_change_of_too_much_of_the_fleet_is_none(count, drifted, more, repaired):
    made = decision(fleet(count), found(*range(drifted)), **more)
    assert len(made.rest) == (drifted if repaired else 0) and (made.held_back is None) is repaired
    if not repaired:
        assert f"{drifted} of {count} machines" in made.held_back and len(made.deferred) == drifted


def test_machines_that_wait_do_not_count_as_changes():
    special = {f"m{number}": {"mode": "report"} for number in range(20)}
    made = decision(fleet(100, **special), found(*range(21)))
    assert hosts(made.rest) == ["m20"] and made.held_back is None and len(made.deferred) == 20


@pytest.mark.parametrize(
    ("special", "moment", "why"),
    [
        ({"mode": "report"}, SATURDAY, "report"),
        ({"windows": NIGHTS}, SATURDAY.replace(hour=12), "outside of its maintenance windows .sat 22:00-04:00 UTC"),
        ({"windows": NIGHTS}, SATURDAY, None),
        ({"windows": []}, SATURDAY, None),
    ],
)
def test_a_machine_waits_for_its_time(special, moment, why):
    made = decision(fleet(100, m1=special), found(1), now=moment)
    assert (not made.rest) is (why is not None)
    if why:
        assert re.search(why, made.deferred[key(1)])


def test_a_window_that_is_none_is_told_before_the_machine_drifts():
    machines = fleet(3, m2={"windows": [{"start": "22:00", "end": 240}]})
    with pytest.raises(InputError, match="m2: 240 is not a time of the day"):
        decision(machines, found(1))


def test_nothing_is_deleted_whatever_was_asked_for():
    made = decision(fleet(100), found(1, action="delete"))
    assert not made.rest and "deleted" in made.deferred[key(1)]


CANARY = {"m1": {"canary": True}}


def test_canaries_are_told_apart():
    made = decision(fleet(100, **CANARY), found(1, 2, 3))
    assert hosts(made.canaries) == ["m1"] and hosts(made.rest) == ["m2", "m3"]


def test_the_others_follow_where_the_canaries_are_well():
    made = decision(fleet(100, **CANARY), found(1, 2), canary=found(1))
    assert hosts(made.rest) == ["m2"] and made.held_back is None


@pytest.mark.parametrize(
    "trouble",
    [
        found(
            1, failure={"code": "X", "message": "m1: Azure says no.", "status": 409, "request_id": None, "hint": None}
        ),
        {"service_configuration": [{"failed": True, "msg": "Azure says no."}]},
    ],
)
def test_the_others_stay_as_they_are_where_a_canary_failed(trouble):
    made = decision(fleet(100, **CANARY), found(1, 2), canary=trouble)
    assert not made.rest and "Azure says no." in made.held_back and made.deferred == {key(2): "the canaries failed"}
