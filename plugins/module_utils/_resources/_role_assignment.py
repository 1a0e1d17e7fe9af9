# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has this principal this role at this scope?

`{scope}/providers/Microsoft.Authorization/roleAssignments/{GUID}`; 2022-04-01 specification. Scope, role and principal are what an
assignment is: ARM takes no two that agree in them, and changes none of them. So the GUID is made from the three, and one that
somebody else made under another GUID is the same assignment. Description and condition can be changed. The GUIDs of the built-in
roles are those of Azure's list of built-in roles, equal in all clouds. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from .._errors import InputError
from .._ids import same, subscription
from .._plan import Plan, State
from ._base import Raw, Resource, properties

API_VERSION = "2022-04-01"

PRINCIPAL_TYPES = ("User", "Group", "ServicePrincipal", "ForeignGroup", "Device")

# Logging in, then setting up: the roles that have to do with SSH over Arc.
KNOWN_ROLES: Mapping[str, str] = {
    "Virtual Machine Administrator Login": "1c0163c0-47e6-4577-8991-ea5c82e286e4",
    "Virtual Machine User Login": "fb879df8-f326-4884-b1cf-06f3ad86be52",
    "Virtual Machine Local User Login": "602da2ba-a5c2-41da-b01d-5360126ab525",
    "Windows Admin Center Administrator Login": "a6333a3e-0164-44c3-b281-7a577aff287f",
    "Azure Connected Machine Onboarding": "b64e21ea-ac4e-4cdf-9dc9-5b892992bee7",
    "Azure Connected Machine Resource Administrator": "cd570a14-e51a-42ad-bac8-bafd67325302",
    "Azure Connected Machine Resource Manager": "f5819b54-e033-4d82-ac66-4fec3cbf3f4c",
    "Microsoft.AzureStackHCI Device Pool Machine Manager": "b6d9c0f6-d69f-472b-91b4-7a6838c6d1cb",
}

# How many assignments a subscription takes, those at its groups and resources included; a fixed limit of Azure.
LIMIT = 4000

# The only version of the language of conditions that the specification knows.
_CONDITION_VERSION = "2.0"

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ASSIGNMENTS = "/providers/Microsoft.Authorization/roleAssignments"
_DEFINITIONS = "/providers/Microsoft.Authorization/roleDefinitions"
_MANAGEMENT_GROUP = re.compile(r"/providers/microsoft\.management/managementgroups/[-\w().]{1,90}", re.IGNORECASE)
_IN_SUBSCRIPTION = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)"
    r"(?:/resourcegroups/(?P<group>[-\w().]{1,90})(?P<resource>/providers/[-\w.]+(?:/[-\w.]+/[-\w.()]+)+)?)?",
    re.IGNORECASE,
)
# Segments that a URL would not keep.
_UPWARDS = re.compile(r"/\.{1,2}(/|$)")
_NAMESPACE = uuid.UUID("5f7e2f2b-3f0c-5f3e-9b8e-6f0f8d9b6a10")

MANAGEMENT_GROUP, SUBSCRIPTION = "management group", "subscription"
RESOURCE_GROUP, RESOURCE = "resource group", "resource"


@dataclass(frozen=True)
class Scope:
    """Where roles are given: a management group, a subscription, a resource group, or one resource such as a machine."""

    id: str
    kind: str
    subscription_id: str | None

    @classmethod
    def parse(cls, text: str) -> Scope:
        """The scope with this id. Raises InputError for what is none."""
        given = text.strip().rstrip("/")
        if _UPWARDS.search(given):
            raise InputError(f"{text!r} is not a scope.", hint="No name in it may be made of dots.")
        if _MANAGEMENT_GROUP.fullmatch(given):
            return cls(given, MANAGEMENT_GROUP, None)
        found = _IN_SUBSCRIPTION.fullmatch(given)
        if found is None:
            raise InputError(
                f"{text!r} is not a scope.",
                hint="It is the id of a management group (/providers/Microsoft.Management/managementGroups/NAME), of a subscription "
                "(/subscriptions/GUID), of a resource group (/subscriptions/GUID/resourceGroups/NAME), or of a machine.",
            )
        kind = RESOURCE if found["resource"] else RESOURCE_GROUP if found["group"] else SUBSCRIPTION
        return cls(given, kind, subscription(found["subscription"]).lower())

    @property
    def key(self) -> str:
        """The id in lower case, by which scopes are compared."""
        return self.id.lower()

    @property
    def assignments(self) -> str:
        """The path of the list of assignments."""
        return self.id + _ASSIGNMENTS

    @property
    def definitions(self) -> str:
        """The path of the list of roles that can be given here."""
        return self.id + _DEFINITIONS

    def __str__(self) -> str:
        return f"{self.kind} {self.id.rsplit('/', 1)[-1]}"


@dataclass(frozen=True)
class Role:
    """A role by the GUID of its definition (lower case); `name` is how it is shown."""

    guid: str
    name: str


_ROLES = {
    key: Role(guid, name) for name, guid in KNOWN_ROLES.items() for key in (name.lower(), guid)
}  # by name and by GUID, lower case


def known_role(text: str) -> Role | None:
    """The role of `KNOWN_ROLES` with this name, GUID or id; `None` for any other."""
    return _ROLES.get(text.strip().lower()) or _ROLES.get(role_guid(text) or "")


def role_guid(text: str) -> str | None:
    """The GUID (lower case) of a role named by GUID or by the id of its definition; `None` for a name."""
    last = text.strip().rstrip("/").lower()
    if _DEFINITIONS.lower() + "/" in last:
        last = last.rsplit("/", 1)[-1]
    return last if _GUID.fullmatch(last) else None


def principal(text: str) -> str:
    """The object id of a principal in lower case. Raises InputError for what cannot be one."""
    found = text.strip().lower()
    if not _GUID.fullmatch(found):
        raise InputError(
            f"{text!r} is not the object id of a principal.",
            hint="It is a GUID: `az ad signed-in-user show`, `az ad group show` and `az ad sp show` print it as id. The client id of an "
            "application is another one.",
        )
    return found


def assignment_name(scope: Scope, role: Role, principal_id: str) -> str:
    """The GUID under which the assignment is made: always the same for the same three."""
    return str(uuid.uuid5(_NAMESPACE, f"{scope.key}|{role.guid}|{principal_id.lower()}"))


class RoleAssignment(Resource):
    """`role` for `principal_id` at `scope`. What is `None` stays as it is; an empty `description` or `condition` takes it away.

    Raises InputError for a principal that cannot be one.
    """

    api_version = API_VERSION
    slug = "role_assignment"
    noun = "role assignment"

    def __init__(
        self,
        scope: Scope,
        role: Role,
        principal_id: str,
        *,
        principal_type: str | None = None,
        description: str | None = None,
        condition: str | None = None,
        present: bool = True,
    ) -> None:
        self.scope = scope
        self.role = role
        self.principal_id = principal(principal_id)
        self.principal_type = principal_type
        self.description = description
        self.condition = condition
        self.present = present
        self.path = f"{scope.assignments}/{assignment_name(scope, role, self.principal_id)}"
        # Where the type is known Azure need not look the principal up, so that it does not know it yet passes.
        self.not_now = frozenset(("PrincipalNotFound",) if principal_type else ())

    @property
    def owner(self) -> str:
        return str(self.scope)

    def doing(self, plan: Plan) -> str:
        if plan.after is None:
            return f"{self.owner}: cannot take the role {self.role.name} from {self.principal_id}"
        if plan.before is not None:
            return f"{self.owner}: cannot change how {self.principal_id} has the role {self.role.name}"
        return f"{self.owner}: cannot give the role {self.role.name} to {self.principal_id}"

    def matches(self, raw: Raw) -> bool:
        return self.grants_the_same(raw) and same(scope_of(raw), self.scope.id)

    def grants_the_same(self, raw: Raw) -> bool:
        """Whether an assignment gives the same role to the same principal, wherever."""
        return role_of(raw) == self.role.guid and principal_of(raw) == self.principal_id

    def state(self, raw: Raw) -> State:
        known = properties(raw)
        return {
            "id": raw.get("id") or self.path,
            "role": self.role.name,
            "principal_id": self.principal_id,
            "principal_type": known.get("principalType"),
            "scope": self.scope.id,
            "description": known.get("description") or None,
            "condition": known.get("condition") or None,
        }

    def wanted(self, raw: Raw | None) -> State:
        there = self.state(raw if raw is not None else {"properties": {"principalType": self.principal_type}})
        asked = {"description": self.description, "condition": self.condition}
        return {**there, **{key: value or None for key, value in asked.items() if value is not None}}

    def body(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Mapping[str, object]:
        wanted = plan.after or self.wanted(raw)
        body = {
            "roleDefinitionId": self._definition,
            "principalId": self.principal_id,
            "principalType": wanted["principal_type"],
            "description": wanted["description"],
            "condition": wanted["condition"],
            "conditionVersion": _CONDITION_VERSION if wanted["condition"] else None,
        }
        return {"properties": {key: value for key, value in body.items() if value is not None}}

    @property
    def _definition(self) -> str:
        above = f"/subscriptions/{self.scope.subscription_id}" if self.scope.subscription_id else ""
        return f"{above}{_DEFINITIONS}/{self.role.guid}"


def role_of(raw: Raw) -> str:
    """The GUID (lower case) of the role that an assignment gives."""
    return str(properties(raw).get("roleDefinitionId") or "").rstrip("/").rsplit("/", 1)[-1].lower()


def principal_of(raw: Raw) -> str:
    """The object id (lower case) of the principal of an assignment."""
    return str(properties(raw).get("principalId") or "").lower()


def scope_of(raw: Raw) -> str:
    """The id of the scope of an assignment; the empty string for the root, which Azure shows as `/`."""
    return str(properties(raw).get("scope") or "").rstrip("/")
