# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is now within the maintenance window, also around midnight and where clocks are put back?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._windows import windows_of


def holds(moment, **window):
    (found,) = windows_of([{"start": "22:00", "end": "04:00", **window}])
    return found.holds(datetime.fromisoformat(moment).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("moment", "window", "expected"),
    [
        # 2026-11-21 is a Saturday.
        ("2026-11-21T21:59", {}, False),
        ("2026-11-21T22:00", {}, True),
        ("2026-11-22T03:59", {}, True),
        ("2026-11-22T04:00", {}, False),
        ("2026-11-22T03:00", {"days": ["sat"]}, True),
        ("2026-11-21T03:00", {"days": ["sat"]}, False),
        ("2026-11-22T22:30", {"days": ["sat"]}, False),
        ("2026-11-23T01:00", {"days": ["sun"]}, True),
        ("2026-11-21T10:00", {"start": "09:00", "end": "17:00", "days": ["sat", "sun"]}, True),
        ("2026-11-23T10:00", {"start": "09:00", "end": "17:00", "days": ["sat", "sun"]}, False),
        ("2026-11-23T10:00", {"start": "00:00", "end": "00:00"}, True),
        ("2026-11-23T10:00", {"start": "00:00", "end": "00:00", "days": ["tue"]}, False),
        # In Berlin it is an hour later, in summer two.
        ("2026-11-21T21:30", {"timezone": "Europe/Berlin"}, True),
        ("2026-11-22T03:30", {"timezone": "Europe/Berlin"}, False),
        ("2026-07-04T20:30", {"timezone": "Europe/Berlin"}, True),
        # 2026-10-25 has the hour from 2 to 3 twice there; the window ends with the clock on the wall.
        ("2026-10-25T00:30", {"end": "02:45", "timezone": "Europe/Berlin"}, True),
        ("2026-10-25T01:30", {"end": "02:45", "timezone": "Europe/Berlin"}, True),
        ("2026-10-25T01:50", {"end": "02:45", "timezone": "Europe/Berlin"}, False),
    ],
)
def test_a_moment_lies_in_a_window_or_not(moment, window, expected):
    assert holds(moment, **window) is expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("22:00-04:00", "are a list"),
        (["22:00"], "is not a maintenance window"),
        ([{"start": "22:00"}], "is not a maintenance window"),
        ([{"start": "22:00", "end": "04:00", "zone": "UTC"}], "is not a maintenance window"),
        ([{"start": 1320, "end": "04:00"}], "in quotes"),
        ([{"start": "24:00", "end": "04:00"}], "not a time of the day"),
        ([{"start": "22:00", "end": "04:00", "days": "sat"}], "The days"),
        ([{"start": "22:00", "end": "04:00", "days": ["Saturday"]}], "The days"),
        ([{"start": "22:00", "end": "04:00", "days": []}], "The days"),
        ([{"start": "22:00", "end": "04:00", "timezone": "Mars/Olympus"}], "not a time zone"),
        ([{"start": "22:00", "end": "04:00", "timezone": "../../etc/passwd"}], "not a time zone"),
    ],
)
def test_what_is_no_window_is_refused_in_a_sentence(given, why):
    with pytest.raises(InputError, match=why):
        windows_of(given)
