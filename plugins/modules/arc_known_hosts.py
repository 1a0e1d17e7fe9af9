#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Will ssh recognise the machines of the fleet at its first connection?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_known_hosts
short_description: Note the host keys of Arc machines in known_hosts
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Writes the host keys of any number of Arc machines into C(known_hosts) in one task, so that the first connection through the relay is verified. The
    relay itself proves no machine's identity.
  - The keys have to come from somewhere that can be trusted. M(arcfleet.ssh.arc_run_command) gets them from the machines by way of Azure.
  - A machine stands in the file under its resource id in lower case, which is the C(HostKeyAlias) that the inventory
    P(arcfleet.ssh.arc_machines#inventory) gives to ssh.
  - The file is replaced as a whole or not at all. Lines of other hosts stay as they are. A new file gets the mode 0600.
options:
  machines:
    description:
      - The machines.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description:
          - The resource id of the machine.
        type: str
        required: true
      host_keys:
        description:
          - Its public host keys, each with its type.
        type: list
        elements: str
        required: true
      host:
        description:
          - Its name in the inventory, which results repeat.
        type: str
      ssh_args:
        description:
          - The arguments of ssh for it. Their C(UserKnownHostsFile) names the file, and their C(HostKeyAlias) the machine in it.
        type: str
  path:
    description:
      - The file for all machines, whatever their arguments of ssh say.
      - Without it, a machine whose arguments name no file goes into C(~/.ssh/known_hosts).
    type: path
  changed_keys:
    description:
      - What to do with a machine of which the file has another key of the same type.
      - V(refuse) reports it as failed, because this is how a machine looks that somebody else pretends to be.
      - V(replace) puts the new keys in the place of all old ones.
    type: str
    choices: [refuse, replace]
    default: refuse
  max_fail_percentage:
    description:
      - The task fails when more than this percentage of the machines failed. The others are noted in either case.
    type: float
    default: 0.0
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Note the host key of a machine
  arcfleet.ssh.arc_known_hosts:
    machines:
      - id: "{{ arc_resource_id }}"
        host_keys: "{{ bootstrapped.machines[arc_resource_id | lower].json.host_keys }}"
        ssh_args: "{{ ansible_ssh_common_args }}"
  delegate_to: localhost
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
      description: One of V(none), V(create), V(update), and V(skip) for a machine for which ssh keeps no file.
      type: str
    changed:
      description: Whether anything was changed for this machine.
      type: bool
    before:
      description: The host keys that the file had, V(none) if it had none.
      type: dict
    after:
      description: The host keys that the file has now.
      type: dict
    path:
      description: The file.
      type: str
    skip_reason:
      description: Why the machine was left alone.
      returned: when the machine was skipped
      type: str
    failure:
      description: Why the machine failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when the machine failed
      type: dict
failures:
  description: Those entries of RV(machines) that failed.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError
from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import machine_targets, report, verdict
from ansible_collections.arcfleet.ssh.plugins.module_utils._known_hosts_files import note


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "machines": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "id": {"type": "str", "required": True},
                    "host": {"type": "str"},
                    "host_keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
                    "ssh_args": {"type": "str"},
                },
            },
            "path": {"type": "path"},
            "changed_keys": {"type": "str", "choices": ["refuse", "replace"], "default": "refuse", "no_log": False},
            "max_fail_percentage": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    try:
        targets = machine_targets(module.params, ("host_keys", "ssh_args"))
        outcomes = note(
            targets,
            path=module.params["path"],
            replace=module.params["changed_keys"] == "replace",
            check_mode=module.check_mode,
        )
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure())
    result = report(targets, outcomes, kind="machines")
    failed = verdict(result, kind="machines", max_fail_percentage=module.params["max_fail_percentage"])
    if failed:
        module.fail_json(msg=failed, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
