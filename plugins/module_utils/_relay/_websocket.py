# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do the relay's bytes look on the wire?

The client's side of RFC 6455, pure: the upgrade request and its answer, frames out (masked, as 5.3 demands, with a key
of their own each) and frames in. Payloads are never copied where that can be helped: what goes out is masked in the
buffer it was read into, what comes in is handed on as views of the receive buffer. Private to arcfleet.ssh.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Mask = Callable[[memoryview, bytes], bytes]

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

NORMAL, NO_STATUS, PROTOCOL_ERROR = 1000, 1005, 1002

# A frame of 32 KiB fills two TLS records exactly; its header is 8 bytes long. Larger ones would save a tenth of the CPU
# time, but nobody has been seen to send them to an Arc agent, and there are libraries that refuse messages above 32 KiB.
HEADER = 8
LARGEST_PAYLOAD = 32 * 1024 - HEADER

# The relay's answer to the upgrade: enough for any header block, and for a description in the body.
LONGEST_HEAD = 64 * 1024

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ProtocolError(Exception):
    """The other side does not speak the protocol; the text says in which way."""


# --- upgrade ----------------------------------------------------------------------------------------------------------


def new_key() -> str:
    """A fresh Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def upgrade_request(host: str, path: str, key: str, headers: Mapping[str, str]) -> bytes:
    """The request that turns a TLS connection into a WebSocket. The values must hold no line breaks."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class Head:
    """Status line and headers of an HTTP answer; header names are lower-cased."""

    __slots__ = ("headers", "reason", "status")

    def __init__(self, status: int, reason: str, headers: Mapping[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers


def parse_head(data: bytes) -> Head:
    """The answer whose header block is `data`, without the empty line at its end. Raises ProtocolError."""
    lines = data.decode("latin-1").split("\r\n")
    version, _dummy, rest = lines[0].partition(" ")
    status, _dummy, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3 or not status.isdigit():
        raise ProtocolError("the answer is not HTTP")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError("the answer has a malformed header")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(int(status), reason.strip(), headers)


def check_upgrade(head: Head, key: str) -> None:
    """Raises ProtocolError unless `head`, of status 101, accepts the upgrade asked for with `key` (RFC 6455, 4.1)."""
    expected = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    if (
        head.headers.get("upgrade", "").lower() != "websocket"
        or "upgrade" not in head.headers.get("connection", "").lower()
    ):
        raise ProtocolError("the answer 101 is not an upgrade to WebSocket")
    if head.headers.get("sec-websocket-accept") != expected:
        raise ProtocolError("the answer 101 is not one to this request")
    if head.headers.get("sec-websocket-extensions") or head.headers.get("sec-websocket-protocol"):
        raise ProtocolError("the answer 101 speaks of extensions that nobody asked for")


def body_text(head: Head, body: bytes) -> str:
    """What of an error's body can be shown: its text without chunk sizes."""
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    return " ".join(body.decode("utf-8", "replace").split())


def _join_chunks(body: bytes) -> bytes:
    parts = []
    while True:
        size, line_end, rest = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        if not line_end or length <= 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


# --- frames out -------------------------------------------------------------------------------------------------------


def _mask_by_integers(data: memoryview, key: bytes) -> bytes:
    length = len(data)
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(data, sys.byteorder) ^ int.from_bytes(pad, sys.byteorder)).to_bytes(length, sys.byteorder)


def _mask_in_c() -> Mask | None:
    """The routine of the package `websockets`, if installed: a hundred times faster.

    Loaded without the package around it, whose import takes longer than a connection.
    """
    from importlib.machinery import PathFinder

    package = PathFinder.find_spec("websockets")
    where = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("websockets.speedups", where) if where else None
    if spec is None or spec.loader is None:
        return None
    try:
        module = spec.loader.create_module(spec)
        if module is None:
            return None
        spec.loader.exec_module(module)
    except ImportError:
        return None
    mask: Mask | None = getattr(module, "apply_mask", None)
    return mask


class Framer:
    """Makes masked frames. `mask` replaces the choice between the two routines."""

    def __init__(self, mask: Mask | None = None) -> None:
        self._mask: Mask = mask or _mask_by_integers
        self._chosen = mask is not None

    def control(self, opcode: int, payload: bytes = b"") -> bytes:
        """A control frame; at most 125 bytes of payload."""
        buffer = memoryview(bytearray(HEADER + len(payload)))
        buffer[HEADER:] = payload
        return bytes(self.seal(buffer, len(payload), opcode))

    def seal(self, buffer: memoryview, length: int, opcode: int = BINARY) -> memoryview:
        """The frame around the `length` bytes of payload at `buffer[HEADER:]`, made in place; a view of `buffer`."""
        key = os.urandom(4)
        payload = buffer[HEADER : HEADER + length]
        if length < 126:
            start = HEADER - 6
            buffer[start : start + 2] = bytes((0x80 | opcode, 0x80 | length))
        elif length <= 0xFFFF:
            start = 0
            buffer[:4] = bytes((0x80 | opcode, 0x80 | 126, length >> 8, length & 0xFF))
        else:
            raise ValueError("frames longer than 65535 bytes are not made here")
        buffer[HEADER - 4 : HEADER] = key
        # Short frames (keystrokes, key exchange) do not repay the search for the routine.
        if not self._chosen and length >= 4096:
            self._mask, self._chosen = _mask_in_c() or _mask_by_integers, True
        payload[:] = self._mask(payload, key)
        return buffer[start : HEADER + length]


def close_payload(code: int) -> bytes:
    """The payload of a close frame without a reason."""
    return code.to_bytes(2, "big")


# --- frames in --------------------------------------------------------------------------------------------------------


class Frames:
    """The server's frames, from bytes that arrive in pieces of any size."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._control = bytearray()
        self._opcode = 0
        self._left = 0
        self._in_payload = False
        self._in_message = False
        self._ended = False

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """`(BINARY, part of the stream)` and `(PING|PONG|CLOSE, payload)` as they arrive; parts are views of `data`.

        Text counts as binary: the stream is what matters. Nothing comes after CLOSE. Raises ProtocolError where the
        bytes go wrong; nothing may be fed after that.
        """
        position, end = 0, len(data)
        while position < end and not self._ended:
            if not self._in_payload:
                position = self._read_head(data, position)
                if not self._in_payload:
                    continue
            part = data[position : position + self._left]
            position += len(part)
            self._left -= len(part)
            self._in_payload = bool(self._left)
            if self._opcode < CLOSE:
                if part:
                    yield BINARY, part
                continue
            self._control += part
            if not self._in_payload:
                self._ended = self._opcode == CLOSE
                yield self._opcode, memoryview(bytes(self._control))
                self._control.clear()

    def _read_head(self, data: memoryview, position: int) -> int:
        """Take bytes of a header, up to its end; enter the payload when it is complete."""
        head = self._head
        if not head and len(data) - position >= 4 and data[position + 1] == 126:
            # What nearly all of a bulk transfer consists of.
            self._begin(data[position], 126, data[position + 2] << 8 | data[position + 3])
            return position + 4
        while len(head) < 2:
            if position == len(data):
                return position
            head.append(data[position])
            position += 1
        extra = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
        missing = 2 + extra - len(head)
        head += data[position : position + missing]
        position += min(missing, len(data) - position)
        if len(head) < 2 + extra:
            return position
        self._begin(head[0], head[1], int.from_bytes(head[2:], "big") if extra else head[1] & 0x7F)
        head.clear()
        return position

    def _begin(self, first: int, second: int, length: int) -> None:
        final, opcode = bool(first & 0x80), first & 0x0F
        if first & 0x70:
            raise ProtocolError("a frame with reserved bits")
        if second & 0x80:
            raise ProtocolError("a masked frame")
        if length >> 63:
            raise ProtocolError("a frame of impossible length")
        if opcode in (CLOSE, PING, PONG):
            if not final or length > 125:
                raise ProtocolError("a control frame that is fragmented or too long")
        elif opcode in (TEXT, BINARY):
            if self._in_message:
                raise ProtocolError("a new message inside a fragmented one")
            self._in_message = not final
        elif opcode == 0:
            if not self._in_message:
                raise ProtocolError("a continuation of nothing")
            self._in_message = not final
        else:
            raise ProtocolError(f"a frame of unknown kind {opcode}")
        self._opcode, self._left, self._in_payload = opcode, length, True


def parse_close(payload: memoryview) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 where it has none. Raises ProtocolError for one of a single byte."""
    if not payload:
        return NO_STATUS, ""
    if len(payload) == 1:
        raise ProtocolError("a close frame of one byte")
    return int.from_bytes(payload[:2], "big"), " ".join(bytes(payload[2:]).decode("utf-8", "replace").split())
