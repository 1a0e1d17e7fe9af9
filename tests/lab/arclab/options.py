# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be chosen about a lab?

The command line, the daemon and the tests' client share these options; `config.json` in the state directory holds them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

LroStyle = Literal["async", "location", "body"]


@dataclass(frozen=True)
class Options:
    """Times are seconds except `latency_ms`; `credential_lifetime` caps what listCredentials gives. `role_delay` is how long a
    change of role assignments takes to reach the machines' logins, `activity_delay` how long an event of the activity log to be
    readable (`None`: 3 to 20 minutes, another time for each).

    `image` and `suite` are those of the machines of the backend `podman` for which the fleet file does not say it.
    """

    machines: int = 3
    backend: Literal["sshd", "podman"] = "sshd"
    image: Literal["bare", "ready"] = "ready"
    suite: Literal["bookworm", "trixie", "both"] = "bookworm"
    port: int = 0
    latency_ms: float = 0.0
    throttle: bool = False
    listener_lag: float = 0.0
    relay_profile: Literal["plain", "live"] = "plain"
    subscriptions: int = 1
    stopped: int = 0
    old_agents: int = 0
    windows: int = 0
    page_size: int = 100
    token_lifetime: float = 3599.0
    credential_lifetime: float | None = None
    certificate_seconds: float = 3600.0
    role_delay: float = 0.0
    idle_timeout: float = 120.0
    operation_seconds: float = 2.0
    lro_style: LroStyle = "async"
    unregistered: bool = False
    registration_seconds: float = 2.0
    fleet: str | None = None
    activity_delay: float | None = None
    activity_page_size: int = 200
    check_specs: bool = True

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Options:
        known = {one.name for one in fields(cls)}
        return cls(**{name: given for name, given in value.items() if name in known})

    @classmethod
    def read(cls, state_dir: Path) -> Options:
        return cls.from_json(json.loads((state_dir / "config.json").read_text()))

    def write(self, state_dir: Path) -> None:
        (state_dir / "config.json").write_text(json.dumps(asdict(self), indent=2) + "\n")
