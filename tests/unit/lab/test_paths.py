# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do paths name what ARM says they name?"""

from __future__ import annotations

import pytest

from arclab.paths import group_of, parent_and_type, parse, subscription_of

MACHINE = "/subscriptions/S/resourceGroups/G/providers/Microsoft.HybridCompute/machines/web01"


@pytest.mark.parametrize(
    ("path", "scope", "namespace", "types", "names", "tail"),
    [
        ("/subscriptions", "", "Microsoft.Resources", (), (), "subscriptions"),
        ("/subscriptions/S/", "", "Microsoft.Resources", ("subscriptions",), ("S",), None),
        ("//subscriptions/S/resourcegroups", "", "Microsoft.Resources", ("subscriptions",), ("S",), "resourcegroups"),
        (
            "/subscriptions/S/resourceGroups/G/resources",
            "",
            "Microsoft.Resources",
            ("subscriptions", "resourceGroups"),
            ("S", "G"),
            "resources",
        ),
        ("/subscriptions/S/providers", "", "Microsoft.Resources", ("subscriptions",), ("S",), "providers"),
        (
            "/subscriptions/S/providers/Microsoft.X/register",
            "",
            "Microsoft.Resources",
            ("subscriptions", "providers"),
            ("S", "Microsoft.X"),
            "register",
        ),
        ("/providers/Microsoft.X", "", "Microsoft.Resources", ("providers",), ("Microsoft.X",), None),
        (MACHINE, "/subscriptions/S/resourceGroups/G", "Microsoft.HybridCompute", ("machines",), ("web01",), None),
        (
            MACHINE + "/extensions",
            "/subscriptions/S/resourceGroups/G",
            "Microsoft.HybridCompute",
            ("machines",),
            ("web01",),
            "extensions",
        ),
        (
            MACHINE + "/providers/Microsoft.HybridConnectivity/endpoints/default/listCredentials",
            MACHINE,
            "Microsoft.HybridConnectivity",
            ("endpoints",),
            ("default",),
            "listCredentials",
        ),
        ("/providers/Microsoft.ResourceGraph/resources", "", "Microsoft.ResourceGraph", (), (), "resources"),
    ],
)
def test_parts_of_a_path(
    path: str, scope: str, namespace: str, types: tuple[str, ...], names: tuple[str, ...], tail: str | None
) -> None:
    target = parse(path)
    assert target is not None
    assert (target.scope, target.namespace, target.types, target.names, target.tail) == (
        scope,
        namespace,
        types,
        names,
        tail,
    )


@pytest.mark.parametrize(
    "path",
    ["/", "/foo", "/foo/providers", "/subscriptions/S/foo", "/subscriptions/S/resourceGroups/G/foo", "/batch/a/b"],
)
def test_other_paths_are_none(path: str) -> None:
    assert parse(path) is None


def test_subscription_and_group_are_found_in_any_case() -> None:
    target = parse(MACHINE.replace("subscriptions", "Subscriptions").replace("resourceGroups", "RESOURCEGROUPS"))
    assert target is not None
    assert (target.subscription, target.group) == ("s", "G")


def test_parents_of_nested_and_of_extending_resources() -> None:
    key = MACHINE.lower()
    endpoint = key + "/providers/microsoft.hybridconnectivity/endpoints/default"
    assert parent_and_type(key)[1] == "microsoft.hybridcompute/machines"
    assert parent_and_type(key + "/extensions/x") == (key, "microsoft.hybridcompute/machines/extensions")
    assert parent_and_type(endpoint) == (key, "microsoft.hybridconnectivity/endpoints")
    assert parent_and_type(endpoint + "/serviceconfigurations/ssh")[0] == endpoint
    assert (group_of(endpoint), subscription_of(endpoint)) == ("/subscriptions/s/resourcegroups/g", "/subscriptions/s")
