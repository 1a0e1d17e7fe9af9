#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can a controller that does not ask Azure know the fleet?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_static_inventory
short_description: Write hosts and their variables as a YAML inventory
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Writes hosts, their variables and their groups into one YAML file, for controllers that cannot ask Azure which machines there are, for CMDBs, and to
    keep what the fleet was.
  - Ansible reads from it exactly what was written. Text with C({{) or C({%) in it, as somebody may put into a tag, is marked as data with C(!unsafe), so
    that it is never taken for a template.
  - Variables that hold secrets by their names, such as C(ansible_password), are refused.
  - The file is replaced as a whole or not at all. A new one gets the mode 0600. One that this module did not write is left alone.
options:
  state:
    description:
      - V(present) writes the file. V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  path:
    description:
      - The file, whose name ends in C(.yml) or C(.yaml). Its directory must not be one to which others may write.
    type: path
    required: true
  hosts:
    description:
      - The variables of each host, by its name. Hosts that are not named any more leave the file.
      - JSON as text is taken as well. With thousands of hosts that is several times faster, because Ansible looks into a dictionary again and again.
      - Required with O(state=present).
    type: dict
  groups:
    description:
      - The names of the hosts of each group, by the group's name. Hosts that are not in O(hosts), and groups without any that is, are left out, so that
        this may be Ansible's own variable C(groups).
      - Groups of groups are not told apart from groups of hosts.
    type: dict
    default: {}
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - plugin: arcfleet.ssh.arc_machines
    plugin_type: inventory
  - plugin: arcfleet.ssh.host_variables
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write what the inventory knows of the machines
  arcfleet.ssh.arc_static_inventory:
    path: /srv/inventory/arc.yml
    hosts: "{{ hostvars
      | arcfleet.ssh.host_variables(ansible_play_hosts, ['arc_.*', 'ansible_(host|port|user|ssh_common_args)'])
      | to_json }}"
    groups: "{{ groups }}"
  delegate_to: localhost
  run_once: true

- name: Write two hosts
  arcfleet.ssh.arc_static_inventory:
    path: ~/inventory.yml
    hosts:
      web01:
        ansible_host: 192.0.2.1
      web02: {}
    groups:
      web: [web01, web02]
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /srv/inventory/arc.yml
summary:
  description: How many hosts there are, and what became of them in the file.
  returned: success
  type: dict
  sample: {total: 3, created: 1, updated: 0, deleted: 0, unchanged: 2}
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._static_inventory import render, write


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path", "required": True},
            "hosts": {"type": "dict"},
            "groups": {"type": "dict", "default": {}},
        },
        required_if=[("state", "present", ["hosts"])],
        supports_check_mode=True,
        # What may be a secret is refused, but a log would have it by then.
        no_log=True,
    )
    params = module.params
    # The same goes for the result, which Ansible shows; and to send a fleet back takes longer than all the rest.
    invocation = {"module_args": {name: params[name] for name in ("state", "path")}}
    try:
        text = render(_hosts(params["hosts"]), _groups(params["groups"])) if params["state"] == "present" else None
        done = write(params["path"], text, check_mode=module.check_mode)
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure(), invocation=invocation)
    module.exit_json(
        changed=done.changed,
        path=done.path,
        summary={"total": len(params["hosts"] or {}) if text else 0, **done.counts},
        diff={"before": done.before, "after": done.after},
        invocation=invocation,
    )


def _hosts(given: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    wrong = [name for name, variables in given.items() if not isinstance(variables, (Mapping, type(None)))]
    if wrong:
        raise InputError(
            f"hosts: {wrong[0]} has something else than variables.", hint="Write a dictionary for each host."
        )
    return {name: variables or {} for name, variables in given.items()}


def _groups(given: Mapping[str, Any]) -> dict[str, list[str]]:
    wrong = [name for name, named in given.items() if not isinstance(named, (list, type(None)))]
    if wrong:
        raise InputError(f"groups: {wrong[0]} is no list of hosts.", hint="Write a list of names for each group.")
    return {name: [str(one) for one in named or []] for name, named in given.items()}


if __name__ == "__main__":
    main()
