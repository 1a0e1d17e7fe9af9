# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does `disable` undo in the right order, leave the machines alone unless told otherwise, and can `enable` follow?

The tests build on each other: web01's sshd is moved to a port that the inventory does not know as that of the connection.
"""

from __future__ import annotations

import re
import time

import pytest

from on_lab import ansible

pytestmark = pytest.mark.takes_minutes

DROP_IN = "/etc/ssh/sshd_config.d/00-arcfleet.conf"
IDENTITY = "/var/opt/azcmagent/agentconfig.json"
AZCMAGENT = "/opt/azcmagent/bin/azcmagent"
MACHINE = ("-e", "arc_disable_machine=true")
NAMES = ("web01", "web02", "mute01", "off01")
UP = NAMES[:3]
# Without the connections that an earlier run left open.
ANEW = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}

# A login shell that is there no more from when sshd was to be changed, and that ssh itself takes for a lost connection.
GONE = """#!/bin/sh
case "$SSH_ORIGINAL_COMMAND" in *AnsiballZ_arc_sshd_config*) touch /root/gone ;; esac
[ -e /root/gone ] && exit 255
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


@pytest.fixture(scope="module")
def lab(machines):
    found = machines(
        {"name": "web01"},
        {"name": "web02", "suite": "trixie"},
        {"name": "mute01"},
        {"name": "off01", "stopped": True},
        listener_lag=1,
    )
    inventory = (
        "compose:\n"
        "  arc_sshd_port: \"2222 if arc_name == 'web01' else none\"\n"
        "  arc_agent_cut_connection: \"arc_name == 'mute01'\"\n"
        "  arc_sshd_settings: \"{'ClientAliveInterval': 77}\"\n"
    )
    (found.state_dir / "site.arc.yml").write_text((found.state_dir / "arc.yml").read_text() + inventory)
    return found


def run(lab, playbook, *arguments, rc=0, env=None):
    """Run a playbook from a journal without entries; its output."""
    lab.clear_journal()
    inventory = ("-i", str(lab.state_dir / "site.arc.yml"))
    return ansible(lab, "ansible-playbook", *inventory, f"arcfleet.ssh.{playbook}", *arguments, rc=rc, env=env).stdout


def recap(output, host):
    """The numbers of a host's line in the recap."""
    line = re.search(rf"^{host} .*$", output.split("PLAY RECAP")[1], re.MULTILINE)
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line[0])} if line else {}


def changes(output):
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def writes(lab):
    """What was written to Azure: (machine, method, resource)."""
    return [
        (line["path"].split("/machines/")[1].split("/")[0], line["method"], line["path"].split("/")[-1])
        for line in lab.journal()
        if line["kind"] == "arm" and line["method"] in ("PUT", "PATCH", "DELETE") and line["status"] < 400
    ]


def ports(lab, name):
    """The ports that sshd listens on, and our settings that count there."""
    found = lab.shell(name, "sshd -T | grep -E '^(port|clientaliveinterval) '").stdout.split("\n")
    return sorted(line.split()[1] for line in found if line.startswith("port ")), "clientaliveinterval 77" in found


def ours(lab, name):
    return lab.shell(name, f"test -e {DROP_IN}", check=False).returncode == 0


def test_enable_moves_a_machine_and_leaves_it_there(lab):
    first = run(lab, "enable")
    assert "ready: mute01, web01, web02" in first and "not ready: off01: its agent is Disconnected" in first
    assert [ports(lab, name) for name in UP] == [(["2222"], True), (["22"], True), (["22"], True)]

    predicted = run(lab, "enable", "--check")
    assert changes(predicted) == 0 and writes(lab) == []
    again = run(lab, "enable")
    assert changes(again) == 0 and writes(lab) == []
    assert "ready: mute01, web01, web02" in again
    looked = again.split("Look at the OpenSSH server]")[1:]
    assert any(re.match(r"[ *]*\nok: \[web01\]", part) for part in looked), "the role worked on it again"
    assert ports(lab, "web01") == (["2222"], True)


def test_disable_leaves_the_machine_alone(lab):
    output = run(lab, "disable", "--limit", "web02")
    assert recap(output, "web02")["changed"] > 0 and recap(output, "web02")["failed"] == 0
    assert set(writes(lab)) == {("web02", "DELETE", "SSH"), ("web02", "DELETE", "default")}
    assert ports(lab, "web02") == (["22"], True)
    assert changes(run(lab, "disable", "--limit", "web02")) == 0 and writes(lab) == []

    output = run(lab, "enable", "--limit", "web02")
    assert "ready: web02" in output and {method for _name, method, _what in writes(lab)} == {"PUT"}


def test_a_rehearsal_predicts_and_changes_nothing(lab):
    before = lab.shell("web01", f"cat {DROP_IN}").stdout
    output = run(lab, "disable", "--check", *MACHINE)
    assert writes(lab) == []
    assert re.search(r"^changed: \[web02\]$", output, re.MULTILINE), "the machine side is predicted"
    assert "4 of 4 machines: 4 deleted" in output
    assert "3 of 4 machines would be without our settings: " in output
    time.sleep(0.5)
    assert lab.shell("web01", f"cat {DROP_IN}").stdout == before
    assert all(ours(lab, name) for name in UP)
    assert "true" in lab.shell("mute01", f"{AZCMAGENT} config get incomingconnections.enabled").stdout


def test_where_the_machine_fails_ssh_stays_allowed_and_the_others_go_on(lab):
    lab.shell("web02", f"chattr +i {DROP_IN}")
    try:
        output = run(lab, "disable", *MACHINE, "--limit", "web02,off01", rc=2)
    finally:
        lab.shell("web02", f"chattr -i {DROP_IN}")
    assert recap(output, "web02")["failed"] == 1 and recap(output, "off01")["failed"] == 0
    assert re.search("failed: web02: .*", output)
    assert "SSH through Azure Arc stays allowed there" in output
    assert {name for name, _method, _what in writes(lab)} == {"off01"}
    assert ports(lab, "web02") == (["22"], True)


def test_the_machine_side_comes_before_azures_and_nobody_stops_another(lab):
    lab.shell("web02", "systemctl stop ssh.socket ssh.service")
    output = run(lab, "disable", *MACHINE, rc=2)
    # web01 was reached on its port, and sshd is where it was before us; its last write to Azure is the withdrawal.
    assert ports(lab, "web01") == (["22"], False) and not ours(lab, "web01")
    assert [what for what in writes(lab) if what[0] == "web01"][-2:] == [
        ("web01", "DELETE", "SSH"),
        ("web01", "DELETE", "default"),
    ]
    # web02 should have answered, which is told when all is done; off01 cannot, and is withdrawn already.
    assert {name: recap(output, name)["failed"] for name in ("web01", "web02", "mute01")} == {
        "web01": 0,
        "web02": 1,
        "mute01": 0,
    }
    assert re.search(r"left as it is: web02: .*port 22", output) and ours(lab, "web02")
    assert "withdrawn there already: off01" in output
    assert ("web02", "DELETE", "SSH") in writes(lab) and ("mute01", "DELETE", "SSH") in writes(lab)
    # mute01's agent was to be closed as well, which happens when the connection is not needed any more.
    assert not ours(lab, "mute01")
    closed = time.monotonic() + 20
    while "false" not in lab.shell("mute01", f"{AZCMAGENT} config get incomingconnections.enabled").stdout:
        assert time.monotonic() < closed
        time.sleep(0.2)
    for name in ("web01", "web02"):
        assert "true" in lab.shell(name, f"{AZCMAGENT} config get incomingconnections.enabled").stdout


def test_the_second_run_changes_nothing_and_is_no_error(lab):
    output = run(lab, "disable", *MACHINE)
    assert changes(output) == 0 and writes(lab) == []
    told = re.search('withdrawn there already: ([^"]*)', output)[1]
    assert sorted(told.split(", ")) == sorted(NAMES)


def test_enable_follows(lab):
    # Only somebody on the machine can undo that.
    lab.shell("mute01", f"{AZCMAGENT} config set incomingconnections.enabled true")
    lab.shell("web02", "systemctl start ssh")
    output = run(lab, "enable")
    assert "ready: mute01, web01, web02" in output
    assert [ports(lab, name) for name in UP] == [(["2222"], True), (["22"], True), (["22"], True)]
    assert changes(run(lab, "enable")) == 0


def test_a_machine_that_goes_away_in_between_can_be_worked_on_again(lab):
    keys = "/root/.ssh/authorized_keys"
    lab.shell("web01", ["sh", "-c", "cat > /root/gone.sh; chmod +x /root/gone.sh"], stdin=GONE)
    before = lab.shell("web01", f"cat {keys}").stdout
    lab.shell("web01", ["sh", "-c", f"cat > {keys}"], stdin=re.sub("(?m)^", 'command="/root/gone.sh" ', before.strip()))
    try:
        output = run(lab, "disable", *MACHINE, "--limit", "web01,web02", rc=2)
    finally:
        lab.shell("web01", ["sh", "-c", f"cat > {keys}"], stdin=before)
        went = lab.shell("web01", "test -e /root/gone && rm /root/gone /root/gone.sh", check=False).returncode == 0
    assert went, "it did go away"
    assert recap(output, "web01")["failed"] == 1 and recap(output, "web02")["failed"] == 0
    assert "SSH through Azure Arc stays allowed there" in output
    assert {name for name, _method, _what in writes(lab)} == {"web02"} and not ours(lab, "web02")
    run(lab, "disable", *MACHINE, "--limit", "web01", env=ANEW)
    assert ports(lab, "web01") == (["22"], False)


def test_who_does_not_let_us_in_does_not_answer(lab):
    run(lab, "enable", "--limit", "web02,mute01")
    lab.shell("web02", "mv /root/.ssh/authorized_keys /root/keys")
    # The agent of mute01 takes itself for another machine.
    lab.shell("mute01", f"sed -i 's/mute01/else01/' {IDENTITY}")
    try:
        output = run(lab, "disable", *MACHINE, "--limit", "web02,mute01", rc=2, env=ANEW)
    finally:
        lab.shell("web02", "mv /root/keys /root/.ssh/authorized_keys")
        lab.shell("mute01", f"sed -i 's/else01/mute01/' {IDENTITY}")
    assert re.search(r"left as it is: web02: .*Permission denied", output)
    assert re.search(r"failed: mute01: .* says that it is .*/else01", output)
    assert recap(output, "web02")["failed"] == 1 and recap(output, "mute01")["failed"] == 1
    assert {name for name, _method, _what in writes(lab)} == {"web02"}
    assert ours(lab, "web02") and ours(lab, "mute01")
