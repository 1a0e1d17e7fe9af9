# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who was given which role, and by whom may it be changed?

Microsoft.Authorization's role assignments and role definitions at any scope: management group, subscription, group,
resource. Of an assignment, description and condition can be changed; another scope, role or principal needs another
assignment, and the same three under a second name are 409 RoleAssignmentExists.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from ..fleet import stamp
from ..http import Answer, ArmFailure, Context
from ..rbac import covers
from ..roles import BUILT_IN, Role, role_from_json
from ..routes import Route
from ..services import Services, expect, invalid, properties_of, query
from ..world import ROLE_ASSIGNMENTS, ROLE_DEFINITIONS

LIMIT = 4000
CHANGEABLE = ("description", "condition", "conditionVersion", "delegatedManagedIdentityResourceId")
TYPES = ("User", "Group", "ServicePrincipal", "ForeignGroup", "Device")
_BUILT_IN = {role.id for role in BUILT_IN}
_FILTERS = re.compile(
    r"\s*(?:(?P<at>atScope\(\)|atScopeAndBelow\(\))|(?P<principal>principalId)\s+eq\s+'(?P<id>[^']*)'"
    r"|(?P<assigned>assignedTo)\('(?P<to>[^']*)'\)|(?P<field>roleName|type)\s+eq\s+'(?P<value>(?:[^']|'')*)')\s*",
    re.IGNORECASE,
)


class Authorization:
    """Role assignments and definitions."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.world = services.world

    def routes(self) -> list[Route]:
        return [
            Route("GET", ROLE_ASSIGNMENTS, self.get),
            Route("PUT", ROLE_ASSIGNMENTS, self.put),
            Route("DELETE", ROLE_ASSIGNMENTS, self.delete),
            Route("GET", ROLE_ASSIGNMENTS, self.list_assignments, collection=True),
            Route("GET", ROLE_DEFINITIONS, self.get_definition),
            Route("PUT", ROLE_DEFINITIONS, self.put_definition),
            Route("DELETE", ROLE_DEFINITIONS, self.delete_definition),
            Route("GET", ROLE_DEFINITIONS, self.list_definitions, collection=True),
        ]

    def _check_scope(self, context: Context) -> str:
        scope = context.params["scope"]
        key = scope.lower()
        if key and key not in self.world.resources and not self.world.rbac.is_management_group(key):
            raise ArmFailure(404, "ResourceNotFound", f"The scope '{scope}' was not found.")
        return scope

    # Assignments

    def get(self, context: Context) -> Answer:
        assignment = self.world.get(context.path)
        if assignment is None:
            name = context.params["roleassignments"]
            raise ArmFailure(404, "RoleAssignmentNotFound", f"The role assignment '{name}' is not found.")
        return Answer(200, assignment)

    def list_assignments(self, context: Context) -> Answer:
        scope = self._check_scope(context).lower()
        wanted = parse_filter(query(context, "$filter"))
        if unknown := {"rolename", "type"} & set(wanted):
            raise _invalid_filter(", ".join(unknown))
        rbac = self.world.rbac
        keys = []
        for assignment in rbac.assignments.values():
            above = rbac.covers(assignment.scope, scope)
            if not above and ("atscope" in wanted or not covers(scope, assignment.scope)):
                continue
            principal = wanted.get("principalid") or wanted.get("assignedto")
            if principal and assignment.principal_id != principal.lower():
                continue
            keys.append(assignment.key)
        return self.services.page(context, sorted(keys), lambda key: self.world.resources[key])

    def put(self, context: Context) -> Answer:
        scope = self._check_scope(context)
        name = context.params["roleassignments"]
        if not _is_guid(name):
            raise ArmFailure(
                400,
                "InvalidRoleAssignmentId",
                f"The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.",
            )
        body = context.body
        if not isinstance(body, dict):
            raise invalid("The request content was invalid and could not be deserialized: a JSON object is required.")
        properties = properties_of(body)
        principal_id = expect(properties, "principalId", str, required=True).lower()
        role = self._role(expect(properties, "roleDefinitionId", str, required=True))
        self._check_principal(principal_id, expect(properties, "principalType", str))
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"
        existing = self.world.get(path)
        if existing is not None:
            return self._again(existing, principal_id, role, properties, context)
        self._check_new(scope, principal_id, role, name)
        changeable = _changeable(properties)
        assignment = self.world.assign(principal_id, role, scope, context.now, name)
        kept = assignment["properties"]
        kept["createdBy"] = kept["updatedBy"] = context.principal_id
        if properties.get("principalType"):
            kept["principalType"] = properties["principalType"]
        kept.update(changeable)
        self.world.put_assignment(path, assignment)
        return Answer(201, assignment)

    def _again(
        self, existing: dict[str, Any], principal_id: str, role: str, properties: dict[str, Any], context: Context
    ) -> Answer:
        known = self.world.rbac.assignments[existing["id"].lower()]
        if (known.principal_id, known.role) != (principal_id, role):
            raise _fixed()
        kept = {name: value for name, value in existing["properties"].items() if name not in CHANGEABLE}
        kept.update(_changeable(properties), updatedOn=stamp(context.now), updatedBy=context.principal_id)
        return Answer(200, self.world.put_assignment(existing["id"], {**existing, "properties": kept}))

    def _role(self, role_definition_id: str) -> str:
        guid = role_definition_id.rsplit("/", 1)[-1].lower()
        if (
            not _is_guid(guid)
            or "/providers/microsoft.authorization/roledefinitions/" not in role_definition_id.lower()
        ):
            raise ArmFailure(
                400, "InvalidRoleDefinitionId", f"The role definition ID '{role_definition_id}' is not valid."
            )
        if guid not in self.world.rbac.roles:
            raise ArmFailure(
                404,
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{guid.replace('-', '')}' does not exist.",
            )
        return guid

    def _check_principal(self, principal_id: str, given_type: str | None) -> None:
        if not _is_guid(principal_id):
            raise ArmFailure(
                400, "InvalidPrincipalId", f"The principal ID '{principal_id}' is not valid. It must be a GUID."
            )
        if given_type is not None and given_type not in TYPES:
            raise invalid(
                f"The value '{given_type}' of 'principalType' is none of {', '.join(TYPES)}.",
                "properties.principalType",
            )
        principal = self.world.principals.get(principal_id)
        if principal is None and given_type is None:
            raise ArmFailure(
                400,
                "PrincipalNotFound",
                f"Principal {principal_id.replace('-', '')} does not exist in the directory {self.world.tenant}. "
                "Check that "
                "you have the correct principal ID. If you are creating this principal and then immediately assigning "
                "a role, "
                "this error might be related to a replication delay. In this case, set the role assignment "
                "principalType "
                "property to a value, such as ServicePrincipal, User, or Group.",
            )
        if principal is not None and given_type is not None and principal.type != given_type:
            raise ArmFailure(
                400,
                "UnmatchedPrincipalType",
                f"The PrincipalId '{principal_id.replace('-', '')}' has type '{principal.type}' , which is different "
                "from "
                f"specified PrincipalType '{given_type}'.",
            )

    def _check_new(self, scope: str, principal_id: str, role: str, name: str) -> None:
        key = scope.lower()
        subscription = "/".join(key.split("/")[:3]) if key.startswith("/subscriptions/") else None
        used = 0
        for assignment in self.world.rbac.assignments.values():
            if assignment.key.endswith(f"/{name.lower()}"):
                # The names of assignments are unique in the tenant: this would move the other one here.
                raise _fixed()
            if (assignment.principal_id, assignment.role, assignment.scope) == (principal_id, role, key):
                raise ArmFailure(
                    409,
                    "RoleAssignmentExists",
                    "The role assignment already exists. The ID of the existing role assignment is "
                    f"{assignment.key.rsplit('/', 1)[1].replace('-', '')}.",
                )
            used += subscription is not None and covers(subscription, assignment.scope)
        if used >= int(self.world.meta.get("role_assignment_limit", LIMIT)):
            raise ArmFailure(
                400,
                "RoleAssignmentLimitExceeded",
                "The role assignment limit of the subscription has been reached. No more role assignments can be "
                "created "
                "(code: RoleAssignmentLimitExceeded).",
            )

    def delete(self, context: Context) -> Answer:
        assignment = self.world.get(context.path)
        if assignment is None:
            return Answer(204)
        self.world.delete(context.path)
        return Answer(200, assignment)

    # Definitions

    def _shown(self, role: Role, scope: str) -> dict[str, Any]:
        parts = scope.split("/")
        prefix = "/".join(parts[:3]) if scope.lower().startswith("/subscriptions/") else ""
        return role.to_json(prefix)

    def get_definition(self, context: Context) -> Answer:
        guid = context.params["roledefinitions"].lower()
        role = self.world.rbac.roles.get(guid)
        if role is None:
            raise ArmFailure(
                404,
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{guid.replace('-', '')}' does not exist.",
            )
        return Answer(200, self._shown(role, context.params["scope"]))

    def list_definitions(self, context: Context) -> Answer:
        scope = self._check_scope(context)
        wanted = parse_filter(query(context, "$filter"))
        if unknown := {"principalid", "assignedto"} & set(wanted):
            raise _invalid_filter(", ".join(unknown))
        value = []
        for role in sorted(self.world.rbac.roles.values(), key=lambda one: one.name):
            kind = "customrole" if role.custom else "builtinrole"
            if (
                wanted.get("rolename", role.name).lower() != role.name.lower()
                or wanted.get("type", kind).lower() != kind
            ):
                continue
            if role.custom and not any(
                self.world.rbac.covers(one.lower().rstrip("/"), scope.lower()) for one in role.assignable_scopes
            ):
                continue
            value.append(self._shown(role, scope))
        return Answer(200, {"value": value})

    def put_definition(self, context: Context) -> Answer:
        scope = self._check_scope(context)
        guid = context.params["roledefinitions"].lower()
        if not _is_guid(guid):
            raise ArmFailure(
                400, "InvalidRoleDefinitionId", f"The role definition ID '{guid}' is not valid. It must be a GUID."
            )
        if guid in _BUILT_IN:
            raise ArmFailure(403, "CannotUpdateBuiltInRole", "Built-in roles cannot be changed.")
        body = context.body
        if not isinstance(body, dict):
            raise invalid("The request content was invalid and could not be deserialized: a JSON object is required.")
        properties = properties_of(body)
        name = expect(properties, "roleName", str, required=True)
        scopes = expect(properties, "assignableScopes", list, required=True)
        expect(properties, "permissions", list, required=True)
        for role in self.world.rbac.roles.values():
            if role.name.lower() == name.lower() and role.id != guid:
                raise ArmFailure(
                    409,
                    "RoleDefinitionWithSameNameExists",
                    "A custom role with the same name already exists in this directory. Use a different name: "
                    f"'{name}'.",
                )
        if not scopes:
            raise invalid("'assignableScopes' has to name a scope.", "properties.assignableScopes")
        role = role_from_json(guid, properties)
        path = f"/providers/Microsoft.Authorization/roleDefinitions/{guid}"
        self.world.put(path, role.to_json(""))
        self.world.rbac.add_role(role)
        return Answer(201, self._shown(role, scope))

    def delete_definition(self, context: Context) -> Answer:
        guid = context.params["roledefinitions"].lower()
        role = self.world.rbac.roles.get(guid)
        if role is None:
            return Answer(204)
        if guid in _BUILT_IN:
            raise ArmFailure(403, "CannotDeleteBuiltInRole", "Built-in roles cannot be deleted.")
        if any(assignment.role == guid for assignment in self.world.rbac.assignments.values()):
            raise ArmFailure(
                400, "RoleDefinitionHasAssignments", "There are existing role assignments referencing role."
            )
        self.world.delete(f"/providers/microsoft.authorization/roledefinitions/{guid}")
        self.world.rbac.remove_role(guid)
        return Answer(200, self._shown(role, context.params["scope"]))


def _changeable(properties: dict[str, Any]) -> dict[str, Any]:
    """What a PUT may change of an assignment, as it is kept. Specification: "2.0" is the only version of conditions."""
    given = {name: expect(properties, name, str) for name in CHANGEABLE}
    if given["condition"] and given["conditionVersion"] != "2.0":
        raise invalid("'conditionVersion' of a condition has to be '2.0'.", "properties.conditionVersion")
    return {name: value for name, value in given.items() if value is not None}


def _fixed() -> ArmFailure:
    return ArmFailure(
        400,
        "RoleAssignmentUpdateNotPermitted",
        "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
    )


def _is_guid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _invalid_filter(text: str) -> ArmFailure:
    return ArmFailure(400, "BadRequestFormat", f"The filter '{text}' is not supported.")


def parse_filter(text: str | None) -> dict[str, str]:
    """The conditions of `$filter`, joined by `and`: `atscope`, `principalid`, `assignedto`, `rolename`, `type`."""
    wanted: dict[str, str] = {}
    if not text:
        return wanted
    position = 0
    while True:
        match = _FILTERS.match(text, position)
        if match is None:
            raise _invalid_filter(text)
        if match["at"]:
            wanted[match["at"].lower().rstrip("()")] = ""
        elif match["principal"]:
            wanted["principalid"] = match["id"]
        elif match["assigned"]:
            wanted["assignedto"] = match["to"]
        else:
            wanted[match["field"].lower()] = match["value"].replace("''", "'")
        position = match.end()
        if position == len(text):
            return wanted
        joined = re.compile(r"and\b", re.IGNORECASE).match(text, position)
        if joined is None:
            raise _invalid_filter(text)
        position = joined.end()
