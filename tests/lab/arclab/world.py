# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exists in the lab's Azure, and what is behind it?

ARM resources by lower-cased id with an index of children, the machines' real state, and the identities. All of it in
memory and written through to the store, so that a stopped lab goes on where it was. Nothing here scans the fleet for
one request.
"""

from __future__ import annotations

import bisect
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from . import fleet
from .agent import Machine
from .fleet import Plan, guid, stamp
from .paths import group_of, parent_and_type, subscription_of
from .rbac import Assignment, Rbac
from .roles import OWNER, role_from_json
from .store import Store
from .versions import ALWAYS_REGISTERED

MACHINES = "microsoft.hybridcompute/machines"
EXTENSIONS = "microsoft.hybridcompute/machines/extensions"
RUN_COMMANDS = "microsoft.hybridcompute/machines/runcommands"
ENDPOINTS = "microsoft.hybridconnectivity/endpoints"
SERVICE_CONFIGURATIONS = "microsoft.hybridconnectivity/endpoints/serviceconfigurations"
ROLE_ASSIGNMENTS = "microsoft.authorization/roleassignments"
ROLE_DEFINITIONS = "microsoft.authorization/roledefinitions"
DOMAIN = "arclab.onmicrosoft.example"


@dataclass
class Principal:
    """An identity of the tenant: `id` is its object id, `app_id` what it logs in with. The proofs it may show are
    `secrets`, `certificates` (PEM) and `federated` (issuer, subject, audience and the issuer's public key as PEM). A User
    has a name to sign in with (`upn`) instead of an `app_id`, and `refresh_tokens` where they are signed in. `refused` is
    the AADSTS number with which Entra refuses every token, `certificate_refused` the one for SSH certificates alone."""

    id: str
    app_id: str
    name: str
    type: str = "ServicePrincipal"
    secrets: list[str] = field(default_factory=list, repr=False)
    certificates: list[str] = field(default_factory=list)
    federated: list[dict[str, str]] = field(default_factory=list)
    upn: str | None = None
    refresh_tokens: list[str] = field(default_factory=list, repr=False)
    refused: int | None = None
    certificate_refused: int | None = None

    @property
    def login(self) -> str:
        """What names it in an SSH certificate, as Entra spells it."""
        return self.upn or self.app_id


class World:
    """All state of a lab but that of its relay."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.meta: dict[str, Any] = dict(store.load("meta"))
        self.resources: dict[str, dict[str, Any]] = {}
        self.machines: dict[str, Machine] = {}
        self.principals: dict[str, Principal] = {}
        self.applications: dict[str, Principal] = {}
        self.logins: dict[str, Principal] = {}
        self.providers: dict[str, dict[str, Any]] = dict(store.load("provider"))
        self.version = 0
        self.connection_names: dict[str, str] = {}
        # Called when a role was given: the machines' logins want to know at once.
        self.on_assignment: Callable[[], None] | None = None
        self._children: dict[str, dict[str, list[str]]] = {}
        self._names: dict[str, list[str]] = {}
        for key, body in store.load("resource"):
            self._index(key, body)
        for key, value in store.load("machine"):
            self._know_machine(Machine(**value), key)
        for _key, value in store.load("principal"):
            self._know_principal(Principal(**value))
        self.rbac = Rbac(self.management_groups())
        for key in self.of_type(ROLE_DEFINITIONS):
            self.rbac.add_role(role_from_json(key.rsplit("/", 1)[1], self.resources[key]["properties"]))
        for key in self.of_type(ROLE_ASSIGNMENTS):
            self.rbac.assign(self._assignment(key, self.resources[key]))

    # Making a new one

    @property
    def is_new(self) -> bool:
        return not self.meta

    def populate(self, plans: Iterable[Plan], subscriptions: int, *, unregistered: bool, now: float) -> None:
        """Fill an empty world: subscriptions, groups, machines, and the identity that owns everything."""
        plans = list(plans)
        ids = list(dict.fromkeys([*fleet.subscription_ids(subscriptions), *(one.subscription for one in plans)]))
        self.set_meta("tenant", fleet.TENANT)
        self.set_meta("relay_secret", secrets.token_hex(32))
        self.set_meta("identity_header", secrets.token_hex(16))
        self.set_meta("subscriptions", ids)
        self.rbac = Rbac(self.management_groups())
        for number, subscription in enumerate(ids, 1):
            self._add_subscription(subscription, number)
        for group, location in dict.fromkeys(((one.subscription, one.group), one.location) for one in plans):
            self.add_group(*group, location)
        for one in plans:
            self.add_machine(one, now)
        owner = Principal(guid("owner", "object"), guid("owner", "app"), "arclab", secrets=[_secret()])
        self.add_principal(owner)
        self.set_meta("owner", owner.app_id)
        for subscription in ids:
            self.assign(owner.id, OWNER, f"/subscriptions/{subscription}", now)
            for namespace in (
                "microsoft.hybridcompute",
                "microsoft.hybridconnectivity",
                "microsoft.guestconfiguration",
            ):
                if not (unregistered and namespace == "microsoft.hybridconnectivity"):
                    self.set_registration(subscription, namespace, "Registered", None)

    def add_machine(self, one: Plan, now: float) -> None:
        body = fleet.resource(one, now)
        self.put(body["id"], body)
        self._know_machine(one.runtime())
        self.save_machine(one.id.lower())
        for extension in one.extensions:
            name = extension.get("name") or extension["type"]
            version = extension.get("version", "1.0.0")
            self.put(
                f"{one.id}/extensions/{name}",
                {
                    "id": f"{one.id}/extensions/{name}",
                    "name": name,
                    "type": "Microsoft.HybridCompute/machines/extensions",
                    "location": one.location,
                    "properties": {
                        "publisher": extension["publisher"],
                        "type": extension["type"],
                        "typeHandlerVersion": version,
                        "autoUpgradeMinorVersion": False,
                        "enableAutomaticUpgrade": bool(extension.get("enable_automatic_upgrade", False)),
                        "settings": extension.get("settings") or {},
                        "provisioningState": extension.get("provisioning_state", "Succeeded"),
                    },
                },
            )

    def _add_subscription(self, subscription: str, number: int) -> None:
        path = f"/subscriptions/{subscription}"
        self.put(
            path,
            {
                "id": path,
                "authorizationSource": "RoleBased",
                "managedByTenants": [],
                "subscriptionId": subscription,
                "tenantId": self.tenant,
                "displayName": f"Arc lab {number}",
                "state": "Enabled",
                "subscriptionPolicies": {
                    "locationPlacementId": "Public_2014-09-01",
                    "quotaId": "EnterpriseAgreement_2014-09-01",
                    "spendingLimit": "Off",
                },
            },
        )

    def add_group(self, subscription: str, name: str, location: str) -> None:
        path = f"/subscriptions/{subscription}/resourceGroups/{name}"
        if path.lower() not in self.resources:
            self.put(
                path,
                {
                    "id": path,
                    "name": name,
                    "type": "Microsoft.Resources/resourceGroups",
                    "location": location,
                    "tags": {},
                    "properties": {"provisioningState": "Succeeded"},
                },
            )

    # Facts about the tenant

    @property
    def tenant(self) -> str:
        return str(self.meta["tenant"])

    @property
    def subscriptions(self) -> list[str]:
        return list(self.meta.get("subscriptions", ()))

    def management_groups(self) -> dict[str, list[str]]:
        """The tenant's root group, and one below it that holds the same subscriptions."""
        if not self.meta:
            return {}
        keys = [f"/subscriptions/{one}" for one in self.subscriptions]
        return {self.tenant: keys, "arc": keys}

    def set_meta(self, name: str, value: Any) -> None:
        self.meta[name] = value
        self.store.save("meta", name, value)

    def registration(self, subscription: str, namespace: str, now: float) -> str:
        """The registrationState of a namespace (lower-cased)."""
        if namespace in ALWAYS_REGISTERED:
            return "Registered"
        entry = self.providers.get(f"{subscription}/{namespace}")
        if entry is None:
            return "NotRegistered"
        if entry["until"] is not None and now >= entry["until"]:
            return {"Registering": "Registered", "Unregistering": "Unregistered"}[entry["state"]]
        return str(entry["state"])

    def set_registration(self, subscription: str, namespace: str, state: str, until: float | None) -> None:
        key = f"{subscription}/{namespace}"
        self.providers[key] = {"state": state, "until": until}
        self.store.save("provider", key, self.providers[key])

    # Resources

    def get(self, path: str) -> dict[str, Any] | None:
        return self.resources.get(path.lower())

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create or replace the resource at `path`; also to be called after a body was changed in place."""
        key = path.lower()
        if key not in self.resources:
            self._index(key, body)
        self.resources[key] = body
        self.version += 1
        self.store.save("resource", key, body)
        return body

    def delete(self, path: str) -> list[str]:
        """Delete a resource with all that hangs on it; returns the keys of what is gone."""
        key = path.lower()
        gone = [
            one for kind in self._children.get(key, {}).values() for child in list(kind) for one in self.delete(child)
        ]
        if self.resources.pop(key, None) is None:
            return gone
        self.version += 1
        self.store.delete("resource", key)
        for parent, full_type in self._places(key):
            _discard(self._children[parent][full_type], key)
        self._children.pop(key, None)
        if key in self.machines:
            machine = self.machines.pop(key)
            self._names[machine.name.lower()].remove(key)
            self.store.delete("machine", key)
        if key in self.rbac.assignments:
            self.rbac.revoke(key)
        return [*gone, key]

    def children(self, parent: str, full_type: str) -> list[str]:
        """The keys of a resource's children of one type (lower-cased), in order. Machines hang on group and
        subscription."""
        return self._children.get(parent.lower(), {}).get(full_type, [])

    def of_type(self, full_type: str) -> list[str]:
        """The keys of all resources of a type, in order."""
        return self._children.get("*", {}).get(full_type, [])

    def _places(self, key: str) -> Iterator[tuple[str, str]]:
        if "/providers/" in key:
            parent, full_type = parent_and_type(key)
        else:
            parent = key.rsplit("/", 2)[0]
            full_type = "groups" if parent else "subscriptions"
        yield "*", full_type
        if full_type == MACHINES:
            yield group_of(key), full_type
            yield subscription_of(key), full_type
        else:
            yield parent, full_type

    def _index(self, key: str, body: dict[str, Any]) -> None:
        self.resources[key] = body
        for parent, full_type in self._places(key):
            keys = self._children.setdefault(parent, {}).setdefault(full_type, [])
            if keys and key < keys[-1]:
                bisect.insort(keys, key)
            else:
                keys.append(key)

    # Machines

    def _know_machine(self, machine: Machine, key: str | None = None) -> None:
        self.machines[key or machine.id] = machine
        self._names.setdefault(machine.name.lower(), []).append(machine.id)

    def find_machines(self, name: str) -> list[str]:
        """The keys of the machines that a name or an id means."""
        name = name.lower()
        return [name] if name in self.machines else self._names.get(name, [])

    def save_machine(self, key: str) -> None:
        self.store.save("machine", key, asdict(self.machines[key]))

    def set_status(self, key: str, status: str, now: float) -> None:
        """What the machine's heartbeat, or its absence, tells Azure."""
        body = self.resources[key]
        body["properties"]["status"] = status
        body["properties"]["lastStatusChange"] = stamp(now)
        self.put(key, body)

    # Identities

    def _know_principal(self, principal: Principal) -> None:
        self.principals[principal.id] = principal
        self.logins[principal.login.lower()] = principal
        if principal.upn is None:
            self.applications[principal.app_id] = principal

    def add_principal(self, principal: Principal) -> None:
        """Know a principal, or keep what was changed about one."""
        self._know_principal(principal)
        self.store.save("principal", principal.id, asdict(principal))

    def assign(self, principal_id: str, role: str, scope: str, now: float, name: str | None = None) -> dict[str, Any]:
        """Give a role (GUID) at a scope."""
        principal = self.principals.get(principal_id)
        name = name or guid("assignment", scope.lower(), role, principal_id)
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"
        prefix = subscription_of(scope) if scope.lower().startswith("/subscriptions/") else ""
        body = {
            "properties": {
                "roleDefinitionId": f"{prefix}/providers/Microsoft.Authorization/roleDefinitions/{role}",
                "principalId": principal_id,
                "principalType": principal.type if principal else "ServicePrincipal",
                "scope": scope or "/",
                "createdOn": stamp(now),
                "updatedOn": stamp(now),
            },
            "id": path,
            "type": "Microsoft.Authorization/roleAssignments",
            "name": name,
        }
        return self.put_assignment(path, body)

    def put_assignment(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.put(path, body)
        self.rbac.assign(self._assignment(path.lower(), body))
        if self.on_assignment is not None:
            self.on_assignment()
        return body

    def _assignment(self, key: str, body: dict[str, Any]) -> Assignment:
        properties = body["properties"]
        role = properties["roleDefinitionId"].rsplit("/", 1)[1].lower()
        return Assignment(key, properties["principalId"].lower(), role, properties["scope"].lower().rstrip("/"))


def _discard(keys: list[str], key: str) -> None:
    place = bisect.bisect_left(keys, key)
    if place < len(keys) and keys[place] == key:
        del keys[place]


def _secret() -> str:
    """A client secret as Entra makes them: 40 characters."""
    return secrets.token_urlsafe(30)


def new_principal(name: str) -> Principal:
    """A fresh service principal with a client secret."""
    seed = f"{name}/{time.time_ns()}"
    return Principal(guid("principal", seed, "object"), guid("principal", seed, "app"), name, secrets=[_secret()])


def new_user(upn: str) -> Principal:
    """A fresh user of the tenant."""
    return Principal(guid("user", f"{upn}/{time.time_ns()}"), "", upn.partition("@")[0], type="User", upn=upn)
