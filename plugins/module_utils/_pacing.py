# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When may the next request go out, and when may a failed one go again?

One pace for all threads of a run. Azure counts requests in token buckets, per subscription and kind of operation, and queries of
Resource Graph in windows; each answer says what is left. So a run sends as fast as Azure lets it, stops a whole lane when one of
its requests is refused, and sends nothing before the time it was told. Sizes and rates are those of "Understand how Azure
Resource Manager throttles requests" and of "Guidance for throttled requests in Azure Resource Graph"; headers correct them.
`Bucket` and `again` are pure. Private to arcfleet.ssh.
"""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ._errors import ConnectionFailed, Interrupted, Throttled

READS, WRITES, DELETES, QUERIES = "reads", "writes", "deletes", "queries"

# Of each kind of lane: how many requests fit into the bucket, and how many a second flow back.
LIMITS = {READS: (250.0, 25.0), WRITES: (200.0, 10.0), DELETES: (200.0, 10.0), QUERIES: (15.0, 3.0)}

# Being told to wait longer than this (seconds) is a failure to report: a person should know before hours have gone.
LONGEST_WAIT = 900.0

# A refusal in spite of the pace means that others draw from the same bucket, or that it fills more slowly than documented.
_SLOWER, _FASTER, _SLOWEST = 0.7, 0.02, 0.1

# The network counts as lost when so many requests in a row got no answer and none came for so many seconds: then all that is
# left fails at once, instead of every machine waiting for its own time-outs.
_LOST_AFTER, _LOST_SECONDS = 20, 60.0

# Methods that change a resource. POST is not among them: ours ask for data, or for a state that ARM reaches once.
WRITING = frozenset(("PUT", "PATCH", "DELETE"))

_TRANSIENT = frozenset((408, 500, 502, 503, 504))
_ATTEMPTS = 8
_BACK_OFF_AT_MOST = 30.0

_SUBSCRIPTION = re.compile(r"/subscriptions/([^/?]+)", re.IGNORECASE)
_QUERY = re.compile(r"/providers/Microsoft\.ResourceGraph/resources(?:$|\?)", re.IGNORECASE)


@dataclass(frozen=True)
class Lane:
    """Requests that Azure counts together: a kind of operation in one subscription (the empty text: in the tenant)."""

    subscription: str
    kind: str


def lane_of(method: str, url: str) -> Lane:
    """The lane of a request. ARM counts a POST as a write, whatever it does."""
    if _QUERY.search(url):
        return Lane("", QUERIES)
    found = _SUBSCRIPTION.search(url)
    kind = {"GET": READS, "HEAD": READS, "DELETE": DELETES}.get(method, WRITES)
    return Lane(found[1].lower() if found else "", kind)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """How many seconds an answer asks to wait: its Retry-After, in seconds or as a date; `now` is in unix seconds."""
    for name, unit in (("retry-after-ms", 1000.0), ("x-ms-retry-after-ms", 1000.0), ("Retry-After", 1.0)):
        text = (headers.get(name) or "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text) / unit
        if text and name == "Retry-After":
            try:
                return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
            except (TypeError, ValueError):
                return None
    return None


def remaining(lane: Lane, headers: Mapping[str, str]) -> int | None:
    """How many requests of `lane` are left, by the answer's headers; the least of several."""
    names = (
        ("x-ms-user-quota-remaining",)
        if lane.kind == QUERIES
        else tuple(
            f"x-ms-ratelimit-remaining-{scope}-{lane.kind}"
            for scope in ("subscription", "subscription-global", "tenant")
        )
    )
    texts = [(headers.get(name) or "").strip() for name in names]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def resets_after(headers: Mapping[str, str]) -> float | None:
    """When Resource Graph's window begins anew: `x-ms-user-quota-resets-after`, hh:mm:ss, in seconds."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d)(?:\.\d+)?", (headers.get("x-ms-user-quota-resets-after") or "").strip())
    return int(found[1]) * 3600.0 + int(found[2]) * 60.0 + int(found[3]) if found else None


def again(method: str, status: int | None, attempt: int, *, sent: bool, told: float | None) -> float | None:
    """After how many seconds a failed request goes again; `None` when it does not.

    `status` is `None` where no answer came, `sent` whether Azure may have seen the request, `told` what Retry-After says, `attempt`
    the number of this one, from 1. A write whose fate is unknown never goes again from here: somebody has to read first.
    """
    harmless = method not in WRITING
    if status is None:
        repeatable = harmless or not sent
    elif status in _TRANSIENT:
        repeatable = harmless
    else:
        # Refused, and told when to come again.
        repeatable = status == 429 or told is not None
    if not repeatable or (told or 0.0) > LONGEST_WAIT:
        return None
    if attempt >= _ATTEMPTS and not (status == 429 and attempt < 5 * _ATTEMPTS):
        return None
    return told if told is not None else min(2.0 ** (attempt - 1), _BACK_OFF_AT_MOST)


def come_back_after(seconds: float) -> str:
    """The remedy for being told to wait for longer than a run should."""
    return f"Azure asks to wait for {seconds:.0f} s; run again then."


@dataclass
class Bucket:
    """What is known of one lane. Times are seconds of one clock; `rate` is how many requests a second flow back."""

    size: float
    full_rate: float
    tokens: float = field(init=False)
    rate: float = field(init=False)
    filled_at: float = 0.0
    opens_at: float = 0.0
    begun: int = 0
    ended: int = 0
    newest: int = 0

    def __post_init__(self) -> None:
        self.tokens, self.rate = self.size, self.full_rate

    def take(self, now: float) -> float:
        """Take a token and return 0, or the seconds after which to ask again."""
        if now < self.opens_at:
            return self.opens_at - now
        if not self.newest and self.begun > self.ended:
            # Nobody knows what another run has left in the bucket, until the first answer tells.
            return 0.05
        self._fill(now)
        # Fractions that add up to one do so only nearly, and a clock must move before the next look.
        if self.tokens < 1 - 1e-6:
            return max((1 - self.tokens) / self.rate, 0.001)
        self.tokens -= 1
        self.begun += 1
        return 0.0

    def _fill(self, now: float) -> None:
        if now > self.filled_at:
            self.tokens = min(self.size, self.tokens + (now - self.filled_at) * self.rate)
            self.filled_at = now

    def answered(self, ticket: int, before: int, now: float, left: int | None, resets: float | None) -> None:
        """An admitted request was answered, with `left` more allowed; `ticket` and `before` are the values of `begun` and `ended` when it was begun."""
        self.ended += 1
        self.rate = min(self.full_rate, self.rate + self.full_rate * _FASTER)
        if ticket <= self.newest:
            # An answer that was overtaken knows less than the one that overtook it.
            return
        self.newest = ticket
        if left is not None:
            self._fill(now)
            # Whatever was under way with it may have been counted before it, or after, also where its answer came first.
            self.tokens = float(min(left - (self.begun - before - 1), self.size))
        if resets and self.tokens < 1:
            self._close(now + resets, self.size)

    def refused(self, ticket: int, now: float, wait: float) -> None:
        """An admitted request was answered with 429: nothing goes for `wait` seconds, then one to see."""
        self.ended += 1
        self.newest = max(self.newest, ticket)
        if now >= self.opens_at:
            self.rate = max(self.rate * _SLOWER, self.full_rate * _SLOWEST)
        self._close(now + wait, 1.0)

    def unanswered(self) -> None:
        """An admitted request got no answer."""
        self.ended += 1

    def _close(self, until: float, tokens: float) -> None:
        self.opens_at = max(self.opens_at, until)
        self.tokens, self.filled_at = tokens, self.opens_at


class Admission:
    """One admitted request; tell how it ended by exactly one of the methods of `Pace` that take it."""

    def __init__(self, lane: Lane, ticket: int, before: int) -> None:
        self.lane = lane
        self.ticket = ticket
        self.before = before


class Pace:
    """The pace of one run, shared by its threads. Counts what it did: `requests`, `throttled`, `waited` (seconds)."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], object] | None = None
    ) -> None:
        self._clock = clock
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._lock = threading.Lock()
        self._buckets: dict[Lane, Bucket] = {}
        self._turns: dict[Lane, threading.Lock] = {}
        self._silent = 0
        self._last_answer = clock()
        self.requests = 0
        self.throttled = 0
        self.waited = 0.0

    def admit(self, lane: Lane) -> Admission:
        """Wait until a request of `lane` may go.

        Raises Interrupted, ConnectionFailed once the network is lost, or Throttled when the lane stays closed for too long.
        """
        with self._lock:
            bucket = self._buckets.setdefault(lane, Bucket(*LIMITS[lane.kind]))
            turn = self._turns.setdefault(lane, threading.Lock())
        # One thread waits for the lane, the others for that one: so they go one by one when it opens.
        with turn:
            while True:
                self._go_on()
                with self._lock:
                    wait = bucket.take(self._clock())
                    if not wait:
                        self.requests += 1
                        return Admission(lane, bucket.begun, bucket.ended)
                    if wait > LONGEST_WAIT:
                        raise Throttled(
                            f"Azure accepts no {lane.kind} of this identity here for now.", hint=come_back_after(wait)
                        )
                    self.waited += wait
                self._pause(wait)

    def answered(self, admission: Admission, status: int, headers: Mapping[str, str]) -> None:
        """An admitted request was answered."""
        with self._lock:
            now, bucket = self._clock(), self._buckets[admission.lane]
            self._silent, self._last_answer = 0, now
            if status == 429:
                self.throttled += 1
                told = retry_after(headers, time.time())
                bucket.refused(admission.ticket, now, resets_after(headers) or 1.0 if told is None else told)
            else:
                left = remaining(admission.lane, headers)
                bucket.answered(admission.ticket, admission.before, now, left, resets_after(headers))

    def unanswered(self, admission: Admission) -> None:
        """An admitted request got no answer."""
        self.withdrawn(admission)
        with self._lock:
            self._silent += 1

    def withdrawn(self, admission: Admission) -> None:
        """An admitted request was not sent after all."""
        with self._lock:
            self._buckets[admission.lane].unanswered()

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the run is stopped. Raises Interrupted."""
        self._go_on()
        self._pause(seconds)
        self._go_on()

    def stop(self) -> None:
        """Begin nothing new: whoever waits, or asks for admission, gets Interrupted. What is under way ends."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Interrupted(
                "the run was interrupted before this was done.", hint="Run again: it goes on where it was."
            )
        if self._silent >= _LOST_AFTER and self._clock() - self._last_answer >= _LOST_SECONDS:
            raise ConnectionFailed(
                f"the network is lost: the last {self._silent} requests got no answer.",
                hint="Check the network and the proxy settings, and run again: what is done stays done.",
            )
