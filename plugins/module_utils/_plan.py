# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done to get from the current state to the desired one?

Pure: a plan is made without I/O, is shown in check mode and in diff, and is applied otherwise. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

State = Mapping[str, Any]

NONE, CREATE, UPDATE, DELETE, SKIP = "none", "create", "update", "delete", "skip"


@dataclass(frozen=True)
class Plan:
    """One of none, create, update, delete, with the states before and after; `None` is "absent"."""

    action: str
    before: State | None
    after: State | None

    @property
    def changed(self) -> bool:
        return self.action in (CREATE, UPDATE, DELETE)


def plan(current: State | None, desired: State | None, *, broken: bool = False) -> Plan:
    """Compare two states of one resource, both in the resource's own terms.

    `broken` says that the resource exists but did not come to be (its last write failed): then it is written again although
    it looks right. An absent resource cannot be broken.
    """
    if current is None:
        return Plan(NONE if desired is None else CREATE, None, desired)
    if desired is None:
        return Plan(DELETE, current, None)
    if broken or dict(current) != dict(desired):
        return Plan(UPDATE, current, desired)
    return Plan(NONE, current, current)
