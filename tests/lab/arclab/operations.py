# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which operations are still running, and how does a client learn that they ended?

ARM's three styles: `async` (Azure-AsyncOperation and Location), `location` (Location alone: 202 until it is over),
`body` (no header; the resource's provisioningState tells). Operations end when their time is over, looked at whenever a
request comes; one whose end depends on something else (an agent that is offline, a script) has no such time until it is
given one.
"""

from __future__ import annotations

import heapq
import math
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .fleet import stamp
from .http import Answer, ArmFailure
from .options import LroStyle
from .store import Store

IN_PROGRESS = "InProgress"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
CANCELED = "Canceled"


@dataclass
class Operation:
    """`kind` names what is done at the end, `resource` (a key) on what; `ends_at` (unix s) is `None` while nobody
    knows; `occasion` is the activity log's."""

    id: str
    kind: str
    resource: str
    method: str
    subscription: str
    location: str
    principal_id: str
    started: float
    ends_at: float | None
    api_version: str
    status: str = IN_PROGRESS
    ended: float | None = None
    error: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    deletes: bool = False
    occasion: dict[str, str] | None = None


# What an operation does when its time is over: changes the world and returns the error it ends with, if any. STILL_AT_WORK:
# something has begun on the machine, and whoever began it calls `end`.
STILL_AT_WORK: dict[str, Any] = {"code": "StillAtWork"}
Finish = Callable[[Operation, float], dict[str, Any] | None]


class Operations:
    """All operations of a lab. `failure_of_next`: the error with which the next one to start will end (a fault);
    `occasion_of_next`: what the activity log has about it; `on_over` is told when one with an occasion has ended."""

    def __init__(self, store: Store, *, style: LroStyle, seconds: float) -> None:
        self.style = style
        self.seconds = seconds
        self.failure_of_next: dict[str, str] | None = None
        self.occasion_of_next: dict[str, str] | None = None
        self.on_over: Callable[[Operation], None] | None = None
        self._store = store
        self._finish: dict[str, Finish] = {}
        self._all: dict[str, Operation] = {}
        self._running: dict[str, Operation] = {}
        self._due: list[tuple[float, str]] = []
        for _id, value in store.load("operation"):
            self._know(Operation(**value))

    def on_end(self, kind: str, finish: Finish) -> None:
        """What to do when operations of this kind end."""
        self._finish[kind] = finish

    def start(
        self,
        kind: str,
        *,
        resource: str,
        method: str,
        location: str,
        principal_id: str,
        api_version: str,
        now: float,
        waits: bool = False,
        deletes: bool = False,
    ) -> Operation:
        """A new operation on `resource`; `waits`: it ends when `end_at` or `end` says so."""
        operation = Operation(
            id=str(uuid.uuid4()),
            kind=kind,
            resource=resource.lower(),
            method=method,
            subscription=resource.split("/")[2],
            location=location,
            principal_id=principal_id,
            started=now,
            ends_at=None if waits else now + self.seconds,
            api_version=api_version,
            failure=self.failure_of_next,
            deletes=deletes,
            occasion=self.occasion_of_next,
        )
        self.failure_of_next = self.occasion_of_next = None
        self._know(operation)
        return operation

    def _know(self, operation: Operation) -> None:
        self._all[operation.id] = operation
        if operation.status == IN_PROGRESS:
            self._running[operation.id] = operation
            if operation.ends_at is not None:
                heapq.heappush(self._due, (operation.ends_at, operation.id))
        self._store.save("operation", operation.id, asdict(operation))

    def running(self, below: str) -> list[Operation]:
        """The operations in progress on a resource or below it."""
        below = below.lower()
        return [one for one in self._running.values() if one.resource == below or one.resource.startswith(below + "/")]

    def end_at(self, operation: Operation, moment: float) -> None:
        """Now it is known when the operation ends."""
        if operation.status == IN_PROGRESS:
            operation.ends_at = moment
            self._know(operation)

    def end(
        self, operation: Operation, now: float, error: dict[str, Any] | None = None, status: str | None = None
    ) -> None:
        """The operation is over; does not call what `on_end` registered."""
        if operation.status != IN_PROGRESS:
            return
        operation.status = status or (FAILED if error else SUCCEEDED)
        operation.error = error
        operation.ended = now
        self._running.pop(operation.id, None)
        self._store.save("operation", operation.id, asdict(operation))
        if operation.occasion is not None and self.on_over is not None:
            self.on_over(operation)

    def settle(self, now: float) -> None:
        """End everything whose time is over, at its own moment."""
        while self._due and self._due[0][0] <= now:
            moment, operation_id = heapq.heappop(self._due)
            operation = self._all[operation_id]
            if operation.status == IN_PROGRESS and operation.ends_at == moment:
                error = self._finish[operation.kind](operation, moment)
                if error is STILL_AT_WORK:
                    operation.ends_at = None
                    self._know(operation)
                else:
                    self.end(operation, moment, error)

    # What clients see

    def headers(self, operation: Operation, base_url: str) -> dict[str, str]:
        """The headers of the answer that starts an operation."""
        if self.style == "body":
            return {}
        headers = {"Location": self._url(operation, "operationResults", base_url), "Retry-After": self._retry_after()}
        if self.style == "async":
            headers["Azure-AsyncOperation"] = self._url(operation, "operationStatus", base_url)
        return headers

    def _retry_after(self) -> str:
        return str(max(1, math.ceil(self.seconds)))

    def _url(self, operation: Operation, kind: str, base_url: str) -> str:
        return (
            f"{base_url}/subscriptions/{operation.subscription}/providers/Microsoft.HybridCompute/locations/"
            f"{operation.location}/{kind}/{operation.id}?api-version={operation.api_version}"
        )

    def find(self, operation_id: str) -> Operation:
        operation = self._all.get(operation_id.lower())
        if operation is None:
            raise ArmFailure(404, "ResourceNotFound", f"The operation '{operation_id}' was not found.")
        return operation

    def status(self, operation: Operation, path: str) -> Answer:
        """The answer of the Azure-AsyncOperation address."""
        body: dict[str, Any] = {
            "id": path,
            "name": operation.id,
            "status": operation.status,
            "startTime": stamp(operation.started),
        }
        if operation.ended is None:
            return Answer(200, body, {"Retry-After": self._retry_after()})
        body["endTime"] = stamp(operation.ended)
        if operation.error is not None:
            body["error"] = operation.error
        return Answer(200, body)

    def result(self, operation: Operation, base_url: str, resource: dict[str, Any] | None) -> Answer:
        """The answer of the Location address: 202, then what the operation itself would have answered."""
        if operation.ended is None:
            return Answer(202, None, self.headers(operation, base_url))
        if operation.error is not None:
            raise ArmFailure(
                409, operation.error["code"], operation.error["message"], details=operation.error.get("details")
            )
        if operation.deletes or operation.status == CANCELED:
            return Answer(204)
        return Answer(200, resource)
