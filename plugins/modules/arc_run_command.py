#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does this script say on each machine of the fleet, run by Azure and without SSH?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_run_command
short_description: Run a script on Arc machines without SSH
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Runs one script on any number of Arc machines in one task, as root or LocalSystem, through Azure's run commands
    (C(Microsoft.HybridCompute/machines/runCommands)). It needs no connection to the machines.
  - This is meant for what has to happen before there is a connection, and for diagnosis. Scripts should be idempotent, because agents before
    1.61 could run old scripts again, and because a script may be interrupted.
  - The run command is a resource in Azure. It gets a name that no other run has, and is deleted afterwards, also when the script failed or the run
    was interrupted. Deleting it stops a script that still runs. What a killed run has left behind is removed by the next one on the machine.
  - Azure keeps the last 4 KB of what a script writes to each of its two outputs. RV(machines.output_truncated) says when that was less than everything.
  - In check mode nothing is run, and every machine whose agent could run the script is reported as changed.
options:
  script:
    description:
      - The text of the script, for C(/bin/sh) or PowerShell. Exactly one of O(script) and O(script_uri) has to be given.
      - Anybody who may read the machine's resources in Azure may read it while it runs. Do not paste values into it - neither secrets, which belong into
        O(protected_parameters), nor other people's text, which belongs into O(parameters).
    type: str
  script_uri:
    description:
      - Where the machine gets the script from, for example a blob with a shared access signature. It is treated as a secret.
    type: str
  parameters:
    description:
      - The script's parameters by name. On Linux they are environment variables, on Windows arguments (C(-name value)).
      - Numbers and booleans become text. A parameter without a value is not given.
      - They can be set for one machine inside O(machines), in place of these.
    type: dict
  protected_parameters:
    description:
      - Parameters that are secrets. Azure never answers with them, and they are not logged. A script that writes them to its output makes them public
        there; Ansible masks them in the result.
      - They cannot be set for one machine inside O(machines), because Ansible would log them there.
    type: dict
  arguments:
    description:
      - Arguments without a name, in their order.
      - They can be set for one machine inside O(machines), in place of these.
    type: list
    elements: str
  timeout:
    description:
      - How many seconds the script may take. Azure stops it then, and the machine is reported as failed.
    type: int
    default: 600
  run_as_user:
    description:
      - The user to run the script as. On Windows this needs the service Secondary Logon.
    type: str
  run_as_password:
    description:
      - The password of O(run_as_user), for Windows.
    type: str
  result:
    description:
      - What the script writes.
      - With V(text) every run counts as a change.
      - With V(json) the last line of its output has to be one JSON object, which becomes RV(machines.json). Its C(changed) says whether the script changed
        anything (without it, it has), and a text in C(problem) says why it did not reach its end.
    type: str
    choices: [text, json]
    default: text
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet
  - arcfleet.ssh._fleet.name
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._fleet.unavailable
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.actiongroup_arc
attributes:
  check_mode:
    support: partial
    details:
      - Nobody knows what a script would do. Each is assumed to change something.
  diff_mode:
    support: partial
    details:
      - What is shown is that a script is run, with the names of its parameters, and not what it does.
  idempotent:
    support: partial
    details:
      - The script is run every time. Whether that changes anything is for the script to say; see O(result).
notes:
  - Needs agents of version 1.33 or later in full mode, with their extension manager on and C(Microsoft.CPlat.Core/RunCommandHandlerLinux) or
    C(Microsoft.CPlat.Core/RunCommandHandlerWindows) not barred by their lists of extensions.
  - Needs the actions C(Microsoft.HybridCompute/machines/read) and C(Microsoft.HybridCompute/machines/runCommands/*) on the machines, which is the right
    to do anything there.
  - Runs of the same user on the same controller run their scripts on a machine one after the other.
"""

EXAMPLES = r"""
- name: Look why a machine does not answer
  arcfleet.ssh.arc_run_command:
    machines: ["{{ arc_resource_id }}"]
    script: |
      systemctl status --no-pager ssh sshd
      ss -ltn
    unavailable: skip
  delegate_to: localhost
  register: looked

- name: Run a script of this project, with values that are not part of its text
  arcfleet.ssh.arc_run_command:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}"
    script: "{{ lookup('ansible.builtin.file', 'rotate.sh') }}"
    parameters:
      SERVICE: web
    protected_parameters:
      TOKEN: "{{ vault_token }}"
    result: json
    max_fail_percentage: 100
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
summary:
  description: How many machines there were, and what became of them. V(created) counts scripts that changed something, V(unchanged) those that did not.
  returned: always
  type: dict
  sample: {total: 3, created: 1, updated: 0, deleted: 0, unchanged: 2, skipped: 0, failed: 0}
machines:
  description:
    - What came of the script on each machine, by its resource id in lower case.
  returned: always
  type: dict
  contains:
    name:
      description: The name of the machine.
      type: str
    action:
      description: V(create) where the script was run, V(none) where it was and says that it changed nothing, V(skip) where it could not be.
      type: str
    changed:
      description: Whether the script changed anything, as far as is known.
      type: bool
    before:
      description: Always V(none).
      type: dict
    after:
      description: That the script was run, with the names of its parameters; V(none) where it changed nothing.
      type: dict
    execution_state:
      description: V(succeeded), V(failed), V(timedout) or V(canceled).
      returned: when the script was run
      type: str
    exit_code:
      description: The exit code of the script, V(none) where it has none.
      returned: when the script was run
      type: int
    output:
      description: The end of what the script wrote to standard output.
      returned: when the script was run
      type: str
    output_truncated:
      description: Whether RV(machines.output) is as long as Azure lets it be, so that its beginning may be missing.
      returned: when the script was run
      type: bool
    error:
      description: The end of what the script wrote to standard error.
      returned: when the script was run
      type: str
    error_truncated:
      description: Whether RV(machines.error) is as long as Azure lets it be, so that its beginning may be missing.
      returned: when the script was run
      type: bool
    started:
      description: When the script was started.
      returned: when the script was run
      type: str
    ended:
      description: When the script ended.
      returned: when the script was run
      type: str
    json:
      description: The object that the script wrote as its last line.
      returned: with O(result) V(json), when there is one
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

from ansible_collections.arcfleet.ssh.plugins.module_utils._execution import Execution
from ansible_collections.arcfleet.ssh.plugins.module_utils._module import UNAVAILABLE_OPTION, ArcModule


def main() -> None:
    execution = Execution()
    module = ArcModule(
        {
            "script": {"type": "str"},
            "script_uri": {"type": "str", "no_log": True},
            "parameters": {"type": "dict"},
            "protected_parameters": {"type": "dict", "no_log": True},
            "arguments": {"type": "list", "elements": "str"},
            "timeout": {"type": "int", "default": 600},
            "run_as_user": {"type": "str"},
            "run_as_password": {"type": "str", "no_log": True},
            "result": {"type": "str", "choices": ["text", "json"], "default": "text"},
            **UNAVAILABLE_OPTION,
        },
        overrides=("parameters", "arguments"),
    )
    module.run(execution.work, check=execution.check)


if __name__ == "__main__":
    main()
