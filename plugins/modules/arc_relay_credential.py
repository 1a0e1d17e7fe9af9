#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are relay credentials at hand for each machine of the fleet?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_relay_credential
short_description: Fetch relay credentials for Arc machines ahead of time
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Fetches the credentials with which the relay lets clients reach Arc machines, for any number of machines in one task, and keeps them where
    the relay helper of this collection looks for them.
  - The helper fetches and renews credentials by itself. This module spares a fleet the single logins and requests, and tells for every
    machine in Azure's own words why there are no credentials to be had.
  - The credentials are secrets. They are kept in files of mode 0600 in a directory of mode 0700, and are never part of a result.
options:
  service_name:
    description:
      - The service to connect to, V(SSH) or Windows Admin Center (V(WAC)).
    type: str
    choices: [SSH, WAC]
    default: SSH
  minimum_life:
    description:
      - Credentials that end within so many seconds are fetched anew. Azure grants at most 10800.
    type: int
    default: 3600
  force:
    description:
      - Whether to fetch new credentials although there are good ones.
    type: bool
    default: false
  cache_dir:
    description:
      - The directory to keep them in. The default is C($XDG_CACHE_HOME/arcfleet/relay), and C(~/.cache/arcfleet/relay) where that variable
        is not set.
    type: path
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
notes:
  - Needs the action C(Microsoft.HybridConnectivity/endpoints/listCredentials/action) on the machines.
  - Run it on the host that connects, as the user who connects.
"""

EXAMPLES = r"""
- name: Fetch the credentials of the whole play before the first connection
  arcfleet.ssh.arc_relay_credential:
    machines: "{{ ansible_play_batch | map('extract', hostvars, 'arc_resource_id') }}"
    max_fail_percentage: 100
  delegate_to: localhost
  run_once: true
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
      description: V(none), V(create) for a machine without credentials, V(update) where they were renewed.
      type: str
    changed:
      description: Whether credentials were fetched.
      type: bool
    before:
      description: Which service there were credentials for, V(none) if there were none.
      type: dict
    after:
      description: Which service there are credentials for.
      type: dict
      sample: {service_name: SSH}
    credentials:
      description: What may be shown of the credentials.
      returned: when there are any
      type: dict
      sample: {expires_on: 1795000000, relay_host: azgn-example.servicebus.windows.net, hybrid_connection_name: microsoft.hybridcompute/machines/x/1/v2}
    failure:
      description: Why the machine failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when the machine failed
      type: dict
failures:
  description: Those entries of RV(machines) that failed.
  returned: always
  type: dict
"""

from ansible_collections.arcfleet.ssh.plugins.module_utils._module import ArcModule
from ansible_collections.arcfleet.ssh.plugins.module_utils._prefetch import prefetch


def main() -> None:
    ArcModule(
        {
            "service_name": {"type": "str", "choices": ["SSH", "WAC"], "default": "SSH"},
            "minimum_life": {"type": "int", "default": 3600},
            "force": {"type": "bool", "default": False},
            "cache_dir": {"type": "path"},
        }
    ).run(prefetch)


if __name__ == "__main__":
    main()
