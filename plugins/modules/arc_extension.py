#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does each machine of the fleet have this extension, as it was asked for?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_extension
short_description: Manage an extension of Arc machines
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Installs, changes or removes one extension (C(Microsoft.HybridCompute/machines/extensions)) on any number of Arc machines in one task.
  - An extension is found by O(publisher) and O(type), whatever its name, because a machine has at most one of each type.
  - Options that are not set stay as they are on the machine.
  - Compared is what Azure answers with - the version, the two upgrade options, O(force_update_tag), and O(settings) as a whole and as they
    come back. O(protected_settings) never come back and are never compared. Check mode compares the same, so it says what a run would do.
  - The machine's agent installs the extension, so it has to be connected; see O(unavailable).
options:
  state:
    description:
      - V(present) installs the extension or changes it.
      - V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  publisher:
    description:
      - The publisher of the extension.
    type: str
    required: true
  type:
    description:
      - The type of the extension.
    type: str
    required: true
  name:
    description:
      - The name of the extension's resource when it has to be created. The default is the O(type).
      - In this module a single machine is named by O(machine_name).
    type: str
  machine_name:
    description:
      - The name of a single machine, together with O(resource_group) and O(subscription_id).
    type: str
  type_handler_version:
    description:
      - The version. V(1.10) is satisfied by any 1.10, as V(1.10.3) is by itself only.
      - Ignored where O(enable_automatic_upgrade) is on, because Azure moves the version then.
    type: str
  settings:
    description:
      - The public settings. They replace those that are there.
    type: dict
  protected_settings:
    description:
      - The secret settings. Azure never answers with them, so a change of them alone is not noticed; change O(force_update_tag) with them.
      - They cannot be set for one machine inside O(machines), because Ansible would log them there.
    type: dict
  auto_upgrade_minor_version:
    description:
      - Whether Azure may install a newer minor version when the extension is written.
    type: bool
  enable_automatic_upgrade:
    description:
      - Whether Azure upgrades the extension by itself.
    type: bool
  force_update_tag:
    description:
      - Any text. The extension is written again when it differs from the one that is there.
    type: str
  source:
    description:
      - Where to look first.
      - V(arm) reads the extension of each machine from Azure Resource Manager.
      - V(resource_graph) reads the extensions of all machines from Azure Resource Graph, a thousand at a time. A machine for which it shows
        the extension exactly as wanted and Succeeded is unchanged without a request of its own. Every other machine is read from ARM, before
        anything is decided about it, so nothing is ever written because of Resource Graph.
      - Resource Graph may be some minutes old. What was changed by somebody else in that time is noticed by the next run.
      - That an extension is absent is always read from ARM, so this makes no difference with O(state) V(absent).
      - Where Resource Graph refuses as a whole, every machine is read from ARM, with a warning.
    type: str
    choices: [arm, resource_graph]
    default: arm
  repair:
    description:
      - Whether to write an extension again that is there but failed. Otherwise such a machine fails, with what the extension said.
    type: bool
    default: false
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._fleet.wait
  - arcfleet.ssh._fleet.unavailable
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.actiongroup_arc
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Install Entra login for Linux on every machine of the play that is connected
  arcfleet.ssh.arc_extension:
    machines: "{{ ansible_play_batch | map('extract', hostvars, 'arc_resource_id') }}"
    publisher: Microsoft.Azure.ActiveDirectory
    type: AADSSHLoginForLinux
    auto_upgrade_minor_version: true
    unavailable: skip
  delegate_to: localhost
  run_once: true

- name: Look after it in a large fleet, with requests for those machines only that lack it
  arcfleet.ssh.arc_extension:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}"
    publisher: Microsoft.Azure.ActiveDirectory
    type: AADSSHLoginForLinux
    source: resource_graph
    unavailable: skip
  delegate_to: localhost
  run_once: true

- name: Remove it again from one machine
  arcfleet.ssh.arc_extension:
    machines: ["{{ arc_resource_id }}"]
    publisher: Microsoft.Azure.ActiveDirectory
    type: AADSSHLoginForLinux
    state: absent
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
      description: One of V(none), V(create), V(update), V(delete) and V(skip).
      type: str
    changed:
      description: Whether anything was changed for this machine.
      type: bool
    before:
      description: The extension before, V(none) if there was none.
      type: dict
    after:
      description: The extension after, V(none) if there is none. Protected settings are never shown.
      type: dict
    skip_reason:
      description: Why the machine was left alone.
      returned: when the machine was skipped
      type: str
    failure:
      description: Why the machine failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
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

from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import machine_of
from ansible_collections.arcfleet.ssh.plugins.module_utils._module import (
    STATE_OPTION,
    UNAVAILABLE_OPTION,
    WAIT_OPTIONS,
    ArcModule,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._extension import Extension
from ansible_collections.arcfleet.ssh.plugins.module_utils._survey import (
    SOURCE_OPTION,
    Listing,
    reconcile_unless_shown,
)


def main() -> None:
    listing = Listing()
    module = ArcModule(
        {
            **STATE_OPTION,
            "publisher": {"type": "str", "required": True},
            "type": {"type": "str", "required": True},
            "name": {"type": "str"},
            "machine_name": {"type": "str"},
            "type_handler_version": {"type": "str"},
            "settings": {"type": "dict"},
            "protected_settings": {"type": "dict", "no_log": True},
            "auto_upgrade_minor_version": {"type": "bool"},
            "enable_automatic_upgrade": {"type": "bool"},
            "force_update_tag": {"type": "str"},
            "repair": {"type": "bool", "default": False},
            **SOURCE_OPTION,
            **WAIT_OPTIONS,
            **UNAVAILABLE_OPTION,
        },
        machine_option="machine_name",
        overrides=("type_handler_version", "settings", "force_update_tag"),
    )
    present = module.params["state"] == "present"
    module.run(
        lambda run, target, outcome: reconcile_unless_shown(
            run, Extension(machine_of(target), target.options, present=present), outcome, listing.of(target, outcome)
        ),
        # What Resource Graph does not show may be there all the same, so it can tell nothing about what shall be absent.
        before=lambda run, targets: listing.read(run, targets, extensions=True) if present else None,
    )


if __name__ == "__main__":
    main()
