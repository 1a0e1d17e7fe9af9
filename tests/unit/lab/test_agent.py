# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which agents listen, and which port do they admit?"""

from __future__ import annotations

from typing import Any

import pytest

from arclab import sas
from arclab.agent import AgentRefuses, Machine, admitted_port

SECRET = b"s" * 32
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"agent_version": "1.31"}, True),
        ({"agent_version": "1.30.99999"}, False),
        ({"agent_version": "2.0.1"}, True),
        ({"agent_version": "0.99"}, False),
        ({"agent_version": ""}, False),
        ({"running": False}, False),
        ({"incoming_enabled": False}, False),
        ({"config_mode": "Monitor"}, False),
        ({"sshd_running": False}, True),
    ],
)
def test_who_listens(changes: dict[str, Any], expected: bool) -> None:
    assert Machine(**{"id": "/m", "name": "m", "agent_version": "1.55.0", **changes}).listens is expected


def headers(target: str | None = "localhost:22", **changes: Any) -> dict[str, str]:
    claims = {"resource_id": "/m", "service_name": "SSH", "port": 22, "expires_on": 1_800_000_600, **changes}
    values = {"Service-Configuration-Token": sas.issue_service_token(SECRET, sas.ServiceToken(**claims), NOW)}
    return values if target is None else {**values, "Microsoft-Guestgateway-Target": target}


def test_the_port_of_the_token_is_admitted() -> None:
    assert admitted_port("/m", headers(), SECRET, NOW) == 22


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"Microsoft-Guestgateway-Target": "localhost:22"}, 401),
        (headers(target=None), 400),
        (headers(target="127.0.0.1:22"), 403),
        (headers(target="localhost:22 "), 403),
        (headers(target="localhost"), 403),
        (headers(target="localhost:2222"), 403),
        (headers(port=2222), 403),
        (headers(resource_id="/other"), 403),
        (headers(expires_on=1_799_999_999), 403),
    ],
)
def test_anything_else_is_refused(given: dict[str, str], status: int) -> None:
    with pytest.raises(AgentRefuses) as refused:
        admitted_port("/m", given, SECRET, NOW)
    assert refused.value.status == status
