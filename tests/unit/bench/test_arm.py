# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the bound right, and is it the bound of what was asked?"""

from __future__ import annotations

from typing import Any

import arm
import pytest

ONE, OTHER = "/subscriptions/1/resourceGroups/g", "/subscriptions/2/resourceGroups/g"


def line(method: str, path: str = ONE, status: int | None = 200, **more: Any) -> dict[str, Any]:
    return {"kind": "arm", "method": method, "path": path, "status": status, "principal": "p", **more}


@pytest.mark.parametrize(
    ("buckets", "seconds"),
    [
        ({}, 0),
        ({("1", "p", "reads"): 250, ("1", "p", "writes"): 200}, 0),
        ({("1", "p", "reads"): 2000, ("1", "p", "writes"): 2000}, 180),
        ({("1", "p", "reads"): 1000}, 30),
        ({("1", "p", "writes"): 300, ("2", "p", "writes"): 400, ("2", "q", "writes"): 250}, 20),
    ],
)
def test_the_slowest_bucket_is_the_bound(buckets: dict[tuple[str, str, str], int], seconds: float) -> None:
    assert arm.bound(buckets) == seconds


def test_requests_by_kind() -> None:
    action = "Microsoft.HybridConnectivity/endpoints/serviceConfigurations/write"
    requests = arm.count(
        [
            {"kind": "entra", "method": "GET", "path": "/t/.well-known", "status": 200},
            {"kind": "entra", "method": "POST", "path": "/t/oauth2/v2.0/token", "status": 200},
            {"kind": "metadata", "method": "GET", "path": "/metadata/endpoints", "status": 200},
            {"kind": "graph", "method": "POST", "path": "/providers/Microsoft.ResourceGraph/resources", "status": 200},
            line("GET", "/subscriptions"),
            line("GET", status=404, action="Microsoft.HybridConnectivity/endpoints/read"),
            line("PUT", status=201, action=action),
            line("PUT", OTHER, action=action),
            line("PUT", status=429, action=action),
            line("PUT", status=None, action=action),
            line("DELETE"),
        ]
    )
    assert requests.operations == {"reads": 2, "writes": 3, "deletes": 1}
    assert (requests.logins, requests.queries, requests.throttled) == (1, 1, 1)
    assert requests.done("serviceConfigurations/write") == 2
    assert requests.done("read") == 0
    assert requests.buckets == {
        ("", "p", "reads"): 1,
        ("1", "p", "reads"): 1,
        ("1", "p", "writes"): 2,
        ("2", "p", "writes"): 1,
        ("1", "p", "deletes"): 1,
    }


def test_paths() -> None:
    assert arm.service_configuration("/m") == (
        "/m/providers/Microsoft.HybridConnectivity/endpoints/default/serviceConfigurations/SSH?api-version=2023-03-15"
    )
