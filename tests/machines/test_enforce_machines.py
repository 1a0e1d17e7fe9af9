# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a scheduled run find and mend what was changed on the machines themselves, and reach those that are new?"""

from __future__ import annotations

import json

import pytest

from on_lab import ansible

DROP_IN = "/etc/ssh/sshd_config.d/00-arcfleet.conf"


@pytest.fixture(scope="module")
def lab(machines):
    return machines(
        {"name": "web01"}, {"name": "db01", "suite": "trixie"}, {"name": "new01", "image": "bare"}, listener_lag=1
    )


def enforce(lab, mode, *limit, rc=0):
    """Run the playbook, the machines included; the report's machines by name."""
    variables = {
        "arc_enforcement_directory": str(lab.state_dir / "enforcement"),
        "arc_enforcement_mode": mode,
        "arc_enforcement_machine": True,
        "arc_sshd_profile": "hardened",
        "arc_agent_properties": {"incomingconnections.enabled": True, "proxy.bypass": ["Arc"]},
    }
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enforce", "-e", json.dumps(variables), *limit, rc=rc)
    report = json.loads((lab.state_dir / "enforcement" / "drift.json").read_text())
    return done, {machine["name"]: machine for machine in report["machines"].values()}


def resources(machine):
    return {step["resource"] for step in machine["drift"]}


def test_a_first_run_brings_even_a_machine_without_openssh_in_order(lab):
    _done, found = enforce(lab, "repair")
    assert {name: machine["status"] for name, machine in found.items()} == dict.fromkeys(found, "repaired")
    assert "sshd" in resources(found["new01"]) and len(found) == 3
    assert lab.shell("new01", "systemctl is-active ssh").stdout.strip() == "active"


def test_what_was_changed_on_a_machine_is_reported_and_changed_by_nobody(lab):
    lab.shell("db01", "/opt/azcmagent/bin/azcmagent config set proxy.bypass ARM")
    lab.shell("new01", f"sed -i 's/^MaxStartups.*/MaxStartups 1:2:3/' {DROP_IN} && systemctl reload ssh")
    everything = (
        "cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/* /var/opt/azcmagent/localconfig.json 2>/dev/null; true"
    )
    before = {name: lab.shell(name, everything).stdout for name in ("web01", "db01", "new01")}
    _done, found = enforce(lab, "report", rc=2)
    assert {name: (machine["status"], resources(machine)) for name, machine in found.items()} == {
        "web01": ("in_order", set()),
        "db01": ("drifted", {"agent"}),
        "new01": ("drifted", {"sshd"}),
    }
    assert {name: lab.shell(name, everything).stdout for name in before} == before


def test_then_it_is_mended_and_a_machine_that_does_not_answer_stops_nobody(lab):
    # Connections that are still open would let the run in, and it would start the server again.
    lab.shell("web01", "systemctl stop ssh; pkill -x sshd; true")
    done, found = enforce(lab, "repair", rc=2)
    assert {name: machine["status"] for name, machine in found.items()} == {
        "web01": "failed",
        "db01": "repaired",
        "new01": "repaired",
    }
    assert "web01" in found["web01"]["failure"]["message"] and "PLAY RECAP" in done.stdout
    assert "MaxStartups 100:30:300" in lab.shell("new01", f"cat {DROP_IN}").stdout
    assert "Arc" in lab.shell("db01", "/opt/azcmagent/bin/azcmagent config get proxy.bypass").stdout
