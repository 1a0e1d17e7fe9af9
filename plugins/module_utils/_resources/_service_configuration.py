# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which local port of a machine may be reached through the relay, and for which service?

`…/endpoints/default/serviceConfigurations/SSH` or `WAC`; 2023-03-15 specification. The port is one number per service, sent as
an integer; no specification bounds it, so this file does. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import InputError
from .._ids import MachineId
from .._plan import Plan, State
from ._base import Raw, Resource, properties
from ._endpoint import API_VERSION, Endpoint, endpoint_path

# The services of the specification, with the port each listens on by default.
DEFAULT_PORTS = {"SSH": 22, "WAC": 6516}


class ServiceConfiguration(Resource):
    """The permission to reach `port` (by default the service's usual one). Raises InputError for a port that cannot be.

    One of `accepted_ports` is as good, where it is there already.
    """

    api_version = API_VERSION
    slug = "service_configuration"

    def __init__(
        self,
        machine: MachineId,
        *,
        service: str = "SSH",
        port: int | None = None,
        accepted_ports: Sequence[int] = (),
        present: bool = True,
        manage_endpoint: bool = True,
    ) -> None:
        for number in (*accepted_ports, *([] if port is None else [port])):
            if not 1 <= number <= 65535:
                raise InputError(f"{machine.name}: {number} is not a port.", hint="Ports are numbers from 1 to 65535.")
        self.machine = machine
        self.service = service
        self.port = DEFAULT_PORTS[service] if port is None else port
        self.accepted_ports = frozenset(accepted_ports)
        self.present = present
        self.noun = f"service configuration for {service}"
        self.path = f"{endpoint_path(machine)}/serviceConfigurations/{service}"
        # One that is there implies its endpoint, so the steady state of both costs one read.
        self.parent = Endpoint(machine, present=present) if manage_endpoint else None

    def doing(self, plan: Plan) -> str:
        if plan.after is None:
            return f"{self.owner}: cannot withdraw {self.service}"
        return f"{self.owner}: cannot allow {self.service} on port {plan.after['port']}"

    def state(self, raw: Raw) -> State:
        known = properties(raw)
        port = known.get("port")
        return {
            "service_name": known.get("serviceName"),
            # Some of Microsoft's own clients send the port as a string.
            "port": int(port) if isinstance(port, str) and port.isdigit() else port,
        }

    def wanted(self, raw: Raw | None) -> State:
        there = self.state(raw)["port"] if raw is not None else None
        return {"service_name": self.service, "port": there if there in self.accepted_ports else self.port}

    def body(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Mapping[str, Any]:
        wanted = plan.after or self.wanted(raw)
        return {"properties": {"serviceName": wanted["service_name"], "port": wanted["port"]}}
