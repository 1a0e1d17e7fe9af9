# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines of its own does a lab get, with which network and files, and why not?"""

from __future__ import annotations

import io
import ipaddress
import json
import os
import pathlib
import shutil
import tarfile
from typing import Any

import pytest

from arclab import azcmagent, containers, fleet, images, podman
from arclab.agent import Machine


def test_without_root_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "need root" in (podman.obstacle() or "")


def test_what_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name == "runc" else f"/usr/bin/{name}")
    obstacle = podman.obstacle() or ""
    assert obstacle.startswith("runc not found") and "apt-get install" in obstacle


def test_names_come_from_the_state_directory_and_fit_an_interface(tmp_path: pathlib.Path) -> None:
    one, other = containers.digest(tmp_path / "a"), containers.digest(tmp_path / "b")
    assert one != other and one == containers.digest(tmp_path / "a")
    assert len(f"v{one}{containers.MOST}") <= 15


@pytest.mark.parametrize(
    ("taken", "expected"),
    [([], "10.99.1.0/24"), (["10.99.1.0/25"], "10.99.2.0/24"), (["10.99.0.0/17"], "10.99.128.0/24")],
)
def test_a_network_in_use_is_not_taken(monkeypatch: pytest.MonkeyPatch, taken: list[str], expected: str) -> None:
    done: list[list[str]] = []

    def run(command: list[str]) -> str:
        done.append(command)
        return json.dumps([{"dst": "default"}, *({"dst": one} for one in taken)]) if "route" in command else ""

    monkeypatch.setattr(podman, "run", run)
    assert containers.make_bridge("00000001") == ipaddress.IPv4Network(expected)
    assert ["ip", "link", "add", "br00000001", "type", "bridge"] in done


def test_a_host_that_routes_everything_there_has_no_network_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "run", lambda _command: json.dumps([{"dst": "10.0.0.0/8"}]))
    with pytest.raises(podman.MachinesFailed, match="in use"):
        containers.make_bridge("00000001")


def test_files_keep_their_modes() -> None:
    packed = containers._archive({"/root/.ssh/": (0o700, ""), "/a/b": (0o600, "text"), "/c": (0, "/a/b")})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {entry.name: entry for entry in tar.getmembers()}
        assert found["root/.ssh"].isdir() and found["root/.ssh"].mode == 0o700
        assert found["a/b"].mode == 0o600 and found["a/b"].uid == 0
        assert found["c"].issym() and found["c"].linkname == "/a/b"


def test_linux_machines_are_contained_and_windows_is_not() -> None:
    plans = fleet.plan_from_file(
        [
            {"name": "a"},
            {"name": "w", "os_type": "windows"},
            {"name": "b"},
            {"name": "c", "suite": "bookworm", "image": "bare"},
        ],
        1,
    )
    fleet.contain(plans, "ready", images.SUITES)
    assert [(one.image, one.suite) for one in plans] == [
        ("ready", "bookworm"),
        (None, None),
        ("ready", "trixie"),
        ("bare", "bookworm"),
    ]
    assert fleet.resource(plans[2], 0.0)["properties"]["osSku"] == "Debian GNU/Linux 13 (trixie)"
    with pytest.raises(ValueError, match="bare or ready"):
        fleet.contain(fleet.plan_from_file([{"name": "a", "image": "naked"}], 1), "ready", images.SUITES)


def test_a_machine_begins_with_the_settings_of_the_fleet_file() -> None:
    (one,) = fleet.plan_from_file(
        [{"name": "a", "incoming_enabled": False, "config_mode": "monitor", "extensions_enabled": False}], 1
    )
    settings = fleet.agent_settings(one.runtime(), fleet.resource(one, 0.0))
    changed = {name: value for name, value in settings.items() if value != azcmagent.DEFAULTS[name]}
    assert changed == {"incomingconnections.enabled": False, "config.mode": "monitor", "extensions.enabled": False}
    assert fleet.identity(fleet.resource(one, 0.0))["resourceName"] == "a"


@pytest.mark.parametrize(("ports", "port", "expected"), [([], 22, True), (["22"], 22, True), (["6516"], 22, False)])
def test_an_empty_list_of_ports_admits_all(ports: list[str], port: int, expected: bool) -> None:
    known: dict[str, Any] = {"id": "/m", "name": "m", "agent_version": "1.55.0"}
    assert Machine(**known, incoming_ports=ports).admits(port) is expected
