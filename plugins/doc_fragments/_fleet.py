# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which options do all modules share that work on a whole fleet?

Private to arcfleet.ssh.
"""

from __future__ import annotations


class ModuleDocFragment:
    """The parts of the fleet interface: machines, running, waiting, agents that are away."""

    DOCUMENTATION = r"""
options:
  machines:
    description:
      - The Arc machines to work on. Each entry is the resource id of a C(Microsoft.HybridCompute/machines) resource, or a dictionary
        with the key V(id), those options of this module that may be set for one machine, and V(host), the machine's name in the inventory,
        which results repeat. The filter P(arcfleet.ssh.fleet#filter) makes such a list from hosts.
      - Ids are compared without regard to case. An empty list, a machine named twice and an id of another type are refused before any
        request is made.
      - Without this, O(resource_group) and O(subscription_id) are those of a single machine.
    type: list
    elements: raw
  resource_group:
    description:
      - The resource group of a single machine. Mutually exclusive with O(machines).
    type: str
"""

    NAME = r"""
options:
  name:
    description:
      - The name of a single machine, together with O(resource_group) and O(subscription_id). Mutually exclusive with O(machines).
    type: str
    aliases: [machine_name]
"""

    RUN = r"""
options:
  concurrency:
    description:
      - How many machines are worked on at once. All share one login and one pool of connections.
    type: int
    default: 32
  max_fail_percentage:
    description:
      - The task fails when more than this percentage of the machines failed.
      - What succeeded stays in either case, and every machine is reported.
    type: float
    default: 0.0
requirements:
  - azure-identity >= 1.19
  - azure-mgmt-resource >= 24
"""

    WAIT = r"""
options:
  wait:
    description:
      - Whether to wait until Azure has carried out the change.
    type: bool
    default: true
  wait_timeout:
    description:
      - How long to wait for one machine, in seconds. What is still under way then goes on in Azure, and the machine is reported as failed.
    type: int
    default: 600
"""

    UNAVAILABLE = r"""
options:
  unavailable:
    description:
      - What to do with a machine whose agent would have to act but cannot, because it is disconnected or expired, runs in monitor mode, or
        has its extension manager off.
      - V(fail) reports the machine as failed.
      - V(skip) leaves it alone and says why in C(skip_reason) of its result.
      - Machines that need no change are not affected.
    type: str
    choices: [fail, skip]
    default: fail
"""
