# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the WebSocket layer say and understand what RFC 6455 says?

The package websockets is the second opinion.
"""

from __future__ import annotations

import itertools
import os
import random

import pytest
from relay_double import close_frame, frame

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _websocket as ws

# The example of RFC 6455, 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = {"upgrade": "websocket", "connection": "keep-alive, Upgrade", "sec-websocket-accept": ACCEPT}


def feed(data: bytes, *cuts: int) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The stream and the control frames in `data`, fed in pieces."""
    frames, stream, control = ws.Frames(), b"", []
    edges = [0, *cuts, len(data)]
    for start, end in itertools.pairwise(edges):
        for opcode, payload in frames.feed(memoryview(data)[start:end]):
            if opcode == ws.BINARY:
                stream += payload
            else:
                control.append((opcode, bytes(payload)))
    return stream, control


def test_request_is_an_upgrade() -> None:
    request = ws.upgrade_request("relay.example:8443", "/$hc/a/b?x=1", KEY, {"ServiceBusAuthorization": "sas"})
    assert request == (
        b"GET /$hc/a/b?x=1 HTTP/1.1\r\nHost: relay.example:8443\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\nServiceBusAuthorization: sas\r\n\r\n"
    )
    assert len(ws.new_key()) == 24
    assert ws.new_key() != ws.new_key()


def test_head_is_parsed() -> None:
    head = ws.parse_head(b"HTTP/1.1 404 Endpoint does not exist. TrackingId:1\r\nA: 1\r\na:2 \r\nB:")
    assert (head.status, head.reason, head.headers) == (
        404,
        "Endpoint does not exist. TrackingId:1",
        {"a": "1, 2", "b": ""},
    )
    assert ws.parse_head(b"HTTP/1.1 503").reason == ""


@pytest.mark.parametrize(
    "data", [b"", b"SSH-2.0-OpenSSH", b"HTTP/1.1 20 OK", b"HTTP/2 200 OK", b"HTTP/1.1 200 OK\r\nx"]
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(ws.ProtocolError):
        ws.parse_head(data)


def test_only_an_answer_to_our_key_is_an_upgrade() -> None:
    ws.check_upgrade(ws.Head(101, "", GOOD), KEY)
    for change in (
        {"upgrade": "h2c"},
        {"connection": "close"},
        {"sec-websocket-accept": ACCEPT.lower()},
        {"sec-websocket-extensions": "permessage-deflate"},
        {"sec-websocket-protocol": "ssh"},
    ):
        with pytest.raises(ws.ProtocolError):
            ws.check_upgrade(ws.Head(101, "", {**GOOD, **change}), KEY)


def test_body_loses_its_chunk_sizes() -> None:
    chunked = ws.Head(404, "", {"transfer-encoding": "chunked"})
    assert ws.body_text(chunked, b"4\r\n404 \r\n6;x=y\r\nno way\r\n0\r\n\r\n") == "404 no way"
    assert ws.body_text(chunked, b"zz\r\n") == ""
    assert ws.body_text(ws.Head(404, "", {}), b"a\r\n\tb\xff") == "a b\ufffd"


def test_mask_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: b"\x37\xfa\x21\x3d"[:count])
    assert ws.Framer().control(ws.TEXT, b"Hello") == bytes.fromhex("818537fa213d7f9f4d5158")


def test_every_frame_has_its_own_key() -> None:
    framer = ws.Framer()
    assert len({framer.control(ws.PING, b"x") for _dummy in range(50)}) > 40


@pytest.mark.parametrize("length", [0, 1, 3, 125, 126, 127, 4095, 4096, 32759, ws.LARGEST_PAYLOAD])
@pytest.mark.parametrize("mask", [None, ws._mask_by_integers])
def test_frames_are_those_that_websockets_reads(length: int, mask: ws.Mask | None) -> None:
    from websockets.frames import Frame, Opcode
    from websockets.streams import StreamReader

    payload = os.urandom(length)
    buffer = memoryview(bytearray(ws.HEADER + ws.LARGEST_PAYLOAD))
    buffer[ws.HEADER : ws.HEADER + length] = payload
    sealed = bytes(ws.Framer(mask).seal(buffer, length))
    assert len(sealed) <= 32768
    reader = StreamReader()
    reader.feed_data(sealed)
    parser = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as done:
        next(parser)
    assert done.value.value == Frame(Opcode.BINARY, payload)


def test_longer_frames_are_not_made() -> None:
    with pytest.raises(ValueError, match="65535"):
        ws.Framer().seal(memoryview(bytearray(ws.HEADER + 65536)), 65536)


def test_both_mask_routines_agree() -> None:
    fast = ws._mask_in_c()
    assert fast is not None, "the package websockets is installed for tests"
    for length in (1, 2, 3, 4, 5, 31, 4096, 32760):
        data, key = memoryview(os.urandom(length)), os.urandom(4)
        assert fast(data, key) == ws._mask_by_integers(data, key)


def test_without_websockets_there_is_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import PathFinder

    monkeypatch.setattr(PathFinder, "find_spec", lambda *_dummy: None)
    assert ws._mask_in_c() is None


def test_stream_survives_any_cutting() -> None:
    rng = random.Random(6455)
    for _dummy in range(60):
        data, stream, control = b"", b"", []
        for _dummy in range(rng.randrange(1, 12)):
            pieces = [
                rng.randbytes(rng.choice((0, 1, 125, 126, 300, 65535, 65536)))
                for _dummy in range(rng.choice((1, 1, 3)))
            ]
            for index, piece in enumerate(pieces):
                opcode = rng.choice((1, 2)) if index == 0 else 0
                data += frame(opcode, piece, final=index == len(pieces) - 1)
                stream += piece
                if rng.random() < 0.5:
                    # Control frames may stand between the fragments of a message.
                    note = (rng.choice((ws.PING, ws.PONG)), rng.randbytes(rng.choice((0, 7, 125))))
                    data += frame(*note)
                    control.append(note)
        cuts = sorted(rng.randrange(len(data) + 1) for _dummy in range(rng.randrange(20)))
        assert feed(data, *cuts) == (stream, control)


def test_stream_survives_byte_by_byte() -> None:
    data = frame(2, b"abc", final=False) + frame(9, b"") + frame(0, bytes(70000)) + close_frame(1000, b"bye")
    stream, control = feed(data, *range(1, len(data)))
    assert stream == b"abc" + bytes(70000)
    assert control == [(ws.PING, b""), (ws.CLOSE, b"\x03\xe8bye")]


def test_payloads_are_views_not_copies() -> None:
    received = bytearray(frame(2, b"abcd"))
    ((_dummy, payload),) = ws.Frames().feed(memoryview(received))
    received[-1:] = b"X"
    assert payload == b"abcX"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(2, b"x", mask=True), "masked"),
        (frame(2, b"x", reserved=0x40), "reserved"),
        (frame(3, b"x"), "unknown"),
        (frame(0xB), "unknown"),
        (frame(0, b"x"), "continuation"),
        (frame(2, b"x", final=False) + frame(2, b"y"), "inside"),
        (frame(9, b"x", final=False), "control"),
        (frame(9, bytes(126)), "control"),
        (frame(8, bytes(70000)), "control"),
        (b"\x82\x7f" + b"\xff" * 8, "length"),
    ],
)
def test_invalid_frames_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(ws.ProtocolError, match=why):
        feed(data)
    with pytest.raises(ws.ProtocolError, match=why):
        feed(data, *range(1, min(len(data), 40)))


def test_noise_is_refused_or_understood_but_never_anything_else() -> None:
    rng = random.Random(1)
    refused = 0
    for _dummy in range(3000):
        try:
            feed(rng.randbytes(rng.randrange(1, 60)))
        except ws.ProtocolError:
            refused += 1
    assert refused > 1000


def test_good_frames_before_a_broken_one_count() -> None:
    events = ws.Frames().feed(memoryview(frame(2, b"good") + frame(3)))
    assert next(events) == (ws.BINARY, b"good")
    with pytest.raises(ws.ProtocolError):
        next(events)


def test_nothing_comes_after_close() -> None:
    assert feed(close_frame(1000) + b"\xff\xff", 3) == (b"", [(ws.CLOSE, b"\x03\xe8")])
    assert feed(close_frame(1000) + frame(2, b"x"), 4) == (b"", [(ws.CLOSE, b"\x03\xe8")])


def test_close_payloads() -> None:
    assert ws.parse_close(memoryview(b"")) == (1005, "")
    assert ws.parse_close(memoryview(b"\x03\xf0token\r\nexpired\xff")) == (1008, "token expired\ufffd")
    with pytest.raises(ws.ProtocolError):
        ws.parse_close(memoryview(b"\x03"))
