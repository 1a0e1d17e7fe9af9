# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does every id that names a machine parse, and no other?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId, same

SUB = "11111111-2222-3333-4444-555555555555"
WEB01 = f"/subscriptions/{SUB}/resourceGroups/arc-prod/providers/Microsoft.HybridCompute/machines/web01"


def test_parse_keeps_the_spelling_and_compares_without_case():
    shouted = WEB01.upper().replace("/SUBSCRIPTIONS/", "/subscriptions/")
    parsed = MachineId.parse(shouted)
    assert parsed.name == "WEB01"
    assert parsed.resource_group == "ARC-PROD"
    assert parsed.key == MachineId.parse(WEB01).key == WEB01.lower()
    assert str(MachineId.parse(WEB01.replace("machines", "Machines") + "/")) == WEB01


@pytest.mark.parametrize("group", ["a", "arc_prod", "(x)", "größe", "a.b-c", "a" * 90])
def test_resource_groups_that_azure_allows(group):
    assert MachineId.parse(WEB01.replace("arc-prod", group)).resource_group == group


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not the resource id"),
        ("web01", "is not the resource id"),
        (None, "is not the resource id"),
        (WEB01[1:], "is not the resource id"),
        (WEB01 + "/extensions/x", "names a Microsoft.HybridCompute/machines/extensions"),
        (
            WEB01.replace("HybridCompute/machines", "Compute/virtualMachines"),
            "names a Microsoft.Compute/virtualMachines",
        ),
        (WEB01.replace(SUB, "not-a-guid"), "is not a subscription id"),
        (WEB01.replace("web01", "web$(id)"), "cannot be the name of an Arc machine"),
        (WEB01.replace("web01", "w" * 55), "cannot be the name of an Arc machine"),
        (WEB01.replace("web01", "web\n01"), "cannot be the name of an Arc machine"),
        (WEB01.replace("arc-prod", "a b"), "cannot be the name of a resource group"),
        (WEB01.replace("arc-prod", "ends."), "cannot be the name of a resource group"),
        (WEB01.replace("arc-prod", "a" * 91), "cannot be the name of a resource group"),
    ],
)
def test_what_is_no_machine_is_refused_with_a_sentence(text, said):
    with pytest.raises(InputError) as caught:
        MachineId.parse(text)
    assert said in str(caught.value)


def test_the_id_of_an_azure_vm_says_why_it_does_not_do():
    with pytest.raises(InputError) as caught:
        MachineId.parse(WEB01.replace("HybridCompute/machines", "Compute/virtualMachines"))
    assert "no Arc agent" in str(caught.value)


def test_same_ignores_case_and_a_trailing_slash():
    assert same("Microsoft.HybridCompute/Machines", "microsoft.hybridcompute/machines/")
    assert not same("/a/b", "/a/c")
