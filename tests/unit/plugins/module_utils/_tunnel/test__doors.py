# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do connections wait for the tunnel, but not for ever, and is the end of ssh never taken for the end of the data?"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ConnectionFailed
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel import _doors
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._doors import Door, private_directory, through_relay
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._listening import at_port


class Link:
    """ssh, as a test says."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def stands(self) -> bool:
        return self.up.is_set()

    async def wait(self) -> asyncio.Future[int]:
        await self.up.wait()
        return self.ended


class Site:
    """A door to a socket where `answer` serves, and what was said."""

    def __init__(self, link: Link, port: int, said: list[str]) -> None:
        self.link = link
        self.port = port
        self.said = said
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer


def at_door(test: Callable[[Site], Awaitable[None]], answer: Callable[..., Awaitable[None]]) -> None:
    async def run() -> None:
        with private_directory() as directory:
            path = os.path.join(directory, "0")
            server = await asyncio.start_unix_server(answer, path)
            listening = at_port("127.0.0.1", 0)
            said: list[str] = []
            link: Any = Link()
            door = Door(link, path, "127.0.0.1:1", said.append)
            await door.open(listening.sockets)
            site = Site(link, listening.port, said)
            try:
                await asyncio.wait_for(test(site), 30)
            finally:
                for writer in site.writers:
                    writer.close()
                await door.close()
                listening.close()
                server.close()

    asyncio.run(run())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.close()


async def greet_and_leave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"half")
    writer.close()


def test_who_comes_too_early_waits_and_loses_nothing() -> None:
    async def test(site: Site) -> None:
        connections = [await site.connect() for _number in range(3)]
        for _reader, writer in connections:
            writer.write(b"early")
            writer.write_eof()
        while not site.said:
            await asyncio.sleep(0.01)
        site.link.up.set()
        for reader, writer in connections:
            assert await reader.read() == b"early"
            writer.close()
        # Once for all of them.
        assert site.said == ["127.0.0.1:1: connections wait for the tunnel, up to 60 s."]

    at_door(test, echo)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doors, "PATIENCE", 0.1)

    async def test(site: Site) -> None:
        reader, _writer = await site.connect()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert site.said[-1] == "127.0.0.1:1: a connection was ended; there was no tunnel for 0 s."

    at_door(test, echo)


def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doors, "MOST_WAITING", 1)

    async def test(site: Site) -> None:
        patient, writer = await site.connect()
        while not site.said:
            await asyncio.sleep(0.01)
        reader, _writer = await site.connect()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.write_eof()
        site.link.up.set()
        assert await patient.read() == b""

    at_door(test, echo)


def test_an_end_with_ssh_is_no_end_of_the_data() -> None:
    async def test(site: Site) -> None:
        site.link.up.set()
        reader, _writer = await site.connect()
        assert await reader.read() == b"half"
        site.link.ended.set_result(255)
        reader, _writer = await site.connect()
        with pytest.raises(ConnectionResetError):
            await reader.read()

    at_door(test, greet_and_leave)


def test_the_directory_is_private_and_short_and_goes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "a b"))
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr(_doors.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 100)))
    (tmp_path / ("x" * 100)).mkdir()
    with private_directory() as directory:
        assert directory.startswith("/tmp/arcfleet-")
        assert os.stat(directory).st_mode & 0o777 == 0o700
    assert not os.path.exists(directory)
    monkeypatch.setattr(_doors.os.path, "isdir", lambda _path: False)
    with pytest.raises(ArcError, match="Let TMPDIR name one"), private_directory():
        pass


def test_a_machine_without_the_service_is_told_before_anything_is_offered() -> None:
    offered = []

    async def meanwhile() -> int:
        offered.append(True)
        return 0

    async def run() -> int:
        listening = at_port("127.0.0.1", 0)
        try:
            return await through_relay(["false"], "win01", listening, meanwhile)
        finally:
            listening.close()

    with pytest.raises(ConnectionFailed, match="win01: there is no tunnel"):
        asyncio.run(run())
    assert offered == []
