# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When does the relay let us in, and what does its refusal mean?

A dial is TCP, proxy, TLS, upgrade. The live relay holds one upgrade in 10 to 40 for 3-7 s, whoever asks, and some for
ever (reported by aztunnel's maintainers), so a dial that takes long gets company: an attempt is a race of at most two,
bounded to ten seconds. Around it the policy, a pure function: both 404 texts mean that the agent does not listen yet,
503 with `connection to localhost` that sshd does not. Request, headers and texts are as Microsoft's troubleshooting
guide for SSH over Arc, the documentation of Azure Relay's hybrid connections protocol and aztunnel show them; there is
no published contract. Private to arcfleet.ssh.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import ssl
import time

from . import _proxy, _websocket
from ._credentials import ROLES
from ._tls import Tls, Trust, TrustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any, Protocol, Tuple, TypeVar

    from .._errors import ArcError
    from ._credentials import Credentials

    # What a dial has to wait for: a descriptor, events as poll knows them, and until when on time.monotonic().
    Wait = Tuple[int, int, float]
    Result = TypeVar("Result")
    Steps = Generator[Wait, None, Result]
    Opened = Tuple[Tls, bytes]

    class Source(Protocol):
        """Where credentials come from."""

        def current(self) -> Credentials: ...
        def renew(self, refused: Credentials) -> Credentials: ...


# Seconds that one attempt may take, and after which of them a second dial joins the first.
ATTEMPT = 10.0
SECOND_AFTER = 2.0

# Attempts without an answer: nobody at the address, or nothing to be heard from there.
MOST_SILENT = 6

# Credentials this old (seconds) are fetched again after a 404: the hybrid connection may have got another name.
RENEW_AFTER = 15.0

_LONGEST_BODY = 8 * 1024

# The names in a list of challenges (RFC 9110, 11.6.1): what stands where a parameter could, but has no value.
_SCHEME = r"(?:^|,)\s*([A-Za-z][A-Za-z0-9-]*)(?=\s+[^\s=]|\s*,|\s*$)"

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
        hint = (
            "The proxy asks for a login: set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT; if it does not take Basic, go "
            "through a local proxy that logs in to it."
        )
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
            (
                f"Connecting needs one of the roles {ROLES} on the machine, and a service configuration that allows "
                f"port {port}. Check also the clock of this computer."
            ),
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
            detail(f"{machine}: connected through {credentials.host} in {clock() - begun:.3f} s.")
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


def _wait(waiting: Mapping[Steps[Opened], Wait], until: float) -> list[Steps[Opened]]:
    """Those whose descriptor is ready or whose time is up."""
    poll = select.poll()
    for descriptor, events, deadline in waiting.values():
        poll.register(descriptor, events)
        until = min(until, deadline)
    ready = {descriptor for descriptor, _events in poll.poll(max(0.0, until - time.monotonic()) * 1000 + 1)}
    now = time.monotonic()
    return [one for one, (descriptor, _events, deadline) in waiting.items() if descriptor in ready or now >= deadline]


def race(
    dial: Callable[[], Steps[Opened]],
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[Mapping[Steps[Opened], Wait], float], list[Steps[Opened]]] = _wait,
) -> Opened:
    """The connection of whichever dial is let in first, where the second starts SECOND_AFTER the first. Raises Answer.

    A second dial can only help: a refusal that would be tried again anyway waits for what the other dial brings. Any
    other refusal ends the race. Whoever has not won is closed at once. `wait` gives those of the waiting dials that may
    go on, none if that takes until the time given.
    """
    waiting: dict[Steps[Opened], Wait] = {}
    refused: Answer | None = None
    ready, second_at = [dial()], None
    try:
        while True:
            for one in ready:
                waiting.pop(one, None)
                try:
                    waiting[one] = next(one)
                except StopIteration as won:
                    opened: Opened = won.value
                    return opened
                except Answer as answer:
                    if isinstance(decide(answer, 0, False, ATTEMPT, count=1, age=0), (Refresh, Stop)):
                        raise
                    if refused is None or answer.kind == HTTP:
                        refused = answer
            if refused is not None and not waiting:
                raise refused
            if second_at is None:
                # Not earlier: looking up the relay's name makes everything wait.
                second_at = clock() + SECOND_AFTER
            if clock() >= second_at:
                ready, second_at = [dial()], float("inf")
            else:
                ready = wait(waiting, second_at)
    finally:
        for one in waiting:
            one.close()


class Dialler:
    """Opens WebSockets to relays. Once a front has refused P-384, it is not asked for that again."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._trust = Trust(environ)
        self._context: ssl.SSLContext | None = None
        self._wide_context: ssl.SSLContext | None = None
        self._addresses: dict[tuple[str, int], list[tuple[int, int, int, str, Any]]] = {}

    def open(self, credentials: Credentials, port: int, deadline: float) -> Opened:
        """One attempt, until `deadline` on time.monotonic(). Raises Answer."""
        self._addresses.clear()
        return race(lambda: self._dial(credentials, port, deadline))

    def _dial(self, credentials: Credentials, port: int, deadline: float) -> Steps[Opened]:
        """All steps of one dial, never blocking but for the look-up of names. Raises Answer."""
        try:
            return (yield from self._open(credentials, port, deadline))
        except _websocket.ProtocolError as exc:
            raise Answer(PROTOCOL, str(exc)) from exc
        except TrustError as exc:
            raise Answer(SETTINGS, str(exc)) from exc
        except TimeoutError as exc:
            raise Answer(SILENT, f"no answer within {ATTEMPT:g} s") from exc
        except ssl.SSLCertVerificationError as exc:
            through = self._through(credentials)
            raise Answer(CERTIFICATE, f"its certificate is not valid{through}: {exc.verify_message}") from exc
        except ssl.SSLError as exc:
            raise Answer(SILENT, f"the TLS handshake failed: {exc.reason or exc}") from exc
        except OSError as exc:
            raise Answer(SILENT, f"the connection broke off: {exc.strerror or exc}") from exc

    def _through(self, credentials: Credentials) -> str:
        """Who may have put a certificate of its own in the place of the relay's."""
        proxy = _proxy.choose(*_relay_of(credentials), self._environ)
        return f" through the proxy {proxy}" if proxy else ""

    def _open(self, credentials: Credentials, port: int, deadline: float) -> Steps[Opened]:
        host, relay_port = _relay_of(credentials)
        tls = yield from self._handshake(host, relay_port, deadline)
        try:
            return tls, (yield from _upgrade(tls, credentials, port, deadline))
        except BaseException:
            tls.close()
            raise

    def _handshake(self, host: str, port: int, deadline: float) -> Steps[Tls]:
        if self._context is None:
            self._context = self._trust.quick()
        context = self._context
        try:
            return (yield from self._secure(host, port, context, deadline))
        except (ssl.SSLError, ConnectionError):
            if context is self._wide_context:
                raise
            self._context = self._wide()
            return (yield from self._secure(host, port, self._context, deadline))

    def _wide(self) -> ssl.SSLContext:
        if self._wide_context is None:
            self._wide_context = self._trust.wide()
        return self._wide_context

    def _secure(self, host: str, port: int, context: ssl.SSLContext, deadline: float) -> Steps[Tls]:
        tunnel = yield from self._tunnel(host, port, deadline)
        try:
            tls = Tls(tunnel, context, host)
            yield from _shake_hands(tls, deadline)
        except BaseException:
            tunnel.close()
            raise
        return tls

    def _tunnel(self, host: str, port: int, deadline: float) -> Steps[socket.socket | Tls]:
        try:
            proxy = _proxy.choose(host, port, self._environ)
        except _proxy.ProxyUrlError as exc:
            raise Answer(SETTINGS, str(exc)) from exc
        if proxy is None:
            return (yield from self._tcp(host, port, deadline))
        way: socket.socket | Tls = yield from self._tcp(proxy.host, proxy.port, deadline, f"the proxy {proxy}")
        try:
            if proxy.secure:
                way = Tls(way, self._wide(), proxy.host)
                try:
                    yield from _shake_hands(way, deadline)
                except ssl.SSLError as exc:
                    why = getattr(exc, "verify_message", None) or exc.reason or "closed"
                    raise Answer(PROXY, f"no TLS with the proxy {proxy} ({why})", 400) from exc
            yield from _ask_proxy(way, proxy, host, port, deadline)
        except BaseException:
            way.close()
            raise
        return way

    def _tcp(self, host: str, port: int, deadline: float, what: str = "the relay") -> Steps[socket.socket]:
        addresses = self._resolve(host, port)
        failure: OSError | None = None
        for index, (family, kind, protocol, _name, address) in enumerate(addresses):
            made = socket.socket(family, kind, protocol)
            try:
                made.setblocking(False)
                # An address that swallows packets must leave time for the next one.
                patience = _left(deadline) / (len(addresses) - index)
                yield from _connect(made, address, time.monotonic() + patience)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return made
            except OSError as exc:
                made.close()
                failure = exc
            except BaseException:
                made.close()
                raise
        why = "no answer" if isinstance(failure, TimeoutError) else getattr(failure, "strerror", None) or failure
        raise Answer(UNREACHABLE, f"{what} cannot be connected to ({why})") from failure

    def _resolve(self, host: str, port: int) -> list[tuple[int, int, int, str, Any]]:
        """The addresses of a name, looked up once for both dials of an attempt: it makes both of them wait."""
        if (host, port) not in self._addresses:
            try:
                # As bytes, the name spares the import of the IDNA codec.
                found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
            except (socket.gaierror, UnicodeError) as exc:
                why = getattr(exc, "strerror", exc)
                raise Answer(UNREACHABLE, f"the name {host} cannot be resolved ({why})") from exc
            self._addresses[host, port] = list(found)
        return self._addresses[host, port]


def _relay_of(credentials: Credentials) -> tuple[str, int]:
    host, _dummy, port = credentials.host.partition(":")
    return host, int(port or 443)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _until(way: socket.socket | Tls, events: int, deadline: float) -> Steps[None]:
    """Wait for `way`; whether something came is for the caller to find out. Raises TimeoutError."""
    _left(deadline)
    yield way.fileno(), events, deadline


def _connect(made: socket.socket, address: Any, deadline: float) -> Steps[None]:
    while True:
        status = made.connect_ex(address)
        if status in (0, errno.EISCONN):
            return
        if status not in (errno.EINPROGRESS, errno.EALREADY):
            raise OSError(status, os.strerror(status))
        yield from _until(made, select.POLLOUT, deadline)


def _shake_hands(tls: Tls, deadline: float) -> Steps[None]:
    while True:
        try:
            if tls.handshake():
                return
        except BlockingIOError:
            yield from _until(tls, select.POLLIN, deadline)


def _receive(way: socket.socket | Tls, view: memoryview, deadline: float) -> Steps[int]:
    while True:
        try:
            return way.recv_into(view)
        except BlockingIOError:
            yield from _until(way, select.POLLIN, deadline)


def _receive_head(way: socket.socket | Tls, deadline: float) -> Steps[tuple[bytes, bytes]]:
    """The header block of an answer, and what came after it."""
    data = bytearray()
    view = memoryview(bytearray(16 * 1024))
    while True:
        head, end, rest = bytes(data).partition(b"\r\n\r\n")
        if end:
            return head, rest
        if len(data) > _websocket.LONGEST_HEAD:
            raise _websocket.ProtocolError("the answer has endless headers")
        count = yield from _receive(way, view, deadline)
        if not count:
            if data:
                raise _websocket.ProtocolError("the answer is incomplete or not HTTP")
            raise ConnectionResetError("closed without an answer")
        data += view[:count]


def _send(way: socket.socket | Tls, data: bytes, deadline: float) -> Steps[None]:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[way.send(rest) :]
        except BlockingIOError:
            yield from _until(way, select.POLLOUT, deadline)
    while isinstance(way, Tls) and not way.flush():
        yield from _until(way, select.POLLOUT, deadline)


def _ask_proxy(way: socket.socket | Tls, proxy: _proxy.Proxy, host: str, port: int, deadline: float) -> Steps[None]:
    try:
        yield from _send(way, proxy.connect_request(host, port), deadline)
        block, rest = yield from _receive_head(way, deadline)
        head = _websocket.parse_head(block)
    except _websocket.ProtocolError as exc:
        raise Answer(PROXY, f"the proxy {proxy} does not speak HTTP", 400) from exc
    except ConnectionError as exc:
        raise Answer(PROXY, f"the proxy {proxy} broke off") from exc
    if not 200 <= head.status < 300:
        taken = re.findall(_SCHEME, head.headers.get("proxy-authenticate", ""))
        takes = f", which takes {' or '.join(taken)}" if head.status == 407 and taken else ""
        raise Answer(PROXY, f"{head.reason} (from the proxy {proxy}{takes})", head.status)
    if rest:
        raise Answer(PROXY, f"the proxy {proxy} sends data of its own", 400)


def _upgrade(tls: Tls, credentials: Credentials, port: int, deadline: float) -> Steps[bytes]:
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
    yield from _send(tls, request, deadline)
    block, rest = yield from _receive_head(tls, deadline)
    head = _websocket.parse_head(block)
    if head.status == 101:
        _websocket.check_upgrade(head, key)
        return rest
    body = _websocket.body_text(head, (yield from _receive_body(tls, head, rest, deadline)))
    raise Answer(HTTP, _join(head.reason, body), head.status)


def _receive_body(tls: Tls, head: _websocket.Head, data: bytes, deadline: float) -> Steps[bytes]:
    """What an error answer says, as far as it comes within a second."""
    length = head.headers.get("content-length", "")
    wanted = min(int(length), _LONGEST_BODY) if length.isdigit() else _LONGEST_BODY
    view = memoryview(bytearray(_LONGEST_BODY))
    patience = min(deadline, time.monotonic() + 1)
    try:
        while len(data) < wanted and not data.endswith(b"0\r\n\r\n"):
            count = yield from _receive(tls, view, patience)
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
