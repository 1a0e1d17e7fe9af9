# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What do earlier reports say about how the fleet does?

Pure: the text of a report that the history kept in, one point of the trend out. Private to arcfleet.ssh.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._drift import FORMAT, IN_ORDER, STATUSES, VERSION


class Unreadable(Exception):
    """Why a text is no report of this format, as the rest of a sentence about it."""


@dataclass(frozen=True)
class Point:
    """One run: when it began (ISO 8601), its mode, how many machines it was about, and how many were in each state."""

    begun: str
    mode: str
    total: int
    counts: Mapping[str, int]
    drift_left: bool


def point(reported: Mapping[str, Any]) -> Point:
    """The point of one report."""
    summary = reported["summary"]
    counts = {status: summary[status] for status in STATUSES}
    return Point(reported["begun"], reported["mode"], summary["total"], counts, reported["drift_left"])


def parse(text: str) -> Point:
    """The point of a report that was written; raises Unreadable where it is none, or one of another version."""
    try:
        reported = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Unreadable("is no JSON") from exc
    if not isinstance(reported, dict) or reported.get("format") != FORMAT:
        raise Unreadable("is no drift report")
    if reported.get("version") != VERSION:
        raise Unreadable(f"is of version {reported.get('version')!r}, not {VERSION}")
    try:
        found = point(reported)
    except (KeyError, TypeError) as exc:
        raise Unreadable("is no whole drift report") from exc
    numbers = (found.total, *found.counts.values())
    if not (
        isinstance(found.begun, str)
        and isinstance(found.mode, str)
        and isinstance(found.drift_left, bool)
        and all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
    ):
        raise Unreadable("is no whole drift report")
    return found


def remembered(reported: Mapping[str, Any]) -> dict[str, Any]:
    """What the history keeps of a report: all of it but the machines in order, which its summary counts."""
    machines = {key: entry for key, entry in reported["machines"].items() if entry["status"] != IN_ORDER}
    return {**reported, "machines": machines}
