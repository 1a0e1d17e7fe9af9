# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the plan name exactly what has to be done?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._plan import Plan, plan

OLD, NEW = {"port": 22}, {"port": 2222}


@pytest.mark.parametrize(
    ("current", "desired", "broken", "expected"),
    [
        (None, None, False, Plan("none", None, None)),
        (None, NEW, False, Plan("create", None, NEW)),
        (OLD, NEW, False, Plan("update", OLD, NEW)),
        (OLD, dict(OLD), False, Plan("none", OLD, OLD)),
        (OLD, dict(OLD), True, Plan("update", OLD, OLD)),
        (OLD, None, False, Plan("delete", OLD, None)),
        (OLD, None, True, Plan("delete", OLD, None)),
    ],
)
def test_plan(current, desired, broken, expected):
    found = plan(current, desired, broken=broken)
    assert found == expected
    assert found.changed == (expected.action != "none")
