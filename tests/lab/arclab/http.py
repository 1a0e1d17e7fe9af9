# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does an ARM handler of the lab see, and what does it answer?

Handlers are plain functions `Context -> Answer`; the server turns HTTP into the one and the other into HTTP. The error body
is common-types' ErrorResponse (`{"error": {"code", "message", "target", "details"}}`), which all four providers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Context:
    """One authenticated ARM request: who asks (`principal_id`, a GUID), what, and at which moment (`now`, unix seconds)."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    api_version: str
    principal_id: str
    now: float
    base_url: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Answer:
    """Status, JSON body (`None` sends no body) and extra headers."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class ArmFailure(Exception):
    """An answer of status >= 400, raised from anywhere below the server."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str | None = None,
        details: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.details = details or []
        self.headers = dict(headers or {})

    def answer(self) -> Answer:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        if self.details:
            error["details"] = self.details
        return Answer(self.status, {"error": error}, self.headers)
