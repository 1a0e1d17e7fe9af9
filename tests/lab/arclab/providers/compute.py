# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Microsoft.HybridCompute say about machines, extension versions and running operations?

Statuses from the specification: DELETE is 200 until 2025 and a long-running 202 in 2026-07-15. Ids are spelled
`Machines` in answers below a machine and in lists, as in Azure's examples: clients have to compare without case.
"""

from __future__ import annotations

import re
from typing import Any

from ..catalogue import VERSIONS
from ..http import Answer, ArmFailure, Context
from ..operations import Operation
from ..routes import Route
from ..services import Services, body_of, check_tags, invalid, not_found, properties_of
from ..versions import LOCATIONS, location
from ..world import EXTENSIONS, MACHINES
from .extensions import shown as shown_extension

_PATCHABLE = frozenset(
    (
        "locationData osProfile cloudMetadata agentUpgrade parentClusterResourceId privateLinkScopeResourceId "
        "identityKeyStore tpmEkCertificate hardwareResourceId"
    ).split()
)
_SINCE_2023 = ("networkProfile", "osEdition")
_KINDS = ("AVS", "HCI", "SCVMM", "VMware", "EPS", "GCP", "AWS")


class Machines:
    """Machines themselves."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.world = services.world
        services.operations.on_end("machine.delete", self._deleted)

    def routes(self) -> list[Route]:
        return [
            Route("GET", MACHINES, self.get),
            Route("PATCH", MACHINES, self.update),
            Route("DELETE", MACHINES, self.delete),
            Route("GET", MACHINES, self.list_machines, collection=True),
            Route("GET", "microsoft.hybridcompute/operations", self.list_operations, collection=True),
            Route("GET", "microsoft.hybridcompute/locations/operationstatus", self.operation_status),
            Route("GET", "microsoft.hybridcompute/locations/operationresults", self.operation_result),
            Route("GET", "microsoft.hybridcompute/locations/publishers/extensiontypes/versions", self.version),
            Route(
                "GET",
                "microsoft.hybridcompute/locations/publishers/extensiontypes/versions",
                self.versions,
                collection=True,
            ),
        ]

    def get(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        _check_expand(context)
        return Answer(200, self.shown(machine, context.api_version))

    def shown(self, machine: dict[str, Any], api_version: str) -> dict[str, Any]:
        """The machine with its extensions, in the shape of a version."""
        extensions = self.world.children(machine["id"], EXTENSIONS)
        body = {**machine, "resources": [shown_extension(self.world.resources[key]) for key in extensions]}
        if api_version < "2023":
            body.pop("kind", None)
            body["properties"] = {name: value for name, value in body["properties"].items() if name not in _SINCE_2023}
        return body

    def list_machines(self, context: Context) -> Answer:
        _check_expand(context)
        scope = f"/subscriptions/{context.params['subscription']}"
        if "group" in context.params:
            self.services.group(context)
            scope += f"/resourcegroups/{context.params['group']}"
        return self.services.page(
            context, self.world.children(scope, MACHINES), lambda key: self._listed(key, context.api_version)
        )

    def _listed(self, key: str, api_version: str) -> dict[str, Any]:
        machine = self.shown(self.world.resources[key], api_version)
        machine["id"] = machine["id"].replace("/machines/", "/Machines/")
        return machine

    def update(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        body = body_of(context)
        properties = properties_of(body, required=False)
        if "tags" in body:
            machine["tags"] = check_tags(body["tags"])
        if body.get("kind") is not None:
            if body["kind"] not in _KINDS:
                raise invalid(f"The value '{body['kind']}' of 'kind' is none of {', '.join(_KINDS)}.", "kind")
            machine["kind"] = body["kind"]
        if isinstance(body.get("identity"), dict) and body["identity"].get("type") not in (None, "SystemAssigned"):
            raise invalid("The identity of a machine can only be of type 'SystemAssigned'.", "identity.type")
        for name, value in properties.items():
            if name in _PATCHABLE:
                machine["properties"][name] = value
        self.world.put(machine["id"], machine)
        return Answer(200, self.shown(machine, context.api_version))

    def delete(self, context: Context) -> Answer:
        self.services.group(context)
        machine = self.world.get(context.path)
        if machine is None:
            return Answer(204)
        if context.api_version < "2026":
            self._forget(machine["id"].lower())
            return Answer(200)
        operation = self.services.operations.start(
            "machine.delete",
            resource=machine["id"],
            method="DELETE",
            location=machine["location"],
            principal_id=context.principal_id,
            api_version=context.api_version,
            now=context.now,
            deletes=True,
        )
        machine["properties"]["provisioningState"] = "Deleting"
        self.world.put(machine["id"], machine)
        return Answer(202, None, self.services.operations.headers(operation, context.base_url))

    def _deleted(self, operation: Operation, now: float) -> dict[str, Any] | None:
        if operation.failure is not None:
            machine = self.world.get(operation.resource)
            if machine is not None:
                machine["properties"]["provisioningState"] = "Failed"
                self.world.put(operation.resource, machine)
            return operation.failure
        self._forget(operation.resource)
        return None

    def _forget(self, key: str) -> None:
        connection = self.world.connection_names.pop(key, None)
        if connection is not None:
            self.services.relay.drop(connection)
            self.world.store.delete("connection", key)
        self.services.relay.drop_streams(key)
        self.world.delete(key)
        self.services.spawn(self.services.agents.forget(key))

    # Operations and extension metadata

    def list_operations(self, context: Context) -> Answer:
        display = {"provider": "Microsoft.HybridCompute", "resource": "machines"}
        named = {"read": "Get machine", "write": "Put machine", "delete": "Delete machine"}
        return Answer(
            200,
            {
                "value": [
                    {
                        "name": f"Microsoft.HybridCompute/machines/{verb}",
                        "isDataAction": False,
                        "origin": "user,system",
                        "display": {**display, "operation": text, "description": text},
                    }
                    for verb, text in named.items()
                ]
            },
        )

    def _operation(self, context: Context, name: str) -> Operation:
        operation = self.services.operations.find(context.params[name])
        if operation.subscription.lower() != context.params["subscription"].lower():
            raise ArmFailure(404, "ResourceNotFound", f"The operation '{operation.id}' was not found.")
        return operation

    def operation_status(self, context: Context) -> Answer:
        return self.services.operations.status(self._operation(context, "operationstatus"), context.path)

    def operation_result(self, context: Context) -> Answer:
        operation = self._operation(context, "operationresults")
        resource = self.world.get(operation.resource)
        return self.services.operations.result(operation, context.base_url, resource)

    def _known_versions(self, context: Context) -> tuple[str, str, list[str]]:
        params = context.params
        if location(params["locations"]) not in LOCATIONS:
            raise ArmFailure(400, "InvalidLocation", f"The location '{params['locations']}' is not valid.")
        wanted = (params["publishers"].lower(), params["extensiontypes"].lower())
        for (publisher, kind), versions in VERSIONS.items():
            if (publisher.lower(), kind.lower()) == wanted:
                return publisher, kind, versions
        raise ArmFailure(
            404,
            "ArtifactNotFound",
            f"The extension with publisher '{params['publishers']}' and type '{params['extensiontypes']}' was not "
            "found in "
            f"location '{params['locations']}'.",
        )

    def _metadata(self, context: Context, publisher: str, kind: str, version: str) -> dict[str, Any]:
        scope = re.split("/versions", context.path, flags=re.IGNORECASE)[0]
        return {
            "id": f"{scope}/versions/{version}".replace("/providers/", "/Providers/"),
            "name": version,
            "type": "Microsoft.HybridCompute/locations/publishers/extensionTypes/versions",
            "properties": {"version": version, "extensionType": kind, "publisher": publisher},
        }

    def versions(self, context: Context) -> Answer:
        publisher, kind, versions = self._known_versions(context)
        return Answer(200, {"value": [self._metadata(context, publisher, kind, one) for one in versions]})

    def version(self, context: Context) -> Answer:
        publisher, kind, versions = self._known_versions(context)
        wanted = context.params["versions"]
        if wanted not in versions:
            raise not_found(f"{publisher}/{kind}/versions", wanted, None)
        return Answer(200, self._metadata(context, publisher, kind, wanted))


def _check_expand(context: Context) -> None:
    for name, value in context.query.items():
        if name.lower() == "$expand" and value.lower() not in ("", "instanceview"):
            raise ArmFailure(
                400, "InvalidParameter", f"The value '{value}' of $expand is not supported.", target="$expand"
            )
