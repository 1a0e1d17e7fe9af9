# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do bytes pass between ssh and the relay until one of them has enough?

One thread and poll: TLS state may not be shared by two, and each direction waits for its own slow side only. At most
one buffer is under way in each direction, so whoever reads slowly slows down the other end, not this process's memory.
Waking each other up is what costs most, so ssh's pipes are made larger once much passes through them.
The relay drops connections that are idle for some 120 seconds, hence the pings. Close codes: documentation of Azure
Relay's hybrid connections protocol. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

from ._websocket import (
    BINARY,
    CLOSE,
    HEADER,
    LARGEST_PAYLOAD,
    NO_STATUS,
    NORMAL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    Framer,
    Frames,
    ProtocolError,
    close_payload,
    parse_close,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Channel(Protocol):
        """A non-blocking stream: BlockingIOError is "not yet", 0 bytes the end, OSError a broken connection."""

        @property
        def ready(self) -> bool: ...
        @property
        def unanswered(self) -> float: ...
        def fileno(self) -> int: ...
        def recv_into(self, view: memoryview) -> int: ...
        def send(self, data: bytes | memoryview) -> int: ...
        def flush(self) -> bool: ...


# All times in seconds.
PING_EVERY = 30.0
PONG_WITHIN = 10.0
# A ping queues behind data that the far end is slow to take; so much silence then is no sign of death. It is one if not
# even TCP answers (its own retries start after a second at most), for which is looked every so often.
PONG_WITHIN_BACKLOG = 120.0
BACKLOG = 64 * 1024
UNANSWERED = 15.0
LOOK_EVERY = 5.0
DRAIN = 5.0
HANG_UP = 1.0

# Plaintext handled at once, and frames sent before the rest of the world gets its turn.
_RECEIVE = 256 * 1024
_BURST = 8
_VIEWS = 512

# ssh's pipes hold 64 KiB. Linux counts what all pipes of a user may hold and by default stops at 64 MiB, hence no more.
_PIPE = 256 * 1024
_SET_PIPE_SIZE = 1031

_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL

_CODES = {
    1001: "the endpoint was removed or made anew",
    1008: "the relay credentials expired",
    1011: "the relay failed",
}


class Ending:
    """How it ended: `clean`, or with `text` as the reason."""

    def __init__(self, clean: bool, text: str) -> None:
        self.clean = clean
        self.text = text


class Pump:
    """Copies between `source`/`sink` (non-blocking descriptors) and a WebSocket on `channel`; `early` came already.

    A byte on the descriptor `alarm` (see signal.set_wakeup_fd) ends it in good order. `watch` is shown what comes from
    `source`, and nothing when that has enough, `watch_back` what comes from the relay, each until it returns False.
    """

    def __init__(
        self,
        channel: Channel,
        source: int,
        sink: int,
        *,
        early: bytes = b"",
        alarm: int | None = None,
        framer: Framer | None = None,
        watch: Callable[[memoryview], bool] | None = None,
        watch_back: Callable[[memoryview], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._source = source
        self._sink = sink
        self._early = memoryview(early)
        self._alarm = alarm
        self._clock = clock
        self._framer = framer or Framer()
        self._watch = watch
        self._watch_back = watch_back
        self._frames = Frames()
        self._receive = memoryview(bytearray(_RECEIVE))
        self._frame = memoryview(bytearray(HEADER + LARGEST_PAYLOAD))
        self._payload = self._frame[HEADER:]
        # Parts of the receive buffer that the sink has not taken yet; nothing is received before they are gone.
        self._undelivered: list[memoryview] = []
        self._flushed = True
        self._source_open = True
        self._sink_open = True
        self._sendable = True
        self._small_pipes = {source, sink}
        # When to stop waiting for the other side's close frame; set once ours is on its way.
        self._closing: float | None = None
        self._ending: Ending | None = None
        self._heard = self._next_ping = clock()
        self._next_ping += PING_EVERY
        self._pinged: float | None = None
        self._next_look = 0.0
        self._unconfirmed = 0
        self._unconfirmed_at_ping = 0
        # Bytes that came from `source`.
        self.uploaded = 0

    def run(self) -> Ending:
        """Copy until the end."""
        self._take(self._early)
        while True:
            self._deliver()
            if self._ending is not None and (not self._undelivered or not self._sink_open):
                self._flush()
                return self._ending
            ready = self._wait()
            if self._alarm in ready:
                self._hang_up()
            if self._ending is None:
                if not self._undelivered and (self._channel.fileno() in ready or self._channel.ready):
                    self._download()
                if self._source in ready and self._may_upload():
                    self._upload()
                self._flush()
                self._keep_alive()

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _wait(self) -> set[int]:
        """The descriptors that have something; the sink's end is noted on the way."""
        poll = select.poll()
        if self._alarm is not None:
            poll.register(self._alarm, select.POLLIN)
        if self._sink_open:
            poll.register(self._sink, select.POLLOUT if self._undelivered else 0)
        if self._ending is None:
            interest = (0 if self._undelivered else select.POLLIN) | (0 if self._flushed else select.POLLOUT)
            if interest:
                poll.register(self._channel.fileno(), interest)
            if self._may_upload():
                poll.register(self._source, select.POLLIN)
        ready = set()
        for descriptor, events in poll.poll(self._patience()):
            if descriptor == self._sink and events & _GONE:
                self._sink_closed()
            else:
                ready.add(descriptor)
        return ready

    def _patience(self) -> float:
        """Milliseconds until something is due."""
        if self._channel.ready and not self._undelivered:
            return 0
        due = self._next_ping
        if self._closing is not None:
            due = min(due, self._closing)
        if self._pinged is not None:
            due = min(due, max(self._since(self._pinged) + PONG_WITHIN, self._next_look))
        return max(0.0, due - self._clock()) * 1000 + 1

    def _may_upload(self) -> bool:
        return self._source_open and self._flushed and self._closing is None

    # --- ssh -> relay -------------------------------------------------------------------------------------------------

    def _upload(self) -> None:
        for turn in range(_BURST):
            if turn:
                self._enlarge(self._source)
            try:
                count = os.readv(self._source, [self._payload])
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if not count:
                self._source_open = False
                self._close(NORMAL, DRAIN)
                return
            self._unconfirmed += count
            self.uploaded += count
            if self._watch is not None and not self._watch(self._payload[:count]):
                self._watch = None
            self._send(self._framer.seal(self._frame, count))
            if count < LARGEST_PAYLOAD:
                return

    def _send(self, frame: bytes | memoryview) -> None:
        if self._sendable:
            self._flushed = False
            try:
                self._channel.send(frame)
            except OSError:
                self._sendable = False

    def _flush(self) -> None:
        if self._sendable and not self._flushed:
            try:
                self._flushed = self._channel.flush()
            except OSError:
                self._sendable = False
        if not self._sendable:
            # What the other side said before it left can still be read, and tells why.
            self._flushed = True
            self._source_open = False

    def _close(self, code: int, patience: float) -> None:
        """Say good-bye, once, and wait at most `patience` seconds for the answer."""
        if self._closing is None:
            if self._watch is not None and self._ending is None:
                self._watch(self._payload[:0])
            self._send(self._framer.control(CLOSE, close_payload(code)))
            self._closing = self._clock() + patience
        self._closing = min(self._closing, self._clock() + patience)

    def _hang_up(self) -> None:
        """A signal: what ssh wrote before it is sent still, then it is over soon."""
        if self._alarm is not None:
            with contextlib.suppress(OSError):
                os.read(self._alarm, 64)
        if self._may_upload():
            self._upload()
        self._close(NORMAL, HANG_UP)
        if self._undelivered:
            self._ending = self._ending or Ending(True, "hung up")
            self._undelivered.clear()

    # --- relay -> ssh -------------------------------------------------------------------------------------------------

    def _download(self) -> None:
        try:
            count = self._channel.recv_into(self._receive)
        except BlockingIOError:
            return
        except OSError as exc:
            self._lost(exc.strerror or str(exc))
            return
        if not count:
            self._lost("closed without a word")
            return
        self._heard = self._clock()
        self._take(self._receive[:count])

    def _take(self, data: memoryview) -> None:
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode == BINARY:
                    if self._watch_back is not None and not self._watch_back(payload):
                        self._watch_back = None
                    self._undelivered.append(payload)
                elif opcode == PING:
                    # With a backlog, one answer is enough: RFC 6455, 5.5.3 allows to answer the latest only.
                    if self._flushed and self._closing is None:
                        self._send(self._framer.control(PONG, bytes(payload)))
                elif opcode == PONG:
                    self._pinged = None
                    self._unconfirmed -= self._unconfirmed_at_ping
                    self._unconfirmed_at_ping = 0
                else:
                    self._closed(payload)
                    return
        except ProtocolError as exc:
            self._ending = Ending(False, f"the relay broke the protocol: {exc}")
            self._close(PROTOCOL_ERROR, 0)

    def _closed(self, payload: memoryview) -> None:
        code, reason = parse_close(payload)
        if self._closing is None:
            self._ending = _ending(code, reason)
            self._close(NORMAL, 0)
        else:
            # We had said good-bye first; how the other side took it does not matter.
            self._ending = Ending(True, "closed")

    def _deliver(self) -> None:
        if not self._sink_open:
            self._undelivered.clear()
        while self._undelivered:
            try:
                count = os.writev(self._sink, self._undelivered[:_VIEWS])
            except BlockingIOError:
                if self._enlarge(self._sink):
                    continue
                return
            except OSError:
                self._sink_closed()
                return
            done = 0
            while done < len(self._undelivered) and count >= len(self._undelivered[done]):
                count -= len(self._undelivered[done])
                done += 1
            del self._undelivered[:done]
            if count:
                self._undelivered[0] = self._undelivered[0][count:]

    def _enlarge(self, descriptor: int) -> bool:
        """Make one of ssh's pipes larger, once; whether it has become so."""
        if descriptor not in self._small_pipes:
            return False
        self._small_pipes.discard(descriptor)
        if sys.platform != "linux":
            return False
        from fcntl import fcntl

        try:
            return fcntl(descriptor, _SET_PIPE_SIZE, _PIPE) >= _PIPE
        except OSError:
            # It is none, or the user's pipes hold enough already.
            return False

    def _sink_closed(self) -> None:
        """ssh has gone."""
        self._sink_open = False
        self._undelivered.clear()
        if self._may_upload():
            self._upload()
        self._source_open = False
        self._close(NORMAL, HANG_UP)

    def _lost(self, why: str) -> None:
        if self._closing is not None:
            self._ending = Ending(True, "closed")
        else:
            self._ending = Ending(False, f"the relay's connection was lost ({why})")

    # --- time ---------------------------------------------------------------------------------------------------------

    def _keep_alive(self) -> None:
        now = self._clock()
        if self._ending is not None:
            return
        if self._closing is not None and now >= self._closing:
            self._ending = Ending(True, "closed")
            return
        if self._undelivered:
            # While ssh does not read, nothing is heard of the relay either.
            self._heard = now
        if self._pinged is not None and self._is_dead(self._pinged, now):
            self._ending = Ending(False, f"the relay's connection was lost (no answer for {now - self._heard:.0f} s)")
            return
        if now >= self._next_ping:
            self._next_ping = now + PING_EVERY
            if self._pinged is None and self._closing is None:
                self._pinged = now
                self._unconfirmed_at_ping = self._unconfirmed
                self._send(self._framer.control(PING))
                self._flush()

    def _since(self, pinged: float) -> float:
        """Since when nothing has come, though something should have."""
        return max(pinged, self._heard)

    def _is_dead(self, pinged: float, now: float) -> bool:
        silence = now - self._since(pinged)
        if silence < PONG_WITHIN or now < self._next_look:
            return False
        if self._has_come():
            return False
        if self._unconfirmed <= BACKLOG or silence >= PONG_WITHIN_BACKLOG:
            return True
        self._next_look = now + LOOK_EVERY
        return self._channel.unanswered >= UNANSWERED

    def _has_come(self) -> bool:
        """Whether there is something to read: who was stopped finds the answer and the end of its patience together."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _ending(code: int, reason: str) -> Ending:
    if code in (NORMAL, NO_STATUS):
        return Ending(True, "closed")
    known = _CODES.get(code)
    told = f"close code {code}" + (f", {reason[:120]}" if reason else "")
    return Ending(False, f"{known} ({told})" if known else f"the relay closed the connection ({told})")
