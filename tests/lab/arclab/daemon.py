# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How is a lab put together, and how does it end?

`serve` runs in the process that `up` started: it loads or makes the world, binds one loopback port, writes the files
for users and opens the control socket, which tells that everything is ready. SIGTERM, SIGINT and the control API end
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import pwd
import signal
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from . import ca, fleet, images, outputs, specs, sshd
from .activity_log import FAILED, SUCCEEDED, ActivityLog, Occasion
from .agent import Agents
from .arm import Arm
from .clock import Clock
from .containers import Containers, Wanted
from .control import Control
from .entra import Entra
from .faults import Faults
from .journal import Journal
from .logins import Logins
from .observation import Observation
from .operations import SUCCEEDED as ENDED_WELL
from .operations import Operation, Operations
from .options import Options
from .podman import MachinesFailed
from .providers.authorization import Authorization
from .providers.batch import Batch
from .providers.compute import Machines
from .providers.connectivity import Connectivity
from .providers.extensions import Extensions
from .providers.insights import Insights
from .providers.resourcegraph import ResourceGraph
from .providers.resources import Resources
from .providers.runcommands import RunCommands
from .relay import HybridConnection, Relay, RelayOptions
from .routes import Router
from .server import Server
from .services import Services
from .ssh_certificates import SshCertificates, load_authority
from .store import Store
from .throttle import Throttle
from .tokens import Tokens, load_signing_key
from .world import World

log = logging.getLogger("arclab")

FLUSH_EVERY = 0.2
CONTROL = "control.sock"


def _bind(port: int, before: int | None) -> socket.socket:
    """A loopback socket: the port that was asked for, else the one of last time, else a free one."""
    for candidate in [port] if port else [before, 0] if before else [0]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", candidate))
        except OSError as exc:
            sock.close()
            if port or exc.errno != errno.EADDRINUSE:
                raise
        else:
            sock.listen(1024)
            sock.setblocking(False)
            return sock
    raise OSError(errno.EADDRINUSE, "no free port on 127.0.0.1")


def _world(store: Store, options: Options) -> World:
    world = World(store)
    if world.is_new:
        if options.fleet is not None:
            plans = fleet.plan_from_file(json.loads(Path(options.fleet).read_text()), options.subscriptions)
        else:
            plans = fleet.plan(
                options.machines,
                subscriptions=options.subscriptions,
                stopped=options.stopped,
                old_agents=options.old_agents,
                windows=options.windows,
            )
        if options.backend == "podman":
            fleet.contain(plans, options.image, images.SUITES if options.suite == "both" else [options.suite])
        world.populate(plans, options.subscriptions, unregistered=options.unregistered, now=time.time())
        store.flush()
    return world


class Daemon:
    """A running lab."""

    def __init__(self, state_dir: Path, options: Options) -> None:
        self.state_dir = state_dir
        self.options = options
        self.store = Store(state_dir / "world.sqlite")
        self.world = _world(self.store, options)
        self.clock = Clock(float(self.world.meta.get("ahead", 0.0)))
        self.journal = Journal(state_dir / "journal.jsonl", self.clock)
        self.faults = Faults()
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._socket = _bind(options.port, self.world.meta.get("port"))
        port = self._socket.getsockname()[1]
        self.world.set_meta("port", port)
        self.authority = f"127.0.0.1:{port}"
        self.url = f"https://{self.authority}"
        self.services = self._assemble()

    def _assemble(self) -> Services:
        options, world = self.options, self.world
        containers = None
        if options.backend == "podman":
            containers = Containers(self.state_dir, sshd.client_key(self.state_dir).with_suffix(".pub").read_text())
        user = pwd.getpwuid(os.geteuid()).pw_name
        agents = Agents(self.state_dir, world.machines.get, user, containers, self.clock)
        relay = Relay(
            agents,
            RelayOptions(
                authority=self.authority,
                secret=bytes.fromhex(world.meta["relay_secret"]),
                listener_lag=options.listener_lag,
                idle_timeout=options.idle_timeout,
                profile=options.relay_profile,
            ),
            self._note,
            self.clock,
        )
        for _key, value in self.store.load("connection"):
            connection = HybridConnection.from_json(value)
            relay.connections[connection.name] = connection
            if connection.machine_id is not None:
                world.connection_names[connection.machine_id] = connection.name
        certificates = SshCertificates(load_authority(self.state_dir / "ssh_ca"), options.certificate_seconds)
        logins = None
        if containers is not None:
            logins = Logins(world, containers, certificates, options.role_delay, self._note, self.clock)
        operations = Operations(self.store, style=options.lro_style, seconds=options.operation_seconds)
        operations.on_over = self._log_end
        return Services(
            options=options,
            clock=self.clock,
            world=world,
            activity=ActivityLog(self.store, tenant=world.tenant, delay=options.activity_delay),
            operations=operations,
            faults=self.faults,
            tokens=Tokens(load_signing_key(self.state_dir / "tokens.key"), self.url, world.tenant),
            certificates=certificates,
            logins=logins,
            agents=agents,
            relay=relay,
            authority=self.authority,
            state_dir=self.state_dir,
            spawn=self.spawn,
        )

    def _note(self, line: dict[str, Any]) -> None:
        self.journal.write(line)

    def _log_end(self, operation: Operation) -> None:
        """The last event of an operation that took its time."""
        if operation.occasion is not None and operation.ended is not None:
            status = SUCCEEDED if operation.status == ENDED_WELL else FAILED
            self.services.activity.note(Occasion(**operation.occasion), status, operation.ended)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task failed", exc_info=task.exception())

    def stop(self) -> None:
        """End the lab soon."""
        self._over.set()

    async def run(self) -> None:
        """Serve until `stop`."""
        services = self.services
        run_commands, extensions = RunCommands(services), Extensions(services)
        router = Router()
        for provider in (
            Resources(services),
            Authorization(services),
            Machines(services),
            extensions,
            run_commands,
            Connectivity(services),
            ResourceGraph(services),
            Insights(services),
        ):
            router.add(provider.routes())
        self._abandon_scripts()
        entra = Entra(self.world, services.tokens, services.certificates, lifetime=self.options.token_lifetime)
        front_door = Arm(services, router, Throttle(self.options.throttle))
        server = Server(
            front_door,
            entra,
            services.relay,
            self.faults,
            self.journal,
            url=self.url,
            latency=self.options.latency_ms / 1000,
            specs=specs.load() if self.options.check_specs else None,
            clock=self.clock,
        )
        router.add(Batch(services, front_door, server.note_part).routes())
        control = Control(
            services, front_door, entra, self.journal, run_commands, url=self.url, started=self.clock(), stop=self.stop
        )
        front = web.AppRunner(server.application(), access_log=None, handle_signals=False, shutdown_timeout=2.0)
        back = web.AppRunner(control.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        observation = await self._machines(control, extensions)
        await front.setup()
        await back.setup()
        await web.SockSite(front, self._socket, ssl_context=ca.server_context(self.state_dir)).start()
        outputs.write(services, self.url)
        self.store.flush()
        await self._open_control(back)
        flusher = asyncio.create_task(self._flush())
        observer = asyncio.create_task(observation.run())
        await self._over.wait()
        flusher.cancel()
        observer.cancel()
        (self.state_dir / CONTROL).unlink(missing_ok=True)
        run_commands.close()
        await services.relay.close()
        if services.logins is not None:
            await services.logins.close()
        await services.agents.close()
        await front.cleanup()
        await back.cleanup()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.journal.flush()
        self.store.close()

    async def _machines(self, control: Control, extensions: Extensions) -> Observation:
        """Make and start the machines that are containers; Azure knows their state before anybody can ask."""
        world, observation = self.world, Observation(self.services, control.resume)
        if self.services.agents.containers is not None:
            wanted = [
                Wanted(
                    key=key,
                    name=one.name,
                    image=one.image,
                    suite=one.suite,
                    identity=fleet.identity(world.resources[key]),
                    settings=fleet.agent_settings(one, world.resources[key]),
                    running=one.running,
                )
                for key, one in world.machines.items()
                if one.image is not None and one.suite is not None
            ]
            try:
                await self.services.agents.containers.make(wanted)
                if self.services.logins is not None:
                    await self.services.logins.open()
                await extensions.install_known()
            except BaseException:
                await self.services.agents.containers.close()
                raise
            observation.look()
        return observation

    async def _open_control(self, runner: web.AppRunner) -> None:
        """The socket is named relatively: a state directory's path may be longer than a socket's address."""
        os.chdir(self.state_dir)
        Path(CONTROL).unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            await web.UnixSite(runner, CONTROL).start()
        finally:
            os.umask(mask)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            self.services.operations.settle(self.clock())
            self.store.flush()
            self.journal.flush()

    def _abandon_scripts(self) -> None:
        """Scripts did not outlive the last run of the lab, nor did handlers of extensions, which begin again."""
        operations = self.services.operations
        for operation in operations.running("/subscriptions"):
            machine = self.world.machines.get(operation.resource.partition("/extensions/")[0])
            at_work = operation.ends_at is None and machine is not None and machine.running
            if at_work or operation.kind == "runcommand.write":
                operations.end_at(operation, self.clock())


async def _main(state_dir: Path) -> None:
    try:
        daemon = Daemon(state_dir, Options.read(state_dir))
    except (OSError, ValueError) as exc:
        log.error("The lab cannot start: %s", exc)
        raise SystemExit(1) from exc
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    try:
        await daemon.run()
    except MachinesFailed as exc:
        log.error("The lab cannot start: %s", exc)
        raise SystemExit(1) from exc


def serve(state_dir: Path) -> None:
    """Run the lab of a state directory in this process until it is told to stop."""
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    pid_file = state_dir / "lab.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    try:
        asyncio.run(_main(state_dir))
    finally:
        with contextlib.suppress(OSError):
            pid_file.unlink()
