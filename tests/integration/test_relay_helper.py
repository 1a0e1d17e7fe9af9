# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does plain ssh reach a real sshd through the helper, and does it learn why not when it cannot?"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from arclab.client import Lab
from on_lab import COLLECTIONS, ansible, environment, module, start_ssh

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

ROOT = pathlib.Path(__file__).parents[2]

Start = Callable[..., Lab]


def enable(lab: Lab) -> None:
    result = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in lab.machines()])
    assert not result.get("failed"), result


def ssh(lab: Lab, machine: dict[str, Any], *command: str, data: bytes = b"", **how: Any) -> tuple[int, bytes, str]:
    process = start_ssh(lab, machine, *command, **how)
    out, said = process.communicate(data, timeout=90)
    text = said.decode()
    assert "Traceback" not in text
    assert "SharedAccessSignature" not in text
    assert lab.env["AZURE_SECRET"] not in text
    return process.returncode, out, text


def requests_of(lab: Lab, end: str) -> list[dict[str, Any]]:
    return [entry for entry in lab.journal() if str(entry.get("path")).endswith(end)]


def test_bytes_arrive_as_they_were_sent(start: Start) -> None:
    lab = start(machines=1)
    enable(lab)
    (machine,) = lab.machines()
    data = os.urandom(5_000_000)
    assert ssh(lab, machine, "cat", data=data) == (0, data, "")
    assert ssh(lab, machine, "exit 7")[0] == 7


def test_helpers_that_start_together_share_login_and_credentials(start: Start) -> None:
    lab = start(machines=3)
    enable(lab)
    lab.clear_journal()
    running = [start_ssh(lab, machine, "echo", machine["name"]) for machine in lab.machines() for _dummy in range(4)]
    results = [process.communicate(timeout=90)[0] for process in running]
    assert sorted(results) == sorted(
        machine["name"].encode() + b"\n" for machine in lab.machines() for _dummy in range(4)
    )
    assert len(requests_of(lab, "/oauth2/v2.0/token")) == 1
    assert len(requests_of(lab, "/listCredentials")) == 3
    assert not [entry for entry in lab.journal() if entry.get("method") in ("PUT", "PATCH", "DELETE")]
    lab.clear_journal()
    assert ssh(lab, lab.machines()[0], "true") == (0, b"", "")
    assert requests_of(lab, "/oauth2/v2.0/token") == requests_of(lab, "/listCredentials") == []


def test_short_lived_credentials_are_renewed(start: Start) -> None:
    lab = start(machines=1, credential_lifetime=2)
    enable(lab)
    (machine,) = lab.machines()
    assert ssh(lab, machine, "true")[0] == 0
    time.sleep(2)
    lab.clear_journal()
    assert ssh(lab, machine, "true")[0] == 0
    assert len(requests_of(lab, "/listCredentials")) == 1


def test_a_written_configuration_outlives_credentials_and_logins(start: Start, tmp_path: pathlib.Path) -> None:
    # Hours of life in seconds: credentials end after two, a token counts as old when it has less than 300 left.
    lab = start(machines=1, listener_lag=0, credential_lifetime=2, token_lifetime=302)
    enable(lab)
    file = tmp_path / "arcfleet.conf"
    options = {"path": str(file), "include": False, "control_persist": "no"}
    variables = json.dumps({f"arc_connection_{name}": value for name, value in options.items()})
    ansible(lab, "ansible-playbook", "arcfleet.ssh.connect", "-e", variables)
    written = file.read_bytes()
    (name,) = [line.split()[1] for line in written.decode().splitlines() if line.startswith("Host ")]
    for life in range(4):
        time.sleep(2.1 if life else 0)
        lab.clear_journal()
        done = subprocess.run(
            ["ssh", "-F", str(file), name, "echo in"],
            env=environment(lab),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        # Nothing of what was kept would do.
        assert requests_of(lab, "/oauth2/v2.0/token")
        assert requests_of(lab, "/listCredentials")
    assert file.read_bytes() == written
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_first_connection_waits_for_the_listener(start: Start) -> None:
    # Long enough for ssh and the helper to start on a busy machine before the agent listens.
    lab = start(machines=1, listener_lag=12)
    enable(lab)
    (machine,) = lab.machines()
    status, out, said = ssh(lab, machine, "echo", "in")
    assert (status, out) == (0, b"in\n")
    assert f"{machine['name']}: the relay answers 404" in said


def test_sshd_that_does_not_run_is_told_at_once(start: Start) -> None:
    lab = start(machines=1)
    enable(lab)
    (machine,) = lab.machines()
    lab.machine(machine["name"], "sshd-stop")
    begun = time.monotonic()
    status, _dummy, said = ssh(lab, machine, "true")
    assert status == 255
    assert f"{machine['name']}: nothing listens on port 22 of the machine" in said
    assert time.monotonic() - begun < 10
    lab.machine(machine["name"], "sshd-start")
    assert ssh(lab, machine, "true")[0] == 0


def test_an_agent_that_is_gone_is_told_when_the_time_is_up(start: Start) -> None:
    lab = start(machines=1)
    enable(lab)
    (machine,) = lab.machines()
    lab.machine(machine["name"], "stop")
    status, _dummy, said = ssh(lab, machine, "true", helper=("--timeout", "3"))
    assert status == 255
    assert f"{machine['name']}: the machine's agent is not connected to the relay" in said
    assert "himds" in said


def test_a_relay_that_keeps_waiting_is_dialled_a_second_time(start: Start) -> None:
    lab = start(machines=1)
    enable(lab)
    (machine,) = lab.machines()
    assert ssh(lab, machine, "true")[0] == 0
    (log,) = (lab.state_dir / "machines").rglob("sshd.log")
    lab.clear_journal()
    with lab.faulty(kind="relay", delay_ms=4000, times=1):
        process = start_ssh(lab, machine, "echo ready; cat")
        assert process.stdout is not None
        # An attempt that was given up and tried again would have said so.
        assert process.stdout.read(6) == b"ready\n"
        assert [entry["status"] for entry in upgrades(lab)] == [101]
        # The first dial's turn comes now, too late: its sender is gone, and with it the agent's connection to sshd.
        assert soon(lambda: len(upgrades(lab)) == 2)
        assert soon(lambda: log.read_text().count("kex_exchange_identification: ") == 1)
        data = os.urandom(300_000)
        out, said = process.communicate(data, timeout=90)
    assert (process.returncode, out, said) == (0, data, b"")
    assert [entry["status"] for entry in upgrades(lab)] == [101, 0]


def upgrades(lab: Lab) -> list[dict[str, Any]]:
    """What the relay answered to senders."""
    return [entry for entry in lab.journal(kind="relay") if entry.get("action") == "connect"]


def soon(happens: Callable[[], bool]) -> bool:
    """Whether it happens within half a minute."""
    deadline = time.monotonic() + 30
    while not (happened := happens()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return happened


def test_the_live_relays_stalls_are_not_noticed(start: Start) -> None:
    lab = start(machines=1, relay_profile="live")
    enable(lab)
    (machine,) = lab.machines()
    assert ssh(lab, machine, "true")[0] == 0
    # The profile's sequence is fixed: the 21st upgrade is never answered.
    for _batch in range(4):
        running = [start_ssh(lab, machine, "true") for _dummy in range(6)]
        for process in running:
            assert process.communicate(timeout=90) == (b"", b"")
            assert process.returncode == 0
    answers = [entry["status"] for entry in upgrades(lab)]
    assert answers.count(101) == 25
    assert answers.count(0) == 1


def test_a_connection_that_is_lost_is_told(start: Start) -> None:
    lab = start(machines=1)
    enable(lab)
    (machine,) = lab.machines()
    process = start_ssh(lab, machine, "echo ready; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"ready\n"
    lab.machine(machine["name"], "drop")
    _dummy, said = process.communicate(timeout=30)
    assert process.returncode == 255
    assert f"arcfleet.ssh: {machine['name']}: the relay" in said.decode()


def test_each_refusal_of_azure_has_its_remedy(start: Start) -> None:
    lab = start(machines=2, unregistered=True, registration_seconds=0.1)
    machine, other = lab.machines()
    status, _dummy, said = ssh(lab, machine, "true")
    assert status == 255
    assert (
        f"{machine['name']}: cannot get the relay credentials: Azure answers 409 MissingSubscriptionRegistration"
        in said
    )
    assert "arcfleet.ssh.arc_resource_provider" in said
    module(lab, "arc_resource_provider", subscriptions=[lab.env["AZURE_SUBSCRIPTION_ID"]])
    said = ssh(lab, machine, "true")[2]
    assert "404 ResourceNotFound" in said
    assert "run the playbook arcfleet.ssh.enable" in said
    module(lab, "arc_connectivity_endpoint", machines=[machine["id"]])
    said = ssh(lab, machine, "true")[2]
    assert "412 PreconditionFailed" in said
    assert "service configuration for SSH is missing" in said
    module(lab, "arc_ssh_service_config", machines=[machine["id"]])
    stranger = lab.principal("stranger", actions=["Microsoft.HybridCompute/machines/read"])
    said = ssh(lab, machine, "true", env=lab.env_of(stranger))[2]
    assert "403 AuthorizationFailed" in said
    assert "Microsoft.HybridConnectivity/endpoints/listCredentials/action" in said
    assert "Virtual Machine Local User Login" in said
    assert ssh(lab, machine, "true")[0] == 0
    assert ssh(lab, other, "true")[0] == 255


def test_a_wrong_secret_is_one_sentence(start: Start) -> None:
    lab = start(machines=1)
    (machine,) = lab.machines()
    wrong = {"AZURE_SECRET": "wrong", "AZURE_CLIENT_SECRET": "wrong"}
    status, _dummy, said = ssh(lab, machine, "true", env=wrong)
    assert status == 255
    assert said.startswith("arcfleet.ssh: Cannot log in to https://127.0.0.1")
    assert "AADSTS7000215" in said
    assert "wrong" not in said


def test_the_reason_gets_past_control_persist(start: Start, tmp_path: pathlib.Path) -> None:
    lab = start(machines=1)
    (machine,) = lab.machines()
    shared = ("-o", "ControlMaster=auto", "-o", "ControlPersist=5s", "-o", f"ControlPath={tmp_path}/m")
    status, _dummy, said = ssh(lab, machine, options=shared)
    assert status == 255
    assert f"{machine['name']}: cannot get the relay credentials: Azure answers 404 ResourceNotFound" in said
    assert "arcfleet.ssh.enable" in said


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_is_not_there_is_named(start: Start, variable: str) -> None:
    lab = start(machines=1)
    enable(lab)
    (machine,) = lab.machines()
    assert ssh(lab, machine, "true")[0] == 0
    proxy = {variable: "http://me:hunter2@127.0.0.1:9", "NO_PROXY": ""}
    status, _dummy, said = ssh(lab, machine, "true", helper=("--timeout", "1"), env=proxy)
    assert status == 255
    assert "the proxy 127.0.0.1:9 cannot be connected to (Connection refused)" in said
    assert "hunter2" not in said


# Carries bytes with what it is handed, as Microsoft's does.
STAND_IN = f"""#!{sys.executable}
import base64, json, os, sys, time
sys.path.insert(0, {str(COLLECTIONS)!r})
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _credentials, _dial, _main, _pump
handed = json.loads(base64.b64decode(os.environ["SSHPROXY_RELAY_INFO"]))
if [*handed] != ["relay"] or sys.argv[1:] != ["-p", "22"]:
    raise SystemExit(f"called with {{sys.argv}}")
os.write(2, b"handed over\\n")
opened = _dial.Dialler(os.environ).open(_credentials.parse(handed, "stand-in", time.time()), 22, time.monotonic() + 20)
with _main._calm(0, 1) as alarm:
    _pump.Pump(opened[0], 0, 1, early=opened[1], alarm=alarm, watch=None).run()
"""


def test_microsofts_proxy_takes_over(start: Start) -> None:
    lab = start(machines=1, listener_lag=0)
    enable(lab)
    (machine,) = lab.machines()
    home = pathlib.Path(environment(lab)["HOME"])
    processor = {"aarch64": "arm64", "x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)
    status, _out, said = ssh(lab, machine, "true", helper=("--proxy-binary", "find"))
    assert status == 255
    assert f"{machine['name']}: there is no SSH proxy of Microsoft for" in said
    place = home / ".clientsshproxy"
    place.mkdir()
    for version in ("1_3_017634", "1_3_026973"):
        binary = place / f"sshProxy_{sys.platform}_{processor}_{version}"
        binary.write_text(STAND_IN)
        binary.chmod(0o755)
    data = os.urandom(300_000)
    assert ssh(lab, machine, "cat", data=data, helper=("--proxy-binary", "find")) == (0, data, "handed over\n")
    digest = f"sha256:{hashlib.sha256(STAND_IN.encode()).hexdigest()}"
    pinned = ("--proxy-binary", str(binary), "--proxy-digest", digest)
    assert ssh(lab, machine, "cat", data=data, helper=pinned) == (0, data, "handed over\n")
    binary.write_text(STAND_IN.replace("handed over", "somebody else's"))
    status, _out, said = ssh(lab, machine, "true", helper=pinned)
    assert status == 255
    assert f"{machine['name']}: {binary} is not run: its digest is sha256:" in said
    assert "somebody" not in said
