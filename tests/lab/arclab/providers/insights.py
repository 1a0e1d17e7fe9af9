# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Microsoft.Insights tell of a subscription's activity log?

Pages of events, the newest first. A page goes on where the last one ended, so what becomes readable meanwhile moves nothing.
"""

from __future__ import annotations

import itertools
from urllib.parse import urlencode

from ..activity_log import ActivityLog, Position, parse_filter, parse_select
from ..http import Answer, ArmFailure, Context
from ..routes import Route
from ..services import Services, query, read_skip_token, skip_token

EVENTS = "microsoft.insights/eventtypes/values"


class Insights:
    """The activity log as a provider."""

    def __init__(self, services: Services) -> None:
        self._log: ActivityLog = services.activity
        self._page_size = services.options.activity_page_size

    def routes(self) -> list[Route]:
        return [Route("GET", EVENTS, self.list_events, collection=True)]

    def list_events(self, context: Context) -> Answer:
        subscription = context.params.get("subscription")
        if subscription is None or context.params["eventtypes"].lower() != "management":
            raise ArmFailure(404, "NotFound", "Only the management events of a subscription can be read here.")
        wanted = parse_filter(query(context, "$filter"), context.now)
        selected = parse_select(query(context, "$select"))
        events = self._log.read(subscription, wanted, context.now, _after(query(context, "$skiptoken")))
        page = list(itertools.islice(events, self._page_size))
        body = {"value": [self._log.shown(event, selected) for event in page]}
        if len(page) == self._page_size and next(events, None) is not None:
            kept = {name: value for name, value in context.query.items() if name.lower() != "$skiptoken"}
            token = skip_token("/".join(map(str, page[-1].position)))
            again = urlencode({**kept, "$skiptoken": token}, safe="$'")
            body["nextLink"] = f"{context.base_url}{context.path}?{again}"  # type: ignore[assignment]
        return Answer(200, body)


def _after(token: str | None) -> Position | None:
    if not token:
        return None
    ticks, _slash, number = read_skip_token(token).partition("/")
    if not (ticks.isdigit() and number.isdigit()):
        raise ArmFailure(400, "InvalidSkipToken", f"The skip token '{token}' is not valid.")
    return int(ticks), int(number)
