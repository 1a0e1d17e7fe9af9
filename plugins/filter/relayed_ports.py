# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To which hosts does Azure relay on another port than they themselves say?

A filter, because Jinja compares two lists of thousands of hosts pair by pair.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: relayed_ports
author:
  - arcfleet.ssh contributors (@arcfleet)
version_added: 0.1.0
short_description: The hosts that Azure relays to on another port than was asked for
description:
  - Compares what M(arcfleet.ssh.arc_ssh_service_config) told with what it was asked for, and makes a small dictionary of the hosts where the two differ.
  - That is so where the port that is there was accepted, and in check mode, where nothing was changed.
positional: machines
options:
  _input:
    description:
      - The results of the module, as a list. Those of a task with a loop are its C(results).
    type: list
    elements: dict
    required: true
  machines:
    description:
      - What the module was asked for, as P(arcfleet.ssh.fleet#filter) made it with the option C(port). A machine without it was asked for port 22.
    type: list
    elements: dict
    required: true
  predicted:
    description:
      - Whether the module only predicted. Then what was there before counts.
    type: bool
    default: false
  known:
    description:
      - What was known before. It stays for hosts that are not among O(machines).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Note to which ports Azure relays
  ansible.builtin.set_fact:
    relayed: "{{ [configured] | arcfleet.ssh.relayed_ports(fleet) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The ports, by host.
  type: dict
  sample: {web01: 2222}
"""

from collections.abc import Iterable, Mapping
from typing import Any

SSH = 22


def relayed_ports(
    results: Iterable[Mapping[str, Any]],
    machines: Iterable[Mapping[str, Any]],
    predicted: bool = False,
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The port of each host for which it is another than `machines` says."""
    asked = {machine["host"]: int(machine.get("port", SSH)) for machine in machines}
    side = "before" if predicted else "after"
    ports = {host: port for host, port in (known or {}).items() if host not in asked}
    for result in results:
        for entry in (result.get("machines") or {}).values():
            there = None if "failure" in entry else entry.get(side)
            if there and there["port"] != asked.get(entry.get("host"), there["port"]):
                ports[entry["host"]] = there["port"]
    return ports


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Their names."""
        return {"relayed_ports": relayed_ports}
