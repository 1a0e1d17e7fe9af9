# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which handler serves an operation?

Handlers register by method, full type and whether the path names a list; actions by their name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .http import Answer, Context

Handler = Callable[[Context], Answer]


@dataclass(frozen=True)
class Route:
    """`full_type` in lower case; `action` (lower case) names an operation of POST; `permission` replaces the action
    that follows from type and method, and is asked for unless it is empty."""

    method: str
    full_type: str
    handler: Handler
    collection: bool = False
    action: str | None = None
    permission: str | None = None


class Router:
    """The routes of all providers."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, bool, str | None], dict[str, Route]] = {}

    def add(self, routes: list[Route]) -> None:
        for route in routes:
            self._routes.setdefault((route.full_type, route.collection, route.action), {})[route.method] = route

    def methods(self, full_type: str, collection: bool, action: str | None) -> dict[str, Route] | None:
        """The routes of one path by method, `None` if there is no such path."""
        return self._routes.get((full_type, collection, action))
