# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure Resource Graph answer to a query request?

The operation `POST /providers/Microsoft.ResourceGraph/resources`: checks the body, narrows the tables to the asked
scopes, runs the query (`kql.py`), pages and shapes the result. Shapes follow the swagger 2022-10-01 and its examples,
paging the article "Working with large Azure resource data sets"; error bodies follow reports in public issues. Choices
where these are silent are in the README.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import kql
from .http import Answer, ArmFailure, Context
from .kql_scope import Field, Row
from .kql_tree import KqlError
from .kql_values import to_jsonable

MAX_PAGE = 1000
DEFAULT_FACET_ROWS = 10
_INVALID_QUERY = {
    "code": "InvalidQuery",
    "message": "Query is invalid. Please refer to the documentation for the Azure Resource Graph service and fix the "
    "error before retrying.",
}
_BODY_NAMES = frozenset(("query", "subscriptions", "managementGroups", "options", "facets"))
_OPTION_NAMES = frozenset(
    ("$top", "$skip", "$skipToken", "resultFormat", "allowPartialScopes", "authorizationScopeFilter")
)
_SCOPE_FILTERS = ("AtScopeAndBelow", "AtScopeAndAbove", "AtScopeExact", "AtScopeAboveAndBelow")
_FORMATS = ("table", "objectArray")
Tables = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class _Request:
    query: str
    subscriptions: tuple[str, ...]
    management_groups: tuple[str, ...]
    top: int | None
    skip: int | None
    skip_token: str | None
    table_format: bool
    scope_filter: str
    facets: tuple[Mapping[str, Any], ...]

    def binding(self) -> str:
        """What a continuation token is good for: this query over these scopes."""
        scopes = [sorted(self.subscriptions), sorted(self.management_groups), self.scope_filter]
        return hashlib.sha256(json.dumps([self.query, scopes]).encode()).hexdigest()[:32]


def resources(ctx: Context, tables: Tables) -> Answer:
    """The answer to a query; `tables` hold what the caller may read. Refusals are `ArmFailure` 400 and 403."""
    request = _parse(ctx)
    scoped = _within_scopes(ctx, request, tables)
    try:
        result = kql.run(request.query, scoped, ctx.now)
    except KqlError as error:
        raise _refusal(ctx, [_INVALID_QUERY, error.detail()]) from error
    top, skip = _page(ctx, request, result)
    rows = kql.shuffled(result, request.query)
    page = rows[skip : skip + top]
    left = max(0, len(rows) - skip - len(page))
    pageable = not result.limited and any(field.name == "id" for field in result.fields)
    body: dict[str, Any] = {
        "totalRecords": len(rows),
        "count": len(page),
        "resultTruncated": "true" if left and not pageable else "false",
        "facets": [_facet(ctx, request, scoped, facet) for facet in request.facets],
        "data": _data(result.fields, page, request.table_format),
    }
    if left and pageable:
        body["$skipToken"] = _encode_token(request, top, skip + len(page))
    headers = {} if request.subscriptions else {"x-ms-tenant-subscription-limit-hit": "false"}
    return Answer(200, body, headers)


# -- the request


def _parse(ctx: Context) -> _Request:
    body = ctx.body
    if not isinstance(body, Mapping):
        raise _bad(ctx, "InvalidRequestContent", "The request body must be a JSON object with the property 'query'.")
    _only_known(ctx, body, _BODY_NAMES, "")
    query = body.get("query")
    if not isinstance(query, str) or not query.strip():
        raise _bad(ctx, "InvalidRequestContent", "The property 'query' is required and must be a non-empty string.")
    options = body.get("options")
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise _bad(ctx, "InvalidRequestContent", "The property 'options' must be an object.")
    _only_known(ctx, options, _OPTION_NAMES, "options.")
    default_format = _FORMATS[1] if ctx.api_version >= "2021-03-01" else _FORMATS[0]
    partial = options.get("allowPartialScopes")
    if partial is not None and not isinstance(partial, bool):
        raise _bad(ctx, "InvalidRequestContent", "The option 'allowPartialScopes' must be true or false.")
    subscriptions = _names(ctx, body, "subscriptions")
    management_groups = _names(ctx, body, "managementGroups")
    if subscriptions and management_groups:
        raise _bad(ctx, "InvalidRequestContent", "Give either 'subscriptions' or 'managementGroups', not both.")
    return _Request(
        query=query,
        subscriptions=tuple(name.lower() for name in subscriptions),
        management_groups=tuple(name.lower() for name in management_groups),
        top=_whole(ctx, options, "$top", 1, MAX_PAGE),
        skip=_whole(ctx, options, "$skip", 0, 2**31 - 1),
        skip_token=_skip_token(ctx, options),
        table_format=_one_of(ctx, options, "resultFormat", _FORMATS, default_format) == _FORMATS[0],
        scope_filter=_one_of(ctx, options, "authorizationScopeFilter", _SCOPE_FILTERS, _SCOPE_FILTERS[0]),
        facets=_facet_requests(ctx, body),
    )


def _only_known(ctx: Context, given: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = ", ".join(f"'{prefix}{name}'" for name in unknown)
        raise _bad(ctx, "InvalidRequestContent", f"The request body has unknown properties: {names}.")


def _names(ctx: Context, body: Mapping[str, Any], name: str) -> list[str]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _bad(ctx, "InvalidRequestContent", f"The property '{name}' must be a list of strings.")
    return value


def _whole(ctx: Context, options: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _bad(ctx, "InvalidRequestContent", f"The option '{name}' must be a number from {least} to {most}.")
    return value


def _one_of(ctx: Context, options: Mapping[str, Any], name: str, known: Sequence[str], default: str) -> str:
    value = options.get(name)
    if value is None:
        return default
    for choice in known:
        if isinstance(value, str) and value.lower() == choice.lower():
            return choice
    raise _bad(ctx, "InvalidRequestContent", f"The option '{name}' must be one of {', '.join(known)}.")


def _skip_token(ctx: Context, options: Mapping[str, Any]) -> str | None:
    value = options.get("$skipToken")
    if value is not None and not isinstance(value, str):
        raise _bad(ctx, "InvalidRequestContent", "The option '$skipToken' must be a string.")
    return value or None


def _facet_requests(ctx: Context, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    facets = body.get("facets") or []
    if not isinstance(facets, list):
        raise _bad(ctx, "InvalidRequestContent", "The property 'facets' must be a list.")
    for facet in facets:
        if not isinstance(facet, Mapping) or not isinstance(facet.get("expression"), str):
            raise _bad(ctx, "InvalidRequestContent", "Every facet needs the property 'expression'.")
        _only_known(ctx, facet, ("expression", "options"), "facets.")
        options = facet.get("options") or {}
        _only_known(ctx, options, ("sortBy", "sortOrder", "filter", "$top"), "facets.options.")
        _one_of(ctx, options, "sortOrder", ("asc", "desc"), "desc")
        _whole(ctx, options, "$top", 1, MAX_PAGE)
    return tuple(facets)


# -- scopes


def _within_scopes(ctx: Context, request: _Request, tables: Tables) -> Tables:
    """The tables narrowed to the asked subscriptions or management groups.

    A subscription that the caller cannot read is left out silently while another one remains; when none remains, the
    request is denied.
    """
    readable = {
        name.lower() for name in {row.get("subscriptionId") for rows in tables.values() for row in rows} if name
    }
    if request.management_groups:
        wanted = _subscriptions_of_groups(request.management_groups, tables)
    elif request.subscriptions:
        if not any(_is_guid(name) for name in request.subscriptions):
            given = ",".join(request.subscriptions)
            raise _bad(
                ctx,
                "NoValidSubscriptionsInQueryRequest",
                f"There must be at least one subscription that is eligible to contain resources. Given: '{given}'.",
            )
        wanted = set(request.subscriptions)
    else:
        wanted = readable
    wanted &= readable
    if not wanted:
        raise _refusal(
            ctx,
            [
                {
                    "code": "AccessDenied",
                    "message": "Access is denied to the requested resource. The user might not have enough permission.",
                }
            ],
            status=403,
            code="AccessDenied",
        )
    narrowed = {
        name: rows
        if wanted == readable
        else [row for row in rows if str(row.get("subscriptionId") or "").lower() in wanted]
        for name, rows in tables.items()
    }
    narrowed["authorizationresources"] = _authorization_rows(request, tables.get("authorizationresources", ()), wanted)
    return narrowed


def _subscription(row: Mapping[str, Any]) -> str:
    return str(row.get("subscriptionId") or "").lower()


def _is_guid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name.lower()
    except ValueError:
        return False


def _subscriptions_of_groups(groups: Sequence[str], tables: Tables) -> set[str]:
    """Subscriptions below groups, by `properties.managementGroupAncestorsChain`; the tenant's root group holds all."""
    found = set()
    for row in tables.get("resourcecontainers", ()):
        if str(row.get("type", "")).lower() != "microsoft.resources/subscriptions":
            continue
        chain = (row.get("properties") or {}).get("managementGroupAncestorsChain") or []
        above = {str(group.get("name", "")).lower() for group in chain} | {str(row.get("tenantId", "")).lower()}
        if above & set(groups):
            found.add(_subscription(row))
    return found


def _authorization_rows(
    request: _Request, rows: Sequence[Mapping[str, Any]], subscriptions: set[str]
) -> list[Mapping[str, Any]]:
    """Role definitions always; role assignments by `authorizationScopeFilter` relative to the asked subscriptions."""
    kept = []
    for row in rows:
        owner = _subscription(row)
        if str(row.get("type", "")).lower().endswith("/roledefinitions"):
            if not owner or owner in subscriptions:
                kept.append(row)
            continue
        scope = str((row.get("properties") or {}).get("scope") or "").lower().rstrip("/")
        exact = any(scope == f"/subscriptions/{subscription}" for subscription in subscriptions)
        below = owner in subscriptions and not exact
        above = not owner
        if (
            exact
            or (below and request.scope_filter in ("AtScopeAndBelow", "AtScopeAboveAndBelow"))
            or (above and request.scope_filter in ("AtScopeAndAbove", "AtScopeAboveAndBelow"))
        ):
            kept.append(row)
    return kept


# -- paging


def _page(ctx: Context, request: _Request, result: kql.Result) -> tuple[int, int]:
    """Page size and offset: `$top` and `$skip` override a token's, and a query with take or limit ignores `$skip`."""
    top, skip = MAX_PAGE, 0
    if request.skip_token is not None:
        top, skip = _decode_token(ctx, request)
    if request.top is not None:
        top = request.top
    if request.skip is not None and not result.limited:
        skip = request.skip
    return top, skip


def _encode_token(request: _Request, top: int, skip: int) -> str:
    state = json.dumps({"b": request.binding(), "t": top, "s": skip}).encode()
    return base64.b64encode(hashlib.sha256(state).digest()[:8] + state).decode()


def _decode_token(ctx: Context, request: _Request) -> tuple[int, int]:
    try:
        raw = base64.b64decode(request.skip_token or "", validate=True)
        state = raw[8:]
        if hashlib.sha256(state).digest()[:8] != raw[:8]:
            raise ValueError("altered")
        content = json.loads(state)
    except (binascii.Error, ValueError) as error:
        raise _bad(
            ctx, "InvalidSkipToken", "The option '$skipToken' is not a token that this service gave out."
        ) from error
    if content["b"] != request.binding():
        raise _bad(ctx, "InvalidSkipToken", "The option '$skipToken' belongs to another query or to other scopes.")
    return content["t"], content["s"]


# -- the answer


def _data(fields: Sequence[Field], rows: Iterable[Row], table: bool) -> Any:
    if table:
        return {
            "columns": [{"name": field.name, "type": kql.cell_type(field.type)} for field in fields],
            "rows": [[to_jsonable(value) for value in row] for row in rows],
        }
    names = [field.name for field in fields]
    return [{name: to_jsonable(value) for name, value in zip(names, row, strict=True)} for row in rows]


def _facet(ctx: Context, request: _Request, tables: Tables, facet: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of the query's result by an expression, as the swagger's ResourcesFacetQuery example shows them."""
    expression = facet["expression"]
    options = facet.get("options") or {}
    shape = kql.run(request.query, tables, ctx.now)
    names = {field.name for field in shape.fields}
    column = expression if expression in names else expression.replace(".", "_")
    if column not in names:
        return {
            "expression": expression,
            "resultType": "FacetError",
            "errors": [
                {"code": "NoValidColumns", "message": "No valid columns in facet expression."},
                {"code": "InvalidColumnNames", "message": f"Invalid column names: [{expression}]."},
            ],
        }
    steps = [request.query]
    if options.get("filter"):
        steps.append(f"where {options['filter']}")
    cast = {"dynamic": "tostring"}.get(next(field.type for field in shape.fields if field.name == column), "")
    group = f"{cast}({column})" if cast else column
    steps.append(f"summarize ['count'] = count() by {column} = {group}")
    steps.append(f"order by {options.get('sortBy') or 'count'} {options.get('sortOrder') or 'desc'}")
    try:
        result = kql.run("\n| ".join(steps), tables, ctx.now)
    except KqlError as error:
        return {"expression": expression, "resultType": "FacetError", "errors": [_INVALID_QUERY, error.detail()]}
    rows = result.rows[: options.get("$top") or DEFAULT_FACET_ROWS]
    return {
        "expression": expression,
        "resultType": "FacetResult",
        "totalRecords": len(result.rows),
        "count": len(rows),
        "data": _data(result.fields, rows, request.table_format),
    }


# -- refusals


def _bad(ctx: Context, code: str, message: str) -> ArmFailure:
    return _refusal(ctx, [{"code": code, "message": message}])


def _refusal(ctx: Context, details: list[dict[str, Any]], *, status: int = 400, code: str = "BadRequest") -> ArmFailure:
    """Resource Graph says what is wrong in `details` only; its message is always this sentence."""
    moment = datetime.fromtimestamp(ctx.now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
    message = (
        f"Please provide below info when asking for support: timestamp = {moment}, correlationId = {uuid.uuid4()}."
    )
    return ArmFailure(status, code, message, details=details)
