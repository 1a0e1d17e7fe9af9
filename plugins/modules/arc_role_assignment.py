#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has each principal the role that it shall have, and where?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_role_assignment
short_description: Give and take the roles for SSH over Arc
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Gives roles to users, groups and service principals, or takes them, at management groups, subscriptions, resource groups or machines.
    One task serves any number of assignments.
  - What is there is listed first. An assignment of the same role to the same principal at the same scope counts as present, whatever
    its GUID. One that comes from a scope above does not; it is told in RV(assignments.inherited_from).
  - New assignments get a GUID that follows from scope, role and principal, so that no two runs make two of them.
  - Assignments are active and last until they are taken. Time-bound and eligible assignments of Privileged Identity Management (PIM) are
    neither made nor read; make such an assignment in PIM itself, for a group that this module gives the role to, or for the role.
options:
  state:
    description:
      - V(present) gives the roles.
      - V(absent) takes them. Only assignments at exactly the scope are deleted. A warning names the scopes above from which the principal still
        has the role.
    type: str
    choices: [present, absent]
    default: present
  assignments:
    description:
      - The assignments. Each takes what it leaves out from the option of the same name, the scope as a whole.
      - Without this, the other options describe a single one.
    type: list
    elements: dict
    suboptions:
      role:
        description: As O(role).
        type: str
      principal_id:
        description: As O(principal_id).
        type: str
      principal_type:
        description: As O(principal_type).
        type: str
        choices: [User, Group, ServicePrincipal, ForeignGroup, Device]
      scope:
        description: As O(scope).
        type: str
      management_group:
        description: As O(management_group).
        type: str
      resource_group:
        description: As O(resource_group).
        type: str
      subscription_id:
        description: The subscription of the resource group.
        type: str
      description:
        description: As O(description).
        type: str
      condition:
        description: As O(condition).
        type: str
  role:
    description:
      - The role, by its name, by the GUID of its definition, or by the definition's resource id. A custom role as well.
      - V(Virtual Machine Administrator Login) logs in with Entra ID and may use sudo; V(Virtual Machine User Login) logs in with Entra ID;
        V(Virtual Machine Local User Login) comes as far as the SSH server and needs an account of the machine there.
      - These, and the roles that set up Arc machines, are known by name. Others are looked up at the scope.
    type: str
  principal_id:
    description:
      - The object id of the user, group or service principal. It is not the client id of an application.
    type: str
  principal_type:
    description:
      - What the principal is. Without this, Azure looks it up in the directory.
      - Needed for a principal that was made minutes ago, because Azure may not find it there yet.
    type: str
    choices: [User, Group, ServicePrincipal, ForeignGroup, Device]
  scope:
    description:
      - Where the role is given, as a resource id. That of a management group, a subscription, a resource group or a machine.
      - A subscription takes 4,000 assignments, those at its resource groups and resources included. For a fleet, assign at one of these above the
        machines. A scope that is a machine gives a warning, with the number of assignments where it is known.
    type: str
  management_group:
    description:
      - The id of a management group to give the role at. Mutually exclusive with O(scope) and O(resource_group).
    type: str
  resource_group:
    description:
      - A resource group of O(subscription_id) to give the role at. Mutually exclusive with O(scope) and O(management_group).
    type: str
  description:
    description:
      - Why the principal has the role. An empty text takes an existing description away.
      - Without this, the description stays as it is. It can be changed without a moment without access, as O(condition) can.
    type: str
  condition:
    description:
      - The condition that limits the assignment, in version 2.0 of Azure's language for conditions. An empty text takes an existing one away.
      - Without this, the condition stays as it is.
    type: str
  wait_timeout:
    description:
      - How long to try again, in seconds, while Azure does not know a principal of the given O(principal_type) yet.
    type: int
    default: 120
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.actiongroup_arc
attributes:
  check_mode:
    support: full
    details:
      - Whether this identity may write assignments, and whether the subscription has room for them, is only seen when they are written.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Giving roles needs C(Microsoft.Authorization/roleAssignments/write) at the scope, taking them C(Microsoft.Authorization/roleAssignments/delete),
    which are in Role Based Access Control Administrator, User Access Administrator and Owner. Contributor does not have them.
  - A new assignment takes up to ten minutes to work, and so does the end of one. Sessions that are open stay open.
seealso:
  - module: arcfleet.ssh.arc_access_info
  - module: arcfleet.ssh.arc_extension
"""

EXAMPLES = r"""
- name: Let the Linux administrators log in to the whole fleet with sudo, and the developers without
  arcfleet.ssh.arc_role_assignment:
    management_group: arc
    principal_type: Group
    assignments:
      - role: Virtual Machine Administrator Login
        principal_id: 11111111-1111-1111-1111-111111111111
        description: Linux administrators
      - role: Virtual Machine User Login
        principal_id: 22222222-2222-2222-2222-222222222222

- name: Let a new service principal run playbooks on the machines of one resource group
  arcfleet.ssh.arc_role_assignment:
    role: Virtual Machine Administrator Login
    principal_id: "{{ automation.object_id }}"
    principal_type: ServicePrincipal
    subscription_id: "{{ subscription }}"
    resource_group: arc-prod

- name: Take a custom role from somebody again
  arcfleet.ssh.arc_role_assignment:
    role: Arc SSH enabler
    principal_id: 33333333-3333-3333-3333-333333333333
    scope: "/subscriptions/{{ subscription }}"
    state: absent
"""

RETURN = r"""
summary:
  description: How many assignments there were, and what became of them.
  returned: always
  type: dict
  sample: {total: 2, created: 1, updated: 0, deleted: 0, unchanged: 1, skipped: 0, failed: 0}
assignments:
  description:
    - What was done for each assignment, by scope, role and principal in lower case with C(|) between them. In check mode, what would be done.
  returned: always
  type: dict
  contains:
    name:
      description: The assignment in words.
      type: str
      sample: Virtual Machine User Login for 22222222-2222-2222-2222-222222222222 at management group arc
    action:
      description: One of V(none), V(create), V(update) and V(delete).
      type: str
    changed:
      description: Whether anything was changed.
      type: bool
    before:
      description: The assignment before, V(none) if there was none.
      type: dict
    after:
      description: The assignment after, V(none) if there is none.
      type: dict
      sample:
        id: >-
          /providers/Microsoft.Management/managementGroups/arc/providers/Microsoft.Authorization/roleAssignments/86d6cde7-9a2c-5ad7-8b4c-0a3a30c8f9a4
        role: Virtual Machine User Login
        principal_id: 22222222-2222-2222-2222-222222222222
        principal_type: Group
        scope: /providers/Microsoft.Management/managementGroups/arc
        description: null
        condition: null
    inherited_from:
      description: The scopes above from which the principal has the role as well.
      type: list
      elements: str
    failure:
      description: Why it failed, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when the assignment failed
      type: dict
pacing:
  description:
    - What the run had to do with Azure's limits. How many C(requests) it made, how often Azure C(throttled) it, and how many seconds its requests
      C(waited) for their turn.
  returned: when the work was begun
  type: dict
  sample: {requests: 20, throttled: 0, waited: 0.3}
failures:
  description: Those entries of RV(assignments) that failed.
  returned: always
  type: dict
"""

from ansible_collections.arcfleet.ssh.plugins.module_utils._assignments import (
    ASSIGNMENT_OPTIONS,
    AssignmentModule,
    Standing,
    assign,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._module import STATE_OPTION


def main() -> None:
    standing = Standing()
    module = AssignmentModule(
        {
            **STATE_OPTION,
            **ASSIGNMENT_OPTIONS,
            "assignments": {
                "type": "list",
                "elements": "dict",
                "options": {**ASSIGNMENT_OPTIONS, "subscription_id": {"type": "str"}},
            },
            "wait_timeout": {"type": "int", "default": 120},
        },
        mutually_exclusive=[("scope", "management_group", "resource_group"), ("assignments", "principal_id")],
        required_one_of=[("assignments", "principal_id")],
    )
    module.run(lambda run, target, outcome: assign(run, target, outcome, standing), before=standing.read)


if __name__ == "__main__":
    main()
