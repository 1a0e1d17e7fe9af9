# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests and the command line reach into a running lab?

HTTP with JSON on the unix socket `control.sock` (mode 0600) of the state directory, so that the Azure-facing side stays
what Azure is. Every answer is `{"result": …}` or `{"error": sentence}`.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import azcmagent, fleet, outputs, paths
from .activity_log import STARTED, SUCCEEDED, Occasion
from .arm import Arm, Exchange, Request
from .containers import identity_text
from .entra import Entra
from .entra_errors import check_number
from .faults import Fault
from .http import ArmFailure
from .journal import Journal
from .podman import MachinesFailed
from .providers.runcommands import RunCommands
from .relay import HybridConnection
from .roles import Role
from .sas import sign
from .services import Services
from .sshd import write_private
from .tokens import Caller
from .versions import SUPPORTED, newest_first
from .world import DOMAIN, Principal, new_principal, new_user

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# Settings of a machine that the agent has, with what they are called in the machine's agentConfiguration.
_AGENT = {"agent_version": str, "incoming_enabled": bool, "config_mode": str, "sshd_port": int, "sshd_running": bool}


# Those that a container has itself: they are changed in it.
_OWN = {"incoming_enabled", "config_mode", "sshd_port", "sshd_running", "extensions_enabled", "status"}


class ControlFailure(Exception):
    """What was asked for cannot be done; the message says why."""


class Control:
    """The control API of one lab. `stop` ends it."""

    def __init__(
        self,
        services: Services,
        front: Arm,
        entra: Entra,
        journal: Journal,
        run_commands: RunCommands,
        *,
        url: str,
        started: float,
        stop: Callable[[], None],
    ) -> None:
        self.services = services
        self.world = services.world
        self.clock = services.clock
        self.front = front
        self.entra = entra
        self.journal = journal
        self.run_commands = run_commands
        self.url = url
        self.started = started
        self._stop = stop

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        for path, work in (
            ("/status", self.status),
            ("/machines", self.machines),
            ("/journal", self.read_journal),
            ("/journal/clear", self.clear_journal),
            ("/fault/list", self.list_faults),
            ("/fault/add", self.add_fault),
            ("/fault/clear", self.clear_faults),
            ("/machine", self.change_machine),
            ("/onboard", self.onboard),
            ("/principal", self.add_principal),
            ("/principal/change", self.change_principal),
            ("/principal/sign-in", self.sign_in),
            ("/connection", self.add_connection),
            ("/listener", self.add_listener),
            ("/revoke", self.revoke_tokens),
            ("/setting", self.change_setting),
            ("/advance", self.advance),
            ("/drift", self.drift),
            ("/stop", self.stop),
        ):
            app.router.add_post(path, self._served(work))
        return app

    def _served(self, work: Callable[[dict[str, Any]], Awaitable[Any]]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            try:
                asked = json.loads(await request.read() or b"{}")
                return web.json_response({"result": await work(asked)})
            except (ControlFailure, MachinesFailed, ValueError, TypeError, KeyError) as exc:
                return web.json_response(
                    {"error": f"{type(exc).__name__}: {exc}".removeprefix("ControlFailure: ")}, status=400
                )

        return handle

    # The lab

    async def status(self, _asked: dict[str, Any]) -> dict[str, Any]:
        machines = self.world.machines
        return {
            "pid": os.getpid(),
            "url": self.url,
            "state_dir": str(self.services.state_dir),
            "started": self.started,
            "time": fleet.stamp(self.clock()),
            "machines": len(machines),
            "connected": sum(machine.running for machine in machines.values()),
            "subscriptions": self.world.subscriptions,
            "tenant": self.world.tenant,
            "connections": len(self.services.relay.connections),
            "faults": len(self.services.faults.rules),
            "processes": {
                machine.name: port
                for key, machine in machines.items()
                if (port := self.services.agents.real_port(key)) is not None
            },
        }

    async def machines(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        keys = self.world.find_machines(asked["name"]) if asked.get("name") else list(self.world.machines)
        return [self._machine(key) for key in keys]

    def _machine(self, key: str) -> dict[str, Any]:
        machine, body = self.world.machines[key], self.world.resources[key]
        container = self.services.agents.container(key)
        return {
            "id": body["id"],
            "name": machine.name,
            "resource_group": body["id"].split("/")[4],
            "subscription_id": body["id"].split("/")[2],
            "location": body["location"],
            "os_type": body["properties"]["osType"],
            "status": body["properties"]["status"],
            "agent_version": machine.agent_version,
            "running": machine.running,
            "incoming_enabled": machine.incoming_enabled,
            "config_mode": machine.config_mode,
            "sshd_running": machine.sshd_running,
            "sshd_port": machine.sshd_port,
            "real_port": self.services.agents.real_port(key),
            "host_key": self.services.agents.host_key_public(key),
            "image": machine.image,
            "suite": machine.suite,
            "address": container.address if container is not None else None,
            "pid": container.pid if container is not None else None,
            "tags": body["tags"],
        }

    async def stop(self, _asked: dict[str, Any]) -> str:
        self._stop()
        return "stopping"

    async def advance(self, asked: dict[str, Any]) -> float:
        """Move the lab's clock ahead: what ends or expires until then is over. Streams and agents go on."""
        now = self.clock.advance(float(asked["seconds"]))
        self.world.set_meta("ahead", self.clock.ahead)
        self.services.operations.settle(now)
        self.services.activity.forget(now)
        if self.services.logins is not None:
            self.services.logins.look()
        return now

    async def drift(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Change a resource at once, as somebody in the portal does: a PUT of `body`, or a deletion; `logged`: the activity
        log tells of it; `fails`: the error with which the operation ends that this starts."""
        path, body, now = str(asked["path"]), asked.get("body"), self.clock()
        target = paths.parse(path)
        versions = SUPPORTED.get("/".join([target.namespace, *target.types]).lower()) if target is not None else None
        if target is None or target.tail is not None or versions is None:
            raise ControlFailure(f"{path!r} is no resource of this lab.")
        stable = [one for one in newest_first(versions) if not one.endswith("-preview")]
        request = Request(
            "DELETE" if body is None else "PUT",
            path,
            {"api-version": stable[0]},
            {"Content-Type": "application/json"},
            b"" if body is None else json.dumps(body).encode(),
        )
        owner = self.world.applications[self.world.meta["owner"]]
        exchange = Exchange(
            caller=Caller(owner.id, owner.app_id, ""),
            api_version=stable[0],
            fault=Fault(fail_operation=asked["fails"]) if asked.get("fails") else None,
            logged=bool(asked.get("logged", True)),
        )
        try:
            answer = self.front.carry_out(request, target, now, self.url, exchange)
        except ArmFailure as failure:
            raise ControlFailure(f"{request.method} {path}: {failure.code}: {failure.message}") from failure
        for operation in self.services.operations.running(path):
            self.services.operations.end_at(operation, now)
        self.services.operations.settle(now)
        self.journal.write({"kind": "drift", "method": request.method, "path": path, "status": answer.status})
        return self.world.get(path)

    # Journal and faults

    async def read_journal(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return self.journal.read(**asked)

    async def clear_journal(self, _asked: dict[str, Any]) -> None:
        self.journal.clear()

    async def list_faults(self, _asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [rule.to_json() for rule in self.services.faults.rules]

    async def add_fault(self, asked: dict[str, Any]) -> int:
        return self.services.faults.add(Fault.from_json(asked)).id

    async def clear_faults(self, asked: dict[str, Any]) -> int:
        return self.services.faults.clear(asked.get("id"))

    async def revoke_tokens(self, asked: dict[str, Any]) -> None:
        """Refuse the tokens made until now (continuous access evaluation), of one application or of all."""
        app_id = asked.get("principal")
        principal = self.world.applications[app_id] if app_id else None
        self.services.tokens.revoke(principal.id if principal else None, self.clock())

    async def change_setting(self, asked: dict[str, Any]) -> None:
        """Facts of the tenant that tests need at their limit, and times that change while a lab runs."""
        known = ("role_assignment_limit", "certificate_seconds", "role_delay")
        if not asked or set(asked) - set(known):
            raise ControlFailure(f"The settings are {', '.join(known)}.")
        if (limit := asked.get("role_assignment_limit")) is not None:
            self.world.set_meta("role_assignment_limit", int(limit))
        if (seconds := asked.get("certificate_seconds")) is not None:
            self.services.certificates.seconds = float(seconds)
        if (delay := asked.get("role_delay")) is not None:
            if self.services.logins is None:
                raise ControlFailure("role_delay is for machines of their own (--backend podman).")
            self.services.logins.roles.delay = float(delay)
            self.services.logins.look()

    # Machines

    def _key(self, name: str) -> str:
        keys = self.world.find_machines(name)
        if len(keys) != 1:
            found = "no machine" if not keys else f"{len(keys)} machines (use the resource id)"
            raise ControlFailure(f"There is {found} called {name!r}.")
        return keys[0]

    async def change_machine(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = self._key(str(asked["name"]))
        machine, agents, now = self.world.machines[key], self.services.agents, self.clock()
        action = asked["action"]
        match action:
            case "stop":
                machine.running = False
                self.world.set_status(key, "Disconnected", now)
                await agents.stop_machine(machine)
                self.services.relay.drop_streams(key, None)
            case "start":
                machine.running = True
                self.world.set_status(key, "Connected", now)
                await agents.start_machine(machine)
                if agents.container(key) is None:
                    self.resume(key, now)
                elif self.services.logins is not None:
                    self.services.logins.look()
            case "sshd-stop":
                machine.sshd_running = False
                await agents.stop_sshd(machine)
            case "sshd-start":
                machine.sshd_running = True
                await agents.start_sshd(machine)
            case "drop":
                self.services.relay.drop_streams(key, None)
            case "set":
                await self._set(key, asked.get("settings") or {})
            case _dummy:
                raise ControlFailure(
                    f"A machine cannot {action!r}; it can stop, start, sshd-stop, sshd-start, drop, set."
                )
        self.world.save_machine(key)
        return self._machine(key)

    async def onboard(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Let a machine appear, as when somebody connects it to Arc; `machine` as in a fleet file."""
        services, now = self.services, self.clock()
        if services.agents.containers is not None:
            raise ControlFailure("Machines of their own are made when the lab starts.")
        (plan,) = fleet.plan_from_file([asked["machine"]], len(self.world.subscriptions))
        key = plan.id.lower()
        if key in self.world.machines:
            raise ControlFailure(f"There is a machine {plan.id} already.")
        if f"/subscriptions/{plan.subscription}" not in self.world.resources:
            raise ControlFailure(f"There is no subscription {plan.subscription}.")
        self.world.add_group(plan.subscription, plan.group, plan.location)
        self.world.add_machine(plan, now)
        outputs.write_known_hosts(services)
        owner = self.world.applications[self.world.meta["owner"]]
        occasion = Occasion(
            operation="Microsoft.HybridCompute/machines/write",
            resource_id=plan.id,
            caller=owner.app_id,
            principal_id=owner.id,
            method="PUT",
            correlation_id=str(uuid.uuid4()),
            operation_id=str(uuid.uuid4()),
        )
        for status in (STARTED, SUCCEEDED):
            services.activity.note(occasion, status, now)
        return self._machine(key)

    def resume(self, key: str, now: float) -> None:
        """What waited for the machine goes on."""
        operations = self.services.operations
        for operation in operations.running(key):
            if operation.ends_at is None and operation.kind != "runcommand.write":
                operations.end_at(operation, now + operations.seconds)
        self.run_commands.resume(key, now)

    async def _set(self, key: str, settings: dict[str, Any]) -> None:
        machine, body = self.world.machines[key], self.world.resources[key]
        container = self.services.agents.container(key)
        properties = body["properties"]
        if container is not None and _OWN & set(settings):
            raise ControlFailure(
                f"{machine.name} is a machine of its own: change {', '.join(sorted(_OWN & set(settings)))} in it (Lab.shell)."
            )
        for name, value in settings.items():
            if name in _AGENT:
                setattr(machine, name, _converted(value, _AGENT[name]))
            elif name == "status":
                properties["status"] = str(value)
                properties["lastStatusChange"] = fleet.stamp(self.clock())
            elif name == "extensions_enabled":
                properties["agentConfiguration"]["extensionsEnabled"] = str(_converted(value, bool)).lower()
            elif name.startswith("tags."):
                body["tags"][name.removeprefix("tags.")] = str(value)
            elif name.startswith("properties."):
                properties[name.removeprefix("properties.")] = value
            elif name == "kind":
                body["kind"] = str(value)
            else:
                raise ControlFailure(
                    f"A machine has no setting {name!r}: it has {', '.join(_AGENT)}, status, extensions_enabled, kind, "
                    "tags.NAME and properties.NAME."
                )
        properties["agentVersion"] = machine.agent_version
        if container is not None:
            container.write(azcmagent.IDENTITY, identity_text(fleet.identity(body)))
        else:
            properties["agentConfiguration"]["configMode"] = machine.config_mode
            ports = [str(machine.sshd_port)] if machine.incoming_enabled else []
            properties["agentConfiguration"]["incomingConnectionsPorts"] = ports
        self.world.put(key, body)
        if not machine.listens:
            self.services.relay.drop_streams(key, None)
        if {"sshd_port", "sshd_running"} & set(settings):
            await self.services.agents.stop_sshd(machine)

    # Identities and relay

    async def add_principal(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A service principal or a user; with a custom role of exactly these actions, or built-in roles, at a scope."""
        now = self.clock()
        kind = asked.get("type") or "ServicePrincipal"
        if kind not in ("ServicePrincipal", "User"):
            raise ControlFailure(f"A principal is a ServicePrincipal or a User, not {kind!r}.")
        name = str(asked["name"])
        if kind == "User" and not re.fullmatch(r"[^@\s]+@[^@\s]+", name):
            raise ControlFailure(f"A user's name is what they sign in with, as in someone@{DOMAIN}, not {name!r}.")
        principal = new_principal(name) if kind == "ServicePrincipal" else new_user(name)
        if principal.login.lower() in self.world.logins:
            raise ControlFailure(f"There is a user {name!r} already.")
        principal.certificates = list(asked.get("certificates") or ())
        principal.federated = list(asked.get("federated") or ())
        self.world.add_principal(principal)
        scope = str(asked.get("scope") or f"/subscriptions/{self.world.subscriptions[0]}").rstrip("/")
        actions, data_actions = tuple(asked.get("actions") or ()), tuple(asked.get("data_actions") or ())
        if actions or data_actions:
            role = Role(
                fleet.guid("role", principal.id),
                f"{principal.name} {principal.id[:8]}",
                actions,
                data_actions=data_actions,
                custom=True,
                assignable_scopes=(scope,),
            )
            self.world.put(f"/providers/Microsoft.Authorization/roleDefinitions/{role.id}", role.to_json(""))
            self.world.rbac.add_role(role)
            self.world.assign(principal.id, role.id, scope, now)
        for role_name in asked.get("roles") or ():
            self.world.assign(principal.id, self._role(role_name), scope, now)
        if principal.upn is not None:
            return {"upn": principal.upn, "object_id": principal.id, "tenant": self.world.tenant, "scope": scope}
        result = {
            "client_id": principal.app_id,
            "object_id": principal.id,
            "secret": principal.secrets[0],
            "tenant": self.world.tenant,
            "scope": scope,
        }
        path = self.services.state_dir / f"principal-{principal.app_id}.json"
        write_private(path, json.dumps(result, indent=2) + "\n")
        return {**result, "file": str(path)}

    async def change_principal(self, asked: dict[str, Any]) -> None:
        """Let Entra refuse a principal (client id or user name) with an AADSTS number; `None`: no more."""
        principal = self._principal(asked["name"])
        for field in ("refused", "certificate_refused"):
            if field in asked:
                number = asked[field]
                setattr(principal, field, None if number is None else check_number(int(number)))
        self.world.add_principal(principal)

    async def sign_in(self, asked: dict[str, Any]) -> str:
        """The refresh token that the Azure CLI has after a user signed in."""
        user = self._principal(asked["name"])
        if user.upn is None:
            raise ControlFailure(f"{user.name} is no user.")
        return self.entra.sign_in(user)

    def _principal(self, name: str) -> Principal:
        principal = self.world.logins.get(name.lower())
        if principal is None:
            raise ControlFailure(f"There is no principal {name!r}: give a client id or a user's name.")
        return principal

    def _role(self, name: str) -> str:
        for role in self.world.rbac.roles.values():
            if name.lower() in (role.name.lower(), role.id):
                return role.id
        raise ControlFailure(f"There is no role {name!r}.")

    async def add_connection(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A hybrid connection for a listener outside the lab, with a token that may listen and send."""
        connection: HybridConnection = self.services.relay.mint(None, self.clock(), asked.get("name"))
        self.world.store.save("connection", connection.name, connection.to_json())
        expiry = int(self.clock()) + 3 * 3600
        resource = f"http://{self.services.authority}/{connection.name}"
        return {
            "name": connection.name,
            "authority": self.services.authority,
            "key_name": connection.key_name,
            "token": sign(resource, connection.key_name, connection.key, expiry),
        }

    async def add_listener(self, asked: dict[str, Any]) -> None:
        """Let a port of a machine lead to a loopback port of ours."""
        self.services.agents.add_listener(self._key(asked["name"]), int(asked["port"]), int(asked["real_port"]))


def _converted(value: Any, kind: type) -> Any:
    if kind is bool and isinstance(value, str):
        if value.lower() not in _BOOLEANS:
            raise ControlFailure(f"{value!r} is neither true nor false.")
        return _BOOLEANS[value.lower()]
    return kind(value)
