# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tokens does a KQL query consist of?

Names, literals (strings with escapes, verbatim strings, numbers, timespans, `datetime(...)`, `dynamic(...)`) and
symbols; `//` comments are space. Source: the Kusto documentation of string, timespan and datetime literals. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .kql_tree import KqlError, Place

_TIMESPAN_UNITS = (
    (86400.0, "d day days"),
    (3600.0, "h hr hrs hour hours"),
    (60.0, "m min minute minutes"),
    (1.0, "s sec second seconds"),
    (1e-3, "ms milli millis millisecond milliseconds"),
    (1e-6, "microsecond microseconds"),
    (1e-7, "tick ticks"),
)
_TIMESPAN_SECONDS = {name: seconds for seconds, names in _TIMESPAN_UNITS for name in names.split()}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\\": "\\", "'": "'", '"': '"'}


@dataclass(frozen=True)
class Token:
    """`kind` is name, string, number, timespan, datetime, dynamic, symbol or end; `value` is the literal's value."""

    kind: str
    text: str
    value: Any
    place: Place
    spaced: bool


_SYMBOLS = tuple(
    "!in~ !in !has !contains_cs !contains !startswith !endswith !between "
    "== != =~ !~ <= >= .. < > = | ( ) [ ] { } , . + - * / % : ;".split()
)
_NAME = re.compile(r"\$?[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|\d+(?:\.(?!\.)\d*)?(?:[eE][+-]?\d+)?")
_UNIT = re.compile(r"[A-Za-z]+")
_SPACE = re.compile(r"(?:\s+|//[^\n]*)+")


class Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.tokens: list[Token] = []
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._line = 0

    def place(self, offset: int) -> Place:
        while self._line + 1 < len(self._line_starts) and self._line_starts[self._line + 1] <= offset:
            self._line += 1
        while self._line_starts[self._line] > offset:
            self._line -= 1
        return Place(self._line + 1, offset - self._line_starts[self._line])

    def run(self) -> list[Token]:
        while True:
            start = self.at
            spaces = _SPACE.match(self.text, self.at)
            if spaces:
                self.at = spaces.end()
            spaced = self.at > start
            if self.at >= len(self.text):
                self.tokens.append(Token("end", "<EOF>", None, self.place(self.at), spaced))
                return self.tokens
            self.tokens.append(self._next(spaced))

    def _next(self, spaced: bool) -> Token:
        start = self.at
        place = self.place(start)
        char = self.text[start]
        if char in "'\"" or (char == "@" and self.text[start + 1 : start + 2] in ("'", '"')):
            value = self._verbatim(place) if char == "@" else self._string(place)
            return Token("string", self.text[start : self.at], value, place, spaced)
        if char.isdigit():
            return self._number(place, spaced)
        name = _NAME.match(self.text, start)
        if name:
            return self._name(name.group(), place, spaced)
        for symbol in _SYMBOLS:
            if self.text.startswith(symbol, start) and not self._splits_word(symbol, start):
                self.at = start + len(symbol)
                return Token("symbol", symbol, symbol, place, spaced)
        raise KqlError("ParserFailure", "ParserFailure", place, char)

    def _splits_word(self, symbol: str, start: int) -> bool:
        after = self.text[start + len(symbol) : start + len(symbol) + 1]
        return symbol[-1].isalpha() and (after.isalnum() or after == "_")

    def _string(self, place: Place) -> str:
        quote = self.text[self.at]
        start = self.at
        parts: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == quote:
                self.at += 1
                return "".join(parts)
            if char == "\n":
                break
            if char == "\\":
                parts.append(self._escape())
            else:
                parts.append(char)
                self.at += 1
        raise KqlError("ParserFailure", "ParserFailure", place, self.text[start : self.at], expected=quote)

    def _escape(self) -> str:
        following = self.text[self.at + 1 : self.at + 2]
        if following == "u":
            digits = self.text[self.at + 2 : self.at + 6]
            if re.fullmatch(r"[0-9A-Fa-f]{4}", digits):
                self.at += 6
                return chr(int(digits, 16))
        elif following and following in _ESCAPES:
            self.at += 2
            return _ESCAPES[following]
        raise KqlError(
            "ParserFailure", f"'\\{following}' is no escape sequence; write '\\\\' for a backslash or use @'...'",
            self.place(self.at), f"\\{following}",
        )  # fmt: skip

    def _verbatim(self, place: Place) -> str:
        start = self.at
        quote = self.text[self.at + 1]
        self.at += 2
        parts: list[str] = []
        while True:
            end = self.text.find(quote, self.at)
            if end < 0:
                raise KqlError("ParserFailure", "ParserFailure", place, self.text[start:], expected=quote)
            parts.append(self.text[self.at : end])
            self.at = end + 1
            if self.text[self.at : self.at + 1] != quote:
                return "".join(parts)
            parts.append(quote)
            self.at += 1

    def _number(self, place: Place, spaced: bool) -> Token:
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise KqlError("ParserFailure", "ParserFailure", place, self.text[self.at])
        digits = found.group()
        start = self.at
        self.at = found.end()
        unit = _UNIT.match(self.text, self.at)
        if unit and not digits.lower().startswith("0x"):
            seconds = _TIMESPAN_SECONDS.get(unit.group())
            if seconds is None:
                raise KqlError("ParserFailure", "ParserFailure", place, digits + unit.group())
            self.at = unit.end()
            text = self.text[start : self.at]
            try:
                span = timedelta(seconds=float(digits) * seconds)
            except OverflowError as error:
                raise KqlError("ParserFailure", "The timespan is too long.", place, text) from error
            return Token("timespan", text, span, place, spaced)
        value: int | float
        if digits.lower().startswith("0x"):
            value = int(digits, 16)
        else:
            value = int(digits) if digits.isdigit() else float(digits)
        return Token("number", digits, value, place, spaced)

    def _name(self, name: str, place: Place, spaced: bool) -> Token:
        self.at += len(name)
        if name == "in" and self.text.startswith("~", self.at):
            self.at += 1
            return Token("symbol", "in~", "in~", place, spaced)
        if name in ("datetime", "dynamic"):
            opening = re.compile(r"\s*\(").match(self.text, self.at)
            if opening:
                self.at = opening.end()
                return Token(name, name, self._raw_literal(place, name), place, spaced)
        return Token("name", name, name, place, spaced)

    def _raw_literal(self, place: Place, name: str) -> str:
        """The text up to the bracket that closes `datetime(` or `dynamic(`; those inside JSON strings do not count."""
        start = self.at
        depth = 1
        quote = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if quote:
                if char == "\\":
                    self.at += 1
                elif char == quote:
                    quote = ""
            elif char in "'\"":
                quote = char
            elif char in "()":
                depth += 1 if char == "(" else -1
                if depth == 0:
                    self.at += 1
                    return self.text[start : self.at - 1].strip()
            self.at += 1
        raise KqlError("ParserFailure", "ParserFailure", place, name, expected=")")
