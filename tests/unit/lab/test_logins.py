# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When does a change of roles count for the machines' logins, and what is an account there?"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from arclab.logins import LOGIN, DelayedRoles, records
from arclab.rbac import Assignment, Rbac
from arclab.roles import OWNER
from arclab.world import Principal, World

MACHINE = "/subscriptions/s/resourcegroups/g/providers/microsoft.hybridcompute/machines/web01"
USER_LOGIN = "fb879df8-f326-4884-b1cf-06f3ad86be52"


def world(*assignments: Assignment) -> World:
    rbac = Rbac()
    for one in assignments:
        rbac.assign(one)
    return cast(World, SimpleNamespace(rbac=rbac, management_groups=dict))


def given(role: str = USER_LOGIN, key: str = "a") -> Assignment:
    return Assignment(key, "anna", role, "/subscriptions/s")


def may(roles: DelayedRoles, now: float) -> bool:
    roles.look(now)
    return roles.view().allowed("anna", LOGIN, MACHINE, data=True)


def test_what_was_there_at_the_beginning_counts_at_once() -> None:
    assert may(DelayedRoles(world(given()), 600), 0)


def test_a_change_counts_when_the_delay_is_over() -> None:
    place = world()
    roles = DelayedRoles(place, 600)
    place.rbac.assign(given())
    assert not may(roles, 1000) and not may(roles, 1599)
    assert may(roles, 1600)
    place.rbac.revoke("a")
    assert may(roles, 2000) and may(roles, 2599)
    assert not may(roles, 2600)


def test_changes_count_in_their_order() -> None:
    place = world(given())
    roles = DelayedRoles(place, 10)
    place.rbac.revoke("a")
    assert may(roles, 0)
    place.rbac.assign(given())
    assert may(roles, 5)
    assert not may(roles, 10)
    assert may(roles, 15)


def test_a_shorter_delay_counts_for_what_waits_already() -> None:
    place = world()
    roles = DelayedRoles(place, 600)
    place.rbac.assign(given())
    assert not may(roles, 0)
    roles.delay = 0
    assert may(roles, 0.1)


def test_owners_of_the_machine_may_not_log_in_by_that() -> None:
    assert not may(DelayedRoles(world(given(OWNER)), 0), 0)


@pytest.mark.parametrize(
    ("principal", "name"),
    [
        (Principal("o1", "3F2504E0-4f89-11d3-9a0c-0305e82c3301", "p"), "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
        (Principal("o2", "", "Anna", type="User", upn="Anna@Arclab.Example"), "anna@arclab.example"),
    ],
)
def test_an_account_is_found_by_name_and_by_number(principal: Principal, name: str) -> None:
    files: dict[str, Any] = {file: json.loads(text) for file, text in records(principal).items()}
    user, group = files[f"{name}.user"], files[f"{name}.group"]
    assert files == {
        f"{name}.user": user,
        f"{user['uid']}.user": user,
        f"{name}.group": group,
        f"{user['uid']}.group": group,
    }
    assert user["userName"] == group["groupName"] == name and user["gid"] == group["gid"] == user["uid"]
    assert 1_000_000_000 <= user["uid"] < 1_500_000_000
    assert user["homeDirectory"] == f"/home/{name}"
