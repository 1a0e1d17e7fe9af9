# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rows does a Resource Graph query give?

Evaluates a parsed pipeline (`kql_syntax.py`) over tables of ARM resources. Columns are statically typed as in Kusto,
so that what the real service refuses is refused here before any row is read: unknown columns, dynamic values as keys
of summarize, join or order, conditions that are no bool. The subset is listed in `tests/lab/README.md`. Pure: time
comes in as an argument.
"""

from __future__ import annotations

import fnmatch
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import kql_tree as tree
from . import kql_values as values
from .kql_scope import AGGREGATES, Cell, Field, Row, Scope, Typed, derived_name, semantic
from .kql_syntax import parse
from .kql_tree import KqlError, Place

TABLE_SCHEMA: tuple[tuple[str, str], ...] = (
    ("id", "string"),
    ("name", "string"),
    ("type", "string"),
    ("tenantId", "string"),
    ("kind", "string"),
    ("location", "string"),
    ("resourceGroup", "string"),
    ("subscriptionId", "string"),
    ("managedBy", "string"),
    ("sku", "dynamic"),
    ("plan", "dynamic"),
    ("properties", "dynamic"),
    ("tags", "dynamic"),
    ("identity", "dynamic"),
    ("zones", "dynamic"),
    ("extendedLocation", "dynamic"),
)
"""Columns of every table here, in the order in which Resource Graph answers a query without project."""

_LOWERED = frozenset(("type", "location", "resourceGroup"))


@dataclass(frozen=True)
class Result:
    """`limited`: the query bounds its rows itself (take, limit, top), which rules out paging. `ordered`: it sorts."""

    fields: tuple[Field, ...]
    rows: list[Row]
    limited: bool
    ordered: bool


def run(query: str, tables: Mapping[str, Sequence[Mapping[str, Any]]], now: float) -> Result:
    """The rows of `query` over `tables` (name → ARM resources) at `now` (unix seconds); `KqlError` if it is refused."""
    pipeline = parse(query)
    engine = _Engine(tables, datetime.fromtimestamp(now, UTC))
    try:
        fields, rows = engine.pipeline(pipeline)
    except values.ValueFailure as error:
        raise KqlError("SemanticError", str(error), Place(), query[:64]) from error
    limited = any(isinstance(operator, (tree.Take, tree.Top)) for operator in pipeline.operators)
    return Result(fields, rows, limited, _is_ordered(pipeline))


def shuffled(result: Result, query: str) -> list[Row]:
    """The rows in an arbitrary order, the same for every page of a query: Azure promises none without `order by`."""
    if result.ordered or result.limited:
        return result.rows
    rows = list(result.rows)
    random.Random(zlib.crc32(query.encode())).shuffle(rows)
    return rows


def _is_ordered(pipeline: tree.Pipeline) -> bool:
    ordered = False
    for operator in pipeline.operators:
        if isinstance(operator, (tree.Order, tree.Top)):
            ordered = True
        elif isinstance(operator, (tree.Summarize, tree.Distinct, tree.Join, tree.UnionLegs)):
            ordered = False
    return ordered


def _source(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """ARM resources as rows; Resource Graph keeps type, location and resource group in lower case."""
    getters: list[tuple[str, bool, bool]] = [(name, kind == "string", name in _LOWERED) for name, kind in TABLE_SCHEMA]
    table = []
    for row in rows:
        cells = []
        for name, text, lowered in getters:
            value = row.get(name)
            if text:
                value = value or ""
                if lowered:
                    value = value.lower()
            cells.append(value)
        table.append(tuple(cells))
    return table


class _Engine:
    """Runs operators one after the other; each takes and gives columns and rows."""

    def __init__(self, tables: Mapping[str, Sequence[Mapping[str, Any]]], now: datetime) -> None:
        self.tables = tables
        self.now = now

    def pipeline(self, pipeline: tree.Pipeline) -> tuple[tuple[Field, ...], list[Row]]:
        fields = tuple(Field(name, kind) for name, kind in TABLE_SCHEMA)
        rows = _source(self.tables.get(pipeline.table, ()))
        for operator in pipeline.operators:
            fields, rows = self._step(operator, fields, rows, pipeline.table)
        return fields, rows

    def _step(
        self, operator: tree.Operator, fields: tuple[Field, ...], rows: list[Row], table: str
    ) -> tuple[tuple[Field, ...], list[Row]]:
        if isinstance(operator, tree.Where):
            condition = self._scope(fields, "where").condition(operator.condition)
            return fields, [row for row in rows if condition(row)]
        if isinstance(operator, tree.Project):
            return self._project(operator.columns, fields, rows, "project")
        if isinstance(operator, tree.Extend):
            return self._extend(operator.columns, fields, rows)
        if isinstance(operator, tree.ProjectSelect):
            return self._select(operator, fields, rows)
        if isinstance(operator, tree.ProjectRename):
            return self._rename(operator, fields), rows
        if isinstance(operator, tree.Order):
            return fields, self._sorted(operator.keys, fields, rows, "order")
        if isinstance(operator, tree.Take):
            return fields, rows[: operator.rows]
        if isinstance(operator, tree.Top):
            return fields, self._sorted(operator.keys, fields, rows, "top")[: operator.rows]
        if isinstance(operator, tree.Count):
            return (Field("Count", "long"),), [(len(rows),)]
        if isinstance(operator, tree.Summarize):
            return self._summarize(operator, fields, rows)
        if isinstance(operator, tree.Distinct):
            return self._distinct(operator, fields, rows)
        if isinstance(operator, tree.MvExpand):
            return self._mv_expand(operator, fields, rows)
        if isinstance(operator, tree.Join):
            return self._join(operator, fields, rows)
        return self._union(operator, fields, rows, table)

    def _scope(self, fields: Sequence[Field], operator: str) -> Scope:
        return Scope(fields, self.now, operator)

    def _name_columns(self, columns: Sequence[tree.Named], operator: str, taken: Iterable[str] = ()) -> list[str]:
        """Names of the new columns; explicit names may not repeat, derived ones get a number."""
        names: list[str] = []
        used = set(taken)
        for position, column in enumerate(columns, start=1):
            if column.name is not None:
                if column.name in used:
                    raise semantic(
                        f"'{operator}' operator: the column '{column.name}' is there twice.", column.place, column.name
                    )
                name = column.name
            else:
                base = derived_name(column.expression) or f"Column{position}"
                name, number = base, 1
                while name in used:
                    name, number = f"{base}{number}", number + 1
            used.add(name)
            names.append(name)
        return names

    def _project(
        self, columns: Sequence[tree.Named], fields: tuple[Field, ...], rows: list[Row], operator: str
    ) -> tuple[tuple[Field, ...], list[Row]]:
        scope = self._scope(fields, operator)
        compiled = [scope.compile(column.expression) for column in columns]
        names = self._name_columns(columns, operator)
        cells = [typed.cell for typed in compiled]
        result = tuple(Field(name, typed.type) for name, typed in zip(names, compiled, strict=True))
        return result, [tuple([cell(row) for cell in cells]) for row in rows]

    def _extend(
        self, columns: Sequence[tree.Named], fields: tuple[Field, ...], rows: list[Row]
    ) -> tuple[tuple[Field, ...], list[Row]]:
        """New columns replace old ones of the same name at their place; all of them see the old values."""
        scope = self._scope(fields, "extend")
        result = list(fields)
        position_of = dict(scope.index)
        changes: list[tuple[int, Cell]] = []
        names = self._name_columns(columns, "extend")
        for name, column in zip(names, columns, strict=True):
            typed = scope.compile(column.expression)
            if name in position_of:
                result[position_of[name]] = Field(name, typed.type)
            else:
                position_of[name] = len(result)
                result.append(Field(name, typed.type))
            changes.append((position_of[name], typed.cell))
        padding = (None,) * (len(result) - len(fields))
        extended = []
        for row in rows:
            cells = [*row, *padding]
            for position, cell in changes:
                cells[position] = cell(row)
            extended.append(tuple(cells))
        return tuple(result), extended

    def _select(
        self, operator: tree.ProjectSelect, fields: tuple[Field, ...], rows: list[Row]
    ) -> tuple[tuple[Field, ...], list[Row]]:
        word = "project-keep" if operator.keep else "project-away"
        named: set[str] = set()
        for pattern, place in operator.names:
            matching = [field.name for field in fields if fnmatch.fnmatchcase(field.name, pattern)]
            if not matching and "*" not in pattern:
                raise semantic(f"'{word}' operator: Failed to resolve column named '{pattern}'", place, pattern)
            named.update(matching)
        kept = [position for position, field in enumerate(fields) if (field.name in named) == operator.keep]
        return tuple(fields[position] for position in kept), [
            tuple([row[position] for position in kept]) for row in rows
        ]

    def _rename(self, operator: tree.ProjectRename, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        names = [field.name for field in fields]
        for new, old, place in operator.pairs:
            if old not in names:
                raise semantic(f"'project-rename' operator: Failed to resolve column named '{old}'", place, old)
            if new in names and new != old:
                raise semantic(f"'project-rename' operator: the column '{new}' is there already.", place, new)
            names[names.index(old)] = new
        return tuple(Field(name, field.type) for name, field in zip(names, fields, strict=True))

    def _sorted(
        self, keys: Sequence[tree.SortKey], fields: tuple[Field, ...], rows: list[Row], operator: str
    ) -> list[Row]:
        scope = self._scope(fields, operator)
        ordered = list(rows)
        for key in reversed(keys):
            cell = scope.scalar_key(key.expression, "The sort key").cell
            present = [row for row in ordered if cell(row) is not None]
            absent = [row for row in ordered if cell(row) is None]
            present.sort(key=cell, reverse=key.descending)
            ordered = absent + present if key.nulls_first else present + absent
        return ordered

    def _summarize(
        self, operator: tree.Summarize, fields: tuple[Field, ...], rows: list[Row]
    ) -> tuple[tuple[Field, ...], list[Row]]:
        scope = self._scope(fields, "summarize")
        keys = [scope.scalar_key(column.expression, "Summarize group key") for column in operator.by]
        key_names = self._name_columns(operator.by, "summarize")
        aggregates = [_Aggregate.compile(scope, column) for column in operator.aggregates]
        named = [
            tree.Named(column.name or aggregate.name, column.expression, column.place)
            for column, aggregate in zip(operator.aggregates, aggregates, strict=True)
        ]
        names = self._aggregate_names(operator.aggregates, named, key_names)
        groups: dict[Row, list[Row]] = {} if keys else {(): []}
        shown: dict[Row, Row] = {(): ()}
        cells = [key.cell for key in keys]
        for row in rows:
            actual = tuple([cell(row) for cell in cells])
            identity = tuple([values.key_of(value) for value in actual])
            shown.setdefault(identity, actual)
            groups.setdefault(identity, []).append(row)
        result = [Field(name, key.type) for name, key in zip(key_names, keys, strict=True)]
        result += [Field(name, aggregate.type) for name, aggregate in zip(names, aggregates, strict=True)]
        summary = [
            (*shown[identity], *[aggregate.reduce(members) for aggregate in aggregates])
            for identity, members in groups.items()
        ]
        return tuple(result), summary

    def _aggregate_names(
        self, asked: Sequence[tree.Named], named: Sequence[tree.Named], taken: Sequence[str]
    ) -> list[str]:
        names: list[str] = []
        used = set(taken)
        for original, column in zip(asked, named, strict=True):
            name = base = column.name or ""
            if original.name is not None and name in used:
                raise semantic(f"'summarize' operator: the column '{name}' is there twice.", column.place, name)
            number = 1
            while name in used:
                name, number = f"{base}{number}", number + 1
            used.add(name)
            names.append(name)
        return names

    def _distinct(
        self, operator: tree.Distinct, fields: tuple[Field, ...], rows: list[Row]
    ) -> tuple[tuple[Field, ...], list[Row]]:
        columns = operator.columns or tuple(
            tree.Named(None, tree.Column(field.name, Place()), Place()) for field in fields
        )
        scope = self._scope(fields, "distinct")
        for column in columns:
            scope.scalar_key(column.expression, "The distinct column")
        result, projected = self._project(columns, fields, rows, "distinct")
        unique: dict[Row, Row] = {}
        for row in projected:
            unique.setdefault(tuple([values.key_of(value) for value in row]), row)
        return result, list(unique.values())

    def _mv_expand(
        self, operator: tree.MvExpand, fields: tuple[Field, ...], rows: list[Row]
    ) -> tuple[tuple[Field, ...], list[Row]]:
        scope = self._scope(fields, "mv-expand")
        result = list(fields)
        places: list[tuple[int, Cell, Callable[[Any], Any]]] = []
        for column, kind in operator.columns:
            typed = scope.compile(column.expression)
            if typed.type != "dynamic":
                raise semantic(f"mv-expand takes a dynamic column, not a {typed.type}.", column.place, "mv-expand")
            name = column.name or derived_name(column.expression) or "Column1"
            position = next((at for at, field in enumerate(result) if field.name == name), len(result))
            result[position : position + 1] = [Field(name, _CAST_TYPES.get(kind or "dynamic", kind or "dynamic"))]
            places.append((position, typed.cell, _CAST_WITH.get(kind or "dynamic", _as_is)))
        padding = (None,) * (len(result) - len(fields))
        expanded = []
        for row in rows:
            lists = [(position, _elements(cell(row))[: operator.rows], cast) for position, cell, cast in places]
            for turn in range(max(len(items) for _position, items, _cast in lists)):
                cells = [*row, *padding]
                for position, items, cast in lists:
                    cells[position] = cast(items[turn] if turn < len(items) else None)
                expanded.append(tuple(cells))
        return tuple(result), expanded

    def _join(
        self, operator: tree.Join, fields: tuple[Field, ...], rows: list[Row]
    ) -> tuple[tuple[Field, ...], list[Row]]:
        right_fields, right_rows = self.pipeline(operator.right)
        left_keys, right_keys = [], []
        for left, right in operator.conditions:
            one = self._scope(fields, "join").scalar_key(left, "The join key")
            two = self._scope(right_fields, "join").scalar_key(right, "The join key")
            if one.type != two.type:
                raise semantic(
                    f"The join keys have different types: {one.type} and {two.type}.", operator.place, "join"
                )
            left_keys.append(one.cell)
            right_keys.append(two.cell)
        matches: dict[Row, list[Row]] = {}
        for row in right_rows:
            matches.setdefault(tuple([cell(row) for cell in right_keys]), []).append(row)
        names = {field.name for field in fields}
        joined = list(fields)
        for field in right_fields:
            name, number = field.name, 1
            while name in names:
                name, number = f"{field.name}{number}", number + 1
            names.add(name)
            joined.append(Field(name, field.type))
        nothing = tuple("" if field.type == "string" else None for field in right_fields)
        seen: set[Row] = set()
        result: list[Row] = []
        for row in rows:
            key = tuple([cell(row) for cell in left_keys])
            if operator.kind == "innerunique":
                if key in seen:
                    continue
                seen.add(key)
            partners = matches.get(key, [])
            if not partners and operator.kind == "leftouter":
                result.append((*row, *nothing))
            result.extend((*row, *partner) for partner in partners)
        return tuple(joined), result

    def _union(
        self, operator: tree.UnionLegs, fields: tuple[Field, ...], rows: list[Row], table: str
    ) -> tuple[tuple[Field, ...], list[Row]]:
        legs = [(fields, rows, table)]
        legs += [(*self.pipeline(leg), leg.table) for leg in operator.legs]
        types: dict[str, str] = {}
        for leg_fields, _rows, _name in legs:
            for field in leg_fields:
                if types.setdefault(field.name, field.type) != field.type:
                    raise semantic(
                        f"The legs of union give the column '{field.name}' different types.", operator.place, "union"
                    )
        common = [{field.name for field in leg_fields} for leg_fields, _rows, _name in legs]
        names = [name for name in types if operator.kind == "outer" or all(name in leg for leg in common)]
        source = operator.with_source
        if source is not None and source in names:
            raise semantic(f"The column '{source}' is there already.", operator.place, source)
        result = [Field(source, "string")] if source is not None else []
        result += [Field(name, types[name]) for name in names]
        united: list[Row] = []
        for leg_fields, leg_rows, leg_name in legs:
            index = {field.name: at for at, field in enumerate(leg_fields)}
            start = (leg_name,) if source is not None else ()
            picks = [(index.get(name), "" if types[name] == "string" else None) for name in names]
            united.extend((*start, *[row[at] if at is not None else blank for at, blank in picks]) for row in leg_rows)
        return tuple(result), united


def _as_is(value: Any) -> Any:
    return value


_CAST_TYPES = {"int": "long"}
_CAST_WITH: dict[str, Callable[[Any], Any]] = {
    "string": values.to_string,
    "long": values.to_long,
    "int": values.to_long,
    "real": lambda value: float(value) if isinstance(value, (int, float)) else None,
    "bool": values.to_bool,
    "datetime": values.to_datetime,
}


def _elements(value: Any) -> list[Any]:
    """What mv-expand makes of a value: an array's elements, a bag's single-key bags; null and empty give one null."""
    if isinstance(value, list):
        return value or [None]
    if isinstance(value, dict):
        return [{key: item} for key, item in value.items()] or [None]
    return [value]


@dataclass(frozen=True)
class _Aggregate:
    """An aggregate of summarize: its default column name, its type, and what it makes of a group."""

    name: str
    type: str
    reduce: Callable[[list[Row]], Any]

    @staticmethod
    def compile(scope: Scope, column: tree.Named) -> _Aggregate:
        call = column.expression
        if not isinstance(call, tree.Call) or call.name not in AGGREGATES:
            token = call.name if isinstance(call, tree.Call) else (derived_name(call) or "summarize")
            raise KqlError(
                "InvalidQueryLanguage",
                f"'{token}' is no aggregate of the query subset ({', '.join(AGGREGATES)}).",
                column.place,
                token,
            )
        if call.name == "count":
            scope.arity(call, 0, 0)
            return _Aggregate("count_", "long", len)
        scope.arity(call, 1, 2 if call.name in ("make_list", "make_set") else 1)
        typed = scope.compile(call.arguments[0])
        path = derived_name(call.arguments[0]) or ""
        prefix = {"make_list": "list", "make_set": "set"}.get(call.name, call.name)
        return _Aggregate(f"{prefix}_{path}", *_Aggregate._reducer(scope, call, typed))

    @staticmethod
    def _reducer(scope: Scope, call: tree.Call, typed: Typed) -> tuple[str, Callable[[list[Row]], Any]]:
        cell = typed.cell
        if call.name in ("make_list", "make_set"):
            return "dynamic", _Aggregate._collector(call, cell)
        if call.name == "dcount":
            scope.scalar_key(call.arguments[0], "The argument of dcount()")
            return "long", lambda rows: len({values.key_of(cell(row)) for row in rows} - {None})
        if call.name in ("any", "take_any"):
            return typed.type, lambda rows: next((cell(row) for row in rows if cell(row) is not None), None)
        allowed = (
            ("long", "real", "timespan") if call.name == "sum" else ("long", "real", "timespan", "datetime", "string")
        )
        if typed.type not in allowed:
            raise semantic(f"{call.name}() does not apply to {typed.type}.", call.place, call.name)
        if call.name == "sum":
            return typed.type, lambda rows: values.sum_of([cell(row) for row in rows])
        pick = min if call.name == "min" else max
        return typed.type, lambda rows: pick((cell(row) for row in rows if cell(row) is not None), default=None)

    @staticmethod
    def _collector(call: tree.Call, cell: Cell) -> Callable[[list[Row]], Any]:
        most = 1048576
        if len(call.arguments) == 2:
            bound = call.arguments[1]
            if not isinstance(bound, tree.Literal) or bound.type != "long":
                raise semantic(f"The second argument of {call.name}() must be a number.", bound.place, call.name)
            most = bound.value

        def collect(rows: list[Row]) -> list[Any]:
            found = [values.to_jsonable(cell(row)) for row in rows]
            found = [value for value in found if value is not None]
            if call.name == "make_set":
                found = list({values.key_of(value): value for value in found}.values())
            return found[:most]

        return collect


def cell_type(kind: str) -> str:
    """Resource Graph's name for a column type (`ColumnDataType` of its swagger)."""
    return {"long": "integer", "real": "number", "bool": "boolean", "dynamic": "object", "timespan": "string"}.get(
        kind, kind
    )
