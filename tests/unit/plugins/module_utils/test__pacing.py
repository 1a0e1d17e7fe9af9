# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When does the pace let requests go, and what does it learn from answers?"""

from __future__ import annotations

import heapq
import itertools
import random
import threading

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ConnectionFailed, Interrupted, Throttled
from ansible_collections.arcfleet.ssh.plugins.module_utils._pacing import (
    LIMITS,
    Bucket,
    Lane,
    Pace,
    again,
    lane_of,
    remaining,
    resets_after,
    retry_after,
)

SUB = "11111111-2222-3333-4444-555555555555"
ARM = "https://management.azure.com"
READS = Lane(SUB, "reads")


class Clock:
    """Time that passes by pausing only."""

    def __init__(self):
        self.now = 1000.0
        self.paused = []

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.paused.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pace(clock):
    return Pace(clock=clock, pause=clock.pause)


def ok(pace, lane=READS, **headers):
    admission = pace.admit(lane)
    pace.answered(admission, 200, {key.replace("_", "-"): value for key, value in headers.items()})


def refuse(pace, seconds, lane=READS):
    pace.answered(pace.admit(lane), 429, {"Retry-After": str(seconds)})


@pytest.mark.parametrize(
    ("method", "path", "lane"),
    [
        ("GET", f"/subscriptions/{SUB}/resourceGroups/x", Lane(SUB, "reads")),
        ("HEAD", f"/Subscriptions/{SUB.upper()}?api-version=1", Lane(SUB, "reads")),
        ("PUT", f"/subscriptions/{SUB}/x", Lane(SUB, "writes")),
        ("POST", f"/subscriptions/{SUB}/x", Lane(SUB, "writes")),
        ("DELETE", f"/subscriptions/{SUB}/x", Lane(SUB, "deletes")),
        ("GET", "/subscriptions?api-version=1", Lane("", "reads")),
        ("POST", "/providers/Microsoft.ResourceGraph/resources?api-version=1", Lane("", "queries")),
    ],
)
def test_lanes(method, path, lane):
    assert lane_of(method, ARM + path) == lane


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0"}, 0),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert retry_after(headers, 10.0) == seconds


def test_what_is_left_is_the_least_of_what_the_headers_say():
    headers = {
        "x-ms-ratelimit-remaining-subscription-reads": "99",
        "x-ms-ratelimit-remaining-subscription-global-reads": "12",
        "x-ms-ratelimit-remaining-subscription-writes": "3",
        "x-ms-user-quota-remaining": "1",
        "x-ms-user-quota-resets-after": "00:01:05",
    }
    assert remaining(READS, headers) == 12
    assert remaining(Lane("", "queries"), headers) == 1
    assert remaining(Lane(SUB, "deletes"), headers) is None
    assert resets_after(headers) == 65
    assert resets_after({"x-ms-user-quota-resets-after": "soon"}) is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("status", [200, 400, 403, 404, 408, 409, 412, 429, 500, 502, 503, 504, None])
@pytest.mark.parametrize("told", [None, 4.0])
def test_what_goes_again(method, status, told):
    delay = again(method, status, 1, sent=True, told=told)
    if method in ("PUT", "DELETE") and status in (408, 500, 502, 503, 504, None):
        assert delay is None, "a write of unknown fate never goes again"
    elif status in (408, 429, 500, 502, 503, 504, None) or told:
        assert delay == (told or 1.0)
    else:
        assert delay is None


def test_back_off_grows_and_ends():
    delays = [again("GET", 500, attempt, sent=True, told=None) for attempt in range(1, 9)]
    assert delays == [1, 2, 4, 8, 16, 30, 30, None]
    assert again("PUT", None, 1, sent=False, told=None) == 1
    assert again("GET", 429, 20, sent=True, told=3.0) == 3.0, "throttling is Azure's normal state at this size"
    assert again("GET", 429, 1, sent=True, told=901.0) is None


def test_a_full_bucket_does_not_wait(pace, clock):
    for _time in range(250):
        ok(pace)
    assert clock.paused == [] and pace.requests == 250


def test_the_rate_is_the_documented_one_once_the_bucket_is_empty(pace, clock):
    begin = clock.now
    for _time in range(450):
        ok(pace)
    assert clock.now - begin == pytest.approx(200 / 25, rel=0.01)


@pytest.mark.parametrize(("kind", "size", "rate"), [("reads", 250, 25), ("writes", 200, 10), ("deletes", 200, 10)])
def test_the_documented_limits(kind, size, rate):
    assert LIMITS[kind] == (size, rate)


def test_headers_correct_the_estimate(pace, clock):
    ok(pace, x_ms_ratelimit_remaining_subscription_reads="2")
    for _time in range(3):
        ok(pace)
    assert clock.paused == [pytest.approx(1 / 25)], "two were left, the third waits for one to flow back"
    ok(pace, x_ms_ratelimit_remaining_subscription_reads="249")
    clock.paused.clear()
    for _time in range(200):
        ok(pace)
    assert clock.paused == []


def test_requests_under_way_are_taken_off_what_is_left():
    bucket = Bucket(250.0, 25.0)
    assert bucket.take(0) == 0
    bucket.answered(1, 0, 0, 249, None)
    assert [bucket.take(0) for _time in range(5)] == [0] * 5
    bucket.answered(bucket.begun, bucket.ended, 0, 7, None)
    assert bucket.tokens == 3


def two_under_way(left):
    """A bucket in which so many were left when two more requests began."""
    bucket = Bucket(250.0, 25.0)
    bucket.take(0)
    bucket.answered(1, 0, 0, left, None)
    for _time in range(2):
        bucket.take(0)
    return bucket


def test_an_overtaken_answer_changes_nothing():
    bucket = two_under_way(left=100)
    bucket.answered(3, 1, 0, 5, None)
    bucket.answered(2, 1, 0, 99, None)
    assert bucket.tokens == 4


def test_an_answer_may_know_nothing_of_a_request_that_was_answered_before_it():
    bucket = two_under_way(left=2)
    # Azure counted the third before the second, and its answer took longer.
    bucket.answered(2, 1, 0, 0, None)
    bucket.answered(3, 1, 0, 1, None)
    assert bucket.take(0) > 0


@pytest.mark.parametrize("workers", [4, 64])
@pytest.mark.parametrize("each_way", [0.005, 0.05])
def test_however_requests_and_answers_overtake_each_other_none_is_one_too_many(workers, each_way):
    for seed in range(10):
        refused, seconds = send(700, workers, each_way, random.Random(seed))
        assert refused == 0
        assert seconds < 1.02 * (700 - 200) / 10.0, "all that Azure allows is used"


def send(requests, workers, each_way, chance):
    """Send so many requests through Azure's bucket of 200, refilled with 10 a second, over lines of chance; how many it refused, and when
    the last was answered."""
    bucket, left, filled = Bucket(200.0, 10.0), 200.0, 0.0
    number, refused, now = itertools.count(), 0, 0.0
    events = [(0.0, next(number), "ask", (), None) for _worker in range(workers)]
    while events:
        now, _number, event, ticket, told = heapq.heappop(events)
        following = None
        if event == "ask" and requests:
            wait = bucket.take(now)
            if wait:
                following = now + wait, next(number), "ask", (), None
            else:
                requests -= 1
                following = (
                    now + chance.expovariate(1 / each_way),
                    next(number),
                    "count",
                    (bucket.begun, bucket.ended),
                    None,
                )
        elif event == "count":
            left, filled = min(200.0, left + (now - filled) * 10.0) - 1, now
            refused += left < 0
            following = now + chance.expovariate(1 / each_way), next(number), "answer", ticket, int(max(left, 0))
        elif event == "answer":
            bucket.answered(*ticket, now, told, None)
            following = now, next(number), "ask", (), None
        if following:
            heapq.heappush(events, following)
    return refused, now


def test_nobody_runs_ahead_of_the_first_answer():
    bucket = Bucket(250.0, 25.0)
    assert bucket.take(0) == 0
    assert bucket.take(0) > 0
    bucket.answered(1, 0, 0, 249, None)
    assert bucket.take(0) == 0


def test_one_refusal_stops_the_lane_for_all_and_no_other(pace, clock):
    ok(pace)
    ok(pace, Lane(SUB, "writes"))
    refuse(pace, 30)
    before = clock.now
    ok(pace, Lane(SUB, "writes"))
    ok(pace, Lane("other", "reads"))
    assert clock.now == before
    ok(pace)
    assert clock.now >= before + 30
    assert pace.throttled == 1


def test_the_longest_refusal_counts():
    bucket = Bucket(250.0, 25.0)
    bucket.take(0)
    bucket.answered(1, 0, 0, 249, None)
    bucket.take(0), bucket.take(0)
    bucket.refused(2, 0, 30)
    bucket.refused(3, 0, 5)
    assert bucket.take(29.9) > 0
    assert bucket.take(30) == 0


def test_after_a_refusal_the_lane_starts_slowly_and_recovers(pace, clock):
    for _time in range(10):
        ok(pace)
    refuse(pace, 1)
    begin = clock.now
    for _time in range(3):
        ok(pace)
    slow = clock.now - begin - 1
    assert slow > 2 / 25, "slower than documented, since somebody else draws from the bucket"
    for _time in range(60):
        ok(pace)
    begin = clock.now
    for _time in range(25):
        ok(pace)
    assert clock.now - begin == pytest.approx(1, rel=0.05)


def test_a_window_of_resource_graph(pace, clock):
    queries = Lane("", "queries")
    for left in range(14, -1, -1):
        ok(pace, queries, x_ms_user_quota_remaining=str(left), x_ms_user_quota_resets_after="00:00:05")
    assert clock.paused == []
    ok(pace, queries, x_ms_user_quota_remaining="14", x_ms_user_quota_resets_after="00:00:05")
    assert sum(clock.paused) == pytest.approx(5)


def test_a_refusal_for_hours_is_told_at_once_to_all_of_the_lane(pace, clock):
    ok(pace)
    refuse(pace, 7200)
    clock.now += 100
    with pytest.raises(Throttled) as caught:
        pace.admit(READS)
    assert caught.value.hint == "Azure asks to wait for 7100 s; run again then."
    ok(pace, Lane(SUB, "writes"))
    assert clock.paused == []


def test_a_stopped_pace_lets_nobody_go():
    pace = Pace()
    ok(pace)
    refuse(pace, 600)
    ended = []

    def wait():
        try:
            pace.admit(READS)
        except Interrupted as exc:
            ended.append(exc)

    threads = [threading.Thread(target=wait) for _thread in range(3)]
    for thread in threads:
        thread.start()
    pace.stop()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3
    with pytest.raises(Interrupted):
        pace.sleep(0.01)


def test_a_lost_network_is_told_at_once_to_all_that_is_left(pace, clock):
    for _time in range(19):
        pace.unanswered(pace.admit(READS))
    clock.now += 59
    pace.unanswered(pace.admit(READS))
    clock.now += 1
    with pytest.raises(ConnectionFailed) as caught:
        pace.admit(READS)
    assert "the last 20 requests got no answer" in caught.value.message


def test_any_answer_shows_that_the_network_is_there(pace, clock):
    for _time in range(30):
        pace.unanswered(pace.admit(READS))
    ok(pace)
    clock.now += 600
    pace.unanswered(pace.admit(READS))
    ok(pace)
