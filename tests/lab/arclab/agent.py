# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the Connected Machine agent of a lab machine do with a connection that the relay offers it?

It listens on the relay only if it is new enough and allowed to, checks the two headers that the relay passes on, dials
`localhost:<port>` and accepts, or rejects with a status and a sentence. From the wire protocol: the target is always
`localhost`, a refused dial is a 503 whose text begins with `connection to localhost:`. How an agent words its other
refusals is not known; here they follow the relay's own 401 and 403. A machine is an sshd of its own on this computer, or a
container with a localhost of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from . import sas, sshd
from .containers import Container, Containers

MINIMUM_VERSION = (1, 31)
READ_AHEAD = 1 << 20
WRITE_AHEAD = 1 << 20


class AgentRefuses(Exception):
    """The agent rejects a connection with an HTTP status and a text that the sender gets to see."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text


@dataclass
class Machine:
    """What an agent needs to know of its machine.

    `id` is the lower-cased resource id, `sshd_port` the port as the machine itself sees it, `config_mode` is `full` or
    `monitor`, `incoming_ports` what the agent admits if it is not empty. `image` (`bare` or `ready`) and `suite` are those of
    a container; its sshd is its own affair, and its agent's settings are read from it.
    """

    id: str
    name: str
    agent_version: str
    running: bool = True
    incoming_enabled: bool = True
    config_mode: str = "full"
    sshd_running: bool = True
    sshd_port: int = 22
    incoming_ports: list[str] = field(default_factory=list)
    image: str | None = None
    suite: str | None = None

    @property
    def can_listen(self) -> bool:
        """Does this agent know SSH over the relay at all (1.31 or later)?"""
        numbers = tuple(int(part) for part in re.findall(r"\d+", self.agent_version)[:2])
        return numbers >= MINIMUM_VERSION

    @property
    def listens(self) -> bool:
        """Is there a listener on the relay for this machine?"""
        return self.can_listen and self.running and self.incoming_enabled and self.config_mode.lower() != "monitor"

    def admits(self, port: int) -> bool:
        """Does the agent's own list of ports let this one pass?"""
        return not self.incoming_ports or str(port) in self.incoming_ports


def admitted_port(machine_id: str, headers: Mapping[str, str], secret: bytes, now: float) -> int:
    """The local port that this request may be connected to; AgentRefuses if its headers do not allow one."""
    try:
        token = sas.read_service_token(secret, headers.get("Service-Configuration-Token"), now)
    except sas.TokenRefused as refused:
        raise AgentRefuses(refused.status, refused.text) from None
    target = headers.get("Microsoft-Guestgateway-Target")
    if not target:
        raise AgentRefuses(400, "Microsoft-Guestgateway-Target is missing.")
    match = re.fullmatch(r"localhost:([0-9]{1,5})", target)
    if match is None:
        raise AgentRefuses(403, "Microsoft-Guestgateway-Target has to be localhost and a port.")
    port = int(match[1])
    if token.resource_id != machine_id:
        raise AgentRefuses(403, "Service configuration token is for another resource.")
    if token.port != port:
        raise AgentRefuses(403, f"Port {port} is not allowed by the service configuration {token.service_name}.")
    return port


class LocalStream(asyncio.Protocol):
    """One TCP connection from an agent to its machine: whole chunks as the kernel gives them, bounded both ways."""

    def __init__(self, write_ahead: int, port: int) -> None:
        self.port = port
        self._write_ahead = write_ahead
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._write_ahead)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return True

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended = True
        self.lost = self.lost or exc is not None
        self._wake()
        self.resume_writing()
        self.closed.set_result(None)

    def _wake(self) -> None:
        readable, self._readable = self._readable, None
        if readable is not None and not readable.done():
            readable.set_result(None)

    async def read(self) -> bytes:
        """The next chunk, or nothing at the end."""
        while not self._chunks:
            if self._ended:
                return b""
            self._readable = asyncio.get_running_loop().create_future()
            await self._readable
        chunk = self._chunks.popleft()
        was_full = self._size > READ_AHEAD
        self._size -= len(chunk)
        if was_full and self._size <= READ_AHEAD and self._transport is not None:
            self._transport.resume_reading()
        return chunk

    async def write(self, data: bytes) -> None:
        """Send; waits while more than the bound is still to be taken by the other side."""
        if self._transport is None:
            raise ConnectionResetError("The local connection is gone.")
        self._transport.write(data)
        if self._writable is not None:
            await self._writable

    def abort(self) -> None:
        """Cut it as if the machine had gone."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    async def close(self, timeout: float = 10.0) -> None:
        """Close; what was written is delivered first, unless the other side does not take it in `timeout` seconds."""
        if self._transport is not None:
            self._transport.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.closed), timeout)
        if self._transport is not None:
            self._transport.abort()


class Agents:
    """All agents of a lab and the sshd of their machines.

    `find` gives a machine by its lower-cased id, `None` if there is none; whoever changes a machine's flags does so
    before calling `start_machine` and its kin, which take care of processes and connections. `user` may log in to each
    machine with the key of `client_key`, except to a container that came without an SSH server.
    """

    def __init__(
        self,
        state_dir: Path,
        find: Callable[[str], Machine | None],
        user: str,
        containers: Containers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        state_dir = state_dir.resolve()
        self.find = find
        self.user = user
        self.client_key = sshd.client_key(state_dir)
        self._authorized_key = self.client_key.with_suffix(".pub").read_text()
        self._host_keys = sshd.HostKeys(state_dir)
        self._machines_dir = sshd.private_directory(state_dir / "machines")
        sshd.end_leftovers(self._machines_dir)
        self.containers = containers
        self._clock = clock
        self._servers: dict[str, sshd.SshServer] = {}
        self._listeners: dict[tuple[str, int], int] = {}
        self._streams: dict[str, set[LocalStream]] = {}
        self.started_at: dict[str, float] = {}

    def container(self, machine_id: str) -> Container | None:
        """The machine as a container, if it is one."""
        return self.containers.get(machine_id) if self.containers is not None else None

    def host_key_public(self, machine_id: str) -> str | None:
        """The machine's host key as `ssh-ed25519 AAAA..`; a container may have none yet."""
        if (container := self.container(machine_id)) is not None:
            return container.host_key()
        return sshd.openssh_public(self._host_keys.private(machine_id))

    def real_port(self, machine_id: str) -> int | None:
        """The loopback port of the machine's sshd, `None` while that is not started (see `start_sshd`)."""
        server = self._servers.get(machine_id.lower())
        return server.port if server is not None else None

    def add_listener(self, machine_id: str, port: int, real_port: int) -> None:
        """Let something else than sshd answer on `port` of this machine: what listens on 127.0.0.1:`real_port`."""
        self._listeners[machine_id.lower(), port] = real_port

    def trust_user_ca(self, machine: Machine, public_key: str | None) -> None:
        """Let the machine's sshd accept user certificates of this authority (OpenSSH public key); `None`: of none."""
        self._server(machine).trust_user_ca(public_key)

    async def start_machine(self, machine: Machine) -> None:
        """The agent is up again; its listener takes the relay's lag to appear."""
        if (container := self.container(machine.id)) is not None:
            await container.start()
        self.started_at[machine.id] = self._clock()

    async def stop_machine(self, machine: Machine) -> None:
        """The agent is down: what ran through it is cut; sshd ends too and comes back when it is needed."""
        self.cut(machine)
        if (container := self.container(machine.id)) is not None:
            await container.stop()
        await self._stop(machine.id, sessions=True)

    def cut(self, machine: Machine, *, all_ports: bool = True) -> None:
        """Cut what runs through the agent; or only connections to ports that it no longer admits."""
        for stream in list(self._streams.get(machine.id, ())):
            if all_ports or not machine.admits(stream.port):
                stream.abort()

    async def start_sshd(self, machine: Machine) -> int:
        """Start the machine's sshd now and return its real port, for a container the machine's own."""
        if (container := self.container(machine.id)) is not None:
            await container.shell("systemctl start ssh")
            return machine.sshd_port
        return await self._server(machine).start()

    async def stop_sshd(self, machine: Machine) -> None:
        """sshd no longer listens, the agent stays; sessions that are open go on, as on a Debian machine."""
        if (container := self.container(machine.id)) is not None:
            await container.shell("systemctl stop ssh.socket ssh.service")
        await self._stop(machine.id, sessions=False)

    async def forget(self, machine_id: str) -> None:
        """The machine is deleted: end everything that belongs to it."""
        machine_id = machine_id.lower()
        for stream in list(self._streams.pop(machine_id, ())):
            stream.abort()
        await self._stop(machine_id, sessions=True)
        self._servers.pop(machine_id, None)
        self.started_at.pop(machine_id, None)
        self._listeners = {key: real for key, real in self._listeners.items() if key[0] != machine_id}

    async def _stop(self, machine_id: str, *, sessions: bool) -> None:
        server = self._servers.get(machine_id)
        if server is not None:
            await server.stop(sessions=sessions)

    def _server(self, machine: Machine) -> sshd.SshServer:
        server = self._servers.get(machine.id)
        if server is None:
            server = sshd.SshServer(self._machines_dir, machine_id=machine.id, name=machine.name, user=self.user)
            server.prepare(self._host_keys.private(machine.id), self._authorized_key)
            self._servers[machine.id] = server
        return server

    async def dial(self, machine_id: str, port: int, write_ahead: int = WRITE_AHEAD) -> LocalStream:
        """Connect to `localhost:<port>` of the machine; AgentRefuses(503) if nothing listens there.

        `write_ahead` bounds, in bytes, what waits here for a machine that does not read.
        """
        refused = AgentRefuses(
            503, f"connection to localhost:{port} failed: dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
        machine = self.find(machine_id)
        if machine is None:
            raise refused
        real_port = self._listeners.get((machine_id, port))
        if real_port is None and (container := self.container(machine_id)) is not None:
            return await self._dial_container(container, machine_id, port, write_ahead, refused)
        if real_port is None:
            if not machine.sshd_running or port != machine.sshd_port:
                raise refused
            real_port = await self.start_sshd(machine)
        try:
            _transport, stream = await asyncio.get_running_loop().create_connection(
                lambda: LocalStream(write_ahead, port), "127.0.0.1", real_port
            )
        except OSError:
            raise refused from None
        return self._known(machine_id, stream)

    async def _dial_container(
        self, container: Container, machine_id: str, port: int, write_ahead: int, refused: AgentRefuses
    ) -> LocalStream:
        """The connection begins in the machine's own network, so that sshd sees it come from 127.0.0.1."""
        sock = await container.connect(port)
        if sock is None:
            raise refused
        _transport, stream = await asyncio.get_running_loop().create_connection(
            lambda: LocalStream(write_ahead, port), sock=sock
        )
        return self._known(machine_id, stream)

    def _known(self, machine_id: str, stream: LocalStream) -> LocalStream:
        streams = self._streams.setdefault(machine_id, set())
        streams.add(stream)
        stream.closed.add_done_callback(lambda _closed: streams.discard(stream))
        return stream

    async def close(self) -> None:
        """End every connection and every sshd."""
        for streams in self._streams.values():
            for stream in list(streams):
                stream.abort()
        await asyncio.gather(*(server.stop(sessions=True) for server in self._servers.values()))
        if self.containers is not None:
            await self.containers.close()
