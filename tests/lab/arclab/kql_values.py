# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do KQL's scalar values, operators and functions behave?

Python values stand for KQL's: str, int (long), float (real), bool, aware datetime, timedelta (timespan), and plain JSON
values for dynamic. `None` is null; strings have no null, their empty value is `''`. Semantics follow the Kusto
documentation of scalar data types, null values and string operators. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from math import isfinite
from operator import ge, gt, le, lt
from typing import Any

NUMERIC = ("long", "real")
_DATETIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?\s*(Z|z|[+-]\d{2}:?\d{2})?"
)


class ValueFailure(Exception):
    """A value that makes the whole query fail, for example a malformed regular expression."""


def to_string(value: Any) -> str:
    """`tostring()`: null is the empty string, objects and arrays are compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return render_datetime(value)
    if isinstance(value, timedelta):
        return render_timespan(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return repr(value) if isinstance(value, float) else str(value)


def render_datetime(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond:06d}0Z"


def render_timespan(value: timedelta) -> str:
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    hours, rest = divmod(value.seconds, 3600)
    text = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    if value.days:
        text = f"{value.days}.{text}"
    return f"{sign}{text}.{value.microseconds:06d}0" if value.microseconds else sign + text


def to_long(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return int(value) if isfinite(value) else None
    if isinstance(value, str):
        try:
            return int(value, 16) if value.lower().startswith("0x") else int(value)
        except ValueError:
            return None
    return None


def to_bool(value: Any) -> bool | None:
    if isinstance(value, (bool, int, float)):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "false"):
            return word == "true"
        number = to_long(word)
        return None if number is None else bool(number)
    return None


def to_datetime(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        return None
    found = _DATETIME.fullmatch(value.strip())
    if not found:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    micro = int((found.group(7) or "").ljust(6, "0")[:6] or 0)
    try:
        zone = _zone(found.group(8))
        return datetime(year, month, day, hour, minute, second, micro, zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(offset: str | None) -> tzinfo:
    if not offset or offset in "Zz":
        return UTC
    digits = offset[1:].replace(":", "")
    delta = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(delta if offset[0] == "+" else -delta)


def parse_json(value: Any) -> Any:
    """`parse_json()`/`todynamic()`: text that is no JSON stays a string."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


def to_jsonable(value: Any) -> Any:
    """A cell as it appears in Resource Graph's JSON answer."""
    if isinstance(value, datetime):
        return render_datetime(value)
    if isinstance(value, timedelta):
        return render_timespan(value)
    return value


def key_of(value: Any) -> Any:
    """A hashable stand-in, so that values can be grouped and compared for identity."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return (type(value).__name__, value) if isinstance(value, bool) else value


def access(value: Any, key: str | int) -> Any:
    """`dynamic.key` and `dynamic[0]`: what is not there is null; property names are case-sensitive."""
    if isinstance(key, str):
        return value.get(key) if isinstance(value, dict) else None
    if isinstance(value, list) and -len(value) <= key < len(value):
        return value[key]
    return None


@lru_cache(maxsize=256)
def compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueFailure(f"'{pattern}' is not a regular expression: {error}") from error


@lru_cache(maxsize=256)
def _term(needle: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(needle)}(?![A-Za-z0-9])", re.IGNORECASE)


STRING_PREDICATES: dict[str, Callable[[str, str], bool]] = {
    "=~": lambda text, other: text.casefold() == other.casefold(),
    "has": lambda text, other: _term(other).search(text) is not None,
    "contains": lambda text, other: other.casefold() in text.casefold(),
    "contains_cs": lambda text, other: other in text,
    "startswith": lambda text, other: text.casefold().startswith(other.casefold()),
    "endswith": lambda text, other: text.casefold().endswith(other.casefold()),
    "matches regex": lambda text, other: compiled(other).search(text) is not None,
}
"""Predicates on strings; those with `!` in front (`!~` for `=~`) negate them."""


def equal(left: Any, right: Any) -> bool | None:
    """`==`: null against null is null, null against a value is false; a dynamic value is compared by what it holds."""
    if left is None or right is None:
        return None if left is None and right is None else False
    if isinstance(left, str) != isinstance(right, str):
        return to_string(left) == to_string(right)
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def unequal(left: Any, right: Any) -> bool | None:
    same = equal(left, right)
    return None if same is None else not same


def ordered(operator: str, left: Any, right: Any) -> bool | None:
    """`<`, `<=`, `>`, `>=` on numbers, datetimes and timespans; null and values of another kind give null."""
    if isinstance(left, datetime) != isinstance(right, datetime):
        left, right = to_datetime(left), to_datetime(right)
    if left is None or right is None or isinstance(left, (str, dict, list)) or isinstance(right, (str, dict, list)):
        return None
    try:
        return bool(_ORDERINGS[operator](left, right))
    except TypeError:
        return None


_ORDERINGS = {"<": lt, "<=": le, ">": gt, ">=": ge}


def arithmetic(operator: str, left: Any, right: Any) -> Any:
    if left is None or right is None:
        return None
    try:
        if operator == "+":
            return left + right
        if operator == "-":
            return left - right
        if operator == "*":
            return left * right
        if operator == "%":
            return left % right
        if isinstance(left, int) and isinstance(right, int):
            return int(left / right)
        return left / right
    except (ZeroDivisionError, OverflowError, TypeError):
        return None


def _substring(text: str, start: int | None, length: int | None = None) -> str:
    if start is None:
        return ""
    begin = max(0, len(text) + start) if start < 0 else start
    if length is None:
        return text[begin:]
    return text[begin : begin + length] if length > 0 else ""


def _indexof(
    text: str, needle: str, start: int | None = 0, length: int | None = -1, occurrence: int | None = 1
) -> int | None:
    if start is None or length is None or occurrence is None or occurrence < 1:
        return None
    begin = max(0, len(text) + start) if start < 0 else start
    end = len(text) if length < 0 else begin + length
    at = begin - 1
    for _dummy in range(occurrence):
        at = text.find(needle, at + 1, end)
        if at < 0:
            return -1
    return at


def _split(text: str, delimiter: str, index: int | None = None) -> list[str]:
    parts = text.split(delimiter) if delimiter else list(text)
    if index is None:
        return parts
    return [parts[index]] if 0 <= index < len(parts) else []


def _extract(pattern: str, group: int | None, text: str) -> str:
    found = compiled(pattern).search(text)
    if not found or group is None or not 0 <= group <= found.re.groups:
        return ""
    return found.group(group) or ""


def _trim(pattern: str, text: str) -> str:
    text = re.sub(rf"^(?:{compiled(pattern).pattern})", "", text)
    return re.sub(rf"(?:{pattern})$", "", text)


@dataclass(frozen=True)
class Function:
    """A scalar function: types of its arguments (`variadic`: the last one repeats), how many it needs, its result."""

    arguments: tuple[str, ...]
    needed: int
    result: str
    call: Callable[..., Any]
    variadic: bool = False

    def argument(self, index: int) -> str:
        return self.arguments[min(index, len(self.arguments) - 1)]


def _pack(*pairs: Any) -> dict[str, Any]:
    return {to_string(key): to_jsonable(value) for key, value in zip(pairs[::2], pairs[1::2], strict=True)}


FUNCTIONS: dict[str, Function] = {
    "tolower": Function(("string",), 1, "string", str.lower),
    "toupper": Function(("string",), 1, "string", str.upper),
    "tostring": Function(("any",), 1, "string", to_string),
    "toint": Function(("any",), 1, "long", to_long),
    "tolong": Function(("any",), 1, "long", to_long),
    "tobool": Function(("any",), 1, "bool", to_bool),
    "todatetime": Function(("any",), 1, "datetime", to_datetime),
    "strcat": Function(("any",), 1, "string", lambda *parts: "".join(map(to_string, parts)), variadic=True),
    "strlen": Function(("string",), 1, "long", len),
    "split": Function(("string", "string", "long"), 2, "dynamic", _split),
    "substring": Function(("string", "long", "long"), 2, "string", _substring),
    "indexof": Function(("string", "string", "long", "long", "long"), 2, "long", _indexof),
    "replace_string": Function(
        ("string", "string", "string"), 3, "string", lambda text, old, new: text.replace(old, new)
    ),
    "extract": Function(("string", "long", "string"), 3, "string", _extract),
    "trim": Function(("string", "string"), 2, "string", _trim),
    "array_length": Function(("dynamic",), 1, "long", lambda value: len(value) if isinstance(value, list) else None),
    "pack": Function(("any",), 2, "dynamic", _pack, variadic=True),
    "bag_pack": Function(("any",), 2, "dynamic", _pack, variadic=True),
    "parse_json": Function(("any",), 1, "dynamic", parse_json),
    "todynamic": Function(("any",), 1, "dynamic", parse_json),
    "isempty": Function(("any",), 1, "bool", lambda value: to_string(value) == ""),
    "isnotempty": Function(("any",), 1, "bool", lambda value: to_string(value) != ""),
    "isnull": Function(("any",), 1, "bool", lambda value: value is None),
    "isnotnull": Function(("any",), 1, "bool", lambda value: value is not None),
    "not": Function(("bool",), 1, "bool", lambda value: None if value is None else not value),
}
"""Functions whose result type does not depend on their arguments; iff, case, coalesce, now and ago are in `kql.py`."""


def sum_of(values: Sequence[Any]) -> Any:
    present = [value for value in values if value is not None]
    if not present:
        return 0
    total = present[0]
    for value in present[1:]:
        total = total + value
    return total
