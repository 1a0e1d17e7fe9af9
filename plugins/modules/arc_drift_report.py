#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How is the drift of a fleet reported to those who were not there?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_drift_report
short_description: Write what other modules found as a drift report
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Makes one JSON report, with an entry for each machine, of the results of this collection's modules. Runs on the controller and asks Azure nothing.
  - The playbook C(arcfleet.ssh.enforce) uses it; with it, a playbook of your own can report what else it enforces.
  - The report is written to its place in one piece, readable by its owner only.
options:
  findings:
    description:
      - For each kind of resource that was looked at, the results of the modules that looked, as a list. Those of a task with a loop are its
        C(results).
      - The key is the name under which the report shows the resource, for example V(service_configuration).
    type: dict
    required: true
  mode:
    description:
      - How the modules ran. V(report) is in check mode, so that every difference is drift; V(repair) is for real, so that every
        difference is one that was mended.
    type: str
    choices: [report, repair]
    required: true
  begun:
    description:
      - When the run began, in seconds since 1970.
    type: float
    required: true
  path:
    description:
      - The file to write. Its directory has to exist.
    type: path
    required: true
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
    details:
      - The report is made and returned, but not written.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - The report is what the task is for, not a state of the controller; so it never counts as a change.
  - The shape of the report is a contract. C(format) is V(arcfleet.ssh/drift-report), and C(version) grows whenever a program that
    reads it would have to change.
"""

EXAMPLES = r"""
- name: Look for drift
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}"
    max_fail_percentage: 100
  check_mode: true
  register: looked
  delegate_to: localhost
  run_once: true

- name: Report it
  arcfleet.ssh.arc_drift_report:
    findings:
      service_configuration: ["{{ looked }}"]
    mode: report
    begun: "{{ begun }}"
    path: /var/lib/arcfleet/drift.json
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file that was written.
  returned: always
  type: str
summary:
  description: How many machines there were, and in which state.
  returned: always
  type: dict
  sample: {total: 100, in_order: 97, drifted: 2, repaired: 0, failed: 1, skipped: 0}
drift_left:
  description: Whether anything is not what it shall be, machines or else.
  returned: always
  type: bool
left:
  description: For each machine that is not what it shall be, by its name in the inventory (else its id), what is the matter.
  returned: always
  type: dict
  sample: {web01: "web01: service configuration is missing."}
problems:
  description: What failed and belongs to no machine, such as a login or the registration in a subscription.
  returned: always
  type: list
  elements: str
"""

import datetime
import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import REPAIR, REPORT, left, report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "findings": {"type": "dict", "required": True},
            "mode": {"type": "str", "choices": [REPORT, REPAIR], "required": True},
            "begun": {"type": "float", "required": True},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path, now = module.params["path"], datetime.datetime.now(datetime.timezone.utc)
    begun = datetime.datetime.fromtimestamp(module.params["begun"], datetime.timezone.utc)
    try:
        made = report(
            module.params["findings"],
            mode=module.params["mode"],
            begun=begun.isoformat(timespec="seconds"),
            ended=now.isoformat(timespec="seconds"),
        )
    except (AttributeError, KeyError, TypeError) as exc:
        module.fail_json(
            msg=f"findings holds something that is not a list of results of this collection's modules: {exc}"
        )
    if not module.check_mode:
        write(module, path, json.dumps(made, indent=1, sort_keys=True) + "\n")
    module.exit_json(path=path, left=left(made), **{key: made[key] for key in ("summary", "drift_left", "problems")})


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Write `text` to `path`, wholly or not at all."""
    try:
        handle, name = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".arc-drift-")
        module.add_cleanup_file(name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except OSError as exc:
        module.fail_json(
            msg=f"The drift report cannot be written to {path}: {exc.strerror}. What was there before is untouched; the findings "
            "stand in the results of the tasks before this one."
        )


if __name__ == "__main__":
    main()
