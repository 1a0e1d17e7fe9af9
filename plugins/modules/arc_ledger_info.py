#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines have to be read this time, and which were found in order a short while ago?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_ledger_info
short_description: Tell which Arc machines have to be looked at again
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Compares a fleet with the ledger that M(arcfleet.ssh.arc_ledger) keeps, and reads in the activity log of each subscription what was written since. A
    fleet in which nothing happened costs as many requests as the log has pages, and none for each machine.
  - The ledger is only ever a reason not to read a machine. One that is missing in it, that shall be something else than before, that was read too long
    ago, or to which something was written, is to be read. So is every machine where the ledger or the log cannot be read or is in doubt, with a warning.
  - The activity log does not show everything. What it does not show is found once O(full_every) is over.
  - The playbook C(arcfleet.ssh.enforce) uses it. Writes nothing, neither to Azure nor on the controller.
options:
  machines:
    description:
      - The machines, as dictionaries with the key C(id), the name C(host) in the inventory, and anything else that says what the machine shall be, such as
        C(port). The filter P(arcfleet.ssh.fleet#filter) makes them.
    type: list
    elements: dict
    required: true
  kinds:
    description:
      - What else belongs to the desired state of every machine, for example the kinds of resources that are looked at. When it changes, all machines are
        read.
    type: list
    elements: str
    default: []
  path:
    description:
      - The file of the ledger. It need not exist.
    type: path
    required: true
  full_every:
    description:
      - After how many seconds a machine is read again whatever the log says, at most 30 days. V(0) reads every machine every time.
    type: int
    default: 86400
  visit_share:
    description:
      - RV(visit_hosts) is one part in so many of the fleet.
    type: int
    default: 1
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.info_module
  - arcfleet.ssh._attributes.actiongroup_arc
notes:
  - Needs C(Microsoft.Insights/eventtypes/values/read) on the subscriptions, which is in Reader. Without it everything is read.
  - All times are Azure's. The clock of the controller decides nothing.
seealso:
  - module: arcfleet.ssh.arc_ledger
  - module: arcfleet.ssh.arc_drift_report
"""

EXAMPLES = r"""
- name: Find out which machines to look at
  arcfleet.ssh.arc_ledger_info:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch, options={'port': ['ansible_port']}) }}"
    path: /var/lib/arcfleet/ledger.json
  delegate_to: localhost
  run_once: true
  register: ledger

- name: Look at them
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ledger.read_hosts, options={'port': ['ansible_port']}) }}"
  check_mode: true
  delegate_to: localhost
  run_once: true
  when: ledger.read_hosts | length > 0
"""

RETURN = r"""
read_hosts:
  description: The machines to read, by their C(host), else by their id in lower case.
  returned: success
  type: list
  elements: str
reasons:
  description: For each reason to read a machine, how many have it.
  returned: success
  type: dict
  sample: {something was written there since: 2}
unchanged:
  description: The other machines by their id in lower case, with C(name), C(host), and since when (C(verified)) they are known to be in order.
  returned: success
  type: dict
visit_hosts:
  description: Those that nobody has looked at over a connection for longest, see O(visit_share).
  returned: success
  type: list
  elements: str
look:
  description: What M(arcfleet.ssh.arc_ledger) has to know of this look.
  returned: success
  type: dict
  contains:
    at:
      description: When it began, by Azure's clock.
      type: str
    cloud:
      description: The address of Azure Resource Manager.
      type: str
    full_every:
      description: The option O(full_every).
      type: int
    logs:
      description: Whether the log of each subscription could be read and believed.
      type: dict
    written:
      description: The machines to which something was written.
      type: list
      elements: str
    desired:
      description: What each machine shall be, as a digest.
      type: dict
path:
  description: The file of the ledger.
  returned: success
  type: str
summary:
  description: How many machines there were.
  returned: always
  type: dict
machines:
  description: Each machine by its id in lower case.
  returned: always
  type: dict
  contains:
    read:
      description: Whether it has to be read.
      type: bool
    reason:
      description: Why, V(none) if not.
      type: str
    verified:
      description: Since when it is known to be in order, by Azure's clock, V(none) if it has to be read.
      type: str
pacing:
  description:
    - What the run had to do with Azure's limits. How many C(requests) it made, how often Azure C(throttled) it, and how many seconds its requests
      C(waited) for their turn.
  returned: when the work was begun
  type: dict
  sample: {requests: 3, throttled: 0, waited: 0.0}
"""

from ansible_collections.arcfleet.ssh.plugins.module_utils._look import Look, LookModule


def main() -> None:
    module = LookModule(
        {
            "kinds": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "path", "required": True},
            "full_every": {"type": "int", "default": 86400},
            "visit_share": {"type": "int", "default": 1},
        }
    )
    look = Look(module.params)
    module.run(
        lambda run, target, outcome: look.judge(target, outcome), check=look.check, before=look.read, also=look.result
    )


if __name__ == "__main__":
    main()
