# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a batch of requests answer?

`POST /batch` is undocumented, but azure.azcollection's inventory uses it. Reported: up to 500 requests without body or 20 with
one, a 200 with `responses` for up to 20 of them, and for more a 202 with Location, whose result has `value`. Each part passes
ARM's front like a request of its own, throttling included.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..arm import Arm, Exchange, Interrupted, Request
from ..http import Answer, ArmFailure, Context
from ..routes import Route
from ..services import Services, invalid
from ..tokens import Caller

BATCH = "microsoft.resources/batch"
AT_ONCE = 20
MOST = 500
_KEPT = 100

# Tells the journal of one part: the request, what ARM's front found out about it, the answer and its error code.
Note = Callable[[Request, Exchange, Answer, str | None], None]


class Batch:
    """Requests in one request. `note` is called for each of them."""

    def __init__(self, services: Services, front: Arm, note: Note) -> None:
        self.world = services.world
        self._front = front
        self._note = note
        self._results: dict[str, tuple[str, list[dict[str, Any]]]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("POST", BATCH, self.run, collection=True, permission=""),
            Route("GET", BATCH, self.result, permission=""),
        ]

    def run(self, context: Context) -> Answer:
        body = context.body if isinstance(context.body, dict) else {}
        parts = body.get("requests")
        if not isinstance(parts, list) or not parts:
            raise invalid("The request content was invalid: 'requests' has to be a list of requests.", "requests")
        limit = AT_ONCE if any(isinstance(part, dict) and part.get("content") for part in parts) else MOST
        if len(parts) > limit:
            raise ArmFailure(400, "BatchRequestLimitExceeded", f"A batch holds at most {limit} such requests.")
        responses = [self._part(part, context) for part in parts]
        if len(responses) <= AT_ONCE:
            return Answer(200, {"responses": responses})
        batch_id = str(uuid.uuid4())
        while len(self._results) >= _KEPT:
            self._results.pop(next(iter(self._results)))
        self._results[batch_id] = (context.principal_id, responses)
        location = f"{context.base_url}/batch/{batch_id}?api-version={context.api_version}"
        return Answer(202, None, {"Location": location, "Retry-After": "1"})

    def result(self, context: Context) -> Answer:
        principal_id, responses = self._results.get(context.params["batch"], ("", []))
        if principal_id != context.principal_id:
            raise ArmFailure(404, "NotFound", "There is no such batch.")
        return Answer(200, {"value": responses})

    def _part(self, part: Any, context: Context) -> dict[str, Any]:
        if not isinstance(part, dict) or not isinstance(part.get("httpMethod"), str):
            raise invalid("Each of 'requests' has to have a httpMethod.", "requests")
        url = part.get("relativeUrl") or part.get("url")
        if not isinstance(url, str):
            raise invalid("Each of 'requests' has to have a relativeUrl or a url.", "requests")
        split = urlsplit(url)
        content = part.get("content")
        asked = Request(
            part["httpMethod"].upper(),
            unquote(split.path),
            dict(parse_qsl(split.query, keep_blank_values=True)),
            {"Content-Type": "application/json"},
            json.dumps(content).encode() if content is not None else b"",
        )
        principal = self.world.principals[context.principal_id]
        exchange = Exchange(caller=Caller(principal.id, principal.app_id, ""))
        error_code = None
        try:
            answer = self._front.answer_for(asked, context.now, context.base_url, exchange)
        except ArmFailure as failure:
            answer, error_code = failure.answer(), failure.code
        except Interrupted:
            answer, error_code = ArmFailure(503, "ServiceUnavailable", "Please retry.").answer(), "ServiceUnavailable"
        self._note(asked, exchange, answer, error_code)
        shown = {
            "httpStatusCode": answer.status,
            "headers": {"Content-Type": "application/json; charset=utf-8", **exchange.headers, **answer.headers},
            "content": answer.body,
            "contentLength": len(json.dumps(answer.body)) if answer.body is not None else 0,
        }
        return {"name": part["name"], **shown} if part.get("name") else shown
