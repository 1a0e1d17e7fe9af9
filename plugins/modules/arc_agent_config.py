#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the settings of this machine's Arc agent as they were asked for?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_agent_config
short_description: Manage the settings of the Azure Connected Machine agent on a Linux machine
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Reads the settings of the agent with C(azcmagent config), compares them by what they mean, and sets those that differ. Lists may be given
    as a whole or in parts.
  - Runs on the machine itself, as root, and not on the controller. Without O(properties), O(add) and O(remove) it only reads.
  - Azure cannot override what the agent refuses. C(incomingconnections.enabled=false) and C(config.mode=monitor) end all SSH over Azure
    Arc and can only be undone on the machine itself. So over a connection through Azure Arc such changes are refused unless
    O(cut_connection=true).
  - It cannot be known what a wrong C(proxy.url), C(proxy.bypass) or C(connection.type) does to the connection. They are changed when
    everything else was.
options:
  properties:
    description:
      - The properties that shall have these values. A list replaces the list that is there, whatever the order.
      - An empty text or list, or V(null) for a text or list, clears the property.
      - C(azcmagent config info) lists the properties that the machine's agent knows. Their case and the word C((preview)) mean nothing.
    type: dict
    default: {}
  add:
    description:
      - For each of these properties, the items that its list shall contain. The others stay.
    type: dict
    default: {}
  remove:
    description:
      - For each of these properties, the items that its list shall not contain. The others stay.
    type: dict
    default: {}
  ssh_port:
    description:
      - The local port of SSH, which C(incomingconnections.ports) has to let in. An empty list lets in every port.
      - Where the task is connected through Azure Arc, the default is the port of that connection.
    type: int
  add_port:
    description:
      - Whether to add O(ssh_port) to C(incomingconnections.ports) where that is not empty and lacks it. Otherwise there is a warning.
    type: bool
    default: false
  cut_connection:
    description:
      - Whether the task may end the connection through Azure Arc over which it runs. Meant are C(incomingconnections.enabled=false),
        C(config.mode=monitor), and a C(incomingconnections.ports) that no longer lets in the port of the connection.
      - Such changes are made some seconds after the task has ended, so that it can end well. What goes wrong with them then is told to the
        machine's system log only.
      - A connection is taken for one through Azure Arc if it comes from the machine itself, as the agent's do. A task that cannot find out
        how it was connected counts as connected through Azure Arc if it has C(async), or if anybody is connected like that.
    type: bool
    default: false
  old_agent:
    description:
      - What to do about an agent below version 1.31, with which SSH over Azure Arc is not supported.
    type: str
    choices: [fail, warn]
    default: fail
  path:
    description:
      - The path of C(azcmagent).
    type: path
    default: /opt/azcmagent/bin/azcmagent
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    description: The operating system of the machine on which the module runs. For Windows see the role P(arcfleet.ssh.arc_agent#role).
    platforms: linux
"""

EXAMPLES = r"""
- name: Let in SSH, and tell about old agents
  arcfleet.ssh.arc_agent_config:
    properties:
      incomingconnections.enabled: true
  become: true

- name: Allow two extensions more, and keep those that are allowed already
  arcfleet.ssh.arc_agent_config:
    add:
      extensions.allowlist:
        - Microsoft.Azure.ActiveDirectory/AADSSHLoginForLinux
        - Microsoft.Azure.Monitor/AzureMonitorLinuxAgent
  become: true

- name: Read the settings and the version of the agent
  arcfleet.ssh.arc_agent_config:
  register: agent
  become: true

- name: Refuse all connections through Azure Arc from now on, this one as well
  arcfleet.ssh.arc_agent_config:
    properties:
      incomingconnections.enabled: false
    cut_connection: true
  become: true
"""

RETURN = r"""
before:
  description: All settings of the agent before, by property. Lists contain strings, ports too.
  returned: success
  type: dict
  sample: {incomingconnections.enabled: true, incomingconnections.ports: [], config.mode: full}
after:
  description: All settings of the agent after. In check mode and for what is O(cut_connection), as they will be.
  returned: success
  type: dict
agent:
  description:
    - What the agent tells about itself, with the keys C(name), C(version), C(status), C(last_heartbeat), C(resource_id), C(resource_group),
      C(subscription_id), C(tenant_id) and C(location). What it does not tell is V(none).
  returned: success
  type: dict
  sample: {name: web01, version: 1.62.03456.789, status: Connected}
advice:
  description: Why the agent should be updated, in sentences.
  returned: success
  type: list
  elements: str
cutting:
  description: The properties that are changed when the task has ended; see O(cut_connection).
  returned: success
  type: list
  elements: str
changed_properties:
  description: The properties that were changed before the task failed.
  returned: failure
  type: list
  elements: str
"""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._azcmagent import (
    UNKNOWN_PORT,
    Change,
    advice,
    arc_port,
    asked_names,
    decide,
    secrets_in,
    settled,
    shown,
    too_old,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._azcmagent_machine import (
    CUT_DELAY,
    PROGRAM,
    AgentError,
    Azcmagent,
    detached,
    ssh_connection,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError


def main() -> None:
    module = AnsibleModule(
        {
            "properties": {"type": "dict", "default": {}},
            "add": {"type": "dict", "default": {}},
            "remove": {"type": "dict", "default": {}},
            "ssh_port": {"type": "int"},
            "add_port": {"type": "bool", "default": False},
            "cut_connection": {"type": "bool", "default": False},
            "old_agent": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
            "path": {"type": "path", "default": PROGRAM},
        },
        supports_check_mode=True,
    )
    done: list[Change] = []
    try:
        result = work(module, Azcmagent(module.params["path"]), done)
    except ArcError as exc:
        told = f" Changed before that: {', '.join(change.name for change in done)}." if done else ""
        module.fail_json(
            msg=str(exc) + told,
            failure=exc.failure(),
            changed=bool(done),
            changed_properties=[change.name for change in done],
        )
    module.exit_json(**result)


def work(module: AnsibleModule, agent: Azcmagent, done: list[Change]) -> dict[str, Any]:
    """Read, compare and change; `done` gets what was changed, also where the rest fails."""
    options: Mapping[str, Any] = module.params
    asked = [options["properties"], options["add"], options["remove"]]
    facts = agent.facts()
    refuse_old(module, facts["version"])
    before = agent.settings()
    for name in asked_names(*asked):
        if name not in before:
            before[name] = agent.value(name)
    module.no_log_values.update(secrets_in([*before.values(), *options["properties"].values()]))

    here = arc_port(ssh_connection())
    decision = decide(
        before,
        *asked,
        machine=facts["name"] or platform.node(),
        here=UNKNOWN_PORT if here is None and detached(os.environ) else here,
        ssh_port=options["ssh_port"],
        add_port=options["add_port"],
        cut_connection=options["cut_connection"],
    )
    for sentence in decision.warnings:
        module.warn(sentence)
    if decision.all and os.geteuid() != 0:
        raise AgentError(
            f"{facts['name'] or platform.node()}: only root can change the settings of the agent.",
            code="AZCM0018",
            hint="Run the task with become: true.",
        )
    if not module.check_mode:
        apply(agent, decision.changes, done)
        if decision.cutting:
            agent.change_later(decision.cutting)
            module.warn(
                f"The connection through Azure Arc ends in about {CUT_DELAY} seconds, and no other can be opened."
            )
    return {
        "changed": bool(decision.all),
        "before": shown(before),
        "after": shown(settled(before, decision.all)),
        "diff": {
            "before": shown({change.name: change.before for change in decision.all}),
            "after": shown({change.name: change.after for change in decision.all}),
        },
        "agent": facts,
        "advice": [sentence for sentence in [advice(facts["version"])] if sentence],
        "cutting": [change.name for change in decision.cutting],
    }


def refuse_old(module: AnsibleModule, version: str | None) -> None:
    """Fail or warn about an agent that cannot serve SSH."""
    reason = too_old(version)
    if reason and module.params["old_agent"] == "fail":
        raise AgentError(
            reason, code="AgentTooOld", hint="Update the agent; updating it ends connections through Azure Arc."
        )
    if reason:
        module.warn(reason)


def apply(agent: Azcmagent, changes: Sequence[Change], done: list[Change]) -> None:
    """Make the changes and read whether they are there."""
    for change in changes:
        for words in change.commands:
            agent.change(words)
            if change not in done:
                done.append(change)
    if changes:
        agent.check(changes)


if __name__ == "__main__":
    main()
