# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do bytes pass unharmed in both directions, whatever their pace, and does it end well?

The pump runs in a thread of the test, with pipes for ssh and a socket pair without TLS for the relay; time is the
test's own.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from relay_double import Peer, close_frame, frame

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _pump
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._pump import Ending, Pump


class Plain:
    """A channel without TLS."""

    ready = False
    unanswered = 0.0

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self._stream = stream
        self._unsent = b""
        self.most_unsent = 0

    def fileno(self) -> int:
        return self._stream.fileno()

    def recv_into(self, view: memoryview) -> int:
        return self._stream.recv_into(view)

    def send(self, data: bytes | memoryview) -> int:
        self._unsent += bytes(data)
        self.most_unsent = max(self.most_unsent, len(self._unsent))
        return len(data)

    def flush(self) -> bool:
        while self._unsent:
            try:
                self._unsent = self._unsent[self._stream.send(self._unsent) :]
            except BlockingIOError:
                return False
        return True


class Hurried(Pump):
    """A pump whose clock, and whose patience, run `speed` times as fast as the world's."""

    speed = 1.0

    def _patience(self) -> float:
        return super()._patience() / self.speed


class Stage:
    """A running pump, ssh's ends of the pipes (`write_ssh`, `read_ssh`) and the relay's end of the connection."""

    def __init__(self, early: bytes = b"", speed: float = 1.0) -> None:
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.peer = Peer(theirs)  # type: ignore[arg-type]
        self.relay = theirs
        self._ours = ours
        source, self.write_ssh = os.pipe()
        self.read_ssh, sink = os.pipe()
        alarm, self.ring = os.pipe()
        self._inner = [source, sink, alarm]
        for descriptor in (source, sink):
            os.set_blocking(descriptor, False)
        self.channel = Plain(ours)
        begin = time.monotonic()
        self.pump = Hurried(
            self.channel,
            source,
            sink,
            early=early,
            alarm=alarm,
            clock=lambda: (time.monotonic() - begin) * speed,
        )
        self.pump.speed = speed
        self.ending: Ending | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Stage:
        self.thread.start()
        return self

    def _run(self) -> None:
        self.ending = self.pump.run()
        self._ours.close()
        os.close(self._inner[1])

    def end(self, within: float = 5) -> Ending:
        self.thread.join(within)
        assert self.ending is not None, "the pump goes on"
        return self.ending

    def read_all(self) -> bytes:
        parts = []
        while part := os.read(self.read_ssh, 1 << 20):
            parts.append(part)
        return b"".join(parts)

    def read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += os.read(self.read_ssh, count - len(data))
        return data

    def close(self) -> None:
        self.relay.close()
        for name in ("write_ssh", "read_ssh", "ring"):
            self.shut(name)
        self.thread.join(5)
        for descriptor in (self._inner[0], self._inner[2]):
            os.close(descriptor)

    def shut(self, name: str) -> None:
        descriptor = getattr(self, name)
        if descriptor >= 0:
            os.close(descriptor)
            setattr(self, name, -1)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def build(**options: object) -> Stage:
        stages.append(Stage(**options))  # type: ignore[arg-type]
        return stages[-1].start()

    yield build
    for built in stages:
        built.close()


Build = Callable[..., Stage]


def test_both_directions_are_exact_to_the_bit(stage: Build) -> None:
    rng = random.Random(8)
    scene = stage()
    up = rng.randbytes(3_000_001)
    down = [rng.randbytes(rng.choice((0, 1, 125, 126, 4096, 65535, 65536, 200_000))) for _dummy in range(40)]

    def ssh_writes() -> None:
        position = 0
        while position < len(up):
            position += os.write(
                scene.write_ssh, up[position : position + rng.choice((1, 100, 32759, 32760, 32761, 65536))]
            )

    def relay_writes() -> None:
        for part in down:
            scene.relay.sendall(frame(rng.choice((1, 2)), part))

    received = hashlib.sha256()

    def relay_reads() -> None:
        left = len(up)
        while left:
            opcode, payload = scene.peer.read_frame()
            assert opcode == 2
            received.update(payload)
            left -= len(payload)

    threads = [threading.Thread(target=work, daemon=True) for work in (ssh_writes, relay_writes, relay_reads)]
    for thread in threads:
        thread.start()
    assert scene.read_exactly(sum(map(len, down))) == b"".join(down)
    for thread in threads:
        thread.join(20)
    assert received.digest() == hashlib.sha256(up).digest()
    assert scene.ending is None


def test_what_came_with_the_upgrade_is_not_lost(stage: Build) -> None:
    whole = frame(2, b"SSH-2.0-OpenSSH_9.2\r\n")
    scene = stage(early=whole[:9])
    scene.relay.sendall(whole[9:] + close_frame(1000))
    assert scene.read_all() == b"SSH-2.0-OpenSSH_9.2\r\n"
    assert scene.end().clean


def test_keystrokes_go_out_at_once(stage: Build) -> None:
    scene = stage()
    for key in b"exit\r":
        os.write(scene.write_ssh, bytes([key]))
        assert scene.peer.read_frame() == (2, bytes([key]))


def test_pings_are_answered_and_pongs_are_not(stage: Build) -> None:
    scene = stage()
    scene.relay.sendall(frame(10, b"unsolicited") + frame(9, b"hello"))
    assert scene.peer.read_frame() == (10, b"hello")


def test_ssh_leaves(stage: Build) -> None:
    scene = stage()
    os.write(scene.write_ssh, b"last words")
    scene.shut("write_ssh")
    assert scene.peer.read_frame() == (2, b"last words")
    assert scene.peer.read_frame() == (8, b"\x03\xe8")
    # What the other side says until it closes is delivered.
    scene.relay.sendall(frame(2, b"answer") + close_frame(1001))
    assert scene.read_all() == b"answer"
    assert scene.end().clean


def test_a_relay_that_does_not_say_good_bye_is_left_after_five_seconds(stage: Build) -> None:
    scene = stage(speed=50)
    scene.shut("write_ssh")
    assert scene.peer.read_frame()[0] == 8
    assert scene.end().clean


def test_ssh_reads_no_more(stage: Build) -> None:
    scene = stage(speed=5)
    scene.shut("read_ssh")
    assert scene.peer.read_frame() == (8, b"\x03\xe8")
    scene.relay.sendall(frame(2, bytes(100_000)))
    assert scene.end().clean


def test_ssh_dies_while_much_is_under_way(stage: Build) -> None:
    scene = stage(speed=5)
    flood = threading.Thread(target=lambda: _flood(scene.relay), daemon=True)
    flood.start()
    assert scene.read_exactly(100_000)
    scene.shut("read_ssh")
    scene.shut("write_ssh")
    assert scene.end().clean


def _flood(relay: socket.socket) -> None:
    try:
        while True:
            relay.sendall(frame(2, bytes(65536)))
    except OSError:
        return


@pytest.mark.parametrize(
    ("code", "clean", "text"),
    [
        (None, True, ""),
        (1000, True, ""),
        (1001, False, "endpoint was removed"),
        (1002, False, "close code 1002, because"),
        (1008, False, "credentials expired"),
        (1011, False, "relay failed"),
        (4000, False, "close code 4000"),
    ],
)
def test_the_relay_closes(stage: Build, code: int | None, clean: bool, text: str) -> None:
    scene = stage()
    scene.relay.sendall(frame(2, b"before") + close_frame(code, b"because") + b"garbage after the end")
    assert scene.read_all() == b"before"
    ending = scene.end()
    assert ending.clean is clean
    assert text in ending.text
    assert scene.peer.read_frame() == (8, b"\x03\xe8")


@pytest.mark.parametrize("data", [b"", b"\x82", frame(2, b"half a frame")[:-3]])
def test_the_relay_vanishes(stage: Build, data: bytes) -> None:
    scene = stage()
    scene.relay.sendall(data)
    scene.relay.close()
    ending = scene.end()
    assert not ending.clean
    assert "lost" in ending.text


@pytest.mark.parametrize(
    "data", [frame(2, b"x", mask=True), frame(3), frame(9, bytes(126)), b"\x88\x01x", frame(0, b"x")]
)
def test_broken_frames_end_it_with_a_sentence(stage: Build, data: bytes) -> None:
    scene = stage()
    scene.relay.sendall(frame(2, b"good") + data + frame(2, b"evil"))
    assert scene.read_all() == b"good"
    ending = scene.end()
    assert not ending.clean
    assert "broke the protocol" in ending.text
    assert scene.peer.read_frame() == (8, b"\x03\xea")


def test_noise_never_breaks_the_pump(stage: Build) -> None:
    rng = random.Random(2)
    for _dummy in range(40):
        scene = stage()
        scene.relay.sendall(rng.randbytes(rng.randrange(1, 300)))
        scene.relay.shutdown(socket.SHUT_WR)
        scene.end()


def test_a_slow_ssh_slows_the_relay_down(stage: Build) -> None:
    scene = stage()
    scene.relay.settimeout(0.2)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64 << 20:
            sent += scene.relay.send(frame(2, bytes(65000)))
    assert sent < 4 << 20
    # Nor does it keep ssh's own data waiting.
    os.write(scene.write_ssh, b"still here")
    scene.relay.settimeout(5)
    assert scene.peer.read_frame() == (2, b"still here")


def test_a_slow_relay_slows_ssh_down(stage: Build) -> None:
    scene = stage()
    os.set_blocking(scene.write_ssh, False)
    sent, quiet = 0, 0
    while quiet < 10:
        try:
            sent += os.write(scene.write_ssh, bytes(65536))
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)
    assert sent < 4 << 20
    assert scene.channel.most_unsent < 512 * 1024
    # Nor does it keep the relay's data waiting.
    scene.relay.sendall(frame(2, b"still here"))
    assert scene.read_exactly(10) == b"still here"


@pytest.mark.skipif(sys.platform != "linux", reason="the size of pipes can be changed on Linux only")
def test_only_bulk_data_makes_the_pipes_larger(stage: Build) -> None:
    from fcntl import F_GETPIPE_SZ, fcntl

    scene = stage()
    pipes = {"down": scene.read_ssh, "up": scene.write_ssh}
    before = {name: fcntl(pipe, F_GETPIPE_SZ) for name, pipe in pipes.items()}
    os.write(scene.write_ssh, b"keystroke")
    scene.peer.read_frame()
    scene.relay.sendall(frame(2, bytes(30_000)))
    scene.read_exactly(30_000)
    assert {name: fcntl(pipe, F_GETPIPE_SZ) for name, pipe in pipes.items()} == before
    for _turn in range(50):
        # A pipe that is emptied as fast as it is filled needs no more room, which is for the scheduler to say.
        scene.relay.sendall(frame(2, bytes(400_000)))
        scene.read_exactly(400_000)
        if fcntl(scene.read_ssh, F_GETPIPE_SZ) != before["down"]:
            break
    assert fcntl(scene.read_ssh, F_GETPIPE_SZ) == _pump._PIPE > before["down"]
    assert fcntl(scene.write_ssh, F_GETPIPE_SZ) == before["up"]


@pytest.mark.skipif(sys.platform != "linux", reason="the size of pipes can be changed on Linux only")
def test_so_does_bulk_data_of_ssh() -> None:
    from fcntl import F_GETPIPE_SZ, fcntl

    scene = Stage()
    try:
        # All that the pipe holds before the pump looks at it.
        os.write(scene.write_ssh, bytes(65536))
        scene.start()
        assert [scene.peer.read_frame() for _dummy in range(3)] == [
            (2, bytes(32760)),
            (2, bytes(32760)),
            (2, bytes(16)),
        ]
        assert fcntl(scene.write_ssh, F_GETPIPE_SZ) == _pump._PIPE
    finally:
        scene.close()


def test_idle_connections_are_pinged_and_stay(stage: Build) -> None:
    scene = stage(speed=200)
    for _dummy in range(3):
        opcode, payload = scene.peer.read_frame()
        assert opcode == 9
        scene.relay.sendall(frame(10, payload))
    assert scene.ending is None


def test_a_dead_relay_is_noticed(stage: Build) -> None:
    begin = time.monotonic()
    scene = stage(speed=200)
    assert scene.peer.read_frame()[0] == 9
    ending = scene.end()
    assert not ending.clean
    assert "no answer for" in ending.text
    assert 40 <= (time.monotonic() - begin) * 200 < 200


def test_whoever_sends_data_is_not_dead(stage: Build) -> None:
    scene = stage(speed=100)
    for _dummy in range(15):
        scene.relay.sendall(frame(2, b"x"))
        time.sleep(0.05)
    assert scene.ending is None


def test_a_backlog_is_no_sign_of_death(stage: Build) -> None:
    scene = stage(speed=200)
    os.write(scene.write_ssh, bytes(60_000))
    os.write(scene.write_ssh, bytes(60_000))
    time.sleep(0.4)
    # 80 s without an answer; the ping stands behind data that the relay has not read.
    assert scene.ending is None
    assert "lost" in scene.end().text


def test_a_backlog_on_a_dead_path_is_one_within_a_minute(stage: Build) -> None:
    begin = time.monotonic()
    scene = stage(speed=50)
    scene.channel.unanswered = 25.0
    for _dummy in range(2):
        os.write(scene.write_ssh, bytes(60_000))
    ending = scene.end()
    assert not ending.clean
    assert "no answer for" in ending.text
    assert 40 <= (time.monotonic() - begin) * 50 < 60


def test_whoever_was_stopped_hears_the_answer_first() -> None:
    ours, theirs = socket.socketpair()
    source, write_ssh = os.pipe()
    read_ssh, sink = os.pipe()
    now = 0.0

    class Stopped(Pump):
        """Is stopped for a minute between looking around and looking at the clock, again and again."""

        def _wait(self) -> set[int]:
            nonlocal now
            now += 60
            if now == 120:
                theirs.sendall(frame(10) + frame(2, b"alive") + close_frame(1000))
            return set() if now < 180 else super()._wait()

    with ours, theirs:
        channel = Plain(ours)
        ending = Stopped(channel, source, sink, clock=lambda: now).run()
    assert ending.clean
    assert os.read(read_ssh, 100) == b"alive"
    for descriptor in (source, write_ssh, read_ssh, sink):
        os.close(descriptor)


def test_an_ssh_that_stands_still_does_not_make_the_relay_dead(stage: Build) -> None:
    scene = stage(speed=200)
    scene.relay.sendall(frame(2, bytes(400_000)))
    time.sleep(0.5)
    assert scene.ending is None
    assert len(scene.read_exactly(400_000)) == 400_000


def test_a_signal_ends_it_in_good_order(stage: Build) -> None:
    scene = stage(speed=5)
    os.write(scene.write_ssh, b"disconnect")
    os.write(scene.ring, b"\x01")
    frames = [scene.peer.read_frame(), scene.peer.read_frame()]
    assert frames == [(2, b"disconnect"), (8, b"\x03\xe8")]
    assert scene.end().clean


def test_a_signal_ends_it_even_when_nobody_reads(stage: Build) -> None:
    scene = stage(speed=5)
    scene.relay.sendall(frame(2, bytes(200_000)))
    time.sleep(0.05)
    os.write(scene.ring, b"\x01")
    assert scene.end().clean


def test_waiting_costs_nothing(stage: Build) -> None:
    scene = stage()
    os.write(scene.write_ssh, b"x")
    scene.peer.read_frame()
    scene.relay.sendall(frame(2, bytes(400_000)))
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


def test_times_are_those_of_the_relay() -> None:
    # The relay drops connections that are idle for some 120 s.
    assert _pump.PING_EVERY + _pump.PONG_WITHIN < 120
    # And people and their programs wait no longer than a minute for somebody who is dead.
    assert _pump.PING_EVERY + max(_pump.PONG_WITHIN, _pump.UNANSWERED) + _pump.LOOK_EVERY < 60
