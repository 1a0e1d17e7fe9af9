# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rows does a Resource Graph query run over?

The tables `resources`, `resourcecontainers` and `authorizationresources`, limited to what the caller may read. Types
and group names are in lower case there, as in Azure. Built once per caller until something changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .world import EXTENSIONS, MACHINES, ROLE_ASSIGNMENTS, RUN_COMMANDS, World

Row = dict[str, Any]
Shown = Callable[[Row], Row]


class Tables:
    """The tables of a world; `shown` says how a resource of a type appears in answers."""

    def __init__(self, world: World, shown: dict[str, Shown]) -> None:
        self.world = world
        self._shown = shown
        self._built: dict[str, tuple[int, dict[str, list[Row]]]] = {}

    def of(self, principal_id: str) -> dict[str, list[Row]]:
        """The tables that this principal can read."""
        version, tables = self._built.get(principal_id, (-1, {}))
        if version != self.world.version:
            tables = self._build(principal_id)
            self._built = {principal_id: (self.world.version, tables)}
        return tables

    def _build(self, principal_id: str) -> dict[str, list[Row]]:
        return {
            "resources": [
                row for full_type in (MACHINES, EXTENSIONS, RUN_COMMANDS) for row in self._rows(principal_id, full_type)
            ],
            "resourcecontainers": list(self._containers(principal_id)),
            "authorizationresources": [*self._rows(principal_id, ROLE_ASSIGNMENTS), *self._definitions(principal_id)],
        }

    def _rows(self, principal_id: str, full_type: str) -> Iterator[Row]:
        action = f"{full_type}/read"
        allowed = self.world.rbac.allowed
        everywhere = {one for one in self.world.subscriptions if allowed(principal_id, action, f"/subscriptions/{one}")}
        shown = self._shown.get(full_type)
        for key in self.world.of_type(full_type):
            parts = key.split("/")
            subscription = parts[2] if parts[1] == "subscriptions" else ""
            if subscription not in everywhere and not allowed(principal_id, action, key):
                continue
            body = self.world.resources[key]
            yield {
                **(shown(body) if shown else body),
                "type": full_type,
                "tenantId": self.world.tenant,
                "subscriptionId": subscription,
                "resourceGroup": parts[4] if len(parts) > 4 and parts[3] == "resourcegroups" else "",
            }

    def _containers(self, principal_id: str) -> Iterator[Row]:
        action = "Microsoft.Resources/subscriptions/resourceGroups/read"
        tenant = self.world.tenant
        chain = [
            {"displayName": "Arc", "name": "arc"},
            {"displayName": "Tenant Root Group", "name": tenant},
        ]
        for key in (*self.world.of_type("subscriptions"), *self.world.of_type("groups")):
            if not self.world.rbac.allowed(principal_id, action, key):
                continue
            body, parts = self.world.resources[key], key.split("/")
            group = parts[4] if len(parts) > 4 else ""
            properties = body.get("properties") or {
                "state": body["state"],
                "subscriptionPolicies": body["subscriptionPolicies"],
                "managementGroupAncestorsChain": chain,
            }
            yield {
                "id": body["id"],
                "name": body.get("name") or body["displayName"],
                "type": "microsoft.resources/subscriptions" + ("/resourcegroups" if group else ""),
                "tenantId": tenant,
                "subscriptionId": parts[2],
                "resourceGroup": group,
                "location": body.get("location", ""),
                "tags": body.get("tags") or {},
                "properties": properties,
            }

    def _definitions(self, principal_id: str) -> Iterator[Row]:
        if not self.world.rbac.sees(principal_id, ""):
            return
        for role in self.world.rbac.roles.values():
            yield {
                **role.to_json(""),
                "type": "microsoft.authorization/roledefinitions",
                "tenantId": self.world.tenant,
                "subscriptionId": "",
                "resourceGroup": "",
            }
