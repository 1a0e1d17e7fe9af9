# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the audit of a fleet whole, and does it say where it is not?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._audit import Audit, scope_targets
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import Target
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._reconcile import Outcome, Run

NUMBER = "11111111-2222-3333-4444-555555555555"
SUB = f"/subscriptions/{NUMBER}"
ROOT = "/providers/Microsoft.Management/managementGroups/arc"
ASSIGNMENTS = "/providers/Microsoft.Authorization/roleAssignments"
ADMIN = {
    "name": "a",
    "properties": {
        "roleName": "Admin",
        "permissions": [{"dataActions": ["Microsoft.HybridCompute/machines/loginAsAdmin/action"]}],
    },
}


def target(group, name):
    machine = MachineId.build(NUMBER, group, name)
    return Target(machine.key, name, {}, machine)


def raw(scope, principal_id="p", role="a"):
    properties = {"scope": scope, "principalId": principal_id, "roleDefinitionId": f"/x/{role}"}
    return {"id": f"{scope}{ASSIGNMENTS}/{principal_id}", "properties": properties}


class Arm:
    """ARM that lists all assignments for every scope that is not refused."""

    def __init__(self, *assignments, refused=()):
        self.assignments, self.refused, self.asked = assignments, refused, []

    def pages(self, path, version, *, query=None, doing):
        self.asked.append(path)
        scope, _slash, kind = path.partition("/providers/Microsoft.Authorization/")
        if scope in self.refused:
            raise ArmError(f"{doing}: no", code="AuthorizationFailed", status=403)
        return iter(self.assignments if kind == "roleAssignments" else [ADMIN])

    def get(self, path, version, *, query=None, doing):
        self.asked.append(path)


def tell(arm, *targets):
    audit, outcomes = Audit(), []
    audit.read(Run(arm=arm), targets)
    for one in targets:
        outcomes.append(Outcome())
        audit.tell(one, outcomes[-1])
    return outcomes


def who(outcome):
    return {line["principal_id"]: line["inherited"] for line in outcome.details["access"]}


def test_a_fleet_of_one_subscription_costs_three_requests():
    fleet = [target("rg", f"web{number}") for number in range(50)]
    arm = Arm(
        raw(ROOT, "root"),
        raw(f"{SUB}/resourceGroups/RG", "group"),
        raw(fleet[1].key, "machine"),
        raw(f"{SUB}/resourceGroups/rg2", "else"),
    )
    told = tell(arm, *fleet)
    assert len(arm.asked) == 3
    assert who(told[0]) == {"root": True, "group": True} and who(told[1]) == {
        "root": True,
        "group": True,
        "machine": False,
    }
    assert told[0].details["resource_id"] == str(fleet[0].machine) and told[0].details["undetermined"] == []


def test_where_the_subscription_is_closed_the_groups_are_read():
    fleet = [target("open", "web1"), target("open", "web2"), target("closed", "db1")]
    arm = Arm(raw(f"{SUB}/resourceGroups/open"), refused=(SUB, f"{SUB}/resourceGroups/closed"))
    audit = Audit()
    audit.read(Run(arm=arm), fleet)
    outcome = Outcome()
    audit.tell(fleet[0], outcome)
    assert who(outcome) == {"p": True}
    with pytest.raises(ArmError, match="roleAssignments/read"):
        audit.tell(fleet[2], Outcome())
    groups = [path for path in arm.asked if "/resourceGroups/open/" in path and path.endswith("roleAssignments")]
    assert len(groups) == 2


def test_a_role_that_cannot_be_read_is_no_silence():
    told = tell(Arm(raw(SUB, "p", "unknown")), target("rg", "web1"))[0]
    assert told.details["access"] == []
    assert told.details["undetermined"] == [{"assignment_id": f"{SUB}{ASSIGNMENTS}/p", "role_guid": "unknown"}]
    assert len(told.warnings) == 1 and "unknown" in told.warnings[0]


def test_a_scope_tells_what_is_above_and_below():
    one = scope_targets({"scopes": [f"{SUB}/resourceGroups/rg"]})[0]
    below = f"{SUB}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/web1"
    arm = Arm(
        raw(ROOT, "root"),
        raw(SUB, "sub"),
        raw(f"{SUB}/resourceGroups/RG", "own"),
        raw(below, "below"),
        raw(f"{SUB}/resourceGroups/rg2", "beside"),
    )
    told = tell(arm, one)[0]
    assert who(told) == {"root": True, "sub": True, "own": False, "below": False}
    assert told.details["scope"] == f"{SUB}/resourceGroups/rg"


@pytest.mark.parametrize(
    "scopes", [[], ["web01"], [SUB, SUB.upper().replace("/SUBSCRIPTIONS", "/subscriptions") + "/"]]
)
def test_scopes_that_cannot_be(scopes):
    with pytest.raises(InputError):
        scope_targets({"scopes": scopes})
