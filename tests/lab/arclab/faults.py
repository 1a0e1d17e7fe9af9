# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on purpose?

Rules that the control API adds. A rule matches requests (kind, method, path, machine, principal), lets the first `skip`
of them pass, then strikes `times` times (always, if absent), each time with `probability` from a random sequence that
`seed` fixes. The first rule that strikes wins.
"""

from __future__ import annotations

import random
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from .entra_errors import check_number

KINDS = ("arm", "entra", "graph", "relay")


@dataclass
class Fault:
    """One rule: what it matches, how often it strikes, what it does.

    Match: `path` is a regular expression searched in the path without regard to case, `machine` a machine's name,
    `token_type` what Entra is asked for (`bearer`, `ssh-cert`).
    Effect: an HTTP error (`status`, `code`, `message`, `headers`), `reset` of the TCP connection, a body that is slow
    (`slow_body`: seconds it takes), truncated or garbage, `expire_token` (401 ExpiredAuthenticationToken) or
    `revoke_tokens` (401 with a claims challenge; needs a new login), `aadsts` (Entra's refusal with that number, see
    `entra_errors`), `delay_ms` before the answer, and
    `fail_operation`, the error `{"code", "message"}` with which the operation that the request starts will end. `when`:
    does the lab carry the request out before the fault strikes (`after`), or not at all (`before`)?
    """

    kind: Literal["arm", "entra", "graph", "relay"] = "arm"
    method: str | None = None
    path: str | None = None
    machine: str | None = None
    principal: str | None = None
    token_type: str | None = None
    times: int | None = None
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    status: int | None = None
    code: str | None = None
    message: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    slow_body: float | None = None
    truncate: bool = False
    garbage: bool = False
    expire_token: bool = False
    revoke_tokens: bool = False
    aadsts: int | None = None
    delay_ms: float = 0.0
    fail_operation: dict[str, str] | None = None
    when: Literal["before", "after"] = "before"
    id: int = 0
    struck: int = 0

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fault:
        """A rule from the control API or the command line; ValueError says what is wrong with it."""
        known = {one.name for one in fields(cls)} - {"id", "struck"}
        if unknown := sorted(set(value) - known):
            raise ValueError(f"A fault has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        fault = cls(**value)
        if fault.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {fault.kind!r}.")
        if fault.when not in ("before", "after"):
            raise ValueError("when is before or after.")
        if fault.aadsts is not None:
            check_number(fault.aadsts)
        if fault.path is not None:
            re.compile(fault.path)
        if not fault.effects:
            raise ValueError("A fault without an effect: give status, reset, slow_body, delay_ms or another.")
        return fault

    @property
    def effects(self) -> list[str]:
        """The names of what this rule does."""
        named = (
            "status reset slow_body truncate garbage expire_token revoke_tokens aadsts delay_ms fail_operation"
        ).split()
        return [name for name in named if getattr(self, name)]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Faults:
    """The rules of a lab, in the order they were added."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self._random: dict[int, random.Random] = {}
        self._seen: dict[int, int] = {}
        self._next_id = 1

    def add(self, fault: Fault) -> Fault:
        fault.id, self._next_id = self._next_id, self._next_id + 1
        self.rules.append(fault)
        self._random[fault.id] = random.Random(fault.seed)
        return fault

    def clear(self, fault_id: int | None = None) -> int:
        """Drop one rule or all; returns how many were dropped."""
        before = len(self.rules)
        self.rules = [rule for rule in self.rules if fault_id is not None and rule.id != fault_id]
        return before - len(self.rules)

    def take(
        self,
        *,
        kind: str,
        method: str,
        path: str,
        machine: str | None = None,
        principal: str | None = None,
        token_type: str | None = None,
    ) -> Fault | None:
        """The rule that strikes this request, if any; it is counted."""
        for rule in self.rules:
            if rule.token_type not in (None, token_type):
                continue
            if _matches(rule, kind, method, path, machine, principal) and self._strikes(rule):
                rule.struck += 1
                return rule
        return None

    def _strikes(self, rule: Fault) -> bool:
        if rule.times is not None and rule.struck >= rule.times:
            return False
        seen = self._seen[rule.id] = self._seen.get(rule.id, 0) + 1
        if seen <= rule.skip:
            return False
        return rule.probability >= 1 or self._random[rule.id].random() < rule.probability


def _matches(rule: Fault, kind: str, method: str, path: str, machine: str | None, principal: str | None) -> bool:
    if rule.kind != kind or (rule.method is not None and rule.method.upper() != method.upper()):
        return False
    if rule.machine is not None and rule.machine.lower() != (machine or "").lower():
        return False
    if rule.principal is not None and rule.principal.lower() != (principal or "").lower():
        return False
    return rule.path is None or re.search(rule.path, path, re.IGNORECASE) is not None
