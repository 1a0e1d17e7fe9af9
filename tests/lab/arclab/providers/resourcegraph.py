# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a query reach the tables?

Microsoft.ResourceGraph's one operation; the query language is in `kql.py`, the rules of the answer in `graph.py`.
"""

from __future__ import annotations

from ..graph import resources
from ..http import Answer, Context
from ..routes import Route
from ..services import Services
from ..tables import Tables
from ..world import EXTENSIONS, RUN_COMMANDS
from . import extensions, runcommands


class ResourceGraph:
    """Queries over what the caller may read."""

    def __init__(self, services: Services) -> None:
        shown = {EXTENSIONS: extensions.shown, RUN_COMMANDS: runcommands.shown}
        self.tables = Tables(services.world, shown)

    def routes(self) -> list[Route]:
        return [Route("POST", "microsoft.resourcegraph/resources", self.query, collection=True)]

    def query(self, context: Context) -> Answer:
        return resources(context, self.tables.of(context.principal_id))
