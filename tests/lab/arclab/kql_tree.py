# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a KQL query consist of?

The nodes of a parsed query (expressions and tabular operators), places in its text, and the error that refuses it.
Pure data, shared by the parser (`kql_syntax.py`) and the engine (`kql.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Place:
    """Where something stands in the query: `line` counts from 1, `column` from 0, as Resource Graph reports them."""

    line: int = 1
    column: int = 0


class KqlError(Exception):
    """The query is refused: `code` is `ParserFailure`, `InvalidQueryLanguage` (not in the subset) or another."""

    def __init__(self, code: str, message: str, place: Place, token: str, expected: str | None = None) -> None:
        super().__init__(f"{code} at {place.line}:{place.column}: {message}")
        self.code = code
        self.message = message
        self.place = place
        self.token = token
        self.expected = expected

    def detail(self) -> dict[str, Any]:
        """One entry of `error.details` in the shape Resource Graph uses (line, characterPositionInLine, token)."""
        entry: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "line": self.place.line,
            "characterPositionInLine": self.place.column,
            "token": self.token,
        }
        if self.expected is not None:
            entry["expectedToken"] = self.expected
        return entry


@dataclass(frozen=True)
class Literal:
    value: Any
    type: str
    place: Place


@dataclass(frozen=True)
class Column:
    """`side` is `left` or `right` for `$left.x` and `$right.x`, which only a join condition may use."""

    name: str
    place: Place
    side: str | None = None


@dataclass(frozen=True)
class Access:
    """`base.key`, `base['key']` or `base[0]`."""

    base: Expression
    key: str | int
    place: Place


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Expression, ...]
    place: Place


@dataclass(frozen=True)
class Unary:
    operator: str
    operand: Expression
    place: Place


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Expression
    right: Expression
    place: Place


@dataclass(frozen=True)
class Membership:
    """`in`, `!in`, `in~`, `!in~`."""

    operator: str
    subject: Expression
    choices: tuple[Expression, ...]
    place: Place


@dataclass(frozen=True)
class Between:
    subject: Expression
    low: Expression
    high: Expression
    negated: bool
    place: Place


Expression: TypeAlias = Literal | Column | Access | Call | Unary | Binary | Membership | Between


@dataclass(frozen=True)
class Named:
    """`name = expression`, or the expression alone (`name` is None, the engine derives one)."""

    name: str | None
    expression: Expression
    place: Place


@dataclass(frozen=True)
class SortKey:
    expression: Expression
    descending: bool
    nulls_first: bool


@dataclass(frozen=True)
class Where:
    condition: Expression


@dataclass(frozen=True)
class Project:
    columns: tuple[Named, ...]


@dataclass(frozen=True)
class ProjectSelect:
    """`project-away` (`keep` False) and `project-keep`; names may hold `*`."""

    names: tuple[tuple[str, Place], ...]
    keep: bool


@dataclass(frozen=True)
class ProjectRename:
    pairs: tuple[tuple[str, str, Place], ...]
    """(new, old, place)"""


@dataclass(frozen=True)
class Extend:
    columns: tuple[Named, ...]


@dataclass(frozen=True)
class Order:
    keys: tuple[SortKey, ...]


@dataclass(frozen=True)
class Take:
    rows: int


@dataclass(frozen=True)
class Top:
    rows: int
    keys: tuple[SortKey, ...]


@dataclass(frozen=True)
class Count:
    pass


@dataclass(frozen=True)
class Summarize:
    aggregates: tuple[Named, ...]
    by: tuple[Named, ...]


@dataclass(frozen=True)
class Distinct:
    """`columns` is empty for `distinct *`."""

    columns: tuple[Named, ...]


@dataclass(frozen=True)
class MvExpand:
    columns: tuple[tuple[Named, str | None], ...]
    """(column, type of `to typeof(type)`)"""
    rows: int


@dataclass(frozen=True)
class Join:
    kind: str
    right: Pipeline
    conditions: tuple[tuple[Expression, Expression], ...]
    place: Place


@dataclass(frozen=True)
class UnionLegs:
    kind: str
    with_source: str | None
    legs: tuple[Pipeline, ...]
    place: Place


Operator: TypeAlias = (
    Where
    | Project
    | ProjectSelect
    | ProjectRename
    | Extend
    | Order
    | Take
    | Top
    | Count
    | Summarize
    | Distinct
    | MvExpand
    | Join
    | UnionLegs
)


@dataclass(frozen=True)
class Pipeline:
    table: str
    operators: tuple[Operator, ...] = field(default_factory=tuple)
