# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines does the filter make of hosts?"""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.arcfleet.ssh.plugins.filter.fleet import FilterModule, fleet

HOSTVARS = {
    "web01": {"arc_resource_id": "/id/web01", "ansible_port": 2222},
    "web02": {"arc_resource_id": "/id/web02", "my_port": 2022, "ansible_port": 22},
    "web03": {"arc_resource_id": "/id/web03"},
    "other": {"ansible_port": 22},
    "half": {"arc_resource_id": None},
}


def test_only_arc_machines_in_the_order_of_the_hosts():
    assert fleet(HOSTVARS, ["web03", "other", "half", "web01"]) == [
        {"id": "/id/web03", "host": "web03"},
        {"id": "/id/web01", "host": "web01"},
    ]


def test_the_first_variable_that_is_set_counts():
    found = fleet(HOSTVARS, ["web01", "web02", "web03"], options={"port": ["my_port", "ansible_port"]})
    assert [machine.get("port") for machine in found] == [2222, 2022, None]
    assert "port" not in found[2]


def test_each_host_is_looked_up_once():
    class Counting(dict):
        looked = 0

        def __getitem__(self, key):
            Counting.looked += 1
            return super().__getitem__(key)

    fleet(Counting(HOSTVARS), ["web01", "web02"], options={"port": ["my_port", "ansible_port"], "x": ["y"]})
    assert Counting.looked == 2


@pytest.mark.parametrize(
    ("hosts", "more"),
    [("web01", {}), (["web01"], {"options": ["port"]}), (["web01"], {"lists": ["x"]}), (["web01"], {"known": ["x"]})],
)
def test_what_cannot_be_meant_is_refused(hosts, more):
    with pytest.raises(AnsibleFilterError):
        fleet(HOSTVARS, hosts, **more)


def test_what_is_known_of_a_host_has_its_place_among_the_variables():
    found = fleet(
        HOSTVARS,
        ["web01", "web02", "web03"],
        options={"port": ["my_port", "found", "ansible_port"]},
        known={"found": {"web01": 2022, "web02": 2023}},
    )
    assert [machine.get("port") for machine in found] == [2022, 2022, None]


def test_lists_are_made_of_what_is_set():
    hosts = {
        "web01": {"arc_resource_id": "/id/web01", "one": 2222, "two": "2022"},
        "web02": {"arc_resource_id": "/id/web02", "one": 0, "two": 2022},
        "web03": {"arc_resource_id": "/id/web03", "one": None, "two": ""},
    }
    found = fleet(hosts, list(hosts), lists={"ports": ["one", "two"]})
    assert [machine.get("ports") for machine in found] == [[2222, "2022"], [2022], None]


def test_its_name():
    assert FilterModule().filters() == {"fleet": fleet}
