# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure Resource Graph know, and is the answer whole?

The only door to Resource Graph (2022-10-01). Rows of many queries come in pages of 1,000, read side by side: the articles "Guidance
for pagination" and "Guidance for throttled requests" allow `$skip` in a query that is ordered by something unique, and advise groups
of fewer than 300 subscriptions or ids. How fast requests go is `Arm`'s business. An answer is whole or raises. It may be some minutes
old, and what this identity may not read is missing without a word: no write is to be decided by it. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ._errors import ArcError, ArmError
from ._ids import MachineId

if TYPE_CHECKING:
    from ._arm import Arm

API_VERSION = "2022-10-01"

PAGE = 1000
# Resource Graph's quota is 15 queries in 5 s: more threads would only wait for it.
THREADS = 15
_TOGETHER = 250
_MANAGEMENT_GROUPS_TOGETHER = 10
# A machine that comes or goes while pages are read makes a list look short; that passes when it is read again.
_ATTEMPTS = 3
# Up to here machines are asked for by id, 250 at once; beyond, by resource group, 1,000 at once, though strangers come along.
_BY_ID_AT_MOST = 1000

MACHINES = "| where type =~ 'microsoft.hybridcompute/machines'"
EXTENSIONS = "| where type =~ 'microsoft.hybridcompute/machines/extensions'"

# The properties of a machine that this collection uses.
MACHINE_PROPERTIES = (
    "status",
    "lastStatusChange",
    "agentVersion",
    "osType",
    "osName",
    "osSku",
    "machineFqdn",
    "dnsFqdn",
    "vmId",
    "agentConfiguration",
)

T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """A query in KQL whose rows have an `id` and are ordered by it, and the scope (see `scopes`) to look through.

    `doing` is the beginning of the sentence that an error completes.
    """

    text: str
    scope: Mapping[str, Any]
    doing: str


@dataclass(frozen=True)
class _Page:
    rows: list[Mapping[str, Any]]
    total: int | None
    token: str | None
    truncated: bool


def rows(arm: Arm, text: str, scope: Mapping[str, Any], doing: str) -> list[Mapping[str, Any]]:
    """All rows of one query, as `all_rows` reads those of many."""
    return all_rows(arm, [Query(text, scope, doing)])[0]


def all_rows(arm: Arm, queries: Sequence[Query]) -> list[list[Mapping[str, Any]]]:
    """All rows of each query. Raises ArcError where Resource Graph does not give as many different ones as it counts."""
    firsts = together([partial(_page, arm, query) for query in queries], THREADS)
    jobs, owners = [], []
    for index, (query, first) in enumerate(zip(queries, firsts)):
        rest = _rest(arm, query, first)
        jobs += rest
        owners += [index] * len(rest)
    pages = [[first] for first in firsts]
    for index, more in zip(owners, together(jobs, THREADS)):
        pages[index] += more
    return [_certain(arm, query, found) for query, found in zip(queries, pages)]


def _rest(arm: Arm, query: Query, first: _Page) -> list[Callable[[], list[_Page]]]:
    """What to do for the pages after the first one."""
    if not first.token:
        return []
    if first.total is None or len(first.rows) < PAGE:
        # Pages may be shorter than they were asked for, and where the next one begins is known to the token only.
        return [partial(_following, arm, query, first)]
    return [partial(_skipping, arm, query, skip) for skip in range(PAGE, first.total, PAGE)]


def _skipping(arm: Arm, query: Query, skip: int) -> list[_Page]:
    return [_page(arm, query, {"$skip": skip})]


def _following(arm: Arm, query: Query, page: _Page) -> list[_Page]:
    """The pages after `page`, one after another."""
    pages: list[_Page] = []
    while page.token and page.rows:
        previous, page = page, _page(arm, query, {"$skipToken": page.token})
        pages.append(page)
        if page.token == previous.token:
            break
    return pages


def _certain(arm: Arm, query: Query, pages: list[_Page]) -> list[Mapping[str, Any]]:
    """The rows of `pages`, read again one after another where they are not whole."""
    for attempt in range(1, _ATTEMPTS + 1):
        found = _whole(pages)
        if found is not None:
            return found
        if attempt < _ATTEMPTS:
            first = _page(arm, query)
            pages = [first, *_following(arm, query, first)]
    count = sum(len(page.rows) for page in pages)
    total = next((page.total for page in pages if page.total is not None), None)
    raise ArcError(
        f"{query.doing}: Resource Graph gave {count} rows of {'more' if total in (None, count) else total}, so the list would be "
        "incomplete.",
        hint="Run again; if that does not help, ask for fewer subscriptions at once, or ARM itself (in an inventory, source: arm).",
    )


def _whole(pages: Sequence[_Page]) -> list[Mapping[str, Any]] | None:
    """All rows, if they are as many different ones as all pages say that there are."""
    found = [row for page in pages for row in page.rows]
    totals = {page.total for page in pages if page.total is not None}
    ids = {str(row.get("id")) for row in found}
    whole = totals == {len(found)} and len(ids) == len(found) and not any(page.truncated for page in pages)
    return found if whole else None


def _page(arm: Arm, query: Query, place: Mapping[str, Any] | None = None) -> _Page:
    # More subscriptions than Resource Graph can look through at once are an error, never a part of them.
    options = {"$top": PAGE, "resultFormat": "objectArray", "allowPartialScopes": False, **(place or {})}
    body = {"query": query.text, "options": options, **query.scope}
    answer = arm.post("/providers/Microsoft.ResourceGraph/resources", API_VERSION, body, doing=query.doing)
    data, total, token = answer.get("data"), answer.get("totalRecords"), answer.get("$skipToken")
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ArcError(f"{query.doing}: Azure answers without rows.", hint="Run again later.")
    truncated = not token and str(answer.get("resultTruncated")).lower() == "true"
    return _Page(data, total if isinstance(total, int) else None, str(token) if token else None, truncated)


def scopes(subscriptions: Sequence[str], management_groups: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The scopes to look through, one query each.

    Without a scope, Resource Graph would look at no more than 10,000 subscriptions, and tell so in a header only.
    """
    by_subscription = [{"subscriptions": part} for part in _parts(subscriptions, _TOGETHER)]
    by_group = [{"managementGroups": part} for part in _parts(management_groups, _MANAGEMENT_GROUPS_TOGETHER)]
    return by_subscription + by_group


def scope_name(scope: Mapping[str, Any]) -> str:
    """A scope in words: "of subscription 1234"."""
    noun = "subscription" if "subscriptions" in scope else "management group"
    names: list[str] = next(iter(scope.values()))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"of {noun}{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"


def _parts(values: Sequence[T], size: int) -> list[list[T]]:
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def literal(text: str) -> str:
    """`text` as a string literal of KQL, which nothing in it can end."""
    return "'" + "".join(_escaped(character) for character in text) + "'"


def literals(values: Iterable[str]) -> str:
    """String literals with commas between them."""
    return ", ".join(literal(value) for value in values)


def _escaped(character: str) -> str:
    if character in "\\'\"":
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else character


def columns(names: Iterable[str]) -> str:
    """Properties of these names as columns of their own."""
    return ", ".join(f"{name} = properties.{name}" for name in names)


def machine_rows_query(conditions: Iterable[str]) -> str:
    """The query for machines that meet all conditions (`| where ...`); `machine_record` reads its rows."""
    project = f"| project id, name, kind, location, tags, {columns(MACHINE_PROPERTIES)}"
    return "\n".join(("resources", MACHINES, *conditions, project, "| order by id asc"))


def machine_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `machine_rows_query` in the shape of ARM's record of a machine."""
    record = {name: row.get(name) for name in ("id", "name", "kind", "location", "tags")}
    record["properties"] = {name: row.get(name) for name in MACHINE_PROPERTIES}
    return record


def machines(arm: Arm, wanted: Sequence[MachineId], *, extensions: bool = False) -> dict[str, dict[str, Any]]:
    """The records of machines by `MachineId.key`, in ARM's shape with `MACHINE_PROPERTIES`.

    With `extensions`, `resources` holds each machine's extensions as ARM lists them. A machine that the result lacks may exist all
    the same: it may be too new, or this identity may not read it.
    """
    shares = _shares(wanted)
    queries = [_query(machine_rows_query(share.machines), share.scope) for share in shares]
    if extensions:
        queries += [_query(_extension_rows_query(share.extensions), share.scope) for share in shares]
    found: dict[str, dict[str, Any]] = {machine.key: {} for machine in wanted}
    children: dict[str, list[dict[str, Any]]] = {}
    for answer in _readable_rows(arm, queries):
        for row in answer:
            key, slash, _name = str(row.get("id")).lower().partition("/extensions/")
            if key not in found:
                continue
            if slash:
                children.setdefault(key, []).append(dict(row))
            else:
                found[key] = machine_record(row)
    if extensions:
        return {key: {**record, "resources": children.get(key, [])} for key, record in found.items() if record}
    return {key: record for key, record in found.items() if record}


@dataclass(frozen=True)
class _Share:
    """Machines of one query: the conditions that they and their extensions meet, strangers perhaps as well."""

    machines: Sequence[str]
    extensions: Sequence[str]
    scope: Mapping[str, Any]


def _shares(wanted: Sequence[MachineId]) -> list[_Share]:
    if len(wanted) <= _BY_ID_AT_MOST:
        return [_by_id(part) for part in _parts(sorted(wanted, key=lambda machine: machine.key), _TOGETHER)]
    groups: dict[str, set[str]] = {}
    for machine in wanted:
        groups.setdefault(machine.subscription_id.lower(), set()).add(machine.resource_group.lower())
    return [
        _by_place(part, sorted({group for name in part for group in groups[name]}))
        for part in _parts(sorted(groups), _TOGETHER)
    ]


def _by_id(part: Sequence[MachineId]) -> _Share:
    ids = literals(machine.key for machine in part)
    parent = "substring(tolower(id), 0, indexof(tolower(id), '/extensions/'))"
    subscriptions = sorted({machine.subscription_id.lower() for machine in part})
    return _Share((f"| where id in~ ({ids})",), (f"| where {parent} in ({ids})",), {"subscriptions": subscriptions})


def _by_place(subscriptions: Sequence[str], groups: Sequence[str]) -> _Share:
    conditions = (f"| where resourceGroup in~ ({literals(groups)})",) if len(groups) <= _TOGETHER else ()
    return _Share(conditions, conditions, {"subscriptions": list(subscriptions)})


def _extension_rows_query(conditions: Iterable[str]) -> str:
    return "\n".join(("resources", EXTENSIONS, *conditions, "| project id, name, properties", "| order by id asc"))


def _query(text: str, scope: Mapping[str, Any]) -> Query:
    return Query(text, scope, f"Cannot read the Arc machines {scope_name(scope)} with Resource Graph")


def _readable_rows(arm: Arm, queries: Sequence[Query]) -> list[list[Mapping[str, Any]]]:
    """As `all_rows`, with no rows of a scope in which this identity can read nothing at all."""
    try:
        return all_rows(arm, queries)
    except ArmError as exc:
        if exc.status != 403:
            raise
        if len(queries) == 1:
            return [[]]
        return [found for query in queries for found in _readable_rows(arm, [query])]


def together(jobs: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """The results of all jobs, in their order; the first failure ends it."""
    if len(jobs) < 2:
        return [job() for job in jobs]
    with ThreadPoolExecutor(max_workers=min(threads, len(jobs))) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
