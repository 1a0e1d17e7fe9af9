# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are pages read side by side, each once, and is an answer that is not whole never taken for one that is?"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _graph
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ArmError
from ansible_collections.arcfleet.ssh.plugins.module_utils._graph import (
    Query,
    all_rows,
    literal,
    machines,
    rows,
    scope_name,
    scopes,
    together,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId

SUB = "11111111-2222-3333-4444-555555555555"
SUB2 = "99999999-2222-3333-4444-555555555555"
SCOPE = {"subscriptions": [SUB]}


def machine(name: str = "web01", group: str = "g", sub: str = SUB) -> MachineId:
    return MachineId.build(sub, group, name)


def table(count: int) -> list[dict[str, Any]]:
    return [{"id": f"/x/{number:05d}"} for number in range(count)]


class Graph:
    """Resource Graph with one answer for all queries: `rows`, in pages of at most `page`."""

    def __init__(self, rows: list[Any], page: int = 1000) -> None:
        self.rows = rows
        self.page = page
        self.bodies: list[dict[str, Any]] = []
        self.mend: Callable[[dict[str, Any], dict[str, Any]], None] = lambda answer, options: None
        self.wait: Callable[[dict[str, Any]], None] = lambda options: None
        self.refusal: Callable[[dict[str, Any]], Exception | None] = lambda body: None
        self.lock = threading.Lock()

    def rows_for(self, body: dict[str, Any]) -> list[Any]:
        return self.rows

    def post(self, path: str, api_version: str, body: Any = None, *, query: Any = None, doing: str) -> dict[str, Any]:
        assert (path, api_version) == ("/providers/Microsoft.ResourceGraph/resources", "2022-10-01")
        options = body["options"]
        with self.lock:
            self.bodies.append(body)
        self.wait(options)
        refusal = self.refusal(body)
        if refusal:
            raise refusal
        found = self.rows_for(body)
        start = int(options["$skip"] if "$skip" in options else options.get("$skipToken", 0))
        data = found[start : start + min(self.page, options["$top"])]
        answer: dict[str, Any] = {
            "data": data,
            "count": len(data),
            "totalRecords": len(found),
            "resultTruncated": "false",
        }
        if start + len(data) < len(found):
            answer["$skipToken"] = str(start + len(data))
        self.mend(answer, options)
        return answer

    def places(self) -> list[Any]:
        """Where each request began, `$skip` as a number, `$skipToken` as a text; `None` is the first page."""
        return [body["options"].get("$skip", body["options"].get("$skipToken")) for body in self.bodies]


def read(graph: Graph) -> list[Any]:
    return rows(graph, "resources | order by id asc", SCOPE, "Cannot list")  # type: ignore[arg-type]


def test_one_page_is_one_request() -> None:
    graph = Graph(table(1000))
    assert read(graph) == graph.rows
    assert graph.bodies == [
        {
            "query": "resources | order by id asc",
            "options": {"$top": 1000, "resultFormat": "objectArray", "allowPartialScopes": False},
            "subscriptions": [SUB],
        }
    ]


def test_the_pages_after_the_first_are_read_side_by_side_in_as_many_requests() -> None:
    graph = Graph(table(9001))
    # Each of the nine waits until all of them are under way.
    barrier = threading.Barrier(9)
    graph.wait = lambda options: barrier.wait(10) and None if "$skip" in options else None
    assert read(graph) == graph.rows
    assert sorted(graph.places()[1:]) == list(range(1000, 9001, 1000))


def test_many_queries_are_asked_at_once() -> None:
    graph = Graph(table(3))
    barrier = threading.Barrier(12)
    graph.wait = lambda options: barrier.wait(10) and None
    queries = [Query(f"resources // {number}", SCOPE, "Cannot list") for number in range(12)]
    assert all_rows(graph, queries) == [graph.rows] * 12  # type: ignore[arg-type]
    assert len(graph.bodies) == 12


def test_pages_shorter_than_asked_for_are_followed_by_their_tokens() -> None:
    graph = Graph(table(2500), page=700)
    assert read(graph) == graph.rows
    assert graph.places() == [None, "700", "1400", "2100"]


def test_without_a_total_tokens_are_followed_until_a_page_tells_it() -> None:
    graph = Graph(table(2500))

    def late(answer: dict[str, Any], options: dict[str, Any]) -> None:
        if options.get("$skipToken") != "2000":
            answer["totalRecords"] = None

    graph.mend = late
    assert read(graph) == graph.rows
    assert graph.places() == [None, "1000", "2000"]


def short(answer: dict[str, Any], options: dict[str, Any]) -> None:
    answer["totalRecords"] += 1


def truncated(answer: dict[str, Any], options: dict[str, Any]) -> None:
    answer.pop("$skipToken", None)
    answer.update(resultTruncated="true", totalRecords=answer["count"])


def doubled(answer: dict[str, Any], options: dict[str, Any]) -> None:
    answer["data"] = [answer["data"][0]] * len(answer["data"])


def stuck(answer: dict[str, Any], options: dict[str, Any]) -> None:
    answer.update({"data": [], "$skipToken": "0"})


def untold(answer: dict[str, Any], options: dict[str, Any]) -> None:
    answer.pop("totalRecords")


@pytest.mark.parametrize("mend", [short, truncated, doubled, stuck, untold])
def test_an_answer_that_stays_incomplete_is_an_error_after_three_attempts(mend: Any) -> None:
    graph = Graph(table(2))
    graph.mend = mend
    with pytest.raises(ArcError, match=r"Cannot list: Resource Graph gave \d+ rows of (more|3|2), .* incomplete"):
        read(graph)
    assert len(graph.bodies) == 3


@pytest.mark.parametrize("lost", [0, 999])
def test_a_row_that_a_later_page_lacks_is_missed(lost: int) -> None:
    graph = Graph(table(3000))

    def lose(answer: dict[str, Any], options: dict[str, Any]) -> None:
        if options.get("$skip") == 1000 or options.get("$skipToken") == "1000":
            answer["data"] = answer["data"][:lost] + answer["data"][lost + 1 :]

    graph.mend = lose
    with pytest.raises(ArcError, match="2999 rows of 3000"):
        read(graph)


def test_a_list_that_changes_while_it_is_read_is_read_again_page_after_page() -> None:
    graph = Graph(table(2500))
    changed = []

    def change(answer: dict[str, Any], options: dict[str, Any]) -> None:
        if options.get("$skip") == 2000:
            # A machine has come: this page counts it, the others did not.
            answer["totalRecords"] += 1
            changed.append(True)

    graph.mend = change
    assert read(graph) == graph.rows
    assert changed == [True]
    assert graph.places()[3:] == [None, "1000", "2000"]


def test_a_page_that_fails_fails_the_list() -> None:
    graph = Graph(table(5000))
    graph.refusal = lambda body: (
        ArmError("Cannot list: no.", code="X", status=500) if body["options"].get("$skip") == 3000 else None
    )
    with pytest.raises(ArmError, match=r"Cannot list: no\."):
        read(graph)
    assert len(graph.bodies) <= 5


def test_a_failure_ends_it_even_while_an_earlier_job_is_under_way() -> None:
    begun: list[int] = []
    many = threading.Event()

    def job(number: int) -> None:
        begun.append(number)
        if number == 0:
            many.wait(0.2)
        elif number == 1:
            raise ArcError("no")
        elif len(begun) > 60:
            many.set()
        time.sleep(0.002)

    with pytest.raises(ArcError):
        together([partial(job, number) for number in range(1000)], 2)
    assert not many.is_set()


@pytest.mark.parametrize("data", [None, {"columns": [], "rows": []}, ["x"], "rows"])
def test_an_answer_without_rows_is_an_error(data: Any) -> None:
    graph = Graph(table(1))
    graph.mend = lambda answer, options: answer.update(data=data)
    with pytest.raises(ArcError, match="without rows"):
        read(graph)


def test_scopes_hold_no_more_than_documented_and_are_told_in_words() -> None:
    subscriptions = [f"{number:08d}-2222-3333-4444-555555555555" for number in range(501)]
    found = scopes(subscriptions, [f"m{number}" for number in range(11)])
    assert [len(next(iter(scope.values()))) for scope in found] == [250, 250, 1, 10, 1]
    assert [name for scope in found[:3] for name in scope["subscriptions"]] == subscriptions
    assert scope_name(found[2]) == f"of subscription {subscriptions[500]}"
    assert scope_name(found[3]) == "of management groups m0, m1, m2 and 7 more"


@pytest.mark.parametrize("text", ["a'b", 'a"b', "a\\", "\\' or 1==1 //", "a\nb", "a\x00b", "a\u2028b", "日本"])
def test_a_value_cannot_leave_its_literal(text: str) -> None:
    made = literal(text)
    # The literal as KQL reads it: a quote, then characters and escapes, then the first quote that is not escaped.
    found = re.match(r"'((?:[^'\\\n]|\\u[0-9a-f]{4}|\\.)*)'", made)
    assert found is not None and found.end() == len(made)
    back = re.sub(r"\\u([0-9a-f]{4})|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else m[2], found[1])
    assert back == text


class Fleet(Graph):
    """Resource Graph that knows these machines, and an extension of each, whatever is asked."""

    def __init__(self, known: list[MachineId]) -> None:
        super().__init__([])
        self.known = sorted(known, key=lambda one: one.key)

    def rows_for(self, body: dict[str, Any]) -> list[Any]:
        readable = [one for one in self.known if one.subscription_id.lower() in body["subscriptions"]]
        if "/machines/extensions'" in body["query"]:
            properties = {"publisher": "P", "type": "T"}
            return [{"id": f"{one}/extensions/T".upper(), "name": "T", "properties": properties} for one in readable]
        return [
            {"id": str(one).upper(), "name": one.name, "location": "westeurope", "kind": "", "tags": {"a": "b"}}
            | {"status": "Connected", "agentConfiguration": {"configMode": "full"}, "agentVersion": "1.50"}
            for one in readable
        ]


def test_machines_have_the_shape_of_arm_s_records() -> None:
    fleet = Fleet([machine("a"), machine("stranger")])
    found = machines(fleet, [machine("A", "G"), machine("gone")])  # type: ignore[arg-type]
    assert set(found) == {machine("a").key}
    record = found[machine("a").key]
    assert record["name"] == "a"
    assert record["location"] == "westeurope"
    assert record["tags"] == {"a": "b"}
    assert record["properties"]["status"] == "Connected"
    assert record["properties"]["agentConfiguration"] == {"configMode": "full"}
    assert record["properties"]["osName"] is None
    assert "resources" not in record
    assert len(fleet.bodies) == 1


def test_extensions_come_with_their_machines() -> None:
    fleet = Fleet([machine("a"), machine("b"), machine("stranger")])
    found = machines(fleet, [machine("a"), machine("b")], extensions=True)  # type: ignore[arg-type]
    assert [len(record["resources"]) for record in found.values()] == [1, 1]
    assert found[machine("a").key]["resources"][0]["properties"] == {"publisher": "P", "type": "T"}
    assert len(fleet.bodies) == 2


def test_some_machines_are_asked_for_by_id_in_groups_of_the_documented_size() -> None:
    wanted = [machine(f"m{number:04d}", sub=SUB if number < 300 else SUB2) for number in range(600)]
    fleet = Fleet(wanted)
    assert len(machines(fleet, wanted)) == 600  # type: ignore[arg-type]
    asked = [re.findall("'(/subscriptions[^']*)'", body["query"]) for body in fleet.bodies]
    assert sorted(len(ids) for ids in asked) == [100, 250, 250]
    assert sorted(key for ids in asked for key in ids) == sorted(one.key for one in wanted)
    assert sorted(body["subscriptions"] for body in fleet.bodies) == [[SUB], [SUB, SUB2], [SUB2]]


def test_very_many_are_asked_for_by_place_and_strangers_are_left_out() -> None:
    wanted = [machine(f"m{number:04d}", f"G{number % 3}", SUB if number % 2 else SUB2) for number in range(1500)]
    fleet = Fleet([*wanted, machine("stranger", "g0")])
    found = machines(fleet, wanted, extensions=True)  # type: ignore[arg-type]
    assert set(found) == {one.key for one in wanted}
    # Two pages of machines, two of extensions.
    assert len(fleet.bodies) == 4
    assert all(body["subscriptions"] == [SUB, SUB2] for body in fleet.bodies)
    assert all("| where resourceGroup in~ ('g0', 'g1', 'g2')" in body["query"] for body in fleet.bodies)


def test_more_resource_groups_than_a_query_should_name_are_not_named() -> None:
    wanted = [machine(f"m{number:04d}", f"g{number}") for number in range(1001)]
    fleet = Fleet(wanted)
    assert len(machines(fleet, wanted)) == 1001  # type: ignore[arg-type]
    assert all("resourceGroup" not in body["query"] for body in fleet.bodies)


def test_no_machines_are_no_request() -> None:
    fleet = Fleet([])
    assert machines(fleet, []) == {}  # type: ignore[arg-type]
    assert fleet.bodies == []


def test_a_scope_that_may_not_be_read_has_no_machines_and_hides_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_graph, "_TOGETHER", 1)
    fleet = Fleet([machine("a"), machine("b", sub=SUB2)])
    fleet.refusal = lambda body: (
        ArmError("no", code="AccessDenied", status=403) if body["subscriptions"] == [SUB2] else None
    )
    assert set(machines(fleet, [machine("a"), machine("b", sub=SUB2)])) == {machine("a").key}  # type: ignore[arg-type]
    assert machines(fleet, [machine("b", sub=SUB2)]) == {}  # type: ignore[arg-type]


def test_any_other_refusal_is_an_error() -> None:
    fleet = Fleet([machine("a")])
    fleet.refusal = lambda body: ArmError("no", code="BadRequest", status=400)
    with pytest.raises(ArmError):
        machines(fleet, [machine("a")])  # type: ignore[arg-type]
