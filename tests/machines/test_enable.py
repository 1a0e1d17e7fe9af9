# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does `enable` reach a verified login on machines that have nothing but an agent?"""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from on_lab import ansible

ENABLE = ("ansible-playbook", "arcfleet.ssh.enable")


def counts(done, host):
    """The numbers of a host's line in the recap."""
    line = re.search(rf"^{host} .*$", done.stdout, re.MULTILINE)
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line[0])} if line else {}


@pytest.fixture(scope="module")
def lab(machines):
    return machines(
        {"name": "web01", "image": "bare"},
        {"name": "web02", "image": "bare", "suite": "trixie"},
        {"name": "db01"},
        {"name": "off01", "stopped": True},
        listener_lag=1,
    )


def writes(lab):
    return [
        line
        for line in lab.journal()
        if line["kind"] == "arm" and line["method"] in ("PUT", "PATCH", "DELETE") and line["status"] < 400
    ]


def test_a_rehearsal_on_virgin_machines_predicts_and_changes_nothing(lab):
    done = ansible(lab, *ENABLE, "--check", "--diff")
    assert "4 of 4 machines: 4 created" in done.stdout
    # Nobody can know yet what answers on db01: the worst is assumed.
    assert re.search(r"^changed: .*\(item=linux: 3 created\)$", done.stdout, re.MULTILINE)
    assert writes(lab) == []
    assert lab.shell("web01", "command -v sshd", check=False).returncode != 0


def test_then_every_machine_can_be_logged_in_to(lab):
    done = ansible(lab, *ENABLE)
    assert "ready: db01, web01, web02" in done.stdout and "not ready: off01: its agent is Disconnected" in done.stdout
    assert [line for line in lab.journal() if line["kind"] == "arm" and "/runCommands/" in line["path"]]
    for name in ("web01", "web02"):
        assert lab.shell(name, "systemctl is-enabled ssh").stdout.strip() == "enabled"
        modes = lab.shell(name, "stat -c '%U %a' /root/.ssh /root/.ssh/authorized_keys").stdout.split("\n")
        assert modes[:2] == ["root 700", "root 600"]
    # Only the machine that had a server before is not among those whose scripts ran.
    ran = {line["path"].split("/machines/")[1].split("/")[0] for line in writes(lab) if "runCommands" in line["path"]}
    assert ran == {"web01", "web02"}


def test_the_first_connection_was_verified(lab):
    known = pathlib.Path(lab.env["ARCLAB_KNOWN_HOSTS"]).read_text()
    for name in ("web01", "web02"):
        key = lab.shell(name, "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").stdout.strip()
        assert f"{lab.machine(name)['id'].lower()} {key}" in known
    done = ansible(lab, "ansible", "web01:web02", "-m", "ansible.builtin.command", "-a", "hostname")
    assert "web01\n" in done.stdout and "web02\n" in done.stdout


def test_the_second_run_changes_nothing(lab):
    lab.clear_journal()
    done = ansible(lab, *ENABLE)
    assert writes(lab) == []
    for host in ("web01", "web02", "db01"):
        assert counts(done, host)["changed"] == 0 and counts(done, host)["failed"] == 0


def test_nothing_is_left_behind_in_azure(lab):
    for name in ("web01", "web02"):
        done = ansible(
            lab,
            "ansible",
            name,
            "-m",
            "arcfleet.ssh.arc_run_command",
            "-a",
            json.dumps({"machines": [lab.machine(name)["id"]], "script": "ls /root/.ssh"}),
            "-e",
            json.dumps({"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}),
        )
        assert "authorized_keys" in done.stdout
    assert [key for key in lab.journal(method="PUT") if "runCommands" in key["path"]]
    put = {line["path"].lower() for line in lab.journal(method="PUT") if "runCommands" in line["path"]}
    gone = {line["path"].lower() for line in lab.journal(method="DELETE") if "runCommands" in line["path"]}
    assert put == gone


def test_an_agent_of_another_machine_fails_the_host_before_anything_is_changed(lab):
    lab.shell("db01", "/opt/azcmagent/bin/azcmagent config set proxy.bypass ARM")
    identity = "/var/opt/azcmagent/agentconfig.json"
    path = lab.shell(
        "db01", f"ls {identity} 2>/dev/null || grep -rl resourceName /var/opt/azcmagent | head -n 1"
    ).stdout.strip()
    before = lab.shell("db01", ["cat", path]).stdout
    lab.shell("db01", ["sh", "-c", f"cat > {path}"], stdin=before.replace("db01", "db99"))
    try:
        done = ansible(
            lab, *ENABLE, "--limit", "db01", "--tags", "machine", "-e",
            json.dumps({"arc_agent_properties": {"proxy.bypass": ["AAD"]}}), rc=2,
        )  # fmt: skip
        assert re.search(r"db01: the agent there says that it is .*/machines/db99, and not ", done.stdout)
        assert "ARM" in lab.shell("db01", "/opt/azcmagent/bin/azcmagent config get proxy.bypass").stdout
    finally:
        lab.shell("db01", ["sh", "-c", f"cat > {path}"], stdin=before)
