# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the list whole, asked for as the user meant, and never mistaken for whole when it is not?"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _graph
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ArmError, InputError
from ansible_collections.arcfleet.ssh.plugins.plugin_utils import _listing
from ansible_collections.arcfleet.ssh.plugins.plugin_utils._listing import (
    Query,
    extensions_query,
    from_arm,
    from_resource_graph,
    machines_query,
    matches,
)

SUB = "11111111-2222-3333-4444-555555555555"
SUB2 = "99999999-2222-3333-4444-555555555555"
OS_TYPE = "iff(isempty(tostring(properties.osType)), tostring(properties.osName), tostring(properties.osType))"


def identity(name: str, group: str = "g", sub: str = SUB) -> str:
    return f"/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}"


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"id": identity(name), "kind": "", "location": "westeurope", "tags": None, "status": "Connected", **more}


class Graph:
    """Resource Graph and the list of subscriptions, as far as the listing needs them; pages are as long as `page`."""

    def __init__(self, machines: list[Any], extensions: list[Any] = (), page: int = 2, subs: tuple[str, ...] = (SUB,)):  # type: ignore[assignment]
        self.tables = {"machines": machines, "extensions": list(extensions)}
        self.page = page
        self.subs = subs
        self.bodies: list[dict[str, Any]] = []
        self.mend: Callable[[dict[str, Any]], None] = lambda answer: None
        self.lock = threading.Lock()

    def post(self, path: str, api_version: str, body: Any = None, *, query: Any = None, doing: str) -> dict[str, Any]:
        assert (path, api_version) == ("/providers/Microsoft.ResourceGraph/resources", "2022-10-01")
        with self.lock:
            self.bodies.append(body)
            rows = self.tables["extensions" if "/machines/extensions'" in body["query"] else "machines"]
            start = int(body["options"].get("$skipToken", "0"))
            data = rows[start : start + self.page]
            answer: dict[str, Any] = {
                "data": data,
                "count": len(data),
                "totalRecords": len(rows),
                "resultTruncated": "false",
            }
            if start + self.page < len(rows):
                answer["$skipToken"] = str(start + self.page)
            self.mend(answer)
            return answer

    def pages(self, path: str, api_version: str, *, query: Any = None, doing: str) -> Iterator[dict[str, Any]]:
        assert path == "/subscriptions"
        yield from (
            {"subscriptionId": sub, "displayName": f"name of {sub[0]}", "state": "Enabled"} for sub in self.subs
        )


def names(listing: _listing.Listing) -> list[str]:
    return [host["arc_name"] for host in listing.hosts]


def test_all_pages_are_read_and_sorted_by_id() -> None:
    graph = Graph([row("c"), row("B"), row("a"), row("d"), row("e")])
    listing = from_resource_graph(graph, Query(extensions=False))  # type: ignore[arg-type]
    assert names(listing) == ["a", "B", "c", "d", "e"]
    assert len(graph.bodies) == 3
    for body in graph.bodies:
        assert body["options"]["$top"] == 1000
        assert body["options"]["allowPartialScopes"] is False
        assert body["query"].endswith("| order by id asc")
        # Without a scope, Resource Graph would stop at 10,000 subscriptions and say so in a header only.
        assert body["subscriptions"] == [SUB]
        assert "managementGroups" not in body
    assert listing.hosts[0]["arc_kind"] is None
    assert listing.hosts[0]["arc_status"] == "Connected"
    assert listing.hosts[0]["arc_extensions"] is None


def test_extensions_find_their_machines_whatever_the_case() -> None:
    extension = {
        "id": identity("A").upper() + "/EXTENSIONS/X",
        "name": "X",
        "publisher": "P",
        "extensionType": "T",
        "typeHandlerVersion": "1.0",
        "provisioningState": "Succeeded",
        "enableAutomaticUpgrade": False,
    }
    stray = {**extension, "id": identity("gone") + "/extensions/X"}
    listing = from_resource_graph(Graph([row("a"), row("b")], [extension, stray]), Query())  # type: ignore[arg-type]
    assert listing.hosts[0]["arc_extensions"] == [
        {
            "name": "X",
            "publisher": "P",
            "type": "T",
            "version": "1.0",
            "provisioning_state": "Succeeded",
            "automatic_upgrade": False,
        }
    ]
    assert listing.hosts[1]["arc_extensions"] == []


def short(answer: dict[str, Any]) -> None:
    answer["totalRecords"] += 1


def truncated(answer: dict[str, Any]) -> None:
    answer.pop("$skipToken", None)
    answer["resultTruncated"] = "true"
    answer["totalRecords"] = answer["count"]


def doubled(answer: dict[str, Any]) -> None:
    answer["data"] = [answer["data"][0]] * len(answer["data"])


def stuck(answer: dict[str, Any]) -> None:
    answer.update({"data": [], "$skipToken": "0"})


@pytest.mark.parametrize("mend", [short, truncated, doubled, stuck])
def test_an_incomplete_list_is_an_error_after_three_attempts(mend: Callable[[dict[str, Any]], None]) -> None:
    graph = Graph([row("a"), row("b")])
    graph.mend = mend
    with pytest.raises(ArcError, match="incomplete"):
        from_resource_graph(graph, Query(extensions=False))  # type: ignore[arg-type]
    assert len(graph.bodies) == 3


def test_a_list_that_changed_while_it_was_read_is_read_again() -> None:
    graph = Graph([row("a"), row("b"), row("c")])
    broken = iter((True, False))

    def once(answer: dict[str, Any]) -> None:
        if next(broken, False):
            answer["data"] = answer["data"][:1]

    graph.mend = once
    assert names(from_resource_graph(graph, Query(extensions=False))) == ["a", "b", "c"]  # type: ignore[arg-type]


def test_an_answer_without_rows_is_an_error() -> None:
    graph = Graph([row("a")])
    graph.mend = lambda answer: answer.update(data={"columns": [], "rows": []})
    with pytest.raises(ArcError, match="without rows"):
        from_resource_graph(graph, Query(extensions=False))  # type: ignore[arg-type]


def test_a_record_without_an_id_is_left_out_with_a_warning() -> None:
    listing = from_resource_graph(Graph([row("a"), {"id": "/x"}]), Query(extensions=False))  # type: ignore[arg-type]
    assert names(listing) == ["a"]
    assert listing.warnings == ["1 records of Azure's list are left out: they have no id of an Arc machine."]


def test_many_subscriptions_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_graph, "_TOGETHER", 2)
    subs = tuple(f"{index:08d}-2222-3333-4444-555555555555" for index in range(5))
    graph = Graph([row("a")], subs=subs)
    listing = from_resource_graph(graph, Query(subscriptions=subs, management_groups=("m",), extensions=False))  # type: ignore[arg-type]
    assert names(listing) == ["a"]
    asked = [body.get("subscriptions") or body["managementGroups"] for body in graph.bodies]
    assert sorted(asked) == sorted([list(subs[:2]), list(subs[2:4]), list(subs[4:]), ["m"]])


@pytest.mark.parametrize("read", [from_resource_graph, from_arm])
def test_a_subscription_that_cannot_be_read_fails_by_name(read: Any) -> None:
    with pytest.raises(ArcError, match=SUB2):
        read(Graph([row("a")]), Query(subscriptions=(SUB, SUB2)))


def test_or_is_left_out_with_a_warning() -> None:
    graph = Graph([row("a")])
    listing = from_resource_graph(graph, Query(subscriptions=(SUB, SUB2), unreadable="skip"))  # type: ignore[arg-type]
    assert SUB2 in listing.warnings[0]
    assert all(body["subscriptions"] == [SUB] for body in graph.bodies)


def test_where_none_of_them_can_be_read_nothing_else_is_listed_instead() -> None:
    graph = Graph([row("a")])
    listing = from_resource_graph(graph, Query(subscriptions=(SUB2,), unreadable="skip"))  # type: ignore[arg-type]
    assert listing.hosts == []
    assert graph.bodies == []


@pytest.mark.parametrize("read", [from_resource_graph, from_arm])
def test_an_identity_that_can_read_nothing_is_told_so(read: Any) -> None:
    with pytest.raises(ArcError, match="no subscription"):
        read(Graph([row("a")], subs=()), Query())


def test_management_groups_alone_need_no_list_of_subscriptions() -> None:
    graph = Graph([row("a")], subs=())
    assert names(from_resource_graph(graph, Query(management_groups=("m",)))) == ["a"]  # type: ignore[arg-type]
    assert [set(body) - {"query", "options"} for body in graph.bodies] == [{"managementGroups"}] * 2


def test_filters_become_conditions_of_the_query() -> None:
    query = Query.from_options(
        {
            "resource_groups": ["arc-prod"],
            "filters": {
                "status": "Connected",
                "os_type": ["linux"],
                "locations": ["West Europe"],
                "kinds": ["HCI", ""],
                "tags": {"env": ["prod", "te'st"], "owner": None, "cost": 12},
                "where": "properties.agentVersion startswith '1.5' // new",
            },
        }
    )
    assert machines_query(query).splitlines()[1:-2] == [
        "| where type =~ 'microsoft.hybridcompute/machines'",
        "| where resourceGroup in~ ('arc-prod')",
        "| where location in~ ('westeurope')",
        "| where kind in~ ('HCI', '')",
        "| where tostring(properties.status) in~ ('Connected')",
        f"| where {OS_TYPE} in~ ('linux')",
        "| where isnotnull(tags['env'])",
        r"| where tostring(tags['env']) in ('prod', 'te\'st')",
        "| where isnotnull(tags['owner'])",
        "| where isnotnull(tags['cost'])",
        "| where tostring(tags['cost']) in ('12')",
        "| where (properties.agentVersion startswith '1.5' // new",
        ")",
    ]
    assert "| where resourceGroup in~ ('arc-prod')\n| where location in~ ('westeurope')" in extensions_query(query)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "arm", "filters": {"where": "true"}}, "filters.where"),
        ({"source": "arm", "management_groups": ["m"]}, "management_groups"),
        ({"subscriptions": ["mine"]}, "not a subscription id"),
        ({"resource_groups": ["a/b"]}, "resource group"),
        ({"filters": {"stat": "x"}}, "stat"),
        ({"filters": ["x"]}, "dictionary"),
        ({"filters": {"tags": ["x"]}}, "dictionary"),
        ({"filters": {"status": {"a": 1}}}, "filters.status"),
        ({"filters": {"tags": {"env": True}}}, "filters.tags.env"),
        ({"filters": {"kinds": [None]}}, "filters.kinds"),
        ({"filters": {"where": "true | project id"}}, "one condition"),
        ({"filters": {"where": "true; print 1"}}, "one condition"),
        ({"filters": {"where": 5}}, "filters.where"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Query.from_options(options)


def test_a_bar_inside_a_text_is_no_operator() -> None:
    where = r"""name != 'a|b' and name != "c;\"|" and name != @'\' and name != 'x'"""
    assert Query.from_options({"filters": {"where": where}}).where == where


def test_the_login_s_subscription_is_the_scope_where_none_is_named() -> None:
    assert Query.from_options({}, subscription_id=SUB.upper()).subscriptions == (SUB.lower(),)
    assert Query.from_options({"subscriptions": [SUB2]}, subscription_id=SUB).subscriptions == (SUB2,)
    assert Query.from_options({"management_groups": ["m"]}, subscription_id=SUB).subscriptions == ()
    assert Query.from_options({}).subscriptions == ()


class Lists:
    """ARM's lists by path."""

    def __init__(self, lists: Mapping[str, Any]) -> None:
        self.lists = lists
        self.asked: list[str] = []

    def pages(self, path: str, api_version: str, *, query: Any = None, doing: str) -> Iterator[dict[str, Any]]:
        self.asked.append(path)
        found = self.lists[path]
        if isinstance(found, Exception):
            raise found
        yield from found


def subscriptions(*subs: str) -> list[dict[str, Any]]:
    return [{"subscriptionId": sub, "displayName": "S", "state": "Enabled"} for sub in subs]


def path(sub: str, group: str | None = None) -> str:
    middle = f"/resourceGroups/{group}" if group else ""
    return f"/subscriptions/{sub}{middle}/providers/Microsoft.HybridCompute/machines"


def arm_machine(name: str, sub: str = SUB, **properties: Any) -> dict[str, Any]:
    return {"id": identity(name, sub=sub), "location": "westeurope", "tags": {}, "properties": properties}


def test_arm_lists_every_readable_subscription_but_the_deleted() -> None:
    gone = {"subscriptionId": "dead", "displayName": "x", "state": "Deleted"}
    arm = Lists(
        {
            "/subscriptions": [*subscriptions(SUB, SUB2), gone],
            path(SUB): [arm_machine("b"), {"id": None}, arm_machine("b")],
            path(SUB2): [arm_machine("a", SUB2)],
        }
    )
    listing = from_arm(arm, Query())  # type: ignore[arg-type]
    assert names(listing) == ["b", "a"]
    assert len(listing.warnings) == 1


def test_arm_lists_by_resource_group_where_it_exists() -> None:
    absent = ArmError("no such group", code="ResourceGroupNotFound", status=404)
    arm = Lists(
        {
            "/subscriptions": subscriptions(SUB, SUB2),
            path(SUB, "g"): [arm_machine("a")],
            path(SUB2, "g"): absent,
        }
    )
    assert names(from_arm(arm, Query(resource_groups=("g",)))) == ["a"]  # type: ignore[arg-type]
    arm.lists = {**arm.lists, path(SUB, "g"): absent}
    with pytest.raises(InputError, match="g is in none"):
        from_arm(arm, Query(resource_groups=("g",)))  # type: ignore[arg-type]


def test_arm_refusing_one_subscription_fails_or_warns() -> None:
    refused = ArmError("no", code="AuthorizationFailed", status=403)
    arm = Lists({"/subscriptions": subscriptions(SUB, SUB2), path(SUB): [arm_machine("a")], path(SUB2): refused})
    with pytest.raises(ArmError):
        from_arm(arm, Query())  # type: ignore[arg-type]
    listing = from_arm(arm, Query(unreadable="skip"))  # type: ignore[arg-type]
    assert names(listing) == ["a"]
    assert SUB2 in listing.warnings[0]


def test_arm_keeps_extensions_as_told_or_drops_them() -> None:
    listed = {**arm_machine("a"), "resources": [{"name": "x", "properties": {"publisher": "P"}}]}
    arm = Lists({"/subscriptions": subscriptions(SUB), path(SUB): [listed, arm_machine("b")]})
    found = from_arm(arm, Query()).hosts  # type: ignore[arg-type]
    assert found[0]["arc_extensions"] is not None and found[0]["arc_extensions"][0]["publisher"] == "P"
    assert found[1]["arc_extensions"] is None
    assert from_arm(arm, Query(extensions=False)).hosts[0]["arc_extensions"] is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"status": "connected"}, True),
        ({"status": ["Expired", "Error"]}, False),
        ({"os_type": "Linux"}, True),
        ({"os_type": "windows"}, False),
        ({"locations": ["West Europe", "x"]}, True),
        ({"locations": "x"}, False),
        ({"kinds": ""}, True),
        ({"kinds": "HCI"}, False),
        ({"tags": {"env": None}}, True),
        ({"tags": {"env": ["prod", "x"]}}, True),
        ({"tags": {"env": "Prod"}}, False),
        ({"tags": {"env": "prod", "other": None}}, False),
        ({"tags": {"empty": ""}}, True),
    ],
)
def test_arm_s_records_are_filtered_as_resource_graph_would(filters: Mapping[str, Any], expected: bool) -> None:
    record = {
        "id": identity("a"),
        "location": "westeurope",
        "tags": {"env": "prod", "empty": ""},
        "properties": {"status": "Connected", "osName": "linux"},
    }
    assert matches(record, Query.from_options({"filters": filters, "source": "arm"})) is expected


def test_a_query_can_be_told_from_another() -> None:
    assert dataclasses.asdict(Query(where="a")) != dataclasses.asdict(Query(where="b"))
