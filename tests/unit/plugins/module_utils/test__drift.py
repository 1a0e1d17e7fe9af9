# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a drift report say of what modules found?"""

from __future__ import annotations

from types import MappingProxyType

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import kinds, left, report, unsettled
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError

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


BEGUN, ENDED = "2026-11-21T08:00:00+00:00", "2026-11-21T08:00:09+00:00"


def made(*entries, mode="report", kind="machines", about=MappingProxyType({}), **more):
    results = [{kind: {f"/id/{number}": found}} for number, found in enumerate(entries)]
    findings = {"service_configuration": results, **more}
    return report(findings, mode=mode, begun=BEGUN, ended=ENDED, **about)


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
        "runner": None,
        "reading": None,
        "held_back": None,
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
                "verified": None,
                "held_back": None,
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


def test_machines_that_nobody_had_to_read_are_in_order_since_they_were_verified():
    earlier = "2026-11-21T07:00:00+00:00"
    known = {key: {"name": key, "host": key, "verified": earlier} for key in ("/ID/0", "/id/7")}
    told = made(entry("create", None, SSH), entry(), about={"unchanged": known})
    assert told["summary"] == {"total": 3, "in_order": 2, "drifted": 1, "repaired": 0, "failed": 0, "skipped": 0}
    assert {key: found["verified"] for key, found in told["machines"].items()} == {
        "/id/0": None,
        "/id/1": BEGUN,
        "/id/7": earlier,
    }


@pytest.mark.parametrize(
    "known", [{}, {"verified": "yesterday"}, {"verified": None}, {"verified": "2026-11-21T08:00:00"}, "x"]
)
def test_a_machine_is_not_in_order_without_a_time_when_it_was(known):
    with pytest.raises(InputError, match="unchanged says of /id/1 no time"):
        made(about={"unchanged": {"/id/1": known}})


def test_a_machine_that_was_left_alone_in_a_repair_stays_drifted_with_the_reason():
    reason = "It is outside its maintenance window."
    asked = {"deferred": {"/ID/0": reason, "/id/2": reason}}
    told = made(entry("create", None, SSH), entry("create", None, SSH), entry(), mode="repair", about=asked)
    assert [found["status"] for found in told["machines"].values()] == ["drifted", "repaired", "in_order"]
    assert [found["held_back"] for found in told["machines"].values()] == [reason, None, None]
    assert told["drift_left"]
    assert left(told) == {"web01": f"web01: service configuration is missing. Not repaired: {reason}"}


def test_what_a_look_found_is_left_unless_a_repair_took_its_place():
    missing = [{"machines": {f"/id/{number}": entry("create", None, SSH) for number in range(3)}}]
    asked = {"looked": {"service_configuration": missing}, "held_back": "Too many machines would change."}
    told = made(entry("create", None, SSH), {**entry(failure=FAILURE)}, mode="repair", about=asked)
    assert told["held_back"] == "Too many machines would change." and told["drift_left"]
    found = {key: (entry["status"], len(entry["drift"])) for key, entry in told["machines"].items()}
    assert found == {"/id/0": ("repaired", 1), "/id/1": ("failed", 1), "/id/2": ("drifted", 1)}


def test_a_repair_that_went_half_the_way_tells_both_halves():
    endpoint = {"action": "create", "before": None, "after": {"type": "default"}}
    looked = [{"machines": {"/id/0": entry("create", None, SSH, endpoint=endpoint)}}]
    half = {"name": "web01", "action": "create", "changed": True, "endpoint": endpoint, "failure": FAILURE}
    told = made(half, mode="repair", about={"looked": {"service_configuration": looked}})
    steps = {step["resource"]: step["repaired"] for step in told["machines"]["/id/0"]["drift"]}
    assert steps == {"endpoint": True, "service_configuration": False}
    assert told["machines"]["/id/0"]["status"] == "failed"


def test_what_a_run_repaired_that_did_not_come_to_its_end_is_told_by_the_next():
    missing = entry("create", None, SSH)
    # The run that was stopped was about to repair these; one of them had to wait.
    begun = made(missing, missing, missing, missing, about={"deferred": {"/id/3": "Not its time."}})
    now = [{"machines": {"/id/0": entry(), "/id/1": missing, "/id/3": entry()}}]
    told = report({"service_configuration": now}, mode="report", begun=BEGUN, ended=ENDED, unfinished=begun)
    found = {
        key: (entry["status"], [step["repaired"] for step in entry["drift"]]) for key, entry in told["machines"].items()
    }
    assert found == {"/id/0": ("repaired", [True]), "/id/1": ("drifted", [False]), "/id/3": ("in_order", [])}
    assert set(unsettled(told, begun)["machines"]) == {"/id/2"}, "which nobody has seen since"


def test_what_a_stopped_run_did_to_a_machine_that_cannot_be_read_now_is_not_known_yet():
    begun = made(entry("create", None, SSH))
    told = report(
        {"service_configuration": [{"machines": {"/id/0": entry(failure=FAILURE)}}]},
        mode="repair",
        begun=BEGUN,
        ended=ENDED,
        unfinished=begun,
    )
    assert told["machines"]["/id/0"]["drift"] == [] and set(unsettled(told, begun)["machines"]) == {"/id/0"}


def test_what_was_told_of_half_a_repair_is_not_told_again():
    endpoint = {"action": "create", "before": None, "after": {"type": "default"}}
    begun = made(entry("create", None, SSH, endpoint=endpoint))
    half = {"name": "web01", "action": "create", "changed": True, "endpoint": endpoint, "failure": FAILURE}
    told = made(half, mode="repair", about={"unfinished": begun})
    (pending,) = unsettled(told, begun)["machines"].values()
    assert [step["resource"] for step in pending["drift"]] == ["service_configuration"]


def test_a_difference_that_is_told_twice_counts_once():
    again = [{"machines": {"/id/0": entry("create", None, SSH)}}]
    told = report({"service_configuration": again * 2}, mode="repair", begun=BEGUN, ended=ENDED)
    assert len(told["machines"]["/id/0"]["drift"]) == 1


def test_drift_is_counted_by_kind_the_most_frequent_first():
    endpoint = {"action": "create", "before": None, "after": {"type": "default"}}
    told = made(entry("create", None, SSH, endpoint=endpoint), entry("create", None, SSH), entry("update", OTHER, SSH))
    assert list(kinds(told).items()) == [
        (("service_configuration", "create"), 2),
        (("endpoint", "create"), 1),
        (("service_configuration", "update"), 1),
    ]
