# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When does the relay let us in, and what does its refusal mean?

One attempt: TCP, proxy, TLS, upgrade, bounded to ten seconds, since handshakes at the live relay stall now and then.
Around it the policy, a pure function: both 404 texts mean that the agent does not listen yet, 503 with `connection to
localhost` that sshd does not. Request, headers and texts are as Microsoft's troubleshooting guide for SSH over Arc, the
documentation of Azure Relay's hybrid connections protocol and aztunnel show them; there is no published contract.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time

from . import _proxy, _websocket
from ._credentials import ROLES
from ._tls import Tls, Trust, TrustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from .._errors import ArcError
    from ._credentials import Credentials

    class Source(Protocol):
        """Where credentials come from."""

        def current(self) -> Credentials: ...
        def renew(self, refused: Credentials) -> Credentials: ...


# Seconds that one attempt may take.
ATTEMPT = 10.0

# Attempts without an answer: nobody at the address, or nothing to be heard from there.
MOST_SILENT = 6

# Credentials this old (seconds) are fetched again after a 404: the hybrid connection may have got another name.
RENEW_AFTER = 15.0

_LONGEST_BODY = 8 * 1024

UNREACHABLE, SILENT, HTTP, PROXY, CERTIFICATE, SETTINGS, PROTOCOL = (
    "unreachable",
    "silent",
    "http",
    "proxy",
    "certificate",
    "settings",
    "protocol",
)


class Answer(Exception):
    """Why an attempt failed: `kind`, the HTTP status for the kinds HTTP and PROXY, and the text that came with it."""

    def __init__(self, kind: str, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.status = status

    def __str__(self) -> str:
        return f"{self.status} {self.text}".strip() if self.status else self.text


# --- policy -----------------------------------------------------------------------------------------------------------


class Retry:
    """Try again with the same credentials after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{value:g}' for value in vars(self).values())})"


class Refresh(Retry):
    """Try again with new credentials after `delay` seconds."""


class Stop(Retry):
    """Give up and tell the user."""

    def __init__(self) -> None:
        super().__init__(0)


def decide(
    answer: Answer, elapsed: float, refreshed: bool, budget: float, *, count: int, age: float
) -> Retry | Refresh | Stop:
    """What to do after `answer`.

    `elapsed` and `budget` in seconds since the first attempt; `refreshed`: credentials were renewed after a 401 or 403
    already; `count`: how many answers of this kind and status there were, this one included; `age`: seconds since Azure
    issued the credentials in use.
    """
    delay = min(2.0 ** (count - 1), 5.0)
    status = answer.status or 0
    if answer.kind == HTTP and status in (401, 403):
        return Stop() if refreshed else Refresh(0)
    if elapsed + delay > budget:
        return Stop()
    if answer.kind == HTTP:
        if status == 404:
            return Refresh(delay) if age >= RENEW_AFTER else Retry(delay)
        if is_sshd_down(answer) or (status < 500 and status not in (408, 429)):
            return Stop()
        return Retry(delay)
    if answer.kind in (UNREACHABLE, SILENT) or (answer.kind == PROXY and status in (0, 502, 503, 504)):
        return Retry(delay) if count < MOST_SILENT else Stop()
    return Stop()


def is_sshd_down(answer: Answer) -> bool:
    """The agent is there, but nothing accepted its connection on the machine."""
    return answer.kind == HTTP and answer.status == 503 and "connection to localhost" in answer.text.lower()


def explain(answer: Answer, machine: str, port: int, host: str) -> ArcError:
    """The last answer as a sentence with its remedy."""
    from .._errors import ArcError, ConnectionFailed, redact

    told = redact(str(answer))[:300].rstrip(". ")
    if answer.kind == HTTP:
        sentence, hint = _explain_status(answer, port)
        return ArcError(f"{machine}: {sentence} (the relay answers: {told}).", status=answer.status, hint=hint)
    hint = {
        UNREACHABLE: f"Check name resolution and that {host} may be reached; behind a proxy set HTTPS_PROXY.",
        SILENT: f"Check that firewall and proxy let WebSockets to {host} through, and try again.",
        PROXY: "Check HTTPS_PROXY, or exempt the relay with NO_PROXY.",
        CERTIFICATE: "If a proxy intercepts TLS or the cloud has a private CA, name its certificate in SSL_CERT_FILE.",
        SETTINGS: "Correct the environment variable.",
        PROTOCOL: "Something between here and Azure, such as a proxy, answers in the relay's place.",
    }[answer.kind]
    if answer.kind == PROXY and answer.status == 407:
        hint = "The proxy asks for a login: set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT."
    return ConnectionFailed(f"{machine}: cannot reach the relay {host}: {told}.", status=answer.status, hint=hint)


def _explain_status(answer: Answer, port: int) -> tuple[str, str]:
    status = answer.status or 0
    if is_sshd_down(answer):
        return (
            f"nothing listens on port {port} of the machine",
            "Start sshd there, or set the service configuration to sshd's port (arcfleet.ssh.arc_ssh_service_config).",
        )
    if status == 404 and "no listeners" in answer.text.lower():
        return (
            "the machine's agent is not connected to the relay",
            (
                "Check that the agent is Connected and runs (himds), that incomingconnections.enabled is true, and "
                "that the machine may reach *.servicebus.windows.net."
            ),
        )
    if status == 404:
        return (
            "the relay does not know the machine yet",
            (
                "If SSH was enabled just now, wait two minutes and connect again; else check that the agent is "
                "Connected and restart it."
            ),
        )
    if status in (401, 403):
        return (
            "the relay refuses newly issued credentials",
            f"Connecting needs one of the roles {ROLES} on the machine; check also the clock of this computer.",
        )
    if status in (429, 503) or status >= 500:
        return "the relay or the machine's agent cannot take the connection", "Connect again in a few minutes."
    return "the relay refuses the connection", "Connect again with --verbose and check the answer."


# --- the loop ---------------------------------------------------------------------------------------------------------


def connect(
    source: Source,
    machine: str,
    port: int,
    budget: float,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None],
    detail: Callable[[str], None],
    open_relay: Callable[..., tuple[Tls, bytes]] | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Tls, bytes]:
    """A WebSocket to the machine's `port`, and the first bytes that came over it. Raises ArcError.

    `budget`: seconds to keep trying. `say` tells the user why it takes long, `detail` one who asked for details.
    """
    attempt = open_relay or Dialler(environ).open
    started = clock()
    credentials = source.current()
    counts: dict[tuple[str, int | None], int] = {}
    refreshed = False
    while True:
        begun = clock()
        try:
            opened = attempt(credentials, port, begun + ATTEMPT)
        except Answer as exc:
            answer = exc
        else:
            detail(f"{machine}: connected through {credentials.host} in {clock() - begun:.2f} s.")
            return opened
        kind = answer.kind, answer.status
        counts[kind] = counts.get(kind, 0) + 1
        detail(f"{machine}: {credentials.host}: {answer}")
        decision = decide(
            answer,
            clock() - started,
            refreshed,
            budget,
            count=counts[kind],
            age=wall_clock() - credentials.obtained_on,
        )
        if isinstance(decision, Stop):
            raise explain(answer, machine, port, credentials.host)
        if counts[kind] == 1 and decision.delay:
            left = budget - (clock() - started)
            say(f"{machine}: {_short(answer)}; trying again for up to {left:.0f} s.")
        sleep(decision.delay)
        if isinstance(decision, Refresh):
            refreshed = refreshed or answer.status != 404
            credentials = source.renew(credentials)


def _short(answer: Answer) -> str:
    """An answer that is no failure yet, without the relay's tracking ids."""
    if answer.kind == HTTP:
        return "the relay answers " + str(answer).partition(" TrackingId")[0][:120].rstrip(". ")
    return str(answer)[:120].rstrip(". ")


# --- one attempt ------------------------------------------------------------------------------------------------------


class Dialler:
    """Opens WebSockets to relays. Once a front has refused P-384, it is not asked for that again."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._trust = Trust(environ)
        self._context: ssl.SSLContext | None = None
        self._is_wide = False

    def open(self, credentials: Credentials, port: int, deadline: float) -> tuple[Tls, bytes]:
        """One attempt, until `deadline` on time.monotonic(). Raises Answer."""
        try:
            return self._open(credentials, port, deadline)
        except _websocket.ProtocolError as exc:
            raise Answer(PROTOCOL, str(exc)) from exc
        except TrustError as exc:
            raise Answer(SETTINGS, str(exc)) from exc
        except TimeoutError as exc:
            raise Answer(SILENT, f"no answer within {ATTEMPT:g} s") from exc
        except ssl.SSLCertVerificationError as exc:
            raise Answer(CERTIFICATE, f"its certificate is not valid: {exc.verify_message}") from exc
        except ssl.SSLError as exc:
            raise Answer(SILENT, f"the TLS handshake failed: {exc.reason or exc}") from exc
        except OSError as exc:
            raise Answer(SILENT, f"the connection broke off: {exc.strerror or exc}") from exc

    def _open(self, credentials: Credentials, port: int, deadline: float) -> tuple[Tls, bytes]:
        host, _dummy, relay_port = credentials.host.partition(":")
        tls = self._handshake(host, int(relay_port or 443), deadline)
        try:
            early = _upgrade(tls, credentials, port, deadline)
        except BaseException:
            tls.close()
            raise
        tls.setblocking(False)
        return tls, early

    def _handshake(self, host: str, port: int, deadline: float) -> Tls:
        if self._context is None:
            self._context = self._trust.quick()
        try:
            return self._secure(host, port, self._context, deadline)
        except (ssl.SSLError, ConnectionError):
            if self._is_wide:
                raise
            self._context, self._is_wide = self._trust.wide(), True
            return self._secure(host, port, self._context, deadline)

    def _secure(self, host: str, port: int, context: ssl.SSLContext, deadline: float) -> Tls:
        tunnel = self._tunnel(host, port, deadline)
        try:
            tls = Tls(tunnel, context, host)
            _shake_hands(tls, deadline)
        except BaseException:
            tunnel.close()
            raise
        return tls

    def _tunnel(self, host: str, port: int, deadline: float) -> socket.socket | Tls:
        try:
            proxy = _proxy.choose(host, port, self._environ)
        except _proxy.ProxyUrlError as exc:
            raise Answer(SETTINGS, str(exc)) from exc
        if proxy is None:
            return _tcp(host, port, deadline)
        way: socket.socket | Tls = _tcp(proxy.host, proxy.port, deadline, f"the proxy {proxy}")
        try:
            if proxy.secure:
                way = Tls(way, self._trust.wide(), proxy.host)
                try:
                    _shake_hands(way, deadline)
                except ssl.SSLError as exc:
                    why = getattr(exc, "verify_message", None) or exc.reason or "closed"
                    raise Answer(PROXY, f"no TLS with the proxy {proxy} ({why})", 400) from exc
            _ask_proxy(way, proxy, host, port, deadline)
        except BaseException:
            way.close()
            raise
        return way


def _tcp(host: str, port: int, deadline: float, what: str = "the relay") -> socket.socket:
    try:
        # As bytes, the name spares the import of the IDNA codec.
        addresses = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as exc:
        raise Answer(UNREACHABLE, f"the name {host} cannot be resolved ({getattr(exc, 'strerror', exc)})") from exc
    failure: OSError | None = None
    for index, (family, kind, protocol, _name, address) in enumerate(addresses):
        made = socket.socket(family, kind, protocol)
        try:
            # An address that swallows packets must leave time for the next one.
            made.settimeout(_left(deadline) / (len(addresses) - index))
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as exc:
            made.close()
            failure = exc
    why = "no answer" if isinstance(failure, socket.timeout) else getattr(failure, "strerror", None) or failure
    raise Answer(UNREACHABLE, f"{what} cannot be connected to ({why})") from failure


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _shake_hands(tls: Tls, deadline: float) -> None:
    tls.settimeout(_left(deadline))
    while not tls.handshake():
        tls.settimeout(_left(deadline))


def _receive_head(way: socket.socket | Tls, deadline: float) -> tuple[bytes, bytes]:
    """The header block of an answer, and what came after it."""
    data = bytearray()
    view = memoryview(bytearray(16 * 1024))
    while True:
        head, end, rest = bytes(data).partition(b"\r\n\r\n")
        if end:
            return head, rest
        if len(data) > _websocket.LONGEST_HEAD:
            raise _websocket.ProtocolError("the answer has endless headers")
        way.settimeout(_left(deadline))
        count = way.recv_into(view)
        if not count:
            if data:
                raise _websocket.ProtocolError("the answer is incomplete or not HTTP")
            raise ConnectionResetError("closed without an answer")
        data += view[:count]


def _send(way: socket.socket | Tls, data: bytes, deadline: float) -> None:
    way.settimeout(_left(deadline))
    if isinstance(way, Tls):
        way.send(data)
        way.flush()
    else:
        way.sendall(data)


def _ask_proxy(way: socket.socket | Tls, proxy: _proxy.Proxy, host: str, port: int, deadline: float) -> None:
    try:
        _send(way, proxy.connect_request(host, port), deadline)
        block, rest = _receive_head(way, deadline)
        head = _websocket.parse_head(block)
    except _websocket.ProtocolError as exc:
        raise Answer(PROXY, f"the proxy {proxy} does not speak HTTP", 400) from exc
    except ConnectionError as exc:
        raise Answer(PROXY, f"the proxy {proxy} broke off") from exc
    if not 200 <= head.status < 300:
        raise Answer(PROXY, f"{head.reason} (from the proxy {proxy})", head.status)
    if rest:
        raise Answer(PROXY, f"the proxy {proxy} sends data of its own", 400)


def _upgrade(tls: Tls, credentials: Credentials, port: int, deadline: float) -> bytes:
    key = _websocket.new_key()
    path = f"/$hc/{credentials.hybrid_connection}?sb-hc-action=connect&sb-hc-id={_uuid4()}"
    request = _websocket.upgrade_request(
        credentials.host,
        path,
        key,
        {
            "ServiceBusAuthorization": credentials.access_key,
            "Service-Configuration-Token": credentials.service_token,
            "Microsoft-Guestgateway-Target": f"localhost:{port}",
            "User-Agent": "arcfleet.ssh",
        },
    )
    _send(tls, request, deadline)
    block, rest = _receive_head(tls, deadline)
    head = _websocket.parse_head(block)
    if head.status == 101:
        _websocket.check_upgrade(head, key)
        return rest
    body = _websocket.body_text(head, _receive_body(tls, head, rest, deadline))
    raise Answer(HTTP, _join(head.reason, body), head.status)


def _receive_body(tls: Tls, head: _websocket.Head, data: bytes, deadline: float) -> bytes:
    """What an error answer says, as far as it comes within a second."""
    length = head.headers.get("content-length", "")
    wanted = min(int(length), _LONGEST_BODY) if length.isdigit() else _LONGEST_BODY
    view = memoryview(bytearray(_LONGEST_BODY))
    patience = min(deadline, time.monotonic() + 1)
    try:
        while len(data) < wanted and not data.endswith(b"0\r\n\r\n"):
            tls.settimeout(_left(patience))
            count = tls.recv_into(view)
            if not count:
                break
            data += bytes(view[:count])
    except OSError:
        return data
    return data


def _join(reason: str, body: str) -> str:
    """The description stands in the status line, in the body, or in both."""
    if not body or body in reason:
        return reason
    plain = re.sub(r"^\d{3}[ :]+", "", body)
    return plain if not reason or reason in plain else f"{reason}: {plain}"


def _uuid4() -> str:
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
