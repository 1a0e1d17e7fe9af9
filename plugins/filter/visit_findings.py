# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What did the roles find on the machines themselves?

A filter, because the variables of each host are looked up once here, and once for each value in an expression of Jinja.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: visit_findings
author:
  - arcfleet.ssh contributors (@arcfleet)
version_added: 0.1.0
short_description: What the roles of this collection found on machines
description:
  - Makes findings, as M(arcfleet.ssh.arc_drift_report) takes them, of what the roles C(arc_agent) and C(arc_sshd) left in the variables of the hosts on which
    they ran. The playbook C(arcfleet.ssh.enforce) uses it.
positional: hosts
options:
  _input:
    description:
      - The variables of all hosts, which is C(hostvars).
    type: dict
    required: true
  hosts:
    description:
      - The names of the hosts that were visited. Those without the variable C(arc_resource_id) are left out.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Tell what the roles found
  ansible.builtin.debug:
    msg: "{{ hostvars | arcfleet.ssh.visit_findings(ansible_play_batch) }}"
"""

RETURN = r"""
_value:
  description: For each of C(agent), C(sshd) and C(login), a list with one result, with an entry for each machine.
  type: dict
"""

from collections.abc import Iterable, Mapping
from typing import Any

# What the roles register for what lets users in.
_LOGIN = ("arc_sshd_user_made", "arc_sshd_sudo_given", "arc_sshd_keys_let_in")


def visit_findings(hostvars: Any, hosts: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """What was found, by kind."""
    machines: dict[str, dict[str, Any]] = {"agent": {}, "sshd": {}, "login": {}}
    for host in hosts:
        own = hostvars[host]
        machine_id = own.get("arc_resource_id")
        if machine_id:
            about = {"name": machine_id.rpartition("/")[2], "host": host}
            for kind, found in _found(own).items():
                machines[kind][machine_id.lower()] = {**about, **found}
    return {kind: [{"machines": entries}] for kind, entries in machines.items()}


def _found(own: Any) -> dict[str, dict[str, Any]]:
    opened = own.get("arc_enforcement_opened") or {}
    if not isinstance(opened.get("rc"), int) or opened["rc"] != 0:
        return {"agent": _failed(opened.get("msg") or "the machine did not let us in")}
    failure = own.get("arc_enforcement_visit_failure")
    if failure:
        return {"agent": _failed(failure)}
    found = {"agent": _difference(own.get("arc_agent_result") or {}), "sshd": _sshd(own)}
    login = {name: (own.get(name) or {}).get("changed", False) for name in _LOGIN}
    if any(login.values()):
        found["login"] = {"action": "update", "before": dict.fromkeys(login, False), "after": login}
    return found


def _sshd(own: Any) -> dict[str, Any]:
    before = own.get("arc_sshd_before") or {}
    if before.get("failure"):
        return {"action": "create", "before": None, "after": {"installed": True}}
    found = _difference(own.get("arc_sshd_result") or {})
    if found["action"] == "none" and before.get("started") is False:
        return {"action": "update", "before": {"started": False}, "after": {"started": True}}
    return found


def _difference(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a module that shows all it manages before and after says that it changes."""
    before, after = (result.get(side) or {} for side in ("before", "after"))
    if not result.get("changed"):
        return {"action": "none", "before": {}, "after": {}}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    sides = ({name: side.get(name) for name in names} for side in (before, after))
    return dict(zip(("action", "before", "after"), ("update", *sides)))


def _failed(message: str) -> dict[str, Any]:
    failure = {"code": "VisitFailed", "message": message, "status": None, "request_id": None, "hint": None}
    return {"action": "none", "changed": False, "failure": failure}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Their names."""
        return {"visit_findings": visit_findings}
