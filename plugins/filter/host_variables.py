# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of their variables do these hosts have?

A filter for the reason that `fleet` is one: the variables of each host are looked up once.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_variables
author:
  - arcfleet.ssh contributors (@arcfleet)
version_added: 0.1.0
short_description: Chosen variables of hosts, as the option C(hosts) of C(arc_static_inventory) takes them
description:
  - Makes a dictionary of hosts, in their order, with those of their variables whose names fit.
positional: hosts, names
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
  names:
    description:
      - The names of the variables, as regular expressions for a whole name.
    type: list
    elements: str
    required: true
seealso:
  - module: arcfleet.ssh.arc_static_inventory
  - plugin: arcfleet.ssh.fleet
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write what Azure says of the machines
  arcfleet.ssh.arc_static_inventory:
    path: ~/arc.yml
    hosts: "{{ hostvars | arcfleet.ssh.host_variables(ansible_play_batch, ['arc_(resource_id|tags|os_.*)', 'ansible_port']) }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The variables of each host.
  type: dict
  sample:
    web01:
      arc_os_type: Linux
      ansible_port: 22
"""

import functools
import re
from collections.abc import Iterable
from typing import Any

from ansible.errors import AnsibleFilterError


def host_variables(hostvars: Any, hosts: Iterable[str], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The variables of `hosts` with names that fit one of `names`."""
    if isinstance(hosts, str) or isinstance(names, str):
        raise AnsibleFilterError("arcfleet.ssh.host_variables takes a list of hosts and a list of names.")
    try:
        pattern = re.compile("|".join(f"(?:{name})" for name in names))
    except re.error as exc:
        raise AnsibleFilterError(f"arcfleet.ssh.host_variables: the names are no regular expressions: {exc}") from exc
    # The hosts of a fleet have the same names of variables.
    fits = functools.lru_cache(maxsize=None)(pattern.fullmatch)
    found = {}
    for host in hosts:
        own = hostvars[host]
        found[host] = {name: own[name] for name in own if fits(name)}
    return found


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Their names."""
        return {"host_variables": host_variables}
