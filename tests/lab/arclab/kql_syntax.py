# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this text a query of the lab's KQL subset, and what does it consist of?

Tokens and a recursive-descent parser for the part of the Kusto Query Language that Azure Resource Graph documents
("Understanding the Azure Resource Graph query language") and that this lab can evaluate. Whatever lies outside is
refused by its name and place, never skipped: a query that passes here must mean the same there. Pure; `kql.py`
evaluates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .kql_tokens import Lexer, Token
from .kql_tree import (
    Access,
    Between,
    Binary,
    Call,
    Column,
    Count,
    Distinct,
    Expression,
    Extend,
    Join,
    KqlError,
    Literal,
    Membership,
    MvExpand,
    Named,
    Operator,
    Order,
    Pipeline,
    Place,
    Project,
    ProjectRename,
    ProjectSelect,
    SortKey,
    Summarize,
    Take,
    Top,
    Unary,
    UnionLegs,
    Where,
)

TABLES = ("resources", "resourcecontainers", "authorizationresources")
"""The tables of the lab (Resource Graph has some forty); the first is the default of a query that names none."""

JOIN_KINDS = ("innerunique", "inner", "leftouter")
MAX_JOINS = 3
MAX_MV_EXPANDS = 3
MAX_UNION_LEGS = 3
MV_EXPAND_DEFAULT_ROWS = 128
MV_EXPAND_MAX_ROWS = 400

_STRING_OPERATORS = ("has", "contains", "contains_cs", "startswith", "endswith")
_OPERATOR_WORDS = frozenset(
    [
        *_STRING_OPERATORS,
        "in",
        "between",
        "matches",
        "and",
        "or",
        "by",
        "asc",
        "desc",
        "nulls",
        "on",
        "to",
        "limit",
        "of",
    ]
)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.index = 0
        self.joins = 0
        self.mv_expands = 0

    # -- tokens

    @property
    def current(self) -> Token:
        return self.tokens[self.index]

    def advance(self) -> Token:
        token = self.current
        if token.kind != "end":
            self.index += 1
        return token

    def at_symbol(self, *symbols: str) -> bool:
        return self.current.kind == "symbol" and self.current.text in symbols

    def at_word(self, *words: str) -> bool:
        return self.current.kind == "name" and self.current.text in words

    def fail(self, expected: str | None = None, token: Token | None = None) -> KqlError:
        found = token or self.current
        return KqlError("ParserFailure", "ParserFailure", found.place, found.text, expected)

    def outside(self, what: str, token: Token) -> KqlError:
        return KqlError("InvalidQueryLanguage", f"{what} is not in the query subset.", token.place, token.text)

    def take_symbol(self, symbol: str) -> Token:
        if not self.at_symbol(symbol):
            raise self.fail(symbol)
        return self.advance()

    def take_word(self, word: str) -> Token:
        if not self.at_word(word):
            raise self.fail(word)
        return self.advance()

    def take_name(self) -> Token:
        """A column name: plain, or in brackets as `['my column']`."""
        if self.at_symbol("[") and self.tokens[self.index + 1].kind == "string":
            opening = self.advance()
            name = self.advance()
            self.take_symbol("]")
            return Token("name", name.value, name.value, opening.place, opening.spaced)
        if self.current.kind != "name" or self.current.text.startswith("$"):
            raise self.fail("a column name")
        return self.advance()

    # -- pipelines

    def query(self) -> Pipeline:
        if self.current.kind == "end":
            raise self.fail("a query")
        pipeline = self.pipeline(top=True)
        if self.at_symbol(";"):
            self.advance()
        if self.current.kind != "end":
            raise self.fail("|")
        return pipeline

    def pipeline(self, *, top: bool = False) -> Pipeline:
        table = TABLES[0]
        operators: list[Operator] = []
        token = self.current
        if token.kind != "name":
            raise self.fail("a table name or an operator", token)
        following = self.tokens[self.index + 1]
        if token.text.lower() in TABLES and (following.kind == "end" or following.text in ("|", ")", ";", ",")):
            table = self.advance().text.lower()
        elif top and token.text not in ("join", "union") and self._operator_name() in _OPERATORS:
            operators.append(self.operator())
        elif self._operator_name() in ("let", "join", "union", "print", "range", "datatable", "search", "find"):
            raise self.outside(f"'{token.text}' at the start of a query", token)
        else:
            raise KqlError(
                "InvalidQueryLanguage", f"The table '{token.text}' is not known here; known are {', '.join(TABLES)}.",
                token.place, token.text,
            )  # fmt: skip
        while self.at_symbol("|"):
            self.advance()
            operators.append(self.operator())
        return Pipeline(table, tuple(operators))

    def _operator_name(self) -> str:
        name = self.current.text
        index = self.index + 1
        while (
            self.tokens[index].text == "-" and not self.tokens[index].spaced
            and self.tokens[index + 1].kind == "name" and not self.tokens[index + 1].spaced
        ):  # fmt: skip
            name += "-" + self.tokens[index + 1].text
            index += 2
        return name

    def operator(self) -> Operator:
        token = self.current
        if token.kind != "name":
            raise self.fail("an operator")
        name = self._operator_name()
        method = _OPERATORS.get(name)
        if method is None:
            raise KqlError(
                "InvalidQueryLanguage", f"The operator '{name}' is not in the query subset.", token.place, name
            )
        self.index += 1 + 2 * name.count("-")
        operator: Operator = getattr(self, method)(token)
        return operator

    def _where(self, token: Token) -> Operator:
        return Where(self.expression())

    def _project(self, token: Token) -> Operator:
        return Project(self._named_list())

    def _extend(self, token: Token) -> Operator:
        return Extend(self._named_list())

    def _project_away(self, token: Token) -> Operator:
        return ProjectSelect(self._patterns(), keep=False)

    def _project_keep(self, token: Token) -> Operator:
        return ProjectSelect(self._patterns(), keep=True)

    def _patterns(self) -> tuple[tuple[str, Place], ...]:
        patterns = [self._pattern()]
        while self.at_symbol(","):
            self.advance()
            patterns.append(self._pattern())
        return tuple(patterns)

    def _pattern(self) -> tuple[str, Place]:
        first = self.current
        if self.at_symbol("["):
            return self.take_name().value, first.place
        text = ""
        while (self.current.kind in ("name", "number") or self.at_symbol("*")) and (
            not text or not self.current.spaced
        ):
            text += self.advance().text
        if not text:
            raise self.fail("a column name")
        return text, first.place

    def _project_rename(self, token: Token) -> Operator:
        pairs = []
        while True:
            new = self.take_name()
            self.take_symbol("=")
            old = self.take_name()
            pairs.append((new.value, old.value, old.place))
            if not self.at_symbol(","):
                return ProjectRename(tuple(pairs))
            self.advance()

    def _order(self, token: Token) -> Operator:
        self.take_word("by")
        return Order(self._sort_keys())

    def _take(self, token: Token) -> Operator:
        return Take(self._row_count())

    def _top(self, token: Token) -> Operator:
        rows = self._row_count()
        self.take_word("by")
        return Top(rows, self._sort_keys())

    def _row_count(self) -> int:
        if self.current.kind != "number" or not isinstance(self.current.value, int):
            raise self.fail("a number of rows")
        value: int = self.advance().value
        return value

    def _sort_keys(self) -> tuple[SortKey, ...]:
        keys = []
        while True:
            expression = self.expression()
            descending = True
            if self.at_word("asc", "desc"):
                descending = self.advance().text == "desc"
            nulls_first = not descending
            if self.at_word("nulls"):
                self.advance()
                if not self.at_word("first", "last"):
                    raise self.fail("first or last")
                nulls_first = self.advance().text == "first"
            keys.append(SortKey(expression, descending, nulls_first))
            if not self.at_symbol(","):
                return tuple(keys)
            self.advance()

    def _count(self, token: Token) -> Operator:
        return Count()

    def _summarize(self, token: Token) -> Operator:
        aggregates: tuple[Named, ...] = ()
        by: tuple[Named, ...] = ()
        if not self.at_word("by"):
            aggregates = self._named_list()
        if self.at_word("by"):
            self.advance()
            by = self._named_list()
        if not aggregates and not by:
            raise self.fail("an aggregate or by")
        return Summarize(aggregates, by)

    def _distinct(self, token: Token) -> Operator:
        if self.at_symbol("*"):
            self.advance()
            return Distinct(())
        return Distinct(self._named_list())

    def _mv_expand(self, token: Token) -> Operator:
        self.mv_expands += 1
        if self.mv_expands > MAX_MV_EXPANDS:
            raise KqlError(
                "DisallowedMaxNumberOfMvExpand",
                f"At most {MAX_MV_EXPANDS} mv-expand are allowed.",
                token.place,
                token.text,
            )
        if self.at_word("kind", "bagexpansion", "with_itemindex") and self.tokens[self.index + 1].text == "=":
            raise self.outside(f"The parameter '{self.current.text}' of mv-expand", self.current)
        columns: list[tuple[Named, str | None]] = []
        while True:
            column = self._named()
            kind = None
            if self.at_word("to"):
                self.advance()
                self.take_word("typeof")
                self.take_symbol("(")
                kind = self.advance().text
                if kind not in ("string", "long", "int", "real", "bool", "datetime", "dynamic"):
                    raise self.outside(f"typeof({kind})", self.tokens[self.index - 1])
                self.take_symbol(")")
            columns.append((column, kind))
            if not self.at_symbol(","):
                break
            self.advance()
        rows = MV_EXPAND_DEFAULT_ROWS
        if self.at_word("limit"):
            limit = self.advance()
            rows = self._row_count()
            if rows > MV_EXPAND_MAX_ROWS:
                raise KqlError(
                    "SemanticError",
                    f"The RowLimit of mv-expand is at most {MV_EXPAND_MAX_ROWS}.",
                    limit.place,
                    str(rows),
                )
        return MvExpand(tuple(columns), rows)

    def _join(self, token: Token) -> Operator:
        self.joins += 1
        if self.joins > MAX_JOINS:
            raise KqlError(
                "DisallowedMaxNumberOfJoins", f"At most {MAX_JOINS} joins are allowed.", token.place, token.text
            )
        kind = JOIN_KINDS[0]
        while self.current.kind == "name" and (self.tokens[self.index + 1].text in ("=", ".")):
            parameter = self.advance()
            if parameter.text != "kind":
                raise self.outside(f"The parameter '{parameter.text}' of join", parameter)
            self.take_symbol("=")
            flavour = self.advance()
            kind = flavour.text
            if kind not in JOIN_KINDS:
                raise self.outside(f"The join kind '{kind}'", flavour)
        right = self._table_or_pipeline()
        self.take_word("on")
        conditions = [self._join_condition()]
        while self.at_symbol(",") or self.at_word("and"):
            self.advance()
            conditions.append(self._join_condition())
        return Join(kind, right, tuple(conditions), token.place)

    def _table_or_pipeline(self) -> Pipeline:
        if self.at_symbol("("):
            self.advance()
            inner = self.pipeline()
            self.take_symbol(")")
            return inner
        token = self.current
        if token.kind != "name" or token.text.lower() not in TABLES:
            raise self.fail("a table or a query in parentheses")
        return Pipeline(self.advance().text.lower())

    def _join_condition(self) -> tuple[Expression, Expression]:
        left = self._join_side()
        if isinstance(left, Column) and left.side is None:
            return left, left
        equals = self.take_symbol("==")
        right = self._join_side()
        sides = {side.side for side in (left, right)}
        if sides != {"left", "right"}:
            raise KqlError(
                "SemanticError", "A join condition compares $left.<column> with $right.<column>.", equals.place, "=="
            )
        return (left, right) if left.side == "left" else (right, left)

    def _join_side(self) -> Column:
        token = self.current
        if token.text in ("$left", "$right"):
            self.advance()
            self.take_symbol(".")
            name = self.take_name()
            return Column(name.value, token.place, token.text[1:])
        name = self.take_name()
        return Column(name.value, name.place)

    def _union(self, token: Token) -> Operator:
        kind = "outer"
        with_source = None
        while self.current.kind == "name" and self.tokens[self.index + 1].text == "=":
            parameter = self.advance()
            self.take_symbol("=")
            value = self.take_name()
            if parameter.text == "kind" and value.text in ("inner", "outer"):
                kind = value.text
            elif parameter.text == "withsource":
                with_source = value.value
            else:
                raise self.outside(f"The parameter '{parameter.text}={value.text}' of union", parameter)
        legs = [self._table_or_pipeline()]
        while self.at_symbol(","):
            self.advance()
            legs.append(self._table_or_pipeline())
        if len(legs) + 1 > MAX_UNION_LEGS:
            raise KqlError(
                "DisallowedMaxNumberOfUnionLegs",
                f"At most {MAX_UNION_LEGS} union legs are allowed.",
                token.place,
                token.text,
            )
        return UnionLegs(kind, with_source, tuple(legs), token.place)

    def _named_list(self) -> tuple[Named, ...]:
        columns = [self._named()]
        while self.at_symbol(","):
            self.advance()
            columns.append(self._named())
        return tuple(columns)

    def _named(self) -> Named:
        start = self.index
        token = self.current
        if token.kind == "name" or self.at_symbol("["):
            try:
                name = self.take_name()
            except KqlError:
                self.index = start
            else:
                if self.at_symbol("="):
                    self.advance()
                    return Named(name.value, self.expression(), token.place)
                self.index = start
        return Named(None, self.expression(), token.place)

    # -- expressions, loosest binding first

    def expression(self) -> Expression:
        left = self._conjunction()
        while self.at_word("or"):
            operator = self.advance()
            left = Binary("or", left, self._conjunction(), operator.place)
        return left

    def _conjunction(self) -> Expression:
        left = self._comparison()
        while self.at_word("and"):
            operator = self.advance()
            left = Binary("and", left, self._comparison(), operator.place)
        return left

    def _comparison(self) -> Expression:
        left = self._sum()
        token = self.current
        if self.at_symbol("==", "!=", "=~", "!~", "<", "<=", ">", ">="):
            self.advance()
            return Binary(token.text, left, self._sum(), token.place)
        if self.at_symbol("in~", "!in", "!in~") or self.at_word("in"):
            self.advance()
            return Membership(token.text, left, self._choices(), token.place)
        if self.at_symbol("!between") or self.at_word("between"):
            self.advance()
            return self._between(left, token)
        if self.at_word("matches"):
            self.advance()
            self.take_word("regex")
            return Binary("matches regex", left, self._sum(), token.place)
        if self.at_word(*_STRING_OPERATORS) or self.at_symbol(*(f"!{word}" for word in _STRING_OPERATORS)):
            self.advance()
            return Binary(token.text, left, self._sum(), token.place)
        if token.kind == "name" and token.text not in _OPERATOR_WORDS:
            raise self.outside(f"The operator '{token.text}'", token)
        return left

    def _choices(self) -> tuple[Expression, ...]:
        opening = self.take_symbol("(")
        if self.current.kind == "name" and self.current.text.lower() in TABLES:
            raise self.outside("'in' over another query", opening)
        choices = [self.expression()]
        while self.at_symbol(","):
            self.advance()
            choices.append(self.expression())
        self.take_symbol(")")
        return tuple(choices)

    def _between(self, subject: Expression, token: Token) -> Expression:
        self.take_symbol("(")
        low = self._sum()
        self.take_symbol("..")
        high = self._sum()
        self.take_symbol(")")
        return Between(subject, low, high, token.text.startswith("!"), token.place)

    def _sum(self) -> Expression:
        left = self._product()
        while self.at_symbol("+", "-"):
            operator = self.advance()
            left = Binary(operator.text, left, self._product(), operator.place)
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while self.at_symbol("*", "/", "%"):
            operator = self.advance()
            left = Binary(operator.text, left, self._unary(), operator.place)
        return left

    def _unary(self) -> Expression:
        if self.at_symbol("-", "+"):
            operator = self.advance()
            return Unary(operator.text, self._unary(), operator.place)
        return self._postfix()

    def _postfix(self) -> Expression:
        expression = self._primary()
        while True:
            token = self.current
            if self.at_symbol("."):
                self.advance()
                if self.at_symbol("["):
                    continue
                if self.current.kind != "name":
                    raise self.fail("a property name")
                expression = Access(expression, self.advance().text, token.place)
            elif self.at_symbol("["):
                self.advance()
                expression = Access(expression, self._index(), token.place)
                self.take_symbol("]")
            else:
                return expression

    def _index(self) -> str | int:
        negative = self.at_symbol("-")
        if negative:
            self.advance()
        token = self.current
        if token.kind == "string" and not negative:
            text: str = self.advance().value
            return text
        if token.kind == "number" and isinstance(token.value, int):
            number: int = self.advance().value
            return -number if negative else number
        raise self.fail("a property name in quotes or an index")

    def _primary(self) -> Expression:
        token = self.current
        if token.kind == "string":
            self.advance()
            return Literal(token.value, "string", token.place)
        if token.kind == "number":
            self.advance()
            return Literal(token.value, "long" if isinstance(token.value, int) else "real", token.place)
        if token.kind == "timespan":
            self.advance()
            return Literal(token.value, "timespan", token.place)
        if token.kind in ("datetime", "dynamic"):
            self.advance()
            return self._typed_literal(token)
        if self.at_symbol("("):
            self.advance()
            inner = self.expression()
            self.take_symbol(")")
            return inner
        if self.at_symbol("["):
            name = self.take_name()
            return Column(name.value, name.place)
        if token.kind == "name":
            return self._name_or_call()
        raise self.fail()

    def _typed_literal(self, token: Token) -> Expression:
        if token.kind == "datetime":
            return Call("todatetime", (Literal(token.value.strip("'\""), "string", token.place),), token.place)
        try:
            inner = _Parser(Lexer(token.value).run())
            value = inner.json_value()
            if inner.current.kind != "end":
                raise inner.fail(")")
        except KqlError as error:
            raise KqlError("ParserFailure", "dynamic(...) does not hold JSON.", token.place, error.token) from error
        return Literal(value, "dynamic", token.place)

    def json_value(self) -> Any:
        """The content of `dynamic(...)`: JSON whose strings may also stand in single quotes."""
        token = self.advance()
        if token.kind in ("string", "number"):
            return token.value
        if token.kind == "name" and token.text in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[token.text]
        if token.text == "-" and self.current.kind == "number":
            return -self.advance().value
        if token.text == "[":
            return self._json_members("]", self.json_value)
        if token.text == "{":
            return dict(self._json_members("}", self._json_pair))
        raise self.fail("a JSON value", token)

    def _json_pair(self) -> tuple[str, Any]:
        if self.current.kind != "string":
            raise self.fail("a property name in quotes")
        name = self.advance().value
        self.take_symbol(":")
        return name, self.json_value()

    def _json_members(self, closing: str, member: Callable[[], Any]) -> list[Any]:
        members: list[Any] = []
        while not self.at_symbol(closing):
            if members:
                self.take_symbol(",")
            members.append(member())
        self.take_symbol(closing)
        return members

    def _name_or_call(self) -> Expression:
        token = self.advance()
        if token.text in ("$left", "$right"):
            raise KqlError(
                "SemanticError", f"{token.text} may only stand in a join condition.", token.place, token.text
            )
        if token.text in ("true", "false"):
            return Literal(token.text == "true", "bool", token.place)
        if not self.at_symbol("("):
            if token.text in _OPERATOR_WORDS:
                raise self.fail("an expression", token)
            return Column(token.text, token.place)
        self.advance()
        arguments: list[Expression] = []
        while not self.at_symbol(")"):
            if arguments:
                self.take_symbol(",")
            arguments.append(self.expression())
        self.take_symbol(")")
        return Call(token.text, tuple(arguments), token.place)


_OPERATORS = {
    "where": "_where",
    "project": "_project",
    "project-away": "_project_away",
    "project-keep": "_project_keep",
    "project-rename": "_project_rename",
    "extend": "_extend",
    "order": "_order",
    "sort": "_order",
    "limit": "_take",
    "take": "_take",
    "top": "_top",
    "count": "_count",
    "summarize": "_summarize",
    "distinct": "_distinct",
    "mv-expand": "_mv_expand",
    "mvexpand": "_mv_expand",
    "join": "_join",
    "union": "_union",
}


@lru_cache(maxsize=256)
def parse(query: str) -> Pipeline:
    """The query as a pipeline of operators; `KqlError` when it is malformed or outside the subset."""
    try:
        return _Parser(Lexer(query).run()).query()
    except RecursionError:
        raise KqlError("ParserFailure", "The query is nested too deeply.", Place(), query[:64]) from None
