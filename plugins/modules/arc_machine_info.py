#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure know of each machine, and what is in the way of SSH?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_machine_info
short_description: Read Arc machines and what is in the way of SSH
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Reads any number of Arc machines (C(Microsoft.HybridCompute/machines)) in one task, on request with what SSH over Arc needs in Azure.
  - Says for each machine what stands in the way of SSH as far as Azure knows. It never connects to a machine, and never writes.
options:
  source:
    description:
      - Where to read from.
      - V(arm) asks Azure Resource Manager for each machine, and has the present state.
      - V(resource_graph) reads machines and extensions from Azure Resource Graph, a thousand at a time. That takes a few requests instead of
        one or two for each machine, but may be some minutes old.
      - Machines that Resource Graph does not show, and those in whose way it sees something (such as an agent that is Disconnected), are
        read from ARM all the same, so RV(machines.obstacles) never comes from an old state. That none is in the way may be out of date, as
        it is with every answer when it is used.
      - Where Resource Graph refuses as a whole, every machine is read from ARM, with a warning.
    type: str
    choices: [arm, resource_graph]
    default: arm
  gather:
    description:
      - What to read besides the machine itself.
      - V(connectivity) reads the endpoint and the service configurations, which takes two further requests to ARM for each machine, whatever
        O(source) says. Resource Graph does not hold them.
      - V(extensions) reads the extensions, from ARM with one more request for each machine. From Resource Graph, extensions that this
        identity may not read are missing.
    type: list
    elements: str
    choices: [connectivity, extensions]
    default: []
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet
  - arcfleet.ssh._fleet.name
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.info_module
  - arcfleet.ssh._attributes.actiongroup_arc
seealso:
  - plugin: arcfleet.ssh.arc_machines
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Read what is in the way of SSH
  arcfleet.ssh.arc_machine_info:
    machines: "{{ fleet }}"
    gather: [connectivity]
    max_fail_percentage: 100
  register: looked

- name: Look at a large fleet with a few requests
  arcfleet.ssh.arc_machine_info:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}"
    source: resource_graph
    gather: [extensions]
  delegate_to: localhost
  run_once: true

- name: Show the machines that are not ready
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.obstacles | join('; ') }}"
  loop: "{{ looked.machines.values() | selectattr('obstacles', 'defined') | selectattr('obstacles') }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
summary:
  description: How many machines there were, and how many could not be read.
  returned: always
  type: dict
machines:
  description:
    - What is known of each machine, by its resource id in lower case.
  returned: always
  type: dict
  contains:
    resource_id:
      description: The resource id as Azure spells it.
      type: str
    name:
      description: The name of the machine.
      type: str
    resource_group:
      description: The resource group.
      type: str
    subscription_id:
      description: The subscription.
      type: str
    location:
      description: The region.
      type: str
    status:
      description: The state of the agent, such as V(Connected), V(Disconnected) or V(Expired).
      type: str
    last_status_change:
      description: Since when the agent has been in this state.
      type: str
    agent_version:
      description: The version of the agent.
      type: str
    os_type:
      description: V(linux) or V(windows).
      type: str
    os_name:
      description: The name of the operating system as the agent reports it.
      type: str
    os_sku:
      description: The edition of the operating system.
      type: str
    fqdn:
      description: The name of the machine in its own network.
      type: str
    vm_id:
      description: The GUID that the agent gave the machine.
      type: str
    kind:
      description: The kind of machine, such as V(HCI) or V(VMware); V(none) for a plain server.
      type: str
    tags:
      description: The tags.
      type: dict
    agent_config:
      description: The agent's settings as far as Azure knows them.
      type: dict
    source:
      description: Where this was read from, V(arm) or V(resource_graph).
      type: str
    endpoint:
      description: Whether the machine has its default connectivity endpoint.
      returned: with O(gather) V(connectivity)
      type: bool
    services:
      description: The port of each service that is allowed, by its name.
      returned: with O(gather) V(connectivity)
      type: dict
      sample: {SSH: 22}
    extensions:
      description: The extensions, with name, publisher, type, version and provisioning state.
      returned: with O(gather) V(extensions)
      type: list
      elements: dict
    obstacles:
      description: What stands in the way of SSH as far as Azure knows, as sentences. Empty when nothing does.
      type: list
      elements: str
    failure:
      description: Why the machine could not be read, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when the machine failed
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

from ansible_collections.arcfleet.ssh.plugins.module_utils._module import ArcModule
from ansible_collections.arcfleet.ssh.plugins.module_utils._survey import SOURCE_OPTION, Listing, survey


def main() -> None:
    listing = Listing()
    module = ArcModule(
        {
            **SOURCE_OPTION,
            "gather": {"type": "list", "elements": "str", "choices": ["connectivity", "extensions"], "default": []},
        }
    )
    module.run(
        lambda run, target, outcome: survey(run, target, outcome, listing.of(target, outcome)),
        before=lambda run, targets: listing.read(run, targets, extensions="extensions" in module.params["gather"]),
    )


if __name__ == "__main__":
    main()
