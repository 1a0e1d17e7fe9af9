#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can ssh, scp, rsync and everything that uses them reach the fleet?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_ssh_config
short_description: Write an OpenSSH configuration for Arc machines
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Writes one file with all machines, and has C(~/.ssh/config) include it. C(ssh), C(scp), C(sftp), C(rsync), C(git) and editors then reach the
    machines by name, through the relay.
  - The file holds no secrets and never goes stale. Credentials are asked for and renewed by the relay helper when a connection begins.
  - Any machine whose resource id is typed is reached as well, also one that is not in the file, as in
    C(ssh /subscriptions/ID/resourceGroups/RG/providers/Microsoft.HybridCompute/machines/web01). OpenSSH refuses to take ids with parentheses so.
  - Host keys stand in C(known_hosts) under the resource id in lower case, as for Ansible.
  - The file is replaced as a whole or not at all, with mode 0600. Of C(~/.ssh/config) only a block of our own is touched.
options:
  state:
    description:
      - V(present) writes the file. V(absent) removes it, and the block that includes it.
    type: str
    choices: [present, absent]
    default: present
  machines:
    description:
      - The machines. Those that are not named any more leave the file.
      - Required with O(state=present).
    type: list
    elements: dict
    suboptions:
      id:
        description:
          - The resource id of the machine.
        type: str
        required: true
      host:
        description:
          - What it is called. The default is its name in Azure.
          - Machines that would have the same name get their resource group added to it, and their subscription where that is needed.
        type: str
      ssh_args:
        description:
          - The arguments of ssh for it, which is C(ansible_ssh_common_args) of the inventory P(arcfleet.ssh.arc_machines#inventory).
        type: str
        required: true
      port:
        description:
          - The port of its OpenSSH server, as the service configuration allows it.
        type: int
        default: 22
      user:
        description:
          - The user to log in as. The default is what ssh takes.
        type: str
      private_key_file:
        description:
          - The private key to log in with.
        type: path
  path:
    description:
      - The file. Its directory must not be one to which others may write.
    type: path
    default: ~/.ssh/arcfleet.conf
  include:
    description:
      - Whether the user's configuration shall include the file.
    type: bool
    default: true
  config:
    description:
      - The user's configuration.
    type: path
    default: ~/.ssh/config
  control_persist:
    description:
      - How long a connection stays open for the next one to share, as C(ControlPersist) of ssh has it. V(no) shares none.
    type: str
    default: 10m
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
- name: Let ssh know all machines of the inventory
  arcfleet.ssh.arc_ssh_config:
    machines: >-
      {{ hostvars | arcfleet.ssh.fleet(ansible_play_hosts, options={'ssh_args': ['ansible_ssh_common_args'], 'port': ['ansible_port'],
                                                                    'user': ['ansible_user'], 'private_key_file': ['ansible_ssh_private_key_file']}) }}
  delegate_to: localhost
  run_once: true

- name: Forget them
  arcfleet.ssh.arc_ssh_config:
    state: absent
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /home/ops/.ssh/arcfleet.conf
included:
  description: Whether the user's configuration includes the file.
  returned: success
  type: bool
summary:
  description: How many machines there are, and what became of them in the file.
  returned: success
  type: dict
  sample: {total: 3, created: 1, updated: 0, deleted: 0, unchanged: 2}
shared_names:
  description: The names that several machines would have had, so that they got longer ones.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_config import render
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_config_files import entries, shared_at, write


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "machines": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "id": {"type": "str", "required": True},
                    "host": {"type": "str"},
                    "ssh_args": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 22},
                    "user": {"type": "str"},
                    "private_key_file": {"type": "path", "no_log": False},
                },
            },
            "path": {"type": "path", "default": "~/.ssh/arcfleet.conf"},
            "include": {"type": "bool", "default": True},
            "config": {"type": "path", "default": "~/.ssh/config"},
            "control_persist": {"type": "str", "default": "10m"},
        },
        required_if=[("state", "present", ["machines"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        text, shared = None, []
        if params["state"] == "present":
            machines, shared = entries(params["machines"])
            place = shared_at(params["path"], params["control_persist"])
            text = render(machines, control_path=place, control_persist=params["control_persist"])
        config = params["config"] if params["include"] else None
        done = write(params["path"], text, config, check_mode=module.check_mode)
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure())
    module.exit_json(
        changed=done.changed,
        path=done.path,
        included=done.included,
        summary={"total": len(params["machines"] or []), **done.counts},
        shared_names=shared,
        diff={"before": done.before, "after": done.after},
    )


if __name__ == "__main__":
    main()
