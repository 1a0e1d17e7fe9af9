# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does every machine get a name of its own, whatever its owner calls it?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._names import alias, unique_names

SUB = "11111111-2222-3333-4444-555555555555"
SUB2 = "99999999-2222-3333-4444-555555555555"
HOSTILE = ("$(touch x)", 'a"b', "a'b", "{{ 7 * 7 }}", "a%pb", "a\nb", "-oProxyCommand=x", "a b", "a;b")


def machine(name: str = "web01", group: str = "arc-prod", sub: str = SUB) -> MachineId:
    return MachineId.build(sub, group, name)


def names(*wanted: tuple[MachineId, str | None], taken: tuple[str, ...] = ()) -> tuple[list[str], list[str], int]:
    return unique_names(wanted, taken)


def test_names_that_nobody_shares_stay() -> None:
    assert names((machine("a"), "a"), (machine("b"), "b")) == (["a", "b"], [], 0)


def test_machines_of_one_name_all_get_their_resource_group() -> None:
    found, shared, dummy = names((machine("a", "g1"), "a"), (machine("b"), "b"), (machine("A", "g2"), "A"))
    assert found == ["a.g1", "b", "A.g2"]
    assert shared == ["A", "a"]


def test_the_subscription_is_added_only_where_the_resource_group_is_not_enough() -> None:
    found, *dummy = names((machine("a", "g"), "a"), (machine("a", "g", SUB2), "a"), (machine("a", "h"), "a"))
    assert found == [f"a.g.{SUB}", f"a.g.{SUB2}", "a.h"]


def test_a_longer_name_does_not_meet_a_machine_that_is_called_so() -> None:
    found, *dummy = names((machine("a", "g"), "a"), (machine("a", "h"), "a"), (machine("a.g", "x"), "a.g"))
    assert len({name.lower() for name in found}) == 3
    assert found[1] == "a.h"


def test_a_template_that_gives_everybody_one_name_still_merges_nobody() -> None:
    wanted = [(machine(f"m{index}"), "same") for index in range(20)]
    found, shared, dummy = unique_names(wanted)
    assert len(set(found)) == 20
    assert shared == ["same"]


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "all", "ungrouped", "os_type_linux"])
def test_no_machine_replaces_the_controller_or_a_group(name: str) -> None:
    found, shared, dummy = names((machine(name), name), taken=("os_type_linux",))
    assert found == [f"{name}.arc-prod"]
    assert shared == [name]


@pytest.mark.parametrize("name", [*HOSTILE, "", None, "a/b", "a:b", "a,b", "x" * 254])
def test_what_cannot_be_a_host_name_gives_way_to_the_name_in_azure(name: str | None) -> None:
    assert names((machine("web01"), name)) == (["web01"], [], 1)


def test_a_name_that_ssh_would_read_as_an_option_gets_another_beginning() -> None:
    found, *dummy = names((machine("-oX"), "-oX"))
    assert found == [alias(machine("-oX"))]
    assert not found[0].startswith("-")


def test_a_resource_id_may_be_a_host_name() -> None:
    one = machine(group="rg(1)")
    assert names((one, str(one))) == ([str(one)], [], 0)


def test_the_resource_group_in_a_name_is_made_harmless() -> None:
    found, *dummy = names((machine("a", "g(1)"), "a"), (machine("a", "h"), "a"))
    assert found == ["a.g_1_", "a.h"]


def test_the_alias_is_short_stable_and_differs_between_machines() -> None:
    one, other = alias(machine("Web_01.example")), alias(machine("Web_01.example", "other"))
    assert one.startswith("web-01-example-")
    assert one != other
    assert alias(MachineId.build(SUB.upper(), "ARC-PROD", "WEB_01.EXAMPLE")) == one
    assert len(alias(machine("x" * 54))) == 31
    assert alias(machine("_._")).startswith("machine-")
