#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What will the next run of enforcement know of this one?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_ledger
short_description: Note which Arc machines were found in order
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Notes in a file which machines were found, or made, to be what they shall be. M(arcfleet.ssh.arc_ledger_info) tells from it next time which ones need
    not be read. Runs on the controller and asks Azure nothing.
  - What a run did not find in order is struck out, and so is what was written to since, unless this run has read it.
  - The file is replaced as a whole or not at all, with mode 0600. It holds the ids of the machines, and no secrets.
options:
  path:
    description:
      - The file.
    type: path
    required: true
  look:
    description:
      - RV(arcfleet.ssh.arc_ledger_info#module:look) of the look with which the run began.
    type: dict
    required: true
  findings:
    description:
      - The results of the modules that looked, as O(arcfleet.ssh.arc_drift_report#module:findings) has them.
    type: dict
    required: true
  mode:
    description:
      - How they ran, as O(arcfleet.ssh.arc_drift_report#module:mode) has it.
    type: str
    choices: [report, repair]
    required: true
  looked:
    description:
      - What they found in check mode before, as O(arcfleet.ssh.arc_drift_report#module:looked) has it.
    type: dict
    default: {}
  visited:
    description:
      - Ids of the machines that were looked at over a connection.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written.
  diff_mode:
    support: none
  idempotent:
    support: none
notes:
  - The ledger is what the collection remembers, not a state of the controller; so it never counts as a change.
"""

EXAMPLES = r"""
- name: Note what was found
  arcfleet.ssh.arc_ledger:
    path: /var/lib/arcfleet/ledger.json
    look: "{{ ledger.look }}"
    findings:
      service_configuration: ["{{ looked }}"]
    mode: report
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
verified:
  description: How many machines this run has found in order.
  returned: always
  type: int
known:
  description: How many machines are known to be in order now.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ledger_files import note


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "look": {"type": "dict", "required": True},
            "findings": {"type": "dict", "required": True},
            "mode": {"type": "str", "choices": ["report", "repair"], "required": True},
            "looked": {"type": "dict", "default": {}},
            "visited": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        verified, known = note(module.params, write=not module.check_mode)
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure())
    module.exit_json(path=module.params["path"], verified=verified, known=known)


if __name__ == "__main__":
    main()
