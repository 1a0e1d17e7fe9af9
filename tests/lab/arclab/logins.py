# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has an account on a machine with Entra login, and may this certificate log in there?

The part of Entra ID and of the machine's agent that the stand-in for aad_certhandler asks, at himds' own address in the machine's
network. Accounts are records that nss-systemd reads: one appears with the first role that lets its owner log in to the machine, and
stays; whether they may log in is decided anew each time. A change of roles counts when the lab's delay is over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from . import aad_certhandler, aadsshlogin, azcmagent
from .containers import Container, Containers
from .rbac import Assignment, Rbac
from .ssh_certificates import CertificateRefused, SshCertificates
from .world import Principal, World

PORT = 40342
LOGIN = "Microsoft.HybridCompute/machines/login/action"
LOGIN_AS_ADMIN = "Microsoft.HybridCompute/machines/loginAsAdmin/action"
NOT_ASSIGNED = "Azure role not assigned"
_FIRST_UID, _UIDS = 1_000_000_000, 500_000_000


class DelayedRoles:
    """The role assignments as the machines' logins know them: `delay` seconds behind."""

    def __init__(self, world: World, delay: float) -> None:
        self.delay = delay
        self._world = world
        self._newest = dict(world.rbac.assignments)
        self._changes: deque[tuple[float, str, Assignment | None]] = deque()
        self._known = dict(self._newest)

    def look(self, now: float) -> None:
        """Note what has changed, and let count what is old enough."""
        current = self._world.rbac.assignments
        if current != self._newest:
            for key in current.keys() | self._newest.keys():
                if current.get(key) != self._newest.get(key):
                    self._changes.append((now, key, current.get(key)))
            self._newest = dict(current)
        while self._changes and self._changes[0][0] + self.delay <= now:
            _since, key, assignment = self._changes.popleft()
            if assignment is None:
                self._known.pop(key, None)
            else:
                self._known[key] = assignment

    def view(self) -> Rbac:
        """What counts now."""
        rbac = Rbac(self._world.management_groups())
        rbac.roles = self._world.rbac.roles
        rbac.assignments = self._known
        return rbac


class Logins:
    """Entra login on the machines of a lab that are containers."""

    def __init__(
        self,
        world: World,
        containers: Containers,
        certificates: SshCertificates,
        delay: float,
        note: Callable[[dict[str, Any]], None],
        clock: Callable[[], float],
    ) -> None:
        self.roles = DelayedRoles(world, delay)
        self._world = world
        self._containers = containers
        self._certificates = certificates
        self._note = note
        self._clock = clock
        self._runners: list[web.AppRunner] = []
        self._provided: dict[str, set[str]] = {}
        self._pids: dict[str, int | None] = {}
        world.on_assignment = self.look

    # The machine's door

    async def open(self) -> None:
        """Listen at the agent's address in each machine."""
        for key, container in self._containers:
            app = web.Application()
            app.router.add_post("/arclab/login", self._asked(key, container))
            runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
            await runner.setup()
            self._runners.append(runner)
            await web.SockSite(runner, await container.listen(PORT)).start()

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    def _asked(self, key: str, container: Container) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if container.root is None or not azcmagent.himds_runs(str(container.root)):
                if request.transport is not None:
                    request.transport.abort()
                return web.Response(status=503)
            asked = await request.json()
            return web.json_response(self.decide(key, str(asked["user"]), str(asked["certificate"]), self._clock()))

        return handle

    def decide(self, key: str, user: str, blob: str, now: float) -> dict[str, Any]:
        """May this certificate log in to the machine as `user`? `granted`, and why not, or what sshd needs for it."""
        self.look()
        try:
            principal = self._certificates.check(blob, user, now)
        except CertificateRefused as refused:
            decided: dict[str, Any] = {"granted": False, "reason": f"Login denied: {refused}"}
        else:
            roles, owner = self.roles.view(), self._world.logins.get(principal.lower())
            if owner is None or not _may(roles, owner, key):
                decided = {"granted": False, "reason": NOT_ASSIGNED}
            else:
                admin = roles.allowed(owner.id, LOGIN_AS_ADMIN, key, data=True)
                decided = {"granted": True, "admin": admin, "principal": principal}
        machine = self._world.machines[key].name
        self._note({"kind": "login", "machine": machine, "user": user, **decided})
        return {**decided, "authority": self._certificates.public}

    # Accounts

    def look(self) -> None:
        """Give accounts to those who may log in now and have none yet."""
        self.roles.look(self._clock())
        roles = self.roles.view()
        for key, container in self._containers:
            # A machine that ends at this moment is none of ours any more; the next look sees it.
            with contextlib.suppress(OSError):
                self._look_at(key, container, roles)

    def _look_at(self, key: str, container: Container, roles: Rbac) -> None:
        if container.pid != self._pids.get(key):
            self._pids[key] = container.pid
            self._provided[key] = set()
        root = container.root
        if root is None or not (root / aadsshlogin.HANDLER.lstrip("/")).exists():
            self._provided[key] = set()
            return
        for principal in list(self._world.principals.values()):
            if principal.id not in self._provided[key] and _may(roles, principal, key):
                _provide(root, principal)
                self._provided[key].add(principal.id)


def _provide(root: Path, principal: Principal) -> None:
    """Give a principal an account in this file system."""
    folder = root / aad_certhandler.ACCOUNTS.lstrip("/")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name, record in records(principal).items():
        (folder / name).write_text(record)
        (folder / name).chmod(0o644)


def records(principal: Principal) -> dict[str, str]:
    """The files that make a principal an account of its own with a group of its own, under name and number."""
    name = principal.login.lower()
    number = _FIRST_UID + int(hashlib.sha256(principal.id.encode()).hexdigest()[:8], 16) % _UIDS
    user = {
        "userName": name,
        "uid": number,
        "gid": number,
        "realName": principal.name,
        "homeDirectory": f"/home/{name}",
        "shell": "/bin/bash",
        "disposition": "regular",
    }
    group = {"groupName": name, "gid": number, "disposition": "regular"}
    files: dict[str, str] = {}
    for suffix, record in (("user", user), ("group", group)):
        for file in (name, str(number)):
            files[f"{file}.{suffix}"] = json.dumps(record) + "\n"
    return files


def _may(roles: Rbac, principal: Principal, key: str) -> bool:
    return any(roles.allowed(principal.id, action, key, data=True) for action in (LOGIN, LOGIN_AS_ADMIN))
