# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of an Arc machine, and can its agent take work?

`Microsoft.HybridCompute/machines`, 2025-01-13. `status` is an open enumeration: Expired is documented, but in no specification.
Versions: SSH over Arc is generally available from agent 1.31 on, run commands need 1.33. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._ids import MachineId
from ._base import Raw, properties

API_VERSION = "2025-01-13"

SSH_AGENT = (1, 31)


def facts(raw: Raw) -> dict[str, Any]:
    """The machine in plain names; what the record lacks is `None`. Raises InputError for a record without a machine's id."""
    machine = MachineId.parse(str(raw.get("id")))
    known = properties(raw)
    return {
        "resource_id": str(raw["id"]),
        "name": str(raw.get("name") or machine.name),
        "resource_group": machine.resource_group,
        "subscription_id": machine.subscription_id,
        "location": raw.get("location"),
        "status": known.get("status"),
        "last_status_change": known.get("lastStatusChange"),
        "agent_version": known.get("agentVersion"),
        "os_type": _os_type(known),
        "os_name": known.get("osName"),
        "os_sku": known.get("osSku"),
        "fqdn": known.get("machineFqdn") or known.get("dnsFqdn"),
        "vm_id": known.get("vmId"),
        "kind": raw.get("kind") or None,
        "tags": dict(raw.get("tags") or {}),
        "agent_config": known.get("agentConfiguration"),
    }


def _os_type(known: Mapping[str, Any]) -> str | None:
    # `osType` came later than `osName`, which older records hold in lower case ("linux", "windows").
    found = str(known.get("osType") or known.get("osName") or "").lower()
    return next((kind for kind in ("linux", "windows") if kind in found), None)


def extension_facts(raw: Raw) -> dict[str, Any]:
    """An extension's record in plain names."""
    known = properties(raw)
    return {
        "name": raw.get("name"),
        "publisher": known.get("publisher"),
        "type": known.get("type"),
        "version": known.get("typeHandlerVersion"),
        "provisioning_state": known.get("provisioningState"),
        "automatic_upgrade": known.get("enableAutomaticUpgrade"),
    }


def version(text: Any) -> tuple[int, ...] | None:
    """An agent version as numbers, `None` where it is not one."""
    parts = str(text or "").split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else None


def disconnected(raw: Raw) -> str | None:
    """Why the agent does not answer Azure now, as a clause; `None` when it does."""
    known = properties(raw)
    status = str(known.get("status") or "unknown")
    if status.lower() == "connected":
        return None
    since = known.get("lastStatusChange")
    return f"its agent is {status}" + (f" since {since}" if since else "")


def obstacle_to_extensions(raw: Raw) -> str | None:
    """Why the agent would not work on an extension now, as a clause; `None` when it would."""
    config = properties(raw).get("agentConfiguration")
    config = config if isinstance(config, Mapping) else {}
    if disconnected(raw):
        return disconnected(raw)
    if str(config.get("configMode") or "").lower() == "monitor":
        return "its agent runs in monitor mode (`azcmagent config set config.mode full` on the machine changes that)"
    if str(config.get("extensionsEnabled") or "true").lower() == "false":
        return (
            "its extension manager is off (`azcmagent config set extensions.enabled true` on the machine turns it on)"
        )
    return None


def obstacle_to_ssh(raw: Raw) -> str | None:
    """Why SSH over Arc cannot work now as far as Azure knows, as a clause; `None` when nothing is in the way."""
    known = properties(raw)
    found = version(known.get("agentVersion"))
    if found and found[:2] < SSH_AGENT:
        return f"its agent {known.get('agentVersion')} is too old for SSH; upgrade it to 1.31 or later"
    config = known.get("agentConfiguration")
    if isinstance(config, Mapping) and str(config.get("configMode") or "").lower() == "monitor":
        return "its agent runs in monitor mode, which closes SSH (`azcmagent config set config.mode full` on the machine opens it)"
    away = disconnected(raw)
    return f"{away}; start the machine or its agent (himds), or reconnect it where it has expired" if away else None
