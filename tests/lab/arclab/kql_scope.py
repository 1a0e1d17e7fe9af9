# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What type has a KQL expression, and what value has it in a row?

Compiles expressions into functions of a row, against columns of known types, and refuses what Kusto's type rules
refuse: unknown columns, comparisons of unlike types, conditions that are no bool, dynamic values where a key is
wanted. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import kql_tree as tree
from . import kql_values as values
from .kql_tree import KqlError, Place

Row = tuple[Any, ...]
Cell = Callable[[Row], Any]

AGGREGATES = ("count", "dcount", "make_list", "make_set", "min", "max", "sum", "any", "take_any")
_CASTS = ("tostring", "toint", "tolong", "tobool", "todatetime", "todynamic", "parse_json")


@dataclass(frozen=True)
class Field:
    name: str
    type: str


@dataclass(frozen=True)
class Typed:
    """A compiled expression; `constant` holds the value of a literal."""

    type: str
    cell: Cell
    constant: Any = None


def derived_name(expression: tree.Expression) -> str | None:
    """The column name KQL gives to an unnamed expression: the path of a property, also below a cast; otherwise none."""
    if isinstance(expression, tree.Column):
        return expression.name
    if isinstance(expression, tree.Access):
        base = derived_name(expression.base)
        return None if base is None else f"{base}_{expression.key}".replace(".", "_").replace("-", "_")
    if isinstance(expression, tree.Call) and expression.name in _CASTS and expression.arguments:
        return derived_name(expression.arguments[0])
    return None


def semantic(message: str, place: Place, token: str) -> KqlError:
    return KqlError("SemanticError", message, place, token)


class Scope:
    """Compiles expressions against one set of columns."""

    def __init__(self, fields: Sequence[Field], now: datetime, operator: str) -> None:
        self.fields = fields
        self.now = now
        self.operator = operator
        self.index = {field.name: position for position, field in enumerate(fields)}

    def compile(self, expression: tree.Expression) -> Typed:
        if isinstance(expression, tree.Literal):
            constant = expression.value
            return Typed(expression.type, lambda row: constant, constant)
        if isinstance(expression, tree.Column):
            return self._column(expression)
        if isinstance(expression, tree.Access):
            return self._access(expression)
        if isinstance(expression, tree.Call):
            return self._call(expression)
        if isinstance(expression, tree.Unary):
            return self._unary(expression)
        if isinstance(expression, tree.Binary):
            return self._binary(expression)
        if isinstance(expression, tree.Membership):
            return self._membership(expression)
        return self._between(expression)

    def condition(self, expression: tree.Expression) -> Cell:
        return self.boolean(expression, f"The condition of '{self.operator}'").cell

    def boolean(self, expression: tree.Expression, what: str) -> Typed:
        typed = self.compile(expression)
        if typed.type != "bool":
            raise semantic(f"{what} must be of type bool, not {typed.type}.", expression.place, self.operator)
        return typed

    def scalar_key(self, expression: tree.Expression, what: str) -> Typed:
        """A key of summarize, distinct, order, top or join: Kusto refuses dynamic ones."""
        typed = self.compile(expression)
        if typed.type == "dynamic":
            name = derived_name(expression) or self.operator
            raise semantic(
                f"{what} '{name}' is of a 'dynamic' type. Please use an explicit cast, for example tostring({name}).",
                expression.place, name,
            )  # fmt: skip
        return typed

    def _column(self, column: tree.Column) -> Typed:
        position = self.index.get(column.name)
        if position is None:
            raise semantic(
                f"'{self.operator}' operator: Failed to resolve scalar expression named '{column.name}'",
                column.place,
                column.name,
            )
        return Typed(self.fields[position].type, lambda row: row[position])

    def _access(self, expression: tree.Access) -> Typed:
        base = self.compile(expression.base)
        if base.type != "dynamic":
            raise semantic(
                f"A property or element can only be taken of a dynamic value, not of a {base.type}.",
                expression.place, str(expression.key),
            )  # fmt: skip
        cell, key = base.cell, expression.key
        return Typed("dynamic", lambda row: values.access(cell(row), key))

    def _call(self, call: tree.Call) -> Typed:
        if call.name in ("iff", "iif", "case"):
            self.arity(call, 3, 64 if call.name == "case" else 3)
            if len(call.arguments) % 2 == 0:
                raise semantic("case() takes pairs of a condition and a value, then a last value.", call.place, "case")
            pairs = list(zip(call.arguments[:-1:2], call.arguments[1:-1:2], strict=True))
            return self._choice(call, pairs, call.arguments[-1])
        if call.name == "coalesce":
            return self._coalesce(call)
        if call.name in ("now", "ago"):
            return self._moment(call)
        function = values.FUNCTIONS.get(call.name)
        if function is None:
            kind = "aggregate" if call.name in AGGREGATES else "function"
            where = " outside summarize" if kind == "aggregate" else ""
            raise KqlError(
                "InvalidQueryLanguage",
                f"The {kind} '{call.name}'{where} is not in the query subset.",
                call.place,
                call.name,
            )
        self.arity(call, function.needed, 64 if function.variadic else len(function.arguments))
        if call.name in ("pack", "bag_pack") and len(call.arguments) % 2:
            raise semantic(f"{call.name}() takes pairs of a key and a value.", call.place, call.name)
        return self._apply(call, function)

    def arity(self, call: tree.Call, least: int, most: int) -> None:
        if not least <= len(call.arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise semantic(f"{call.name}() takes {wanted} arguments, not {len(call.arguments)}.", call.place, call.name)

    def _apply(self, call: tree.Call, function: values.Function) -> Typed:
        cells = []
        for position, argument in enumerate(call.arguments):
            wanted = function.argument(position)
            typed = self.compile(argument)
            cells.append(self._converted(typed, wanted, call, position))
        work = function.call
        if len(cells) == 1:
            only = cells[0]
            return Typed(function.result, lambda row: work(only(row)))
        return Typed(function.result, lambda row: work(*[cell(row) for cell in cells]))

    def _converted(self, typed: Typed, wanted: str, call: tree.Call, position: int) -> Cell:
        cell = typed.cell
        if wanted in ("any", typed.type):
            return cell
        if wanted == "string" and typed.type == "dynamic":
            return lambda row: values.to_string(cell(row))
        if wanted == "long" and typed.type == "dynamic":
            return lambda row: values.to_long(cell(row))
        raise semantic(
            f"{call.name}(): argument #{position + 1} must be of type {wanted}, not {typed.type}.",
            call.arguments[position].place,
            call.name,
        )

    def _common_type(self, call: tree.Call, types: Sequence[str]) -> str:
        distinct = set(types)
        if len(distinct) == 1:
            return types[0]
        if distinct <= set(values.NUMERIC):
            return "real"
        if "dynamic" in distinct:
            return "dynamic"
        raise semantic(
            f"{call.name}() needs values of one type, not {' and '.join(sorted(distinct))}.", call.place, call.name
        )

    def _choice(
        self,
        call: tree.Call,
        pairs: Sequence[tuple[tree.Expression, tree.Expression]],
        otherwise: tree.Expression,
    ) -> Typed:
        tests = [self.boolean(test, f"The condition of {call.name}()").cell for test, _value in pairs]
        choices = [self.compile(value) for _test, value in pairs]
        last = self.compile(otherwise)
        result = self._common_type(call, [choice.type for choice in (*choices, last)])
        branches = list(zip(tests, [choice.cell for choice in choices], strict=True))
        fallback = last.cell

        def choose(row: Row) -> Any:
            for test, cell in branches:
                if test(row):
                    return cell(row)
            return fallback(row)

        return Typed(result, choose)

    def _coalesce(self, call: tree.Call) -> Typed:
        self.arity(call, 2, 64)
        typed = [self.compile(argument) for argument in call.arguments]
        result = self._common_type(call, [each.type for each in typed])
        cells = [each.cell for each in typed]

        def first(row: Row) -> Any:
            value: Any = None
            for cell in cells:
                value = cell(row)
                if value is not None and value != "":
                    return value
            return value

        return Typed(result, first)

    def _moment(self, call: tree.Call) -> Typed:
        least = 1 if call.name == "ago" else 0
        self.arity(call, least, 1)
        if not call.arguments:
            now = self.now
            return Typed("datetime", lambda row: now, now)
        offset = self.compile(call.arguments[0])
        if offset.type != "timespan":
            raise semantic(f"{call.name}() takes a timespan, not a {offset.type}.", call.place, call.name)
        sign = -1 if call.name == "ago" else 1
        now, cell = self.now, offset.cell
        return Typed("datetime", lambda row: values.arithmetic("+", now, sign * cell(row)))

    def _unary(self, expression: tree.Unary) -> Typed:
        typed = self.compile(expression.operand)
        if typed.type not in (*values.NUMERIC, "timespan"):
            raise semantic(
                f"'{expression.operator}' does not apply to {typed.type}.", expression.place, expression.operator
            )
        if expression.operator == "+":
            return typed
        cell = typed.cell
        return Typed(typed.type, lambda row: None if cell(row) is None else -cell(row))

    def _binary(self, expression: tree.Binary) -> Typed:
        operator = expression.operator
        if operator in ("and", "or"):
            left = self.boolean(expression.left, f"The left side of '{operator}'").cell
            right = self.boolean(expression.right, f"The right side of '{operator}'").cell
            if operator == "and":
                return Typed("bool", lambda row: bool(left(row)) and bool(right(row)))
            return Typed("bool", lambda row: bool(left(row)) or bool(right(row)))
        one, two = self.compile(expression.left), self.compile(expression.right)
        if operator in ("+", "-", "*", "/", "%"):
            return self._arithmetic(expression, one, two)
        if operator in ("==", "!="):
            return self._equality(expression, one, two)
        if operator in ("<", "<=", ">", ">="):
            return self._relation(expression, one, two)
        return self._string_predicate(expression, one, two)

    def _arithmetic(self, expression: tree.Binary, one: Typed, two: Typed) -> Typed:
        operator = expression.operator
        result = _ARITHMETIC_RESULTS.get((one.type, operator, two.type))
        if one.type in values.NUMERIC and two.type in values.NUMERIC:
            result = "real" if "real" in (one.type, two.type) else "long"
        if result is None:
            raise semantic(f"'{operator}' does not apply to {one.type} and {two.type}.", expression.place, operator)
        left, right = one.cell, two.cell
        return Typed(result, lambda row: values.arithmetic(operator, left(row), right(row)))

    def _comparable(self, expression: tree.Expression, token: str, one: Typed, two: Typed) -> None:
        """Kusto compares values of one type, numbers of both kinds, and dynamic with anything but dynamic."""
        kinds = {one.type, two.type}
        if kinds == {"dynamic"} or (len(kinds) == 2 and "dynamic" not in kinds and not kinds <= set(values.NUMERIC)):
            raise semantic(
                f"Cannot compare values of types {one.type} and {two.type}. Try adding explicit casts.",
                expression.place,
                token,
            )

    def _equality(self, expression: tree.Binary, one: Typed, two: Typed) -> Typed:
        self._comparable(expression, expression.operator, one, two)
        left, right = one.cell, two.cell
        if one.type == two.type == "string":
            if expression.operator == "==":
                return Typed("bool", lambda row: left(row) == right(row))
            return Typed("bool", lambda row: left(row) != right(row))
        left, right = _dated(one, two), _dated(two, one)
        compare = values.equal if expression.operator == "==" else values.unequal
        return Typed("bool", lambda row: compare(left(row), right(row)))

    def _relation(self, expression: tree.Binary, one: Typed, two: Typed) -> Typed:
        operator = expression.operator
        self._comparable(expression, operator, one, two)
        for typed in (one, two):
            if typed.type in ("string", "bool"):
                raise semantic(
                    f"'{operator}' does not apply to values of type {typed.type}.", expression.place, operator
                )
        left, right = _dated(one, two), _dated(two, one)
        return Typed("bool", lambda row: values.ordered(operator, left(row), right(row)))

    def _text(self, typed: Typed, operator: str, place: Place) -> Cell:
        cell = typed.cell
        if typed.type == "string":
            return cell
        if typed.type == "dynamic":
            return lambda row: values.to_string(cell(row))
        raise semantic(f"'{operator}' applies to strings, not to {typed.type}. Try tostring().", place, operator)

    def _string_predicate(self, expression: tree.Binary, one: Typed, two: Typed) -> Typed:
        operator = expression.operator
        left = self._text(one, operator, expression.place)
        right = self._text(two, operator, expression.place)
        negated = operator.startswith("!")
        name = "=~" if operator == "!~" else operator.lstrip("!")
        predicate = values.STRING_PREDICATES[name]
        if operator == "matches regex" and isinstance(two.constant, str):
            values.compiled(two.constant)
        if name == "=~" and isinstance(two.constant, str):
            wanted = two.constant.casefold()
            if negated:
                return Typed("bool", lambda row: left(row).casefold() != wanted)
            return Typed("bool", lambda row: left(row).casefold() == wanted)
        if negated:
            return Typed("bool", lambda row: not predicate(left(row), right(row)))
        return Typed("bool", lambda row: predicate(left(row), right(row)))

    def _membership(self, expression: tree.Membership) -> Typed:
        operator = expression.operator
        subject = self.compile(expression.subject)
        choices = [self.compile(choice) for choice in expression.choices]
        folded = operator.endswith("~")
        negated = operator.startswith("!")
        for choice in choices:
            if not (choice.type == "dynamic" and isinstance(choice.constant, list)):
                self._comparable(expression, operator, subject, choice)
        if folded:
            return self._folded_membership(expression, subject, choices, negated)
        cell, cells = subject.cell, [choice.cell for choice in choices]

        def member(row: Row) -> bool:
            value = cell(row)
            found = any(values.equal(value, each) for choice in cells for each in _spread(choice(row)))
            return found != negated

        return Typed("bool", member)

    def _folded_membership(
        self, expression: tree.Membership, subject: Typed, choices: Sequence[Typed], negated: bool
    ) -> Typed:
        cell = self._text(subject, expression.operator, expression.place)
        cells = [choice.cell for choice in choices]
        if all(choice.constant is not None for choice in choices):
            fixed = {values.to_string(each).casefold() for choice in choices for each in _spread(choice.constant)}
            return Typed("bool", lambda row: (cell(row).casefold() in fixed) != negated)

        def member(row: Row) -> bool:
            value = cell(row).casefold()
            found = any(values.to_string(each).casefold() == value for choice in cells for each in _spread(choice(row)))
            return found != negated

        return Typed("bool", member)

    def _between(self, expression: tree.Between) -> Typed:
        subject = expression.subject
        low = self._binary(tree.Binary(">=", subject, expression.low, expression.place)).cell
        high = self._binary(tree.Binary("<=", subject, expression.high, expression.place)).cell
        if expression.negated:
            return Typed("bool", lambda row: not (low(row) and high(row)))
        return Typed("bool", lambda row: bool(low(row)) and bool(high(row)))


_ARITHMETIC_RESULTS = {
    ("datetime", "-", "datetime"): "timespan",
    ("datetime", "+", "timespan"): "datetime",
    ("datetime", "-", "timespan"): "datetime",
    ("timespan", "+", "datetime"): "datetime",
    ("timespan", "+", "timespan"): "timespan",
    ("timespan", "-", "timespan"): "timespan",
    ("timespan", "*", "long"): "timespan",
    ("timespan", "/", "timespan"): "real",
}


def _dated(typed: Typed, other: Typed) -> Cell:
    """A dynamic value next to a datetime is read as one: ARM's times are strings inside `properties`."""
    cell = typed.cell
    if typed.type == "dynamic" and other.type == "datetime":
        return lambda row: values.to_datetime(cell(row))
    return cell


def _spread(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
