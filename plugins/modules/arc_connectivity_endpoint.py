#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does each machine of the fleet have its default connectivity endpoint?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_connectivity_endpoint
short_description: Manage the default connectivity endpoint of Arc machines
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Creates or deletes the default connectivity endpoint (C(Microsoft.HybridConnectivity/endpoints/default)) of any number of Arc machines in
    one task.
  - SSH over Arc needs the endpoint, and a service configuration on it. M(arcfleet.ssh.arc_ssh_service_config) manages both; use this module
    where the endpoint has to be managed by itself.
  - An endpoint that is there and healthy is never written again, because that may make the agent drop its connection to the relay.
  - The machine's agent need not be connected.
options:
  state:
    description:
      - V(present) creates the endpoint where there is none.
      - V(absent) deletes it, and with it all its service configurations.
    type: str
    choices: [present, absent]
    default: present
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
  - module: arcfleet.ssh.arc_ssh_service_config
  - module: arcfleet.ssh.arc_resource_provider
"""

EXAMPLES = r"""
- name: Create the endpoint of every machine of the play in one go
  arcfleet.ssh.arc_connectivity_endpoint:
    machines: "{{ ansible_play_batch | map('extract', hostvars, 'arc_resource_id') }}"
  delegate_to: localhost
  run_once: true

- name: Create the endpoint of one machine
  arcfleet.ssh.arc_connectivity_endpoint:
    subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: arc-prod
    name: web01
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
      description: The endpoint before, V(none) if there was none.
      type: dict
    after:
      description: The endpoint after, V(none) if there is none.
      type: dict
      sample: {type: default}
    failure:
      description: Why the machine failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
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

from ansible_collections.arcfleet.ssh.plugins.module_utils._module import STATE_OPTION, ArcModule
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._endpoint import Endpoint


def main() -> None:
    ArcModule(STATE_OPTION).reconcile(lambda machine, options: Endpoint(machine, present=options["state"] == "present"))


if __name__ == "__main__":
    main()
