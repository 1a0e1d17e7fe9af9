# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who changed what, when, and since when can that be read?

The activity log of each subscription: every write, deletion and action through ARM, as several events each (Started, Accepted,
Succeeded or Failed) that share their correlation id. An event can be read only some minutes after it happened, and for 90 days.
Forms of `$filter`, names of `$select` and of properties: the REST reference of Azure Monitor's activity logs, 2015-04-01.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from .fleet import guid
from .http import ArmFailure
from .paths import parse, spelled
from .store import Store

SELECTABLE = (
    "authorization claims correlationId description eventDataId eventName eventTimestamp httpRequest level operationId "
    "operationName properties resourceGroupName resourceProviderName resourceId status submissionTimestamp subStatus "
    "subscriptionId"
).split()
RETENTION = 90 * 86400
# Seconds after which an event can be read, as users report it.
SHORTEST, LONGEST = 180, 1200

STARTED, ACCEPTED, SUCCEEDED, FAILED = "Started", "Accepted", "Succeeded", "Failed"
# The events of one moment, in their order: the last digit of a time of Azure's, which counts in 100 ns.
_DIGIT = {STARTED: 1, ACCEPTED: 2, SUCCEEDED: 3, FAILED: 3}
_TICKS = 10_000_000

_TIME = r"'(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,7}))?Z'"
_FILTER = re.compile(
    rf"eventTimestamp\s+ge\s+{_TIME}\s+and\s+eventTimestamp\s+le\s+{_TIME}"
    r"(?:\s+and\s+(resourceGroupName|resourceUri|resourceProvider|correlationId)\s+eq\s+'([^']+)')?"
)

Position = tuple[int, int]


@dataclass(frozen=True)
class Occasion:
    """One change that somebody asked ARM for; `resource_id` as they spelled it, `caller` a client id or a user's name."""

    operation: str
    resource_id: str
    caller: str
    principal_id: str
    method: str
    correlation_id: str
    operation_id: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Event:
    """One line of the log. `ticks`: 100 ns since 1970; `http_status` of the answer, where there is one."""

    number: int
    ticks: int
    status: str
    http_status: int | None
    occasion: Occasion

    @property
    def position(self) -> Position:
        return self.ticks, self.number

    @property
    def id(self) -> str:
        return guid("event", self.number, self.ticks)

    @property
    def provider(self) -> str:
        return self.occasion.operation.partition("/")[0]


@dataclass(frozen=True)
class Filter:
    """What `$filter` asks for: events from `since` to `until` (ticks, both included), and one property's value."""

    since: int
    until: int
    name: str | None = None
    value: str = ""

    def takes(self, event: Event) -> bool:
        match self.name:
            case None:
                return True
            case "resourceProvider":
                found = event.provider
            case "resourceUri":
                found = event.occasion.resource_id
            case "correlationId":
                found = event.occasion.correlation_id
            case _group:
                found = _group_of(event.occasion.resource_id) or ""
        return found.lower() == self.value.lower()


def ticks_of(seconds: float) -> int:
    """Unix seconds as a number of 100 ns, in whole microseconds."""
    return int(seconds * 1_000_000) * 10


def written(ticks: int) -> str:
    """A time as Azure Monitor writes it: seven digits of fractions."""
    seconds, rest = divmod(ticks, _TICKS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:07d}Z"


def parse_filter(text: str | None, now: float) -> Filter:
    """The one form of `$filter` that is allowed, with both times."""
    match = _FILTER.fullmatch(text.strip()) if text else None
    if match is None:
        raise _refused(
            "The $filter query parameter is missing." if not text else f"The $filter '{text}' is not supported."
        )
    since, until = _ticks(match[1], match[2]), _ticks(match[3], match[4])
    if since > until:
        raise _refused("The start time is later than the end time.")
    if since < ticks_of(now - RETENTION):
        raise _refused("The start time cannot be more than 90 days in the past.")
    return Filter(since, until, match[5], match[6] or "")


def _ticks(moment: str, fraction: str | None) -> int:
    try:
        seconds = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    except ValueError as exc:
        raise _refused(f"'{moment}' is no time.") from exc
    return seconds * _TICKS + int((fraction or "0").ljust(7, "0"))


def parse_select(text: str | None) -> list[str] | None:
    """The properties that `$select` names, `None`: all."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in SELECTABLE]:
        raise _refused(f"The $select value '{unknown[0]}' is none of {', '.join(SELECTABLE)}.")
    return names


def _refused(message: str) -> ArmFailure:
    return ArmFailure(400, "BadRequest", message)


class ActivityLog:
    """The events of all subscriptions, in the order of their time. `delay` (seconds) until each can be read; `None`: Azure's,
    another one for each event."""

    def __init__(self, store: Store, *, tenant: str, delay: float | None = None) -> None:
        self.tenant = tenant
        self.delay = delay
        self._store = store
        self._events: dict[str, list[Event]] = {}
        self._next = 1
        for _key, (number, ticks, status, http_status, *occasion) in store.load("event"):
            self._keep(Event(number, ticks, status, http_status, Occasion(*occasion)))
            self._next = max(self._next, number + 1)

    def note(self, occasion: Occasion, status: str, moment: float, http_status: int | None = None) -> None:
        """Something happened at `moment` (unix seconds)."""
        event = Event(self._next, ticks_of(moment) + _DIGIT[status], status, http_status, occasion)
        self._next += 1
        self._keep(event)
        flat = [event.number, event.ticks, status, http_status, *asdict(occasion).values()]
        self._store.save("event", str(event.number), flat)

    def _keep(self, event: Event) -> None:
        subscription = event.occasion.resource_id.lower().split("/")[2]
        bisect.insort(self._events.setdefault(subscription, []), event, key=_position)

    def forget(self, now: float) -> None:
        """Drop what is older than the retention."""
        oldest = (ticks_of(now - RETENTION), 0)
        for events in self._events.values():
            gone = bisect.bisect_left(events, oldest, key=_position)
            for event in events[:gone]:
                self._store.delete("event", str(event.number))
            del events[:gone]

    def readable_at(self, event: Event) -> int:
        """The ticks from which on this event can be read: always the same for the same event."""
        if self.delay is not None:
            return event.ticks + ticks_of(self.delay)
        draw = int.from_bytes(hashlib.sha256(event.id.encode()).digest()[:4]) / 2**32
        return event.ticks + ticks_of(SHORTEST + draw * (LONGEST - SHORTEST))

    def read(self, subscription: str, wanted: Filter, now: float, after: Position | None = None) -> Iterator[Event]:
        """The events that can be read now, the newest first; `after` the position of the last one of the page before."""
        events = self._events.get(subscription.lower(), [])
        last = after if after is not None else (wanted.until + 1, 0)
        for place in range(bisect.bisect_left(events, last, key=_position) - 1, -1, -1):
            event = events[place]
            if event.ticks < wanted.since:
                return
            if wanted.takes(event) and self.readable_at(event) <= ticks_of(now):
                yield event

    def shown(self, event: Event, selected: list[str] | None = None) -> dict[str, Any]:
        """The event as Azure answers it."""
        occasion = event.occasion
        subscription, group = occasion.resource_id.split("/")[2], _group_of(occasion.resource_id)
        target = parse(occasion.resource_id)
        kind = "/".join(spelled(one) for one in (target.namespace, *target.types)) if target else ""
        begun = event.status == STARTED
        body: dict[str, Any] = {
            "authorization": {"action": occasion.operation, "scope": occasion.resource_id},
            "caller": occasion.caller,
            "category": _named("Administrative"),
            "channels": "Operation",
            "claims": {"appid": occasion.caller, "oid": occasion.principal_id},
            "correlationId": occasion.correlation_id,
            "description": "",
            "eventDataId": event.id,
            "eventName": _named("BeginRequest" if begun else "EndRequest", "Begin request" if begun else "End request"),
            "eventTimestamp": written(event.ticks),
            "httpRequest": {"clientIpAddress": "127.0.0.1", "method": occasion.method},
            "id": f"{occasion.resource_id}/events/{event.id}/ticks/{event.ticks}",
            "level": "Error" if event.status == FAILED else "Informational",
            "operationId": occasion.operation_id,
            "operationName": _named(occasion.operation),
            "properties": {} if event.http_status is None else {"statusCode": str(event.http_status)},
            "resourceGroupName": group or "",
            "resourceProviderName": _named(event.provider),
            "resourceId": occasion.resource_id,
            "resourceType": _named(kind),
            "status": _named(event.status),
            "subStatus": _named("" if event.http_status is None else str(event.http_status)),
            "submissionTimestamp": written(self.readable_at(event)),
            "subscriptionId": subscription,
            "tenantId": self.tenant,
        }
        return body if selected is None else {name: body[name] for name in selected}


def _position(event: Event) -> Position:
    return event.position


def _named(value: str, localized: str | None = None) -> dict[str, str]:
    return {"value": value, "localizedValue": localized or value}


def _group_of(resource_id: str) -> str | None:
    parts = resource_id.split("/")
    return parts[4] if len(parts) > 4 and parts[3].lower() == "resourcegroups" else None
