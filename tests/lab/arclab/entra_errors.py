# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does Entra ID say no?

The OAuth error answer with an AADSTS number, and the refusals that a test can switch on for a principal or by a fault.
Numbers and sentences are those of Microsoft's list of AADSTS codes; `error`, `suberror` and `claims` as clients report them.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from .http import Answer

_BLOCKED = json.dumps(
    {"access_token": {"capolids": {"essential": True, "values": ["6c4f7f0e-0f0c-4c5b-a3b9-2f8f5b3b7f10"]}}}
)


class EntraFailure(Exception):
    """An OAuth error answer."""

    def __init__(
        self, status: int, error: str, number: int, text: str, *, suberror: str | None = None, claims: str | None = None
    ) -> None:
        super().__init__(f"AADSTS{number}: {text}")
        self.status = status
        self.error = error
        self.number = number
        self.suberror = suberror
        self.claims = claims

    def answer(self, now: float) -> Answer:
        trace, correlation = uuid.uuid4(), uuid.uuid4()
        moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
        body: dict[str, Any] = {
            "error": self.error,
            "error_description": f"{self} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {moment}",
            "error_codes": [self.number],
            "timestamp": moment,
            "trace_id": str(trace),
            "correlation_id": str(correlation),
            "error_uri": f"https://login.microsoftonline.com/error?code={self.number}",
        }
        if self.suberror is not None:
            body["suberror"] = self.suberror
        if self.claims is not None:
            body["claims"] = self.claims
        return Answer(self.status, body)


@dataclass(frozen=True)
class _Refusal:
    error: str
    text: str
    suberror: str | None = None
    claims: str | None = None


_REFUSALS = {
    7000112: _Refusal("unauthorized_client", "Application '{client_id}'({name}) is disabled."),
    65001: _Refusal(
        "invalid_grant",
        "The user or administrator has not consented to use the application with ID '{client_id}' named '{name}'. Send an "
        "interactive authorization request for this user and resource.",
        "consent_required",
    ),
    53003: _Refusal(
        "invalid_grant",
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
        "message_only",
        _BLOCKED,
    ),
    50057: _Refusal("invalid_grant", "The user account is disabled."),
    700082: _Refusal(
        "invalid_grant",
        "The refresh token has expired due to inactivity. The token was issued on 2026-01-01T00:00:00.0000000Z and was "
        "inactive for 90.00:00:00.",
        "bad_token",
    ),
}


def check_number(number: int) -> int:
    """A number that can be switched on; ValueError names those that can."""
    if number not in _REFUSALS:
        raise ValueError(f"AADSTS{number} cannot be switched on; {', '.join(map(str, sorted(_REFUSALS)))} can.")
    return number


def refusal(number: int, *, client_id: str, name: str) -> EntraFailure:
    """The answer with this AADSTS number for an application or for who signed in with it."""
    one = _REFUSALS[check_number(number)]
    text = one.text.format(client_id=client_id, name=name)
    return EntraFailure(400, one.error, number, text, suberror=one.suberror, claims=one.claims)
