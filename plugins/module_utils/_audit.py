# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can log in to the machines of a fleet, or anywhere in a scope?

Reads the assignments once for each subscription (for each resource group where this identity may not read the subscription), and the
definitions of the roles in them; what that means for each machine is `_access`'s. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from . import _access
from ._authorization import definitions, everywhere
from ._errors import ArcError, ArmError, InputError
from ._fleet import Target
from ._graph import THREADS, together
from ._ids import same
from ._module import MACHINE_OPTIONS, ArcModule
from ._reconcile import Outcome, Run
from ._resources._base import Raw
from ._resources._role_assignment import Scope, role_of

_HINT = "Reading who has which role needs Microsoft.Authorization/roleAssignments/read there, which is in Reader."


class AuditModule(ArcModule):
    """A module that works on machines, or on the scopes of its option `scopes`."""

    common: Mapping[str, Any] = {**MACHINE_OPTIONS, "scopes": {"type": "list", "elements": "str"}}

    def _targets(self) -> list[Target]:
        if self.params["scopes"] is None:
            return super()._targets()
        if any(self.params[name] is not None for name in ("machines", "name", "resource_group")):
            raise InputError("scopes excludes machines, name and resource_group.")
        self.kind = "scopes"
        return scope_targets(self.params)


def scope_targets(params: Mapping[str, Any]) -> list[Target]:
    """The scopes named by `scopes`. Raises InputError for an empty list, for what is no scope and for duplicates."""
    if not params["scopes"]:
        raise InputError("scopes is empty: there is nothing to look at.")
    targets: dict[str, Target] = {}
    for text in params["scopes"]:
        scope = Scope.parse(text)
        if scope.key in targets:
            raise InputError(f"scopes names {scope.id} more than once.")
        targets[scope.key] = Target(scope.key, str(scope), {**params, "scope": scope})
    return list(targets.values())


class Audit:
    """The role assignments around the targets of a run, and what the roles in them mean."""

    def __init__(self) -> None:
        self._around: dict[str, list[Raw] | ArcError] = {}
        self._definitions: dict[str, Raw] = {}

    def read(self, run: Run, targets: Sequence[Target]) -> None:
        """Read them, once for all targets."""
        wide = {scope.key: scope for target in targets for scope in [_widest(target)]}
        self._read(run, list(wide.values()))
        narrow = {
            scope.key: scope
            for target in targets
            if target.machine is not None and isinstance(self._around[_widest(target).key], ArcError)
            for scope in [Scope.parse(target.machine.parent)]
        }
        self._read(run, list(narrow.values()))
        readable = [scope for scope in {**wide, **narrow}.values() if not isinstance(self._around[scope.key], ArcError)]
        every = [raw for found in self._around.values() if not isinstance(found, ArcError) for raw in found]
        if readable:
            self._definitions = definitions(run.arm, readable[0], every)

    def _read(self, run: Run, scopes: Sequence[Scope]) -> None:
        found = together([partial(_around, run, scope) for scope in scopes], THREADS)
        self._around.update((scope.key, answer) for scope, answer in zip(scopes, found))

    def tell(self, target: Target, outcome: Outcome) -> None:
        """Note in `outcome` who can log in where the target is. Raises why that cannot be read."""
        key = target.key
        here = [
            raw
            for raw in self._of(target)
            if _access.at_or_above(raw, key) or (target.machine is None and _access.below(raw, key))
        ]
        lines = _access.entries(here, self._definitions)
        own = str(target.machine) if target.machine else target.options["scope"].id
        outcome.details["resource_id" if target.machine else "scope"] = own
        outcome.details["access"] = [
            {**line, "inherited": not (same(line["scope"], key) or line["scope"].lower().startswith(key + "/"))}
            for line in lines
        ]
        unknown = sorted(
            {str(raw.get("id")): role_of(raw) for raw in here if role_of(raw) not in self._definitions}.items()
        )
        outcome.details["undetermined"] = [{"assignment_id": number, "role_guid": guid} for number, guid in unknown]
        for guid in sorted({guid for _number, guid in unknown}):
            outcome.warnings.append(
                f"The role {guid} cannot be read, so whether it lets anybody log in is not known; see undetermined."
            )

    def _of(self, target: Target) -> list[Raw]:
        found = self._around[_widest(target).key]
        if isinstance(found, ArcError) and target.machine is not None:
            found = self._around[Scope.parse(target.machine.parent).key]
        if isinstance(found, ArcError):
            raise found
        return found


def _widest(target: Target) -> Scope:
    """Where to read for a target: the subscription of a machine, or the scope itself."""
    if target.machine is None:
        scope: Scope = target.options["scope"]
        return scope
    return Scope.parse(f"/subscriptions/{target.machine.subscription_id}")


def _around(run: Run, scope: Scope) -> list[Raw] | ArcError:
    try:
        return everywhere(run.arm, scope)
    except ArmError as exc:
        exc.hint = _HINT if exc.status == 403 else "Check the id." if exc.status == 404 else exc.hint
        return exc
