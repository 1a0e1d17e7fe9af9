# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is an assignment known by scope, role and principal, and nothing else?"""

from __future__ import annotations

import uuid

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._plan import plan
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._role_assignment import (
    KNOWN_ROLES,
    RoleAssignment,
    Scope,
    assignment_name,
    known_role,
    principal,
    role_guid,
    scope_of,
)

SUB = "/subscriptions/11111111-2222-3333-4444-555555555555"
GROUP = f"{SUB}/resourceGroups/arc-prod"
MACHINE = f"{GROUP}/providers/Microsoft.HybridCompute/machines/web01"
ROOT = "/providers/Microsoft.Management/managementGroups/arc"
ALICE = "aaaaaaaa-0000-0000-0000-00000000000a"
USER = known_role("Virtual Machine User Login")


def assignment(scope=GROUP, **options):
    return RoleAssignment(Scope.parse(scope), USER, ALICE, **options)


def raw(scope=GROUP, role=USER.guid, principal_id=ALICE, name="x", **more):
    properties = {
        "roleDefinitionId": f"{SUB}/providers/Microsoft.Authorization/roleDefinitions/{role}",
        "principalId": principal_id,
        "principalType": "User",
        "scope": scope,
        **more,
    }
    return {"id": f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}", "properties": properties}


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        (ROOT, "management group", "management group arc"),
        (
            SUB.upper().replace("SUBSCRIPTIONS", "subscriptions"),
            "subscription",
            "subscription 11111111-2222-3333-4444-555555555555",
        ),
        (GROUP + "/", "resource group", "resource group arc-prod"),
        (MACHINE, "resource", "resource web01"),
        (f"{MACHINE}/extensions/x", "resource", "resource x"),
    ],
)
def test_scopes(text, kind, shown):
    scope = Scope.parse(text)
    assert (scope.kind, str(scope)) == (kind, shown)
    assert scope.subscription_id == (None if kind == "management group" else SUB.rsplit("/", 1)[1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "web01",
        "/subscriptions/none",
        f"{SUB}/resourceGroups",
        f"{GROUP}/providers/Microsoft.HybridCompute/machines",
        f"{GROUP}/providers/Microsoft.HybridCompute",
        f"{GROUP}?x=1",
        ROOT + "/a",
        "/providers/Microsoft.Management/managementGroups/../x",
        "/providers/Microsoft.Management/managementGroups/..",
        f"{SUB}/resourceGroups/..",
    ],
)
def test_what_is_no_scope(text):
    with pytest.raises(InputError):
        Scope.parse(text)


def test_a_name_follows_from_the_three_and_not_from_their_spelling():
    name = assignment_name(Scope.parse(GROUP), USER, ALICE)
    assert name == assignment_name(Scope.parse(GROUP.upper()), USER, ALICE.upper())
    assert str(uuid.UUID(name)) == name
    others = {
        assignment_name(Scope.parse(SUB), USER, ALICE),
        assignment_name(Scope.parse(GROUP), known_role("Virtual Machine Administrator Login"), ALICE),
        assignment_name(Scope.parse(GROUP), USER, ALICE.replace("a", "b")),
    }
    assert len(others | {name}) == 4


def test_the_name_stays_from_release_to_release():
    name = "47477396-2bf1-542c-885b-983de7ca9b38"
    assert assignment().path == f"{GROUP}/providers/Microsoft.Authorization/roleAssignments/{name}"


def test_roles_by_name_guid_and_id():
    for name, guid in KNOWN_ROLES.items():
        for text in (
            name,
            name.upper(),
            guid,
            guid.upper(),
            f"{SUB}/providers/Microsoft.Authorization/roleDefinitions/{guid}",
        ):
            assert known_role(text).guid == guid and known_role(text).name == name
    assert known_role("Reader") is None and role_guid("Reader") is None
    assert role_guid(" ACDD72A7-3385-48EF-BD42-F606FBA81AE7 ") == "acdd72a7-3385-48ef-bd42-f606fba81ae7"


def test_principals_are_object_ids():
    assert principal(f" {ALICE.upper()} ") == ALICE
    with pytest.raises(InputError, match="object id"):
        principal("alice@example.com")


def test_what_is_the_same_assignment():
    wanted = assignment()
    assert wanted.matches(raw(scope=GROUP.lower(), principal_id=ALICE.upper(), role=USER.guid.upper()))
    assert not wanted.matches(raw(scope=SUB)) and wanted.grants_the_same(raw(scope=SUB))
    assert not wanted.matches(raw(role=KNOWN_ROLES["Virtual Machine Administrator Login"]))
    assert not wanted.matches(raw(principal_id=ALICE.replace("a", "b")))
    assert scope_of({"properties": {"scope": "/"}}) == "" and not wanted.matches({"properties": {"scope": "/"}})


def test_what_is_left_open_stays_as_it_is():
    there = raw(description="why", condition="c")
    for wanted, changed in (
        (assignment(), False),
        (assignment(description="why"), False),
        (assignment(description="another"), True),
        (assignment(condition=""), True),
        (assignment(principal_type="Group"), False),
    ):
        assert plan(wanted.state(there), wanted.wanted(there)).changed is changed
    cleared = assignment(description="")
    body = cleared.body(plan(cleared.state(there), cleared.wanted(there)), there, None)["properties"]
    assert "description" not in body and (body["condition"], body["conditionVersion"]) == ("c", "2.0")
    assert body["principalType"] == "User"


def test_the_body_of_a_new_one():
    made = assignment(principal_type="Group", description="why")
    body = made.body(plan(None, made.wanted(None)), None, None)["properties"]
    assert body == {
        "roleDefinitionId": f"{SUB}/providers/Microsoft.Authorization/roleDefinitions/{USER.guid}",
        "principalId": ALICE,
        "principalType": "Group",
        "description": "why",
    }
    above = assignment(ROOT)
    body = above.body(plan(None, above.wanted(None)), None, None)["properties"]
    assert body["roleDefinitionId"] == f"/providers/Microsoft.Authorization/roleDefinitions/{USER.guid}"
    assert "principalType" not in body


def test_an_unknown_principal_is_tried_again_where_its_type_is_known():
    assert assignment(principal_type="User").not_now == {"PrincipalNotFound"} and not assignment().not_now


def test_sentences():
    made = assignment()
    assert made.doing(plan(None, made.wanted(None))) == (
        f"resource group arc-prod: cannot give the role Virtual Machine User Login to {ALICE}"
    )
    assert "cannot take the role" in made.doing(plan(made.state(raw()), None))
    assert "cannot change how" in made.doing(plan(made.state(raw()), made.wanted(None)))
