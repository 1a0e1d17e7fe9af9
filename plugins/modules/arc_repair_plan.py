#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the drift that was found may be repaired now, with nobody watching?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_repair_plan
short_description: Decide which drifted Arc machines are repaired
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Decides from what other modules found in check mode which machines a run of enforcement may repair. Runs on the controller, asks Azure nothing and
    changes nothing.
  - A machine waits if its C(mode) is V(report), or if none of its maintenance windows holds now.
  - Nothing at all is repaired if that would change too much of the fleet, see O(max_change_percent).
  - Canaries are repaired before the others. Called again with O(canary_findings), the module leaves out the others if that failed.
  - The playbook C(arcfleet.ssh.enforce) uses it.
options:
  machines:
    description:
      - The whole fleet. O(max_change_percent) counts in it.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description:
          - The resource id of the machine.
        type: str
        required: true
      host:
        description:
          - Its name in the inventory.
        type: str
      mode:
        description:
          - V(report) leaves it alone whatever is found.
        type: str
        choices: [report, repair]
        default: repair
      windows:
        description:
          - Its maintenance windows. Without any it may be repaired at any time.
          - Each has C(start) and C(end), as in V("22:00"), and may have C(days), some of V(mon), V(tue), V(wed), V(thu), V(fri), V(sat) and V(sun), and
            C(timezone), as in V(Europe/Berlin). One that passes midnight belongs to the day on which it begins. The default is every day, and V(UTC).
        type: list
        elements: dict
        default: []
      canary:
        description:
          - Whether it is repaired before the others.
        type: bool
        default: false
  findings:
    description:
      - What other modules found in check mode, as O(arcfleet.ssh.arc_drift_report#module:findings) has it.
    type: dict
    required: true
  canary_findings:
    description:
      - What the repair of the canaries came to, in the same form.
    type: dict
    default: {}
  max_change_percent:
    description:
      - A repair that would change more machines than so many percent of the fleet changes none.
    type: float
    default: 10.0
  always_allowed:
    description:
      - So many machines may be changed whatever part of the fleet they are.
    type: int
    default: 5
  confirmed:
    description:
      - Whether somebody has looked and wants the change however large it is.
    type: bool
    default: false
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Decide what to repair
  arcfleet.ssh.arc_repair_plan:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch, options={'windows': ['my_maintenance_windows']}) }}"
    findings:
      service_configuration: ["{{ looked }}"]
    max_change_percent: 5
  delegate_to: localhost
  run_once: true
  register: plan
"""

RETURN = r"""
canary_hosts:
  description: The machines to repair first, by their C(host), else by their id in lower case.
  returned: success
  type: list
  elements: str
rest_hosts:
  description: The machines to repair after them.
  returned: success
  type: list
  elements: str
deferred:
  description: Why the others that drifted are not repaired, by their id in lower case.
  returned: success
  type: dict
held_back:
  description: Why nothing (more) is repaired at all, in a sentence. V(none) if nothing keeps the run from it.
  returned: success
  type: str
"""

import datetime

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError
from ansible_collections.arcfleet.ssh.plugins.module_utils._repair import decide


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "machines": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "id": {"type": "str", "required": True},
                    "host": {"type": "str"},
                    "mode": {"type": "str", "choices": ["report", "repair"], "default": "repair"},
                    "windows": {"type": "list", "elements": "dict", "default": []},
                    "canary": {"type": "bool", "default": False},
                },
            },
            "findings": {"type": "dict", "required": True},
            "canary_findings": {"type": "dict", "default": {}},
            "max_change_percent": {"type": "float", "default": 10.0},
            "always_allowed": {"type": "int", "default": 5},
            "confirmed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        decision = decide(
            given["machines"],
            given["findings"],
            given["canary_findings"],
            now=datetime.datetime.now(datetime.timezone.utc),
            percent=given["max_change_percent"],
            always=given["always_allowed"],
            confirmed=given["confirmed"],
        )
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure())
    except (AttributeError, KeyError, TypeError) as exc:
        module.fail_json(msg=f"findings holds something that is not results of this collection's modules: {exc!r}")
    module.exit_json(
        canary_hosts=list(decision.canaries.values()),
        rest_hosts=list(decision.rest.values()),
        deferred=dict(decision.deferred),
        held_back=decision.held_back,
    )


if __name__ == "__main__":
    main()
