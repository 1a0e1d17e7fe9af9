# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab throttle by the documented numbers?"""

from __future__ import annotations

import pytest

from arclab.http import ArmFailure
from arclab.throttle import Throttle

NOW = 1_000_000.0


def drain(throttle: Throttle, method: str, now: float, count: int, subscription: str | None = "s1") -> None:
    for _number in range(count):
        throttle.take(subscription, "p1", method, now)


@pytest.mark.parametrize(("method", "size"), [("GET", 250), ("PUT", 200), ("POST", 200), ("DELETE", 200)])
def test_a_bucket_holds_the_documented_number(method: str, size: int) -> None:
    throttle = Throttle(enforce=True)
    drain(throttle, method, NOW, size)
    with pytest.raises(ArmFailure) as refused:
        throttle.take("s1", "p1", method, NOW)
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "1"


def test_buckets_are_per_subscription_principal_and_operation() -> None:
    throttle = Throttle(enforce=True)
    drain(throttle, "PUT", NOW, 200)
    throttle.take("s2", "p1", "PUT", NOW)
    throttle.take("s1", "p2", "PUT", NOW)
    throttle.take("s1", "p1", "GET", NOW)
    throttle.take("s1", "p1", "DELETE", NOW)


def test_a_bucket_fills_by_its_rate() -> None:
    throttle = Throttle(enforce=True)
    drain(throttle, "GET", NOW, 250)
    drain(throttle, "GET", NOW + 2, 50)
    with pytest.raises(ArmFailure):
        throttle.take("s1", "p1", "GET", NOW + 2)


def test_who_comes_before_the_time_is_refused_though_tokens_are_there() -> None:
    throttle = Throttle(enforce=True)
    drain(throttle, "GET", NOW, 250)
    for moment in (NOW, NOW + 0.5):
        with pytest.raises(ArmFailure) as refused:
            throttle.take("s1", "p1", "GET", moment)
        assert refused.value.headers["Retry-After"] == "1"
    throttle.take("s1", "p1", "GET", NOW + 1.01)


def test_headers_tell_what_remains() -> None:
    throttle = Throttle(enforce=True)
    assert throttle.take("s1", "p1", "GET", NOW)["x-ms-ratelimit-remaining-subscription-reads"] == "249"
    assert throttle.take("s1", "p1", "PATCH", NOW)["x-ms-ratelimit-remaining-subscription-writes"] == "199"
    assert throttle.take(None, "p1", "GET", NOW) == {"x-ms-ratelimit-remaining-tenant-reads": "249"}


def test_without_enforcement_nothing_is_refused_and_headers_are_there() -> None:
    throttle = Throttle(enforce=False)
    drain(throttle, "PUT", NOW, 1000)
    assert "x-ms-ratelimit-remaining-subscription-writes" in throttle.take("s1", "p1", "PUT", NOW)


def test_resource_graph_takes_fifteen_queries_in_five_seconds() -> None:
    throttle = Throttle(enforce=True)
    left = [throttle.take_query("p1", NOW + 1)["x-ms-user-quota-remaining"] for _number in range(15)]
    assert left == [str(14 - number) for number in range(15)]
    with pytest.raises(ArmFailure) as refused:
        throttle.take_query("p1", NOW + 2)
    assert refused.value.code == "RateLimiting"
    assert refused.value.headers["x-ms-user-quota-resets-after"] == "00:00:04"
    throttle.take_query("p2", NOW + 2)
    assert throttle.take_query("p1", NOW + 6.1)["x-ms-user-quota-remaining"] == "14"
