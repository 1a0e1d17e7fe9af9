# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written to the machines of a subscription since a moment, as far as Azure tells it?

From the activity log, which knows writes, deletions and actions through ARM, minutes late, and nothing of what happens on a machine. So
it never says that something is right, only that somebody touched it. Whatever in it cannot be understood is an error, not a gap: the
caller then reads everything. Form of request and answer: the REST reference of Azure Monitor's activity logs (2015-04-01), which allows
these filters only and no filter by operation. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ._arm import Arm
from ._errors import ArcError, InputError
from ._ids import MachineId

API_VERSION = "2015-04-01"
PROVIDERS = ("Microsoft.HybridConnectivity", "Microsoft.HybridCompute")

_SELECT = "eventDataId,eventTimestamp,operationName,resourceId,status"
_WRITING = ("/write", "/delete", "/unregister/action")
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,7}))?Z")


class UnreadableLog(ArcError):
    """The log holds an event that cannot be understood, so it proves nothing."""


@dataclass(frozen=True)
class Event:
    """One event: `operation` as roles hold it ("Microsoft.HybridConnectivity/endpoints/write"), `status` Started, Accepted, Succeeded
    or Failed. `timestamp` is aware, in UTC, and never before the moment that Azure tells in 100 ns."""

    event_id: str
    resource_id: str
    operation: str
    status: str
    timestamp: datetime


def events(arm: Arm, subscription: str, since: datetime, until: datetime) -> Iterator[Event]:
    """What was written or deleted in a subscription from `since` to `until` (aware), and each provider that was unregistered; each
    event once, in no order.

    Raises ArmError (also 403: it takes Microsoft.Insights/eventtypes/values/read on the subscription), UnreadableLog, and what `Arm.pages`
    raises. Only when the iterator has ended is it complete.
    """
    seen = set()
    doing = f"cannot read the activity log of subscription {subscription}"
    span = f"eventTimestamp ge '{_written(since)}' and eventTimestamp le '{_written(until)}'"
    path = f"/subscriptions/{subscription}/providers/Microsoft.Insights/eventtypes/management/values"
    for provider in PROVIDERS:
        query = {"$filter": f"{span} and resourceProvider eq '{provider}'", "$select": _SELECT}
        for raw in arm.pages(path, API_VERSION, query=query, doing=doing):
            event = _event(raw, doing)
            if event is not None and event.event_id not in seen:
                seen.add(event.event_id)
                yield event


def machine_of_event(resource_id: str) -> str | None:
    """The machine (its id in lower case) that a resource is or belongs to, `None` for what belongs to no machine."""
    try:
        return MachineId.parse("/".join(resource_id.split("/")[:9])).key
    except InputError:
        return None


def _event(raw: Any, doing: str) -> Event | None:
    """The event, `None` for what writes nothing."""
    operation = _text(raw, "operationName", doing)
    if not operation.lower().endswith(_WRITING):
        return None
    event = Event(
        event_id=_text(raw, "eventDataId", doing),
        resource_id=_text(raw, "resourceId", doing),
        operation=operation,
        status=_text(raw, "status", doing),
        timestamp=_moment(_text(raw, "eventTimestamp", doing), doing),
    )
    if not _is_whole(event):
        raise _unreadable(doing, f"{operation} is told of {event.resource_id!r}, which is no id of such a resource")
    return event


def _is_whole(event: Event) -> bool:
    """Whether the id tells what was written: a machine, or for endpoints the resource that they hang on, of whatever type."""
    operation, resource_id = event.operation.lower(), event.resource_id.lower()
    if operation.startswith("microsoft.hybridcompute/machines/"):
        return machine_of_event(resource_id) is not None
    if operation.startswith("microsoft.hybridconnectivity/endpoints/"):
        return (
            re.match(r"/.+/providers/.+/providers/microsoft\.hybridconnectivity/endpoints/.", resource_id) is not None
        )
    return resource_id.startswith("/")


def _text(raw: Any, name: str, doing: str) -> str:
    """A property that is a text, or a name with its translation."""
    value = raw.get(name) if isinstance(raw, Mapping) else None
    text = value.get("value") if isinstance(value, Mapping) else value
    if not isinstance(text, str) or not text:
        raise _unreadable(doing, f"an event has no {name}")
    return text


def _moment(text: str, doing: str) -> datetime:
    """A time of Azure's, rounded up to the microseconds that Python knows: an event must not look earlier than it was."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError("another form")
        moment = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError as exc:
        raise _unreadable(doing, f"an event has the time {text!r}") from exc
    return moment + timedelta(microseconds=-(-int((match[2] or "0").ljust(7, "0")) // 10))


def _written(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _unreadable(doing: str, what: str) -> UnreadableLog:
    return UnreadableLog(f"{doing}: {what}.", hint="Nothing can be concluded from this log.")
