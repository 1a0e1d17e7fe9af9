# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the jobs of a sliced run, at once and in containers of their own, ask and write nothing twice?

`awx_job` says how AWX is imitated. The jobs share no directory, so the claims of one run bind none of the others.
"""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from awx_job import Job, sliced, synchronized

from arclab.client import Lab
from on_lab import module

# It is AWX's doing and ours, on any ansible-core.
pytestmark = pytest.mark.one_core

# What `arc_controller` gives AWX's inventory.
VARIABLES = {"ansible_ssh_host_key_checking": True}
SSH = "/providers/Microsoft.HybridConnectivity/endpoints/default/serviceConfigurations/SSH"
RAW = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.raw: 'true'\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=10) as started:
        yield started


def arc_yml(known_hosts: str) -> str:
    return (
        "plugin: arcfleet.ssh.arc_machines\nconnection: relay\nssh_auth: agent\n"
        f"ssh_known_hosts_file: {known_hosts}\ngroups_by: [os_type, resource_group]\n"
    )


@pytest.fixture(scope="module")
def inventory(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("awx") / "source"
    return synchronized(lab, folder, arc_yml(lab.env["ARCLAB_KNOWN_HOSTS"]))


def both(lab: Lab, inventory: dict[str, Any], folder: pathlib.Path, playbook: str, *args: str) -> list[Job]:
    """Run both slices of two at once."""
    play = f"- import_playbook: arcfleet.ssh.{playbook}\n"
    jobs = [Job(lab, folder / str(number), sliced(inventory, number, 2, VARIABLES), play, *args) for number in (1, 2)]
    for status, output in [job.end() for job in jobs]:
        assert status == 0 and lab.env["AZURE_SECRET"] not in output, output
    return jobs


def asked(lab: Lab) -> collections.Counter[tuple[str, str]]:
    """How often each request was made that is about one machine."""
    lines = [line for line in lab.journal(kind="arm") if "/machines/" in line["path"]]
    return collections.Counter((line["method"], line["path"].lower()) for line in lines)


def of(lab: Lab, number: int) -> set[str]:
    return set(sorted(machine["name"] for machine in lab.machines())[number - 1 :: 2])


def test_two_slices_at_once_repair_a_fleet_and_do_nothing_twice(
    lab: Lab, inventory: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    machines = {machine["name"]: machine["id"] for machine in lab.machines()}
    new = {min(of(lab, 1)), max(of(lab, 2))}
    old = [machines[name] for name in machines if name not in new]
    assert module(lab, "arc_ssh_service_config", machines=old)["summary"]["created"] == 8
    lab.clear_journal()
    ledger = tmp_path / "ledger.json"
    said = ("arc_enforcement_mode=repair", "arc_enforcement_max_change_percent=50", f"arc_enforcement_ledger={ledger}")
    jobs = both(
        lab, inventory, tmp_path, "enforce", "--tags", "control_plane", *(part for one in said for part in ("-e", one))
    )
    requests = asked(lab)
    twice = {path for (dummy, path), count in requests.items() if count > 1}
    # What is mended is read once more before it is written.
    assert not [path for path in twice if not path.startswith(tuple(f"{machines[name]}/".lower() for name in new))]
    puts = {path: count for (method, path), count in requests.items() if method == "PUT" and path.endswith("/ssh")}
    assert puts == {f"{machines[name]}{SSH}".lower(): 1 for name in new} and lab.repeated_writes() == []
    # They share a ledger. In a first run, in which no log is read, the later one may doubt what the earlier one noted.
    noted = set(json.loads(ledger.read_text("utf-8"))["machines"])
    slices = [{machines[name].lower() for name in of(lab, number)} for number in (1, 2)]
    assert noted in (*slices, slices[0] | slices[1])
    # Each tells of its own machines, so that each drift is in one report.
    for number, job in enumerate(jobs, 1):
        entries = json.loads(job.report.read_text("utf-8"))["machines"].values()
        assert {entry["name"] for entry in entries} == of(lab, number)
        assert {entry["name"] for entry in entries if entry["status"] == "repaired"} == new & of(lab, number)


def test_host_keys_are_verified_though_awx_switches_that_off(
    lab: Lab, inventory: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    (first,) = (machine["id"] for machine in lab.machines() if machine["name"] == min(of(lab, 1)))
    assert "failed" not in module(lab, "arc_ssh_service_config", machines=[first])
    nobody = tmp_path / "known_hosts"
    nobody.touch()
    stranger = synchronized(lab, tmp_path / "source", arc_yml(str(nobody)))
    jobs = [
        Job(lab, tmp_path / str(index), sliced(found, 1, 10, VARIABLES), RAW)
        for index, found in enumerate([inventory, stranger])
    ]
    (known, said), (unknown, complaint) = (job.end() for job in jobs)
    # With the key of the machine credential, which only the agent has.
    assert known == 0, said
    assert unknown != 0 and "Host key verification failed" in complaint
