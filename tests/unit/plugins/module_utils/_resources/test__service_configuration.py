# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which port shall a service configuration have, where several are right?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._plan import plan
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._service_configuration import ServiceConfiguration

WEB01 = MachineId("11111111-2222-3333-4444-555555555555", "rg", "web01")


def raw(port, state="Succeeded"):
    return {"name": "SSH", "properties": {"serviceName": "SSH", "port": port, "provisioningState": state}}


@pytest.mark.parametrize(("there", "port"), [(None, 22), (22, 22), (2022, 2022), ("2222", 2222), (2223, 22)])
def test_an_accepted_port_stays_and_any_other_goes(there, port):
    resource = ServiceConfiguration(WEB01, accepted_ports=[2022, 2222])
    assert resource.wanted(None if there is None else raw(there)) == {"service_name": "SSH", "port": port}


def test_a_broken_one_is_written_again_with_the_port_that_it_has():
    resource, record = ServiceConfiguration(WEB01, accepted_ports=[2222]), raw(2222, "Failed")
    step = plan(resource.state(record), resource.wanted(record), broken=resource.broken(record))
    assert step.action == "update" and step.after == {"service_name": "SSH", "port": 2222}
    assert resource.request(step, record, None).body == {"properties": {"serviceName": "SSH", "port": 2222}}
    assert resource.doing(step) == "web01: cannot allow SSH on port 2222"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_accepted_port_has_to_be_one(port):
    with pytest.raises(InputError, match=f"web01: {port} is not a port"):
        ServiceConfiguration(WEB01, accepted_ports=[22, port])
