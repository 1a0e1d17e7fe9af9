# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which variables does the filter take from hosts?"""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.arcfleet.ssh.plugins.filter.host_variables import FilterModule, host_variables

HOSTVARS = {
    "web01": {"arc_name": "web01", "arc_fqdn": None, "ansible_port": 22, "ansible_port_of_mine": 1},
    "db01": {"arc_name": "db01", "my_arc_name": "x"},
    "other": {"arc_name": "other"},
}


def test_names_fit_as_a_whole_and_what_is_none_is_kept():
    names = ["arc_.*", "ansible_(host|port)"]
    found = host_variables(HOSTVARS, ["web01", "db01"], names)
    assert found == {
        "web01": {"arc_name": "web01", "arc_fqdn": None, "ansible_port": 22},
        "db01": {"arc_name": "db01"},
    }
    assert host_variables(HOSTVARS, ["db01"], []) == {"db01": {}}


@pytest.mark.parametrize("arguments", [("web01", ["x"]), (["web01"], "arc_.*"), (["web01"], ["("])])
def test_what_cannot_be_is_told(arguments):
    with pytest.raises(AnsibleFilterError, match=r"arcfleet\.ssh\.host_variables"):
        host_variables(HOSTVARS, *arguments)


def test_its_name():
    assert FilterModule().filters() == {"host_variables": host_variables}
