# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a drift report say of what modules found?"""

from __future__ import annotations

from types import MappingProxyType

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import left, report

SSH = MappingProxyType({"service_name": "SSH", "port": 22})
OTHER = {"service_name": "SSH", "port": 2222}
FAILURE = {
    "code": "AuthorizationFailed",
    "message": "web01: cannot.",
    "status": 403,
    "request_id": None,
    "hint": "Ask for rights.",
}


def entry(action="none", before=SSH, after=SSH, **more):
    return {
        "name": "web01",
        "host": "web01",
        "action": action,
        "changed": action != "none",
        "before": before,
        "after": after,
        **more,
    }


def made(*entries, mode="report", kind="machines", **more):
    results = [{kind: {f"/id/{number}": found}} for number, found in enumerate(entries)]
    findings = {"service_configuration": results, **more}
    return report(findings, mode=mode, begun="2026-11-21T08:00:00+00:00", ended="2026-11-21T08:00:09+00:00")


def status(*entries, **more):
    return [found["status"] for found in made(*entries, **more)["machines"].values()]


@pytest.mark.parametrize(
    ("found", "mode", "expected"),
    [
        (entry(), "report", "in_order"),
        (entry("create", None, SSH), "report", "drifted"),
        (entry("create", None, SSH), "repair", "repaired"),
        (entry("update", OTHER, SSH), "report", "drifted"),
        (entry(failure=FAILURE), "repair", "failed"),
        (entry("create", None, SSH, failure=FAILURE), "repair", "failed"),
        ({"name": "web01", "action": "skip", "changed": False, "skip_reason": "it is away"}, "report", "skipped"),
        ({"name": "web01", "action": "none", "changed": False, "failure": FAILURE}, "report", "failed"),
    ],
)
def test_the_status_of_a_machine(found, mode, expected):
    assert status(found, mode=mode) == [expected]


def test_the_shape_is_a_contract():
    told = made(entry("update", OTHER, SSH))
    assert told == {
        "format": "arcfleet.ssh/drift-report",
        "version": 1,
        "mode": "report",
        "begun": "2026-11-21T08:00:00+00:00",
        "ended": "2026-11-21T08:00:09+00:00",
        "summary": {"total": 1, "in_order": 0, "drifted": 1, "repaired": 0, "failed": 0, "skipped": 0},
        "drift_left": True,
        "problems": [],
        "machines": {
            "/id/0": {
                "name": "web01",
                "host": "web01",
                "status": "drifted",
                "drift": [
                    {
                        "resource": "service_configuration",
                        "action": "update",
                        "before": OTHER,
                        "after": SSH,
                        "repaired": False,
                    }
                ],
                "failure": None,
                "skip_reason": None,
            }
        },
        "subscriptions": {},
    }


def test_what_stands_around_a_resource_is_drift_of_its_own():
    endpoint = {"action": "create", "before": None, "after": {"type": "default"}}
    (machine,) = made(entry("create", None, SSH, endpoint=endpoint))["machines"].values()
    assert [step["resource"] for step in machine["drift"]] == ["endpoint", "service_configuration"]
    (machine,) = made(entry("create", SSH, SSH, endpoint=endpoint))["machines"].values()
    assert [step["resource"] for step in machine["drift"]] == ["endpoint"]


def test_a_resource_whose_last_write_failed_is_drift_although_it_looks_right():
    (machine,) = made(entry("update", SSH, SSH))["machines"].values()
    assert machine["status"] == "drifted"
    assert left({"machines": {"/id/0": machine}}) == {"web01": "web01: service configuration failed."}


def test_all_findings_about_a_machine_are_in_one_entry():
    extension = [{"machines": {"/id/0": entry("create", None, {"type": "AADSSHLoginForLinux"})}}]
    told = made(entry(), extension=extension)
    assert told["summary"]["total"] == 1 and told["summary"]["drifted"] == 1
    assert [step["resource"] for step in told["machines"]["/id/0"]["drift"]] == ["extension"]


def test_a_module_that_failed_as_a_whole_is_a_problem():
    told = made(login=[{"failed": True, "msg": "No login."}])
    assert told["problems"] == ["No login."] and told["drift_left"] and told["machines"] == {}
    told = made(entry(failure=FAILURE), more=[{"failed": True, "msg": "1 of 1 machines failed.", "machines": {}}])
    assert told["problems"] == [], "its machines tell already"


def test_subscriptions_count_as_drift_but_not_as_machines():
    found = {**entry("update", {"registered": False}, {"registered": True}), "host": None}
    told = made(found, kind="subscriptions")
    assert told["drift_left"] and told["summary"]["total"] == 0
    assert told["subscriptions"]["/id/0"]["status"] == "drifted"


def test_what_is_the_matter_in_sentences():
    told = made(
        entry("create", None, SSH),
        {**entry("update", OTHER, SSH), "host": "web02", "name": "web02"},
        {**entry(failure=FAILURE), "host": None},
        {**entry("delete", SSH, None), "host": "web04", "name": "web04"},
        {**entry(), "host": "web05"},
    )
    assert left(told) == {
        "web01": "web01: service configuration is missing.",
        "web02": "web02: service configuration has port 2222 instead of 22.",
        "/id/2": "web01: cannot. Ask for rights.",
        "web04": "web04: service configuration should not be there.",
    }
    assert left(made(entry("create", None, SSH), mode="repair")) == {}
