# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to the extensions of a machine?

One operation per extension type and machine at a time (HCRP409); what is being deleted cannot be written; one name per
type; a machine that is not connected leaves its extensions in Creating, Updating or Deleting until it is back. The
version comes back longer than it was asked for and protected settings never do. Entra login is really installed on machines of
their own.
"""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

from ..aadsshlogin import INSTALL, REMOVE, is_it, reason
from ..catalogue import full_version
from ..containers import Container, shell
from ..fleet import stamp
from ..http import Answer, ArmFailure, Context
from ..operations import IN_PROGRESS, STILL_AT_WORK, Operation
from ..podman import MachinesFailed
from ..routes import Route
from ..services import Services, body_of, check_location, check_tags, expect, invalid, not_found, properties_of
from ..world import EXTENSIONS, MACHINES

TYPE = "Microsoft.HybridCompute/machines/extensions"
HANDLER_TIMEOUT = 300.0
_SETTINGS = (
    ("publisher", str),
    ("type", str),
    ("typeHandlerVersion", str),
    ("forceUpdateTag", str),
    ("autoUpgradeMinorVersion", bool),
    ("enableAutomaticUpgrade", bool),
    ("settings", dict),
    ("protectedSettings", dict),
)


class Extensions:
    """Extensions of machines."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.world = services.world
        self._handlers: dict[str, asyncio.Lock] = {}
        services.operations.on_end("extension.write", self._written)
        services.operations.on_end("extension.delete", self._deleted)
        services.operations.on_end("extension.upgrade", self._upgraded)

    def routes(self) -> list[Route]:
        return [
            Route("GET", EXTENSIONS, self.get),
            Route("PUT", EXTENSIONS, self.put),
            Route("PATCH", EXTENSIONS, self.update),
            Route("DELETE", EXTENSIONS, self.delete),
            Route("GET", EXTENSIONS, self.list_extensions, collection=True),
            Route("POST", MACHINES, self.upgrade, action="upgradeextensions"),
        ]

    def get(self, context: Context) -> Answer:
        self.services.machine(context)
        extension = self.world.get(context.path)
        if extension is None:
            name = f"{context.params['machines']}/extensions/{context.params['extensions']}"
            raise not_found("Microsoft.HybridCompute/machines", name, context.params["group"])
        return Answer(200, shown(extension))

    def list_extensions(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        keys = self.world.children(machine["id"], EXTENSIONS)
        return self.services.page(context, keys, lambda key: shown(self.world.resources[key]))

    def put(self, context: Context) -> Answer:
        machine = self.services.machine(context, parent_of=TYPE)
        body = body_of(context)
        location = check_location(body, machine, TYPE)
        asked = _checked(properties_of(body))
        for name in ("publisher", "type"):
            expect(asked, name, str, required=True)
        name = context.params["extensions"]
        existing = self.world.get(context.path)
        self._refuse_conflicts(machine, existing, name, asked)
        extension = {
            "id": f"{machine['id']}/extensions/{existing['name'] if existing else name}",
            "name": existing["name"] if existing else name,
            "type": TYPE,
            "location": location,
            "tags": check_tags(body.get("tags") or {}),
            "properties": {
                "autoUpgradeMinorVersion": False,
                "enableAutomaticUpgrade": False,
                "settings": {},
                **asked,
                "provisioningState": "Updating" if existing else "Creating",
            },
        }
        return self._start(context, machine, extension, 202)

    def update(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        existing = self.world.get(context.path)
        if existing is None:
            return self.get(context)
        body = body_of(context)
        asked = _checked(properties_of(body, required=False))
        merged = {**existing["properties"], **asked, "provisioningState": "Updating"}
        self._refuse_conflicts(machine, existing, existing["name"], merged)
        extension = {**existing, "properties": merged}
        if "tags" in body:
            extension["tags"] = check_tags(body["tags"])
        return self._start(context, machine, extension, 202)

    def _start(self, context: Context, machine: dict[str, Any], extension: dict[str, Any], status: int) -> Answer:
        operations = self.services.operations
        operation = operations.start(
            "extension.write",
            resource=extension["id"],
            method=context.method,
            location=machine["location"],
            principal_id=context.principal_id,
            api_version=context.api_version,
            now=context.now,
            waits=not self._connected(machine),
        )
        self.world.put(extension["id"], extension)
        return Answer(status, shown(extension), operations.headers(operation, context.base_url))

    def delete(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        extension = self.world.get(context.path)
        if extension is None:
            return Answer(204)
        operations = self.services.operations
        if extension["properties"]["provisioningState"] != "Deleting":
            for running in operations.running(extension["id"]):
                operations.end(running, context.now, status="Canceled")
            extension["properties"]["provisioningState"] = "Deleting"
            self.world.put(extension["id"], extension)
            operation = operations.start(
                "extension.delete",
                resource=extension["id"],
                method="DELETE",
                location=machine["location"],
                principal_id=context.principal_id,
                api_version=context.api_version,
                now=context.now,
                waits=not self._connected(machine),
                deletes=True,
            )
        else:
            operation = operations.running(extension["id"])[0]
        return Answer(202, None, operations.headers(operation, context.base_url))

    def upgrade(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        body = context.body if isinstance(context.body, dict) else {}
        targets = body.get("extensionTargets")
        if not isinstance(targets, dict) or not targets:
            raise invalid(
                "The request content was invalid: 'extensionTargets' has to name extensions.", "extensionTargets"
            )
        wanted: dict[str, str] = {}
        for target, value in targets.items():
            key = self._by_type(machine, *target.rpartition(".")[0::2])
            if key is None:
                raise ArmFailure(
                    400,
                    "ExtensionNotFound",
                    f"The extension '{target}' is not installed on machine '{machine['name']}'.",
                )
            version = value.get("targetVersion") if isinstance(value, dict) else None
            extension = self.world.resources[key]
            self._refuse_conflicts(machine, extension, extension["name"], extension["properties"])
            wanted[key] = str(version) if version else ""
        operations = self.services.operations
        operation = operations.start(
            "extension.upgrade",
            resource=machine["id"],
            method="POST",
            location=machine["location"],
            principal_id=context.principal_id,
            api_version=context.api_version,
            now=context.now,
            waits=not self._connected(machine),
        )
        for key, version in wanted.items():
            properties = self.world.resources[key]["properties"]
            properties["provisioningState"] = "Updating"
            properties["targetVersion"] = version
            self.world.put(key, self.world.resources[key])
        return Answer(202, None, operations.headers(operation, context.base_url))

    # Rules

    def _connected(self, machine: dict[str, Any]) -> bool:
        return bool(machine["properties"]["status"] == "Connected")

    def _by_type(self, machine: dict[str, Any], publisher: str, kind: str) -> str | None:
        for key in self.world.children(machine["id"], EXTENSIONS):
            properties = self.world.resources[key]["properties"]
            if (properties["publisher"].lower(), properties["type"].lower()) == (publisher.lower(), kind.lower()):
                return key
        return None

    def _refuse_conflicts(
        self, machine: dict[str, Any], existing: dict[str, Any] | None, name: str, asked: dict[str, Any]
    ) -> None:
        same_type = self._by_type(machine, asked["publisher"], asked["type"])
        other = self.world.resources[same_type] if same_type else existing
        if other is not None:
            state = other["properties"]["provisioningState"]
            if state == "Deleting":
                raise ArmFailure(
                    409,
                    "HCRP409",
                    f"Operation 'InstallExtension' is not allowed on extension '{other['name']}' since it is marked "
                    "for "
                    "deletion.",
                )
            if state in ("Creating", "Updating"):
                raise ArmFailure(
                    409,
                    "HCRP409",
                    f"An extension of type {asked['type']} is still processing. Only one instance of an extension may "
                    "be in "
                    "progress at a time for the same resource. Please retry after sometime.",
                )
            if other["name"].lower() != name.lower():
                raise ArmFailure(
                    409,
                    "HCRP409",
                    f"Multiple extensions per handler are not supported. Extension '{other['name']}' with handler "
                    f"'{asked['publisher']}.{asked['type']}' is already added to machine '{machine['name']}'.",
                )
        if existing is not None:
            for part in ("publisher", "type"):
                if existing["properties"][part].lower() != asked[part].lower():
                    raise ArmFailure(
                        409,
                        "PropertyChangeNotAllowed",
                        f"Changing property '{part}' of extension '{name}' is not allowed. Delete the extension first.",
                    )

    # Ends of operations

    def _written(self, operation: Operation, now: float) -> dict[str, Any] | None:
        extension = self.world.get(operation.resource)
        if extension is None:
            return {"code": "ResourceNotFound", "message": "The extension was deleted."}
        error = operation.failure or self._obstacle(extension)
        if error is None and (container := self._to_change(extension)) is not None:
            self.services.spawn(self._install(operation, extension, container))
            return STILL_AT_WORK
        self._settle(extension, now, error)
        return error

    def _obstacle(self, extension: dict[str, Any]) -> dict[str, Any] | None:
        """Why the agent cannot install this, if it cannot."""
        properties = extension["properties"]
        machine = self.world.resources[extension["id"].lower().rsplit("/", 2)[0]]
        agent = machine["properties"]["agentConfiguration"]
        if agent["extensionsEnabled"] == "false" or agent["configMode"] == "monitor":
            return _failed(
                extension, "Extension operations are blocked by the configuration of the agent on this machine."
            )
        if full_version(properties["publisher"], properties["type"], properties.get("typeHandlerVersion")) is None:
            return _failed(
                extension,
                f"Version {properties.get('typeHandlerVersion')} of this extension was not found in the repository.",
            )
        return None

    def _settle(self, extension: dict[str, Any], now: float, error: dict[str, Any] | None) -> None:
        properties = extension["properties"]
        version = full_version(properties["publisher"], properties["type"], properties.get("typeHandlerVersion"))
        if version is not None:
            properties["typeHandlerVersion"] = version
        properties["provisioningState"] = "Failed" if error else "Succeeded"
        kind = properties["type"]
        properties["instanceView"] = {
            "name": extension["name"],
            "type": kind,
            "typeHandlerVersion": properties.get("typeHandlerVersion", ""),
            "status": {
                "code": "error" if error else "success",
                "level": "Error" if error else "Information",
                "displayStatus": "Provisioning failed" if error else "Provisioning succeeded",
                "message": error["message"] if error else f"Extension Message: {kind} enabled.",
                "time": stamp(now),
            },
        }
        self.world.put(extension["id"], extension)

    def _deleted(self, operation: Operation, now: float) -> dict[str, Any] | None:
        extension = self.world.get(operation.resource)
        if operation.failure is not None and extension is not None:
            self._settle(extension, now, operation.failure)
            return operation.failure
        if extension is not None and (container := self._to_change(extension)) is not None:
            self.services.spawn(self._remove(operation, extension, container))
            return STILL_AT_WORK
        self.world.delete(operation.resource)
        return None

    # On the machine

    def _to_change(self, extension: dict[str, Any]) -> Container | None:
        """The machine of its own that this extension really changes: that of Entra login, while it is on."""
        container = self.services.agents.container(extension["id"].lower().rsplit("/", 2)[0])
        return container if container is not None and container.root is not None and is_it(extension) else None

    async def _install(self, operation: Operation, extension: dict[str, Any], container: Container) -> None:
        error = await self._change(extension, container, INSTALL)
        if operation.status == IN_PROGRESS:
            now = self.services.clock()
            self._settle(extension, now, error)
            self.services.operations.end(operation, now, error)

    async def _remove(self, operation: Operation, extension: dict[str, Any], container: Container) -> None:
        error = await self._change(extension, container, REMOVE)
        now = self.services.clock()
        if error is None:
            self.world.delete(operation.resource)
        else:
            self._settle(extension, now, error)
        self.services.operations.end(operation, now, error)

    async def _change(self, extension: dict[str, Any], container: Container, script: str) -> dict[str, Any] | None:
        """Run the handler of the extension, one at a time on a machine; the error it ends with."""
        async with self._handlers.setdefault(container.name, asyncio.Lock()):
            try:
                done = await asyncio.to_thread(
                    shell, container.pid, container.hostname, script, stdin=None, timeout=HANDLER_TIMEOUT
                )
            except (MachinesFailed, subprocess.TimeoutExpired) as exc:
                return _failed(extension, str(exc))
        if (logins := self.services.logins) is not None:
            logins.look()
        return _failed(extension, reason(done.returncode, done.stderr)) if done.returncode else None

    async def install_known(self) -> None:
        """The machines are new: bring about on them what their resources say."""
        extensions = [self.world.resources[key] for key in self.world.of_type(EXTENSIONS)]

        async def one(extension: dict[str, Any]) -> None:
            container = self._to_change(extension)
            if container is not None and extension["properties"]["provisioningState"] == "Succeeded":
                self._settle(extension, self.services.clock(), await self._change(extension, container, INSTALL))

        await asyncio.gather(*map(one, extensions))

    def _upgraded(self, operation: Operation, now: float) -> dict[str, Any] | None:
        failed = operation.failure
        for key in self.world.children(operation.resource, EXTENSIONS):
            extension = self.world.resources[key]
            properties = extension["properties"]
            if "targetVersion" not in properties:
                continue
            target = properties.pop("targetVersion")
            version = full_version(properties["publisher"], properties["type"], target or None)
            error = operation.failure
            if version is None:
                error = _failed(extension, f"Version {target} of this extension was not found in the repository.")
            elif error is None:
                properties["typeHandlerVersion"] = version
            self._settle(extension, now, error)
            failed = failed or error
        return failed


def _checked(properties: dict[str, Any]) -> dict[str, Any]:
    """The writable properties, of the right types; protected settings are taken and forgotten."""
    asked = {}
    for name, kind in _SETTINGS:
        value = expect(properties, name, kind)
        if value is not None and name != "protectedSettings":
            asked[name] = value
    return asked


def _failed(extension: dict[str, Any], reason: str) -> dict[str, Any]:
    properties = extension["properties"]
    return {
        "code": "HCRP500",
        "message": f"Extension: {extension['name']} ({properties['publisher']}.{properties['type']}) failed: {reason}",
    }


def shown(extension: dict[str, Any]) -> dict[str, Any]:
    """The extension as ARM shows it: capital letters in the id, no protected settings, nothing of the lab's own."""
    properties = {name: value for name, value in extension["properties"].items() if name != "targetVersion"}
    path = extension["id"].replace("/machines/", "/Machines/").replace("/extensions/", "/Extensions/")
    return {**extension, "id": path, "properties": properties}
