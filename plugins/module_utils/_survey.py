# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure know of one machine, and what of it is in the way of SSH?

Reads only. Private to arcfleet.ssh.
"""

from __future__ import annotations

from typing import Any

from ._fleet import Target, machine_of
from ._ids import MachineId
from ._reconcile import Outcome, Run, read_machine
from ._resources import _machine
from ._resources._base import properties
from ._resources._endpoint import Endpoint
from ._resources._service_configuration import ServiceConfiguration


def survey(run: Run, target: Target, outcome: Outcome) -> None:
    """Note in `outcome` what is known of the target's machine."""
    machine = machine_of(target)
    raw = read_machine(run, machine)
    outcome.details.update(_machine.facts(raw))
    obstacle = _machine.obstacle_to_ssh(raw)
    obstacles = [f"{machine.name}: {obstacle}."] if obstacle else []
    if "connectivity" in target.options["gather"]:
        obstacles += _connectivity(run, machine, outcome.details)
    if "extensions" in target.options["gather"]:
        doing = f"{machine.name}: cannot list the extensions"
        listed = run.arm.pages(f"{machine}/extensions", _machine.API_VERSION, doing=doing)
        outcome.details["extensions"] = [_machine.extension_facts(entry) for entry in listed]
    outcome.details["obstacles"] = obstacles


def _connectivity(run: Run, machine: MachineId, details: dict[str, Any]) -> list[str]:
    endpoint = Endpoint(machine)
    found = run.arm.get(endpoint.path, endpoint.api_version, doing=f"{machine.name}: cannot read the {endpoint.noun}")
    details["endpoint"], details["services"] = found is not None, {}
    if found is None:
        return [f"{machine.name}: it has no connectivity endpoint; run arcfleet.ssh.enable."]
    doing = f"{machine.name}: cannot list the service configurations"
    for listed in run.arm.pages(endpoint.children or "", endpoint.api_version, doing=doing):
        details["services"][str(properties(listed).get("serviceName"))] = ServiceConfiguration(machine).state(listed)[
            "port"
        ]
    if "SSH" not in details["services"]:
        return [f"{machine.name}: no port is allowed for SSH; run arcfleet.ssh.enable."]
    return []
