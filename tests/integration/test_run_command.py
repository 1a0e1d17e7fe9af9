# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does arc_run_command run scripts on a fleet, tell how they ended, and leave nothing behind?"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import requests

from arclab.client import Lab
from on_lab import _RUN_MODULE, ansible, environment, module

HELLO = 'printf "%s from %s\\n" "${GREETING:-nothing} $1" "$ARCLAB_MACHINE"; echo careful >&2'


def ids(lab):
    return [machine["id"] for machine in lab.machines()]


def run(lab, machines, script="exit 0", **params):
    done = module(lab, "arc_run_command", machines=machines, script=script, **params)
    return done, [done.get("machines", {}).get(machine.lower()) for machine in machines]


def asked(lab, *methods):
    return [entry for entry in lab.journal() if entry["kind"] == "arm" and entry["method"] in methods]


def arm(lab, path):
    """What ARM answers to a GET; by a client that the collection has no part in."""
    session = requests.Session()
    session.trust_env, session.verify = False, lab.env["REQUESTS_CA_BUNDLE"]
    login = {
        "grant_type": "client_credentials",
        "client_id": lab.env["AZURE_CLIENT_ID"],
        "client_secret": lab.env["AZURE_SECRET"],
        "scope": f"{lab.url}/.default",
    }
    token = session.post(f"{lab.url}/{lab.env['AZURE_TENANT']}/oauth2/v2.0/token", data=login).json()["access_token"]
    asked = {"api-version": "2025-01-13"}
    return session.get(lab.url + path, params=asked, headers={"Authorization": f"Bearer {token}"}).json()


def left(lab, machine):
    """The names of the run commands that the machine still has, but for those that are being deleted."""
    listed = arm(lab, f"{machine}/runCommands")["value"]
    return [one["name"] for one in listed if one["properties"]["provisioningState"] != "Deleting"]


def test_a_script_runs_once_on_each_machine_and_leaves_nothing(start):
    lab = start(machines=3, operation_seconds=0.2)
    fleet = ids(lab)
    lab.clear_journal()
    done, entries = run(lab, fleet, HELLO, parameters={"GREETING": "hello"}, arguments=["to all"])
    assert not done.get("failed") and done["changed"] and done["summary"]["created"] == 3, done
    for machine, entry in zip(lab.machines(), entries, strict=True):
        assert entry["output"] == f"hello to all from {machine['name']}\n" and entry["error"] == "careful\n"
        assert (entry["execution_state"], entry["exit_code"], entry["output_truncated"]) == ("succeeded", 0, False)
        assert entry["before"] is None and entry["after"]["parameters"] == ["GREETING"]
    puts, deletes = asked(lab, "PUT"), asked(lab, "DELETE")
    assert sorted(entry["path"] for entry in puts) == sorted(entry["path"] for entry in deletes) and len(puts) == 3
    names = {entry["path"].rsplit("/", 1)[1] for entry in puts}
    assert len(names) == 3 and all(name.startswith("arcfleet-") and len(name) <= 36 for name in names)
    assert all(left(lab, machine) == [] for machine in fleet)


def test_check_mode_runs_nothing(start):
    lab = start(machines=1)
    lab.clear_journal()
    done, [entry] = run(lab, ids(lab), "touch ran", check=True)
    assert done["changed"] and entry["action"] == "create" and "output" not in entry
    assert asked(lab, "PUT", "DELETE", "POST", "PATCH") == []


@pytest.mark.one_core
def test_a_script_that_fails_says_so_and_is_deleted_all_the_same(start):
    lab = start(machines=2, operation_seconds=0.2)
    fleet = ids(lab)
    script = f'if [ "$ARCLAB_MACHINE" = {lab.machines()[0]["name"]} ]; then echo "no room left" >&2; exit 7; fi'
    done, [bad, good] = run(lab, fleet, script, max_fail_percentage=50)
    assert not done.get("failed") and done["summary"]["failed"] == 1 and not good.get("failure")
    assert bad["failure"]["code"] == "ScriptFailed" and bad["exit_code"] == 7 and bad["changed"]
    assert "the script failed with exit code 7: no room left" in bad["failure"]["message"]
    assert left(lab, fleet[0]) == []


@pytest.mark.one_core
def test_a_script_that_takes_too_long_is_stopped(start):
    lab = start(machines=1, operation_seconds=0.2)
    done, [entry] = run(lab, ids(lab), "echo begun; sleep 60", timeout=1)
    assert entry["failure"]["code"] == "ScriptTimedOut" and "within 1 s" in done["msg"] and entry["output"] == "begun\n"
    assert left(lab, ids(lab)[0]) == []


@pytest.mark.one_core
def test_long_output_is_cut_and_said_to_be(start):
    lab = start(machines=1, operation_seconds=0.2)
    _done, [entry] = run(lab, ids(lab), "i=0; while [ $i -lt 900 ]; do echo line $i; i=$((i+1)); done")
    assert entry["output_truncated"] and not entry["error_truncated"] and entry["output"].endswith("line 899\n")


@pytest.mark.one_core
@pytest.mark.parametrize(
    ("script", "changed", "code"),
    [
        ('echo chatter; echo \'{"changed":false,"port":[22]}\'; echo', False, None),
        ("echo '{\"changed\":true}'", True, None),
        ('echo \'{"changed":true,"problem":"there is no disk"}\'; exit 1', True, "ScriptFailed"),
        ("echo no json", True, "ResultNotJson"),
        ("echo broken >&2; exit 3", True, "ScriptFailed"),
    ],
)
def test_the_last_line_tells_what_a_script_did(lab_for_results, script, changed, code):
    lab = lab_for_results
    done, [entry] = run(lab, ids(lab), script, result="json")
    assert done["changed"] is changed, done
    assert entry.get("failure", {}).get("code") == code
    if code is None:
        assert entry["json"]["changed"] is changed
        assert entry["action"] == ("create" if changed else "none")
    if "problem" in script:
        assert entry["failure"]["message"].endswith("there is no disk")


@pytest.fixture(scope="module")
def lab_for_results(tmp_path_factory):
    found = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=1, operation_seconds=0.2)
    yield found
    found.down()


ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "arc_sshd"
KEY = f"ssh-ed25519 {'A' * 68}"


def test_what_one_machine_tells_of_its_host_keys_does_not_fail_the_others(lab_for_results):
    lab = lab_for_results
    answers = (
        ({"host_keys": [KEY]}, [KEY]),
        ({"host_keys": ["{{ 6 * 7 }}", KEY, 3, [KEY]]}, ["{{ 6 * 7 }}", KEY]),
        ({"host_keys": []}, None),
        ({"host_keys": KEY}, None),
        ({"host_keys": {KEY: KEY}}, None),
        ({"host_keys": 3}, None),
        ({"host_keys": None}, None),
        ({}, None),
    )
    host = lab.machines()[0]["name"]
    machines = {f"/m/{number}": {"host": host, "json": answer} for number, (answer, _keys) in enumerate(answers)}
    machines["/m/silent"] = {"host": host}
    done = ansible(
        lab,
        *("ansible", host, "-m", "ansible.builtin.debug", "-a"),
        "msg={{ lookup('ansible.builtin.template', template) | from_json }}",
        *("-e", json.dumps({"template": str(ROLE / "templates" / "bootstrap_host_keys.json.j2")})),
        *("-e", f"@{_file(lab, {'arc_sshd_bootstrap_result': {'results': [{'machines': machines}]}})}"),
    )
    told = {one["id"]: one for one in json.loads(done.stdout.partition("=>")[2])["msg"]}
    wanted = {f"/m/{number}": keys for number, (_answer, keys) in enumerate(answers) if keys}
    assert {name: one["host_keys"] for name, one in told.items()} == wanted
    assert all("HostKeyAlias" in one["ssh_args"] for one in told.values())


def _file(lab, variables):
    """A file of variables that are no templates, as results of modules are none."""
    path = lab.state_dir / "variables.yml"
    text = json.dumps(variables)
    path.write_text(text.replace('"{{ 6 * 7 }}"', '!unsafe "{{ 6 * 7 }}"'))
    return path


@pytest.mark.one_core
def test_protected_values_are_nowhere(start):
    lab = start(machines=1, operation_seconds=0.2)
    secret = "hunter2-protected"
    done, [entry] = run(lab, ids(lab), 'echo "it is $TOKEN"; exit 1', protected_parameters={"TOKEN": secret})
    assert done["failed"] and secret not in json.dumps(done)
    assert entry["output"].startswith("it is ***") and entry["exit_code"] == 1


@pytest.mark.one_core
def test_machines_that_cannot_run_scripts(lab):
    """The shared lab: one machine is stopped, and one has an agent below 1.31."""
    machines = {machine["name"]: machine["id"] for machine in lab.machines()}
    info = module(lab, "arc_machine_info", machines=list(machines.values()))["machines"].values()
    away = next(one["resource_id"] for one in info if one["status"] != "Connected")
    old = next(one["resource_id"] for one in info if one["agent_version"].split(".")[:2] < ["1", "31"])
    for check in (True, False):
        lab.clear_journal()
        done, [first, second] = run(lab, [away, old], check=check)
        assert done["failed"] and first["failure"]["code"] == second["failure"]["code"] == "MachineUnavailable"
        assert "Disconnected" in first["failure"]["message"] and "1.33 or later" in second["failure"]["message"]
        done, [first, second] = run(lab, [away, old], check=check, unavailable="skip")
        assert not done.get("failed") and not done["changed"] and done["summary"]["skipped"] == 2
        assert asked(lab, "PUT", "DELETE") == []


@pytest.mark.one_core
def test_bad_input_is_refused_before_any_request(start):
    lab = start(machines=1)
    lab.clear_journal()
    for params, sentence in (
        ({"script": None}, "either script or script_uri"),
        ({"script_uri": "https://example.org/x.sh"}, "either script or script_uri"),
        ({"timeout": 0}, "at least 1"),
        ({"parameters": {"a-b": 1}}, "'a-b'"),
        ({"parameters": {"a": [1]}}, "parameters.a is not a text"),
        ({"parameters": {"a": 1}, "protected_parameters": {"a": "x"}}, "both parameters and"),
        ({"run_as_password": "secret-word"}, "without run_as_user"),
    ):
        done = module(lab, "arc_run_command", machines=ids(lab), **{"script": "exit 0", **params})
        assert done["failed"] and sentence in done["msg"], done
        assert "secret-word" not in json.dumps(done)
    assert asked(lab, "GET", "PUT") == []


@pytest.mark.one_core
@pytest.mark.parametrize("style", ["async", "location", "body"])
def test_every_style_of_operation(start, style):
    lab = start(machines=1, operation_seconds=0.2, lro_style=style)
    _done, [entry] = run(lab, ids(lab), "echo ran")
    assert entry["output"] == "ran\n" and left(lab, ids(lab)[0]) == []


@pytest.mark.one_core
def test_a_request_of_unknown_fate_is_looked_at_and_not_repeated(start):
    lab = start(machines=1, operation_seconds=0.2)
    [machine] = ids(lab)
    lab.fault(kind="arm", method="PUT", path="/runCommands/", reset=True, when="after", times=1)
    lab.clear_journal()
    done, [entry] = run(lab, [machine], "echo ran")
    assert not done.get("failed") and entry["output"] == "ran\n", done
    assert len(asked(lab, "PUT")) == 1 and left(lab, machine) == []


@pytest.mark.one_core
def test_a_request_that_did_not_arrive_is_made_again(start):
    lab = start(machines=1, operation_seconds=0.2)
    [machine] = ids(lab)
    lab.fault(kind="arm", method="PUT", path="/runCommands/", status=503, times=1)
    done, [entry] = run(lab, [machine], "echo ran")
    assert not done.get("failed") and entry["output"] == "ran\n", done
    assert left(lab, machine) == []


@pytest.mark.one_core
def test_a_failed_operation_is_told_in_azures_words(start):
    lab = start(machines=1, operation_seconds=0.2)
    lab.fault(
        kind="arm", method="PUT", path="/runCommands/", fail_operation={"code": "Failed", "message": "It did not work."}
    )
    done, [entry] = run(lab, ids(lab))
    assert done["failed"] and "It did not work" in entry["failure"]["message"]
    assert left(lab, ids(lab)[0]) == []


def started(lab, machine, script):
    """A module that is running a script; returns its process once the machine has it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN_MODULE, "ansible_collections.arcfleet.ssh.plugins.modules.arc_run_command"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(lab),
    )
    process.stdin.write(json.dumps({"machines": [machine], "script": script}))
    process.stdin.close()
    process.stdin = None
    deadline = time.monotonic() + 20
    while not left(lab, machine):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process


def test_an_interrupted_run_stops_its_script_and_deletes_it(start):
    lab = start(machines=1, operation_seconds=0.2)
    [machine] = ids(lab)
    process = started(lab, machine, "sleep 60")
    process.send_signal(signal.SIGTERM)
    output, _error = process.communicate(timeout=20)
    assert "the script was stopped" in json.loads(output)["msg"]
    assert left(lab, machine) == []


@pytest.mark.one_core
def test_what_a_killed_run_left_behind_is_removed_by_the_next(start):
    lab = start(machines=1, operation_seconds=0.2)
    [machine] = ids(lab)
    process = started(lab, machine, "sleep 1")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _done, [entry] = run(lab, [machine], "sleep 1; echo ran")
    assert entry["output"] == "ran\n"
    _done, [entry] = run(lab, [machine], "echo ran again")
    assert entry["output"] == "ran again\n" and left(lab, machine) == []
