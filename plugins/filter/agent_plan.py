# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which commands bring a Windows machine's Arc agent to the settings that were asked for?

A filter, because modules that run on Windows cannot be Python: so the same plan is made here on the controller, from what
`azcmagent` printed there.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_plan
author:
  - arcfleet.ssh contributors (@arcfleet)
version_added: 0.1.0
short_description: The azcmagent commands that bring an Arc agent to these settings
description:
  - Compares what C(azcmagent config list) printed with what is asked for, as the module M(arcfleet.ssh.arc_agent_config) does on Linux.
    The role P(arcfleet.ssh.arc_agent#role) uses it for Windows.
positional: show
options:
  _input:
    description:
      - The result of a task that ran C(azcmagent config list), with C(rc) and C(stdout).
    type: dict
    required: true
  show:
    description:
      - The result of a task that ran C(azcmagent show -j), with C(rc) and C(stdout).
    type: dict
    required: true
  properties:
    description:
      - As in M(arcfleet.ssh.arc_agent_config).
    type: dict
    default: {}
  add:
    description:
      - As in M(arcfleet.ssh.arc_agent_config).
    type: dict
    default: {}
  remove:
    description:
      - As in M(arcfleet.ssh.arc_agent_config).
    type: dict
    default: {}
  ssh_port:
    description:
      - The local port of SSH.
    type: int
    default: 22
  add_port:
    description:
      - As in M(arcfleet.ssh.arc_agent_config).
    type: bool
    default: false
  through_arc:
    description:
      - Whether Ansible may be connected to the machine through Azure Arc.
    type: bool
    default: true
  cut_connection:
    description:
      - Whether changes that end such a connection are planned, as the last ones, or refused.
    type: bool
    default: false
  old_agent:
    description:
      - As in M(arcfleet.ssh.arc_agent_config).
    type: str
    choices: [fail, warn]
    default: fail
"""

EXAMPLES = r"""
- name: Say what would have to be done
  ansible.builtin.debug:
    msg: "{{ list_result | arcfleet.ssh.agent_plan(show_result, properties={'incomingconnections.enabled': true}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(commands) are the arguments of C(azcmagent) for what can be changed at once, and C(cutting) for what ends the connection, both lists of
      lists. C(refusal) says why nothing may be done, or is V(none).
    - C(before), C(after), C(agent), C(advice) and C(warnings) are as in M(arcfleet.ssh.arc_agent_config).
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.arcfleet.ssh.plugins.module_utils._azcmagent import (
    Change,
    advice,
    asked_names,
    decide,
    failure,
    parse_facts,
    parse_settings,
    settled,
    shown,
    too_old,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError


def agent_plan(listing: Mapping[str, Any], show: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The plan, or why there is none."""
    try:
        return _plan(listing, show, **options)
    except ArcError as exc:
        return {"refusal": str(exc), "commands": [], "cutting": [], "warnings": [], "advice": []}


def _plan(
    listing: Mapping[str, Any],
    show: Mapping[str, Any],
    *,
    properties: Mapping[str, Any] | None = None,
    add: Mapping[str, Sequence[Any]] | None = None,
    remove: Mapping[str, Sequence[Any]] | None = None,
    ssh_port: int = 22,
    add_port: bool = False,
    through_arc: bool = True,
    cut_connection: bool = False,
    old_agent: str = "fail",
) -> dict[str, Any]:
    asked = [properties or {}, add or {}, remove or {}]
    facts = parse_facts(_output(show, "show"))
    machine = facts["name"] or "This machine"
    old = too_old(facts["version"])
    if old and old_agent == "fail":
        raise InputError(f"{machine}: {old}", hint="Update the agent.")
    before = parse_settings(_output(listing, "config", "list"))
    unknown = [name for name in asked_names(*asked) if name not in before]
    if unknown:
        raise InputError(
            f"{machine}: this agent does not list {', '.join(unknown)}.",
            hint="Check the spelling, or update the agent.",
        )
    decision = decide(
        before,
        *asked,
        machine=machine,
        here=int(ssh_port) if through_arc else None,
        ssh_port=int(ssh_port),
        add_port=add_port,
        cut_connection=cut_connection,
    )
    return {
        "refusal": None,
        "commands": _commands(decision.changes),
        "cutting": _commands(decision.cutting),
        "before": shown(before),
        "after": shown(settled(before, decision.all)),
        "agent": facts,
        "advice": [sentence for sentence in [advice(facts["version"])] if sentence],
        "warnings": [*([old] if old else []), *decision.warnings],
    }


def _output(result: Mapping[str, Any], *words: str) -> str:
    output = str(result.get("stdout") or "")
    status = result.get("rc")
    if status is None:
        raise InputError(f"azcmagent cannot be run: {result.get('msg') or 'there is no result'}.")
    if status:
        raise failure("This machine", words, int(status), output + str(result.get("stderr") or ""))
    return output


def _commands(changes: Sequence[Change]) -> list[list[str]]:
    return [list(words) for change in changes for words in change.commands]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Their names."""
        return {"agent_plan": agent_plan}
