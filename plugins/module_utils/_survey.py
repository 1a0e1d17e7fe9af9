# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure know of one machine, and what of it is in the way of SSH?

Reads only. ARM answers for one machine at a time; Resource Graph for a thousand, but minutes late. So Resource Graph is believed where
being late does no harm: a machine that it shows without an obstacle, an extension that it shows as wanted. Whatever it says
otherwise, and whatever it does not show, is read from ARM. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import _graph
from ._errors import ArcError, AuthError, ConnectionFailed, Interrupted
from ._fleet import Target, machine_of
from ._ids import MachineId
from ._plan import Plan, plan
from ._reconcile import Outcome, Run, read_machine, reconcile
from ._resources import _machine
from ._resources._base import Raw, Resource, properties, provisioning_state
from ._resources._endpoint import Endpoint
from ._resources._service_configuration import ServiceConfiguration

ARM, RESOURCE_GRAPH = "arm", "resource_graph"

SOURCE_OPTION: dict[str, Any] = {"source": {"type": "str", "choices": [ARM, RESOURCE_GRAPH], "default": ARM}}


class Listing:
    """What Resource Graph shows of the fleet, read once for all of it; empty where the option `source` does not ask for it."""

    def __init__(self) -> None:
        self._known: Mapping[str, Raw] = {}
        self._trouble: str | None = None

    def read(self, run: Run, targets: Sequence[Target], *, extensions: bool) -> None:
        """Read it, before the work on single machines begins. What Resource Graph refuses, ARM can still answer."""
        if targets[0].options["source"] != RESOURCE_GRAPH:
            return
        try:
            self._known = _graph.machines(run.arm, [machine_of(target) for target in targets], extensions=extensions)
        except (AuthError, ConnectionFailed, Interrupted):
            raise
        except ArcError as exc:
            self._trouble = f"{exc.message} Every machine was read from ARM instead."

    def of(self, target: Target, outcome: Outcome) -> Raw | None:
        """The record of a machine, with its extensions in `resources` if they were read; `None` if it is not shown."""
        if self._trouble is not None:
            outcome.warnings.append(self._trouble)
        return self._known.get(target.key)


def survey(run: Run, target: Target, outcome: Outcome, listed: Raw | None = None) -> None:
    """Note in `outcome` what is known of the target's machine; `listed` is how Resource Graph shows it."""
    machine = machine_of(target)
    # A status that is minutes old must not keep anybody from a machine that has just come back.
    believed = listed is not None and _machine.obstacle_to_ssh(listed) is None
    raw = listed if listed is not None and believed else read_machine(run, machine)
    outcome.details.update(_machine.facts(raw))
    outcome.details["source"] = RESOURCE_GRAPH if believed else ARM
    obstacle = _machine.obstacle_to_ssh(raw)
    obstacles = [f"{machine.name}: {obstacle}."] if obstacle else []
    if "connectivity" in target.options["gather"]:
        obstacles += _connectivity(run, machine, outcome.details)
    if "extensions" in target.options["gather"]:
        outcome.details["extensions"] = [_machine.extension_facts(entry) for entry in _extensions(run, machine, listed)]
    outcome.details["obstacles"] = obstacles


def _extensions(run: Run, machine: MachineId, listed: Raw | None) -> list[Raw]:
    if listed is not None:
        return list(listed["resources"])
    doing = f"{machine.name}: cannot list the extensions"
    return list(run.arm.pages(f"{machine}/extensions", _machine.API_VERSION, doing=doing))


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


def reconcile_unless_shown(run: Run, resource: Resource, outcome: Outcome, listed: Raw | None) -> None:
    """As `reconcile`, but without a request where Resource Graph shows that nothing is to be done."""
    shown = as_wanted(resource, listed)
    if shown is None:
        reconcile(run, resource, outcome)
    else:
        outcome.asked, outcome.steps[resource.slug] = resource.slug, shown


def as_wanted(resource: Resource, listed: Raw | None) -> Plan | None:
    """The plan to do nothing, if among the machine's `resources` there is `resource`, as wanted and in order; else `None`.

    That something is absent is never taken from there: what is too new to be shown, or not for this identity to read, is missing
    in the same way.
    """
    if listed is None or not resource.present:
        return None
    for raw in listed["resources"]:
        if resource.matches(raw) and provisioning_state(raw) == "succeeded":
            step = plan(resource.state(raw), resource.wanted(raw))
            return None if step.changed else step
    return None
