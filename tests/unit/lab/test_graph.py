# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab answer Resource Graph requests as Azure documents it: bodies, scopes, paging, formats, refusals?"""

from __future__ import annotations

import base64
from typing import Any

import pytest

from arclab import graph
from arclab.http import ArmFailure, Context

TENANT = "99999999-9999-9999-9999-999999999999"
ONE, TWO, OTHER = (f"{digit * 8}-1111-1111-1111-111111111111" for digit in "123")
BY_ID = "resources | project id, name | order by id asc"


def subscription(guid: str, *groups: str) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{guid}",
        "name": f"sub {guid[0]}",
        "type": "Microsoft.Resources/subscriptions",
        "subscriptionId": guid,
        "tenantId": TENANT,
        "properties": {"managementGroupAncestorsChain": [{"name": name} for name in groups]},
    }


def machine(guid: str, number: int) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{guid}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/m{number:04}",
        "name": f"m{number:04}",
        "type": "microsoft.hybridcompute/machines",
        "location": "westeurope" if number % 2 else "eastus",
        "resourceGroup": "rg",
        "subscriptionId": guid,
        "properties": {"status": "Connected", "osType": "linux" if number % 3 else "windows"},
    }


def assignment(scope: str, owner: str, name: str) -> dict[str, Any]:
    return {
        "id": f"{scope.rstrip('/')}/providers/Microsoft.Authorization/roleAssignments/{name}",
        "name": name,
        "type": "microsoft.authorization/roleassignments",
        "subscriptionId": owner,
        "properties": {"scope": scope},
    }


TABLES = {
    "resources": [machine(ONE, number) for number in range(25)] + [machine(TWO, number) for number in range(100, 105)],
    "resourcecontainers": [subscription(ONE, "prod", "root"), subscription(TWO, "test", "root")],
    "authorizationresources": [
        assignment("/", "", "above"),
        assignment(f"/subscriptions/{ONE}", ONE, "at"),
        assignment(f"/subscriptions/{ONE}/resourceGroups/rg", ONE, "below"),
        {"id": "/x", "name": "owner", "type": "microsoft.authorization/roledefinitions", "subscriptionId": ""},
    ],
}


def ask(body: Any, version: str = "2022-10-01", tables: Any = None) -> dict[str, Any]:
    return graph.resources(_context(body, version), TABLES if tables is None else tables).body


def _context(body: Any, version: str) -> Context:
    path = "/providers/Microsoft.ResourceGraph/resources"
    return Context("POST", path, {"api-version": version}, body, version, "p", 1.8e9, "https://x")


def refused(body: Any, tables: Any = None) -> ArmFailure:
    with pytest.raises(ArmFailure) as caught:
        ask(body, tables=tables)
    return caught.value


def codes(failure: ArmFailure) -> list[str]:
    return [detail["code"] for detail in failure.details]


def test_the_plain_answer() -> None:
    body = ask({"query": BY_ID, "subscriptions": [ONE]})
    assert (body["totalRecords"], body["count"], body["resultTruncated"], body["facets"]) == (25, 25, "false", [])
    assert "$skipToken" not in body
    assert body["data"][0] == {"id": TABLES["resources"][0]["id"], "name": "m0000"}


def test_a_page_token_leads_through_all_rows_once() -> None:
    request: dict[str, Any] = {"query": BY_ID, "options": {"$top": 7}}
    seen = []
    pages = 0
    while True:
        body = ask(request)
        seen += [row["id"] for row in body["data"]]
        pages += 1
        assert body["totalRecords"] == 30 and body["count"] == len(body["data"]) and body["resultTruncated"] == "false"
        if "$skipToken" not in body:
            break
        request = {"query": BY_ID, "options": {"$skipToken": body["$skipToken"]}}
    assert pages == 5 and seen == sorted(row["id"] for row in TABLES["resources"])


def test_paging_without_order_by_still_gives_each_row_once() -> None:
    query = "resources | project id"
    first = ask({"query": query, "options": {"$top": 20}})
    second = ask({"query": query, "options": {"$skipToken": first["$skipToken"]}})
    ids = [row["id"] for row in first["data"] + second["data"]]
    assert len(set(ids)) == 30
    assert ids != [row["id"] for row in TABLES["resources"]]


def test_top_and_skip_override_the_token() -> None:
    token = ask({"query": BY_ID, "options": {"$top": 5}})["$skipToken"]
    assert [row["name"] for row in ask({"query": BY_ID, "options": {"$skipToken": token, "$top": 1}})["data"]] == [
        "m0005"
    ]
    body = ask({"query": BY_ID, "options": {"$skipToken": token, "$skip": 20}})
    assert (body["data"][0]["name"], body["count"]) == ("m0020", 5)


@pytest.mark.parametrize(
    "query", ["resources | project name", "resources | project id | take 20", "resources | top 20 by id"]
)
def test_no_token_without_id_or_with_a_limit(query: str) -> None:
    body = ask({"query": query, "options": {"$top": 10}})
    assert "$skipToken" not in body
    assert (body["count"], body["resultTruncated"]) == (10, "true")


def test_skip_is_ignored_with_a_limit() -> None:
    body = ask({"query": BY_ID + " | take 3", "options": {"$skip": 2}})
    assert [row["name"] for row in body["data"]] == ["m0000", "m0001", "m0002"]
    assert body["totalRecords"] == 3


def test_at_most_a_thousand_rows_come_at_once() -> None:
    tables = {**TABLES, "resources": [machine(ONE, number) for number in range(1200)]}
    body = ask({"query": BY_ID}, tables=tables)
    assert (body["totalRecords"], body["count"]) == (1200, 1000) and body["$skipToken"]


@pytest.mark.parametrize(
    "change",
    [
        {"query": BY_ID + " "},
        {"subscriptions": [ONE]},
        {"options": {"$skipToken": "bm90IG1pbmU="}},
        {"options": {"$skipToken": "***"}},
    ],
)
def test_a_token_is_good_for_its_query_and_scopes_only(change: dict[str, Any]) -> None:
    token = ask({"query": BY_ID, "options": {"$top": 5}})["$skipToken"]
    failure = refused({"query": BY_ID, "options": {"$skipToken": token}, **change})
    assert failure.status == 400 and codes(failure) == ["InvalidSkipToken"]


def test_an_altered_token_is_refused() -> None:
    raw = bytearray(base64.b64decode(ask({"query": BY_ID, "options": {"$top": 5}})["$skipToken"]))
    raw[-3] ^= 1
    assert refused({"query": BY_ID, "options": {"$skipToken": base64.b64encode(raw).decode()}}).status == 400


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"query": ""},
        {"query": 3},
        {"query": BY_ID, "subscriptions": ONE},
        {"query": BY_ID, "subscriptions": [3]},
        {"query": BY_ID, "subscriptions": [ONE], "managementGroups": ["prod"]},
        {"query": BY_ID, "options": []},
        {"query": BY_ID, "top": 3},
        {"query": BY_ID, "options": {"top": 3}},
        {"query": BY_ID, "options": {"$top": 0}},
        {"query": BY_ID, "options": {"$top": 1001}},
        {"query": BY_ID, "options": {"$top": "5"}},
        {"query": BY_ID, "options": {"$top": True}},
        {"query": BY_ID, "options": {"$skip": -1}},
        {"query": BY_ID, "options": {"$skipToken": 5}},
        {"query": BY_ID, "options": {"resultFormat": "csv"}},
        {"query": BY_ID, "options": {"allowPartialScopes": "yes"}},
        {"query": BY_ID, "options": {"authorizationScopeFilter": "Everywhere"}},
        {"query": BY_ID, "facets": [{}]},
    ],
)
def test_bad_bodies_are_refused_in_details(body: Any) -> None:
    failure = refused(body)
    assert (failure.status, failure.code, codes(failure)) == (400, "BadRequest", ["InvalidRequestContent"])
    assert failure.message.startswith("Please provide below info when asking for support: timestamp = 2027-01-15T")


def test_nulls_count_as_absent() -> None:
    options = {"$top": None, "$skip": None, "$skipToken": None, "resultFormat": None, "allowPartialScopes": None}
    body = ask({"query": BY_ID, "subscriptions": None, "managementGroups": None, "options": options, "facets": None})
    assert body["count"] == 30


def test_a_refused_query_names_operator_and_place() -> None:
    failure = refused({"query": "resources | parse id with x"})
    assert (failure.status, failure.code, codes(failure)) == (
        400,
        "BadRequest",
        ["InvalidQuery", "InvalidQueryLanguage"],
    )
    assert failure.details[1]["token"] == "parse"
    assert codes(refused({"query": "resources | where name =="})) == ["InvalidQuery", "ParserFailure"]


def test_scopes() -> None:
    assert ask({"query": BY_ID})["totalRecords"] == 30
    assert ask({"query": BY_ID, "subscriptions": []})["totalRecords"] == 30
    assert ask({"query": BY_ID, "subscriptions": [TWO.upper()]})["totalRecords"] == 5
    assert ask({"query": BY_ID, "managementGroups": ["Prod"]})["totalRecords"] == 25
    assert ask({"query": BY_ID, "managementGroups": ["root"]})["totalRecords"] == 30
    assert ask({"query": BY_ID, "managementGroups": [TENANT]})["totalRecords"] == 30


def test_unreadable_subscriptions_are_left_out_while_one_remains() -> None:
    assert ask({"query": BY_ID, "subscriptions": [TWO, OTHER]})["totalRecords"] == 5
    for body in ({"subscriptions": [OTHER]}, {"managementGroups": ["nowhere"]}):
        failure = refused({"query": BY_ID, **body})
        assert (failure.status, failure.code, codes(failure)) == (403, "AccessDenied", ["AccessDenied"])
    nothing = {name: [] for name in TABLES}
    assert refused({"query": BY_ID}, tables=nothing).status == 403


def test_no_subscription_at_all_is_a_bad_request() -> None:
    failure = refused({"query": BY_ID, "subscriptions": [""]})
    assert (failure.status, codes(failure)) == (400, ["NoValidSubscriptionsInQueryRequest"])


@pytest.mark.parametrize(
    ("scope_filter", "expected"),
    [
        (None, ["at", "below"]),
        ("AtScopeAndBelow", ["at", "below"]),
        ("AtScopeAndAbove", ["above", "at"]),
        ("AtScopeExact", ["at"]),
        ("AtScopeAboveAndBelow", ["above", "at", "below"]),
    ],
)
def test_authorization_scope_filter(scope_filter: str | None, expected: list[str]) -> None:
    query = "authorizationresources | where type endswith '/roleassignments' | project name | order by name asc"
    body = ask({"query": query, "subscriptions": [ONE], "options": {"authorizationScopeFilter": scope_filter}})
    assert [row["name"] for row in body["data"]] == expected
    definitions = "authorizationresources | where type =~ 'microsoft.authorization/roledefinitions'"
    assert ask({"query": definitions, "subscriptions": [TWO]})["count"] == 1


def test_table_format_is_asked_for_or_the_default_of_old_versions() -> None:
    query = "resources | project name, tags, length = strlen(name) | order by name asc | take 1"
    table = {
        "columns": [
            {"name": "name", "type": "string"},
            {"name": "tags", "type": "object"},
            {"name": "length", "type": "integer"},
        ],
        "rows": [["m0000", None, 5]],
    }
    assert ask({"query": query, "options": {"resultFormat": "table"}})["data"] == table
    assert ask({"query": query}, version="2019-04-01")["data"] == table
    assert ask({"query": query}, version="2021-03-01")["data"] == [{"name": "m0000", "tags": None, "length": 5}]


def test_tenant_wide_queries_say_whether_the_limit_was_hit() -> None:
    answer = graph.resources(_context({"query": BY_ID}, "2022-10-01"), TABLES)
    assert answer.headers == {"x-ms-tenant-subscription-limit-hit": "false"}
    narrow = graph.resources(_context({"query": BY_ID, "subscriptions": [ONE]}, "2022-10-01"), TABLES)
    assert narrow.headers == {}


def test_facets() -> None:
    facets = [
        {"expression": "location"},
        {"expression": "properties.osType", "options": {"sortBy": "properties_osType", "sortOrder": "asc", "$top": 1}},
        {"expression": "location", "options": {"filter": "name endswith '1'"}},
        {"expression": "nonsense"},
    ]
    query = "resources | project id, name, location, properties.osType"
    found = ask({"query": query, "subscriptions": [ONE], "facets": facets})["facets"]
    assert found[0] == {
        "expression": "location",
        "resultType": "FacetResult",
        "totalRecords": 2,
        "count": 2,
        "data": [{"location": "eastus", "count": 13}, {"location": "westeurope", "count": 12}],
    }
    assert found[1]["data"] == [{"properties_osType": "linux", "count": 16}] and found[1]["totalRecords"] == 2
    assert found[2]["data"] == [{"location": "westeurope", "count": 3}]
    assert found[3]["resultType"] == "FacetError"
    assert [error["code"] for error in found[3]["errors"]] == ["NoValidColumns", "InvalidColumnNames"]
