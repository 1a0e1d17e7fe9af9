# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do Windows machines, and no others, get Windows Admin Center, and do it and SSH leave each other alone?"""

from __future__ import annotations

import json
import re

import pytest

from on_lab import Arm, ansible

AUTHORIZATION, CONNECTIVITY, COMPUTE = "2022-04-01", "2023-03-15", "2025-01-13"
ROLE = "a6333a3e-0164-44c3-b281-7a577aff287f"
SOMEBODY = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def lab(start, tmp_path):
    fleet = tmp_path / "fleet.json"
    machines = [
        {"name": "win01", "os_type": "windows"},
        {"name": "win02", "os_type": "windows", "extensions_enabled": False},
        {"name": "win03", "os_type": "windows", "agent_version": "1.36.02345.1"},
        {"name": "web01"},
    ]
    fleet.write_text(json.dumps(machines), encoding="utf-8")
    return start(fleet=str(fleet), listener_lag=0, operation_seconds=0.1)


def play(lab, name, *arguments, rc=0, **options):
    found = ansible(lab, "ansible-playbook", f"arcfleet.ssh.{name}", "-e", json.dumps(options), *arguments, rc=rc)
    return found.stdout


def changes(said):
    return sum(map(int, re.findall(r"changed=(\d+)", said.partition("PLAY RECAP")[2])))


def connectivity(lab, name):
    """The services that are allowed, with their ports; `None` without an endpoint."""
    path = f"{lab.machine(name)['id']}/providers/Microsoft.HybridConnectivity/endpoints"
    if not Arm(lab).ask("GET", path, CONNECTIVITY)["value"]:
        return None
    listed = Arm(lab).ask("GET", f"{path}/default/serviceConfigurations", CONNECTIVITY)["value"]
    return {one["name"]: one["properties"]["port"] for one in listed}


def extensions(lab, name):
    return Arm(lab).ask("GET", f"{lab.machine(name)['id']}/extensions", COMPUTE)["value"]


def written(lab):
    return [
        entry for entry in lab.journal() if entry["kind"] == "arm" and entry["method"] in ("PUT", "PATCH", "DELETE")
    ]


@pytest.mark.one_core
def test_windows_machines_get_it_the_others_say_why_not_and_ssh_is_left_alone(lab):
    options = {"arc_admin_center_principals": [{"principal_id": SOMEBODY, "principal_type": "Group"}]}
    endpoint = f"{lab.machine('win01')['id']}/providers/Microsoft.HybridConnectivity/endpoints/default"
    ssh = {"properties": {"serviceName": "SSH", "port": 22}}
    Arm(lab).ask("PUT", endpoint, CONNECTIVITY, {"properties": {"type": "default"}})
    Arm(lab).ask("PUT", f"{endpoint}/serviceConfigurations/SSH", CONNECTIVITY, ssh)
    lab.clear_journal()
    predicted = play(lab, "admin_center", "--check", rc=2, **options)
    assert written(lab) == []
    said = play(lab, "admin_center", rc=2, **options)
    assert changes(predicted) == changes(said) == 3

    assert connectivity(lab, "win01") == {"SSH": 22, "WAC": 6516}
    (extension,) = extensions(lab, "win01")
    assert extension["properties"]["publisher"] == "Microsoft.AdminCenter"
    assert extension["properties"]["type"] == "AdminCenter"
    assert extension["properties"]["settings"] == {"port": "6516"}
    for name in ("win02", "win03", "web01"):
        assert (connectivity(lab, name), extensions(lab, name)) == (None, [])
    assert re.search(r"win02.*extensions", said)
    assert re.search(r"win03: its agent 1\.36.* 1\.37", said)
    assert re.search(r"Left alone are 1 of 4 hosts, .*: web01", said)
    subscription = lab.machine("win01")["id"].lower().partition("/resourcegroups/")[0]
    given = Arm(lab).ask("GET", f"{subscription}/providers/Microsoft.Authorization/roleAssignments", AUTHORIZATION)
    roles = {one["properties"]["principalId"]: one["properties"]["roleDefinitionId"] for one in given["value"]}
    assert roles[SOMEBODY].endswith(ROLE)

    # SSH goes and comes, and the other way round; the endpoint serves who is left.
    play(lab, "disable", "-e", "arc_targets=win01")
    assert connectivity(lab, "win01") == {"WAC": 6516}
    lab.clear_journal()
    assert changes(play(lab, "admin_center", "-e", "arc_targets=win01:web01", **options)) == 0
    assert written(lab) == []
    Arm(lab).ask("PUT", f"{endpoint}/serviceConfigurations/SSH", CONNECTIVITY, ssh)
    assert changes(play(lab, "admin_center", arc_admin_center_state="absent")) == 2
    assert connectivity(lab, "win01") == {"SSH": 22}
    assert extensions(lab, "win01") == []
