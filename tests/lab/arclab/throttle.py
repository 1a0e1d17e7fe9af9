# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this request one too many?

Azure Resource Manager's token buckets (subscription or tenant, per principal and kind of operation): reads 250,
refilled with 25 a second; writes and deletes 200 with 10. POST counts as a write. Resource Graph: 15 queries in 5
seconds per principal. A request that comes before its Retry-After is over is refused with a new value. Without
`enforce` nothing is refused, but the headers are there all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .http import ArmFailure

_LIMITS = {"reads": (250, 25.0), "writes": (200, 10.0), "deletes": (200, 10.0)}
GLOBAL_FACTOR = 15
GRAPH_QUERIES = 15
GRAPH_WINDOW = 5.0


def operation_of(method: str) -> str:
    """`reads`, `writes` or `deletes`."""
    if method in ("GET", "HEAD"):
        return "reads"
    return "deletes" if method == "DELETE" else "writes"


@dataclass
class _Bucket:
    tokens: float
    filled_at: float
    closed_until: float = 0.0


@dataclass
class _Window:
    started_at: float
    used: int = 0


class Throttle:
    """The buckets of a lab; times are unix seconds."""

    def __init__(self, enforce: bool) -> None:
        self.enforce = enforce
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}
        self._windows: dict[str, _Window] = {}

    def take(self, subscription: str | None, principal_id: str, method: str, now: float) -> dict[str, str]:
        """The headers of an admitted request; ArmFailure 429 for one too many."""
        operation = operation_of(method)
        size, refill = _LIMITS[operation]
        place = (subscription or "", principal_id, operation)
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._buckets[place] = _Bucket(float(size), now)
        bucket.tokens = min(float(size), bucket.tokens + max(0.0, now - bucket.filled_at) * refill)
        bucket.filled_at = now
        if self.enforce and (now < bucket.closed_until or bucket.tokens < 1):
            if now >= bucket.closed_until:
                bucket.closed_until = now + 1
            raise self._refusal(subscription, operation, bucket.closed_until - now)
        bucket.tokens = max(0.0, bucket.tokens - 1) if self.enforce else float(size - 1)
        scope = "subscription" if subscription else "tenant"
        left = int(bucket.tokens)
        headers = {f"x-ms-ratelimit-remaining-{scope}-{operation}": str(left)}
        if subscription:
            headers[f"x-ms-ratelimit-remaining-subscription-global-{operation}"] = str(left * GLOBAL_FACTOR)
        return headers

    def _refusal(self, subscription: str | None, operation: str, wait: float) -> ArmFailure:
        seconds = max(1, math.ceil(wait))
        scope = "subscription" if subscription else "tenant"
        return ArmFailure(
            429,
            f"{scope.capitalize()}RequestsThrottled",
            f"Number of requests for {scope} '{subscription or ''}' and operation type '{operation}' exceeded the "
            "limit of "
            f"the service principal. Please try again after '{seconds}' seconds after additional tokens are available. "
            "Refer to https://aka.ms/arm-throttling for additional information.",
            headers={"Retry-After": str(seconds), f"x-ms-ratelimit-remaining-{scope}-{operation}": "0"},
        )

    def take_query(self, principal_id: str, now: float) -> dict[str, str]:
        """The quota headers of an admitted Resource Graph query; ArmFailure 429 for one too many."""
        window = self._windows.get(principal_id)
        if window is None or now >= window.started_at + GRAPH_WINDOW:
            window = self._windows[principal_id] = _Window(now)
        resets_after = math.ceil(window.started_at + GRAPH_WINDOW - now)
        headers = {"x-ms-user-quota-resets-after": f"00:00:{resets_after:02d}"}
        if self.enforce and window.used >= GRAPH_QUERIES:
            raise ArmFailure(
                429,
                "RateLimiting",
                "Please provide below info when asking for support.",
                details=[
                    {
                        "code": "RateLimiting",
                        "message": "Client application has been throttled and should not attempt to repeat the "
                        "request "
                        "until an amount of time has elapsed. Please see https://aka.ms/resourcegraph-throttling for "
                        "help. "
                        f"Resets after {resets_after} seconds.",
                    }
                ],
                headers={**headers, "x-ms-user-quota-remaining": "0", "Retry-After": str(max(1, resets_after))},
            )
        window.used += 1 if self.enforce else 0
        return {**headers, "x-ms-user-quota-remaining": str(max(0, GRAPH_QUERIES - max(1, window.used)))}
