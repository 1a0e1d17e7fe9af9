# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the agent's outputs understood, whatever its age, and are exactly the right commands planned?"""

from __future__ import annotations

import json

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._azcmagent import (
    MEANINGS,
    Change,
    advice,
    arc_port,
    asked_names,
    cuts,
    failure,
    parse_facts,
    parse_settings,
    parse_value,
    plan,
    same,
    secrets_in,
    settled,
    shown,
    too_old,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError

TEXT = """\
Local Configuration Settings
  incomingconnections.enabled (preview)                 : true
  incomingconnections.ports (preview)                   : [22,6516]
  connection.type (preview)                             : default
  proxy.url                                             :
  proxy.bypass                                          : []
  extensions.allowlist                                  : []
  guestconfiguration.enabled                            : true
  extensions.agent.cpulimit                             : 5
  config.mode                                           : full
"""
SETTINGS = {
    "incomingconnections.enabled": True,
    "incomingconnections.ports": ("22", "6516"),
    "connection.type": "default",
    "proxy.url": "",
    "proxy.bypass": (),
    "extensions.allowlist": (),
    "guestconfiguration.enabled": True,
    "extensions.agent.cpulimit": 5,
    "config.mode": "full",
}
JSON = """\
{{"localsettings": [
  {{"{key}": "incomingconnections.enabled", "{value}": true}}, {{"{key}": "incomingconnections.ports", "{value}": ["22", "6516"]}},
  {{"{key}": "connection.type", "{value}": "default"}}, {{"{key}": "proxy.url", "{value}": ""}},
  {{"{key}": "proxy.bypass", "{value}": []}}, {{"{key}": "extensions.allowlist", "{value}": null}},
  {{"{key}": "guestconfiguration.enabled", "{value}": true}}, {{"{key}": "extensions.agent.cpulimit", "{value}": 5}},
  {{"{key}": "config.mode", "{value}": "full"}}
]}}"""


# ---- outputs


@pytest.mark.parametrize(
    "output",
    [
        TEXT,
        TEXT.replace("[22,6516]", "[22 6516]"),
        TEXT.replace("[22,6516]", "22, 6516").replace("[]", ""),
        TEXT.replace("\n", "\r\n"),
        "\x1b[32m" + TEXT + "\x1b[0m",
        "time=now level=info msg=loading\n" + TEXT,
        JSON.format(key="Key", value="Value"),
        JSON.format(key="key", value="value"),
        JSON.format(key="KEY", value="value").replace("localsettings", "LocalSettings"),
        JSON.format(key="Key", value="Value").replace(
            "incomingconnections.enabled", "incomingconnections.enabled (preview)"
        ),
        JSON.format(key="Key", value="Value").replace("true", '"true"').replace(": 5", ': "5"'),
        JSON.format(key="Key", value="Value").replace('["22", "6516"]', "[22, 6516]"),
        "INFO    Reading the local configuration\n" + JSON.format(key="Key", value="Value") + "\nINFO    Done",
        JSON.format(key="Key", value="Value").partition(":")[2].rstrip()[:-1],
    ],
)
def test_settings_of_every_output_are_the_same(output):
    assert parse_settings(output) == SETTINGS


def test_settings_as_one_object():
    assert parse_settings('{"config.mode": "monitor", "Extensions.Enabled": "False"}') == {
        "config.mode": "monitor",
        "extensions.enabled": False,
    }


@pytest.mark.parametrize("output", ["", "FATAL   AZCM0023: unknown flag: --json", "{", "[]", "null", "{}"])
def test_an_output_without_settings_has_none(output):
    assert parse_settings(output) == {}


def test_an_unknown_property_is_what_it_looks_like():
    found = parse_settings("  new.switch : false\n  new.list : [a b]\n  new.number : 7\n  new.text : x:y z\n")
    assert found == {"new.switch": False, "new.list": ("a", "b"), "new.number": 7, "new.text": "x:y z"}


def test_a_single_value():
    assert parse_value("incomingconnections.ports", "[22]\n") == ("22",)
    assert parse_value("proxy.bypass", "\n") == ()
    assert parse_value("proxy.url", "http://proxy:8080\n") == "http://proxy:8080"
    assert parse_value("upgrade.enabled", "true\n") is True


def test_facts_from_json_and_from_text():
    expected = {
        "name": "web01",
        "resource_group": "rg1",
        "subscription_id": None,
        "tenant_id": None,
        "location": "westeurope",
        "resource_id": "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.HybridCompute/machines/web01",
        "status": "Connected",
        "version": "1.64.03456.789",
        "last_heartbeat": "2026-01-02T03:04:05Z",
    }
    told = {
        "status": "Connected",
        "resourceName": "web01",
        "resourceGroup": "rg1",
        "tenantId": "",
        "location": "westeurope",
        "resourceId": expected["resource_id"],
        "agentVersion": "1.64.03456.789",
        "lastHeartbeat": "2026-01-02T03:04:05Z",
    }
    text_output = f"""\
Resource Name                          : web01
Resource Group Name                    : rg1
Resource Id                            : {expected["resource_id"]}
Tenant ID                              :
Location                               : westeurope
Agent Version                          : 1.64.03456.789
Agent Status                           : Connected
Agent Last Heartbeat                   : 2026-01-02T03:04:05Z

Dependent Service Status
  Agent Service (himds)                : running
"""
    assert parse_facts(json.dumps(told)) == expected
    assert parse_facts(text_output) == expected
    assert set(parse_facts("nothing").values()) == {None}
    assert set(parse_facts("[1]").values()) == {None}


# ---- what is the same


@pytest.mark.parametrize(
    ("name", "one", "other", "expected"),
    [
        ("incomingconnections.ports", ("22", "80"), ("80", "22"), True),
        ("proxy.bypass", ("AAD", "ARM"), ("arm", "aad"), True),
        ("proxy.bypass", ("AAD",), (), False),
        ("proxy.url", "http://proxy:8080", "http://proxy:8080/", True),
        ("proxy.url", "http://proxy:8080", "http://Proxy:8081", False),
        ("connection.type", "default", "direct", True),
        ("connection.type", "default", "gateway", False),
        ("config.mode", "Full", "full", True),
        ("incomingconnections.enabled", True, False, False),
    ],
)
def test_values_are_compared_by_meaning(name, one, other, expected):
    assert same(name, one, other) is expected


# ---- the plan


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"incomingconnections.enabled": True},
        {"incomingconnections.enabled": "True", "config.mode": "FULL"},
        {"IncomingConnections.Enabled (preview)": "yes"},
        {"incomingconnections.ports": [6516, 22]},
        {"incomingconnections.ports": "22,6516"},
        {"extensions.agent.cpulimit": "5", "proxy.url": None, "proxy.bypass": [], "connection.type": "direct"},
    ],
)
def test_nothing_is_planned_for_what_is_there(properties):
    assert plan(SETTINGS, properties, {}, {}) == []


@pytest.mark.parametrize(
    ("properties", "add", "remove", "commands"),
    [
        ({"incomingconnections.enabled": False}, {}, {}, [("set", "incomingconnections.enabled", "false")]),
        ({"proxy.url": "http://p:1"}, {}, {}, [("set", "proxy.url", "http://p:1")]),
        ({"extensions.agent.cpulimit": 10}, {}, {}, [("set", "extensions.agent.cpulimit", "10")]),
        ({"incomingconnections.ports": [22]}, {}, {}, [("set", "incomingconnections.ports", "22")]),
        ({"incomingconnections.ports": []}, {}, {}, [("clear", "incomingconnections.ports")]),
        ({"proxy.bypass": ["AAD", "ARM", "AAD"]}, {}, {}, [("set", "proxy.bypass", "AAD,ARM")]),
        (
            {},
            {"incomingconnections.ports": [22, 80, 443]},
            {},
            [("set", "incomingconnections.ports", "80,443", "--add")],
        ),
        ({}, {"incomingconnections.ports": 80}, {}, [("set", "incomingconnections.ports", "80", "--add")]),
        ({}, {}, {"incomingconnections.ports": [22, 80]}, [("set", "incomingconnections.ports", "22", "--remove")]),
        ({}, {}, {"incomingconnections.ports": [22, 6516]}, [("clear", "incomingconnections.ports")]),
        ({}, {"incomingconnections.ports": [22]}, {"incomingconnections.ports": [80]}, []),
        (
            {},
            {"incomingconnections.ports": [80]},
            {"incomingconnections.ports": [22]},
            [
                ("set", "incomingconnections.ports", "80", "--add"),
                ("set", "incomingconnections.ports", "22", "--remove"),
            ],
        ),
    ],
)
def test_exactly_these_commands_are_planned(properties, add, remove, commands):
    changes = plan(SETTINGS, properties, add, remove)
    assert [command[1:] for change in changes for command in change.commands] == commands
    assert all(command[0] == "config" for change in changes for command in change.commands)
    assert plan(settled(SETTINGS, changes), properties, add, remove) == []


def test_the_order_keeps_the_connection_as_long_as_possible():
    monitored = {**SETTINGS, "config.mode": "monitor", "extensions.enabled": True}
    wanted = {
        "incomingconnections.enabled": False,
        "incomingconnections.ports": [80],
        "proxy.url": "http://p:1",
        "extensions.allowlist": ["a/b"],
        "config.mode": "full",
    }
    assert [change.name for change in plan(monitored, wanted, {}, {})] == [
        "config.mode",
        "extensions.allowlist",
        "proxy.url",
        "incomingconnections.ports",
        "incomingconnections.enabled",
    ]
    last = plan(SETTINGS, {"config.mode": "monitor", "incomingconnections.enabled": False}, {}, {})[-1]
    assert last.name == "config.mode"


def test_monitor_mode_freezes_the_lists():
    monitored = {**SETTINGS, "config.mode": "monitor"}
    with pytest.raises(InputError, match="monitor mode"):
        plan(monitored, {}, {"extensions.allowlist": ["a/b"]}, {})
    assert plan(monitored, {"extensions.allowlist": []}, {}, {}) == []
    assert len(plan(monitored, {"proxy.url": "http://p:1"}, {}, {})) == 1


@pytest.mark.parametrize(
    ("properties", "add", "remove", "complaint"),
    [
        ({"incomingconnections.enabled": "maybe"}, {}, {}, "true or false"),
        ({"incomingconnections.enabled": None}, {}, {}, "true or false"),
        ({"incomingconnections.enabled": [True]}, {}, {}, "cannot be a list"),
        ({"config.mode": "half"}, {}, {}, "full or monitor"),
        ({"incomingconnections.ports": [70000]}, {}, {}, "'70000' is none"),
        ({"incomingconnections.ports": ["ssh"]}, {}, {}, "'ssh' is none"),
        ({"extensions.agent.cpulimit": "many"}, {}, {}, "is a number"),
        ({"proxy.url": {"host": "p"}}, {}, {}, "dictionary"),
        ({"proxy.url": "--add"}, {}, {}, "something else"),
        ({"proxy.url": "http://p\nx"}, {}, {}, "something else"),
        ({"proxy.bypass": ["AAD", "-r"]}, {}, {}, "something else"),
        ({"config.mode": "full", "Config.Mode": "monitor"}, {}, {}, "named twice"),
        ({"proxy.bypass": ["AAD"]}, {"proxy.bypass": ["ARM"]}, {}, "as a whole"),
        ({}, {"proxy.bypass": ["ARM"]}, {"proxy.bypass": ["arm"]}, "at once"),
        ({}, {"config.mode": ["full"]}, {}, "is no list"),
    ],
)
def test_what_cannot_be_meant_is_refused(properties, add, remove, complaint):
    with pytest.raises(InputError, match=complaint):
        plan(SETTINGS, properties, add, remove)


def test_names_are_asked_for_once():
    assert asked_names({"A.b": 1}, {"a.B (preview)": []}, {"c.d": []}) == ["a.b", "c.d"]


def test_results_hold_plain_lists():
    assert shown(SETTINGS)["incomingconnections.ports"] == ["22", "6516"]


# ---- SSH's port


def test_the_port_of_ssh_is_let_in():
    changes = plan(SETTINGS, {}, {}, {}, let_in=2222)
    assert [change.commands for change in changes] == [
        (("config", "set", "incomingconnections.ports", "2222", "--add"),)
    ]
    assert changes[0].after == ("22", "6516", "2222")


@pytest.mark.parametrize("ports", [(), ("2222",), ("22", "2222")])
def test_a_list_that_lets_it_in_is_left_alone(ports):
    assert plan({**SETTINGS, "incomingconnections.ports": ports}, {}, {}, {}, let_in=2222) == []


def test_an_agent_without_the_list_needs_none():
    assert plan({"config.mode": "full"}, {}, {}, {}, let_in=22) == []


def test_the_port_is_let_in_whatever_was_asked_for():
    (whole,) = plan(SETTINGS, {"incomingconnections.ports": [80]}, {}, {}, let_in=22)
    assert whole.commands == (("config", "set", "incomingconnections.ports", "80,22"),)
    assert plan(SETTINGS, {}, {}, {"incomingconnections.ports": [22]}, let_in=22) == []
    assert plan(SETTINGS, {"incomingconnections.ports": []}, {}, {}, let_in=22)[0].after == ()


# ---- the connection


@pytest.mark.parametrize(
    ("variable", "port"),
    [
        ("127.0.0.1 51000 127.0.0.1 22", 22),
        ("127.8.9.1 51000 127.0.0.1 2222", 2222),
        ("::1 51000 ::1 22", 22),
        ("::ffff:127.0.0.1 51000 ::ffff:127.0.0.1 22", 22),
        ("10.0.0.7 51000 10.0.0.8 22", None),
        ("fe80::1%eth0 51000 fe80::2 22", None),
        ("host 51000 host 22", None),
        ("127.0.0.1", None),
        ("", None),
        (None, None),
    ],
)
def test_only_loopback_can_be_arc(variable, port):
    assert arc_port(variable) == port


@pytest.mark.parametrize(
    ("properties", "cut"),
    [
        ({"incomingconnections.enabled": False}, ["incomingconnections.enabled"]),
        ({"config.mode": "monitor"}, ["config.mode"]),
        ({"incomingconnections.ports": [80]}, ["incomingconnections.ports"]),
        ({"incomingconnections.ports": [22]}, []),
        ({"incomingconnections.ports": []}, []),
        ({"proxy.url": "http://p:1", "extensions.agent.cpulimit": 6}, []),
    ],
)
def test_these_changes_end_the_connection(properties, cut):
    assert [change.name for change in cuts(plan(SETTINGS, properties, {}, {}), 22)] == cut


def test_a_list_that_did_not_let_us_in_either_ends_nothing():
    assert cuts(plan(SETTINGS, {"incomingconnections.ports": [80]}, {}, {}), 2222) == []


def test_opening_ends_nothing():
    closed = {**SETTINGS, "incomingconnections.enabled": False, "config.mode": "monitor"}
    changes = plan(closed, {"incomingconnections.enabled": True, "config.mode": "full"}, {}, {})
    assert len(changes) == 2
    assert cuts(changes, 22) == []


# ---- versions


@pytest.mark.parametrize(
    ("version", "old", "advised"),
    [
        ("1.30.02297.0", True, True),
        ("1.9.1", True, True),
        ("1.31.02356.0", False, True),
        ("1.61.9", False, True),
        ("1.62.03456.789", False, False),
        ("2.0.1", False, False),
        ("azcmagent version 1.67.1", False, False),
        ("unknown", False, False),
        (None, False, False),
    ],
)
def test_versions(version, old, advised):
    assert (too_old(version) is not None, advice(version) is not None) == (old, advised)


# ---- failures


@pytest.mark.parametrize(
    ("status", "code", "meaning", "remedy"),
    [
        (18, "AZCM0018", "needs root", "become: true"),
        (23, "AZCM0023", "not known to this agent", "azcmagent config info"),
        (27, "AZCM0027", "conflicts", "config.mode"),
        (64, "AZCM0064", "cannot reach the agent's service", "systemctl restart himdsd"),
        (69, "AZCM0069", "could not be updated", "systemctl restart himdsd"),
        (70, "AZCM0070", "could not be read", "systemctl restart himdsd"),
        (99, "AZCM0099", "it failed", "azcmagent.log"),
    ],
)
def test_exit_statuses_become_sentences(status, code, meaning, remedy):
    printed = f"\x1b[31mFATAL   {code}: The text of the agent.\x1b[0m\n"
    error = failure("web01", ("config", "set", "a.b", "1"), status, printed)
    assert error.code == code
    assert error.message.startswith("web01: `azcmagent config set a.b 1` ended with status")
    assert meaning in error.message
    assert error.message.endswith(": The text of the agent.")
    assert remedy in (error.hint or "")


def test_the_printed_number_counts_where_the_status_says_nothing():
    assert failure("web01", ("show",), 1, "FATAL AZCM0070: no").code == "AZCM0070"
    assert failure("web01", ("show",), 1, "").message == "web01: `azcmagent show` ended with status 1, it failed."


def test_every_meaning_reads_as_a_sentence():
    for status in MEANINGS:
        text = str(failure("web01", ("show",), status, ""))
        assert text.endswith(".") and ".." not in text and "  " not in text


def test_passwords_of_proxies_are_found():
    values = ["http://user:p%40ss@proxy:8080", "http://proxy:8080", True, ("a/b",)]
    assert secrets_in(values) == ["p%40ss"]


def test_a_change_has_a_rank_for_every_property():
    assert Change("new.switch", True, False, ()).rank == Change("incomingconnections.enabled", False, True, ()).rank
