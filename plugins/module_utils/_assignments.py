# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do many role assignments become as they were asked for?

What there is, is listed first, once for each scope, or once for a subscription in which many machines are named: an assignment that
is there under another GUID is found in no other way. What needs a change is then read and written as every resource is. Private to
arcfleet.ssh.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from ._access import at_or_above as holds_at
from ._access import scope_kind
from ._authorization import at_or_above, everywhere, find_role
from ._errors import ArcError, ArmError, InputError
from ._fleet import Target
from ._graph import THREADS, together
from ._ids import MachineId, same, subscription
from ._module import ArcModule
from ._plan import CREATE, plan
from ._reconcile import Outcome, Run, read_machine, reconcile
from ._resources._base import Raw
from ._resources._role_assignment import (
    LIMIT,
    PRINCIPAL_TYPES,
    RESOURCE,
    Role,
    RoleAssignment,
    Scope,
    known_role,
    principal,
    scope_of,
)

T = TypeVar("T")

PLACES = ("scope", "management_group", "resource_group")

# The options of one assignment, alone or in a list.
ASSIGNMENT_OPTIONS: dict[str, Any] = {
    "role": {"type": "str"},
    "principal_id": {"type": "str"},
    "principal_type": {"type": "str", "choices": list(PRINCIPAL_TYPES)},
    "scope": {"type": "str"},
    "management_group": {"type": "str"},
    "resource_group": {"type": "str"},
    "description": {"type": "str"},
    "condition": {"type": "str"},
}

# From so many machines of one subscription on, its own list is read instead of theirs.
_APART = 4

# Remedies that only make sense where a role is given. Codes: the article "Troubleshoot Azure RBAC".
_HINTS: Mapping[str, str] = {
    "PrincipalNotFound": (
        "Check that it is the object id and not the client id. A principal that was made minutes ago is not known everywhere yet: say what "
        "it is with principal_type, then Azure does not look it up."
    ),
    "UnmatchedPrincipalType": "Give the principal_type that Azure names, or leave it out.",
    "RoleAssignmentLimitExceeded": (
        f"A subscription takes {LIMIT:,} role assignments: assign at a resource group, the subscription or a management group instead of at "
        "machines, and give roles to groups instead of to each of their members."
    ),
    "AuthorizationFailed": (
        "Giving and taking roles needs Role Based Access Control Administrator, User Access Administrator or Owner at this scope; a new "
        "assignment takes up to ten minutes to work."
    ),
}

_SAME_EXISTS = "RoleAssignmentExists"
_NO_SUCH_SCOPE = frozenset(("ResourceNotFound", "ResourceGroupNotFound"))
_EXISTING = re.compile(r"\b([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.IGNORECASE)


class AssignmentModule(ArcModule):
    """A module that works on role assignments."""

    kind = "assignments"
    common: Mapping[str, Any] = {}

    def _targets(self) -> list[Target]:
        return assignment_targets(self.params)


def assignment_targets(params: Mapping[str, Any]) -> list[Target]:
    """The assignments of a task: those of `assignments`, which take what they leave out from the task, or the task's own.

    Raises InputError for an empty list, for one that lacks something or names something that cannot be, and for duplicates.
    """
    entries = params.get("assignments")
    if entries is not None and not entries:
        raise InputError("assignments is empty: there is nothing to work on.")
    targets: dict[str, Target] = {}
    for entry in entries if entries is not None else [params]:
        target = _target(_completed(entry, params))
        if target.key in targets:
            raise InputError(f"The assignment of {target.name} is named more than once.")
        targets[target.key] = target
    return list(targets.values())


def _completed(entry: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in entry.items() if value is not None}
    # A place of its own replaces the task's wholly.
    inherited = {name: value for name, value in params.items() if not (name in PLACES and any(map(own.get, PLACES)))}
    return {**inherited, **own}


def _target(options: dict[str, Any]) -> Target:
    missing = [name for name in ("role", "principal_id") if not options.get(name)]
    if missing:
        raise InputError(f"An assignment lacks {' and '.join(missing)}.")
    scope = _scope(options)
    options = {**options, "scope": scope, "principal_id": principal(options["principal_id"])}
    role = known_role(options["role"])
    name = role.name if role else options["role"].strip()
    key = "|".join((scope.key, name.lower(), options["principal_id"]))
    return Target(key, f"{name} for {options['principal_id']} at {scope}", options)


def _scope(options: Mapping[str, Any]) -> Scope:
    given = [name for name in PLACES if options.get(name)]
    if not given:
        raise InputError(
            "There is no scope for the assignment.",
            hint="Give scope, resource_group (with subscription_id) or management_group.",
        )
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other: an assignment has one scope.")
    if options.get("management_group"):
        return Scope.parse(f"/providers/Microsoft.Management/managementGroups/{options['management_group']}")
    if options.get("scope"):
        return Scope.parse(options["scope"])
    if not options.get("subscription_id"):
        raise InputError(f"The resource group {options['resource_group']} needs subscription_id.")
    return Scope.parse(
        f"/subscriptions/{subscription(options['subscription_id'])}/resourceGroups/{options['resource_group']}"
    )


class Standing:
    """What is assigned at the scopes of a run, read once for all of them, and the roles that were asked for."""

    def __init__(self) -> None:
        self._listed: dict[str, list[Raw] | ArcError] = {}
        self._roles: dict[tuple[str, str], Role | ArcError] = {}
        self._used: dict[str, int] = {}

    def read(self, run: Run, targets: Sequence[Target]) -> None:
        """Read it, before the work on single assignments begins."""
        scopes = {target.options["scope"].key: target.options["scope"] for target in targets}
        asked = {_role_key(target): target for target in targets}
        jobs = [partial(_tried, partial(find_role, run.arm, *_role_of(target))) for target in asked.values()]
        self._roles = dict(zip(asked, together(jobs, THREADS)))
        self._refuse_twins(targets)
        for number, group in _crowded(scopes.values()).items():
            whole = _tried(partial(everywhere, run.arm, Scope.parse(f"/subscriptions/{number}")))
            if not isinstance(whole, ArcError):
                # Without the right to read the whole subscription, each scope is read on its own.
                self._listed.update((scope.key, whole) for scope in group)
                self._used[number] = sum(scope_of(raw).lower().startswith("/subscriptions/") for raw in whole)
        alone = [scope for key, scope in scopes.items() if key not in self._listed]
        lists = together([partial(_tried, partial(at_or_above, run.arm, scope)) for scope in alone], THREADS)
        self._listed.update((scope.key, found) for scope, found in zip(alone, lists))

    def _refuse_twins(self, targets: Sequence[Target]) -> None:
        """Refuse an assignment that was asked for twice, by its role's name and by its GUID."""
        seen: set[tuple[str, str, str]] = set()
        for target in targets:
            role = self._roles[_role_key(target)]
            if isinstance(role, Role):
                triple = (target.options["scope"].key, role.guid, target.options["principal_id"])
                if triple in seen:
                    raise InputError(f"The assignment of {target.name} is named more than once.")
                seen.add(triple)

    def role(self, target: Target) -> Role:
        """The role of a target. Raises why there is none."""
        return _or_raise(self._roles[_role_key(target)])

    def at(self, target: Target) -> list[Raw] | None:
        """The assignments at and above the scope of a target, perhaps others as well.

        `None`: there is no such scope, and nothing is wanted there. Raises why they cannot be read.
        """
        found = self._listed[target.options["scope"].key]
        if target.options["state"] == "absent" and isinstance(found, ArmError) and found.code in _NO_SUCH_SCOPE:
            return None
        return _or_raise(found)

    def used(self, target: Target) -> int | None:
        """How many assignments the target's subscription has; `None` where nobody counted them."""
        return self._used.get(target.options["scope"].subscription_id or "")


def _tried(read: Callable[[], T]) -> T | ArcError:
    """What `read` returns or raises: one scope that cannot be read must not stop the others."""
    try:
        return read()
    except ArmError as exc:
        if exc.code in _NO_SUCH_SCOPE:
            exc.hint = "Check the scope."
        return exc


def _or_raise(found: T | ArcError) -> T:
    if isinstance(found, ArcError):
        raise found
    return found


def _role_of(target: Target) -> tuple[Scope, str]:
    """The role that a target names, and where to look it up: no role is made for less than a resource group."""
    scope: Scope = target.options["scope"]
    if scope.kind == RESOURCE:
        scope = Scope.parse("/".join(scope.id.split("/")[:5]))
    return scope, target.options["role"]


def _role_key(target: Target) -> tuple[str, str]:
    scope, role = _role_of(target)
    known = known_role(role)
    return ("", known.guid) if known else (scope.key, role.strip().lower())


def _crowded(scopes: Iterable[Scope]) -> dict[str, list[Scope]]:
    """The scopes of single resources by subscription, where there are many."""
    groups: dict[str, list[Scope]] = {}
    for scope in scopes:
        if scope.kind == RESOURCE and scope.subscription_id:
            groups.setdefault(scope.subscription_id, []).append(scope)
    return {number: group for number, group in groups.items() if len(group) >= _APART}


def assign(run: Run, target: Target, outcome: Outcome, standing: Standing) -> None:
    """Bring one assignment to what it shall be."""
    options, present = target.options, target.options["state"] == "present"
    outcome.asked, outcome.details["inherited_from"] = RoleAssignment.slug, []
    listed = standing.at(target)
    if listed is None:
        outcome.steps[outcome.asked] = plan(None, None)
        return
    resource = RoleAssignment(
        options["scope"],
        standing.role(target),
        options["principal_id"],
        principal_type=options.get("principal_type"),
        description=options.get("description"),
        condition=options.get("condition"),
        present=present,
    )
    outcome.details["inherited_from"] = _inherited(resource, listed)
    _advise(resource, outcome, standing.used(target))
    found = next((raw for raw in listed if resource.matches(raw)), None)
    # One that was made seconds ago may be missing in the list, but not under its name.
    if found is not None:
        resource.path = str(found["id"])
        step = plan(resource.state(found), resource.wanted(found) if present else None)
        if not step.changed:
            outcome.steps[resource.slug] = step
            return
    _write(run, resource, outcome)


def _write(run: Run, resource: RoleAssignment, outcome: Outcome) -> None:
    try:
        reconcile(run, resource, outcome)
    except ArmError as exc:
        existing = _existing(run, resource, exc) if exc.code == _SAME_EXISTS else None
        if existing is None:
            exc.hint = _HINTS.get(exc.code or "", exc.hint)
            raise
        # Somebody made it since the list was read.
        resource.path = existing
        reconcile(run, resource, outcome)
    machine = _machine_of(resource.scope)
    if run.check_mode and machine is not None and outcome.action == CREATE:
        read_machine(run, machine)


def _existing(run: Run, resource: RoleAssignment, refusal: ArmError) -> str | None:
    """The id of the equal assignment for whose sake Azure refuses: Azure names it, or lists it."""
    for name in _EXISTING.findall(refusal.message):
        path = f"{resource.scope.assignments}/{uuid.UUID(name)}"
        raw = run.arm.get(path, resource.api_version, doing=f"{resource.owner}: cannot read the {resource.noun}")
        if raw is not None and resource.matches(raw):
            return path
    return next((str(raw["id"]) for raw in at_or_above(run.arm, resource.scope) if resource.matches(raw)), None)


def _inherited(resource: RoleAssignment, listed: Sequence[Raw]) -> list[str]:
    """The scopes above from which the principal has the role as well."""
    above = (raw for raw in listed if resource.grants_the_same(raw) and holds_at(raw, resource.scope.key))
    return sorted({scope_of(raw) or "/" for raw in above if not same(scope_of(raw), resource.scope.id)})


def _advise(resource: RoleAssignment, outcome: Outcome, used: int | None) -> None:
    inherited = outcome.details["inherited_from"]
    if not resource.present and inherited:
        outcome.warnings.append(
            f"{resource.owner}: {resource.principal_id} keeps the role {resource.role.name}, which comes from {' and '.join(inherited)}."
        )
    if resource.present and resource.scope.kind == RESOURCE:
        count = f", {used:,} of which are taken" if used is not None else ""
        outcome.warnings.append(
            f"Assignments at single machines count towards the {LIMIT:,} that subscription {resource.scope.subscription_id} takes{count}. "
            "Assign at a resource group, the subscription or a management group where that is possible."
        )


def _machine_of(scope: Scope) -> MachineId | None:
    machine = scope_kind(scope.id) == "machine"
    return MachineId.parse(scope.id) if machine else None
