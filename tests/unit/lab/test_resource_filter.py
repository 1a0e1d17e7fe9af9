# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the `$filter`s of lists mean what the APIs document?"""

from __future__ import annotations

from typing import Any

import pytest

from arclab.http import ArmFailure
from arclab.providers import authorization
from arclab.providers.resources import parse_filter

WEB: dict[str, Any] = {
    "id": "/subscriptions/s/resourceGroups/Arc-Prod/providers/Microsoft.HybridCompute/machines/web01",
    "name": "web01",
    "type": "Microsoft.HybridCompute/machines",
    "location": "westeurope",
    "tags": {"role": "web", "it's": "x"},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, True),
        ("name eq 'WEB01'", True),
        ("name eq 'web'", False),
        ("name ne 'web02'", True),
        ("resourceType eq 'Microsoft.HybridCompute/machines' and name eq 'web01'", True),
        (
            "resourceType eq 'Microsoft.Compute/virtualMachines' or resourceType eq 'microsoft.hybridcompute/MACHINES'",
            True,
        ),
        ("resourceGroup eq 'arc-prod'", True),
        ("substringof('eb0', name)", True),
        ("substringof('xx', name)", False),
        ("startswith(name, 'web')", True),
        ("tagName eq 'role' and tagValue eq 'web'", True),
        ("tagName eq 'owner'", False),
        ("location eq 'northeurope'", False),
    ],
)
def test_conditions_on_resources(text: str | None, wanted: bool) -> None:
    assert parse_filter(text)(WEB) is wanted


@pytest.mark.parametrize(
    "text", ["name", "name like 'x'", "name eq 'a' xor name eq 'b'", "name eq 'a' and", "foo eq 'x'"]
)
def test_other_conditions_are_refused(text: str) -> None:
    with pytest.raises(ArmFailure) as refused:
        parse_filter(text)
    assert refused.value.status == 400


def test_conditions_on_role_assignments() -> None:
    parse = authorization.parse_filter
    assert parse("atScope() and assignedTo('P')") == {"atscope": "", "assignedto": "P"}
    assert parse("principalId eq 'P'") == {"principalid": "P"}
    assert parse("roleName eq 'Reader'") == {"rolename": "Reader"}
    assert parse("roleName eq 'Bob''s role'") == {"rolename": "Bob's role"}
    for text in ("atScope", "principalId ne 'x'", "atScope() or assignedTo('P')"):
        with pytest.raises(ArmFailure):
            parse(text)
