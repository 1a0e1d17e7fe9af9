# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a fleet waited for once, is nobody dialled more than needed, and does nobody wait for a machine that never comes?"""

from __future__ import annotations

import heapq
import threading
import time

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _listeners
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ConnectionFailed, Interrupted
from ansible_collections.arcfleet.ssh.plugins.module_utils._listeners import (
    Listener,
    Schedule,
    await_listeners,
    interval,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._credentials import Credentials
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._dial import HTTP, SILENT, UNREACHABLE, Answer

NO_ENDPOINT = Answer(HTTP, "Endpoint does not exist. TrackingId:1_G13", 404)
NO_LISTENERS = Answer(HTTP, "There are no listeners connected for the endpoint. TrackingId:1_G13", 404)
NO_SSHD = Answer(HTTP, "connection to localhost:22 failed: dial tcp [::1]:22: connect: connection refused", 503)
REFUSED = Answer(HTTP, "InvalidSignature", 401)
LONG_AGO = 3600


# --- the schedule -----------------------------------------------------------------------------------------------------


def test_intervals_double_up_to_a_limit_that_grows_with_the_fleet():
    assert [interval(refusals, 3) for refusals in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 5, 5, 5]
    assert interval(1, 1000) == 20 and interval(9, 1000) == 20
    assert interval(1, 5000) == interval(99, 100_000) == 30


def test_every_machine_is_dialled_once_before_the_time_counts():
    schedule = Schedule(3, 0, patience=10)
    assert schedule.take(0, 2) == [0, 1]
    schedule.refused(0, 100)
    schedule.refused(1, 100)
    assert not schedule.over(1000) and schedule.pause(1000) == 0
    assert schedule.take(1000, 1) == [2], "a first dial comes before any second one"
    schedule.ended(2, 1000, up=True)
    assert not schedule.over(1009.9) and schedule.over(1010)


def test_without_patience_each_is_dialled_once():
    schedule = Schedule(2, 0, patience=0)
    assert schedule.take(0, 9) == [0, 1]
    schedule.refused(0, 1)
    assert not schedule.over(1)
    schedule.refused(1, 2)
    assert schedule.over(2) and schedule.waiting == 2


def test_whoever_has_ended_is_not_dialled_again():
    schedule = Schedule(3, 0, patience=100)
    schedule.take(0, 3)
    schedule.ended(0, 1, up=True)
    schedule.ended(1, 1, up=False)
    schedule.refused(2, 1)
    assert schedule.waiting == 1 and schedule.pause(1) == 1 and schedule.take(1.9, 3) == []
    assert schedule.take(2, 3) == [2]
    schedule.ended(2, 2, up=True)
    assert schedule.over(2) and schedule.take(50, 3) == []


def test_settling_begins_with_a_machine_that_is_up():
    schedule = Schedule(2, 0, patience=100, settle=10)
    schedule.take(0, 2)
    schedule.refused(0, 0)
    schedule.refused(1, 0)
    assert not schedule.over(99), "while nobody is up there is nobody to go on"
    assert schedule.take(50, 1) == [0]
    schedule.ended(0, 50, up=True)
    assert not schedule.over(59.9) and schedule.over(60)


def test_a_large_fleet_settles_no_sooner_than_its_rounds_are_long():
    count = 2000
    schedule = Schedule(count, 0, patience=1000, settle=10)
    for number in schedule.take(0, count):
        if number:
            schedule.refused(number, 0)
        else:
            schedule.ended(0, 0, up=True)
    assert not schedule.over(44) and schedule.over(45)


def simulate(ready_at, *, threads, lasts, patience, settle=None):
    """When each machine was found to be up, all dials as (time, machine), and when it was over; no clock, no threads."""
    schedule = Schedule(len(ready_at), 0.0, patience, settle)
    now, flying, found, dials = 0.0, [], {}, []
    while not schedule.over(now):
        for number in schedule.take(now, threads - len(flying)):
            dials.append((now, number))
            heapq.heappush(flying, (now + lasts, number))
        pause = schedule.pause(now) if len(flying) < threads else float("inf")
        now = min(now + pause, flying[0][0] if flying else float("inf"))
        while flying and flying[0][0] <= now:
            ended, number = heapq.heappop(flying)
            if ended - lasts >= ready_at[number]:
                found[number] = ended
                schedule.ended(number, ended, up=True)
            else:
                schedule.refused(number, ended)
    return found, dials, now


def test_five_thousand_machines():
    never = float("inf")
    ready_at = [never if number % 50 == 0 else 30 + (number * 37) % 90 for number in range(5000)]
    found, dials, over = simulate(ready_at, threads=64, lasts=0.2, patience=200)
    assert len(found) == 4900 and max(found[number] - ready_at[number] for number in found) < 60
    asked = {}
    for when, number in dials:
        assert number not in found or when < found[number], "dialled although it was up"
        asked[number] = asked.get(number, 0) + 1
    assert len(asked) == 5000
    assert len(dials) < 5000 * 7, "what never comes is dialled every few seconds, and the rest hardly more than needed"
    assert 200 <= over <= 230


def test_a_few_machines_that_never_come_cost_the_others_nothing():
    ready_at = [float("inf")] * 5 + [20.0] * 95
    found, _dials, over = simulate(ready_at, threads=8, lasts=0.1, patience=200, settle=10)
    assert len(found) == 95 and max(found.values()) < 30 and over < 40


# --- answers ----------------------------------------------------------------------------------------------------------


def credentials(age=LONG_AGO, key="old"):
    now = int(time.time())
    return Credentials("ns", "servicebus.example", "machines/x/1/v2", key, "eyJ", now + 9000, now - age)


class Relay:
    """What the relay answers: for each machine's port a list of answers, the last of which stays."""

    def __init__(self, **answers):
        self.answers = answers
        self.dialled = []
        self.keys = []
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def dial(self, given, port):
        with self._lock:
            self.dialled.append(port)
            self.keys.append(given.access_key)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            told = self.answers.get(f"m{port}", [None])
            answer = told.pop(0) if len(told) > 1 else told[0]
        time.sleep(0.002)
        with self._lock:
            self.at_once -= 1
        if answer is not None:
            raise answer


@pytest.fixture
def fast(monkeypatch):
    """Rounds of milliseconds instead of seconds."""
    for name in ("_FIRST", "_USUAL", "_LONGEST"):
        monkeypatch.setattr(_listeners, name, 0.005)


def await_all(relay, listeners, **options):
    await_listeners(listeners, **{"patience": 0.3, "dial": relay.dial, **options})
    return {listener.name: listener for listener in listeners}


def machine(port, renew=None, age=LONG_AGO):
    return Listener(f"m{port}", port, credentials(age), renew)


@pytest.mark.usefixtures("fast")
def test_each_is_told_by_itself():
    relay = Relay(m2=[NO_ENDPOINT, NO_LISTENERS, None], m3=[NO_SSHD], m4=[NO_LISTENERS])
    told = await_all(relay, [machine(port) for port in (1, 2, 3, 4)])
    assert {name: listener.listening for name, listener in told.items()} == {
        "m1": True,
        "m2": True,
        "m3": False,
        "m4": False,
    }
    assert [relay.dialled.count(port) for port in (1, 2, 3)] == [1, 3, 1] and relay.dialled.count(4) > 3
    assert told["m1"].failure is told["m2"].failure is None
    assert told["m3"].failure.code == "SshdDown"
    assert "m3: nothing listens on port 3 of the machine" in told["m3"].failure.message
    assert told["m4"].failure.code == "NotListening"
    assert "m4: the machine's agent is not connected to the relay" in told["m4"].failure.message
    assert told["m3"].waited < told["m4"].waited and told["m1"].waited < 0.3 <= told["m4"].waited


@pytest.mark.usefixtures("fast")
def test_no_more_dials_at_once_than_threads():
    relay = Relay(m0=[NO_LISTENERS])
    told = await_all(relay, [machine(port) for port in range(60)], threads=4)
    assert relay.most <= 4 and sum(listener.listening for listener in told.values()) == 59


@pytest.mark.usefixtures("fast")
def test_a_settled_fleet_is_not_waited_for_any_longer():
    started = time.monotonic()
    told = await_all(Relay(m2=[NO_LISTENERS]), [machine(1), machine(2)], patience=60, settle=0.05)
    assert told["m1"].listening and told["m2"].failure.code == "NotListening"
    assert time.monotonic() - started < 30


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("answer", "renews", "fresh"),
    [(NO_ENDPOINT, 1, False), (REFUSED, 1, False), (NO_LISTENERS, 0, False), (NO_ENDPOINT, 0, True)],
)
def test_credentials_are_renewed_once_where_that_may_help(answer, renews, fresh):
    renewed = []

    def renew(refused):
        renewed.append(refused.access_key)
        return credentials(0, "new")

    relay = Relay(m1=[answer, answer, answer, answer, None])
    if answer is REFUSED:
        relay.answers["m1"] = [answer, None]
    (listener,) = await_all(relay, [machine(1, None if fresh else renew)]).values()
    assert listener.listening and renewed == ["old"] * renews
    assert relay.keys[-1] == ("new" if renews else "old") and relay.keys[0] == "old"


@pytest.mark.usefixtures("fast")
def test_new_credentials_that_are_refused_are_the_last_word():
    relay = Relay(m1=[REFUSED])
    (listener,) = await_all(relay, [machine(1, lambda refused: credentials(0, "new"))]).values()
    assert listener.failure.code == "RelayRefused" and listener.failure.status == 401
    assert relay.keys == ["old", "new"]


@pytest.mark.usefixtures("fast")
def test_credentials_that_cannot_be_renewed_fail_the_machine():
    def renew(refused):
        raise ArcError("m1: cannot get the relay credentials.", code="AuthorizationFailed", hint="Do this.")

    (listener,) = await_all(Relay(m1=[NO_ENDPOINT]), [machine(1, renew)]).values()
    assert str(listener.failure) == "m1: cannot get the relay credentials. Do this."


@pytest.mark.usefixtures("fast")
def test_fetching_credentials_leaves_threads_for_the_others():
    hold, at_once, most = threading.Event(), [0], [0]

    def renew(refused):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        hold.wait(5)
        at_once[0] -= 1
        return credentials(0, "new")

    relay = Relay(**{f"m{port}": [NO_ENDPOINT] * 30 + [None] for port in range(8)}, m99=[NO_LISTENERS] * 20 + [None])
    patient = machine(99)

    def sleep(seconds):
        if patient.listening:
            hold.set()
        time.sleep(seconds)

    told = await_all(relay, [*(machine(port, renew) for port in range(8)), patient], patience=5, threads=4, sleep=sleep)
    assert most == [1] and hold.is_set() and all(listener.listening for listener in told.values())


@pytest.mark.usefixtures("fast")
def test_a_network_that_is_not_there_is_not_tried_for_ever():
    relay = Relay(m1=[Answer(UNREACHABLE, "the name cannot be resolved")], m2=[Answer(SILENT, "no answer within 10 s")])
    told = await_all(relay, [machine(1), machine(2)], patience=60)
    assert isinstance(told["m1"].failure, ConnectionFailed) and isinstance(told["m2"].failure, ConnectionFailed)
    assert sorted(relay.dialled) == [1] * 6 + [2] * 6


@pytest.mark.usefixtures("fast")
def test_a_fault_on_one_machine_takes_no_other_with_it():
    told = await_all(Relay(m1=[ZeroDivisionError("Bearer abc.def")]), [machine(1), machine(2)])
    assert told["m1"].failure.code == "InternalError" and "abc" not in str(told["m1"].failure)
    assert told["m2"].listening


@pytest.mark.usefixtures("fast")
def test_a_stop_ends_the_waiting_and_keeps_what_is_known():
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) > 5:
            raise Interrupted("the run was interrupted before this was done.", hint="Run again.")
        time.sleep(seconds)

    told = await_all(Relay(m2=[NO_LISTENERS]), [machine(1), machine(2)], patience=60, sleep=sleep)
    assert told["m1"].listening
    assert str(told["m2"].failure) == "m2: the run was interrupted before this was done. Run again."
    assert told["m2"].failure.failure()["code"] == "Interrupted"


def test_nobody_to_wait_for():
    await_listeners([], patience=60)
