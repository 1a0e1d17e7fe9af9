# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the role run the right commands in the right order on a Windows machine?

Ansible itself runs the role; a stand-in for ansible.windows.win_command answers as an agent would, and notes what it was told to run. No
Windows and no PowerShell is involved.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
AGENT = r"C:\Program Files\AzureConnectedMachineAgent\azcmagent.exe"
COMMAND = """\
#!/usr/bin/python
# WANT_JSON
import json, os, sys
given = json.load(open(sys.argv[1]))
place = os.environ["ARC_WINDOWS_AGENT"]
state = json.load(open(place))
program, *words = given["argv"]
answer = {"changed": True, "rc": 0, "stdout": "", "stderr": ""}
if given.get("_ansible_check_mode"):
    answer = {"changed": False, "skipped": True, "msg": "skipped, running in check mode"}
elif program != state["path"]:
    answer = {"failed": True, "msg": "The system cannot find the file specified"}
elif words == ["show", "-j"]:
    answer["stdout"] = json.dumps({"agentVersion": state["version"], "resourceName": "win01"})
elif words == ["config", "list"]:
    lines = ["  %s (preview)   : %s" % item for item in state["settings"].items()]
    answer["stdout"] = "\\r\\n".join(["Local Configuration Settings"] + lines)
else:
    state["journal"].append(" ".join(words))
    if state["refuses"] in words:
        answer.update(failed=True, rc=69, msg="non-zero return code", stdout="FATAL   AZCM0069: No.")
    elif words[-1] == "--add":
        state["settings"][words[2]] = "[" + state["settings"][words[2]].strip("[]") + "," + words[3] + "]"
    else:
        state["settings"][words[2]] = words[3]
json.dump(state, open(place, "w"))
print(json.dumps(answer))
"""


class Site:
    """One Windows machine, as far as its agent goes."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place = place
        modules = place / "collections/ansible_collections/ansible/windows/plugins/modules"
        modules.mkdir(parents=True)
        (modules / "win_command.py").write_text(COMMAND)
        ours = place / "collections/ansible_collections/arcfleet"
        ours.mkdir()
        (ours / "ssh").symlink_to(ROOT)
        (place / "ansible.cfg").touch()
        self.file = place / "agent.json"
        self.settings = {
            "incomingconnections.enabled": "true",
            "incomingconnections.ports": "[]",
            "config.mode": "full",
        }

    def set(self, **settings: str) -> None:
        """Begin with these settings, written with _ for the dot."""
        self.settings.update({name.replace("_", "."): value for name, value in settings.items()})
        state = {"path": AGENT, "version": "1.60.1", "settings": self.settings, "journal": [], "refuses": None}
        self.file.write_text(json.dumps(state))

    def change(self, **changes: Any) -> None:
        self.file.write_text(json.dumps({**self.state, **changes}))

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    def run(self, *arguments: str, **variables: Any) -> tuple[dict[str, int], str]:
        """Run the role. The numbers of the recap, and the output."""
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "arc_os_type": "windows",
            **variables,
        }
        role = {
            "ansible.builtin.import_role": {"name": "arcfleet.ssh.arc_agent"},
            "become": True,
        }
        (self.place / "inventory.json").write_text(json.dumps({"all": {"hosts": {"win01": host}}}))
        (self.place / "site.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [role]}]))
        done = subprocess.run(
            ["ansible-playbook", "-i", "inventory.json", "site.yml", *arguments],
            cwd=self.place,
            env={
                "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.place),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": str(self.place / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(self.place / "collections"),
                "ANSIBLE_NOCOLOR": "1",
                "ARC_WINDOWS_AGENT": str(self.file),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        recap = [line for line in output.splitlines() if line.startswith("win01 ")]
        assert recap, output
        return {
            name: int(value) for name, value in (word.split("=") for word in recap[-1].split(":")[1].split())
        }, output


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    found = Site(tmp_path)
    found.set()
    return found


def test_a_closed_agent_is_predicted_then_opened_then_left_alone(site: Site) -> None:
    site.set(incomingconnections_enabled="false", incomingconnections_ports="[6516]")
    predicted, output = site.run("--check", ansible_port=2222)
    assert (predicted["changed"], predicted["failed"], site.state["journal"]) == (1, 0, []), output
    done, output = site.run(ansible_port=2222)
    assert (done["changed"], done["failed"]) == (1, 0), output
    assert "lacked the port 2222" in output
    assert "win01: 1.60.1" in output
    journal = ["config set incomingconnections.enabled true", "config set incomingconnections.ports 2222 --add"]
    assert site.state["journal"] == journal
    again, output = site.run(ansible_port=2222)
    assert (again["changed"], again["failed"]) == (0, 0), output
    assert site.state["journal"] == journal


@pytest.mark.one_core
def test_what_fails_is_a_sentence(site: Site) -> None:
    numbers, output = site.run(arc_agent_windows_path=r"C:\none.exe")
    assert numbers["failed"] == 1
    assert "azcmagent cannot be run: The system cannot find the file" in output
    site.change(version="1.30.1")
    numbers, output = site.run()
    assert numbers["failed"] == 1
    assert "1.31" in output


@pytest.mark.one_core
def test_a_command_that_fails_fails_the_machine(site: Site) -> None:
    site.change(refuses="monitor")
    numbers, output = site.run(arc_agent_properties={"config.mode": "monitor"})
    assert numbers["failed"] == 1
    assert "AZCM0069" in output


@pytest.fixture
def over_ssh(site: Site) -> Site:
    """The role is told that the connection is ssh; the tasks run here all the same, because ssh is a script."""
    program = site.place / "ssh"
    program.write_text('#!/bin/sh\nfor last; do :; done\nexec /bin/sh -c "$last"\n')
    program.chmod(0o755)
    return site


def over(site: Site, *arguments: str, **variables: Any) -> tuple[dict[str, int], str]:
    return site.run(
        *arguments,
        ansible_connection="ssh",
        ansible_ssh_executable=str(site.place / "ssh"),
        ansible_ssh_transfer_method="piped",
        **variables,
    )


def test_the_connection_is_not_cut_unasked(over_ssh: Site) -> None:
    for arguments in ((), ("--check",)):
        numbers, output = over(over_ssh, *arguments, arc_agent_properties={"incomingconnections.enabled": False})
        assert numbers["failed"] == 1, output
        assert "would end the connection" in output
    assert over_ssh.state["journal"] == []


@pytest.mark.one_core
def test_told_twice_it_is_cut_last_and_nobody_waits(over_ssh: Site) -> None:
    properties = {"config.mode": "monitor", "incomingconnections.ports": [22, 6516]}
    variables = {"arc_agent_properties": properties, "arc_agent_cut_connection": True}
    predicted, output = over(over_ssh, "--check", **variables)
    assert (predicted["changed"], over_ssh.state["journal"]) == (1, []), output
    numbers, output = over(over_ssh, **variables)
    assert numbers["failed"] == 0, output
    deadline = time.monotonic() + 10
    while len(over_ssh.state["journal"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert over_ssh.state["journal"] == [
        "config set incomingconnections.ports 22,6516",
        "config set config.mode monitor",
    ]
