# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are assignments and roles read whole, and with how many requests?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._authorization import definitions, everywhere, find_role
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._role_assignment import Role, Scope

SUB = Scope.parse("/subscriptions/11111111-2222-3333-4444-555555555555")
ROOT = Scope.parse("/providers/Microsoft.Management/managementGroups/arc")
READER, CUSTOM, GONE = ("acdd72a7-3385-48ef-bd42-f606fba81ae7", "c" * 8 + "-0000-0000-0000-000000000000", "gone")


def definition(guid, name):
    return {
        "id": f"/providers/Microsoft.Authorization/roleDefinitions/{guid}",
        "name": guid,
        "properties": {"roleName": name},
    }


def holds(guid):
    return {"properties": {"roleDefinitionId": f"/providers/Microsoft.Authorization/roleDefinitions/{guid}"}}


class Arm:
    """ARM that answers lists by path and filter, and single records by path; an exception is raised."""

    def __init__(self, lists=(), records=()):
        self.lists, self.records, self.asked = dict(lists), dict(records), []

    def pages(self, path, version, *, query=None, doing):
        self.asked.append((path.rsplit("/", 1)[-1], (query or {}).get("$filter")))
        found = self.lists.get(self.asked[-1], [])
        if isinstance(found, Exception):
            raise found
        return iter(found)

    def get(self, path, version, *, query=None, doing):
        self.asked.append(path)
        found = self.records.get(path.rsplit("/", 1)[-1])
        if isinstance(found, Exception):
            raise found
        return found


def test_what_is_listed_twice_counts_once():
    here, above, beneath = ({"id": f"/{name}"} for name in ("Here", "above", "below"))
    lists = {("roleAssignments", "atScope()"): [here, above], ("roleAssignments", None): [{"id": "/here"}, beneath]}
    assert [entry["id"] for entry in everywhere(Arm(lists), SUB)] == ["/here", "/above", "/below"]
    arm = Arm(lists)
    assert len(everywhere(arm, ROOT)) == 2 and len(arm.asked) == 1


def test_definitions_come_with_one_list_and_the_rest_one_by_one():
    arm = Arm(
        {("roleDefinitions", None): [definition(READER, "Reader"), definition("other", "Other")]},
        {CUSTOM: definition(CUSTOM, "Custom"), "secret": ArmError("no", status=403), GONE: None},
    )
    found = definitions(arm, SUB, [holds(READER), holds(READER.upper()), holds(CUSTOM), holds("secret"), holds(GONE)])
    assert {guid: raw["properties"]["roleName"] for guid, raw in found.items()} == {READER: "Reader", CUSTOM: "Custom"}
    assert len(arm.asked) == 4
    assert definitions(Arm(), SUB, []) == {}


def test_who_may_not_list_roles_reads_them_one_by_one():
    arm = Arm({("roleDefinitions", None): ArmError("no", status=403)}, {READER: definition(READER, "Reader")})
    assert set(definitions(arm, SUB, [holds(READER)])) == {READER}
    with pytest.raises(ArmError):
        definitions(Arm({("roleDefinitions", None): ArmError("broken", status=500)}), SUB, [holds(READER)])


def test_known_roles_cost_no_request():
    arm = Arm()
    assert find_role(arm, SUB, "virtual machine user login").guid == "fb879df8-f326-4884-b1cf-06f3ad86be52"
    assert arm.asked == []


def test_a_name_is_looked_up_literally():
    quoted = "roleName%20eq%20'Bob''s%20%26%20Alice''s%20role'"
    arm = Arm({("roleDefinitions", quoted): [definition("other", "Bob"), definition(CUSTOM, "Bob's & ALICE's role")]})
    assert find_role(arm, SUB, " Bob's & Alice's role ") == Role(CUSTOM, "Bob's & ALICE's role")


def test_a_guid_is_read():
    arm = Arm(records={READER: definition(READER, "Reader")})
    assert find_role(arm, ROOT, READER.upper()) == Role(READER, "Reader")
    assert arm.asked == [f"{ROOT.id}/providers/Microsoft.Authorization/roleDefinitions/{READER}"]


@pytest.mark.parametrize("text", ["Nobody's role", CUSTOM])
def test_a_role_that_is_not_there(text):
    with pytest.raises(ArmError, match="there is no role") as refused:
        find_role(Arm(), SUB, text)
    assert refused.value.code == "RoleDefinitionDoesNotExist"
