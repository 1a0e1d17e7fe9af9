# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a run command do?

It is a resource whose creation runs a script on the machine. The lab really runs it, with /bin/sh in a directory of the
machine's own: in a machine that is a container as its root, otherwise as `nobody` where the lab is root. Named parameters
become environment variables, those without a name arguments. `provisioningState` says that the script ran, `instanceView`
how it ended, with the last 4 KB of what it printed. The agent has to be 1.33 or later, connected, and allowed to handle
extensions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pwd
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..containers import end_marked
from ..fleet import stamp
from ..http import Answer, ArmFailure, Context
from ..operations import CANCELED, IN_PROGRESS, Operation
from ..routes import Route
from ..services import Services, body_of, check_location, check_tags, expect, invalid, not_found, properties_of
from ..world import RUN_COMMANDS

TYPE = "Microsoft.HybridCompute/machines/runCommands"
MINIMUM_AGENT = (1, 33)
KEPT_OUTPUT = 4096
DEFAULT_TIMEOUT = 90 * 60
_NAME = re.compile(r"[a-zA-Z0-9\-_.]+")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where a machine keeps the scripts, and how its processes of one are known.
_HANDLER = "var/lib/waagent/run-command-handler"
_MARKER = "ARCLAB_RUN_COMMAND"
_SOURCES = ("script", "scriptUri", "commandId")


class RunCommands:
    """Run commands of machines."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.world = services.world
        self._directory = services.state_dir / "runcommands"
        self._running: dict[str, _Script] = {}
        self._protected: dict[str, list[dict[str, str]]] = {}
        services.operations.on_end("runcommand.write", self._failed_by_fault)
        services.operations.on_end("runcommand.delete", self._deleted)

    def routes(self) -> list[Route]:
        return [
            Route("GET", RUN_COMMANDS, self.get),
            Route("PUT", RUN_COMMANDS, self.put),
            Route("DELETE", RUN_COMMANDS, self.delete),
            Route("GET", RUN_COMMANDS, self.list_commands, collection=True),
        ]

    def get(self, context: Context) -> Answer:
        self.services.machine(context)
        command = self.world.get(context.path)
        if command is None:
            name = f"{context.params['machines']}/runCommands/{context.params['runcommands']}"
            raise not_found("Microsoft.HybridCompute/machines", name, context.params["group"])
        return Answer(200, shown(command))

    def list_commands(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        keys = self.world.children(machine["id"], RUN_COMMANDS)
        return self.services.page(context, keys, lambda key: shown(self.world.resources[key]))

    def put(self, context: Context) -> Answer:
        machine = self.services.machine(context, parent_of=TYPE)
        body = body_of(context)
        location = check_location(body, machine, TYPE)
        name = context.params["runcommands"]
        windows = machine["properties"]["osType"] == "windows"
        if not _NAME.fullmatch(name) or (not windows and len(name) > 36):
            raise ArmFailure(
                400,
                "InvalidParameter",
                f"The run command name '{name}' is invalid: letters, digits, '-', '_' and '.', at most 36 characters "
                "on Linux.",
                target="runCommandName",
            )
        properties, protected = _checked(properties_of(body))
        _check_agent(machine)
        existing = self.world.get(context.path)
        operations = self.services.operations
        if existing is not None and operations.running(existing["id"]):
            raise ArmFailure(
                409,
                "Conflict",
                f"Run command '{name}' of machine '{machine['name']}' is still in progress. Retry when it is over.",
            )
        command: dict[str, Any] = {
            "id": f"{machine['id']}/runCommands/{name}",
            "name": name,
            "type": TYPE,
            "location": location,
            "tags": check_tags(body.get("tags") or {}),
            "properties": {
                **properties,
                "provisioningState": "Updating" if existing else "Creating",
                "instanceView": {"executionState": "Pending", "output": "", "error": "", "statuses": []},
            },
        }
        fails = operations.failure_of_next is not None
        operation = operations.start(
            "runcommand.write",
            resource=command["id"],
            method="PUT",
            location=machine["location"],
            principal_id=context.principal_id,
            api_version=context.api_version,
            now=context.now,
            waits=not fails,
        )
        self._protected[operation.id] = protected
        self.world.put(command["id"], command)
        if not fails and machine["properties"]["status"] == "Connected":
            self.services.spawn(self.run(operation))
        headers = operations.headers(operation, context.base_url)
        return Answer(200 if existing else 201, shown(command), headers)

    def delete(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        command = self.world.get(context.path)
        if command is None:
            return Answer(204)
        operations = self.services.operations
        for running in operations.running(command["id"]):
            operations.end(running, context.now, status=CANCELED)
        self._kill(command["id"].lower())
        operation = operations.start(
            "runcommand.delete",
            resource=command["id"],
            method="DELETE",
            location=machine["location"],
            principal_id=context.principal_id,
            api_version=context.api_version,
            now=context.now,
            waits=machine["properties"]["status"] != "Connected",
            deletes=True,
        )
        command["properties"]["provisioningState"] = "Deleting"
        self.world.put(command["id"], command)
        return Answer(202, None, operations.headers(operation, context.base_url))

    def _deleted(self, operation: Operation, _now: float) -> dict[str, Any] | None:
        if operation.failure is None:
            self.world.delete(operation.resource)
        return operation.failure

    def _failed_by_fault(self, operation: Operation, now: float) -> dict[str, Any] | None:
        error = operation.failure or {
            "code": "Canceled",
            "message": "The lab was stopped while the script was running.",
        }
        self._show_end(operation, {"executionState": "Failed", "executionMessage": error["message"]}, now, failed=True)
        return error

    def resume(self, machine_key: str, now: float) -> None:
        """The machine is connected (again): scripts that waited for it start."""
        for operation in self.services.operations.running(machine_key):
            if operation.kind == "runcommand.write" and operation.resource not in self._running:
                if operation.id in self._protected:
                    self.services.spawn(self.run(operation))
                else:
                    self.services.operations.end_at(operation, now)

    # On the machine

    async def run(self, operation: Operation) -> None:
        """Run the script and tell the resource how it ended."""
        command = self.world.get(operation.resource)
        if command is None or operation.status != IN_PROGRESS:
            return
        properties = command["properties"]
        started = self.services.clock()
        view = properties["instanceView"]
        view.update(executionState="Running", startTime=stamp(started))
        self.world.put(command["id"], command)
        if properties.get("asyncExecution"):
            properties["provisioningState"] = "Succeeded"
            self.services.operations.end(operation, started)
        if "script" not in properties["source"]:
            what = "scriptUri" if "scriptUri" in properties["source"] else "commandId"
            ended = {
                "executionState": "Failed",
                "exitCode": -1,
                "executionMessage": f"The machine cannot fetch {what}.",
            }
        else:
            ended = await self._execute(operation, properties)
        self._show_end(operation, ended, self.services.clock(), failed=False)
        self.services.operations.end(operation, self.services.clock())

    async def _execute(self, operation: Operation, properties: dict[str, Any]) -> dict[str, Any]:
        digest = hashlib.sha256(operation.id.encode()).hexdigest()[:16]
        parameters = [*properties.get("parameters", ()), *self._protected.pop(operation.id, ())]
        arguments = [one["value"] for one in parameters if not one["name"]]
        environment = {one["name"]: one["value"] for one in parameters if one["name"]}
        machine = self.world.machines[operation.resource.rsplit("/", 2)[0]]
        container = self.services.agents.container(machine.id)
        if container is not None and container.root is None:
            return {"executionState": "Failed", "exitCode": -1, "executionMessage": "The machine is off."}
        if container is not None and container.root is not None:
            directory = container.root / _HANDLER / digest
            directory.mkdir(mode=0o700, parents=True)
            (directory / "script.sh").write_text(properties["source"]["script"])
            command = container.enter("/bin/sh", f"/{_HANDLER}/{digest}/script.sh", *arguments)
            environment = {_MARKER: digest, **environment}
            more: dict[str, Any] = {"umask": 0o022}
        else:
            directory = self._directory / digest
            more = {"cwd": directory, **_prepare(directory, properties["source"]["script"])}
            command = ["/bin/sh", "./script.sh", *arguments]
            environment = {"ARCLAB_MACHINE": machine.name, **environment}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": _PATH, "LANG": "C.UTF-8", **environment},
            start_new_session=True,
            **more,
        )
        script = _Script(process, f"{_MARKER}={digest}" if container is not None else None)
        self._running[operation.resource] = script
        timeout = properties.get("timeoutInSeconds") or DEFAULT_TIMEOUT
        communication = asyncio.ensure_future(process.communicate())
        try:
            await asyncio.wait({communication}, timeout=timeout)
            timed_out = not communication.done()
            if timed_out or container is None:
                script.end()
            output, error = await communication
        finally:
            if container is None or not communication.done():
                script.end()
            self._running.pop(operation.resource, None)
            shutil.rmtree(directory, ignore_errors=True)
        state = "TimedOut" if timed_out else "Succeeded" if process.returncode == 0 else "Failed"
        return {
            "executionState": state,
            "executionMessage": "Execution timed out." if timed_out else "Execution completed",
            "exitCode": -1 if timed_out else process.returncode,
            "output": output[-KEPT_OUTPUT:].decode(errors="replace"),
            "error": error[-KEPT_OUTPUT:].decode(errors="replace"),
        }

    def _show_end(self, operation: Operation, ended: dict[str, Any], now: float, *, failed: bool) -> None:
        command = self.world.get(operation.resource)
        if command is None or command["properties"]["provisioningState"] == "Deleting":
            return
        command["properties"]["instanceView"].update(ended, endTime=stamp(now))
        command["properties"]["provisioningState"] = "Failed" if failed else "Succeeded"
        self.world.put(command["id"], command)

    def _kill(self, key: str) -> None:
        script = self._running.get(key)
        if script is not None:
            script.end()

    def close(self) -> None:
        """End every script that still runs."""
        for script in list(self._running.values()):
            script.end()


@dataclass(frozen=True)
class _Script:
    """A script that runs; in a container, what it started is known by the `marker` in its environment."""

    process: asyncio.subprocess.Process
    marker: str | None

    def end(self) -> None:
        """End the script and whatever it started and is still below it."""
        if self.marker is not None:
            end_marked(self.marker)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _prepare(directory: Path, script: str) -> dict[str, Any]:
    """The script in a directory that only the user who runs it can read; that user, if it is not ours."""
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)
    path = directory / "script.sh"
    path.write_text(script)
    path.chmod(0o600)
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for one in (directory, path):
        os.chown(one, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _check_agent(machine: dict[str, Any]) -> None:
    properties = machine["properties"]
    numbers = tuple(int(part) for part in re.findall(r"\d+", properties["agentVersion"])[:2])
    reason = None
    if numbers < MINIMUM_AGENT:
        reason = f"Run command needs agent version 1.33 or later; the machine has {properties['agentVersion']}."
    elif properties["agentConfiguration"]["configMode"] == "monitor":
        reason = "The agent is in monitor mode, which does not allow run commands."
    elif properties["agentConfiguration"]["extensionsEnabled"] == "false":
        reason = "The extension manager of the agent is disabled, which does not allow run commands."
    if reason is not None:
        raise ArmFailure(400, "HCRP400", f"Run command is not possible on machine '{machine['name']}': {reason}")


def _checked(properties: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The properties that come back, and the protected parameters, which do not."""
    source = expect(properties, "source", dict, required=True)
    given = [name for name in _SOURCES if source.get(name)]
    if len(given) != 1:
        raise invalid(
            "Exactly one of source.script, source.scriptUri and source.commandId has to be given.", "properties.source"
        )
    shown_properties: dict[str, Any] = {"source": {given[0]: expect(source, given[0], str)}}
    for name, kind in (
        ("asyncExecution", bool),
        ("runAsUser", str),
        ("timeoutInSeconds", int),
        ("outputBlobUri", str),
        ("errorBlobUri", str),
    ):
        value = expect(properties, name, kind)
        if value is not None:
            shown_properties[name] = value
    expect(properties, "runAsPassword", str)
    shown_properties.setdefault("asyncExecution", False)
    if shown_properties.get("timeoutInSeconds", 1) <= 0:
        raise invalid("timeoutInSeconds has to be greater than 0.", "properties.timeoutInSeconds")
    parameters = _parameters(properties, "parameters")
    if parameters:
        shown_properties["parameters"] = parameters
    return shown_properties, _parameters(properties, "protectedParameters")


def _parameters(properties: dict[str, Any], name: str) -> list[dict[str, str]]:
    given = expect(properties, name, list) or []
    for one in given:
        if not (isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("value"), str)):
            raise invalid(f"Each of {name} has to have a name and a value, both strings.", f"properties.{name}")
    return [{"name": one["name"], "value": one["value"]} for one in given]


def shown(command: dict[str, Any]) -> dict[str, Any]:
    """The run command as ARM shows it; ids are spelled as in Azure's examples."""
    path = command["id"].replace("/machines/", "/Machines/").replace("/runCommands/", "/runcommands/")
    return {**command, "id": path, "type": "Microsoft.HybridCompute/machines/runcommands"}
