# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab's RBAC decide as Azure's?"""

from __future__ import annotations

import pytest

from arclab.rbac import Assignment, Rbac, covers, matches
from arclab.roles import CONTRIBUTOR, OWNER, READER, Role

SUB = "/subscriptions/s1"
GROUP = SUB + "/resourcegroups/arc-prod"
MACHINE = GROUP + "/providers/microsoft.hybridcompute/machines/web01"
LIST_CREDENTIALS = "Microsoft.HybridConnectivity/endpoints/listCredentials/action"


def rbac(role: str, scope: str, *, groups: dict[str, list[str]] | None = None) -> Rbac:
    found = Rbac(groups)
    found.assign(Assignment("/a", "p1", role, scope))
    return found


@pytest.mark.parametrize(
    ("pattern", "action", "wanted"),
    [
        ("*", "A/b/read", True),
        ("*/read", "Microsoft.X/y/z/read", True),
        ("*/read", "Microsoft.X/y/write", False),
        ("Microsoft.HybridCompute/machines/*/read", "microsoft.hybridcompute/MACHINES/extensions/read", True),
        ("Microsoft.HybridCompute/machines/*/read", "Microsoft.HybridCompute/machines/read", False),
        ("Microsoft.A/b/read", "Microsoft.AXb/read", False),
        ("Microsoft.A/b/read", "Microsoft.A/b/read/more", False),
    ],
)
def test_wildcards_stand_for_any_text(pattern: str, action: str, wanted: bool) -> None:
    assert matches([pattern], action) is wanted


def test_a_scope_covers_what_is_below_it_but_no_namesake() -> None:
    assert covers(GROUP, MACHINE)
    assert covers("", MACHINE)
    assert not covers(GROUP, SUB)
    assert not covers(GROUP, GROUP + "-2/providers/x")


def test_an_assignment_holds_at_its_scope_and_below() -> None:
    found = rbac(READER, GROUP)
    assert found.allowed("p1", "Microsoft.HybridCompute/machines/read", MACHINE.upper())
    assert not found.allowed("p1", "Microsoft.HybridCompute/machines/read", SUB)
    assert not found.allowed("p1", "Microsoft.HybridCompute/machines/write", MACHINE)
    assert not found.allowed("p2", "Microsoft.HybridCompute/machines/read", MACHINE)


def test_not_actions_take_away_what_actions_gave() -> None:
    found = rbac(CONTRIBUTOR, SUB)
    assert found.allowed("p1", "Microsoft.HybridConnectivity/endpoints/write", MACHINE)
    assert not found.allowed("p1", "Microsoft.Authorization/roleAssignments/write", SUB)
    assert found.allowed("p1", "Microsoft.Authorization/roleAssignments/read", SUB)


def test_a_login_role_may_connect_but_not_prepare() -> None:
    found = rbac("602da2ba-a5c2-41da-b01d-5360126ab525", SUB)
    assert found.allowed("p1", LIST_CREDENTIALS, MACHINE)
    assert not found.allowed("p1", "Microsoft.HybridConnectivity/endpoints/serviceConfigurations/read", MACHINE)
    assert not found.allowed("p1", "Microsoft.HybridConnectivity/endpoints/write", MACHINE)


def test_data_actions_are_not_actions() -> None:
    found = rbac("fb879df8-f326-4884-b1cf-06f3ad86be52", SUB)
    login = "Microsoft.HybridCompute/machines/login/action"
    assert found.allowed("p1", login, MACHINE, data=True)
    assert not found.allowed("p1", login, MACHINE)
    assert not rbac(OWNER, SUB).allowed("p1", login, MACHINE, data=True)


def test_management_groups_cover_their_subscriptions() -> None:
    scope = "/providers/microsoft.management/managementgroups/arc"
    found = rbac(READER, scope, groups={"ARC": [SUB]})
    assert found.allowed("p1", "Microsoft.HybridCompute/machines/read", MACHINE)
    assert not found.allowed("p1", "Microsoft.HybridCompute/machines/read", "/subscriptions/s2")
    assert found.sees("p1", SUB)


def test_a_revoked_assignment_counts_no_more() -> None:
    found = rbac(OWNER, SUB)
    assert found.allowed("p1", LIST_CREDENTIALS, MACHINE)
    found.revoke("/a")
    assert not found.allowed("p1", LIST_CREDENTIALS, MACHINE)
    assert not found.sees("p1", SUB)


def test_a_changed_role_counts_at_once() -> None:
    found = Rbac()
    found.add_role(Role("r1", "mine", ("A/read",), custom=True))
    found.assign(Assignment("/a", "p1", "r1", SUB))
    assert not found.allowed("p1", "A/write", SUB)
    found.add_role(Role("r1", "mine", ("A/*",), custom=True))
    assert found.allowed("p1", "A/write", SUB)


def test_who_has_a_role_below_sees_the_subscription() -> None:
    found = rbac(READER, GROUP)
    assert found.sees("p1", SUB)
    assert found.sees("p1", GROUP)
    assert not found.sees("p1", SUB + "/resourcegroups/other")


def test_a_management_group_covers_its_subscriptions_and_what_hangs_on_itself() -> None:
    root = "/providers/microsoft.management/managementgroups/arc"
    found = rbac(OWNER, root, groups={"arc": [SUB]})
    assignments = "/providers/microsoft.authorization/roleassignments/x"
    for inside in (root, root + assignments, SUB, MACHINE + assignments):
        assert found.allowed("p1", "Microsoft.Authorization/roleAssignments/write", inside), inside
    for outside in (root + "-2", "/subscriptions/s2"):
        assert not found.allowed("p1", "Microsoft.Authorization/roleAssignments/write", outside), outside
