# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines have to be read, when most were found in order a short while ago?

Pure. The ledger says of each machine what it was found to be in order with, and when; the activity log says what was written since. All times are
Azure's own, of the `Date` of its answers, so that this computer's clock decides nothing. The ledger is only ever a reason not to read: whatever is
missing in it, old, or in doubt is read. Azure's documentation of the activity log gives 90 days of retention; events are readable 3 to 20 minutes
after what they tell of (reported), which `OVERLAP` covers. Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

FORMAT, VERSION = "arcfleet.ssh/ledger", 1

# How far before the end of the last reading the log is read again: what happened then may have become readable only since.
OVERLAP = timedelta(minutes=30)

# How far two of Azure's clocks may be apart.
SKEW = timedelta(minutes=1)

# Entries that nobody asked for during so many periods of full reading are of machines that are gone.
_FORGOTTEN = 4

# After so long, when a machine was looked at over a connection says nothing any more.
_UNSEEN = timedelta(days=90)

NEVER = "they were not found in order before"
WANTED = "they shall be something else than before"
WRITTEN = "something was written there since"
OLD = "they were read too long ago"
AHEAD = "the ledger is ahead of Azure's clock"
DOUBTED = "the activity log of their subscription is in doubt"


class Doubt(Exception):
    """Why a ledger cannot be believed, as the rest of a sentence."""


@dataclass(frozen=True)
class Entry:
    """With which desired state (a digest) one machine was in order, and when."""

    desired: str
    verified: datetime


@dataclass(frozen=True)
class Ledger:
    """By machine id in lower case, what is known of it, and when it was last looked at over a connection; by subscription, until when its
    activity log has been read."""

    machines: Mapping[str, Entry] = field(default_factory=dict)
    visits: Mapping[str, datetime] = field(default_factory=dict)
    logs: Mapping[str, datetime] = field(default_factory=dict)


def digest(desired: Mapping[str, Any]) -> str:
    """What a machine shall be, as a text of fixed length."""
    return hashlib.sha256(json.dumps(desired, sort_keys=True, default=str).encode()).hexdigest()[:32]


def render(ledger: Ledger, cloud: str) -> str:
    """The text of the file. `cloud` is the address of ARM."""
    content = {
        "machines": {key: [entry.desired, _text(entry.verified)] for key, entry in ledger.machines.items()},
        "visits": {key: _text(moment) for key, moment in ledger.visits.items()},
        "logs": {subscription: _text(moment) for subscription, moment in ledger.logs.items()},
    }
    head = {"format": FORMAT, "version": VERSION, "cloud": cloud, "sha256": _checksum(content, cloud)}
    return json.dumps({**head, **content}, indent=0, sort_keys=True) + "\n"


def parse(text: str, cloud: str) -> Ledger:
    """The ledger in the text of a file. Raises Doubt for anything else than what `render` made for this cloud."""
    try:
        content = json.loads(text)
    except ValueError:
        raise Doubt("it is not whole") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Doubt("it is something else")
    if content.get("version") != VERSION:
        raise Doubt(f"it is of version {content.get('version')}, and this is version {VERSION}")
    if content.get("cloud") != cloud:
        raise Doubt("it is another cloud's")
    known: dict[str, Any] = {name: content.get(name) for name in ("machines", "visits", "logs")}
    if content.get("sha256") != _checksum(known, cloud):
        raise Doubt("it was changed by hand or damaged")
    try:
        return Ledger(
            {key: Entry(desired, _moment(verified)) for key, (desired, verified) in known["machines"].items()},
            {key: _moment(moment) for key, moment in known["visits"].items()},
            {key: _moment(moment) for key, moment in known["logs"].items()},
        )
    except (AttributeError, TypeError, ValueError):
        raise Doubt("it is not what this collection writes") from None


def _checksum(content: Mapping[str, Any], cloud: str) -> str:
    return hashlib.sha256(json.dumps([content, cloud], sort_keys=True).encode()).hexdigest()


def _text(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def reason_to_read(
    ledger: Ledger, key: str, desired: str, *, now: datetime, full_every: timedelta, written: datetime | None
) -> str | None:
    """Why the machine has to be read; `None` where it is what it was found to be. `written` is when something was last written there.

    That its subscription's log could be read is the caller's to see to.
    """
    entry = ledger.machines.get(key)
    if entry is None:
        return NEVER
    if entry.desired != desired:
        return WANTED
    if entry.verified > now + SKEW:
        return AHEAD
    if now - entry.verified >= full_every:
        return OLD
    if written is not None and written > entry.verified - SKEW:
        return WRITTEN
    return None


def log_since(ledger: Ledger, subscription: str, *, now: datetime, full_every: timedelta) -> datetime | None:
    """From when on the subscription's log has to be read; `None` where nothing in the ledger would be believed by it."""
    read_to = ledger.logs.get(subscription)
    if read_to is None or read_to > now + SKEW or now - read_to >= full_every:
        return None
    return read_to - OVERLAP


def due_for_visit(ledger: Ledger, keys: Iterable[str], *, now: datetime, every: int) -> list[str]:
    """Of the machines, the `every`-th part that nobody has looked at over a connection for longest, at least one."""
    never = datetime.min.replace(tzinfo=timezone.utc)

    def last(key: str) -> datetime:
        visited = ledger.visits.get(key)
        return never if visited is None or visited > now + SKEW else visited

    ordered = sorted(keys, key=lambda key: (last(key), key))
    return ordered[: -(-len(ordered) // every)]


def amended(
    ledger: Ledger,
    *,
    now: datetime,
    verified: Mapping[str, str],
    disproved: Iterable[str],
    visited: Iterable[str],
    subscriptions: Mapping[str, bool],
    full_every: timedelta,
) -> Ledger:
    """The ledger after a run that began to look at `now`.

    `verified`: machine -> digest of what it was found, or made, to be. `disproved`: machines of which that is not known any more. `subscriptions`:
    those of the run, with whether their log was read; what was known of others of their machines is dropped where it was not.
    """
    gone = set(disproved)
    unread = tuple(f"/subscriptions/{key}/" for key, was_read in subscriptions.items() if not was_read)
    kept = {
        key: entry
        for key, entry in ledger.machines.items()
        if key not in gone
        # What another run verified meanwhile, it has read for itself.
        and not (key.startswith(unread) and entry.verified < now)
        and now - entry.verified < full_every * _FORGOTTEN
    }
    seen = {key: moment for key, moment in ledger.visits.items() if now - moment < _UNSEEN}
    return Ledger(
        {**kept, **{key: Entry(desired, now) for key, desired in verified.items()}},
        {**seen, **dict.fromkeys(visited, now)},
        {**ledger.logs, **dict.fromkeys(subscriptions, now)},
    )
