#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which port of each machine may be reached through the relay?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_ssh_service_config
short_description: Allow SSH or Windows Admin Center through Azure Arc
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Manages the service configuration (C(Microsoft.HybridConnectivity/endpoints/serviceConfigurations)) of any number of Arc machines in one
    task. It says which local port of the machine may be reached through the relay.
  - A machine on which the configuration is right costs a single read.
  - The machine's agent need not be connected. After a change it takes the agent up to two minutes to listen.
  - There is one port for each service. A service configuration says that Azure allows the port, not that anything listens on it.
options:
  state:
    description:
      - V(present) allows the service.
      - V(absent) withdraws it.
    type: str
    choices: [present, absent]
    default: present
  service_name:
    description:
      - The service, V(SSH) or Windows Admin Center (V(WAC)).
    type: str
    choices: [SSH, WAC]
    default: SSH
  port:
    description:
      - The port on which the service listens on the machine, from 1 to 65535.
      - The default is V(22) for V(SSH) and V(6516) for V(WAC).
      - May be set for one machine.
    type: int
  accepted_ports:
    description:
      - Ports that are right as well where the service configuration has one of them already. It is left as it is then; O(port) is for where it is
        not.
      - Whoever moves the service to another port, and the service configuration with it, need not change O(port) at the same moment.
      - May be set for one machine.
    type: list
    elements: int
    default: []
  manage_endpoint:
    description:
      - Whether to take care of the machine's default connectivity endpoint as well. With O(state=present) it is created where it is
        missing; with O(state=absent) it is deleted once no other service uses it.
    type: bool
    default: true
  register_provider:
    description:
      - Whether to register the resource provider C(Microsoft.HybridConnectivity) in a subscription that turns out to lack it, and to wait for that.
        Costs nothing where it is registered.
      - Without it the machines of such a subscription fail; see M(arcfleet.ssh.arc_resource_provider).
    type: bool
    default: false
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet
  - arcfleet.ssh._fleet.name
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.actiongroup_arc
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: arcfleet.ssh.arc_connectivity_endpoint
  - module: arcfleet.ssh.arc_resource_provider
"""

EXAMPLES = r"""
- name: Allow SSH on every machine of the play in one go
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ ansible_play_batch | map('extract', hostvars, 'arc_resource_id') }}"
  delegate_to: localhost
  run_once: true

- name: Allow SSH on a port of its own for one of two machines
  arcfleet.ssh.arc_ssh_service_config:
    machines:
      - "{{ web01_id }}"
      - id: "{{ web02_id }}"
        port: 2222

- name: Allow SSH where it is not allowed yet, and do not move back the machines that have moved to port 2222
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ fleet }}"
    accepted_ports: [2222]

- name: Withdraw SSH, and leave the endpoint to Windows Admin Center where that uses it
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ fleet }}"
    state: absent
    max_fail_percentage: 5
"""

RETURN = r"""
summary:
  description: How many machines there were, and what became of them.
  returned: always
  type: dict
  sample: {total: 3, created: 1, updated: 0, deleted: 0, unchanged: 2, skipped: 0, failed: 0}
machines:
  description:
    - What was done for each machine, by its resource id in lower case. In check mode, what would be done.
  returned: always
  type: dict
  contains:
    name:
      description: The name of the machine.
      type: str
    action:
      description: One of V(none), V(create), V(update), V(delete) and V(skip).
      type: str
    changed:
      description: Whether anything was changed for this machine.
      type: bool
    before:
      description: The service configuration before, V(none) if there was none.
      type: dict
    after:
      description: The service configuration after, V(none) if there is none.
      type: dict
      sample: {service_name: SSH, port: 22}
    endpoint:
      description: What was done about the endpoint, with the keys C(action), C(before) and C(after).
      returned: when the endpoint had to be looked at
      type: dict
    failure:
      description: Why the machine failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when the machine failed
      type: dict
subscriptions:
  description:
    - What was registered with O(register_provider), as M(arcfleet.ssh.arc_resource_provider) returns it.
  returned: when a subscription lacked the registration
  type: dict
pacing:
  description:
    - What the run had to do with Azure's limits. How many C(requests) it made, how often Azure C(throttled) it, and how many seconds its requests
      C(waited) for their turn.
  returned: when the work was begun
  type: dict
  sample: {requests: 2000, throttled: 0, waited: 78.3}
failures:
  description: Those entries of RV(machines) that failed.
  returned: always
  type: dict
"""

from ansible_collections.arcfleet.ssh.plugins.module_utils._module import STATE_OPTION, ArcModule
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._service_configuration import ServiceConfiguration


def main() -> None:
    ArcModule(
        {
            **STATE_OPTION,
            "service_name": {"type": "str", "choices": ["SSH", "WAC"], "default": "SSH"},
            "port": {"type": "int"},
            "accepted_ports": {"type": "list", "elements": "int", "default": []},
            "manage_endpoint": {"type": "bool", "default": True},
            "register_provider": {"type": "bool", "default": False},
        },
        overrides=("port", "accepted_ports"),
    ).reconcile(
        lambda machine, options: ServiceConfiguration(
            machine,
            service=options["service_name"],
            port=options["port"],
            accepted_ports=options["accepted_ports"] or (),
            present=options["state"] == "present",
            manage_endpoint=options["manage_endpoint"],
        )
    )


if __name__ == "__main__":
    main()
