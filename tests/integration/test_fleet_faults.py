# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a fleet of hundreds on a bad day?

Each time: the right machines are done, each failure is named once, no write is carried out twice, and the result says what happened.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from on_lab import ansible, descendants, environment, module

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

FLEET = 300
SSH = "/serviceConfigurations/SSH"
AADSSH = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}


def ids(lab):
    return [machine["id"] for machine in lab.machines()]


def enable(lab, **params):
    return module(lab, "arc_ssh_service_config", machines=ids(lab), **params)


def allowed(lab):
    """The machines that Azure lets SSH through to, as another identity reads them back."""
    lab.clear_faults()
    found = module(lab, "arc_ssh_service_config", machines=ids(lab), check=True, max_fail_percentage=100)
    return {
        entry["name"] for entry in found["machines"].values() if entry["action"] == "none" and "failure" not in entry
    }


def names(lab):
    return {machine["name"] for machine in lab.machines()}


def secret_free(lab, text):
    return lab.env["AZURE_SECRET"] not in text and "eyJ" not in text


def arm_lines(lab, **wanted):
    return [line for line in lab.journal(**wanted) if line["kind"] == "arm" and "HybridConnectivity" in line["path"]]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([{"probability": 0.05, "status": 429, "headers": {"Retry-After": "1"}}], id="throttled"),
        pytest.param(
            [{"probability": 0.03, "status": 500}, {"probability": 0.03, "status": 503, "when": "after"}], id="5xx"
        ),
        pytest.param(
            [{"probability": 0.02, "reset": True}, {"probability": 0.02, "reset": True, "when": "after"}], id="resets"
        ),
        pytest.param(
            [{"probability": 0.02, "truncate": True}, {"probability": 0.02, "garbage": True}], id="broken bodies"
        ),
        pytest.param(
            [
                {"probability": 0.05, "status": 429, "headers": {"Retry-After": "1"}},
                {"probability": 0.03, "status": 502, "when": "after"},
                {"probability": 0.02, "reset": True},
                {"skip": 50, "times": 1, "expire_token": True},
                {"skip": 350, "times": 1, "expire_token": True},
                {"skip": 650, "times": 1, "expire_token": True},
                {"probability": 0.01, "revoke_tokens": True},
            ],
            id="all at once",
        ),
    ],
)
def test_passing_faults_leave_no_trace(start, faults):
    lab = start(machines=FLEET)
    for seed, fault in enumerate(faults):
        lab.fault(kind="arm", path="HybridConnectivity", seed=seed, **fault)
    result = enable(lab)
    assert not result.get("failed"), result["msg"]
    assert result["summary"]["created"] == FLEET and result["failures"] == {}
    struck = [line for line in arm_lines(lab) if line["fault"]]
    assert len(struck) > 5, "the day was not bad at all"
    assert lab.repeated_writes() == []
    assert allowed(lab) == names(lab)
    assert secret_free(lab, str(result))


def test_nothing_goes_before_the_time_it_was_told(start):
    lab = start(machines=FLEET)
    lab.fault(kind="arm", method="GET", path=SSH, times=1, skip=100, status=429, headers={"Retry-After": "3"})
    result = enable(lab)
    assert not result.get("failed") and result["pacing"]["throttled"] == 1
    reads = arm_lines(lab, method="GET")
    (refused,) = [line for line in reads if line["status"] == 429]
    # Requests that were on their way when the refusal came back may still arrive: at most one for each thread.
    early = [line for line in reads if refused["time"] < line["time"] < refused["time"] + 2.9]
    assert len(early) <= 32
    assert not [line for line in early if line["time"] > refused["time"] + 1.0]
    assert [line for line in arm_lines(lab, method="PUT") if refused["time"] < line["time"] < refused["time"] + 2.9], (
        "writes have a lane of their own"
    )


def test_azures_own_limits_are_met_without_running_into_them(start):
    lab = start(machines=FLEET, throttle=True)
    result = enable(lab)
    assert not result.get("failed") and result["summary"]["created"] == FLEET, result["msg"]
    # Only what was under way before the first answer could be one too many; here nothing is.
    assert [line for line in lab.journal() if line["status"] == 429] == []
    assert result["pacing"]["throttled"] == 0


def test_being_told_to_wait_for_hours_is_a_failure(start):
    # The refusal is the subscription's: whoever else wants to read there would wait as long, and is told so at once.
    lab = start(machines=FLEET)
    lab.fault(kind="arm", method="GET", path=SSH, times=1, skip=100, status=429, headers={"Retry-After": "7200"})
    result = enable(lab)
    hints = {entry["failure"]["hint"] for entry in result["failures"].values()}
    assert result["failed"] and len(hints) == 1 and re.search(r"wait for (7200|7199) s", hints.pop())
    for key, entry in result["failures"].items():
        assert entry["failure"]["message"].startswith(key.rpartition("/")[2] + ": ")
    assert len(arm_lines(lab, method="GET")) < FLEET
    assert lab.repeated_writes() == []


def test_tokens_that_expire_on_the_way_are_replaced(start):
    # The library renews five minutes before the end: every request needs a new token here, and Azure refuses old ones.
    lab = start(machines=100, token_lifetime=2)
    result = enable(lab)
    assert not result.get("failed") and result["summary"]["created"] == 100
    assert lab.repeated_writes() == []


def test_one_forbidden_subscription_stops_no_other(start):
    lab = start(machines=FLEET, subscriptions=3)
    subscriptions = sorted({machine["id"].split("/")[2] for machine in lab.machines()})
    lab.fault(
        kind="arm",
        path=f"/subscriptions/{subscriptions[1]}/",
        status=403,
        code="AuthorizationFailed",
        message="No rights here.",
    )
    result = enable(lab)
    forbidden = {key for key in (machine["id"].lower() for machine in lab.machines()) if subscriptions[1] in key}
    assert result["failed"] and set(result["failures"]) == forbidden
    assert result["msg"].startswith(f"{len(forbidden)} of {FLEET} machines failed. ")
    assert result["summary"]["created"] == FLEET - len(forbidden)
    assert lab.repeated_writes() == []
    tolerant = enable(lab, max_fail_percentage=50)
    assert not tolerant.get("failed") and tolerant["summary"]["unchanged"] == FLEET - len(forbidden)


def test_one_operation_that_fails_for_good(start):
    lab = start(machines=100, operation_seconds=0.2)
    lab.fault(
        kind="arm",
        method="PUT",
        path=r"/web01\d/extensions/",
        fail_operation={"code": "ExtensionFailed", "message": "Exit code 64."},
    )
    bad = {machine["name"] for machine in lab.machines() if re.search(r"web01\d$", machine["name"])}
    result = module(lab, "arc_extension", machines=ids(lab), wait_timeout=60, **AADSSH)
    assert result["failed"] and {entry["name"] for entry in result["failures"].values()} == bad
    for entry in result["failures"].values():
        assert (
            entry["failure"]["message"].startswith(f"{entry['name']}: ")
            and "Exit code 64." in entry["failure"]["message"]
        )
    assert result["summary"]["created"] == 100 - len(bad) and lab.repeated_writes() == []


def test_two_runs_at_the_same_time_write_nothing_twice(start):
    lab = start(machines=FLEET, latency_ms=5)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda number: enable(lab), range(2)))
    assert not any(result.get("failed") for result in results)
    assert sum(result["summary"]["created"] for result in results) == FLEET
    assert len([line for line in arm_lines(lab, method="PUT") if line["path"].endswith("/SSH")]) == FLEET
    assert lab.repeated_writes() == []


@contextlib.contextmanager
def begun(lab, *command, after=40):
    """A program in a process group of its own, once it has made some writes."""
    with subprocess.Popen(
        command,
        env=environment(lab),
        cwd=lab.state_dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while len(arm_lines(lab, method="PUT")) < after:
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.05)
        below = descendants(process.pid)
        yield process
    for pid in below:
        # kill -9 leaves ansible-core's workers waiting for a parent that is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def playbook(lab):
    return ("ansible-playbook", "-i", lab.env["ARCLAB_INVENTORY"], "arcfleet.ssh.enable", "--tags", "control_plane")


def settled(lab):
    """How many writes there are once no more come."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 2:
        now = len(arm_lines(lab, method="PUT"))
        if now != seen:
            seen, since = now, time.monotonic()
        assert seen < 2 * FLEET, "the run went on to its end"
        time.sleep(0.1)
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_begins_nothing_new_and_a_rerun_does_the_rest(start, number):
    lab = start(machines=FLEET, latency_ms=50)
    with begun(lab, *playbook(lab)) as process:
        os.killpg(process.pid, number)
        process.wait(30)
        # What kill -9 leaves is ansible-core's worker, which lets the batch end: the rerun meets it.
        written = settled(lab) if number != signal.SIGKILL else 0
        output = process.stdout.read()
    assert process.returncode != 0
    assert "Traceback" not in output and secret_free(lab, output)
    done = ansible(lab, *playbook(lab)[:1], *playbook(lab)[3:])
    assert "failed=0" in done.stdout
    assert len(arm_lines(lab, method="PUT")) == 2 * FLEET and written < 2 * FLEET
    assert lab.repeated_writes() == []
    assert allowed(lab) == names(lab)


def test_a_module_that_is_told_to_stop_reports_what_it_did(start):
    lab = start(machines=FLEET, latency_ms=50)
    arguments = f'{{"ANSIBLE_MODULE_ARGS": {{"machines": {ids(lab)!r}}}}}'.replace("'", '"')
    path = lab.state_dir / "arguments.json"
    path.write_text(arguments)
    name = "ansible_collections.arcfleet.ssh.plugins.modules.arc_ssh_service_config"
    with begun(lab, sys.executable, "-m", name, str(path)) as process:
        process.terminate()
        output = process.stdout.read()
        process.wait(30)
    assert '"failed": true' in output and "interrupted" in output and "Run again" in output
    created = int(re.search(r'"created": (\d+)', output)[1])
    assert 0 < created < FLEET
    rest = enable(lab)
    assert rest["summary"]["unchanged"] >= created and not rest.get("failed")
    assert lab.repeated_writes() == []


def test_a_network_that_is_lost_is_told_and_a_rerun_does_the_rest(start):
    lab = start(machines=FLEET)
    lab.fault(kind="arm", path="HybridConnectivity", skip=400, status=403, code="AuthorizationFailed", message="Gone.")
    first = enable(lab)
    assert first["failed"] and 0 < first["summary"]["created"] < FLEET
    lab.clear_faults()
    second = enable(lab)
    assert not second.get("failed")
    assert second["summary"]["unchanged"] >= first["summary"]["created"]
    assert lab.repeated_writes() == []
    assert allowed(lab) == names(lab)
