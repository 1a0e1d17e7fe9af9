# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab's query language mean what KQL means, and refuse the rest by name?"""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from arclab import kql
from arclab.kql_tree import KqlError
from arclab.kql_values import to_jsonable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
SUB = "11111111-1111-1111-1111-111111111111"


def machine(name: str, status: str | None, **more: Any) -> dict[str, Any]:
    properties = {
        "osType": "linux",
        "agentVersion": "1.40",
        "detectedProperties": {"cores": "4"},
        **more.pop("properties", {}),
    }
    if status is not None:
        properties["status"] = status
    return {
        "id": f"/subscriptions/{SUB}/resourceGroups/Arc-Prod/providers/Microsoft.HybridCompute/machines/{name}",
        "name": name,
        "type": "Microsoft.HybridCompute/machines",
        "location": "WestEurope",
        "resourceGroup": "Arc-Prod",
        "subscriptionId": SUB,
        "properties": properties,
        **more,
    }


MACHINES = [
    machine(
        "web01",
        "Connected",
        tags={"env": "Prod", "a b": "x"},
        zones=["1", "2"],
        properties={"n": 1, "ports": [22, 6516]},
    ),
    machine(
        "web02", "Disconnected", kind="AWS", properties={"n": 2, "lastStatusChange": "2026-02-01T00:00:00.1234567Z"}
    ),
    machine("db01", None, tags={"env": "test"}, properties={"n": 3, "lastStatusChange": "2026-03-01T11:30:00Z"}),
]
EXTENSIONS = [
    {
        "id": MACHINES[0]["id"].upper() + "/extensions/AADSSHLogin",
        "name": "AADSSHLogin",
        "type": "Microsoft.HybridCompute/machines/extensions",
        "subscriptionId": SUB,
        "properties": {"type": "AADSSHLoginForLinux"},
    }
]
CONTAINERS = [
    {"id": f"/subscriptions/{SUB}", "name": "Main", "type": "microsoft.resources/subscriptions", "subscriptionId": SUB}
]
TABLES = {"resources": MACHINES + EXTENSIONS, "resourcecontainers": CONTAINERS, "authorizationresources": []}
ARC = "resources | where type == 'microsoft.hybridcompute/machines' | "


def rows(query: str) -> list[dict[str, Any]]:
    result = kql.run(query, TABLES, NOW)
    names = [field.name for field in result.fields]
    return [dict(zip(names, map(to_jsonable, row), strict=True)) for row in result.rows]


def names(condition: str) -> list[str]:
    return [row["name"] for row in rows(f"{ARC}where {condition} | project name")]


def value(expression: str) -> Any:
    return rows(f"resourcecontainers | project x = {expression}")[0]["x"]


def refusal(query: str) -> KqlError:
    with pytest.raises(KqlError) as caught:
        kql.run(query, TABLES, NOW)
    return caught.value


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("name == 'web01'", ["web01"]),
        ("name == 'WEB01'", []),
        ("name =~ 'WEB01'", ["web01"]),
        ("name != 'web01'", ["web02", "db01"]),
        ("name !~ 'WEB01'", ["web02", "db01"]),
        ("name in ('web01', \"db01\")", ["web01", "db01"]),
        ("name in ('WEB01')", []),
        ("name in~ ('WEB01', 'x')", ["web01"]),
        ("name !in ('web01')", ["web02", "db01"]),
        ("name !in~ ('WEB01')", ["web02", "db01"]),
        ("name in (dynamic(['db01']))", ["db01"]),
        ("id has 'web01'", ["web01"]),
        ("id has 'web0'", []),
        ("id !has 'WEB01'", ["web02", "db01"]),
        ("name contains 'EB0'", ["web01", "web02"]),
        ("name !contains 'eb0'", ["db01"]),
        ("name contains_cs 'EB0'", []),
        ("name startswith 'DB'", ["db01"]),
        ("name !startswith 'db'", ["web01", "web02"]),
        ("name endswith '02'", ["web02"]),
        ("name matches regex @'^web\\d+$'", ["web01", "web02"]),
        ("properties.n between (2 .. 3)", ["web02", "db01"]),
        ("properties.n !between (2..3)", ["web01"]),
        ("properties.n > 1 and properties.n <= 2", ["web02"]),
        ("not(name == 'web01') and (name == 'db01' or false)", ["db01"]),
        ("isempty(kind)", ["web01", "db01"]),
        ("isnotempty(kind)", ["web02"]),
        ("isnull(properties.status)", ["db01"]),
        ("isnotnull(properties.status)", ["web01", "web02"]),
        ("tags.env =~ 'prod'", ["web01"]),
        ("tags['env'] == 'Prod' and tags[\"a b\"] == 'x'", ["web01"]),
        ("properties.ports[0] == 22 and properties.ports[-1] == 6516", ["web01"]),
        ("properties.detectedProperties.['cores'] == '4' and name == 'db01'", ["db01"]),
        ("todatetime(properties.lastStatusChange) < ago(1d)", ["web02"]),
        ("properties.lastStatusChange > now(-1h)", ["db01"]),
    ],
)
def test_conditions(condition: str, expected: list[str]) -> None:
    assert names(condition) == expected


def test_null_is_unequal_to_every_value_but_never_equal() -> None:
    assert names("properties.status != 'Connected'") == ["web02", "db01"]
    assert names("properties.status == ''") == []
    assert names("tostring(properties.status) == ''") == ["db01"]
    assert names("properties.nowhere.deeper == 1") == []


def test_property_names_are_case_sensitive() -> None:
    assert names("properties.Status == 'Connected'") == []


def test_type_location_and_resource_group_are_kept_in_lower_case_but_ids_are_not() -> None:
    row = rows(f"{ARC}where name == 'web01'")[0]
    assert (row["type"], row["location"], row["resourceGroup"]) == (
        "microsoft.hybridcompute/machines",
        "westeurope",
        "arc-prod",
    )
    assert "/resourceGroups/Arc-Prod/" in row["id"]
    assert names("type == 'Microsoft.HybridCompute/machines'") == []


def test_absent_strings_are_empty_and_absent_dynamics_null() -> None:
    row = rows(f"{ARC}where name == 'db01'")[0]
    assert row["kind"] == "" and row["plan"] is None


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("tolower('AbC')", "abc"),
        ("toupper('AbC')", "ABC"),
        ('tostring(dynamic({"a":[1,true]}))', '{"a":[1,true]}'),
        ("tostring(true)", "true"),
        ("toint('12')", 12),
        ("toint('x')", None),
        ("tolong('0x10')", 16),
        ("tobool('true')", True),
        ("tobool('maybe')", None),
        ("todatetime('2026-01-02')", "2026-01-02T00:00:00.0000000Z"),
        ("datetime(2026-01-02 03:04:05)", "2026-01-02T03:04:05.0000000Z"),
        ("todatetime('2026-01-02T03:04:05+02:00')", "2026-01-02T01:04:05.0000000Z"),
        ("strcat('a', 1, true)", "a1true"),
        ("strlen('häß')", 3),
        ("split('a/b/c', '/')", ["a", "b", "c"]),
        ("split('a/b/c', '/', 1)", ["b"]),
        ("split('a/b/c', '/')[2]", "c"),
        ("substring('abcdef', 2)", "cdef"),
        ("substring('abcdef', 1, 2)", "bc"),
        ("indexof('abcabc', 'b')", 1),
        ("indexof('abcabc', 'b', 2)", 4),
        ("indexof('abc', 'x')", -1),
        ("replace_string('a.b.c', '.', '-')", "a-b-c"),
        ("extract(@'v(\\d+)\\.(\\d+)', 2, 'v1.31')", "31"),
        ("extract('x(.)', 1, 'abc')", ""),
        ("iff(1 == 1, 'y', 'n')", "y"),
        ("iif(1 > 2, 'y', 'n')", "n"),
        ("case(1 > 2, 'a', 2 > 1, 'b', 'c')", "b"),
        ("coalesce('', 'b')", "b"),
        ("coalesce(toint('x'), 7)", 7),
        ("array_length(dynamic([1,2,3]))", 3),
        ("array_length(dynamic({}))", None),
        ("bag_pack('a', 1, 'b', 'x')", {"a": 1, "b": "x"}),
        ("pack('a', true)", {"a": True}),
        ("parse_json('{\"a\": 1}').a", 1),
        ("todynamic('no json')", "no json"),
        ("trim('-+', '--a-b--')", "a-b"),
        ("now()", "2026-03-01T12:00:00.0000000Z"),
        ("ago(2h)", "2026-03-01T10:00:00.0000000Z"),
        ("now() - ago(90m)", "01:30:00"),
        ("1d", "1.00:00:00"),
        ("7 / 2", 3),
        ("7 % 4 + 2 * 3 - 1", 8),
        ("7.0 / 2", 3.5),
        ("-3 + 1", -2),
    ],
)
def test_scalar_functions(expression: str, expected: Any) -> None:
    assert value(expression) == expected


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        (r"'a\'b'", "a'b"),
        (r'"a\"b"', 'a"b'),
        (r"'tab\there'", "tab\there"),
        (r"'back\\slash'", "back\\slash"),
        (r"'\u00e9'", "é"),
        (r"@'C:\temp'", "C:\\temp"),
        ("@'it''s'", "it's"),
        ('@"say ""x"""', 'say "x"'),
        ("'// no comment'", "// no comment"),
    ],
)
def test_string_literals(literal: str, text: str) -> None:
    assert value(literal) == text


def test_comments_and_a_default_table() -> None:
    assert rows("where name == 'web01' // | where false\n| project name // end") == [{"name": "web01"}]
    assert rows("RESOURCES | count") == [{"Count": 4}]


def test_columns_get_the_names_that_kql_gives_them() -> None:
    query = (
        ARC + "where name == 'web01' | project name, a = strlen(name), properties.status,"
        " tostring(properties.osType), tags['a b'], 1"
    )
    assert list(rows(query)[0]) == ["name", "a", "properties_status", "properties_osType", "tags_a b", "Column6"]


def test_extend_replaces_in_place_and_sees_the_old_values() -> None:
    row = rows(ARC + "where name == 'web01' | project name, kind | extend name = 'new', kind = name, more = 1")[0]
    assert list(row.items()) == [("name", "new"), ("kind", "web01"), ("more", 1)]


def test_project_away_keep_rename() -> None:
    row = rows(ARC + "take 1 | project-away properties, t*, identity, zones")[0]
    assert set(row) == {
        "id",
        "name",
        "kind",
        "location",
        "resourceGroup",
        "subscriptionId",
        "managedBy",
        "sku",
        "plan",
        "extendedLocation",
    }
    assert list(rows(ARC + "take 1 | project-keep name, id")[0]) == ["id", "name"]
    assert rows(ARC + "where name == 'db01' | project name, id | project-rename machine = name | project machine") == [
        {"machine": "db01"}
    ]


def test_sorting_and_where_nulls_go() -> None:
    base = ARC + "extend status = tostring(properties.status), when = todatetime(properties.lastStatusChange) | "
    assert [row["name"] for row in rows(base + "order by name")] == ["web02", "web01", "db01"]
    assert [row["name"] for row in rows(base + "sort by name asc")] == ["db01", "web01", "web02"]
    assert [row["name"] for row in rows(base + "order by when asc")] == ["web01", "web02", "db01"]
    assert [row["name"] for row in rows(base + "order by when desc")] == ["db01", "web02", "web01"]
    assert [row["name"] for row in rows(base + "order by when desc nulls first")] == ["web01", "db01", "web02"]
    assert [row["name"] for row in rows(base + "order by tostring(properties.osType) asc, name desc | take 2")] == [
        "web02",
        "web01",
    ]
    assert [row["name"] for row in rows(base + "top 2 by name asc")] == ["db01", "web01"]


def test_summarize() -> None:
    assert rows(ARC + "summarize count() by tostring(properties.osType)") == [
        {"properties_osType": "linux", "count_": 3}
    ]
    result = rows(
        ARC + "summarize n = count(), dcount(name), min(toint(properties.n)), total = sum(toint(properties.n)),"
        " make_list(name), make_set(location), any(kind),"
        " latest = max(todatetime(properties.lastStatusChange)) by subscriptionId"
    )[0]
    assert list(result) == [
        "subscriptionId",
        "n",
        "dcount_name",
        "min_properties_n",
        "total",
        "list_name",
        "set_location",
        "any_kind",
        "latest",
    ]
    assert (result["n"], result["dcount_name"], result["min_properties_n"], result["total"]) == (3, 3, 1, 6)
    assert result["list_name"] == ["web01", "web02", "db01"] and result["set_location"] == ["westeurope"]
    assert result["latest"] == "2026-03-01T11:30:00.0000000Z"
    assert rows("resources | where false | summarize count()") == [{"count_": 0}]
    assert rows("resources | where false | summarize count() by name") == []
    assert rows(ARC + "summarize by location") == [{"location": "westeurope"}]


def test_distinct() -> None:
    assert rows("resources | distinct type | order by type asc") == [
        {"type": "microsoft.hybridcompute/machines"},
        {"type": "microsoft.hybridcompute/machines/extensions"},
    ]
    assert len(rows("resources | project name, location | distinct *")) == 4


def test_mv_expand() -> None:
    base = ARC + "where name == 'web01' | "
    assert [row["zones"] for row in rows(base + "project zones | mv-expand zones")] == ["1", "2"]
    assert [row["p"] for row in rows(base + "mv-expand p = properties.ports to typeof(string) | project p")] == [
        "22",
        "6516",
    ]
    assert [row["p"] for row in rows(base + "mv-expand p = properties.ports limit 1 | project p")] == [22]
    assert [row["tags"] for row in rows(base + "mv-expand tags | project tags")] == [{"env": "Prod"}, {"a b": "x"}]
    assert [row["zones"] for row in rows(ARC + "where name == 'db01' | mvexpand zones | project zones")] == [None]


def test_joins() -> None:
    right = "(resources | where type == 'microsoft.hybridcompute/machines/extensions'"
    right += " | project machine = toupper(substring(id, 0, indexof(tolower(id), '/extensions'))), extension = name)"
    left = ARC + "extend machine = toupper(id) | project machine, name | "
    inner = rows(left + f"join kind=inner {right} on machine")
    assert [(row["name"], row["extension"], row["machine1"]) for row in inner] == [
        ("web01", "AADSSHLogin", inner[0]["machine"])
    ]
    outer = rows(left + f"join kind = leftouter {right} on $left.machine == $right.machine | project name, extension")
    assert outer == [
        {"name": "web01", "extension": "AADSSHLogin"},
        {"name": "web02", "extension": ""},
        {"name": "db01", "extension": ""},
    ]
    both = rows(
        ARC
        + "project name, subscriptionId"
        + " | join kind=inner (resourcecontainers | project subscriptionId, sub=name) on subscriptionId"
    )
    assert {row["sub"] for row in both} == {"Main"} and len(both) == 3
    unique = rows(
        ARC + "project name, subscriptionId | join resourcecontainers on $right.subscriptionId == $left.subscriptionId"
    )
    assert len(unique) == 1 and unique[0]["name1"] == "Main"


def test_union() -> None:
    assert len(rows("resources | union resourcecontainers")) == 5
    both = rows(
        "resources | project name, kind | union withsource=origin (resourcecontainers | project name, id)"
        " | where name == 'Main'"
    )
    assert both == [{"origin": "resourcecontainers", "name": "Main", "kind": "", "id": CONTAINERS[0]["id"]}]
    assert list(
        rows("resources | project name, kind | union kind=inner (resourcecontainers | project name, id) | take 1")[0]
    ) == ["name"]


@pytest.mark.parametrize(
    ("query", "code", "token", "column"),
    [
        ("resources | parse id with x", "InvalidQueryLanguage", "parse", 12),
        ("resources | project-reorder name", "InvalidQueryLanguage", "project-reorder", 12),
        ("resources | render table", "InvalidQueryLanguage", "render", 12),
        ("let x = 1; resources", "InvalidQueryLanguage", "let", 0),
        ("union resources, resourcecontainers", "InvalidQueryLanguage", "union", 0),
        ("nothere | count", "InvalidQueryLanguage", "nothere", 0),
        ("resources | where name has_any ('a')", "InvalidQueryLanguage", "has_any", 23),
        ("resources | where isfoo(name)", "InvalidQueryLanguage", "isfoo", 18),
        ("resources | extend x = count()", "InvalidQueryLanguage", "count", 23),
        ("resources | summarize stdev(1)", "InvalidQueryLanguage", "stdev", 22),
        ("resources | summarize name", "InvalidQueryLanguage", "name", 22),
        ("resources | join kind=fullouter resourcecontainers on id", "InvalidQueryLanguage", "fullouter", 22),
        ("resources | join hint.strategy=broadcast resourcecontainers on id", "InvalidQueryLanguage", "hint", 17),
        ("resources | where name in (resourcecontainers | project name)", "InvalidQueryLanguage", "(", 26),
        ("resources | where foo == 1", "SemanticError", "foo", 18),
        ("resources | project-away foo", "SemanticError", "foo", 25),
        ("resources | where name", "SemanticError", "where", 18),
        ("resources | where tags == tags", "SemanticError", "==", 23),
        ("resources | where name > 'a'", "SemanticError", ">", 23),
        ("resources | where name == 1", "SemanticError", "==", 23),
        ("resources | where name.x == 1", "SemanticError", "x", 22),
        ("resources | summarize count() by properties.status", "SemanticError", "properties_status", 43),
        ("resources | order by tags", "SemanticError", "tags", 21),
        ("resources | distinct tags", "SemanticError", "tags", 21),
        ("resources | join (resources) on tags", "SemanticError", "tags", 32),
        ("resources | join (resources) on $left.id == $left.id", "SemanticError", "==", 41),
        ("resources | project a = name, a = id", "SemanticError", "a", 30),
        ("resources | extend x = substring(name)", "SemanticError", "substring", 23),
        ("resources | extend x = iff(true, 'a', 1)", "SemanticError", "iff", 23),
        ("resources | extend x = tolower(1)", "SemanticError", "tolower", 31),
        ("resources | mv-expand name", "SemanticError", "mv-expand", 22),
        ("resources | mv-expand tags limit 401", "SemanticError", "401", 27),
        ("resources | where name == 'x", "ParserFailure", "'x", 26),
        ("resources | where name == DEV' and x", "ParserFailure", "' and x", 29),
        ("resources | where name ==", "ParserFailure", "<EOF>", 25),
        ("resources where name == 'x'", "InvalidQueryLanguage", "resources", 0),
        ("resources | ", "ParserFailure", "<EOF>", 12),
        ("resources | where (name == 'x'", "ParserFailure", "<EOF>", 30),
        ("resources | take many", "ParserFailure", "many", 17),
        ("resources | where name == '\\q'", "ParserFailure", "\\q", 27),
        ("resources | where name == # 1", "ParserFailure", "#", 26),
        ("", "ParserFailure", "<EOF>", 0),
    ],
)
def test_refusals_name_what_and_where(query: str, code: str, token: str, column: int) -> None:
    error = refusal(query)
    assert (error.code, error.token, error.place.line, error.place.column) == (code, token, 1, column)


def test_a_refusal_counts_lines_from_one_and_columns_from_zero() -> None:
    detail = refusal("resources\n| where name == 'x'\n  | nonsense 1").detail()
    assert (detail["line"], detail["characterPositionInLine"], detail["token"]) == (3, 4, "nonsense")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("resources" + " | join (resources) on id" * 4, "DisallowedMaxNumberOfJoins"),
        ("resources" + " | mv-expand zones" * 4, "DisallowedMaxNumberOfMvExpand"),
        ("resources | union resources, resources, resources", "DisallowedMaxNumberOfUnionLegs"),
    ],
)
def test_limits_of_the_service(query: str, code: str) -> None:
    assert refusal(query).code == code


def test_a_bad_regular_expression_is_refused() -> None:
    assert refusal("resources | where name matches regex '('").code == "SemanticError"


def test_odd_values_are_null_not_errors() -> None:
    assert value("extract('a', -1, 'a')") == ""
    assert value("todatetime('2026-01-01T00:00:00+99:00')") is None
    assert value("toint(1e999)") is None
    assert value("1 / 0") is None
    assert value("ago(999999999d)") is None
    assert names("properties.n > 1d") == []


def test_deep_nesting_and_long_timespans_are_refused() -> None:
    assert refusal("resources | where " + "(" * 5000).code == "ParserFailure"
    assert refusal("resources | where now() > ago(99999999999999d)").code == "ParserFailure"


def test_damaged_queries_are_refused_or_run_but_never_crash() -> None:
    chance = random.Random(7)
    parts = [
        "(",
        ")",
        "[",
        "]",
        ",",
        "|",
        "'",
        "..",
        ".",
        "=",
        "==",
        "tags",
        "name",
        "0",
        "-1",
        "by",
        "in",
        "1d",
        "dynamic(",
        "not(",
    ]
    whole = (
        ARC
        + "extend a = tolower(name), b = split(id, '/')[2] | where a startswith 'w' and properties.n between (1 .. 3)"
        " | mv-expand zones | summarize n = count(), take_any(zones) by a, tostring(b) | order by a asc, n desc"
    ).split(" ")
    for _dummy in range(2000):
        words = list(whole)
        for _dummy in range(chance.randint(1, 3)):
            place = chance.randrange(len(words))
            words[place : place + chance.randint(0, 2)] = [chance.choice(parts)]
        with contextlib.suppress(KqlError):
            kql.run(" ".join(words), TABLES, NOW)


def test_only_unsorted_unlimited_results_are_shuffled_and_always_alike() -> None:
    many = {"resources": [machine(f"m{number:03}", "Connected") for number in range(100)]}
    plain = "resources | project id, name"
    result = kql.run(plain, many, NOW)
    assert not result.limited and not result.ordered
    shuffled = kql.shuffled(result, plain)
    assert shuffled != result.rows and sorted(shuffled) == sorted(result.rows)
    assert shuffled == kql.shuffled(kql.run(plain, many, NOW), plain)
    ordered = kql.run(plain + " | order by id asc", many, NOW)
    assert ordered.ordered and kql.shuffled(ordered, plain) == ordered.rows
    assert kql.run(plain + " | take 5", many, NOW).limited


def test_column_types_for_the_table_format() -> None:
    result = kql.run(ARC + "project name, tags, n = strlen(name), b = true, t = now()", TABLES, NOW)
    assert [kql.cell_type(field.type) for field in result.fields] == [
        "string",
        "object",
        "integer",
        "boolean",
        "datetime",
    ]
