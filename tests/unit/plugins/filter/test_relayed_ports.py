# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts have another port in Azure than was asked for?"""

from __future__ import annotations

from ansible_collections.arcfleet.ssh.plugins.filter.relayed_ports import FilterModule, relayed_ports


def entry(host, before, after, **more):
    sides = {
        side: port and {"service_name": "SSH", "port": port} for side, port in (("before", before), ("after", after))
    }
    return {**({"host": host} if host else {}), **sides, **more}


FLEET = [{"id": f"/id/{host}", "host": host} for host in ("web01", "web02")] + [
    {"id": "/id/db01", "host": "db01", "port": "2022"},
    {"id": "/id/db02", "host": "db02", "port": 2022},
]
RESULTS = [
    {"machines": {"/id/web01": entry("web01", 2222, 2222), "/id/web02": entry("web02", 2223, 22)}},
    {"failed": True, "msg": "The login failed."},
    {"machines": {"/id/db01": entry("db01", 2022, 2022), "/id/db02": entry("db02", None, 2022)}},
]


def test_where_the_port_that_is_there_was_accepted():
    assert relayed_ports(RESULTS, FLEET) == {"web01": 2222}


def test_in_a_prediction_what_is_there_counts():
    assert relayed_ports(RESULTS, FLEET, predicted=True) == {"web01": 2222, "web02": 2223}


def test_what_failed_or_is_gone_or_is_no_host_is_left_out():
    machines = {
        "/id/web01": entry("web01", 2222, 2222, failure={"code": "AuthorizationFailed"}),
        "/id/web02": entry("web02", 22, None),
        "/id/db01": {"host": "db01", "failure": {"code": "AuthorizationFailed"}},
        "/id/other": entry(None, 2222, 2222),
    }
    assert relayed_ports([{"machines": machines}], FLEET) == {}


def test_what_was_known_of_other_hosts_stays():
    known = {"web02": 2022, "db09": 2023}
    assert relayed_ports(RESULTS, FLEET, known=known) == {"web01": 2222, "db09": 2023}


def test_its_name():
    assert FilterModule().filters() == {"relayed_ports": relayed_ports}
