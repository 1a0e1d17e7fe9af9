# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the playbooks do the whole main job, once, and tell what is not ready?"""

from __future__ import annotations

import json
import re

import pytest

from on_lab import COLLECTIONS, ansible, module

PLAYBOOKS = COLLECTIONS / "ansible_collections" / "arcfleet" / "ssh" / "playbooks"


def recap(text):
    """The recap of a play: host -> {ok, changed, unreachable, failed, …}."""
    lines = text.split("PLAY RECAP", 1)[1].splitlines()[1:]
    found = {}
    for line in lines:
        host, colon, counts = line.partition(":")
        if colon:
            found[host.strip()] = {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", counts)}
    return found


def is_ready(machine):
    return machine["status"] == "Connected" and not machine["agent_version"].startswith("1.30")


def changes(text):
    return sum(counts["changed"] for counts in recap(text).values())


def writes(lab):
    return [entry for entry in lab.journal() if entry["kind"] == "arm" and entry.get("method") not in ("GET",)]


def put_or_deleted(lab):
    return [entry for entry in writes(lab) if entry.get("method") in ("PUT", "PATCH", "DELETE")]


def test_enable_and_disable_from_nothing(start):
    lab = start(machines=5, stopped=1, old_agents=1, listener_lag=1, unregistered=True, registration_seconds=0.5)
    names = sorted(machine["name"] for machine in lab.machines())

    checked = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--check", "--diff")
    assert (
        put_or_deleted(lab) == []
        and [entry for entry in writes(lab) if entry["action"].endswith("register/action")] == []
    )
    assert '"port": 22' in checked.stdout and changes(checked.stdout) > 0

    first = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable")
    assert sorted(recap(first.stdout)) == names
    assert changes(first.stdout) == changes(checked.stdout)
    assert "3 of 5 machines are ready for SSH." in first.stdout
    ready = [machine["name"] for machine in lab.machines() if is_ready(machine)]
    assert sorted(re.search('ready: ([^"]*)', first.stdout)[1].split(", ")) == sorted(ready)
    assert len(re.findall("not ready: .*: its agent is Disconnected since", first.stdout)) == 1
    assert len(re.findall("not ready: .*: its agent 1.30.* is too old for SSH", first.stdout)) == 1

    lab.clear_journal()
    second = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable")
    assert changes(second.stdout) == 0 and put_or_deleted(lab) == []

    pinged = ansible(
        lab,
        "ansible",
        "status_connected:!agent_too_old",
        "-m",
        "ansible.builtin.command",
        "-a",
        "printenv ARCLAB_MACHINE",
    )
    for machine in lab.machines():
        assert (f"{machine['name']} | CHANGED | rc=0 >>\n{machine['name']}\n" in pinged.stdout) == is_ready(machine)

    ansible(lab, "ansible-playbook", "arcfleet.ssh.disable", "--check")
    lab.clear_journal()
    disabled = ansible(lab, "ansible-playbook", "arcfleet.ssh.disable")
    assert changes(disabled.stdout) > 0
    lab.clear_journal()
    again = ansible(lab, "ansible-playbook", "arcfleet.ssh.disable")
    assert changes(again.stdout) == 0 and writes(lab) == []


@pytest.mark.one_core
def test_disable_leaves_the_machines_alone_unless_told_otherwise(start):
    lab = start(machines=3, stopped=1, listener_lag=0)
    away = next(machine["name"] for machine in lab.machines() if machine["status"] == "Disconnected")
    for told in ((), ("-e", "arc_disable_machine=true", "--tags", "control_plane")):
        ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane")
        lab.clear_journal()
        done = ansible(lab, "ansible-playbook", "arcfleet.ssh.disable", *told)
        assert "3 deleted" in done.stdout and "without our settings" not in done.stdout
        assert lab.journal(kind="relay") == []

    ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane")
    lab.clear_journal()
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.disable", "-e", "arc_disable_machine=true")
    dialled = {entry["machine_id"].rsplit("/", 1)[1] for entry in lab.journal(kind="relay") if entry["machine_id"]}
    assert away not in dialled and len(dialled) == 2
    # These machines have no agent that could say which ones they are, so nothing is changed on them, and this is told.
    assert "0 of 3 machines are without our settings" in done.stdout
    assert done.stdout.count("left as it is, because no agent says which machine it is: ") == 2
    assert f"left as it is: {away}: its agent is Disconnected" in done.stdout
    assert "3 deleted" in done.stdout and changes(done.stdout) == 1

    again = ansible(lab, "ansible-playbook", "arcfleet.ssh.disable", "-e", "arc_disable_machine=true")
    assert changes(again.stdout) == 0 and "SSH through Azure Arc is withdrawn there already: " in again.stdout


@pytest.mark.one_core
def test_unready_machines_fail_the_run_when_asked(start):
    lab = start(machines=2, stopped=1)
    away = next(machine["name"] for machine in lab.machines() if machine["status"] == "Disconnected")
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "-e", "arc_connectivity_unready=fail", rc=2)
    assert {host: counts["failed"] for host, counts in recap(done.stdout).items() if counts["failed"]} == {away: 1}


@pytest.mark.one_core
def test_a_machine_that_should_be_ready_and_is_not_fails(start):
    lab = start(machines=2)
    lab.machine("web01", "sshd-stop")
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane,verify", rc=2)
    assert "1 of 2 machines are ready for SSH." in done.stdout
    assert re.search(r"not ready: web01: .*port 22", done.stdout)
    assert recap(done.stdout)["web01"]["failed"] == 1 and recap(done.stdout)["web02"]["failed"] == 0


@pytest.mark.one_core
def test_a_machine_that_gets_no_server_is_named_and_the_others_go_on(start):
    lab = start(machines=3)
    lab.machine("web01", "sshd-stop")
    lab.clear_journal()
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", rc=2)
    # Machines of this lab run scripts as nobody.
    assert "web01: The script has to be run as root" in done.stdout
    assert "2 of 2 machines are ready for SSH." in done.stdout and "ready: db01, web02" in done.stdout
    assert {host: counts["failed"] for host, counts in recap(done.stdout).items()} == {
        "db01": 0,
        "web01": 1,
        "web02": 0,
    }
    ran = [entry for entry in put_or_deleted(lab) if "/runCommands/" in entry["path"]]
    assert [entry["method"] for entry in ran] == ["PUT", "DELETE"] and all("/web01/" in entry["path"] for entry in ran)


@pytest.mark.one_core
def test_one_machine_that_cannot_be_changed_stops_no_other(start):
    lab = start(machines=3)
    lab.fault(
        kind="arm",
        method="PUT",
        path="/machines/web02/",
        status=403,
        code="AuthorizationFailed",
        message="No rights here.",
    )
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", rc=2)
    assert (
        "web02: cannot create the default connectivity endpoint: Azure answers 403 AuthorizationFailed: No rights here."
        in done.stdout
    )
    assert {host: counts["failed"] for host, counts in recap(done.stdout).items()} == {
        "web01": 0,
        "web02": 1,
        "db01": 0,
    }
    assert "2 of 2 machines are ready for SSH." in done.stdout


@pytest.mark.one_core
def test_limit_serial_and_targets(start):
    lab = start(machines=4)
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--limit", "web01")
    assert list(recap(done.stdout)) == ["web01"]
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "-e", "arc_targets=web02:db01", "-e", "arc_serial=1")
    assert sorted(recap(done.stdout)) == ["db01", "web02"]
    assert done.stdout.count("1 of 1 machines are ready") == 2


@pytest.mark.one_core
def test_the_port_is_that_of_the_connection(start):
    lab = start(machines=2)
    inventory = lab.state_dir / "ports.arc.yml"
    inventory.write_text(
        (lab.state_dir / "arc.yml").read_text() + "compose:\n  ansible_port: \"2222 if arc_name == 'web02' else 22\"\n",
        encoding="utf-8",
    )
    ansible(lab, "ansible-playbook", "-i", str(inventory), "arcfleet.ssh.enable", "--tags", "control_plane")
    ports = {
        entry["path"].split("/machines/")[1].split("/")[0]: entry["request_body"]["properties"]["port"]
        for entry in put_or_deleted(lab)
        if "serviceConfigurations" in entry["path"]
    }
    assert ports == {"web01": 22, "web02": 2222}


def moved(lab):
    """The inventory says that web02's sshd shall be on port 2222, where it is already, and that the connection goes to port 22."""
    lab.machine("web02", sshd_port=2222)
    inventory = lab.state_dir / "moved.arc.yml"
    inventory.write_text(
        (lab.state_dir / "arc.yml").read_text()
        + "compose:\n  arc_sshd_port: \"2222 if arc_name == 'web02' else none\"\n",
        encoding="utf-8",
    )
    web02 = lab.machine("web02")["id"]
    assert module(lab, "arc_ssh_service_config", machines=[web02], port=2222)["changed"]
    lab.clear_journal()
    return "-i", str(inventory)


@pytest.mark.one_core
def test_a_machine_that_has_moved_to_its_port_stays_there(start, tmp_path):
    lab = start(machines=2)
    inventory = moved(lab)
    control_plane = ("--tags", "control_plane,verify")

    predicted = ansible(lab, "ansible-playbook", *inventory, "arcfleet.ssh.enable", *control_plane, "--check")
    assert put_or_deleted(lab) == []
    done = ansible(lab, "ansible-playbook", *inventory, "arcfleet.ssh.enable", *control_plane)
    assert "1 created, 1 unchanged" in predicted.stdout and "1 created, 1 unchanged" in done.stdout
    assert {entry["path"].split("/machines/")[1].split("/")[0] for entry in put_or_deleted(lab)} == {"web01"}
    assert "2 of 2 machines are ready for SSH." in done.stdout

    lab.clear_journal()
    again = ansible(lab, "ansible-playbook", *inventory, "arcfleet.ssh.enable", "--tags", "control_plane")
    assert changes(again.stdout) == 0
    asked = [entry["method"] for entry in lab.journal(path="HybridConnectivity")]
    assert asked == ["GET", "GET"], "the steady state costs one read for each machine"

    # The verification alone knows no more than the inventory.
    alone = ansible(lab, "ansible-playbook", *inventory, "arcfleet.ssh.enable", "--tags", "verify", rc=2)
    assert "ready: web01" in alone.stdout and "not ready: web02" in alone.stdout

    _output, report = enforce(lab, tmp_path / "drift.json", *inventory)
    assert set(statuses(report).values()) == {"in_order"}


@pytest.mark.one_core
def test_a_prediction_connects_to_the_port_that_azure_still_relays_to(start):
    lab = start(machines=2)
    inventory = moved(lab)
    # Nobody told the role that web02 shall be there, so the run would put Azure back.
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "vars_files": [str(PLAYBOOKS / "vars" / "connection.yml")],
            "tasks": [
                {
                    "ansible.builtin.import_role": {"name": "arcfleet.ssh.arc_connectivity", "tasks_from": "fleet"},
                    "vars": {"arc_connectivity_hosts": ["web02"]},
                },
                {"ansible.builtin.raw": "echo connected", "check_mode": False, "when": "inventory_hostname == 'web02'"},
            ],
        }
    ]
    (lab.state_dir / "site.json").write_text(json.dumps(play))
    done = ansible(
        lab, "ansible-playbook", *inventory, "site.json", "--check", "-e", "arc_sshd_port=0", "--limit", "web02"
    )
    assert recap(done.stdout)["web02"]["unreachable"] == 0 and put_or_deleted(lab) == []


def enforce(lab, path, *arguments, rc=0):
    """Run the playbook; its output and the report."""
    done = ansible(
        lab, "ansible-playbook", "arcfleet.ssh.enforce", "-e", f"arc_enforcement_report={path}", *arguments, rc=rc
    )
    return done.stdout, json.loads(path.read_text()) if path.exists() else None


def statuses(report):
    return {machine["host"]: machine["status"] for machine in report["machines"].values()}


@pytest.mark.one_core
def test_drift_is_reported_then_mended_and_then_there_is_none(start, tmp_path):
    lab, path = start(machines=4), tmp_path / "drift.json"
    ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane")
    drifted = [machine["id"] for machine in lab.machines() if machine["name"] in ("web02", "db01")]
    module(lab, "arc_ssh_service_config", machines=drifted, state="absent", manage_endpoint=False)
    lab.clear_journal()

    output, report = enforce(lab, path, rc=2)
    assert statuses(report) == {"web01": "in_order", "web02": "drifted", "web03": "in_order", "db01": "drifted"}
    assert "web02: service configuration is missing." in output
    assert {host for host, counts in recap(output).items() if counts["failed"]} == {"web02", "db01"}
    assert writes(lab) == [], "a report writes nothing to Azure"
    assert path.stat().st_mode & 0o777 == 0o600

    _output, report = enforce(lab, path, "-e", "arc_enforcement_mode=repair", "--limit", "web02,web03")
    assert statuses(report) == {"web02": "repaired", "web03": "in_order"}
    assert len(writes(lab)) == 1

    output, report = enforce(lab, path, "-e", "arc_enforcement_mode=repair", "--check", rc=2)
    assert len(writes(lab)) == 1, "--check mends nothing, whatever the mode"
    _output, report = enforce(lab, path, "-e", "arc_enforcement_mode=repair")
    assert statuses(report)["db01"] == "repaired" and report["drift_left"] is False
    output, report = enforce(lab, path)
    assert set(statuses(report).values()) == {"in_order"} and len(writes(lab)) == 2


@pytest.mark.one_core
def test_a_report_is_written_when_nothing_could_be_asked(start, tmp_path):
    lab, path = start(machines=2), tmp_path / "drift.json"
    lab.fault(
        kind="arm", path="Microsoft.HybridConnectivity", status=403, code="AuthorizationFailed", message="No rights."
    )
    output, report = enforce(lab, path, rc=2)
    assert set(statuses(report).values()) == {"failed"}
    assert output.count("No rights.") >= 2


@pytest.mark.one_core
def test_a_login_that_fails_is_a_problem_of_the_report(start, tmp_path):
    lab, path = start(machines=2), tmp_path / "drift.json"
    lines = (lab.state_dir / "arc.yml").read_text().splitlines()
    # The inventory still logs in; the modules do not.
    (tmp_path / "arc.yml").write_text(
        "\n".join(
            [*lines, "cache: true", "cache_plugin: ansible.builtin.jsonfile", f"cache_connection: {tmp_path}/cache"]
        )
    )
    ansible(lab, "ansible-inventory", "-i", f"{tmp_path}/arc.yml", "--list")
    lab.fault(kind="entra", status=401, code="invalid_client", message="Wrong secret.")
    done = ansible(
        lab,
        "ansible-playbook",
        "-i",
        f"{tmp_path}/arc.yml",
        "arcfleet.ssh.enforce",
        "-e",
        f"arc_enforcement_report={path}",
        rc=2,
    )
    report = json.loads(path.read_text())
    assert report["drift_left"] and len(report["problems"]) == 1 and report["machines"] == {}
    assert done.stdout.count("PLAY RECAP") == 1


@pytest.mark.one_core
def test_a_subscription_that_lacks_the_registration_is_drift(start, tmp_path):
    lab, path = start(machines=2, unregistered=True, registration_seconds=0.2), tmp_path / "drift.json"
    _output, report = enforce(lab, path, rc=2)
    assert [entry["status"] for entry in report["subscriptions"].values()] == ["drifted"] and writes(lab) == []
    _output, report = enforce(lab, path, "-e", "arc_enforcement_mode=repair")
    (subscription,) = report["subscriptions"].values()
    assert subscription["status"] == "repaired" and subscription["drift"][0]["resource"] == "resource_provider"
    assert set(statuses(report).values()) == {"repaired"}


def test_a_mode_that_does_not_exist_is_refused_before_any_request(start, tmp_path):
    lab = start(machines=1)
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enforce", "-e", "arc_enforcement_mode=mend", rc=2)
    assert "arc_enforcement_mode is mend; it is report or repair." in done.stdout
    assert not lab.journal(path="HybridConnectivity")


@pytest.mark.one_core
def test_a_report_that_cannot_be_written_is_told(start, tmp_path):
    lab = start(machines=1)
    output, _report = enforce(lab, tmp_path / "nowhere" / "drift.json", rc=2)
    assert "cannot be written" in output and "No such file or directory" in output


@pytest.mark.one_core
def test_progress_is_told_batch_by_batch(start):
    lab = start(machines=5)
    done = ansible(
        lab,
        "ansible-playbook",
        "arcfleet.ssh.enable",
        "--tags",
        "control_plane",
        "-e",
        "arc_connectivity_batch=2",
        "-v",
    )
    assert "item=2 of 5 machines, end expected at " in done.stdout
    assert "item=5 of 5 machines: 1 created" in done.stdout
    for machine in lab.machines():
        assert f'"name": "{machine["name"]}"' in done.stdout, "-v names the machines"


@pytest.mark.one_core
def test_the_limit_may_come_from_a_file(start, tmp_path):
    lab = start(machines=4)
    (tmp_path / "retry").write_text("web01\ndb01\n")
    done = ansible(
        lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane", "--limit", f"@{tmp_path}/retry"
    )
    assert "item=2 of 2 machines: 2 created" in done.stdout


@pytest.mark.one_core
def test_all_machines_failing_is_told_for_each(start):
    lab = start(machines=2)
    lab.fault(kind="arm", method="PUT", status=403, code="AuthorizationFailed", message="No rights here.")
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", rc=2)
    assert {host: counts["failed"] for host, counts in recap(done.stdout).items()} == {"web01": 1, "web02": 1}
