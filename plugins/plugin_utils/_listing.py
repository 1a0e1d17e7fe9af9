# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Arc machines does Azure list, and is the list whole?

Two sources give the same: Resource Graph (fast, over any number of subscriptions, some minutes behind) and ARM's own lists
(2025-01-13: the truth, one request per page and subscription). Either is whole or raises. Queries are built by pure functions;
`from_resource_graph` and `from_arm` read. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..module_utils import _graph
from ..module_utils._errors import ArcError, ArmError, InputError
from ..module_utils._graph import literal, literals, together
from ..module_utils._ids import MachineId, subscription
from ..module_utils._resources._base import properties
from ..module_utils._resources._machine import API_VERSION
from ._hosts import HostVars, host_vars

if TYPE_CHECKING:
    from ..module_utils._arm import Arm

SUBSCRIPTIONS_VERSION = "2022-12-01"

# A bucket of ARM's reads is a subscription's own, so that threads do not wait for each other there.
_ARM_THREADS = 32

# `type` is a column of every resource already.
_EXTENSION_COLUMNS = ("publisher", "typeHandlerVersion", "provisioningState", "enableAutomaticUpgrade")
# Older records have the type in osName.
_OS_TYPE = "iff(isempty(tostring(properties.osType)), tostring(properties.osName), tostring(properties.osType))"
_FILTERS = ("status", "os_type", "locations", "kinds", "tags", "where")
_NO_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"


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
    """The machines' variables, and what the user should know about them."""

    hosts: list[HostVars]
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


def _in(expression: str, values: Sequence[str]) -> list[str]:
    return [f"| where {expression} in~ ({literals(values)})"] if values else []


def _tag_conditions(query: Query) -> list[str]:
    lines = []
    for name, values in query.tags:
        tag = f"tags[{literal(name)}]"
        # A tag that is absent reads as the empty text, which is a value that tags may have.
        lines.append(f"| where isnotnull({tag})")
        if values is not None:
            lines.append(f"| where tostring({tag}) in ({literals(values)})")
    return lines


def machines_query(query: Query) -> str:
    """The KQL query whose rows are the machines wanted."""
    return _graph.machine_rows_query(
        (
            *_in("resourceGroup", query.resource_groups),
            *_in("location", query.locations),
            *_in("kind", query.kinds),
            *_in("tostring(properties.status)", query.statuses),
            *_in(_OS_TYPE, query.os_types),
            *_tag_conditions(query),
            # The line break keeps a comment at the condition's end from swallowing the parenthesis.
            *((f"| where ({query.where}\n)",) if query.where else ()),
        )
    )


def extensions_query(query: Query) -> str:
    """The KQL query whose rows are the extensions of the machines wanted, and of others in the same place."""
    return "\n".join(
        (
            "resources",
            _graph.EXTENSIONS,
            *_in("resourceGroup", query.resource_groups),
            *_in("location", query.locations),
            f"| project id, name, extensionType = properties.type, {_graph.columns(_EXTENSION_COLUMNS)}",
            "| order by id asc",
        )
    )


def matches(raw: Mapping[str, Any], query: Query) -> bool:
    """Whether ARM's record of a machine fulfils the filters, as Resource Graph would judge it."""
    known, tags = properties(raw), raw.get("tags")
    tags = tags if isinstance(tags, Mapping) else {}
    return (
        _is_in(known.get("status"), query.statuses)
        and _is_in(known.get("osType") or known.get("osName"), query.os_types)
        and _is_in(raw.get("location"), query.locations)
        and _is_in(raw.get("kind"), query.kinds)
        and all(name in tags and (wanted is None or (tags[name] or "") in wanted) for name, wanted in query.tags)
    )


def _is_in(value: Any, wanted: Sequence[str]) -> bool:
    return not wanted or str(value or "").lower() in {entry.lower() for entry in wanted}


def from_resource_graph(arm: Arm, query: Query) -> Listing:
    """The machines as Resource Graph knows them."""
    by_group_only = query.management_groups and not query.subscriptions
    readable, warnings = ({}, []) if by_group_only else _readable(arm, query)
    scopes = _graph.scopes(list(readable), query.management_groups)
    texts = [machines_query(query), *([extensions_query(query)] if query.extensions else [])]
    queries = [_graph.Query(text, scope, _cannot_list(scope)) for text in texts for scope in scopes]
    answers = _graph.all_rows(arm, queries)
    raws = [_graph.machine_record(row) for rows in answers[: len(scopes)] for row in rows]
    if query.extensions:
        children: dict[str, dict[str, Any]] = {}
        for row in (row for rows in answers[len(scopes) :] for row in rows):
            key = str(row["id"]).lower()
            children.setdefault(key.partition("/extensions/")[0], {})[key] = _extension_record(row)
        for raw in raws:
            raw["resources"] = list(children.get(str(raw["id"]).lower(), {}).values())
    hosts, more = _hosts(raws)
    return Listing(hosts, warnings + more)


def _extension_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `extensions_query` in the shape of ARM's record of an extension."""
    return {"name": row.get("name"), "properties": {**row, "type": row.get("extensionType")}}


def _cannot_list(scope: Mapping[str, Any]) -> str:
    return f"Cannot list the Arc machines {_graph.scope_name(scope)} with Resource Graph"


def from_arm(arm: Arm, query: Query) -> Listing:
    """The machines as ARM lists them, subscription by subscription."""
    readable, warnings = _readable(arm, query)
    places = [(name, group) for name in readable for group in query.resource_groups or (None,)]
    lists = together([partial(_list, arm, name, group, readable[name], query) for name, group in places], _ARM_THREADS)
    found = {places[index][1] for index, (raw, warning) in enumerate(lists) if raw is not None or warning}
    absent = [group for group in query.resource_groups if group not in found]
    if absent and places:
        raise InputError(f"resource_groups: {', '.join(absent)} is in none of the subscriptions listed.")
    hosts, more = _hosts((raw for listed, _warning in lists for raw in listed or ()), query)
    if not query.extensions:
        for variables in hosts:
            variables["arc_extensions"] = None
    refused = sorted({warning for _raw, warning in lists if warning})
    return Listing(hosts, warnings + refused + more)


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


def _hosts(raws: Iterable[Any], query: Query | None = None) -> tuple[list[HostVars], list[str]]:
    """The variables of each machine that `query` wants, once, in the order of the ids, and what to warn of."""
    hosts: dict[str, HostVars] = {}
    broken = 0
    for raw in raws:
        try:
            variables = host_vars(raw if isinstance(raw, Mapping) else {})
        except InputError:
            broken += 1
        else:
            if query is None or matches(raw, query):
                hosts.setdefault(variables["arc_resource_id"].lower(), variables)
    warnings = [f"{broken} records of Azure's list are left out: they have no id of an Arc machine."] if broken else []
    return [hosts[key] for key in sorted(hosts)], warnings
