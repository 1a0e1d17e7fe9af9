# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests get the lab's relay, agents and real sshd without the rest of the lab?

A tiny aiohttp application serves `Relay.handle` on a free loopback port, with TLS on request; machines are plain
objects that a test changes as it likes. Senders are clients of the `websockets` package.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import getpass
import ipaddress
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from arclab.agent import Agents, Machine
from arclab.relay import HybridConnection, Relay, RelayOptions

MACHINE_ID = (
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourcegroups/rg"
    "/providers/microsoft.hybridcompute/machines/web01"
)


def make_machine(machine_id: str = MACHINE_ID, **changes: Any) -> Machine:
    return replace(
        Machine(id=machine_id, name=machine_id.rpartition("/")[2], agent_version="1.55.03018.2901"), **changes
    )


def _certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "relay.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class RelayApp:
    """A running relay: what a test needs to dial it and to look behind it."""

    relay: Relay
    agents: Agents
    machines: dict[str, Machine]
    journal: list[dict[str, Any]]
    authority: str
    tls: ssl.SSLContext | None

    @property
    def base(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.authority}/$hc"

    def credentials(self, connection: HybridConnection, port: int = 22, expires_in: int = 600) -> dict[str, Any]:
        expires_on = int(time.time()) + expires_in
        return self.relay.credentials(
            connection, service_name="SSH", port=port, expires_on=expires_on, authority=self.authority
        )

    def headers(self, credentials: dict[str, Any], port: int = 22) -> dict[str, str]:
        return {
            "ServiceBusAuthorization": credentials["accessKey"],
            "Service-Configuration-Token": credentials["serviceConfigurationToken"],
            "Microsoft-Guestgateway-Target": f"localhost:{port}",
        }

    def url(self, name: str, **query: str) -> str:
        query = {"sb-hc-action": "connect", "sb-hc-id": str(uuid.uuid4()), **query}
        separator = "&" if "?" in name else "?"
        return f"{self.base}/{name}{separator}" + "&".join(f"{key}={value}" for key, value in query.items() if value)

    async def dial(self, connection: HybridConnection, port: int = 22, **options: Any) -> ClientConnection:
        """Connect as a sender of the wire protocol does."""
        headers = self.headers(self.credentials(connection, port), port)
        return await connect(
            self.url(connection.name),
            additional_headers=headers,
            ssl=self.tls,
            compression=None,
            proxy=None,
            max_size=None,
            **options,
        )

    async def refusal(self, url: str, headers: dict[str, str]) -> tuple[int, str, str]:
        """Status, reason phrase and body of an upgrade that must fail."""
        try:
            async with connect(url, additional_headers=headers, ssl=self.tls, proxy=None):
                raise AssertionError("the relay accepted this connection")
        except InvalidStatus as refused:
            response = refused.response
            return response.status_code, response.reason_phrase, (response.body or b"").decode()


@contextlib.asynccontextmanager
async def relay_app(tmp_path: Path, *machines: Machine, tls: bool = False, **options: Any) -> AsyncIterator[RelayApp]:
    known = {machine.id: machine for machine in machines or (make_machine(),)}
    journal: list[dict[str, Any]] = []
    agents = Agents(tmp_path / "state", known.get, getpass.getuser())
    listening = socket.create_server(("127.0.0.1", 0))
    authority = f"127.0.0.1:{listening.getsockname()[1]}"
    relay = Relay(agents, RelayOptions(authority=authority, secret=b"s" * 32, **options), journal.append)
    app = web.Application()
    app.router.add_get("/$hc/{path:.*}", relay.handle)
    server = client = None
    if tls:
        pem = _certificate(tmp_path)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(pem)
        client = ssl.create_default_context(cafile=str(pem))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listening, ssl_context=server).start()
    try:
        yield RelayApp(relay, agents, known, journal, authority, client)
    finally:
        await relay.close()
        await agents.close()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def local_server(handler: Any) -> AsyncIterator[int]:
    """A TCP server on loopback; the coroutine `handler(reader, writer)` serves each connection."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@contextlib.asynccontextmanager
async def forward(app: RelayApp, connection: HybridConnection, port: int = 22) -> AsyncIterator[int]:
    """A loopback port from which each connection goes through the relay, for clients that know only TCP."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with await app.dial(connection, port) as sender:

            async def up() -> None:
                while data := await reader.read(65536):
                    await sender.send(data)
                await sender.close()

            task = asyncio.create_task(up())
            with contextlib.suppress(ConnectionClosed, ConnectionError):
                async for message in sender:
                    writer.write(message if isinstance(message, bytes) else message.encode())
                    await writer.drain()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        writer.close()

    async with local_server(serve) as local:
        yield local
