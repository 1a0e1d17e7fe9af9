# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With whom does the helper talk in its unit tests?

A TLS server that does what a test tells it, frame by frame, and hardly anything on its own: it has to be able to
misbehave.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import pathlib
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _credentials

HELPER = pathlib.Path(_credentials.__file__).with_name("_start.py")
MACHINE = (
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/"
    "Microsoft.HybridCompute/machines/web01"
)
CONNECTION = "microsoft.hybridcompute/machines/" + "ab" * 32 + "/1745492868632290560/v2"
ACCESS_KEY = "SharedAccessSignature sr=relay&sig=HUSH1&se=1&skn=key"
SERVICE_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzZWNyZXQiOjJ9.HUSH2"


class Authority:
    """A CA of one test run, with a server certificate for loopback."""

    def __init__(self, directory: pathlib.Path, name: str) -> None:
        self.file = directory / f"{name}.pem"
        self.chain = directory / f"{name}-server.pem"
        key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)

        def build(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(issuer)
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1))
            )

        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        ca = (
            build(issuer, key.public_key())
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(usage, True)
            .sign(key, hashes.SHA256())
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        server = (
            build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")]), server_key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        self.file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self.chain.write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + server.public_bytes(serialization.Encoding.PEM)
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context


class Peer:
    """One accepted connection, from the server's side."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self.stream = stream
        self.head = b""
        self._rest = b""

    def read_request(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.stream.recv(65536)
            if not part:
                raise ConnectionError
            data += part
        self.head, _dummy, self._rest = data.partition(b"\r\n\r\n")

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode().split("\r\n")[1:]
        return {name.lower(): value for name, _dummy, value in (line.partition(": ") for line in lines)}

    def accept(self, more: bytes = b"") -> None:
        key = self.headers["sec-websocket-key"].encode()
        proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.stream.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n" + more
        )

    def refuse(self, status: int, text: str) -> None:
        self.stream.sendall(f"HTTP/1.1 {status} {text}\r\nContent-Length: 0\r\n\r\n".encode())

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            part = self.stream.recv(65536)
            if not part:
                raise ConnectionError
            self._rest += part
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def read_body(self) -> bytes:
        """The body of the request that was read."""
        return self._take(int(self.headers["content-length"]))

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.stream.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload; a client's frame must be masked and whole."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80
        assert second & 0x80
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(self._take(2), "big")
        assert length <= 32 * 1024
        key, data = self._take(4), self._take(length)
        return first & 0x0F, bytes(byte ^ key[index & 3] for index, byte in enumerate(data))


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bool = False, reserved: int = 0) -> bytes:
    """A server's frame, faulty if that is wanted."""
    length = len(payload)
    head = bytes([final << 7 | reserved | opcode])
    bit = 0x80 if mask else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + length.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if mask else b"") + payload


def close_frame(code: int | None, reason: bytes = b"") -> bytes:
    return frame(8, b"" if code is None else code.to_bytes(2, "big") + reason)


Script = Callable[[Peer], None]


class RelayDouble:
    """Runs `script` for each connection that gets as far as a request."""

    def __init__(self, context: ssl.SSLContext, script: Script) -> None:
        self.requests: list[Peer] = []
        self.failures: list[BaseException] = []
        self.handshakes = 0
        self._context = context
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _dummy = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self.handshakes += 1
        try:
            with self._context.wrap_socket(connection, server_side=True) as stream:
                self._connections.append(stream)
                peer = Peer(stream)
                peer.read_request()
                self.requests.append(peer)
                self._script(peer)
        except OSError:
            pass
        except BaseException as exc:  # noqa: BLE001 - the test reports it
            self.failures.append(exc)

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        assert not self.failures, self.failures


def bridge(one: socket.socket, other: socket.socket) -> None:
    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    threading.Thread(target=copy, args=(one, other), daemon=True).start()
    threading.Thread(target=copy, args=(other, one), daemon=True).start()


class ProxyDouble:
    """An HTTP proxy that knows CONNECT, with a login and TLS if wanted."""

    def __init__(self, *, login: str | None = None, context: ssl.SSLContext | None = None, answer: bytes = b"") -> None:
        self.targets: list[str] = []
        self._login = login
        self._context = context
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                client, _dummy = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            stream = self._context.wrap_socket(client, server_side=True) if self._context else client
            data = b""
            while b"\r\n\r\n" not in data:
                data += stream.recv(4096)
        except OSError:
            return
        self.targets.append(data.split()[1].decode())
        if self._answer:
            stream.sendall(self._answer)
            stream.close()
        elif self._login and f"Proxy-Authorization: {self._login}".encode() not in data:
            stream.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            stream.close()
        else:
            host, _dummy, port = self.targets[-1].partition(":")
            relay = socket.create_connection((host, int(port)))
            stream.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if isinstance(stream, ssl.SSLSocket):
                _bridge_tls(stream, relay)
            else:
                bridge(stream, relay)

    def close(self) -> None:
        self._listener.close()


def _bridge_tls(stream: ssl.SSLSocket, relay: socket.socket) -> None:
    """In one thread, as a TLS connection may not be used by two."""
    while True:
        ready = [stream] if stream.pending() else select.select([stream, relay], [], [], 5)[0]
        if not ready:
            return
        for source, sink in ((stream, relay), (relay, stream)):
            if source in ready:
                data = source.recv(65536)
                if not data:
                    return
                sink.sendall(data)


def make_credentials(port: int = 443, *, now: float | None = None, life: int = 10800) -> _credentials.Credentials:
    now = time.time() if now is None else now
    relay = {
        "namespaceName": "127",
        "namespaceNameSuffix": f"0.0.1:{port}",
        "hybridConnectionName": CONNECTION,
        "accessKey": ACCESS_KEY,
        "expiresOn": int(now) + life,
        "serviceConfigurationToken": SERVICE_TOKEN,
    }
    return _credentials.parse({"relay": relay}, "web01", now)


def prefill(directory: pathlib.Path, credentials: _credentials.Credentials, machine: str = MACHINE) -> None:
    """Leave credentials in the cache, as a helper before would have done."""
    directory.mkdir(mode=0o700, exist_ok=True)
    file = directory / _credentials.file_name(machine.lower(), "SSH", "AzureCloud")
    content = {
        "version": 1,
        "subject": [machine.lower(), "SSH", "azurecloud"],
        "obtained_on": credentials.obtained_on,
        "relay": credentials.relay(),
    }
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        json.dump(content, handle)


class Helper:
    """The helper as ssh runs it."""

    def __init__(self, directory: pathlib.Path, authority: Authority) -> None:
        self.cache = directory / "relay"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "SSL_CERT_FILE": str(authority.file),
            "AZURE_CLIENT_ID": "client",
            "AZURE_TENANT": "tenant",
            "AZURE_SECRET": "HUSH3",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, port: int | None = None, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        if port is not None:
            prefill(self.cache, make_credentials(port))
        command = [
            sys.executable,
            str(HELPER),
            "--resource-id",
            MACHINE,
            "--port",
            "22",
            "--cache-dir",
            str(self.cache),
        ]
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            pass_fds=pass_fds,
        )
        self.processes.append(process)
        return process

    def run(self, *options: str, port: int | None = None, data: bytes = b"") -> tuple[int, bytes, str]:
        """Exit status, stdout and stderr; nothing secret may be in what is said."""
        process = self.start(*options, port=port)
        out, said = process.communicate(data, timeout=30)
        text = said.decode()
        assert "HUSH" not in text
        assert "--verbose" in options or "Traceback" not in text
        return process.returncode, out, text
