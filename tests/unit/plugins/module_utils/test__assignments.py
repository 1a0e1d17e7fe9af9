# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests do assignments make, and what is refused before the first of them?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._assignments import Standing, assign, assignment_targets
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._pacing import Pace
from ansible_collections.arcfleet.ssh.plugins.module_utils._reconcile import Outcome, Run
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._role_assignment import KNOWN_ROLES

NUMBER = "11111111-2222-3333-4444-555555555555"
SUB = f"/subscriptions/{NUMBER}"
GROUP = f"{SUB}/resourceGroups/arc-prod"
LOUD = GROUP.upper().replace("/SUBSCRIPTIONS", "/subscriptions")
ROOT = "/providers/Microsoft.Management/managementGroups/arc"
USER = "Virtual Machine User Login"
ALICE, BOB = ("aaaaaaaa-0000-0000-0000-00000000000" + end for end in "ab")
LIST = "/providers/Microsoft.Authorization/roleAssignments"


def machine(number):
    return f"{GROUP}/providers/Microsoft.HybridCompute/machines/web{number}"


def raw(scope, principal_id=ALICE, role=USER, name="0", **more):
    properties = {
        "roleDefinitionId": f"/x/roleDefinitions/{KNOWN_ROLES[role]}",
        "principalId": principal_id,
        "scope": scope,
    }
    return {"id": f"{scope}{LIST}/{name}", "name": name, "properties": {**properties, **more}}


class Arm:
    """ARM with these assignments, which it lists by the contract's rules; keeps what was asked."""

    def __init__(self, *assignments, refused=(), put=None):
        self.assignments = {entry["id"]: entry for entry in assignments}
        self.refused = refused
        self.answer_to_put = put
        self.asked = []

    def pages(self, path, version, *, query=None, doing):
        self.asked.append(f"LIST {path.rsplit('/providers/Microsoft.Authorization', 1)[0].rsplit('/', 1)[-1]}")
        scope = path.removesuffix(LIST)
        if scope in self.refused:
            raise ArmError(f"{doing}: no", code="AuthorizationFailed", status=403)
        whole = query is None
        for entry in list(self.assignments.values()):
            own = entry["properties"]["scope"]
            if (
                not own.startswith("/subscriptions/")
                or f"{scope}/".startswith(own + "/")
                or (whole and own.startswith(scope))
            ):
                yield entry

    def get(self, path, version, *, query=None, doing):
        self.asked.append("GET")
        return self.assignments.get(path)

    def put(self, path, version, body, *, doing):
        self.asked.append("PUT")
        if self.answer_to_put is not None:
            self.answer_to_put(self, path)
        scope = path.rsplit(LIST, 1)[0]
        self.assignments[path] = {"id": path, "properties": {**body["properties"], "scope": scope}}
        return self.assignments[path]

    def delete(self, path, version, *, doing):
        self.asked.append("DELETE")
        del self.assignments[path]


def params(**given):
    names = (
        "role",
        "principal_id",
        "principal_type",
        "scope",
        "management_group",
        "resource_group",
        "description",
        "condition",
    )
    return {"state": "present", "assignments": None, **dict.fromkeys(names), "subscription_id": None, **given}


def run(arm, *, check_mode=False, **given):
    targets = assignment_targets(params(**given))
    standing, outcomes = Standing(), []
    way = Run(arm=arm, pace=Pace(pause=lambda seconds: None), check_mode=check_mode)
    standing.read(way, targets)
    for target in targets:
        outcomes.append(Outcome())
        assign(way, target, outcomes[-1], standing)
    return outcomes


@pytest.mark.parametrize(
    ("there", "given", "asked", "action"),
    [
        ([], {}, ["LIST arc-prod", "GET", "PUT"], "create"),
        ([raw(GROUP)], {}, ["LIST arc-prod"], "none"),
        ([raw(LOUD)], {"scope": LOUD}, ["LIST ARC-PROD"], "none"),
        ([raw(GROUP)], {"description": "why"}, ["LIST arc-prod", "GET", "PUT"], "update"),
        ([raw(SUB)], {}, ["LIST arc-prod", "GET", "PUT"], "create"),
        ([raw(GROUP)], {"state": "absent"}, ["LIST arc-prod", "GET", "DELETE"], "delete"),
        ([raw(SUB), raw(GROUP, BOB)], {"state": "absent"}, ["LIST arc-prod", "GET"], "none"),
    ],
)  # fmt: skip
def test_requests_and_predictions(there, given, asked, action):
    given = {"role": USER, "principal_id": ALICE, "scope": GROUP, **given}
    predicted = run(Arm(*there), check_mode=True, **given)[0]
    arm = Arm(*there)
    done = run(arm, **given)[0]
    assert (arm.asked, done.action) == (asked, action)
    assert predicted.steps == done.steps and predicted.details == done.details


def test_an_assignment_above_is_told_but_one_beside_is_not():
    arm = Arm(raw(ROOT), raw(SUB), raw(SUB, BOB, name="1"), raw(machine(1)))
    done = run(arm, role=USER, principal_id=ALICE, scope=GROUP, state="absent")[0]
    assert done.details["inherited_from"] == [ROOT, SUB]
    assert len(done.warnings) == 1 and ROOT in done.warnings[0]


def test_one_that_is_too_new_for_the_list_is_taken_all_the_same():
    arm = Arm()
    run(arm, role=USER, principal_id=ALICE, scope=GROUP)
    arm.pages = lambda path, version, *, query=None, doing: iter(())
    assert run(arm, role=USER, principal_id=ALICE, scope=GROUP)[0].action == "none"
    assert run(arm, role=USER, principal_id=ALICE, scope=GROUP, state="absent")[0].action == "delete"
    assert arm.assignments == {}


def test_at_a_scope_that_is_gone_nothing_is_left_to_take():
    def gone(path, version, *, query=None, doing):
        raise ArmError(f"{doing}: gone", code="ResourceGroupNotFound", status=404)

    arm = Arm()
    arm.pages = gone
    given = {"role": "My own role", "principal_id": ALICE, "scope": GROUP}
    assert run(arm, **given, state="absent")[0].action == "none" and arm.asked == []
    with pytest.raises(ArmError, match="Check the scope"):
        run(arm, **given)


def test_many_machines_are_read_at_once_and_counted():
    fleet = [{"role": USER, "principal_id": ALICE, "scope": machine(number)} for number in range(5)]
    arm = Arm(*(raw(machine(number)) for number in range(5)), raw(SUB), raw(ROOT))
    done = run(arm, assignments=fleet)
    assert arm.asked == [f"LIST {NUMBER}"] * 2 and {outcome.action for outcome in done} == {"none"}
    assert done[0].details["inherited_from"] == [ROOT, SUB], "what is at another machine is not above this one"
    assert {outcome.warnings[0] for outcome in done} == {done[0].warnings[0]} and "6 of which are taken" in done[
        0
    ].warnings[0]


def test_who_may_not_read_the_subscription_reads_each_scope():
    fleet = [{"role": USER, "principal_id": ALICE, "scope": machine(number)} for number in range(4)]
    arm = Arm(refused=(SUB,))
    assert {outcome.action for outcome in run(arm, assignments=fleet)} == {"create"}
    assert sorted(arm.asked[:5]) == [f"LIST {NUMBER}", *(f"LIST web{number}" for number in range(4))]


def test_a_custom_role_is_looked_up_once_for_each_resource_group():
    definition = {"name": "c" * 8, "properties": {"roleName": "Mine"}}
    arm, looked_up = Arm(), []
    assignments = arm.pages

    def pages(path, version, *, query=None, doing):
        if not path.endswith("roleDefinitions"):
            return assignments(path, version, query=query, doing=doing)
        looked_up.append(path)
        return iter([definition])

    arm.pages = pages
    fleet = [{"role": "Mine", "principal_id": ALICE, "scope": machine(number)} for number in range(6)]
    assert {outcome.action for outcome in run(arm, assignments=fleet)} == {"create"}
    assert looked_up == [f"{GROUP}/providers/Microsoft.Authorization/roleDefinitions"]


@pytest.mark.parametrize("told", ["", " The ID of the existing role assignment is {}."])
def test_one_that_was_made_meanwhile_is_unchanged(told):
    name = "99999999-0000-0000-0000-000000000009"

    def somebody_was_faster(arm, path):
        entry = raw(GROUP, name=name)
        arm.assignments[entry["id"]] = entry
        message = "It exists." + told.format(name.replace("-", ""))
        raise ArmError(message, code="RoleAssignmentExists", status=409)

    arm = Arm(put=somebody_was_faster)
    done = run(arm, role=USER, principal_id=ALICE, scope=GROUP)[0]
    assert done.action == "none" and done.plan.after["id"].endswith(name) and arm.asked.count("PUT") == 1


def test_a_conflict_that_nobody_can_see_is_told():
    def refuse(arm, path):
        raise ArmError("It exists.", code="RoleAssignmentExists", status=409)

    with pytest.raises(ArmError, match="It exists"):
        run(Arm(put=refuse), role=USER, principal_id=ALICE, scope=GROUP)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("PrincipalNotFound", "principal_type"),
        ("RoleAssignmentLimitExceeded", "4,000"),
        ("AuthorizationFailed", "Owner"),
    ],
)
def test_refusals_have_a_remedy(code, hint):
    def refuse(arm, path):
        raise ArmError("No.", code=code, status=400)

    with pytest.raises(ArmError) as refused:
        run(Arm(put=refuse), role=USER, principal_id=ALICE, scope=GROUP)
    assert hint in str(refused.value)


def test_entries_take_what_they_leave_out_from_the_task():
    targets = assignment_targets(
        params(
            role=USER,
            scope=ROOT,
            principal_type="Group",
            assignments=[
                {"principal_id": ALICE},
                {"principal_id": BOB, "role": "Reader", "resource_group": "rg", "subscription_id": NUMBER},
            ],
        )
    )
    assert [target.options["scope"].id for target in targets] == [ROOT, f"{SUB}/resourceGroups/rg"]
    assert {target.options["principal_type"] for target in targets} == {"Group"}
    assert targets[0].key == f"{ROOT.lower()}|{USER.lower()}|{ALICE}"
    assert targets[1].name == f"Reader for {BOB} at resource group rg"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"assignments": []}, "nothing to work on"),
        ({"principal_id": ALICE, "scope": ROOT}, "lacks role"),
        ({"role": USER, "scope": ROOT, "assignments": [{}]}, "lacks principal_id"),
        ({"role": USER, "principal_id": ALICE}, "no scope"),
        ({"role": USER, "principal_id": ALICE, "resource_group": "rg"}, "needs subscription_id"),
        (
            {"role": USER, "principal_id": ALICE, "resource_group": "rg", "subscription_id": "x"},
            "not a subscription id",
        ),
        ({"role": USER, "principal_id": "alice", "scope": ROOT}, "object id"),
        ({"role": USER, "principal_id": ALICE, "management_group": "a/b"}, "not a scope"),
        (
            {
                "principal_id": None,
                "assignments": [{"role": USER, "principal_id": ALICE, "scope": ROOT, "management_group": "arc"}],
            },
            "exclude each other",
        ),
        (
            {"scope": ROOT, "assignments": [{"role": r, "principal_id": ALICE} for r in (USER, KNOWN_ROLES[USER])]},
            "more than once",
        ),
    ],
)
def test_what_cannot_be_is_refused(given, told):
    with pytest.raises(InputError, match=told):
        assignment_targets(params(**given))
