# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure learn of a machine of its own, and what does its agent do when its settings change?

The lab looks at each container several times a second: does himds run, and what is in localconfig.json? A change reaches ARM at
once (the real one takes minutes), and whatever the agent no longer allows is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from . import azcmagent
from .containers import Container
from .podman import MachinesFailed
from .services import Services

EVERY = 0.2
log = logging.getLogger("arclab")

Seen = tuple[bool, dict[str, Any]]


class Observation:
    """Keeps Azure's view of the containers true; `resume` is called with a machine that is connected again."""

    def __init__(self, services: Services, resume: Callable[[str, float], None]) -> None:
        self._services = services
        self._resume = resume
        self._seen: dict[str, Seen] = {}
        self._stamps: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Look at each machine once."""
        containers = self._services.agents.containers
        for key, container in containers or ():
            seen = self._look_at(key, container)
            if seen != self._seen.get(key) and key in self._services.world.machines:
                self._apply(key, seen, self._seen.get(key))
                self._seen[key] = seen
            if container.was_rebooted:
                self._services.spawn(self._start_again(container))
        if self._services.logins is not None:
            self._services.logins.look()

    async def _start_again(self, container: Container) -> None:
        try:
            await container.start()
        except MachinesFailed as exc:
            log.error("%s", exc)

    def _look_at(self, key: str, container: Container) -> Seen:
        """Settings are read anew only if the file is another one; of a machine that is off the last ones count."""
        before = self._seen.get(key, (False, container.settings))[1]
        if container.root is None:
            return False, before
        running = azcmagent.himds_runs(str(container.root))
        try:
            status = (container.root / azcmagent.SETTINGS.lstrip("/")).stat()
        except OSError:
            return running, before
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamps.get(key):
            return running, before
        self._stamps[key] = stamp
        return running, azcmagent.load_settings(str(container.root))

    def _apply(self, key: str, seen: Seen, before: Seen | None) -> None:
        services, now = self._services, self._services.clock()
        machine, body = services.world.machines[key], services.world.resources[key]
        listened = machine.listens
        machine.running, settings = seen
        machine.incoming_enabled = settings["incomingconnections.enabled"]
        machine.config_mode = settings["config.mode"]
        machine.incoming_ports = list(settings["incomingconnections.ports"])
        body["properties"]["agentConfiguration"].update(
            proxyUrl=settings["proxy.url"],
            proxyBypass=settings["proxy.bypass"],
            incomingConnectionsPorts=machine.incoming_ports,
            extensionsAllowList=_extensions(settings["extensions.allowlist"]),
            extensionsBlockList=_extensions(settings["extensions.blocklist"]),
            extensionsEnabled=str(settings["extensions.enabled"]).lower(),
            guestConfigurationEnabled=str(settings["guestconfiguration.enabled"]).lower(),
            configMode=machine.config_mode,
        )
        services.world.put(key, body)
        services.world.save_machine(key)
        if before is None or before[0] != machine.running:
            services.world.set_status(key, "Connected" if machine.running else "Disconnected", now)
        if machine.listens and not listened:
            services.agents.started_at[key] = now
        if not machine.listens:
            services.relay.drop_streams(key, None)
        services.agents.cut(machine, all_ports=not machine.listens)
        if machine.running and before is not None and not before[0]:
            self._resume(key, now)


def _extensions(names: list[str]) -> list[dict[str, str]]:
    """`Publisher/Type` as ARM shows it."""
    return [{"publisher": publisher, "type": kind} for publisher, _slash, kind in (one.partition("/") for one in names)]
