# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the default connectivity endpoint of a machine?

`Microsoft.HybridConnectivity/endpoints/default`, an extension resource of the machine; 2023-03-15 specification. A PUT of an
endpoint that is there may make the agent drop its relay listener, so it is written on a difference only.
Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._ids import MachineId
from .._plan import Plan, State
from ._base import Raw, Resource, properties

API_VERSION = "2023-03-15"


def endpoint_path(machine: MachineId) -> str:
    """The path of the machine's default endpoint."""
    return f"{machine}/providers/Microsoft.HybridConnectivity/endpoints/default"


class Endpoint(Resource):
    """The machine's default endpoint, wanted or not."""

    api_version = API_VERSION
    slug = "endpoint"
    noun = "default connectivity endpoint"

    def __init__(self, machine: MachineId, *, present: bool = True) -> None:
        self.machine = machine
        self.present = present
        self.path = endpoint_path(machine)
        self.children = f"{self.path}/serviceConfigurations"

    def state(self, raw: Raw) -> State:
        return {"type": properties(raw).get("type")}

    def wanted(self, raw: Raw | None) -> State:
        return {"type": "default"}

    def body(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Mapping[str, Any]:
        return {"properties": {"type": "default"}}
