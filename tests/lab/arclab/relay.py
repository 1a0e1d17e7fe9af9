# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a sender's websocket reach a listener, and what is it told when it cannot?

Azure Relay's hybrid connections as the public protocol guide documents them (senders, listeners, rendezvous), with the
three headers, the error texts and the timing that were observed with Azure Arc. Behind a connection of a machine stands
the lab's own agent, in this process; any other connection waits for a listener that dials in.

Choices where nothing is documented: an idle connection is closed with 1011, since of the documented codes only that one
means "the service, not you"; a listener that does not come within 30 s is a 504, as for HTTP requests; an established
connection outlives its token, as the guide says of listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlencode

from aiohttp import WSCloseCode, WSMsgType, web

from . import sas
from .agent import AgentRefuses, Agents, LocalStream, admitted_port

# Of the live relay no limit is known; a whole message is held in memory once here.
MAX_MESSAGE = 16 << 20
# What waits here for a side that does not read. With what the kernel's buffers hold (some 11 MiB on loopback), a sender
# stalls at about 15 MiB in profile `live`; the real relay was seen to stall it at 14-16 MiB.
PLAIN_AHEAD = 1 << 20
LIVE_AHEAD = 4 << 20
RENDEZVOUS_TIMEOUT = 30.0
MAX_LISTENERS = 25
CLOSE_TIMEOUT = 10.0
STALL_TIMEOUT = 120.0
_LOOK_AGAIN = 1.0

NO_ENDPOINT = "Endpoint does not exist."
NO_LISTENERS = "There are no listeners connected for the endpoint."

Journal = Callable[[dict[str, Any]], None]


@dataclass
class HybridConnection:
    """One hybrid connection: `machine_id` is a lower-cased resource id, `None` where an external listener is awaited.

    Its one rule confers Send; for a connection without a machine also Listen.
    """

    name: str
    machine_id: str | None
    key_name: str
    key: str
    created_at: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> HybridConnection:
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class RelayOptions:
    """`authority` is the relay's host and port, `secret` (32 bytes or more) signs service tokens; times in seconds.

    `listener_lag`: a new connection is unknown for the first half of it and without listener for the second. Profile
    `live` answers as slowly as the real relay, from a random sequence that `seed` fixes.
    """

    authority: str
    secret: bytes = field(repr=False)
    listener_lag: float = 0.0
    idle_timeout: float = 120.0
    profile: Literal["plain", "live"] = "plain"
    seed: int = 0


class _Refused(Exception):
    """The upgrade is answered with this status; the text is reason phrase and body, `tracked` adds the tracking id."""

    def __init__(self, status: int, text: str, *, tracked: bool = True, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.tracked = tracked
        self.headers = headers


class _Stalled(Exception):
    """The upgrade is never answered."""


@dataclass
class _Call:
    """One request to the relay, without its secrets."""

    path: str
    action: str
    id: str
    target: str | None
    connection: HybridConnection | None = None


class _End:
    """Lets others end a websocket: with a close code and a reason, or without a word (`code` None)."""

    def __init__(self, connection: HybridConnection) -> None:
        self.connection = connection
        self.touched = asyncio.get_running_loop().time()
        self.asked: asyncio.Future[tuple[int | None, str]] = asyncio.get_running_loop().create_future()

    def ask(self, code: int | None, reason: str) -> None:
        if not self.asked.done():
            self.asked.set_result((code, reason))

    def touch(self) -> None:
        self.touched = asyncio.get_running_loop().time()


class _Listener(_End):
    """The control channel of one external listener."""

    def __init__(self, connection: HybridConnection, request: web.Request, socket: web.WebSocketResponse) -> None:
        super().__init__(connection)
        self.base = f"{'wss' if request.secure else 'ws'}://{request.host}/$hc"
        self.socket = socket
        self.offered = 0


@dataclass
class _Rendezvous:
    """One offer to an external listener: it comes with a websocket or with a rejection; `over` ends the websocket."""

    connection: HybridConnection
    answer: asyncio.Future[web.WebSocketResponse | _Refused]
    over: asyncio.Future[None]


def _printable(text: str) -> str:
    """Text as a reason phrase may carry it."""
    return re.sub(r"[^\x20-\x7e]", "?", text)


def _protocols(request: web.Request) -> list[str]:
    """The subprotocols that a client offers."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    return [protocol.strip() for protocol in offered if protocol.strip()]


def _socket(*protocols: str) -> web.WebSocketResponse:
    """A websocket of the relay: no compression, pings shown to us because they keep it alive."""
    return web.WebSocketResponse(
        compress=False,
        autoping=False,
        max_msg_size=MAX_MESSAGE,
        timeout=CLOSE_TIMEOUT,
        protocols=protocols,
    )


def _require_upgrade(request: web.Request) -> None:
    if request.headers.get("Sec-WebSocket-Version", "13") != "13" or "websocket" not in (
        part.strip().lower() for part in request.headers.get("Upgrade", "").split(",")
    ):
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        raise _Refused(426, "Upgrade Required", tracked=False, headers=headers)
    if not _socket(*_protocols(request)).can_prepare(request):
        raise _Refused(400, "Bad Request", tracked=False)


async def _close(request: web.Request, socket: web.WebSocketResponse, code: int | None, reason: str) -> None:
    """Close with `code`, giving queued data time to arrive, or cut the connection if there is none."""
    if code is not None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(socket.close(code=code, message=reason.encode()[:120]), 2 * CLOSE_TIMEOUT)
            return
    if request.transport is not None:
        request.transport.abort()


async def _receive(
    source: web.WebSocketResponse, end: _End, sink: Callable[[bytes, WSMsgType], Awaitable[None]]
) -> None:
    """Pass on what `source` sends until it closes; its pings are answered here."""
    while True:
        message = await source.receive()
        end.touch()
        if message.type is WSMsgType.BINARY:
            await sink(message.data, message.type)
        elif message.type is WSMsgType.TEXT:
            await sink(message.data.encode(), message.type)
        elif message.type is WSMsgType.PING:
            await source.pong(message.data)
        elif message.type is not WSMsgType.PONG:
            return


async def _deliver(source: LocalStream, end: _End, sink: web.WebSocketResponse) -> None:
    """Pass on what the machine sends until it closes, as binary messages."""
    while chunk := await source.read():
        end.touch()
        await sink.send_bytes(chunk)


class Relay:
    """The relay of a lab: `handle` serves `GET /$hc/{path:.*}`, `connections` are known by lower-cased names."""

    def __init__(
        self, agents: Agents, options: RelayOptions, journal: Journal, clock: Callable[[], float] = time.time
    ) -> None:
        self.agents = agents
        self.options = options
        self.connections: dict[str, HybridConnection] = {}
        self._minted: dict[str, str] = {}
        self._journal = journal
        self._clock = clock
        self._random = random.Random(options.seed)
        self._streams: set[_End] = set()
        self._listeners: dict[str, list[_Listener]] = {}
        self._rendezvous: dict[str, _Rendezvous] = {}
        self._handlers: set[asyncio.Task[Any]] = set()

    def mint(self, machine_id: str | None, now: float, name: str | None = None) -> HybridConnection:
        """A new connection at `now` (unix s), which replaces the one minted for the same machine before.

        `name` is only for connections without a machine; those of machines are named as Azure names them.
        """
        if machine_id is not None:
            machine_id = machine_id.lower()
            self.drop(self._minted.get(machine_id, ""))
            digest = hashlib.sha256(machine_id.encode()).hexdigest()
            name = f"microsoft.hybridcompute/machines/{digest}/{round(now * 1e9)}/v2"
        connection = HybridConnection(
            name=(name or f"arclab/{uuid.uuid4()}").strip("/").lower(),
            machine_id=machine_id,
            key_name="sender" if machine_id is not None else "sender-listener",
            key=secrets.token_urlsafe(32),
            created_at=now,
        )
        self.connections[connection.name] = connection
        if machine_id is not None:
            self._minted[machine_id] = connection.name
        return connection

    def drop(self, name: str) -> None:
        """Forget a connection: it can no longer be dialled and its listeners are sent away (1001); streams live on."""
        self.connections.pop(name, None)
        for listener in self._listeners.pop(name, []):
            listener.ask(WSCloseCode.GOING_AWAY, "The hybrid connection was deleted.")

    def drop_streams(self, machine_id: str, code: int | None = WSCloseCode.INTERNAL_ERROR) -> int:
        """End the live connections of a machine with a close code, or cut them without one; returns how many."""
        streams = [stream for stream in self._streams if stream.connection.machine_id == machine_id.lower()]
        for stream in streams:
            stream.ask(code, "The connection was ended by the service.")
        return len(streams)

    def credentials(
        self,
        connection: HybridConnection,
        *,
        service_name: str | None,
        port: int | None,
        expires_on: int,
        authority: str,
    ) -> dict[str, Any]:
        """The value of `relay` in listCredentials' answer; without a service it has no service configuration token."""
        namespace, _dot, suffix = authority.partition(".")
        relay: dict[str, Any] = {
            "namespaceName": namespace,
            "namespaceNameSuffix": suffix,
            "hybridConnectionName": connection.name,
            "accessKey": sas.sign(
                f"http://{authority}/{connection.name}/", connection.key_name, connection.key, expires_on
            ),
            "expiresOn": expires_on,
        }
        if service_name is not None and port is not None:
            token = sas.ServiceToken(connection.machine_id or "", service_name, port, expires_on)
            relay["serviceConfigurationToken"] = sas.issue_service_token(self.options.secret, token, self._clock())
        return relay

    async def handle(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        if task is not None:
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)
        call = _Call(
            path=request.match_info["path"].strip("/"),
            action=request.query.get("sb-hc-action", ""),
            id=request.query.get("sb-hc-id", ""),
            target=request.headers.get("Microsoft-Guestgateway-Target"),
        )
        try:
            _require_upgrade(request)
            return await self._dispatch(request, call)
        except _Refused as refused:
            text = _printable(f"{refused.text} {self._tracking(call)}" if refused.tracked else refused.text)
            self._note(call, refused.status, text)
            return web.Response(status=refused.status, reason=text, text=text, headers=refused.headers)
        except _Stalled:
            self._note(call, 0, "stalled handshake")
            await self._hold(request)
            return web.Response(status=504)
        except ConnectionError:
            self._note(call, 0, "the client went away")
            return web.Response(status=400)

    async def close(self) -> None:
        """End every control channel and stream (1001)."""
        for end in [*self._streams, *(one for some in self._listeners.values() for one in some)]:
            end.ask(WSCloseCode.GOING_AWAY, "The service is shutting down.")
        handlers = self._handlers - {asyncio.current_task()}
        if handlers:
            _done, pending = await asyncio.wait(handlers, timeout=2.0)
            for handler in pending:
                handler.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _dispatch(self, request: web.Request, call: _Call) -> web.StreamResponse:
        match call.action:
            case "connect":
                return await self._connect(request, call)
            case "listen":
                return await self._listen(request, call)
            case "accept" | "reject":
                return await self._accept(request, call)
            case "":
                raise _Refused(400, "The query parameter sb-hc-action is required.")
        raise _Refused(400, "Unrecognized action.")

    def _find(self, path: str) -> HybridConnection | None:
        """The connection that `path` names; one without a machine may carry a suffix of the sender's choice."""
        path = path.lower()
        connection = self.connections.get(path)
        while connection is None and "/" in path:
            path = path.rpartition("/")[0]
            connection = self.connections.get(path)
            if connection is not None and connection.machine_id is not None:
                return None
        return connection

    def _authorize(self, request: web.Request, call: _Call) -> HybridConnection:
        """The connection of this call, if its token opens it; one that is too new is not known yet."""
        text = request.query.get("sb-hc-token") or request.headers.get("ServiceBusAuthorization")
        try:
            token = sas.parse(text)
            connection = self._find(call.path)
            if connection is None or self._clock() < connection.created_at + self._lag(connection) / 2:
                raise _Refused(404, NO_ENDPOINT)
            call.connection = connection
            self._check(token, connection, call.path, request)
        except sas.TokenRefused as refused:
            raise _Refused(refused.status, refused.text) from None
        return connection

    def _check(self, token: sas.Signature, connection: HybridConnection, path: str, request: web.Request) -> None:
        hosts = {self.options.authority.rpartition(":")[0].strip("[]").lower(), (request.url.host or "").lower()}
        sas.check(
            token,
            key_name=connection.key_name,
            key=connection.key,
            entity=connection.name,
            path=path,
            hosts=hosts,
            now=self._clock(),
        )

    def _lag(self, connection: HybridConnection) -> float:
        return 0.0 if connection.machine_id is None else self.options.listener_lag

    async def _connect(self, request: web.Request, call: _Call) -> web.StreamResponse:
        started = asyncio.get_running_loop().time()
        connection = self._authorize(request, call)
        # The protocol guide calls the sender's id optional: the relay makes one for its tracking.
        call.id = call.id or str(uuid.uuid4())
        if connection.machine_id is None:
            return await self._through_listener(request, call, connection)
        return await self._through_agent(request, call, connection, connection.machine_id, started)

    async def _through_agent(
        self, request: web.Request, call: _Call, connection: HybridConnection, machine_id: str, started: float
    ) -> web.StreamResponse:
        machine = self.agents.find(machine_id)
        if machine is not None and not machine.can_listen:
            raise _Refused(404, NO_ENDPOINT)
        restarted = self.agents.started_at.get(machine_id, 0.0) + self.options.listener_lag / 2
        attached = max(connection.created_at + self.options.listener_lag, restarted)
        if machine is None or not machine.listens or self._clock() < attached:
            raise _Refused(404, NO_LISTENERS)
        await self._take_time(started)
        ahead = LIVE_AHEAD if self.options.profile == "live" else PLAIN_AHEAD
        try:
            port = admitted_port(machine_id, request.headers, self.options.secret, self._clock())
            if not machine.admits(port):
                raise _Refused(404, NO_LISTENERS)
            local = await self.agents.dial(machine_id, port, ahead)
        except AgentRefuses as refused:
            raise _Refused(refused.status, refused.text, tracked=False) from None
        socket = _socket()
        try:
            if request.transport is None:
                raise ConnectionResetError("The sender is gone.")
            request.transport.set_write_buffer_limits(high=ahead)
            await socket.prepare(request)
        except ConnectionError:
            local.abort()
            raise
        self._note(call, 101, "")
        end = _End(connection)

        async def to_machine(data: bytes, _type: WSMsgType) -> None:
            await local.write(data)

        ended = await self._join(end, _receive(socket, end, to_machine), _deliver(local, end, socket))
        if ended == "sender":
            await local.close()
        elif ended == "listener":
            code = WSCloseCode.INTERNAL_ERROR if local.lost else WSCloseCode.OK
            await _close(request, socket, code, "The listener shut down the connection.")
            local.abort()
        else:
            local.abort()
            await _close(request, socket, *ended)
        return socket

    async def _join(
        self, end: _End, sender: Coroutine[Any, Any, None], listener: Coroutine[Any, Any, None]
    ) -> Literal["sender", "listener"] | tuple[int | None, str]:
        """Run both directions until one side ends, somebody asks for the end or nothing moved for too long."""
        pumps = [asyncio.create_task(sender), asyncio.create_task(listener)]
        self._streams.add(end)
        try:
            while True:
                left = end.touched + self.options.idle_timeout - asyncio.get_running_loop().time()
                if left <= 0:
                    return WSCloseCode.INTERNAL_ERROR, "The connection was idle for too long."
                waiting: list[asyncio.Future[Any]] = [*pumps, end.asked]
                await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if end.asked.done():
                    return end.asked.result()
                if pumps[0].done():
                    return "sender"
                if pumps[1].done():
                    return "listener"
        finally:
            self._streams.discard(end)
            for pump in pumps:
                pump.cancel()
            for result in await asyncio.gather(*pumps, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                    raise result

    async def _through_listener(
        self, request: web.Request, call: _Call, connection: HybridConnection
    ) -> web.StreamResponse:
        key = secrets.token_urlsafe(16)
        loop = asyncio.get_running_loop()
        rendezvous = _Rendezvous(connection, loop.create_future(), loop.create_future())
        self._rendezvous[key] = rendezvous
        try:
            await self._offer(request, call, connection, key)
            answer = await asyncio.wait_for(asyncio.shield(rendezvous.answer), RENDEZVOUS_TIMEOUT)
            if isinstance(answer, _Refused):
                raise answer
            return await self._splice(request, call, connection, answer)
        except TimeoutError:
            raise _Refused(504, "The listener did not accept the connection in the required time.") from None
        finally:
            self._rendezvous.pop(key, None)
            if not rendezvous.over.done():
                rendezvous.over.set_result(None)

    async def _offer(self, request: web.Request, call: _Call, connection: HybridConnection, key: str) -> None:
        """Tell the listener that had the fewest offers so far, the next one if it cannot be told."""
        own = [(name, value) for name, value in request.query.items() if not name.lower().startswith("sb-")]
        query = urlencode(
            [*own, ("sb-hc-action", "accept"), ("sb-hc-id", call.id), ("sb-hc-rendezvous", key)], quote_via=quote
        )
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        message: dict[str, Any] = {
            "id": call.id,
            "connectHeaders": {
                name: ", ".join(request.headers.getall(name))
                for name in request.headers
                if name.lower() != "servicebusauthorization"
            },
            "remoteEndpoint": {"address": peer[0], "port": peer[1]} if peer else {},
        }
        candidates = list(self._listeners.get(connection.name, []))
        self._random.shuffle(candidates)
        for listener in sorted(candidates, key=lambda candidate: candidate.offered):
            address = f"{listener.base}/{quote(call.path)}?{query}"
            with contextlib.suppress(ConnectionError):
                await listener.socket.send_str(json.dumps({"accept": {"address": address, **message}}))
                listener.offered += 1
                return
        raise _Refused(404, NO_LISTENERS)

    async def _splice(
        self, request: web.Request, call: _Call, connection: HybridConnection, listener: web.WebSocketResponse
    ) -> web.StreamResponse:
        """Join the sender's websocket to the listener's, with the subprotocol that the listener chose."""
        sender = _socket(*([listener.ws_protocol] if listener.ws_protocol else []))
        end = _End(connection)
        try:
            await sender.prepare(request)
        except ConnectionError:
            await listener.close(code=WSCloseCode.GOING_AWAY, message=b"The sender is gone.")
            raise
        self._note(call, 101, "")
        ended = await self._join(
            end,
            _receive(sender, end, listener.send_frame),
            _receive(listener, end, sender.send_frame),
        )
        if ended == "sender":
            await listener.close(code=WSCloseCode.GOING_AWAY, message=b"The sender client shut down the connection.")
        elif ended == "listener":
            await _close(request, sender, WSCloseCode.OK, "The listener shut down the connection.")
        else:
            code, reason = ended
            await asyncio.gather(
                listener.close(code=code or WSCloseCode.INTERNAL_ERROR, message=reason.encode()),
                _close(request, sender, code, reason),
            )
        return sender

    async def _accept(self, request: web.Request, call: _Call) -> web.StreamResponse:
        """A listener comes to the rendezvous: with a status it rejects the sender (and is told 410), else accepts."""
        rendezvous = self._rendezvous.get(request.query.get("sb-hc-rendezvous", ""))
        if rendezvous is None or rendezvous.answer.done() or rendezvous.connection is not self._find(call.path):
            raise _Refused(403, "The rendezvous address is not valid.")
        call.connection = rendezvous.connection
        status = request.query.get("sb-hc-statusCode", request.query.get("statusCode"))
        if status is not None or call.action == "reject":
            if status is None or not re.fullmatch(r"[2-5][0-9]{2}", status):
                raise _Refused(400, "sb-hc-statusCode has to be an HTTP status code.")
            text = request.query.get("sb-hc-statusDescription", request.query.get("statusDescription", ""))
            rendezvous.answer.set_result(_Refused(int(status), text, tracked=False))
            raise _Refused(410, "The connection was rejected.")
        socket = _socket(*_protocols(request))
        # The address is good for one attempt, also while this handshake is under way.
        self._rendezvous.pop(request.query["sb-hc-rendezvous"])
        await socket.prepare(request)
        self._note(call, 101, "")
        if rendezvous.answer.done() or rendezvous.over.done():
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"The sender is gone.")
            return socket
        rendezvous.answer.set_result(socket)
        await rendezvous.over
        return socket

    async def _listen(self, request: web.Request, call: _Call) -> web.StreamResponse:
        """The control channel of an external listener, until it closes, its token expires or the connection goes."""
        connection = self._authorize(request, call)
        if connection.machine_id is not None:
            raise _Refused(403, "Unauthorized access. 'Listen' claim(s) are required to perform this operation.")
        if len(self._listeners.get(connection.name, [])) >= MAX_LISTENERS:
            raise _Refused(403, f"The limit of {MAX_LISTENERS} listeners is reached.")
        socket = _socket()
        await socket.prepare(request)
        listener = _Listener(connection, request, socket)
        self._listeners.setdefault(connection.name, []).append(listener)
        self._note(call, 101, "")
        expires_on = sas.parse(
            request.query.get("sb-hc-token") or request.headers.get("ServiceBusAuthorization")
        ).expires_on
        expired = (int(WSCloseCode.POLICY_VIOLATION), "The security token has expired.")

        async def messages() -> None:
            async def renew(data: bytes, _type: WSMsgType) -> None:
                nonlocal expires_on
                try:
                    token = json.loads(data)["renewToken"]["token"]
                except (ValueError, KeyError, TypeError):
                    return
                try:
                    renewed = sas.parse(token if isinstance(token, str) else None)
                    self._check(renewed, connection, call.path, request)
                except sas.TokenRefused as refused:
                    listener.ask(WSCloseCode.POLICY_VIOLATION, refused.text)
                else:
                    expires_on = renewed.expires_on

            await _receive(socket, listener, renew)

        reader = asyncio.create_task(messages())
        waiting: list[asyncio.Future[Any]] = [reader, listener.asked]
        try:
            while not (reader.done() or listener.asked.done()):
                if (left := expires_on - self._clock()) <= 0:
                    listener.ask(*expired)
                # A renewal moves the expiry while we wait, and the lab's clock may be moved: hence the loop.
                await asyncio.wait(waiting, timeout=min(max(left, 0), _LOOK_AGAIN), return_when=asyncio.FIRST_COMPLETED)
        finally:
            with contextlib.suppress(ValueError):
                self._listeners.get(connection.name, []).remove(listener)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if listener.asked.done():
            await _close(request, socket, *listener.asked.result())
        return socket

    async def _take_time(self, started: float) -> None:
        """Profile `live`: 0.4-0.75 s, one in twenty 3-7 s, one in a hundred never."""
        if self.options.profile != "live":
            return
        draw = self._random.random()
        if draw < 0.01:
            raise _Stalled
        total = self._random.uniform(3.0, 7.0) if draw < 0.06 else self._random.uniform(0.4, 0.75)
        await asyncio.sleep(max(0.0, started + total - asyncio.get_running_loop().time()))

    async def _hold(self, request: web.Request) -> None:
        """Say nothing until the client gives up, or cut it after a while."""
        deadline = asyncio.get_running_loop().time() + STALL_TIMEOUT
        while request.transport is not None and not request.transport.is_closing():
            if asyncio.get_running_loop().time() > deadline:
                request.transport.abort()
            await asyncio.sleep(0.25)

    def _tracking(self, call: _Call) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._clock()))
        tracking_id = f"{call.id or uuid.uuid4()}_G{self._random.randrange(64)}"
        return f"TrackingId:{tracking_id}, SystemTracker:sb://{self.options.authority}/{call.path}, Timestamp:{stamp}"

    def _note(self, call: _Call, status: int, text: str) -> None:
        connection = call.connection
        self._journal(
            {
                "kind": "relay",
                "path": call.path,
                "action": call.action,
                "connection": connection.name if connection is not None else None,
                "machine_id": connection.machine_id if connection is not None else None,
                "status": status,
                "text": text,
                "target": call.target,
            }
        )
