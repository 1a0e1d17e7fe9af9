# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines of the fleet can be reached through the relay by now?

After SSH was allowed, an agent takes up to two minutes to listen. So a fleet is waited for once, in rounds, and not machine by
machine: a schedule says who is dialled next, a bounded number of threads dials, nobody sleeps for a single machine, and whoever
has answered is left in peace. What an answer means is `_relay._dial`'s to say. `Schedule` and `interval` are pure.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ._errors import ArcError, redact
from ._relay._dial import ATTEMPT, HTTP, Answer, Dialler, Refresh, Stop, decide, explain, is_sshd_down
from ._relay._websocket import CLOSE, NORMAL, Framer, close_payload

if TYPE_CHECKING:
    from ._relay._credentials import Credentials
    from ._relay._tls import Tls

    Dial = Callable[[Credentials, int], None]
    Renew = Callable[[Credentials], Credentials]

# Codes of failures: nothing accepts connections on the machine; the agent was not there in time, and may come yet; the relay says no.
SSHD_DOWN, NOT_LISTENING, REFUSED = "SshdDown", "NotListening", "RelayRefused"

# Seconds between two dials of one machine: they double up to the second number, or to as many as keep the fleet's dials at the rate
# (a dial is a TLS handshake, which costs a controller some milliseconds), but never exceed the third.
_FIRST, _USUAL, _LONGEST = 1.0, 5.0, 30.0
_DIALS_A_SECOND = 50.0

# Seconds in which a stop of the run is noticed while dials are under way.
_LOOK = 0.5

# Seconds for the other side to close as well.
_GOODBYE = 1.0


def interval(refusals: int, waiting: int) -> float:
    """Seconds until a machine that was refused so many times is dialled again, where so many machines are waited for."""
    usual = min(_FIRST * 2.0 ** min(refusals - 1, 10), _USUAL)
    return min(max(usual, waiting / _DIALS_A_SECOND), _LONGEST)


class Schedule:
    """Who is dialled next, and how long is it worth it? Machines are numbers from 0; times are seconds of one clock.

    Every machine is dialled once, however long that takes a large fleet; from then on the fleet has `patience` seconds. With `settle`
    it is over earlier: when a machine has come up, and for so many seconds none of the others, each of which was dialled again.
    """

    def __init__(self, count: int, now: float, patience: float, settle: float | None = None) -> None:
        self._due = [(now, number) for number in range(count)]
        self._patience, self._settle = patience, settle
        self._unasked = set(range(count))
        self._refusals = [0] * count
        self._flying = 0
        self._ends: float | None = None
        self._last_up: float | None = None

    @property
    def waiting(self) -> int:
        """How many machines are neither up nor given up."""
        return len(self._due) + self._flying

    def take(self, now: float, room: int) -> list[int]:
        """Machines to dial now, at most `room`; how each dial ended is told by `refused` or `ended`."""
        taken: list[int] = []
        while self._due and self._due[0][0] <= now and len(taken) < room:
            taken.append(heapq.heappop(self._due)[1])
        self._flying += len(taken)
        return taken

    def refused(self, number: int, now: float) -> None:
        """The machine is not there yet."""
        self._answered(number, now)
        self._refusals[number] += 1
        heapq.heappush(self._due, (now + interval(self._refusals[number], self.waiting + 1), number))

    def ended(self, number: int, now: float, *, up: bool) -> None:
        """The machine is up, or nothing is to be expected of it any more."""
        self._answered(number, now)
        if up:
            self._last_up = now

    def _answered(self, number: int, now: float) -> None:
        self._flying -= 1
        self._unasked.discard(number)
        if not self._unasked and self._ends is None:
            self._ends = now + self._patience

    def over(self, now: float) -> bool:
        """Whether no more dials are to be begun."""
        return not self.waiting or now >= self._end()

    def pause(self, now: float) -> float:
        """Seconds until there is something to begin, or nothing any more."""
        due = self._due[0][0] if self._due else float("inf")
        return max(0.0, min(due, self._end()) - now)

    def _end(self) -> float:
        if self._ends is None:
            return float("inf")
        if self._settle is None or self._last_up is None:
            return self._ends
        # A large fleet is dialled in long rounds; a pause between two of them must not look like the end.
        return min(self._ends, self._last_up + max(self._settle, 1.5 * interval(10, self.waiting)))


class Listener:
    """One machine that is waited for, and what became of it: `listening`, else `failure`; `waited` is seconds.

    `renew` fetches other credentials than those it is given. It is `None` where those at hand were fetched just now, so that others
    cannot help; it is called once at most.
    """

    def __init__(self, name: str, port: int, credentials: Credentials, renew: Renew | None = None) -> None:
        self.name = name
        self.port = port
        self.credentials = credentials
        self.renew = renew
        self.listening = False
        self.waited = 0.0
        self.failure: ArcError | None = None
        self._stale = False
        self._answer: Answer | None = None
        self._counts: dict[tuple[str, int | None], int] = {}

    def attempt(self, dial: Dial, renewing: threading.Semaphore) -> None:
        """Dial once, with new credentials where they are due and no more than a few machines fetch some. Raises Answer, ArcError."""
        if self._stale and self.renew is not None and renewing.acquire(blocking=False):
            try:
                self.credentials = self.renew(self.credentials)
            finally:
                renewing.release()
            self._stale, self.renew = False, None
        dial(self.credentials, self.port)

    def is_hopeless(self, answer: Answer) -> bool:
        """Take note of a refusal; whether it is the last word."""
        kind = answer.kind, answer.status
        self._answer, self._counts[kind] = answer, self._counts.get(kind, 0) + 1
        # A connection without listeners is known to the relay: the credentials name the right one.
        known = self.renew is None or "no listeners" in answer.text.lower()
        age = 0.0 if known else time.time() - self.credentials.obtained_on
        decision = decide(answer, 0, self.renew is None, float("inf"), count=self._counts[kind], age=age)
        self._stale = self._stale or isinstance(decision, Refresh)
        if isinstance(decision, Stop):
            self.failure = self._explained(
                SSHD_DOWN if is_sshd_down(answer) else REFUSED if answer.kind == HTTP else None
            )
            return True
        return False

    def give_up(self, why: ArcError | None) -> None:
        """The waiting is over, because of `why` or because time is up."""
        if why is not None:
            self.failure = type(why)(f"{self.name}: {why.message}", code=why.code, hint=why.hint)
        else:
            self.failure = self._explained(NOT_LISTENING)

    def _explained(self, code: str | None) -> ArcError:
        answer = self._answer or Answer(HTTP, "no answer", 404)
        failure = explain(answer, self.name, self.port, self.credentials.host)
        failure.code = code
        return failure


def await_listeners(
    listeners: Sequence[Listener],
    *,
    patience: float,
    settle: float | None = None,
    threads: int = 32,
    sleep: Callable[[float], None] = time.sleep,
    dial: Dial | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Dial the listeners until they are up or `Schedule` says that it is over; what became of each is noted in it.

    At most `threads` dials are under way at once. `sleep` may raise ArcError to end it; what is under way then ends by itself.
    """
    if not listeners:
        return
    started = clock()
    schedule = Schedule(len(listeners), started, patience, settle)
    dial = dial or Probe(os.environ).dial
    # Fetching credentials may take long where Azure throttles; most threads have to be left for the others.
    renewing = threading.Semaphore(max(1, threads // 4))
    flying: dict[Future[Answer | ArcError | None], int] = {}

    def land(timeout: float) -> None:
        for done in wait(flying, timeout, FIRST_COMPLETED).done:
            number = flying.pop(done)
            _note(schedule, number, listeners[number], done.result(), clock(), started)

    stopped: ArcError | None = None
    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(listeners)))) as pool:
        try:
            while not schedule.over(clock()):
                for number in schedule.take(clock(), threads - len(flying)):
                    flying[pool.submit(_attempt, listeners[number], dial, renewing)] = number
                pause = schedule.pause(clock()) if len(flying) < threads else _LOOK
                if flying:
                    land(min(pause, _LOOK))
                    sleep(0)
                else:
                    sleep(pause)
        except ArcError as exc:
            stopped = exc
        while flying:
            land(_LOOK)
    for listener in listeners:
        if not listener.listening and listener.failure is None:
            listener.waited = clock() - started
            listener.give_up(stopped)


def _attempt(listener: Listener, dial: Dial, renewing: threading.Semaphore) -> Answer | ArcError | None:
    """Why the machine was not reached; `None` when it was."""
    try:
        listener.attempt(dial, renewing)
    except (Answer, ArcError) as exc:
        return exc
    except Exception as exc:  # noqa: BLE001
        # A fault of ours on one machine must not take the results of all others with it.
        return ArcError(
            f"{listener.name}: unexpected {type(exc).__name__}: {redact(str(exc))}",
            code="InternalError",
            hint="Please report this with the version of arcfleet.ssh.",
        )
    return None


def _note(
    schedule: Schedule, number: int, listener: Listener, told: Answer | ArcError | None, now: float, started: float
) -> None:
    listener.waited = now - started
    if isinstance(told, Answer):
        if listener.is_hopeless(told):
            schedule.ended(number, now, up=False)
        else:
            schedule.refused(number, now)
        return
    listener.listening, listener.failure = told is None, told
    schedule.ended(number, now, up=told is None)


class Probe:
    """Dials machines to see whether they can be reached. Safe to share between threads: each has a dialler of its own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._own = threading.local()

    def dial(self, credentials: Credentials, port: int) -> None:
        """Let the relay connect to the machine's `port`, and leave again. Raises Answer."""
        if not hasattr(self._own, "dialler"):
            self._own.dialler = Dialler(self._environ)
        relay, _early = self._own.dialler.open(credentials, port, time.monotonic() + ATTEMPT)
        _leave(relay)


def _leave(relay: Tls) -> None:
    """Close the WebSocket (RFC 6455, 7.1.2), with time for the other side to do so too."""
    deadline, view = time.monotonic() + _GOODBYE, memoryview(bytearray(16 * 1024))
    with contextlib.closing(relay), contextlib.suppress(OSError):
        relay.send(Framer().control(CLOSE, close_payload(NORMAL)))
        relay.flush()
        poll = select.poll()
        poll.register(relay.fileno(), select.POLLIN)
        # A socket that is closed before sshd's banner was read is reset, and the good-bye may be lost with it.
        while True:
            try:
                if not relay.recv_into(view):
                    return
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    return
