# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What did these passes of a run find?"""

from __future__ import annotations

DOCUMENTATION = r"""
name: findings
author:
  - arcfleet.ssh contributors (@arcfleet)
version_added: 0.1.0
short_description: What some passes of a run of enforcement have found
description:
  - Joins the findings of passes over a fleet, as M(arcfleet.ssh.arc_drift_report) and M(arcfleet.ssh.arc_ledger) take them. The playbook
    C(arcfleet.ssh.enforce) uses it.
positional: passes
options:
  _input:
    description:
      - By the name of the pass, for each kind of resource the results of the modules that looked.
    type: dict
    required: true
  passes:
    description:
      - The names of the passes to join. Those that were not made are left out.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Join what the repair of the canaries and that of the others came to
  ansible.builtin.set_fact:
    repaired: "{{ found | arcfleet.ssh.findings(['canaries', 'rest']) }}"
"""

RETURN = r"""
_value:
  description: For each kind of resource, the results of all these passes.
  type: dict
"""

from collections.abc import Iterable, Mapping
from typing import Any


def findings(found: Mapping[str, Mapping[str, Iterable[Any]]], passes: Iterable[str]) -> dict[str, list[Any]]:
    """The results of the passes, by kind."""
    joined: dict[str, list[Any]] = {}
    for name in passes:
        for kind, results in found.get(name, {}).items():
            joined.setdefault(kind, []).extend(results)
    return joined


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Their names."""
        return {"findings": findings}
