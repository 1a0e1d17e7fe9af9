# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is every bad fleet refused before work begins, and every machine reported by itself?"""

from __future__ import annotations

import threading

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import (
    machine_targets,
    report,
    subscription_targets,
    verdict,
    work_on,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._plan import plan

SUB = "11111111-2222-3333-4444-555555555555"


def web(number):
    return f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/web{number:02}"


def test_ids_and_dicts_with_overrides():
    targets = machine_targets({"machines": [web(1), {"id": web(2), "port": 2222}], "port": 22}, ("port",))
    assert [(target.name, target.options["port"]) for target in targets] == [("web01", 22), ("web02", 2222)]


def test_a_single_machine_by_name():
    params = {"name": "web01", "resource_group": "rg", "subscription_id": SUB}
    assert machine_targets(params)[0].key == web(1).lower()
    named_otherwise = {"machine_name": "web01", "name": "extension", "resource_group": "rg", "subscription_id": SUB}
    assert machine_targets(named_otherwise, machine_option="machine_name")[0].key == web(1).lower()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"machines": []}, "machines is empty"),
        ({"machines": [web(1), web(1).upper().replace("/SUBSCRIPTIONS", "/subscriptions")]}, "more than once"),
        ({"machines": [web(1).replace("HybridCompute", "Compute")]}, "names a Microsoft.Compute/machines"),
        ({"machines": [{"port": 22}]}, "neither a resource id nor a dict"),
        ({"machines": [17]}, "neither a resource id nor a dict"),
        ({"machines": [{"id": web(1), "prot": 22}]}, "web01: prot cannot be set for one machine"),
        ({}, "neither is name and resource_group and subscription_id"),
        ({"name": "web01", "resource_group": "rg"}, "subscription_id"),
        ({"name": "web 01", "resource_group": "rg", "subscription_id": SUB}, "cannot be the name"),
    ],
)
def test_bad_fleets(params, said):
    with pytest.raises(InputError) as caught:
        machine_targets(params, ("port",))
    assert said in str(caught.value)


def test_subscriptions():
    assert [target.key for target in subscription_targets({"subscriptions": [SUB.upper()]})] == [SUB]
    assert [target.key for target in subscription_targets({"subscription_id": SUB})] == [SUB]
    for params in ({"subscriptions": []}, {}, {"subscriptions": [SUB, SUB.upper()]}, {"subscriptions": ["x"]}):
        with pytest.raises(InputError):
            subscription_targets(params)


def fleet(count):
    return machine_targets({"machines": [web(number) for number in range(count)]})


def test_each_machine_fails_by_itself_and_what_succeeded_is_told():
    def work(target, outcome):
        outcome.asked = "thing"
        if target.name == "web01":
            raise ArcError("web01: cannot.", code="No", hint="Do this.")
        if target.name == "web02":
            raise ZeroDivisionError("Bearer abc.def")
        if target.name == "web03":
            outcome.skip_reason = "asleep"
            return
        outcome.steps["around"] = plan(None, {"b": 1})
        outcome.steps["thing"] = plan({"a": 0}, {"a": 1}) if target.name == "web04" else plan({"a": 1}, {"a": 1})

    targets = fleet(6)
    outcomes = work_on(targets, work, concurrency=3)
    result = report(targets, outcomes, kind="machines")
    assert result["summary"] == {
        "total": 6,
        "created": 2,
        "updated": 1,
        "deleted": 0,
        "unchanged": 0,
        "skipped": 1,
        "failed": 2,
    }
    assert list(result["machines"]) == [target.key for target in targets]
    assert set(result["failures"]) == {web(1).lower(), web(2).lower()}
    assert result["changed"] is True
    entry = result["machines"][web(4).lower()]
    assert entry == {
        "name": "web04",
        "action": "update",
        "changed": True,
        "before": {"a": 0},
        "after": {"a": 1},
        "around": {"action": "create", "before": None, "after": {"b": 1}},
    }
    assert result["diff"]["after"][web(4).lower()] == {"around": {"b": 1}, "thing": {"a": 1}}
    assert result["diff"]["after"][web(5).lower()] == {"around": {"b": 1}}
    assert web(3).lower() not in result["diff"]["after"]
    assert result["machines"][web(3).lower()]["skip_reason"] == "asleep"
    unexpected = result["failures"][web(2).lower()]["failure"]
    assert unexpected["code"] == "InternalError" and "abc" not in str(unexpected)
    told = verdict(result, kind="machines", max_fail_percentage=0)
    assert told.startswith("2 of 6 machines failed. web01: cannot. Do this. web02: unexpected ZeroDivisionError")


def test_a_failure_after_a_write_still_tells_the_write():
    def work(target, outcome):
        outcome.asked = "thing"
        outcome.steps["around"] = plan(None, {"b": 1})
        raise ArcError("web00: cannot.")

    targets = fleet(1)
    result = report(targets, work_on(targets, work, concurrency=1), kind="machines")
    assert result["changed"] is True and result["summary"]["failed"] == 1 and result["summary"]["created"] == 0
    assert verdict(result, kind="machines", max_fail_percentage=0) == "web00: cannot."


@pytest.mark.parametrize(("percentage", "fails"), [(0, True), (9.9, True), (10, False), (100, False)])
def test_the_failure_budget(percentage, fails):
    result = {
        "summary": {"failed": 1, "total": 10},
        "failures": {"x": {"failure": {"message": "x: no.", "hint": None}}},
    }
    assert (verdict(result, kind="machines", max_fail_percentage=percentage) is not None) == fails


def test_many_failures_are_quoted_in_part():
    failures = {str(n): {"failure": {"message": f"m{n}: no.", "hint": None}} for n in range(9)}
    told = verdict({"summary": {"failed": 9, "total": 9}, "failures": failures}, kind="machines", max_fail_percentage=0)
    assert told == "9 of 9 machines failed. m0: no. m1: no. m2: no. And 6 more, all of which are in `failures`."


def test_no_more_than_concurrency_at_once():
    running, most, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(4, timeout=5)

    def work(target, outcome):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meet.wait()
        with lock:
            running -= 1

    work_on(fleet(16), work, concurrency=4)
    assert most == 4
