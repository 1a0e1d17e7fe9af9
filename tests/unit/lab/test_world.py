# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the world keep what is put into it, and find it again?"""

from __future__ import annotations

from pathlib import Path

import pytest

from arclab import fleet
from arclab.store import Store
from arclab.world import ENDPOINTS, EXTENSIONS, MACHINES, SERVICE_CONFIGURATIONS, World

NOW = 1_700_000_000.0


def make(tmp_path: Path, machines: int = 6, **options: int) -> World:
    world = World(Store(tmp_path / "world.sqlite"))
    plans = fleet.plan(machines, **options)
    world.populate(plans, options.get("subscriptions", 1), unregistered=False, now=NOW)
    return world


def again(tmp_path: Path, world: World) -> World:
    world.store.close()
    return World(Store(tmp_path / "world.sqlite"))


def test_a_fleet_is_the_same_every_time() -> None:
    first, second = fleet.plan(9, subscriptions=2, windows=2), fleet.plan(9, subscriptions=2, windows=2)
    assert first == second
    assert [one.name for one in first] == "web01 web02 db01 web03 web04 db02 web05 win01 win02".split()
    assert len({one.subscription for one in first}) == 2


def test_stopped_machines_and_old_agents_are_different_ones() -> None:
    plans = fleet.plan(6, stopped=2, old_agents=1)
    assert [one.name for one in plans if one.stopped] == ["web04", "db02"]
    assert [one.name for one in plans if one.agent_version.startswith("1.30")] == ["web03"]


def test_machines_hang_on_their_group_and_subscription(tmp_path: Path) -> None:
    world = make(tmp_path)
    scope = f"/subscriptions/{world.subscriptions[0]}"
    below = world.children(scope, MACHINES)
    groups = [world.children(f"{scope}/resourceGroups/{name}", MACHINES) for name in ("arc-prod", "arc-test")]
    assert len(below) == 6
    assert sorted(groups[0] + groups[1]) == below == sorted(below)


def test_deleting_takes_everything_below_along(tmp_path: Path) -> None:
    world = make(tmp_path)
    machine = world.of_type(MACHINES)[0]
    endpoint = f"{machine}/providers/Microsoft.HybridConnectivity/endpoints/default"
    for path in (endpoint, f"{endpoint}/serviceConfigurations/SSH", f"{machine}/extensions/X"):
        world.put(path, {"id": path})
    assert len(world.children(machine, EXTENSIONS)) == 1
    assert world.delete(endpoint) == [f"{endpoint}/serviceConfigurations/SSH".lower(), endpoint.lower()]
    assert world.of_type(SERVICE_CONFIGURATIONS) == []
    world.delete(machine)
    assert machine not in world.machines
    assert world.find_machines(machine.rsplit("/", 1)[1]) == []
    assert world.of_type(EXTENSIONS) == world.children(machine, ENDPOINTS) == []
    assert len(world.of_type(MACHINES)) == 5


def test_a_stopped_lab_goes_on_where_it_was(tmp_path: Path) -> None:
    world = make(tmp_path)
    machine = world.of_type(MACHINES)[0]
    owner, resources = world.meta["owner"], dict(world.resources)
    world.machines[machine].sshd_port = 2222
    world.save_machine(machine)
    world.set_status(machine, "Disconnected", NOW)
    world = again(tmp_path, world)
    assert set(world.resources) == set(resources)
    assert world.machines[machine].sshd_port == 2222
    assert world.resources[machine]["properties"]["status"] == "Disconnected"
    principal = world.applications[owner]
    assert world.rbac.allowed(principal.id, "Microsoft.HybridCompute/machines/write", machine)


def test_deletions_survive_too(tmp_path: Path) -> None:
    world = make(tmp_path)
    machine = world.of_type(MACHINES)[0]
    world.delete(machine)
    assert machine not in again(tmp_path, world).resources


def test_a_namespace_is_registered_after_its_time(tmp_path: Path) -> None:
    world = make(tmp_path)
    subscription = world.subscriptions[0]
    assert world.registration(subscription, "microsoft.compute", NOW) == "NotRegistered"
    world.set_registration(subscription, "microsoft.compute", "Registering", NOW + 5)
    assert world.registration(subscription, "microsoft.compute", NOW + 4) == "Registering"
    assert world.registration(subscription, "microsoft.compute", NOW + 5) == "Registered"


def test_names_may_be_shared_by_machines_of_several_groups(tmp_path: Path) -> None:
    world = make(tmp_path)
    plan = fleet.plan_from_file([{"name": "WEB01", "resource_group": "other", "location": "eastus"}], 1)[0]
    world.add_machine(plan, NOW)
    assert len(world.find_machines("web01")) == 2
    assert world.find_machines(plan.id) == [plan.id.lower()]


@pytest.mark.parametrize(
    "entry", [{"name": "a", "nonsense": 1}, {"os_type": "linux"}, {"name": "a", "subscription": 7}]
)
def test_a_bad_entry_of_a_fleet_file_is_named(entry: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="fleet file"):
        fleet.plan_from_file([entry], 1)


def test_a_fleet_file_overrides_what_it_names() -> None:
    plan = fleet.plan_from_file(
        [{"name": "hci1", "kind": "HCI", "sshd_port": 2222, "properties": {"parentClusterResourceId": "/x"}}], 1
    )[0]
    body = fleet.resource(plan, NOW)
    assert body["kind"] == "HCI"
    assert body["properties"]["parentClusterResourceId"] == "/x"
    assert body["properties"]["agentConfiguration"]["incomingConnectionsPorts"] == ["2222"]
    assert plan.runtime().sshd_port == 2222
