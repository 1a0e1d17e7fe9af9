# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is what a machine's record says read rightly, however little it says?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources import _machine

ID = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.HybridCompute/Machines/Web01"


def record(**properties):
    return {"id": ID, "name": "Web01", "location": "westeurope", "properties": properties}


def test_facts_of_a_full_record():
    raw = {
        **record(
            status="Connected",
            agentVersion="1.48.02881.1941",
            osType="Windows",
            osName="Windows Server 2022",
            machineFqdn="web01.example",
        ),
        "kind": "HCI",
        "tags": {"env": "{{ prod }}"},
    }
    facts = _machine.facts(raw)
    assert facts["resource_id"] == ID and facts["resource_group"] == "rg" and facts["name"] == "Web01"
    assert (facts["os_type"], facts["kind"], facts["fqdn"]) == ("windows", "HCI", "web01.example")
    assert facts["tags"] == {"env": "{{ prod }}"}


@pytest.mark.parametrize("raw", [{"id": ID}, {"id": ID, "properties": None, "tags": None, "kind": ""}])
def test_facts_of_a_half_made_record(raw):
    facts = _machine.facts(raw)
    assert facts["name"] == "Web01" and facts["tags"] == {}
    assert facts["status"] is facts["os_type"] is facts["kind"] is None


def test_a_record_of_something_else_is_refused():
    with pytest.raises(InputError):
        _machine.facts({"id": "/subscriptions/x"})


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.30.02600.1", (1, 30, 2600, 1)), ("2.0", (2, 0)), ("", None), (None, None), ("1.x", None)],
)
def test_versions(text, numbers):
    assert _machine.version(text) == numbers


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"status": "Connected", "agentVersion": "1.31.0"}, None),
        ({"status": "connected", "agentVersion": "2.0.1"}, None),
        ({"status": "Connected"}, None),
        ({"status": "Connected", "agentVersion": "1.30.9"}, "too old for SSH"),
        ({"status": "Connected", "agentVersion": "0.99.9"}, "too old for SSH"),
        ({"status": "Disconnected", "lastStatusChange": "2026-11-01T00:00:00Z"}, "is Disconnected since 2026-11-01"),
        ({"status": "Expired"}, "is Expired"),
        ({}, "is unknown"),
        ({"status": "Connected", "agentConfiguration": {"configMode": "Monitor"}}, "monitor mode"),
    ],
)
def test_obstacles_to_ssh(properties, reason):
    found = _machine.obstacle_to_ssh(record(**properties))
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"status": "Connected"}, None),
        ({"status": "Connected", "agentVersion": "1.20.0"}, None),
        ({"status": "Connected", "agentConfiguration": {"configMode": "monitor"}}, "monitor mode"),
        ({"status": "Connected", "agentConfiguration": {"extensionsEnabled": "false"}}, "extension manager is off"),
        ({"status": "Error"}, "is Error"),
    ],
)
def test_obstacles_to_extensions(properties, reason):
    found = _machine.obstacle_to_extensions(record(**properties))
    assert found is None if reason is None else reason in found
