# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Arc machines does Azure list, and is the list whole?

Two sources give records of one shape: Resource Graph (2022-10-01: fast, over any number of subscriptions, some minutes
behind) and ARM's own lists (2025-01-13: the truth, one request per page and subscription). Either is whole or raises.
Queries are built and records cleaned by pure functions; `from_resource_graph` and `from_arm` read.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..module_utils._errors import ArcError, ArmError, InputError
from ..module_utils._ids import MachineId, subscription
from ..module_utils._resources._machine import API_VERSION

if TYPE_CHECKING:
    from ..module_utils._arm import Arm

GRAPH_VERSION = "2022-10-01"
SUBSCRIPTIONS_VERSION = "2022-12-01"

_PAGE = 1000
# Resource Graph takes at most 1000 subscriptions a request, and 15 queries in 5 s: more threads would only wait.
_SUBSCRIPTIONS_AT_ONCE = 500
_MANAGEMENT_GROUPS_AT_ONCE = 10
_GRAPH_THREADS = 4
_ARM_THREADS = 16
# A machine that comes or goes while pages are read makes a list look short; that passes when it is read again.
_ATTEMPTS = 3

_PROPERTIES = (
    "status",
    "lastStatusChange",
    "agentVersion",
    "osType",
    "osName",
    "osSku",
    "machineFqdn",
    "dnsFqdn",
    "vmId",
)
_EXTENSION_PROPERTIES = ("publisher", "type", "typeHandlerVersion", "provisioningState")
# `type` is a column of every resource already.
_EXTENSION_COLUMNS = ("publisher", "typeHandlerVersion", "provisioningState", "enableAutomaticUpgrade")
# Older records have the type in osName.
_OS_TYPE = "iff(isempty(tostring(properties.osType)), tostring(properties.osName), tostring(properties.osType))"
_FILTERS = ("status", "os_type", "locations", "kinds", "tags", "where")
_NO_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"

T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """Which machines are wanted. Empty lists mean "no condition"; a tag whose values are `None` may have any value.

    `unreadable` is `fail` or `skip`: what to do with a subscription that this identity cannot read.
    """

    subscriptions: tuple[str, ...] = ()
    management_groups: tuple[str, ...] = ()
    resource_groups: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    os_types: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    where: str | None = None
    extensions: bool = True
    unreadable: str = "fail"

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, subscription_id: str | None = None) -> Query:
        """The query that an inventory file describes; `subscription_id` is the scope where the file names none.

        Raises InputError for what cannot be meant.
        """
        filters = options.get("filters") or {}
        if not isinstance(filters, Mapping):
            raise InputError("filters is not a dictionary.")
        unknown = [str(name) for name in filters if name not in _FILTERS]
        if unknown:
            raise InputError(f"filters: {', '.join(unknown)} is none of {', '.join(_FILTERS)}.")
        subscriptions = _texts(options.get("subscriptions"), "subscriptions")
        management_groups = _texts(options.get("management_groups"), "management_groups")
        if not subscriptions and not management_groups and subscription_id:
            subscriptions = (subscription_id,)
        where = filters.get("where")
        if options.get("source") == "arm":
            if where:
                raise InputError("filters.where is a condition of Resource Graph; source: arm cannot apply it.")
            if management_groups:
                raise InputError("management_groups needs source: resource_graph; ARM lists by subscription only.")
        groups = _texts(options.get("resource_groups"), "resource_groups")
        return cls(
            subscriptions=tuple(dict.fromkeys(subscription(name).lower() for name in subscriptions)),
            management_groups=management_groups,
            resource_groups=tuple(_resource_group(name) for name in groups),
            statuses=_texts(filters.get("status"), "filters.status"),
            os_types=_texts(filters.get("os_type"), "filters.os_type"),
            locations=tuple(_location(name) for name in _texts(filters.get("locations"), "filters.locations")),
            kinds=_texts(filters.get("kinds"), "filters.kinds"),
            tags=_tags(filters.get("tags")),
            where=_condition(where) if where else None,
            extensions=bool(options.get("extensions", True)),
            unreadable=options.get("unreadable_subscriptions") or "fail",
        )


@dataclass(frozen=True)
class Listing:
    """The machines' records and what the user should know about them."""

    records: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


def _texts(value: Any, option: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, (str, int, float)) else value
    if isinstance(value, bool) or not isinstance(values, Sequence):
        raise InputError(f"{option} is neither a text nor a list of texts.")
    for entry in values:
        if isinstance(entry, bool) or not isinstance(entry, (str, int, float)):
            raise InputError(f"{option}: {entry!r} is no text.", hint="Put it in quotes if it is meant as one.")
    return tuple(str(entry) for entry in values)


def _tags(value: Any) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise InputError("filters.tags is not a dictionary of tag names and values.")
    return tuple(
        (str(name), None if wanted is None else _texts(wanted, f"filters.tags.{name}"))
        for name, wanted in value.items()
    )


def _resource_group(name: str) -> str:
    return MachineId.build(_NO_SUBSCRIPTION, name, "any").resource_group


def _location(name: str) -> str:
    """Portals show "West Europe" where the API says "westeurope"."""
    return name.replace(" ", "").lower()


_STRING = re.compile(r"""@'[^']*'|@"[^"]*"|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def _condition(where: Any) -> str:
    if not isinstance(where, str):
        raise InputError("filters.where is not a text.")
    outside = _STRING.sub("", where)
    if "|" in outside or ";" in outside:
        raise InputError(
            "filters.where is one condition; it cannot hold further operators of a query.",
            hint="Take out the '|' or ';'.",
        )
    return where


def literal(text: str) -> str:
    """`text` as a string literal of KQL, which nothing in it can end."""
    return "'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character in "\\'\"":
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else character


def _literals(values: Iterable[str]) -> str:
    return ", ".join(literal(value) for value in values)


def _in(expression: str, values: Sequence[str]) -> list[str]:
    return [f"| where {expression} in~ ({_literals(values)})"] if values else []


def _tag_conditions(query: Query) -> list[str]:
    lines = []
    for name, values in query.tags:
        tag = f"tags[{literal(name)}]"
        # A tag that is absent reads as the empty text, which is a value that tags may have.
        lines.append(f"| where isnotnull({tag})")
        if values is not None:
            lines.append(f"| where tostring({tag}) in ({_literals(values)})")
    return lines


def _columns(names: Iterable[str]) -> str:
    return ", ".join(f"{name} = properties.{name}" for name in names)


def machines_query(query: Query) -> str:
    """The KQL query whose rows are the machines wanted."""
    return "\n".join(
        (
            "resources",
            "| where type =~ 'microsoft.hybridcompute/machines'",
            *_in("resourceGroup", query.resource_groups),
            *_in("location", query.locations),
            *_in("kind", query.kinds),
            *_in("tostring(properties.status)", query.statuses),
            *_in(_OS_TYPE, query.os_types),
            *_tag_conditions(query),
            # The line break keeps a comment at the condition's end from swallowing the parenthesis.
            *((f"| where ({query.where}\n)",) if query.where else ()),
            f"| project id, kind, location, tags, {_columns((*_PROPERTIES, 'agentConfiguration'))}",
            "| order by id asc",
        )
    )


def extensions_query(query: Query) -> str:
    """The KQL query whose rows are the extensions of the machines wanted, and of others in the same place."""
    return "\n".join(
        (
            "resources",
            "| where type =~ 'microsoft.hybridcompute/machines/extensions'",
            *_in("resourceGroup", query.resource_groups),
            *_in("location", query.locations),
            f"| project id, name, extensionType = properties.type, {_columns(_EXTENSION_COLUMNS)}",
            "| order by id asc",
        )
    )


def machine_record(raw: Any) -> dict[str, Any] | None:
    """The part of a machine's ARM record that an inventory needs; `None` for one without a machine's id.

    Anything may be missing in a record, or be of a wrong kind: it is absent then.
    """
    if not isinstance(raw, Mapping):
        return None
    try:
        machine = MachineId.parse(raw.get("id") or "")
    except InputError:
        return None
    properties, tags, children = raw.get("properties"), raw.get("tags"), raw.get("resources")
    properties = properties if isinstance(properties, Mapping) else {}
    kept: dict[str, Any] = {name: _text(properties.get(name)) for name in _PROPERTIES}
    config = properties.get("agentConfiguration")
    kept["agentConfiguration"] = dict(config) if isinstance(config, Mapping) else None
    return {
        "id": str(machine),
        "location": _text(raw.get("location")),
        "kind": _text(raw.get("kind")),
        "tags": {str(name): _text(value) or "" for name, value in tags.items()} if isinstance(tags, Mapping) else {},
        "properties": kept,
        "resources": [_extension_record(child) for child in children if isinstance(child, Mapping)]
        if isinstance(children, list)
        else None,
    }


def _extension_record(raw: Mapping[str, Any]) -> dict[str, Any]:
    properties = raw.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    upgrade = properties.get("enableAutomaticUpgrade")
    kept: dict[str, Any] = {name: _text(properties.get(name)) for name in _EXTENSION_PROPERTIES}
    kept["enableAutomaticUpgrade"] = upgrade if isinstance(upgrade, bool) else None
    return {"name": _text(raw.get("name")), "properties": kept}


def _text(value: Any) -> str | None:
    return value or None if isinstance(value, str) else None


def _machine_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `machines_query` in the shape of an ARM record."""
    return {**row, "properties": {name: row.get(name) for name in (*_PROPERTIES, "agentConfiguration")}}


def _extension_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": row.get("name"), "properties": {**row, "type": row.get("extensionType")}}


def matches(record: Mapping[str, Any], query: Query) -> bool:
    """Whether a record fulfils the filters, as Resource Graph would judge it."""
    properties, tags = record["properties"], record["tags"]
    return (
        _is_in(properties["status"], query.statuses)
        and _is_in(properties["osType"] or properties["osName"], query.os_types)
        and _is_in(record["location"], query.locations)
        and _is_in(record["kind"], query.kinds)
        and all(name in tags and (wanted is None or tags[name] in wanted) for name, wanted in query.tags)
    )


def _is_in(value: str | None, wanted: Sequence[str]) -> bool:
    return not wanted or (value or "").lower() in {entry.lower() for entry in wanted}


def from_resource_graph(arm: Arm, query: Query) -> Listing:
    """The machines as Resource Graph knows them."""
    by_group_only = query.management_groups and not query.subscriptions
    readable, warnings = ({}, []) if by_group_only else _readable(arm, query)
    scopes = _scopes(list(readable), query.management_groups)
    texts = [machines_query(query), *([extensions_query(query)] if query.extensions else [])]
    answers = _together([partial(_rows, arm, text, scope) for text in texts for scope in scopes], _GRAPH_THREADS)
    machines = [_machine_row(row) for rows in answers[: len(scopes)] for row in rows]
    children = {str(row["id"]).lower(): row for rows in answers[len(scopes) :] for row in rows}
    records, more = _records(machines)
    if query.extensions:
        by_machine: dict[str, list[dict[str, Any]]] = {}
        for key, row in children.items():
            by_machine.setdefault(key.partition("/extensions/")[0], []).append(_extension_record(_extension_row(row)))
        for record in records:
            record["resources"] = by_machine.get(record["id"].lower(), [])
    return Listing(records, warnings + more)


def _scopes(subscriptions: Sequence[str], management_groups: Sequence[str]) -> list[dict[str, Any]]:
    """The scopes of the requests.

    Without a scope, Resource Graph would look at no more than 10,000 subscriptions, and tell so in a header only.
    """
    by_subscription = [{"subscriptions": part} for part in _parts(subscriptions, _SUBSCRIPTIONS_AT_ONCE)]
    by_group = [{"managementGroups": part} for part in _parts(management_groups, _MANAGEMENT_GROUPS_AT_ONCE)]
    return by_subscription + by_group


def _parts(values: Sequence[str], size: int) -> list[list[str]]:
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def _rows(arm: Arm, text: str, scope: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All rows of a query. Raises when Resource Graph does not give as many different ones as it counts."""
    doing = f"Cannot list the Arc machines {_scope_name(scope)} with Resource Graph"
    for _attempt in range(_ATTEMPTS):
        rows, total = _read_pages(arm, text, scope, doing)
        if len({str(row.get("id")).lower() for row in rows}) == len(rows) == total:
            return rows
    raise ArcError(
        f"{doing}: it gave {len(rows)} rows of {'more' if total is None else total}, so the list would be incomplete.",
        hint="Run again; if that does not help, list fewer subscriptions at once or use source: arm.",
    )


def _read_pages(
    arm: Arm, text: str, scope: Mapping[str, Any], doing: str
) -> tuple[list[Mapping[str, Any]], int | None]:
    rows: list[Mapping[str, Any]] = []
    token = None
    while True:
        # More subscriptions than Resource Graph can look through at once are an error, never a part of them.
        options: dict[str, Any] = {"$top": _PAGE, "resultFormat": "objectArray", "allowPartialScopes": False}
        if token:
            options["$skipToken"] = token
        body = {"query": text, "options": options, **scope}
        answer = arm.post("/providers/Microsoft.ResourceGraph/resources", GRAPH_VERSION, body, doing=doing)
        data, following = answer.get("data"), answer.get("$skipToken")
        if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
            raise ArcError(f"{doing}: Azure answers without rows.", hint="Run again later.")
        rows.extend(data)
        if not following and str(answer.get("resultTruncated")).lower() == "true":
            return rows, None
        if not following or not data or following == token:
            return rows, answer.get("totalRecords")
        token = following


def _scope_name(scope: Mapping[str, Any]) -> str:
    noun = "subscription" if "subscriptions" in scope else "management group"
    names: list[str] = next(iter(scope.values()))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"of {noun}{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"


def from_arm(arm: Arm, query: Query) -> Listing:
    """The machines as ARM lists them, subscription by subscription."""
    readable, warnings = _readable(arm, query)
    places = [(name, group) for name in readable for group in query.resource_groups or (None,)]
    lists = _together([partial(_list, arm, name, group, readable[name], query) for name, group in places], _ARM_THREADS)
    found = {places[index][1] for index, (raw, warning) in enumerate(lists) if raw is not None or warning}
    absent = [group for group in query.resource_groups if group not in found]
    if absent and places:
        raise InputError(f"resource_groups: {', '.join(absent)} is in none of the subscriptions listed.")
    records, more = _records(item for raw, _warning in lists for item in raw or ())
    refused = sorted({warning for _raw, warning in lists if warning})
    chosen = [record for record in records if matches(record, query)]
    if not query.extensions:
        chosen = [{**record, "resources": None} for record in chosen]
    return Listing(chosen, warnings + refused + more)


def _list(
    arm: Arm, name: str, group: str | None, label: str, query: Query
) -> tuple[list[dict[str, Any]] | None, str | None]:
    """The machines of one place and what to warn of; no list where the resource group does not exist."""
    parent = f"/subscriptions/{name}" + (f"/resourceGroups/{group}" if group else "")
    path = f"{parent}/providers/Microsoft.HybridCompute/machines"
    doing = f"Cannot list the Arc machines of {f'resource group {group} in ' if group else ''}{label}"
    try:
        return list(arm.pages(path, API_VERSION, doing=doing)), None
    except ArmError as exc:
        if group and exc.code == "ResourceGroupNotFound":
            return None, None
        if exc.status == 403 and query.unreadable == "skip":
            return None, f"{doing}; it is left out."
        raise


def _readable(arm: Arm, query: Query) -> tuple[dict[str, str], list[str]]:
    """The subscriptions to list, by id, each with what to call it; all readable ones where the query names none."""
    labels = {
        str(item.get("subscriptionId")).lower(): _label(item)
        for item in arm.pages("/subscriptions", SUBSCRIPTIONS_VERSION, doing="Cannot list the subscriptions")
        if str(item.get("state")).lower() != "deleted"
    }
    if not query.subscriptions:
        if not labels:
            raise ArcError(
                "This identity can read no subscription, so there is nothing to list.",
                hint="Give it the role Reader where the machines are, and check tenant and cloud_environment.",
            )
        return labels, []
    missing = [name for name in query.subscriptions if name not in labels]
    if not missing:
        return {name: labels[name] for name in query.subscriptions}, []
    sentence = f"This identity cannot read subscription{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    if query.unreadable != "skip":
        raise ArcError(
            f"{sentence}, so the inventory would be incomplete.",
            hint="Give it the role Reader there, check tenant and ids, or set unreadable_subscriptions: skip.",
        )
    known = {name: labels[name] for name in query.subscriptions if name in labels}
    return known, [f"{sentence}; left out."]


def _label(item: Mapping[str, Any]) -> str:
    return f"subscription {item.get('displayName')} ({item.get('subscriptionId')})"


def _records(raws: Iterable[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Clean records in the order of their ids, each machine once."""
    records: dict[str, dict[str, Any]] = {}
    broken = 0
    for raw in raws:
        record = machine_record(raw)
        if record is None:
            broken += 1
        else:
            records.setdefault(record["id"].lower(), record)
    warnings = [f"{broken} records of Azure's list are left out: they have no id of an Arc machine."] if broken else []
    return [records[key] for key in sorted(records)], warnings


def _together(jobs: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """The results of all jobs, in their order; the first failure ends it."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
