# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is it told rightly who can log in where?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._access import (
    Login,
    at_or_above,
    below,
    entries,
    login_of,
    scope_kind,
)

SUB = "/subscriptions/11111111-2222-3333-4444-555555555555"
GROUP = f"{SUB}/resourceGroups/arc-prod"
MACHINE = f"{GROUP}/providers/Microsoft.HybridCompute/machines/web01"
ROOT = "/providers/Microsoft.Management/managementGroups/arc"
LOGIN = "Microsoft.HybridCompute/machines/login/action"
AS_ADMIN = "Microsoft.HybridCompute/machines/loginAsAdmin/action"
RELAY = "Microsoft.HybridConnectivity/endpoints/listCredentials/action"


def role(*permissions, name="Role"):
    return {"properties": {"roleName": name, "permissions": list(permissions)}}


def assignment(scope, principal_id="p", guid="g", name="n", **more):
    properties = {"scope": scope, "principalId": principal_id, "roleDefinitionId": f"/x/roleDefinitions/{guid}", **more}
    return {"id": f"{scope}/roleAssignments/{name}", "properties": properties}


@pytest.mark.parametrize(
    ("permissions", "wanted"),
    [
        ([{"actions": [RELAY], "dataActions": [LOGIN, AS_ADMIN]}], Login("admin", True)),
        ([{"actions": [RELAY], "dataActions": [LOGIN]}], Login("user", True)),
        ([{"actions": [], "dataActions": [LOGIN.upper()]}], Login("user", False)),
        ([{"actions": ["*"]}], Login("local", True)),
        ([{"actions": ["Microsoft.HybridConnectivity/*/action"], "notActions": ["*/delete"]}], Login("local", True)),
        ([{"actions": ["*"], "notActions": ["Microsoft.HybridConnectivity/*"]}], None),
        ([{"actions": ["*/read"]}], None),
        ([{"dataActions": ["Microsoft.HybridCompute/*"], "notDataActions": [AS_ADMIN]}], Login("user", False)),
        ([{"dataActions": ["*"]}], Login("admin", False)),
        # A login action among the control plane's gives nobody a login.
        ([{"actions": [LOGIN, AS_ADMIN]}], None),
        # The permissions of a role add up: what one of them takes, another may give.
        ([{"dataActions": ["*"], "notDataActions": [AS_ADMIN]}, {"dataActions": [AS_ADMIN]}], Login("admin", False)),
        ([{"dataActions": [LOGIN + "/more", "x" + LOGIN]}], None),
        ([], None),
        ([{"actions": None, "dataActions": None}], None),
    ],
)
def test_what_a_role_means(permissions, wanted):
    assert login_of(role(*permissions)) == wanted


def test_where_an_assignment_holds():
    key = MACHINE.lower()
    for scope in ("/", ROOT, SUB, GROUP.upper().replace("/SUBSCRIPTIONS", "/subscriptions"), MACHINE):
        assert at_or_above(assignment(scope), key), scope
    for scope in (GROUP + "-2", MACHINE + "2", MACHINE + "/extensions/x", SUB[:-1] + "0"):
        assert not at_or_above(assignment(scope), key), scope
    assert below(assignment(MACHINE), GROUP.lower()) and not below(assignment(GROUP), GROUP.lower())


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [
        ("", "root"),
        ("/", "root"),
        (ROOT, "management_group"),
        (SUB, "subscription"),
        (GROUP, "resource_group"),
        (MACHINE.upper(), "machine"),
        (MACHINE + "/extensions/x", "resource"),
        (f"{GROUP}/providers/Microsoft.Compute/virtualMachines/web01", "resource"),
    ],
)
def test_kinds_of_scopes(scope, wanted):
    assert scope_kind(scope) == wanted


def test_lines_come_in_order_and_only_for_known_roles_that_let_in():
    definitions = {
        "a": role({"dataActions": [AS_ADMIN]}, name="Admin"),
        "u": role({"dataActions": [LOGIN], "actions": [RELAY]}, name="User"),
        "r": role({"actions": ["*/read"]}, name="Reader"),
    }
    given = [
        assignment(MACHINE, "P1", "u", condition="c", principalType="Group"),
        assignment("/", "p2", "a"),
        assignment(SUB, "p3", "r"),
        assignment(SUB, "p4", "unknown"),
    ]
    assert entries(given, definitions) == [
        {
            "principal_id": "p2",
            "principal_type": None,
            "as": "admin",
            "relay": False,
            "role": "Admin",
            "role_guid": "a",
            "scope": "/",
            "scope_kind": "root",
            "assignment_id": "//roleAssignments/n",
            "condition": None,
        },
        {
            "principal_id": "p1",
            "principal_type": "Group",
            "as": "user",
            "relay": True,
            "role": "User",
            "role_guid": "u",
            "scope": MACHINE,
            "scope_kind": "machine",
            "assignment_id": f"{MACHINE}/roleAssignments/n",
            "condition": "c",
        },
    ]
