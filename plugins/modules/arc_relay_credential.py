#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are relay credentials at hand for each machine of the fleet, and can it be reached with them?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_relay_credential
short_description: Fetch relay credentials for Arc machines, and wait until these can be reached
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Fetches the credentials with which the relay lets clients reach Arc machines, for any number of machines in one task, and keeps them where
    the relay helper of this collection looks for them.
  - The helper fetches and renews credentials by itself. This module spares a fleet the single logins and requests, and tells for every
    machine in Azure's own words why there are no credentials to be had.
  - On request it then waits until the relay connects to the machines, once for the whole fleet, since an agent takes up to two minutes to
    listen after SSH was allowed; see O(wait).
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
  wait:
    description:
      - Whether to wait until the relay connects to the service on each machine. Nothing is sent to it, and nobody logs in.
      - All machines are dialled at once, up to O(concurrency) of them at the same time, and those that were not there yet again after some
        seconds. A machine that has answered is not dialled again, so sshd sees one connection that leaves before it logs in.
      - A machine on which nothing listens on the port is reported at once.
      - In check mode nothing is dialled.
    type: bool
    default: false
  wait_timeout:
    description:
      - How long to wait for the whole fleet, in seconds, from when every machine was dialled once.
      - A machine that never comes up delays no other.
    type: int
    default: 200
  wait_settle:
    description:
      - Do not wait any longer when at least one machine could be reached, and none of the others for so many seconds, in each of which they
        were dialled again.
      - The machines that are up need not wait for the others then. Call the module again for those whose C(failure.code) is V(NotListening).
      - Without it, O(wait_timeout) alone ends the waiting.
    type: int
  port:
    description:
      - The port of the service on the machine, as its service configuration allows it. The default is 22 for V(SSH) and 6516 for V(WAC).
      - It can be set for one machine inside O(machines).
    type: int
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
  - Run it on the host that connects, as the user who connects. A proxy named by C(HTTPS_PROXY) is used, as the relay helper does.
  - Credentials that were in the cache before are fetched anew, once, where the relay does not know or take them.
"""

EXAMPLES = r"""
- name: Fetch the credentials of the whole play before the first connection
  arcfleet.ssh.arc_relay_credential:
    machines: "{{ ansible_play_batch | map('extract', hostvars, 'arc_resource_id') }}"
    max_fail_percentage: 100
  delegate_to: localhost
  run_once: true

- name: Wait for the agents after SSH was allowed, each machine on its own port
  arcfleet.ssh.arc_relay_credential:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch, options={'port': ['ansible_port']}) }}"
    wait: true
    max_fail_percentage: 100
  register: listening
  delegate_to: localhost
  run_once: true

- name: Show who does not answer, and why
  ansible.builtin.debug:
    msg: "{{ item.failure.message }}"
  loop: "{{ listening.failures.values() }}"
  loop_control:
    label: "{{ item.name }}"
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
    listening:
      description: Whether the relay connected to the machine's port.
      returned: with O(wait), when there are credentials and it is not check mode
      type: bool
    waited:
      description: After how many seconds of waiting that was clear.
      returned: with RV(machines.listening)
      type: float
    failure:
      description:
        - Why the machine failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
        - With O(wait), C(code) is V(NotListening) for a machine that did not come up in time and may do so yet, V(SshdDown) where nothing
          accepts connections on the port, and V(RelayRefused) where the relay refuses for another reason.
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
from ansible_collections.arcfleet.ssh.plugins.module_utils._prefetch import Prefetch


def main() -> None:
    prefetch = Prefetch()
    ArcModule(
        {
            "service_name": {"type": "str", "choices": ["SSH", "WAC"], "default": "SSH"},
            "minimum_life": {"type": "int", "default": 3600},
            "force": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": False},
            "wait_timeout": {"type": "int", "default": 200},
            "wait_settle": {"type": "int"},
            "port": {"type": "int"},
            "cache_dir": {"type": "path"},
        },
        overrides=("port",),
    ).run(prefetch.tell, check=prefetch.check, before=prefetch.before)


if __name__ == "__main__":
    main()
