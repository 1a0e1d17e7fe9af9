# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do many helpers that start with nothing in the cache share one login, and does each of them get through whatever ARM answers?"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from arclab.client import Lab
from on_lab import HELPER, environment, module

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

HELPERS = 20


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=HELPERS, listener_lag=0, latency_ms=20)
    result = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in lab.machines()])
    assert not result.get("failed"), result
    yield lab
    lab.down()


def helper(lab: Lab, machine: dict[str, Any], cache: pathlib.Path, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HELPER), "--resource-id", machine["id"], "--port", "22", "--cache-dir", str(cache)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(lab, NO_PROXY="*", **env),
    )


def gets_through(process: subprocess.Popen[bytes]) -> str:
    """What it says; sshd's banner comes out of it, and it ends well."""
    assert process.stdout is not None
    # What has nothing to read before sshd speaks would end without a word.
    banner = process.stdout.read(7)
    said = process.communicate(timeout=90)[1]
    assert banner == b"SSH-2.0", said
    assert process.returncode == 0, said
    return said.decode()


def asked(lab: Lab, end: str) -> Counter[str]:
    """How often each path with this end was asked for, whatever was answered."""
    paths = (str(entry.get("path")).lower() for entry in lab.journal())
    return Counter(path for path in paths if path.endswith(end.lower()))


def test_those_that_start_together_log_in_once(fleet: Lab, tmp_path: pathlib.Path) -> None:
    fleet.clear_journal()
    cache = tmp_path / "relay"
    running = [helper(fleet, machine, cache) for machine in fleet.machines()]
    assert [gets_through(process) for process in running] == [""] * HELPERS
    assert sum(asked(fleet, "/oauth2/v2.0/token").values()) == 1
    credentials = asked(fleet, "/listCredentials")
    assert len(credentials) == HELPERS
    assert set(credentials.values()) == {1}
    # With the login rest ARM's address and all: nothing else is asked for twice.
    assert sum(asked(fleet, "/metadata/endpoints").values()) == 1
    assert all(file.stat().st_mode & 0o077 == 0 for file in [cache, *cache.iterdir()])


# What ARM answers once for one machine each, and how often it is asked for its credentials then.
ANSWERS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"expire_token": True}, 2),
    ({"status": 429, "code": "TooManyRequests", "headers": {"Retry-After": "1"}}, 2),
    ({"status": 503, "code": "ServerBusy"}, 2),
    ({"reset": True}, 2),
    ({"truncate": True}, 2),
    ({"garbage": True}, 2),
)


def test_whatever_arm_answers_once_a_helper_gets_through(fleet: Lab, tmp_path: pathlib.Path) -> None:
    first, revoked, *machines = fleet.machines()
    gets_through(helper(fleet, first, tmp_path / "relay"))
    fleet.clear_journal()
    running = []
    for machine, (effect, _count) in zip(machines, ANSWERS, strict=False):
        fleet.fault(machine=machine["name"], path="/listCredentials$", times=1, **effect)
        running.append(helper(fleet, machine, tmp_path / "relay"))
    assert [gets_through(process) for process in running] == [""] * len(ANSWERS)
    found = asked(fleet, "/listCredentials")
    for machine, (effect, count) in zip(machines, ANSWERS, strict=False):
        (times,) = [times for path, times in found.items() if f"/{machine['name']}/" in path]
        assert times == count, effect
    assert sum(asked(fleet, "/oauth2/v2.0/token").values()) == 0
    # A login that is refused both ways is made anew, and the new one is the others'.
    fleet.fault(path="/listCredentials$", times=2, revoke_tokens=True)
    gets_through(helper(fleet, revoked, tmp_path / "relay"))
    gets_through(helper(fleet, machines[len(ANSWERS)], tmp_path / "relay"))
    assert sum(asked(fleet, "/oauth2/v2.0/token").values()) == 1


def test_who_may_not_is_told_as_ever(fleet: Lab, tmp_path: pathlib.Path) -> None:
    first, other, *_rest = fleet.machines()
    gets_through(helper(fleet, first, tmp_path / "relay"))
    # Somebody else's good token rests in the same directory.
    stranger = fleet.principal("reader", actions=["Microsoft.HybridCompute/machines/read"])
    process = helper(fleet, other, tmp_path / "relay", **fleet.env_of(stranger))
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 255
    assert f"{other['name']}: cannot get the relay credentials: Azure answers 403 AuthorizationFailed" in said
    assert "Microsoft.HybridConnectivity/endpoints/listCredentials/action" in said
