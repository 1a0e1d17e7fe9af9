#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the resource provider registered in each subscription?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_resource_provider
short_description: Register a resource provider in subscriptions
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Registers a resource provider in any number of subscriptions, and by default waits until Azure has done it, which takes minutes.
  - SSH over Arc needs C(Microsoft.HybridConnectivity) once in each subscription. No other module of this collection registers anything, unless its option
    C(register_provider) asks for it.
  - Machines that were connected before the registration may need a restart of their agent.
options:
  state:
    description:
      - V(present) registers the provider.
      - V(absent) unregisters it, which Azure refuses while resources of the provider exist.
    type: str
    choices: [present, absent]
    default: present
  namespace:
    description:
      - The namespace of the provider.
    type: str
    default: Microsoft.HybridConnectivity
  subscriptions:
    description:
      - The ids of the subscriptions. Without this, O(subscription_id) is the only one.
    type: list
    elements: str
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._fleet.wait
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.actiongroup_arc
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Registering needs the action C(Microsoft.HybridConnectivity/register/action) on the subscription.
"""

EXAMPLES = r"""
- name: Register the provider that SSH over Arc needs
  arcfleet.ssh.arc_resource_provider:
    subscriptions: "{{ ansible_play_batch | map('extract', hostvars, 'arc_subscription_id') | unique }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
summary:
  description: How many subscriptions there were, and what became of them.
  returned: always
  type: dict
  sample: {total: 1, created: 0, updated: 1, deleted: 0, unchanged: 0, skipped: 0, failed: 0}
subscriptions:
  description:
    - What was done for each subscription, by its id in lower case. In check mode, what would be done.
  returned: always
  type: dict
  contains:
    name:
      description: The id of the subscription.
      type: str
    action:
      description: One of V(none) and V(update).
      type: str
    changed:
      description: Whether anything was changed in this subscription.
      type: bool
    before:
      description: The registration before.
      type: dict
      sample: {namespace: Microsoft.HybridConnectivity, registered: false}
    after:
      description: The registration after.
      type: dict
      sample: {namespace: Microsoft.HybridConnectivity, registered: true}
    failure:
      description: Why the subscription failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when the subscription failed
      type: dict
pacing:
  description:
    - What the run had to do with Azure's limits. How many C(requests) it made, how often Azure C(throttled) it, and how many seconds its requests
      C(waited) for their turn.
  returned: when the work was begun
  type: dict
  sample: {requests: 2000, throttled: 0, waited: 78.3}
failures:
  description: Those entries of RV(subscriptions) that failed.
  returned: always
  type: dict
"""

from ansible_collections.arcfleet.ssh.plugins.module_utils._module import STATE_OPTION, WAIT_OPTIONS, SubscriptionModule
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._provider import Provider


def main() -> None:
    SubscriptionModule(
        {
            **STATE_OPTION,
            "namespace": {"type": "str", "default": "Microsoft.HybridConnectivity"},
            **WAIT_OPTIONS,
        }
    ).reconcile(
        lambda subscription_id, options: Provider(
            subscription_id, namespace=options["namespace"], present=options["state"] == "present"
        )
    )


if __name__ == "__main__":
    main()
