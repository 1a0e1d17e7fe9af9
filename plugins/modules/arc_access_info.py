#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can log in to which machine, as what, and through which scope?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_access_info
short_description: Tell who can log in to Arc machines with SSH
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Tells for any number of Arc machines, or for whole scopes, which users, groups and service principals may log in, as administrator or as user,
    through which role and scope.
  - Judges roles by what is in them, so custom roles and general ones such as Owner count as far as they let anybody log in.
  - Asks Azure Resource Manager for the role assignments, not Azure Resource Graph, so the answer is not minutes old. It takes a few requests
    for each subscription, however many machines there are. Where this identity may not read the subscription, it reads the resource groups
    of the machines.
  - It never connects to a machine, never writes, and does not check that the machines exist.
options:
  scopes:
    description:
      - Scopes to look at instead of machines. Ids of management groups, subscriptions, resource groups or machines.
      - Told are the assignments at the scope, above it and below it. Of a management group, what is below in its subscriptions is not told;
        name those too.
      - Mutually exclusive with O(machines), O(name) and O(resource_group).
    type: list
    elements: str
extends_documentation_fragment:
  - arcfleet.ssh._azure
  - arcfleet.ssh._fleet
  - arcfleet.ssh._fleet.name
  - arcfleet.ssh._fleet.run
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.info_module
  - arcfleet.ssh._attributes.actiongroup_arc
notes:
  - Needs C(Microsoft.Authorization/roleAssignments/read) and C(Microsoft.Authorization/roleDefinitions/read), which are in Reader.
  - Groups are named as groups. Who is in them is Entra ID's to say, and so are the names of principals.
  - Eligible assignments of Privileged Identity Management (PIM) count only while they are activated, and deny assignments are not read.
  - Told is what Azure gives. Keys and passwords on the machines, and what the machines' own configuration forbids, are not part of it.
seealso:
  - module: arcfleet.ssh.arc_role_assignment
"""

EXAMPLES = r"""
- name: Find out who can log in to the fleet
  arcfleet.ssh.arc_access_info:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}"
  delegate_to: localhost
  run_once: true
  register: audit

- name: Fail where anybody but the administrators' group may become root
  ansible.builtin.assert:
    that: admins | difference([administrators]) == []
    fail_msg: "{{ inventory_hostname }}: {{ admins | difference([administrators]) | join(', ') }} may log in as administrator."
  vars:
    admins: >-
      {{ audit.machines[arc_resource_id | lower].access | selectattr('as', 'eq', 'admin') | map(attribute='principal_id') | unique }}

- name: Look at everything in a subscription
  arcfleet.ssh.arc_access_info:
    scopes: ["/subscriptions/{{ subscription }}"]
"""

RETURN = r"""
summary:
  description: How many machines or scopes there were, and for how many the assignments could not be read.
  returned: always
  type: dict
machines:
  description:
    - Who can log in to each machine, by its resource id in lower case.
  returned: when O(scopes) is not given
  type: dict
  contains:
    name:
      description: The name of the machine.
      type: str
    resource_id:
      description: The resource id.
      type: str
    access:
      description: One entry for each role assignment that lets somebody log in, administrators first.
      type: list
      elements: dict
      contains:
        principal_id:
          description: The object id of the user, group or service principal.
          type: str
        principal_type:
          description: V(User), V(Group), V(ServicePrincipal), V(ForeignGroup) or V(Device).
          type: str
        as:
          description:
            - V(admin) logs in with Entra ID and may use sudo; V(user) logs in with Entra ID.
            - V(local) reaches the machine's SSH server through Azure, and logs in there with an account, and a key or password, of the machine
              itself.
          type: str
        relay:
          description: Whether the same role also gives the way through Azure to the machine's SSH server.
          type: bool
        role:
          description: The name of the role.
          type: str
        role_guid:
          description: The GUID of the role's definition.
          type: str
        scope:
          description: The scope at which the role was given.
          type: str
        scope_kind:
          description: V(root), V(management_group), V(subscription), V(resource_group), V(machine) or V(resource).
          type: str
        inherited:
          description: Whether that is above the machine, or above the scope that was looked at.
          type: bool
        assignment_id:
          description: The resource id of the role assignment.
          type: str
        condition:
          description: The condition that limits the assignment, V(none) if there is none. It is told, not judged.
          type: str
    undetermined:
      description:
        - The assignments whose roles this identity cannot read, with C(assignment_id) and C(role_guid). As long as there are any, the answer may lack
          somebody.
      type: list
      elements: dict
    failure:
      description: Why it could not be read, with the keys C(code), C(message), C(status), C(request_id) and C(hint).
      returned: when it could not be read
      type: dict
scopes:
  description:
    - Who can log in anywhere in each scope, by its id in lower case. Entries as in RV(machines), with C(scope) in the place of C(resource_id).
  returned: when O(scopes) is given
  type: dict
pacing:
  description:
    - What the run had to do with Azure's limits. How many C(requests) it made, how often Azure C(throttled) it, and how many seconds its requests
      C(waited) for their turn.
  returned: when the work was begun
  type: dict
  sample: {requests: 3, throttled: 0, waited: 0.0}
failures:
  description: Those entries that failed.
  returned: always
  type: dict
"""

from ansible_collections.arcfleet.ssh.plugins.module_utils._audit import Audit, AuditModule


def main() -> None:
    audit = Audit()
    AuditModule({}).run(lambda run, target, outcome: audit.tell(target, outcome), before=audit.read)


if __name__ == "__main__":
    main()
