# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab's activity log refuse, delay, keep and order as Azure's does, and does its clock only go forward?"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from arclab.activity_log import RETENTION, ActivityLog, Occasion, parse_filter, parse_select, ticks_of, written
from arclab.clock import Clock
from arclab.http import ArmFailure
from arclab.store import Store

NOW = 1_800_000_000.0
SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
MACHINE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/Prod/providers/Microsoft.HybridCompute/machines/Web01"
SPAN = f"eventTimestamp ge '{written(ticks_of(NOW - 86400))}' and eventTimestamp le '{written(ticks_of(NOW))}'"


def occasion(operation: str = "Microsoft.HybridConnectivity/endpoints/write", resource_id: str = MACHINE) -> Occasion:
    return Occasion(operation, resource_id, "caller", "principal", "PUT", "correlation", "operation")


def make(tmp_path: Path, delay: float | None = 0.0) -> ActivityLog:
    return ActivityLog(Store(tmp_path / "state"), tenant="t", delay=delay)


def statuses(log: ActivityLog, filter_text: str = SPAN, now: float = NOW) -> list[str]:
    return [event.status for event in log.read(SUBSCRIPTION, parse_filter(filter_text, now), now)]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        SPAN.partition(" and ")[0],
        SPAN.replace("2027", "today"),
        SPAN.replace("Z'", "'"),
        SPAN.replace("'", ""),
        f"{SPAN} or resourceGroupName eq 'g'",
        f"{SPAN} and operationName eq 'x'",
        f"{SPAN} and status eq 'Failed'",
        f"{SPAN} and resourceGroupName ne 'g'",
        f"{SPAN} and resourceGroupName eq 'g' and resourceProvider eq 'p'",
        f"resourceProvider eq 'p' and {SPAN}",
        SPAN.replace(" ge ", " gt "),
    ],
)
def test_no_other_filter_is_allowed(text: str | None) -> None:
    with pytest.raises(ArmFailure) as caught:
        parse_filter(text, NOW)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "more",
    [
        "",
        " and resourceGroupName eq 'PROD'",
        f" and resourceUri eq '{MACHINE.lower()}'",
        " and resourceProvider eq 'microsoft.hybridconnectivity'",
        " and correlationId eq 'correlation'",
    ],
)
def test_the_documented_filters_find_the_event(tmp_path: Path, more: str) -> None:
    log = make(tmp_path)
    log.note(occasion(), "Started", NOW - 60)
    log.note(
        Occasion("Microsoft.Authorization/x/write", f"/subscriptions/{SUBSCRIPTION}", "c", "p", "PUT", "other", "o"),
        "Failed",
        NOW - 50,
    )
    assert statuses(log, SPAN + more) == (["Started"] if more else ["Failed", "Started"])


@pytest.mark.parametrize(("start", "end"), [(-RETENTION - 60, 0), (0, -60)])
def test_a_span_that_cannot_be_is_refused(start: float, end: float) -> None:
    span = [written(ticks_of(NOW + offset)) for offset in (start, end)]
    with pytest.raises(ArmFailure):
        parse_filter(f"eventTimestamp ge '{span[0]}' and eventTimestamp le '{span[1]}'", NOW)


def test_select_knows_the_documented_names_only() -> None:
    assert parse_select(None) is None
    assert parse_select("eventDataId, status") == ["eventDataId", "status"]
    for unknown in ("caller", "eventdataid", "status,", ""):
        with pytest.raises(ArmFailure):
            parse_select(unknown)


def test_the_newest_event_comes_first_whatever_the_order_in_which_they_were_noted(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.note(occasion(), "Succeeded", NOW - 10)
    log.note(occasion(), "Accepted", NOW - 20)
    log.note(occasion(), "Started", NOW - 20)
    assert statuses(log) == ["Succeeded", "Accepted", "Started"]


def test_both_ends_of_the_span_count(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.note(occasion(), "Started", NOW - 10)
    (event,) = log.read(SUBSCRIPTION, parse_filter(SPAN, NOW), NOW)
    only = f"eventTimestamp ge '{written(event.ticks)}' and eventTimestamp le '{written(event.ticks)}'"
    assert statuses(log, only) == ["Started"]
    before = only.replace(f"le '{written(event.ticks)}'", f"le '{written(event.ticks - 1)}'").replace(
        f"ge '{written(event.ticks)}'", f"ge '{written(event.ticks - 1)}'"
    )
    assert statuses(log, before) == []


def test_an_event_becomes_readable_after_minutes_of_its_own(tmp_path: Path) -> None:
    log = make(tmp_path, delay=None)
    for number in range(50):
        log.note(occasion(), "Started", NOW + number)
    span = SPAN.replace(written(ticks_of(NOW)), written(ticks_of(NOW + 3600)))
    found = {now: statuses(log, span, NOW + now) for now in (179, 600, 1249)}
    assert [len(some) for some in found.values()][::2] == [0, 50]
    assert 0 < len(found[600]) < 50
    again = [log.readable_at(event) for event in log.read(SUBSCRIPTION, parse_filter(span, NOW), NOW + 3600)]
    log.note(occasion(), "Started", NOW + 60)
    assert [log.readable_at(event) for event in log.read(SUBSCRIPTION, parse_filter(span, NOW), NOW + 3600)][
        1:
    ] == again


def test_the_log_outlives_the_process_and_forgets_after_ninety_days(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    log = ActivityLog(store, tenant="t", delay=0.0)
    log.note(occasion(), "Failed", NOW - RETENTION - 5, 409)
    log.note(occasion(), "Succeeded", NOW - 5, 200)
    log.forget(NOW)
    store.close()
    again = make(tmp_path)
    everything = (
        f"eventTimestamp ge '{written(ticks_of(NOW - RETENTION))}' and eventTimestamp le '{written(ticks_of(NOW))}'"
    )
    assert statuses(again, everything) == ["Succeeded"]
    again.note(occasion(), "Started", NOW - 4)
    ids = [event.id for event in again.read(SUBSCRIPTION, parse_filter(SPAN, NOW), NOW)]
    assert len(set(ids)) == 2


def test_the_clock_goes_forward_only() -> None:
    clock = Clock()
    assert clock.advance(3600) == pytest.approx(time.time() + 3600, abs=5)
    assert Clock(clock.ahead)() == pytest.approx(clock(), abs=5)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="only goes forward"):
            clock.advance(seconds)
    assert clock.ahead == 3600
