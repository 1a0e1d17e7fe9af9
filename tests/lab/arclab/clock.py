# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What time is it in the lab?

The computer's own time, until somebody moves the lab's ahead: then days of tokens, credentials, operations and events pass in a
moment. Whatever Azure would judge or stamp goes by this clock; what only waits (latency, time-outs) goes by the computer's.
"""

from __future__ import annotations

import math
import time


class Clock:
    """Called, it tells the lab's time in unix seconds, which is `ahead` seconds later than the computer's."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead

    def advance(self, seconds: float) -> float:
        """Let `seconds` pass and return the new time; time does not go back."""
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"The lab's clock only goes forward, and not by {seconds:g} seconds.")
        self.ahead += seconds
        return self()
