# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a connection to one of our ports?

It is led through ssh's socket for the same target, or to a relay helper of its own where there is no ssh (Windows Admin Center). While ssh
connects again it waits, for a while: a program that may wait a minute is spared an error. Private to arcfleet.ssh.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import struct
import tempfile

from .._errors import ArcError, ConnectionFailed
from ._link import Link, end
from ._listening import LONGEST_PATH
from ._splice import reset, splice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from typing import Any

    from ._destination import Destination
    from ._listening import Listening

# How long (seconds) a connection waits for the tunnel, and how many may.
PATIENCE = 60.0
MOST_WAITING = 256
# Helpers at once, each of which is a process; what comes then waits for one to end.
_MOST_HELPERS = 64
_AGAIN = 0.05
# Characters that mean nothing to ssh in a path, and room for a name in it.
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_ROOM = 24


@contextlib.contextmanager
def private_directory() -> Iterator[str]:
    """A directory for sockets that is gone afterwards. Raises ArcError where there is no place for one."""
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):
        if os.path.isdir(base) and _PLAIN.fullmatch(base) and len(base) + _ROOM <= LONGEST_PATH:
            with contextlib.suppress(OSError):
                directory = tempfile.mkdtemp(prefix="arcfleet-", dir=base)
                break
    else:
        raise ArcError("There is no directory for sockets.", hint="Let TMPDIR name one with a short and plain name.")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def through_ssh(
    destination: Destination,
    doors: Sequence[tuple[Listening, str]],
    say: Callable[[str], None],
    meanwhile: Callable[[], Awaitable[int]],
) -> int:
    """Lead each of `doors`, (what listens, target), through one ssh until `meanwhile`, begun once that stands, has a result.

    Raises ConnectionFailed for a machine that refuses, InputError where ssh cannot be run.
    """
    with private_directory() as directory:
        paths = [os.path.join(directory, str(number)) for number in range(len(doors))]
        command = destination.tunnel([(path, target) for path, (_listening, target) in zip(paths, doors)])
        link = Link(command, paths, destination.name, say)
        served = [Door(link, path, listening.name, say) for path, (listening, _target) in zip(paths, doors)]

        async def wait_and_do() -> int:
            await link.wait()
            return await meanwhile()

        try:
            for door, (listening, _target) in zip(served, doors):
                await door.open(listening.sockets)
            return await _first(link.keep(), wait_and_do())
        finally:
            for door in served:
                await door.close()


class Door:
    """A port of ours, called `name` in sentences, that leads to ssh's socket at `path`."""

    def __init__(self, link: Link, path: str, name: str, say: Callable[[str], None]) -> None:
        self._link = link
        self._path = path
        self._name = name
        self._say = say
        self._waiting = 0
        self._servers: list[asyncio.AbstractServer] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept what comes."""
        for one in sockets:
            start = asyncio.start_unix_server if one.family == socket.AF_UNIX else asyncio.start_server
            self._servers.append(await start(self._come, sock=one))

    async def close(self) -> None:
        """Accept nothing more and end what goes on."""
        for server in self._servers:
            server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _come(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            found = await self._through()
            if found is None:
                reset(writer)
                return
            ssh, ended = found
            try:
                await splice((reader, writer), ssh, ended)
            finally:
                ssh[1].close()
        except asyncio.CancelledError:
            reset(writer)
        finally:
            writer.close()

    async def _through(self) -> tuple[tuple[StreamReader, StreamWriter], asyncio.Future[int]] | None:
        """A connection to ssh, and what is done when ssh is gone; `None` when there is none for too long."""
        if not self._link.stands:
            if self._waiting >= MOST_WAITING:
                return None
            if not self._waiting:
                self._say(f"{self._name}: connections wait for the tunnel, up to {PATIENCE:.0f} s.")
        self._waiting += 1
        try:
            return await asyncio.wait_for(self._connect(), PATIENCE)
        except asyncio.TimeoutError:
            self._say(f"{self._name}: a connection was ended; there was no tunnel for {PATIENCE:.0f} s.")
            return None
        finally:
            self._waiting -= 1

    async def _connect(self) -> tuple[tuple[StreamReader, StreamWriter], asyncio.Future[int]]:
        while True:
            ended = await self._link.wait()
            try:
                return await asyncio.open_unix_connection(self._path), ended
            except OSError:
                # It has just gone, or its socket is not ready yet.
                await asyncio.sleep(_AGAIN)


async def through_relay(
    command: Sequence[str],
    name: str,
    listening: Listening,
    meanwhile: Callable[[], Awaitable[int]],
) -> int:
    """Lead each connection to a process of `command`, the relay helper, until `meanwhile` has a result.

    It begins when a first connection to the machine, called `name`, was possible. Raises ConnectionFailed where it is not.
    """
    first = await _helper(command, asyncio.subprocess.DEVNULL)
    if first:
        raise ConnectionFailed(f"{name}: there is no tunnel.", hint="See what the relay helper says above.")
    room = asyncio.Semaphore(_MOST_HELPERS)
    serving: set[asyncio.Task[None]] = set()

    async def serve(connection: socket.socket) -> None:
        with contextlib.closing(connection):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with room:
                status = await _helper(command, connection)
            if status:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def accept(one: socket.socket) -> int:
        while True:
            try:
                connection, _place = await asyncio.get_running_loop().sock_accept(one)
            except OSError:
                # Too many files are open, or who came has left.
                await asyncio.sleep(_AGAIN)
                continue
            task = asyncio.ensure_future(serve(connection))
            serving.add(task)
            task.add_done_callback(serving.discard)

    try:
        return await _first(meanwhile(), *(accept(one) for one in listening.sockets))
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _helper(command: Sequence[str], connection: Any) -> int:
    """Run the relay helper on a connection; its exit status."""
    process = await asyncio.create_subprocess_exec(*command, stdin=connection, stdout=connection)
    try:
        return await process.wait()
    finally:
        await end(process)


async def _first(*works: Awaitable[Any]) -> int:
    """The result of what ends first; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return int(next(task for task in tasks if task.done()).result())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
