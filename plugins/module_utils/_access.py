# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can log in to which machine, as what, and through which scope?

Pure: from role assignments and role definitions. Azure's rules (article "Understand Azure role definitions"): a permission of a role
allows what one of its actions matches and none of its notActions does, and likewise with data actions; the permissions of a role add
up; `*` stands for any text; case does not count; an assignment holds at its scope and below. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ._resources._base import Raw, properties
from ._resources._role_assignment import principal_of, role_of, scope_of

ADMIN, USER, LOCAL = "admin", "user", "local"

# What Entra login asks on the machine, and what reaching a machine through the relay takes.
LOGIN_AS_ADMIN = "Microsoft.HybridCompute/machines/loginAsAdmin/action"
LOGIN = "Microsoft.HybridCompute/machines/login/action"
LIST_CREDENTIALS = "Microsoft.HybridConnectivity/endpoints/listCredentials/action"

_MANAGEMENT_GROUP = "/providers/microsoft.management/managementgroups/"


@dataclass(frozen=True)
class Login:
    """What a role means for SSH: `level` is admin, user or local; `relay`: whether it also gives the way through the relay."""

    level: str
    relay: bool


def login_of(definition: Raw) -> Login | None:
    """What a role definition means for SSH over Arc; `None` if nothing.

    `local` is a role that lets its principals reach the machine's SSH server but not log in with Entra: they need an account and a key
    or password of the machine itself.
    """
    permissions = [entry for entry in properties(definition).get("permissions") or () if isinstance(entry, Mapping)]
    relay = _allows(permissions, LIST_CREDENTIALS, "actions", "notActions")
    if _allows(permissions, LOGIN_AS_ADMIN, "dataActions", "notDataActions"):
        return Login(ADMIN, relay)
    if _allows(permissions, LOGIN, "dataActions", "notDataActions"):
        return Login(USER, relay)
    return Login(LOCAL, relay) if relay else None


def _allows(permissions: Sequence[Mapping[str, Any]], action: str, given: str, taken: str) -> bool:
    return any(
        _match(permission.get(given), action) and not _match(permission.get(taken), action)
        for permission in permissions
    )


def _match(patterns: Iterable[str] | None, action: str) -> bool:
    return any(_pattern(str(pattern)).match(action.lower()) for pattern in patterns or ())


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.lower().split("*")) + r"\Z", re.DOTALL)


def at_or_above(raw: Raw, key: str) -> bool:
    """Whether an assignment that Azure lists for the subscription of `key` holds for what has this id (lower case).

    What is no part of a subscription is above it, or Azure would not list it there.
    """
    scope = scope_of(raw).lower()
    return not scope.startswith("/subscriptions/") or key == scope or key.startswith(scope + "/")


def below(raw: Raw, key: str) -> bool:
    """Whether the scope of an assignment lies below the scope `key` (lower case)."""
    return scope_of(raw).lower().startswith(key + "/")


def entry(raw: Raw, definition: Raw) -> dict[str, Any] | None:
    """One line of the answer for an assignment; `None` where its role has nothing to do with logging in."""
    login = login_of(definition)
    if login is None:
        return None
    known = properties(raw)
    return {
        "principal_id": principal_of(raw),
        "principal_type": known.get("principalType"),
        "as": login.level,
        "relay": login.relay,
        "role": properties(definition).get("roleName"),
        "role_guid": role_of(raw),
        "scope": scope_of(raw) or "/",
        "scope_kind": scope_kind(scope_of(raw)),
        "assignment_id": raw.get("id"),
        "condition": known.get("condition") or None,
    }


def scope_kind(scope: str) -> str:
    """What kind of place a scope is: root, management_group, subscription, resource_group, machine or resource."""
    parts = scope.lower().strip("/").split("/")
    if not scope.strip("/"):
        return "root"
    if scope.lower().startswith(_MANAGEMENT_GROUP):
        return "management_group"
    if len(parts) <= 2:
        return "subscription"
    if len(parts) <= 4:
        return "resource_group"
    return "machine" if parts[5:7] == ["microsoft.hybridcompute", "machines"] and len(parts) == 8 else "resource"


_RANK = {ADMIN: 0, USER: 1, LOCAL: 2}


def entries(assignments: Iterable[Raw], definitions: Mapping[str, Raw]) -> list[dict[str, Any]]:
    """The lines for these assignments, admins first; `definitions` by GUID. One whose role is not known has no line."""
    found = [
        line
        for raw in assignments
        for line in [entry(raw, definitions[role_of(raw)]) if role_of(raw) in definitions else None]
        if line is not None
    ]
    return sorted(
        found, key=lambda line: (_RANK[line["as"]], line["scope"].lower(), line["principal_id"], str(line["role"]))
    )
