# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is now a time at which a machine may be changed?

Pure. A maintenance window is days of the week, a beginning and an end on the clock of a time zone. One that passes midnight belongs to the day on
which it begins, and where a clock is put forward or back the window goes with the clock on the wall. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import Any

from ._errors import InputError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_KEYS = ("days", "start", "end", "timezone")


@dataclass(frozen=True)
class Window:
    """One window; `start` and `end` are minutes of the day. Equal ones mean the whole day."""

    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo
    text: str

    def holds(self, now: datetime) -> bool:
        """Whether the moment, which knows its time zone, lies in the window."""
        local = now.astimezone(self.zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        began_yesterday = (today - 1) % 7 in self.days and minute < self.end
        return (today in self.days and minute >= self.start) or began_yesterday


def windows_of(given: Any) -> list[Window]:
    """The windows that a variable gives. Raises InputError for anything else than a list of windows."""
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise InputError(f"Maintenance windows are a list, not {given!r}.")
    return [_window(entry) for entry in given]


def _window(entry: Any) -> Window:
    if not isinstance(entry, Mapping) or not {"start", "end"} <= set(entry) <= set(_KEYS):
        raise InputError(
            f"{entry!r} is not a maintenance window.",
            hint="It has start and end (as in '22:00'), and may have days (as in [sat, sun]) and timezone (as in Europe/Berlin).",
        )
    days = entry.get("days", DAYS)
    if not isinstance(days, Sequence) or isinstance(days, str) or not days or not set(days) <= set(DAYS):
        raise InputError(f"The days of a maintenance window are some of {', '.join(DAYS)}, not {days!r}.")
    start, end = (_minute(entry[side]) for side in ("start", "end"))
    name = str(entry.get("timezone", "UTC"))
    text = f"{','.join(day for day in DAYS if day in days)} {entry['start']}-{entry['end']} {name}"
    return Window(frozenset(DAYS.index(day) for day in days), start, end, _zone(name), text)


def _minute(clock: Any) -> int:
    found = _CLOCK.fullmatch(clock) if isinstance(clock, str) else None
    if found is None:
        # YAML 1.1 takes 22:00 without quotes for a number in base 60.
        raise InputError(f"{clock!r} is not a time of the day.", hint="Write it in quotes, as in '22:00'.")
    return int(found[1]) * 60 + int(found[2])


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise InputError(
            f"{name!r} is not a time zone that this computer knows.",
            hint="Name one of the IANA database, as in Europe/Berlin. A computer without that database needs the Python package tzdata.",
        ) from exc
