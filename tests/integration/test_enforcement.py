# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a scheduled run find every drift, cost next to nothing where there is none, and never do more than it may?"""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest

from arclab.client import Lab
from on_lab import ansible, module

HOUR = 3600.0


def service_configuration(machine):
    return f"{machine['id']}/providers/Microsoft.HybridConnectivity/endpoints/default/serviceConfigurations/SSH"


def on_port(port):
    return {"properties": {"serviceName": "SSH", "port": port}}


def enforce(lab, *arguments, rc=0, mode="repair"):
    """Run the playbook; what it printed, and the report."""
    directory = lab.state_dir / "enforcement"
    variables = {"arc_enforcement_directory": str(directory), "arc_enforcement_mode": mode}
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enforce", "-e", json.dumps(variables), *arguments, rc=rc)
    report = directory / "drift.json"
    return done.stdout + done.stderr, json.loads(report.read_text()) if report.exists() else None


def statuses(report):
    return {machine["name"]: machine["status"] for machine in report["machines"].values()}


def writes(lab):
    return [entry for entry in lab.journal(kind="arm") if entry["method"] not in ("GET",)]


def look(lab, path, machines=None, **options):
    entries = [{"id": machine["id"], "host": machine["name"], "port": 22} for machine in machines or lab.machines()]
    return module(lab, "arc_ledger_info", path=str(path), machines=entries, **options)


def note(lab, path, looked, found, **options):
    findings = {"service_configuration": [found]}
    return module(
        lab, "arc_ledger", path=str(path), look=looked["look"], findings=findings, **{"mode": "report", **options}
    )


def verified(lab, path):
    """A ledger in which every machine of the lab is in order."""
    machines = lab.machines()
    looked = look(lab, path)
    found = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in machines])
    assert note(lab, path, looked, found, mode="repair")["known"] == len(machines)
    # The writes that brought them in order are news to the ledger once.
    lab.advance(HOUR)
    looked = look(lab, path)
    assert sorted(looked["read_hosts"]) == sorted(machine["name"] for machine in machines)
    found = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in machines], check=True)
    note(lab, path, looked, found)
    lab.advance(HOUR)
    return {machine["name"]: machine for machine in machines}


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    """A lab of six machines in two subscriptions, a ledger in which all are in order, and the machines by name; nothing is written there."""
    lab = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=6, subscriptions=2)
    path = tmp_path_factory.mktemp("ledger") / "ledger.json"
    yield lab, path, verified(lab, path)
    lab.down()


@pytest.fixture
def known(ordered, tmp_path):
    """The same with a ledger of its own."""
    lab, path, machines = ordered
    own = tmp_path / "ledger.json"
    shutil.copy(path, own)
    lab.clear_faults()
    return lab, own, machines


def warned(result):
    return " ".join(map(str, result.get("warnings", ())))


def test_a_fleet_in_which_nothing_happened_costs_as_many_requests_as_the_log_has_pages(known):
    lab, path, machines = known
    lab.clear_journal()
    looked = look(lab, path)
    assert looked["read_hosts"] == [] and len(looked["unchanged"]) == len(machines)
    asked = lab.journal(kind="arm")
    # Azure's time, and the log of two providers in two subscriptions: no request for any machine.
    assert len(asked) == 5 == looked["pacing"]["requests"] and not writes(lab)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_desired_state_has_the_machine_read(known):
    lab, path, machines = known
    ports = {name: 2222 if name == "web01" else 22 for name in machines}
    entries = [{"id": machine["id"], "host": name, "port": ports[name]} for name, machine in machines.items()]
    assert module(lab, "arc_ledger_info", path=str(path), machines=entries)["read_hosts"] == ["web01"]
    assert len(look(lab, path, kinds=["extension"])["read_hosts"]) == len(machines)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(path.read_text()[:-100]),
        lambda path: path.write_text(path.read_text().replace("T", "t", 1)),
        lambda path: path.write_text('{"some": "other file"}'),
        lambda path: path.write_bytes(os.urandom(500)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["truncated", "edited", "foreign", "noise", "directory"],
)
def test_a_ledger_that_is_not_what_was_written_has_everything_read_with_a_warning(known, spoil):
    lab, path, machines = known
    spoil(path)
    looked = look(lab, path)
    assert len(looked["read_hosts"]) == len(machines)
    assert f"The ledger {path}" in warned(looked) and "Every machine is read." in warned(looked)


def test_a_log_that_cannot_be_read_has_everything_of_its_subscription_read(known):
    lab, path, machines = known
    subscription = machines["web01"]["id"].split("/")[2]
    refusal = {"status": 403, "code": "AuthorizationFailed", "message": "No rights."}
    lab.fault(kind="arm", path=f"{subscription}/providers/Microsoft.Insights", times=50, **refusal)
    looked = look(lab, path)
    theirs = sorted(name for name, machine in machines.items() if machine["id"].split("/")[2] == subscription)
    assert sorted(looked["read_hosts"]) == theirs and len(theirs) < len(machines)
    assert "Every machine of the subscription is read." in warned(looked)


def test_a_ledger_that_cannot_be_written_is_told_and_the_one_before_stays(known):
    lab, path, machines = known
    looked = look(lab, path)
    found = module(lab, "arc_ssh_service_config", machines=[machines["web01"]["id"]], check=True)
    before = path.read_bytes()
    path.parent.chmod(0o777)
    told = note(lab, path, looked, found)
    path.parent.chmod(0o700)
    assert told["failed"] and "others may write to the directory" in told["msg"] and path.read_bytes() == before


def test_what_somebody_wrote_is_read_and_what_nobody_told_is_read_in_time(start, tmp_path):
    lab, path = start(machines=5), tmp_path / "ledger.json"
    machines = verified(lab, path)
    lab.drift(service_configuration(machines["web01"]), on_port(2222))
    lab.drift(service_configuration(machines["web02"]), on_port(2222), logged=False)
    extension = f"{machines['web03']['id']}/extensions/AADSSHLogin"
    lab.drift(
        extension,
        {
            "location": "westeurope",
            "properties": {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"},
        },
    )
    # It takes the log a while to tell; until then nobody can know.
    lab.advance(HOUR)
    looked = look(lab, path)
    assert sorted(looked["read_hosts"]) == ["web01", "web03"]
    assert looked["reasons"] == {"something was written there since": 2}

    # A run that looks at one machine only does not hide from the next one what was written elsewhere.
    limited = look(lab, path, machines=[machines["db01"]])
    found = module(lab, "arc_ssh_service_config", machines=[machines["db01"]["id"]], check=True)
    note(lab, path, limited, found)
    lab.advance(2 * HOUR)
    assert sorted(look(lab, path)["read_hosts"]) == ["web01", "web03"]

    lab.advance(24 * HOUR)
    assert len(look(lab, path)["read_hosts"]) == len(machines), "what the log does not tell is found in time"


def test_scheduled_runs_find_repair_report_and_rest(start):
    lab = start(machines=6)
    machines = {machine["name"]: machine for machine in lab.machines()}
    _output, report = enforce(lab, "-e", "arc_enforcement_confirmed=true")
    assert set(statuses(report).values()) == {"repaired"} and report["reading"]["mode"] == "full"
    lab.advance(HOUR)
    enforce(lab)
    lab.advance(HOUR)
    lab.clear_journal()
    _output, report = enforce(lab)
    assert set(statuses(report).values()) == {"in_order"} and report["reading"]["read"] == 0
    assert len(lab.journal(kind="arm", path="serviceConfigurations")) == 0 and writes(lab) == []

    # A colleague in the portal, and a machine that is new.
    lab.drift(service_configuration(machines["web02"]))
    lab.onboard("new01")
    lab.advance(HOUR)
    _output, report = enforce(lab, mode="report", rc=2)
    assert {name: status for name, status in statuses(report).items() if status != "in_order"} == {
        "web02": "drifted",
        "new01": "drifted",
    }
    assert [entry for entry in writes(lab) if entry["method"] != "POST"] == [], "a report writes nothing to Azure"
    _output, report = enforce(lab)
    assert {name for name, status in statuses(report).items() if status == "repaired"} == {"web02", "new01"}
    assert report["reading"]["read"] == 2 and lab.repeated_writes() == []
    history = sorted((lab.state_dir / "enforcement" / "history").iterdir())
    assert len(history) == 5
    for name in ("drift.html", "drift.xml", "drift.prom"):
        assert (lab.state_dir / "enforcement" / name).stat().st_size > 0


@pytest.mark.one_core
def test_a_repair_that_would_change_too_much_changes_nothing_until_somebody_confirms(start):
    lab = start(machines=8)
    in_the_way = lab.state_dir / "file"
    in_the_way.touch()
    output, report = enforce(lab, "-e", f"arc_enforcement_history={in_the_way}", rc=2)
    assert f"cannot be added to the history {in_the_way}" in output, "what cannot be written stops nothing else"
    assert writes(lab) == [] and report["held_back"].startswith("8 of 8 machines would be changed")
    assert set(statuses(report).values()) == {"drifted"} and "arc_enforcement_confirmed=true" in report["held_back"]
    _output, report = enforce(lab, "-e", "arc_enforcement_confirmed=true")
    assert set(statuses(report).values()) == {"repaired"} and report["held_back"] is None


@pytest.mark.one_core
def test_groups_wait_for_their_time_and_canaries_go_first(start):
    lab = start(machines=4)
    variables = {
        "web01": {"arc_enforcement_canary": True},
        "web02": {"arc_enforcement_host_mode": "report"},
        "web03": {
            "arc_enforcement_windows": [{"start": "00:00", "end": "00:01", "days": ["mon"], "timezone": "Etc/GMT-14"}]
        },
    }
    hosts = lab.state_dir / "host_vars"
    hosts.mkdir()
    for host, own in variables.items():
        (hosts / f"{host}.json").write_text(json.dumps(own))
    first = next(machine["id"] for machine in lab.machines() if machine["name"] == "web01")
    lab.fault(kind="arm", method="PUT", path=first, status=409, code="Conflict", message="Not now.", times=50)
    _output, report = enforce(lab, rc=2)
    reasons = {machine["name"]: machine["held_back"] for machine in report["machines"].values()}
    assert reasons["web02"] == "its arc_enforcement_host_mode is report"
    assert reasons["web03"].startswith("it is outside of its maintenance windows (mon 00:00-00:01")
    assert reasons["db01"] == "the canaries failed" and "Not now." in report["held_back"]
    assert statuses(report) == {"web01": "failed", "web02": "drifted", "web03": "drifted", "db01": "drifted"}
    written = {
        entry["path"].split("/machines/")[1].split("/")[0] for entry in writes(lab) if "/machines/" in entry["path"]
    }
    assert written == {"web01"}
    lab.clear_faults()
    # What a machine shall be is a variable like any other.
    (hosts / "db01.json").write_text(json.dumps({"arc_connectivity_port": 2222}))
    _output, report = enforce(lab, rc=2)
    assert statuses(report) == {"web01": "repaired", "web02": "drifted", "web03": "drifted", "db01": "repaired"}
    steps = {machine["name"]: machine["drift"][-1]["after"] for machine in report["machines"].values()}
    assert (steps["web01"]["port"], steps["db01"]["port"]) == (22, 2222)
