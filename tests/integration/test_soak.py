# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a fleet in order after days of drift, and did the reports tell all of it, once?

The short form of `make soak`.
"""

from __future__ import annotations

import os

import pytest
from soaking import Day, Soak

DAYS = int(os.environ.get("ARCFLEET_SOAK_DAYS", "2"))


@pytest.mark.one_core
def test_days_of_drift(start):
    soak = Soak(start(machines=12, operation_seconds=0.05), seed=int(os.environ.get("ARCFLEET_SOAK_SEED", "7")))
    for number in range(1, DAYS + 1):
        soak.live(Day(number))
    assert soak.wrong() == []
    assert soak.told() == soak.drifted
    assert soak.needless() == []
    assert sum(day.killed for day in soak.days) > 0 and sum(day.silent for day in soak.days) > 0
