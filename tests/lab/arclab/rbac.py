# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May this principal do this here?

Azure's rules: an assignment gives a role at a scope and everything below; a role allows an action if one of its
`actions` matches and none of its `notActions`; `*` stands for any text, slashes included; case does not count. Nothing
denies.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .roles import BUILT_IN, Role

_MANAGEMENT_GROUPS = "/providers/microsoft.management/managementgroups/"


@dataclass(frozen=True)
class Assignment:
    """`scope` is lower-cased, `""` is the root; `role` the definition's GUID."""

    key: str
    principal_id: str
    role: str
    scope: str


@functools.lru_cache(maxsize=4096)
def _pattern(action: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in action.lower().split("*")) + r"\Z", re.DOTALL)


def matches(patterns: Iterable[str], action: str) -> bool:
    """Does one of the role's patterns cover the action?"""
    action = action.lower()
    return any(_pattern(pattern).match(action) for pattern in patterns)


def covers(outer: str, inner: str) -> bool:
    """Is the lower-cased scope `inner` at or below `outer`?"""
    return not outer or inner == outer or inner.startswith(outer + "/")


class Rbac:
    """Role definitions and assignments; `management_groups` gives the subscription keys below each management group."""

    def __init__(self, management_groups: Mapping[str, Iterable[str]] | None = None) -> None:
        self.roles: dict[str, Role] = {role.id: role for role in BUILT_IN}
        self.assignments: dict[str, Assignment] = {}
        self._groups = {
            _MANAGEMENT_GROUPS + name.lower(): frozenset(below) for name, below in (management_groups or {}).items()
        }
        self._scopes: dict[tuple[str, str, bool], tuple[str, ...]] = {}
        self._seen: dict[tuple[str, str], bool] = {}

    def add_role(self, role: Role) -> None:
        self.roles[role.id] = role
        self._forget()

    def remove_role(self, guid: str) -> None:
        self.roles.pop(guid, None)
        self._forget()

    def assign(self, assignment: Assignment) -> None:
        self.assignments[assignment.key] = assignment
        self._forget()

    def revoke(self, key: str) -> None:
        self.assignments.pop(key, None)
        self._forget()

    def _forget(self) -> None:
        self._scopes.clear()
        self._seen.clear()

    def covers(self, outer: str, inner: str) -> bool:
        """As the function `covers`, with management groups resolved."""
        below = self._groups.get(outer)
        if below is not None:
            return covers(outer, inner) or "/".join(inner.split("/")[:3]) in below
        return covers(outer, inner)

    def is_management_group(self, scope: str) -> bool:
        return scope in self._groups

    def scopes(self, principal_id: str, action: str, *, data: bool = False) -> tuple[str, ...]:
        """Where the principal may do this (lower-cased)."""
        place = (principal_id, action, data)
        found = self._scopes.get(place)
        if found is None:
            if len(self._scopes) > 10_000:
                self._scopes.clear()
            found = tuple(
                assignment.scope
                for assignment in self.assignments.values()
                if assignment.principal_id == principal_id and self._grants(assignment.role, action, data)
            )
            self._scopes[place] = found
        return found

    def allowed(self, principal_id: str, action: str, scope: str, *, data: bool = False) -> bool:
        """May `principal_id` do `action` on the resource with this id?"""
        scope = scope.lower()
        return any(self.covers(outer, scope) for outer in self.scopes(principal_id, action, data=data))

    def sees(self, principal_id: str, scope: str) -> bool:
        """Has the principal any role at, above or below this scope? Then ARM lists the subscription or group for it."""
        place = (principal_id, scope.lower())
        if place not in self._seen:
            if len(self._seen) > 10_000:
                self._seen.clear()
            self._seen[place] = any(
                assignment.principal_id == principal_id
                and (self.covers(assignment.scope, place[1]) or covers(place[1], assignment.scope))
                for assignment in self.assignments.values()
            )
        return self._seen[place]

    def _grants(self, guid: str, action: str, data: bool) -> bool:
        role = self.roles.get(guid)
        if role is None:
            return False
        if data:
            return matches(role.data_actions, action) and not matches(role.not_data_actions, action)
        return matches(role.actions, action) and not matches(role.not_actions, action)
