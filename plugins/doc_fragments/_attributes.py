# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What do check mode, diff mode, idempotence, platform and action group mean in the documentation of the modules?

A module adds to each attribute how far it supports it. Private to arcfleet.ssh.
"""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes that all modules document, and the action group of those that talk to Azure."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what it would do, without a request that changes anything.
  diff_mode:
    description: Returns in C(diff_mode) what has changed, or in check mode what would change. Secrets are never part of it.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second run finds nothing left to do and changes nothing.
      - This assumes that Azure and the machines have not changed in the meantime.
  platform:
    description: The operating systems of the host that runs the module, as a rule the controller. The Arc machines may run others.
    platforms: posix
    support: full
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module only reads.
  diff_mode:
    support: N/A
    details:
      - This module only reads.
  idempotent:
    support: full
    details:
      - This module only reads.
"""

    ACTIONGROUP_ARC = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/arcfleet.ssh.arc) in C(module_defaults) to set defaults for this module, such as the login.
    support: full
    membership:
      - arcfleet.ssh.arc
"""
