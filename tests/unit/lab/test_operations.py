# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do long-running operations end as their style says?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclab.http import ArmFailure
from arclab.operations import STILL_AT_WORK, Operation, Operations
from arclab.options import LroStyle
from arclab.store import Store

RESOURCE = "/subscriptions/s1/resourceGroups/g/providers/Microsoft.HybridCompute/machines/web01/extensions/X"
URL = "https://lab"


def make(tmp_path: Path, style: LroStyle = "async") -> tuple[Operations, list[str]]:
    operations, ended = Operations(Store(tmp_path / "state"), style=style, seconds=10), []

    def finish(operation: Operation, _now: float) -> dict[str, Any] | None:
        ended.append(operation.resource)
        return operation.failure

    operations.on_end("write", finish)
    return operations, ended


def start(operations: Operations, now: float = 100.0, **more: Any) -> Operation:
    return operations.start(
        "write",
        resource=RESOURCE,
        method="PUT",
        location="westeurope",
        principal_id="p1",
        api_version="2025-01-13",
        now=now,
        **more,
    )


def test_an_operation_ends_when_its_time_is_over(tmp_path: Path) -> None:
    operations, ended = make(tmp_path)
    operation = start(operations)
    operations.settle(109.9)
    assert operation.status == "InProgress"
    operations.settle(110.0)
    assert operation.status == "Succeeded"
    assert ended == [RESOURCE.lower()]
    assert operations.running(RESOURCE) == []


def test_what_is_still_at_work_on_the_machine_ends_when_it_says_so(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path)
    operations.on_end("write", lambda _operation, _now: STILL_AT_WORK)
    operation = start(operations)
    operations.settle(200.0)
    assert operation.status == "InProgress" and operations.running(RESOURCE) == [operation]
    operations.end(operation, 201.0, {"code": "HCRP500", "message": "no"})
    operations.settle(300.0)
    assert (operation.status, operation.ended) == ("Failed", 201.0)


def test_operations_end_in_the_order_of_their_times(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path)
    late, early = start(operations, 105.0), start(operations, 100.0)
    operations.settle(112.0)
    assert (late.status, early.status) == ("InProgress", "Succeeded")


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("async", {"Azure-AsyncOperation", "Location", "Retry-After"}),
        ("location", {"Location", "Retry-After"}),
        ("body", set()),
    ],
)
def test_styles_differ_in_their_headers(tmp_path: Path, style: LroStyle, names: set[str]) -> None:
    operations, _ended = make(tmp_path, style)
    headers = operations.headers(start(operations), URL)
    assert set(headers) == names
    if names:
        assert headers["Location"].startswith(f"{URL}/subscriptions/s1/providers/Microsoft.HybridCompute/locations/")
        assert headers["Retry-After"] == "10"


def test_the_async_address_tells_the_status(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path)
    operations.failure_of_next = {"code": "HCRP500", "message": "no"}
    operation = start(operations)
    assert operations.failure_of_next is None
    running = operations.status(operation, "/id")
    assert (running.body["status"], running.headers) == ("InProgress", {"Retry-After": "10"})
    operations.settle(200.0)
    over = operations.status(operation, "/id")
    assert (over.status, over.body["status"]) == (200, "Failed")
    assert over.body["error"] == {"code": "HCRP500", "message": "no"}


def test_the_location_answers_202_and_then_the_result(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path, "location")
    writing, deleting = start(operations), start(operations, deletes=True)
    assert operations.result(writing, URL, None).status == 202
    operations.settle(200.0)
    assert (operations.result(writing, URL, {"a": 1}).status, operations.result(deleting, URL, None).status) == (
        200,
        204,
    )


def test_the_location_of_a_failed_operation_is_an_error(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path, "location")
    operations.failure_of_next = {"code": "HCRP500", "message": "no"}
    operation = start(operations)
    operations.settle(200.0)
    with pytest.raises(ArmFailure, match="HCRP500"):
        operations.result(operation, URL, None)


def test_one_that_waits_ends_when_it_is_told_to(tmp_path: Path) -> None:
    operations, ended = make(tmp_path)
    operation = start(operations, waits=True)
    operations.settle(1e9)
    assert operation.status == "InProgress"
    assert operations.running(RESOURCE.rsplit("/", 2)[0]) == [operation]
    operations.end_at(operation, 1e9 + 5)
    operations.settle(1e9 + 5)
    assert (operation.status, len(ended)) == ("Succeeded", 1)


def test_a_cancelled_operation_does_nothing_more(tmp_path: Path) -> None:
    operations, ended = make(tmp_path)
    operation = start(operations)
    operations.end(operation, 101.0, status="Canceled")
    operations.settle(200.0)
    assert (operation.status, ended) == ("Canceled", [])


def test_operations_survive_a_restart(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path)
    operation = start(operations)
    operations._store.close()
    again, ended = make(tmp_path)
    again.settle(200.0)
    assert again.find(operation.id).status == "Succeeded"
    assert ended == [RESOURCE.lower()]


def test_an_unknown_operation_is_not_found(tmp_path: Path) -> None:
    operations, _ended = make(tmp_path)
    with pytest.raises(ArmFailure, match="404"):
        operations.find("nothing")
