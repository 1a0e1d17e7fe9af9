# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the stand-in for azcmagent print, store and refuse?"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arclab import azcmagent


class Agent:
    """The command in this process, with its files in a folder; `himds` starts and stops the service."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._lock: Any = None
        for name in ("SETTINGS", "IDENTITY", "HIMDS_LOCK"):
            monkeypatch.setattr(azcmagent, name, str(folder / name.lower()))
        self.be("1.55.03212.2")
        self.user(0)
        self.himds(True)

    def be(self, version: str) -> None:
        who = {"resourceName": "web01", "location": "westeurope", "agentVersion": version, "resourceId": "/x"}
        Path(azcmagent.IDENTITY).write_text(json.dumps(who))

    def user(self, uid: int) -> None:
        self._monkeypatch.setattr(os, "geteuid", lambda: uid)

    def himds(self, runs: bool) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = open(azcmagent.HIMDS_LOCK, "w") if runs else None  # noqa: SIM115
        if runs:
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["azcmagent", *arguments])
        with pytest.raises(SystemExit) as ended:
            azcmagent.main()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def settings(self) -> dict[str, Any]:
        return azcmagent.load_settings()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Agent]:
    found = Agent(tmp_path, monkeypatch, capsys)
    yield found
    found.himds(False)


def test_the_text_list_has_the_documented_form(agent: Agent) -> None:
    code, out, _err = agent("config", "list")
    assert code == 0
    assert out.splitlines()[0] == "Local Configuration Settings"
    assert re.search(r"^  incomingconnections\.enabled \(preview\) +: true$", out, re.MULTILINE)
    assert re.search(r"^  incomingconnections\.ports \(preview\) +: \[\]$", out, re.MULTILINE)
    assert re.search(r"^  config\.mode +: full$", out, re.MULTILINE)


@pytest.mark.parametrize(("version", "key", "value"), [("1.55.1", "key", "value"), ("1.62.1", "Key", "Value")])
def test_the_json_list_has_values_with_types(agent: Agent, version: str, key: str, value: str) -> None:
    agent.be(version)
    found = {row[key]: row[value] for row in json.loads(agent("config", "list", "-j")[1])["localsettings"]}
    assert found["incomingconnections.enabled"] is True
    assert found["incomingconnections.ports"] == []
    assert found["extensions.agent.cpulimit"] == 5


def test_an_old_agent_has_no_json_and_fewer_properties(agent: Agent) -> None:
    agent.be("1.33.02399.4")
    assert agent("config", "list", "-j")[0] == 23
    assert agent("config", "set", "connection.type", "gateway")[0] == 23
    agent("config", "set", "incomingconnections.ports", "22,2222")
    assert re.search(
        r"incomingconnections\.ports \(preview\) +: \[22 2222\]$", agent("config", "list")[1], re.MULTILINE
    )


def test_lists_are_replaced_added_to_and_taken_from(agent: Agent) -> None:
    for arguments, expected in (
        (("22, 6516",), ["22", "6516"]),
        (("2222,22", "--add"), ["22", "6516", "2222"]),
        (("6516", "-r"), ["22", "2222"]),
        (("22",), ["22"]),
    ):
        assert agent("config", "set", "incomingconnections.ports", *arguments)[0] == 0
        assert agent.settings()["incomingconnections.ports"] == expected
    assert agent("config", "get", "incomingconnections.ports")[1] == "[22]\n"
    assert agent("config", "clear", "incomingconnections.ports")[0] == 0
    assert agent.settings()["incomingconnections.ports"] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("config", "set", "no.such", "1"), 23),
        (("config", "set", "incomingconnections.enabled", "maybe"), 23),
        (("config", "set", "incomingconnections.ports", "70000"), 23),
        (("config", "set", "config.mode", "half"), 23),
        (("config", "set", "proxy.url", "proxy:8080"), 23),
        (("config", "set", "config.mode", "full", "--add"), 23),
        (("config", "set", "proxy.url"), 16),
        (("config",), 16),
        (("config", "lsit"), 23),
        (("--frobnicate",), 23),
        (("connect",), 3),
    ],
)
def test_what_is_wrong_is_refused_and_stored_nowhere(agent: Agent, arguments: tuple[str, ...], code: int) -> None:
    found, out, err = agent(*arguments)
    assert (found, err) == (code, "")
    assert f"AZCM{code:04}: " in out
    assert agent.settings() == azcmagent.DEFAULTS


def test_errors_go_to_stderr_when_asked_to(agent: Agent) -> None:
    code, out, err = agent("config", "get", "no.such", "--log-stderr")
    assert (code, out) == (23, "")
    assert "AZCM0023" in err


def test_only_root_changes_something(agent: Agent) -> None:
    agent.user(1000)
    for arguments in (("config", "set", "config.mode", "full"), ("config", "clear", "config.mode"), ("check",)):
        code, out, _err = agent(*arguments)
        assert code == 18
        assert "AZCM0018" in out
    assert agent("show", "status", "-j")[0] == 0
    agent.be("1.30.1")
    assert agent("show")[0] == 18


def test_without_himds_there_is_no_configuration(agent: Agent) -> None:
    agent.himds(False)
    assert agent("config", "list")[0] == 70
    assert agent("config", "set", "config.mode", "monitor")[0] == 69
    assert agent("check")[0] == 64
    code, out, _err = agent("show", "-j")
    facts = json.loads(out)
    assert (code, facts["status"], facts["services"]["himds"]) == (0, "Disconnected", "stopped")


def test_show_tells_the_asked_facts(agent: Agent) -> None:
    facts = json.loads(agent("show", "status", "agentversion", "-j")[1])
    assert facts == {"agentVersion": "1.55.03212.2", "status": "Connected"}
    assert re.search(r"^  Agent Service \(himds\) +: running$", agent("show")[1], re.MULTILINE)


def test_monitor_mode_freezes_the_lists(agent: Agent) -> None:
    agent("config", "set", "config.mode", "monitor")
    assert agent("config", "set", "extensions.allowlist", "a/b")[0] == 27
    assert agent("config", "set", "config.mode", "full")[0] == 0
    assert agent("config", "set", "extensions.allowlist", "a/b")[0] == 0


def test_version_and_info(agent: Agent) -> None:
    assert agent("version")[1] == "azcmagent version 1.55.03212.2\n"
    out = agent("config", "info", "config.mode")[1]
    assert "Supported values: full, monitor" in out
