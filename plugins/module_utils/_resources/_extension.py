# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is an extension installed on a machine, and is it the one that was asked for?

`Microsoft.HybridCompute/machines/extensions`, 2025-01-13. A machine has one extension of a publisher and type, whatever its name.
Protected settings never come back, so they are not compared; a version may come back longer than it was asked for and moves
by itself where automatic upgrade is on. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._ids import MachineId, same
from .._plan import Plan, State
from ._base import OPERATION, Raw, Resource, properties
from ._machine import API_VERSION

# Option name -> ARM name of what is compared and shown.
_COMPARED = {
    "publisher": "publisher",
    "type": "type",
    "type_handler_version": "typeHandlerVersion",
    "auto_upgrade_minor_version": "autoUpgradeMinorVersion",
    "enable_automatic_upgrade": "enableAutomaticUpgrade",
    "force_update_tag": "forceUpdateTag",
    "settings": "settings",
}


class Extension(Resource):
    """One extension of one machine; options left `None` stay as they are."""

    api_version = API_VERSION
    slug = "extension"
    ends = OPERATION
    needs_agent = True
    not_now = frozenset(("HCRP409", "AnotherOperationInProgress", "Conflict"))

    def __init__(self, machine: MachineId, options: Mapping[str, Any], *, present: bool = True) -> None:
        self.machine = machine
        self.options = options
        self.present = present
        self.repair = bool(options.get("repair"))
        self.kind = f"{options['publisher']}/{options['type']}"
        self.name = str(options.get("name") or options["type"])
        self.noun = f"extension {self.kind}"
        self.collection = f"{machine}/extensions"
        self.path = f"{self.collection}/{self.name}"

    def matches(self, raw: Raw) -> bool:
        found = properties(raw)
        return same(f"{found.get('publisher')}/{found.get('type')}", self.kind)

    def state(self, raw: Raw) -> State:
        found = properties(raw)
        shown = {option: found.get(name) for option, name in _COMPARED.items()}
        # Absent and empty mean the same to the service, which answers now one and now the other.
        shown["settings"] = dict(shown["settings"] or {})
        shown["enable_automatic_upgrade"] = bool(shown["enable_automatic_upgrade"])
        return {"name": str(raw.get("name") or self.name), **shown}

    def wanted(self, raw: Raw | None) -> State:
        current = dict(self.state(raw)) if raw is not None else {}
        start: dict[str, Any] = {
            "name": self.name,
            "publisher": self.options["publisher"],
            "type": self.options["type"],
            "type_handler_version": None,
            "auto_upgrade_minor_version": None,
            "enable_automatic_upgrade": False,
            "force_update_tag": None,
            "settings": {},
        }
        state = {**start, **current}
        for option in ("auto_upgrade_minor_version", "enable_automatic_upgrade", "force_update_tag", "settings"):
            if self.options.get(option) is not None:
                state[option] = self.options[option]
        asked = self.options.get("type_handler_version")
        if asked and not state["enable_automatic_upgrade"] and not _is_within(state["type_handler_version"], asked):
            state["type_handler_version"] = asked
        return state

    def broken(self, raw: Raw) -> bool:
        # An extension that failed is installed again only when asked: the cause is on the machine.
        return self.repair and super().broken(raw)

    def complaint(self, raw: Raw) -> str | None:
        if not super().broken(raw):
            return None
        view = properties(raw).get("instanceView")
        status = view.get("status") if isinstance(view, Mapping) else None
        message = status.get("message") if isinstance(status, Mapping) else None
        return " ".join(str(message or "no message was left").split())[:1000]

    def body(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Mapping[str, Any]:
        after = plan.after or {}
        body: dict[str, Any] = {
            name: after[option] for option, name in _COMPARED.items() if after.get(option) is not None
        }
        if self.options.get("protected_settings"):
            body["protectedSettings"] = self.options["protected_settings"]
        # The extension lives where the machine does, which need not be the place of its resource group.
        return {"location": (machine or raw or {}).get("location"), "properties": body}


def _is_within(found: Any, asked: str) -> bool:
    """Whether version `found` is `asked` or a refinement of it: 1.10.3 is within 1.10, and not within 1.1."""
    return f"{found}.".startswith(f"{asked}.")
