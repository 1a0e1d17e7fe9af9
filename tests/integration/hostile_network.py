# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands between people and Azure?

Proxies that want a login, that look into TLS or are slow, and hosts whose network can be cut without anybody being told: a network
namespace with one cable to the lab's, in which nothing is shared with this computer's own network.
"""

from __future__ import annotations

import abc
import asyncio
import base64
import datetime
import ipaddress
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Coroutine
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HURRIED = pathlib.Path(__file__).with_name("hurried_helper.py")

PASSWORD = "p@ss:hunter2/%"
LOGIN = "me:p%40ss%3Ahunter2%2F%25"

# --- ssh --------------------------------------------------------------------------------------------------------------


def outcome(process: subprocess.Popen[bytes], data: bytes | None = None, within: float = 60) -> tuple[int, bytes, str]:
    """Exit status, what came and what was said; no secret is among it, nor anything for programmers."""
    try:
        out, said = process.communicate(data, timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    text = said.decode()
    for never in (
        "Traceback",
        "SharedAccessSignature",
        "hunter2",
        base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
    ):
        assert never not in text
    return process.returncode, out or b"", text


# --- proxies ----------------------------------------------------------------------------------------------------------


class Authority:
    """A CA whose certificate lies in `file`."""

    def __init__(self, directory: pathlib.Path, name: str) -> None:
        self.file = directory / f"{name}.pem"
        self._keys = directory / f"{name}-server.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = (
            self._build(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
            .add_extension(usage, True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def server_context(self, name: str) -> ssl.SSLContext:
        """For a server of this name or address."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            names = x509.DNSName(name)
        certificate = (
            self._build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([names]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self._keys.write_bytes(
            key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._keys)
        return context


class Server(abc.ABC):
    """Connections to `host`, passed on in a thread of its own; `passed` counts the bytes in both directions."""

    def __init__(self, host: str, context: ssl.SSLContext | None = None) -> None:
        self.passed = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, host, 0, ssl=context))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.serve(reader, writer)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), 5)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    @abc.abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Work on one connection."""

    async def join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: tuple[str, int],
        *,
        context: ssl.SSLContext | None = None,
        rate: float = float("inf"),
        delay: float = 0,
    ) -> None:
        """Copy between a client and `target`, both ways, until either has enough: `rate` in bytes/s, `delay` in s, each way."""
        far_reader, far_writer = await asyncio.open_connection(*target, ssl=context)
        ways = [
            asyncio.ensure_future(self._copy(source, sink, rate, delay))
            for source, sink in ((reader, far_writer), (far_reader, writer))
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float, delay: float
    ) -> None:
        slow = delay > 0 or rate < float("inf")
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(16)
        clock = self._loop.time

        async def receive() -> None:
            free = clock()
            data = b"something"
            while data:
                try:
                    data = await reader.read(4096 if slow else 65536)
                except OSError:
                    data = b""
                free = max(free, clock()) + len(data) / rate
                await under_way.put((free + delay, data))

        receiving = asyncio.ensure_future(receive())
        try:
            while True:
                due, data = await under_way.get()
                if slow:
                    await asyncio.sleep(due - clock())
                if not data:
                    return
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
        finally:
            receiving.cancel()


class Proxy(Server):
    """An HTTP proxy: with a login, slow, or looking into TLS with certificates of `inspector` and trusting the lab's CA `behind`."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        login: bool = False,
        rate: float = float("inf"),
        delay: float = 0,
        inspector: Authority | None = None,
        behind: str | None = None,
    ) -> None:
        self.targets: list[str] = []
        self._login = base64.b64encode(f"me:{PASSWORD}".encode()) if login else b""
        self._pace = {"rate": rate, "delay": delay}
        self._inspecting = inspector.server_context("127.0.0.1") if inspector else None
        self._trusting = ssl.create_default_context(cafile=behind) if inspector else None
        super().__init__(host)

    def url(self, login: str = "") -> str:
        return f"http://{login}@{self.authority}" if login else f"http://{self.authority}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if self._login and b"Proxy-Authorization: Basic " + self._login + b"\r\n" not in head:
            writer.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="egress"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
            )
            await writer.drain()
            return
        self.targets.append(head.split()[1].decode())
        host, _dummy, port = self.targets[-1].rpartition(":")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        if self._inspecting:
            await writer.start_tls(self._inspecting)
        await self.join(reader, writer, (host, int(port)), context=self._trusting, **self._pace)


class Front(Server):
    """A front of the relay under a name and an address of its own; `behind` is the lab's CA."""

    def __init__(self, host: str, context: ssl.SSLContext, target: tuple[str, int], behind: str) -> None:
        self._target = target
        self._trusting = ssl.create_default_context(cafile=behind)
        super().__init__(host, context)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.join(reader, writer, self._target, context=self._trusting)


# --- hosts ------------------------------------------------------------------------------------------------------------

_PREFIX = "arclab-net-"


def obstacle() -> str | None:
    """Why there can be no network namespaces here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    missing = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        return f"network namespaces need {' and '.join(missing)} (Debian: iproute2, util-linux)"
    probe = _PREFIX + f"{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return f"no network namespaces here: {done.stderr.strip()}" if done.returncode else None


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


class Host:
    """A network namespace with one cable to ours: `near` is our address on it, `far` the one of the host; of one family."""

    def __init__(self, family: int) -> None:
        _remove_orphans()
        number = os.getpid()
        self.name = f"{_PREFIX}{number}"
        self._cable = f"al{number}"
        if family == 4:
            # RFC 2544's network for tests of network devices, in pieces of four addresses.
            base = ipaddress.ip_address("198.18.0.0") + number % 16384 * 4
            self.near, self.far, length = str(base + 1), str(base + 2), 30
        else:
            net = f"fd5c:{number >> 16:x}:{number & 0xFFFF:x}:"
            self.near, self.far, length = f"{net}:1", f"{net}:2", 64
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", "name", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            swift = () if family == 4 else ("nodad",)
            for here, end, address in (((), self._cable, self.near), (("-n", self.name), "eth0", self.far)):
                _ip(*here, "address", "add", f"{address}/{length}", "dev", end, *swift)
                _ip(*here, "link", "set", end, "up")
            _ip("-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """From now on nothing arrives, and nobody is told: both ends send to a card that is nobody's."""
        for here, end, address in (((), self._cable, self.far), (("-n", self.name), "eth0", self.near)):
            _ip(*here, "neighbour", "replace", address, "lladdr", "02:00:00:00:00:01", "dev", end, "nud", "permanent")

    def within(self, hosts: pathlib.Path | None = None) -> list[str]:
        """What to put before a command that is to run there, with a file in the place of /etc/hosts if wanted."""
        there = ["nsenter", f"--net=/run/netns/{self.name}"]
        if hosts is None:
            return there
        bind = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return [*there, "unshare", "--mount", "sh", "-c", bind, str(hosts)]

    def close(self) -> None:
        # The cable goes at once; the namespace may live on until the last connection in it is forgotten.
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def _remove_orphans() -> None:
    """Nothing is left of tests that were killed."""
    for line in _ip("netns", "list").splitlines():
        found = re.match(rf"{_PREFIX}(\d+)\b", line)
        if found and not pathlib.Path("/proc", found[1]).exists():
            subprocess.run(["ip", "netns", "del", line.split()[0]], capture_output=True, check=False)
