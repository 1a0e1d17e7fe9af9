# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module change what differs, predict it in check mode, and never cut the branch it sits on unasked?"""

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.arcfleet.ssh.plugins.module_utils import _azcmagent_machine
from ansible_collections.arcfleet.ssh.plugins.modules import arc_agent_config

RELAY = "127.0.0.1 51000 127.0.0.1 22"
ELSEWHERE = "10.0.0.1 51000 10.0.0.2 22"


class Agent:
    """An agent in memory: `settings` is what it has, `calls` are the commands that changed something."""

    def __init__(self):
        self.settings = {
            "incomingconnections.enabled": True,
            "incomingconnections.ports": [],
            "extensions.allowlist": [],
            "proxy.url": "",
            "config.mode": "full",
        }
        self.hidden = {"new.switch": False}
        self.version = "1.64.1"
        self.refused = {}
        self.calls = []
        self.answers_left = 100
        self.later = []

    def __call__(self, command):
        words = command[1:]
        if words[0] == "show":
            return 0, json.dumps({"agentVersion": self.version, "resourceName": "web01", "status": "Connected"}), ""
        if words[1] == "list":
            return (
                0,
                json.dumps({"localsettings": [{"Key": key, "Value": value} for key, value in self.settings.items()]}),
                "",
            )
        if words[1] == "get":
            found = self.hidden.get(words[2])
            return (23, "FATAL   AZCM0023: unknown\n", "") if found is None else (0, f"{found}\n", "")
        self.calls.append(" ".join(words))
        name = words[2]
        if len(self.calls) > self.answers_left:
            return 69, "FATAL   AZCM0069: No.\n", ""
        if name in self.refused:
            return self.refused[name], f"FATAL   AZCM{self.refused[name]:04}: No.\n", ""
        here = self.hidden if name in self.hidden else self.settings
        old = here[name]
        value = words[3] if words[1] == "set" else ""
        if isinstance(old, list):
            items = [item for item in value.split(",") if item]
            if words[-1] == "--add":
                items = old + items
            elif words[-1] == "--remove":
                items = [item for item in old if item not in items]
            here[name] = items
        else:
            here[name] = value == "true" if isinstance(old, bool) else value
        return 0, "", ""


@pytest.fixture
def agent(monkeypatch):
    found = Agent()

    def make(path):
        assert path == "/opt/azcmagent/bin/azcmagent"
        made = _azcmagent_machine.Azcmagent(path, found)
        made.change_later = found.later.extend
        return made

    monkeypatch.setattr(arc_agent_config, "Azcmagent", make)
    monkeypatch.setattr(arc_agent_config, "ssh_connection", lambda: RELAY)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("ANSIBLE_ASYNC_DIR", raising=False)
    return found


@pytest.fixture
def run(agent, capsys, monkeypatch):
    told = []
    # Ansible collects warnings for the whole process.
    monkeypatch.setattr(arc_agent_config.AnsibleModule, "warn", lambda self, text, **_more: told.append(text))

    def call(check=False, **options):
        told.clear()
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit) as ended:
            arc_agent_config.main()
        result = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == result.get("failed", False)
        return {**result, "told": list(told)}

    return call


def test_reading_changes_nothing(agent, run):
    found = run()
    assert not found["changed"]
    assert found["before"] == found["after"] == agent.settings
    assert found["agent"]["name"] == "web01"
    assert (found["advice"], found["cutting"], agent.calls) == ([], [], [])
    assert found["diff"] == {"before": {}, "after": {}}


def test_what_differs_is_set_once(agent, run):
    options = {
        "properties": {"proxy.url": "http://proxy:8080", "incomingconnections.enabled": True},
        "add": {"extensions.allowlist": ["a/b", "c/d"]},
    }
    predicted = run(check=True, **options)
    assert agent.calls == []
    done = run(**options)
    assert predicted == done
    assert done["changed"]
    assert agent.calls == ["config set extensions.allowlist a/b,c/d --add", "config set proxy.url http://proxy:8080"]
    assert done["diff"] == {
        "before": {"extensions.allowlist": [], "proxy.url": ""},
        "after": {"extensions.allowlist": ["a/b", "c/d"], "proxy.url": "http://proxy:8080"},
    }
    assert done["after"] == agent.settings
    assert not run(**options)["changed"]
    assert len(agent.calls) == 2


def test_a_property_that_the_list_lacks_is_asked_for(agent, run):
    assert run(properties={"new.switch": True})["changed"]
    assert not run(properties={"new.switch": True})["changed"]
    failed = run(properties={"no.such": 1}, check=True)
    assert failed["failure"]["code"] == "AZCM0023"
    assert "update the agent" in failed["msg"]


@pytest.mark.parametrize(
    "properties",
    [{"incomingconnections.enabled": False}, {"config.mode": "monitor"}, {"incomingconnections.ports": [6516]}],
)
@pytest.mark.parametrize("check", [False, True])
def test_the_own_connection_is_not_cut_unasked(agent, run, properties, check):
    failed = run(check=check, properties={**properties, "proxy.url": "http://p:1"})
    assert failed["failure"]["code"] == "WouldCutConnection"
    assert "web01" in failed["msg"] and next(iter(properties)) in failed["msg"]
    assert "cut_connection" in failed["msg"]
    assert (agent.calls, agent.later, failed["changed"]) == ([], [], False)


def test_when_told_twice_everything_else_comes_first_and_the_cut_later(agent, run):
    properties = {"incomingconnections.enabled": False, "config.mode": "monitor", "proxy.url": "http://p:1"}
    found = run(properties=properties, cut_connection=True)
    assert agent.calls == ["config set proxy.url http://p:1"]
    assert [change.name for change in agent.later] == ["incomingconnections.enabled", "config.mode"] == found["cutting"]
    assert found["after"]["config.mode"] == "monitor"
    assert "10 seconds" in found["told"][0]


def test_nothing_is_cut_later_in_check_mode(agent, run):
    found = run(check=True, properties={"config.mode": "monitor"}, cut_connection=True)
    assert found["changed"]
    assert (agent.calls, agent.later) == ([], [])


def test_a_connection_from_elsewhere_is_none_of_ours(agent, run, monkeypatch):
    monkeypatch.setattr(arc_agent_config, "ssh_connection", lambda: ELSEWHERE)
    found = run(properties={"incomingconnections.enabled": False})
    assert agent.calls == ["config set incomingconnections.enabled false"]
    assert found["cutting"] == []


def test_an_asynchronous_task_is_taken_for_connected(agent, run, monkeypatch):
    monkeypatch.setattr(arc_agent_config, "ssh_connection", lambda: None)
    monkeypatch.setenv("ANSIBLE_ASYNC_DIR", "~/.ansible_async")
    assert run(properties={"incomingconnections.ports": [22]})["failure"]["code"] == "WouldCutConnection"
    monkeypatch.delenv("ANSIBLE_ASYNC_DIR")
    assert run(properties={"incomingconnections.ports": [22]})["changed"]


def test_the_port_of_ssh_is_added_or_warned_about(agent, run):
    agent.settings["incomingconnections.ports"] = ["6516"]
    warned = run(ssh_port=2222)
    assert not warned["changed"]
    assert "lacks the port 2222" in warned["told"][0]
    assert "lacks the port 22 " in run()["told"][0]
    added = run(ssh_port=2222, add_port=True)
    assert agent.settings["incomingconnections.ports"] == ["6516", "2222"]
    assert "lacked the port 2222" in added["told"][0]
    again = run(ssh_port=2222, add_port=True)
    assert (again["changed"], again["told"]) == (False, [])


def test_only_root_changes_something(agent, run, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not run()["changed"]
    for check in (False, True):
        failed = run(check=check, properties={"proxy.url": "http://p:1"})
        assert failed["failure"]["code"] == "AZCM0018"
        assert "become: true" in failed["msg"]
    assert agent.calls == []


def test_old_agents_fail_or_warn_and_others_are_advised(agent, run):
    agent.version = "1.30.1"
    assert run()["failure"]["code"] == "AgentTooOld"
    warned = run(old_agent="warn")
    assert "1.31" in warned["told"][0]
    assert "1.62" in warned["advice"][0]
    agent.version = "1.61.1"
    assert "1.62" in run()["advice"][0]


def test_what_was_changed_before_a_failure_is_told(agent, run):
    agent.refused["proxy.url"] = 69
    failed = run(properties={"proxy.url": "http://p:1"}, add={"extensions.allowlist": ["a/b"]})
    assert failed["changed"]
    assert failed["changed_properties"] == ["extensions.allowlist"]
    assert failed["failure"]["code"] == "AZCM0069"
    assert "himds" in failed["msg"]
    assert failed["msg"].endswith("Changed before that: extensions.allowlist.")


def test_half_a_change_is_a_change(agent, run):
    agent.settings["extensions.allowlist"] = ["a/b"]
    agent.answers_left = 1
    failed = run(add={"extensions.allowlist": ["c/d"]}, remove={"extensions.allowlist": ["a/b"]})
    assert agent.calls[-1] == "config set extensions.allowlist a/b --remove"
    assert (failed["changed"], failed["changed_properties"]) == (True, ["extensions.allowlist"])


def test_the_password_of_a_proxy_is_shown_nowhere(agent, run):
    agent.settings["proxy.url"] = "http://u:old-secret@proxy:8080"
    found = run(properties={"proxy.url": "http://u:new-secret@proxy:8080"})
    assert agent.settings["proxy.url"] == "http://u:new-secret@proxy:8080"
    assert "secret" not in json.dumps(found)
    agent.refused["proxy.url"] = 23
    assert "secret" not in json.dumps(run(properties={"proxy.url": "http://u:new-secret@other:8080"}))
