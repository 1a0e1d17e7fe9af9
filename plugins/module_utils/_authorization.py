# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which roles are given where, and what is in them?

Reads Microsoft.Authorization 2022-04-01 from ARM itself, whose answer is of now, with a few requests for any number of machines: what a
subscription answers covers everything in it. The specification says that `atScope()` gives what is at a scope and above it; what is below
comes without a filter. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from ._errors import ArmError
from ._ids import same
from ._resources._base import Raw, properties
from ._resources._role_assignment import API_VERSION, MANAGEMENT_GROUP, Role, Scope, known_role, role_guid, role_of

if TYPE_CHECKING:
    from ._arm import Arm

_DEFINITIONS = "/providers/Microsoft.Authorization/roleDefinitions"
_CANNOT_READ = frozenset((403, 404))


def at_or_above(arm: Arm, scope: Scope) -> list[Raw]:
    """The role assignments that hold at `scope`: its own and inherited ones."""
    doing = f"{scope}: cannot list the role assignments"
    return list(arm.pages(scope.assignments, API_VERSION, query=_filter("atScope()"), doing=doing))


def everywhere(arm: Arm, scope: Scope) -> list[Raw]:
    """The role assignments at `scope`, above it and, unless it is a management group, below it."""
    found = {str(raw.get("id")).lower(): raw for raw in at_or_above(arm, scope)}
    if scope.kind == MANAGEMENT_GROUP:
        # What is in its subscriptions is theirs to tell.
        return list(found.values())
    doing = f"{scope}: cannot list the role assignments"
    found.update((str(raw.get("id")).lower(), raw) for raw in arm.pages(scope.assignments, API_VERSION, doing=doing))
    return list(found.values())


def definitions(arm: Arm, scope: Scope, assignments: Iterable[Raw]) -> dict[str, Raw]:
    """The definitions of the roles of `assignments`, by GUID. One that this identity cannot read is missing.

    Most of them come with the one list of the roles that can be given at `scope`; custom roles that can be given elsewhere only are read
    one by one.
    """
    ids = {role_of(raw): str(properties(raw).get("roleDefinitionId") or "") for raw in assignments}
    if not ids:
        return {}
    found: dict[str, Raw] = {}
    doing = f"{scope}: cannot list the roles"
    try:
        for raw in arm.pages(scope.definitions, API_VERSION, doing=doing):
            found[str(raw.get("name")).lower()] = raw
    except ArmError as exc:
        if exc.status not in _CANNOT_READ:
            raise
    for guid in sorted(set(ids) - set(found)):
        one = _definition(arm, ids[guid])
        if one is not None:
            found[guid] = one
    return {guid: found[guid] for guid in ids if guid in found}


def _definition(arm: Arm, path: str) -> Raw | None:
    try:
        found: Raw | None = arm.get(path, API_VERSION, doing=f"Cannot read the role {path}")
    except ArmError as exc:
        if exc.status not in _CANNOT_READ:
            raise
        return None
    return found


def find_role(arm: Arm, scope: Scope, text: str) -> Role:
    """The role with this name, GUID or id. Raises ArmError where it cannot be given at `scope`."""
    text = text.strip()
    known = known_role(text)
    if known is not None:
        return known
    guid = role_guid(text)
    doing = f"{scope}: cannot read the role {text}"
    if guid is not None:
        raw = arm.get(f"{scope.id}{_DEFINITIONS}/{guid}", API_VERSION, doing=doing)
        found = [] if raw is None else [raw]
    else:
        escaped = text.replace("'", "''")
        query = _filter(f"roleName eq '{escaped}'")
        found = [
            raw
            for raw in arm.pages(scope.definitions, API_VERSION, query=query, doing=doing)
            if same(str(properties(raw).get("roleName")), text)
        ]
    if not found:
        raise ArmError(
            f"{scope}: there is no role {text} that can be given here.",
            code="RoleDefinitionDoesNotExist",
            status=404,
            hint="Check its spelling, and for a custom role its assignable scopes; `az role definition list` shows both.",
        )
    return Role(str(found[0]["name"]).lower(), str(properties(found[0]).get("roleName") or text))


def _filter(text: str) -> Mapping[str, str]:
    return {"$filter": quote(text, safe="()'")}
