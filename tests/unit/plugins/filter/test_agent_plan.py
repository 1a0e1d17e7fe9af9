# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the filter plan for Windows what the module does on Linux?"""

from __future__ import annotations

import json

import pytest

from ansible_collections.arcfleet.ssh.plugins.filter.agent_plan import FilterModule, agent_plan

LISTED = {
    "rc": 0,
    "stdout": (
        "Local Configuration Settings\r\n"
        "  incomingconnections.enabled (preview)                 : true\r\n"
        "  incomingconnections.ports (preview)                   : [6516]\r\n"
        "  proxy.bypass                                          : []\r\n"
        "  config.mode                                           : full\r\n"
    ),
}


def shown(version="1.64.1"):
    return {"rc": 0, "stdout": json.dumps({"agentVersion": version, "resourceName": "win01", "status": "Connected"})}


def test_commands_for_what_differs():
    found = agent_plan(
        LISTED, shown(), properties={"incomingconnections.enabled": "True"}, add={"proxy.bypass": ["Arc", "AAD"]}
    )
    assert found["refusal"] is None
    assert found["commands"] == [["config", "set", "proxy.bypass", "Arc,AAD", "--add"]]
    assert found["cutting"] == found["advice"] == []
    assert found["before"]["proxy.bypass"] == []
    assert found["after"]["proxy.bypass"] == ["Arc", "AAD"]
    assert found["agent"]["name"] == "win01"
    assert "lacks the port 22" in found["warnings"][0]


def test_the_port_of_ssh_is_added():
    found = agent_plan(LISTED, shown(), ssh_port="2222", add_port=True)
    assert found["commands"] == [["config", "set", "incomingconnections.ports", "2222", "--add"]]


def test_what_ends_the_connection_is_refused_or_comes_last():
    wanted = {"config.mode": "monitor", "proxy.bypass": ["Arc"]}
    refused = agent_plan(LISTED, shown(), properties=wanted)
    assert refused["refusal"].startswith("win01: config.mode would end the connection")
    assert (refused["commands"], refused["cutting"]) == ([], [])
    told = agent_plan(LISTED, shown(), properties=wanted, cut_connection=True)
    assert told["commands"] == [["config", "set", "proxy.bypass", "Arc"]]
    assert told["cutting"] == [["config", "set", "config.mode", "monitor"]]
    elsewhere = agent_plan(LISTED, shown(), properties=wanted, through_arc=False)
    assert len(elsewhere["commands"]) == 2


def test_old_agents():
    assert "1.31" in agent_plan(LISTED, shown("1.30.1"))["refusal"]
    assert "1.31" in agent_plan(LISTED, shown("1.30.1"), old_agent="warn")["warnings"][0]
    assert "1.62" in agent_plan(LISTED, shown("1.61.1"))["advice"][0]


@pytest.mark.parametrize(
    ("listed", "options", "complaint"),
    [
        ({"rc": 70, "stdout": "FATAL   AZCM0070: No himds."}, {}, "Restart-Service himds"),
        ({"msg": "The system cannot find the file specified"}, {}, "azcmagent cannot be run: The system cannot find"),
        (LISTED, {"properties": {"no.such": 1}}, "does not list no.such"),
        (LISTED, {"properties": {"config.mode": "half"}}, "full or monitor"),
    ],
)
def test_why_there_is_no_plan(listed, options, complaint):
    found = agent_plan(listed, shown(), **options)
    assert complaint in found["refusal"]
    assert found["commands"] == []


def test_its_name():
    assert FilterModule().filters() == {"agent_plan": agent_plan}
