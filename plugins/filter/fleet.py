# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines are these hosts, in the words of the modules?

A filter, because the variables of each host are looked up once here, while an expression of Jinja looks them up once for each value
that it needs: at 10,000 hosts that is two seconds instead of seven.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
author:
  - arcfleet.ssh contributors (@arcfleet)
version_added: 0.1.0
short_description: The Arc machines that hosts are, as the option C(machines) of the modules takes them
description:
  - Makes the value for the option C(machines) of this collection's modules, with one entry for each host that has the variable
    C(arc_resource_id), in the order of the hosts. Other hosts are left out.
  - An entry holds C(id) and C(host), so that results name the host as well, and the options that are asked for.
positional: hosts
options:
  _input:
    description:
      - The variables of all hosts, which is C(hostvars).
    type: dict
    required: true
  hosts:
    description:
      - The names of the hosts, for example C(ansible_play_batch).
    type: list
    elements: str
    required: true
  options:
    description:
      - For each option of the module that may differ from machine to machine, the names of the variables to take it from. The first one that is set
        counts; a machine for which none is set does not get the option.
    type: dict
    default: {}
  lists:
    description:
      - The same for options that take a list. Of the variables that are named, all that are set become its items; V(0) and the empty text count as
        not set.
    type: dict
    default: {}
  known:
    description:
      - For each name, a dictionary of values by host. O(options) may use the name like that of a variable. For what was found out about hosts and is
        no variable of theirs.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Allow SSH for all hosts of the play, on the port of each
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch, options={'port': ['my_ssh_port', 'ansible_port']}) }}"
  run_once: true
  delegate_to: localhost

- name: The same, where some machines may have moved already to the port that they shall have in future
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch, options={'port': ['ansible_port']}, lists={'accepted_ports': ['my_next_port']}) }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The machines.
  type: list
  elements: dict
  sample:
    - id: /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/web01
      host: web01
      port: 2222
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def fleet(
    hostvars: Any,
    hosts: Iterable[str],
    options: Mapping[str, Iterable[str]] | None = None,
    lists: Mapping[str, Iterable[str]] | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The machines that `hosts` are."""
    if isinstance(hosts, str) or not all(isinstance(given or {}, Mapping) for given in (options, lists, known)):
        raise AnsibleFilterError(
            "arcfleet.ssh.fleet takes a list of hosts, and dictionaries for `options`, `lists` and `known`."
        )
    wanted = [(option, list(names)) for option, names in (options or {}).items()]
    listed = [(option, list(names)) for option, names in (lists or {}).items()]
    tables = known or {}
    machines = []
    for host in hosts:
        own = hostvars[host]
        machine_id = own.get("arc_resource_id")
        if machine_id:
            entry = {"id": machine_id, "host": host}
            for option, names in wanted:
                told = (tables[name].get(host) if name in tables else own.get(name) for name in names)
                value = next((found for found in told if found is not None), None)
                if value is not None:
                    entry[option] = value
            for option, names in listed:
                items = [found for found in map(own.get, names) if found not in (None, "", 0, "0")]
                if items:
                    entry[option] = items
            machines.append(entry)
    return machines


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Their names."""
        return {"fleet": fleet}
