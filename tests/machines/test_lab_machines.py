# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the lab's machines of their own what tests take them for, and does their agent really decide about the relay?"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

import on_lab
from arclab import containers, podman
from arclab.client import LabFailed, running_pid
from on_lab import ansible, module

AZCMAGENT = "/opt/azcmagent/bin/azcmagent"
COMPUTE = "2025-01-13"


def until(true, what, seconds=15.0):
    """Wait until `true()` is, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


class Arm(on_lab.Arm):
    """What ARM says of machines."""

    def properties(self, name):
        return self.ask("GET", self.lab.machine(name)["id"], COMPUTE)["properties"]

    def run(self, name, script, **properties):
        """A run command; its instance view at the end."""
        path = f"{self.lab.machine(name)['id']}/runCommands/c{time.monotonic_ns()}"
        location = self.lab.machine(name)["location"]
        self.ask(
            "PUT", path, COMPUTE, {"location": location, "properties": {"source": {"script": script}, **properties}}
        )
        return until(
            lambda: (
                (view := self.ask("GET", path, COMPUTE)["properties"]["instanceView"])["executionState"]
                not in ("Pending", "Running")
                and view
            ),
            "the run command does not end",
        )


def reach(lab, name, timeout=1):
    """The failure's code of a dial through the relay; `None` if it is connected."""
    result = module(lab, "arc_relay_credential", machines=[lab.machine(name)["id"]], wait=True, wait_timeout=timeout)
    (found,) = result["machines"].values()
    return found.get("failure", {}).get("code")


@pytest.fixture(scope="module")
def lab(machines):
    """One ready machine of each suite, one without an SSH server, and one with an agent of before JSON lists."""
    found = machines(
        {"name": "web01", "suite": "bookworm"},
        {"name": "web02", "suite": "trixie"},
        {"name": "bare01", "image": "bare"},
        {"name": "old01", "agent_version": "1.33.02399.4"},
    )
    result = module(found, "arc_ssh_service_config", machines=[machine["id"] for machine in found.machines()])
    assert not result.get("failed"), result
    return found


@pytest.mark.parametrize(("name", "release"), [("web01", "12"), ("web02", "13"), ("bare01", "12")])
def test_a_machine_is_a_whole_debian(lab, name, release):
    assert lab.shell(name, ". /etc/os-release; echo $VERSION_ID").stdout.strip() == release
    state = lab.shell(name, "systemctl is-system-running --wait", check=False).stdout.strip()
    assert state == "running", lab.shell(name, "systemctl --failed", check=False).stdout
    assert lab.shell(name, "hostname").stdout.strip() == name
    routes = lab.shell(name, "ip route").stdout.splitlines()
    assert [line.split()[0] for line in routes] == [lab.machine(name)["address"].rpartition(".")[0] + ".0/24"]


def test_a_ready_machine_accepts_ansible_through_the_relay_from_localhost(lab):
    done = ansible(
        lab, "ansible", "web01,web02", "-m", "ansible.builtin.raw", "-a", "hostname; echo from $SSH_CONNECTION"
    )
    for name in ("web01", "web02"):
        assert f"\n{name}\n" in done.stdout
    assert done.stdout.count("from 127.0.0.1 ") == 2


def test_every_machine_has_host_keys_of_its_own(lab):
    keys = [machine["host_key"] for machine in lab.machines()]
    assert keys[2] is None
    assert len({key for key in keys if key}) == 3
    known = pathlib.Path(lab.env["ARCLAB_KNOWN_HOSTS"]).read_text()
    assert known.count("\n") == 3
    assert f"{lab.machine('web01')['id'].lower()} {keys[0]}\n" in known
    assert len({lab.shell(name, "cat /etc/machine-id").stdout for name in ("web01", "web02", "bare01")}) == 3


def test_a_bare_machine_gets_its_ssh_server_from_its_own_repository(lab):
    assert lab.shell("bare01", "command -v sshd", check=False).returncode != 0
    assert lab.shell("bare01", "find /root/.ssh /var/lib/apt/lists -type f").stdout == ""
    assert reach(lab, "bare01") == "SshdDown"
    lab.shell("bare01", "apt-get -q update && apt-get -q install --yes openssh-server")
    assert lab.machine("bare01")["host_key"] is not None
    assert reach(lab, "bare01") is None


@pytest.mark.parametrize(
    ("cut", "mend"),
    [
        ("config set incomingconnections.enabled false", "config set incomingconnections.enabled true"),
        ("config set config.mode monitor", "config set config.mode full"),
        ("config set incomingconnections.ports 2222,6516", "config set incomingconnections.ports 22 --add"),
        ("config set incomingconnections.ports 2222", "config clear incomingconnections.ports"),
    ],
)
def test_the_agents_settings_cut_the_relay_and_restore_it(lab, cut, mend):
    assert reach(lab, "web01") is None
    lab.shell("web01", f"{AZCMAGENT} {cut}")
    until(lambda: reach(lab, "web01") == "NotListening", "the relay is not cut", 8)
    lab.shell("web01", f"{AZCMAGENT} {mend}")
    assert reach(lab, "web01", timeout=10) is None
    lab.shell("web01", f"{AZCMAGENT} config clear incomingconnections.ports")


def test_arm_shows_what_the_agent_is_set_to(lab):
    arm = Arm(lab)
    lab.shell("web02", f"{AZCMAGENT} config set incomingconnections.ports 22,2222")
    lab.shell("web02", f"{AZCMAGENT} config set config.mode monitor")
    try:
        wanted = {"incomingConnectionsPorts": ["22", "2222"], "configMode": "monitor"}
        until(lambda: wanted.items() <= arm.properties("web02")["agentConfiguration"].items(), "ARM does not follow")
    finally:
        lab.shell("web02", f"{AZCMAGENT} config set config.mode full")
        lab.shell("web02", f"{AZCMAGENT} config clear incomingconnections.ports")


def test_a_stopped_himds_is_disconnected_and_comes_back(lab):
    arm = Arm(lab)
    lab.shell("web02", "systemctl stop himdsd")
    until(lambda: arm.properties("web02")["status"] == "Disconnected", "ARM does not notice")
    assert reach(lab, "web02") == "NotListening"
    assert lab.shell("web02", f"{AZCMAGENT} config list", check=False).returncode == 70
    assert json.loads(lab.shell("web02", f"{AZCMAGENT} show status -j").stdout) == {"status": "Disconnected"}
    lab.shell("web02", "systemctl start himdsd")
    until(lambda: arm.properties("web02")["status"] == "Connected", "ARM does not notice")
    assert reach(lab, "web02", timeout=10) is None


def test_live_streams_end_when_the_agent_forbids_them(lab):
    def sessions():
        return lab.shell("web01", "ss --no-header --tcp state established '( sport = :22 )'").stdout

    environment = on_lab.environment(lab, ANSIBLE_SSH_ARGS="-o ControlMaster=no")
    command = ["ansible", "-i", lab.env["ARCLAB_INVENTORY"], "web01", "-m", "ansible.builtin.raw", "-a", "sleep 60"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(sessions, "nobody logs in")
        lab.shell("web01", f"{AZCMAGENT} config set config.mode monitor")
        until(lambda: not sessions(), "the session goes on", 5)
    finally:
        process.terminate()
        process.wait()
        lab.shell("web01", f"{AZCMAGENT} config set config.mode full")
    assert reach(lab, "web01", timeout=10) is None


def test_privileges_and_versions_of_azcmagent(lab):
    done = lab.shell(
        "web01", f"setpriv --reuid nobody --clear-groups {AZCMAGENT} config set config.mode monitor", check=False
    )
    assert (done.returncode, "AZCM0018" in done.stdout) == (18, True)
    assert lab.shell("old01", f"{AZCMAGENT} config list -j", check=False).returncode == 23
    assert lab.shell("web01", f"{AZCMAGENT} config list -j").stdout.startswith("{")
    lab.machine("web01", agent_version="1.67.03300.1")
    assert lab.shell("web01", f"{AZCMAGENT} version").stdout == "azcmagent version 1.67.03300.1\n"


def test_run_commands_run_as_root_in_the_machine(lab):
    arm = Arm(lab)
    script = 'id -un; hostname; echo "$greeting" "$1"; env | cut -d= -f1 | sort | tr "\\n" " "; echo oops >&2; exit 3'
    view = arm.run(
        "web01",
        script,
        parameters=[{"name": "greeting", "value": "it's $HOME"}, {"name": "", "value": "a b"}],
        protectedParameters=[{"name": "secret", "value": "hunter2"}],
    )
    assert (view["executionState"], view["exitCode"], view["error"]) == ("Failed", 3, "oops\n")
    assert view["output"].splitlines()[:3] == ["root", "web01", "it's $HOME a b"]
    assert {"PATH", "LANG", "greeting", "secret"} <= set(view["output"].splitlines()[3].split())
    assert "HOME" not in view["output"].splitlines()[3].split()
    assert len(arm.run("web01", "yes 0123456789 | head -n 2000")["output"]) == 4096
    view = arm.run("web01", "setsid sleep 300 & sleep 300", timeoutInSeconds=1)
    assert view["executionState"] == "TimedOut"
    assert lab.shell("web01", "pgrep -x sleep -a | grep 300", check=False).stdout == ""


def test_a_machine_is_switched_off_and_on_and_rebooted(lab):
    arm = Arm(lab)
    lab.shell("old01", "touch /root/kept /run/lost")
    key = lab.machine("old01")["host_key"]
    assert lab.machine("old01", "stop")["pid"] is None
    assert arm.properties("old01")["status"] == "Disconnected"
    with pytest.raises(LabFailed, match="off"):
        lab.shell("old01", "true")
    lab.machine("old01", "start")
    assert lab.shell("old01", "ls /root/kept /run/lost", check=False).stdout == "/root/kept\n"
    assert lab.machine("old01")["host_key"] == key
    before = lab.machine("old01")["pid"]
    lab.shell("old01", "systemctl reboot", check=False)
    until(lambda: lab.machine("old01")["pid"] not in (before, None), "it does not come back")
    until(lambda: arm.properties("old01")["status"] == "Connected", "ARM does not notice")
    # The agent is there before sshd is.
    until(lambda: reach(lab, "old01") is None, "sshd does not come back", 30)


def test_what_a_machine_has_itself_is_not_set_from_outside(lab):
    with pytest.raises(LabFailed, match="machine of its own"):
        lab.machine("web01", incoming_enabled=False)


def test_nothing_is_left_of_a_killed_lab(machines):
    lab = machines({"name": "killed01", "image": "bare"})
    mark = containers.digest(lab.state_dir)

    def left():
        found = podman.podman("ps", "--all", "--quiet", "--filter", f"label={containers.LAB}={mark}").split()
        found += [path.name for path in pathlib.Path("/run/netns").glob(f"arc{mark}-*")]
        return found + [path.name for path in pathlib.Path("/sys/class/net").glob(f"*{mark}*")]

    assert len(left()) == 4, left()
    pid = running_pid(lab.state_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: running_pid(lab.state_dir) is None, "the lab lives")
    other = machines({"name": "next01", "image": "bare"})
    assert left() == []
    other.down()
