# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a resource provider registered in a subscription?

`/subscriptions/{s}/providers/{namespace}` with the actions `register` and `unregister`; Microsoft.Resources 2021-04-01.
Registering is no long-running operation in ARM's sense: the state goes from Registering to Registered by itself within
minutes. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re

from .._errors import InputError
from .._ids import subscription
from .._plan import Plan, State
from ._base import STATE, Raw, Request, Resource

API_VERSION = "2021-04-01"

_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9]*(\.[A-Za-z0-9]+)+")


class Provider(Resource):
    """The registration of `namespace` in one subscription. Raises InputError for what cannot be either."""

    api_version = API_VERSION
    slug = "resource_provider"
    ends = STATE

    def __init__(self, subscription_id: str, *, namespace: str, present: bool = True) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise InputError(
                f"{namespace!r} is not a resource provider's namespace, such as Microsoft.HybridConnectivity."
            )
        self.subscription_id = subscription(subscription_id)
        self.namespace = namespace
        self.present = present
        self.noun = f"registration of {namespace}"
        self.path = f"/subscriptions/{subscription_id}/providers/{namespace}"

    @property
    def owner(self) -> str:
        return f"subscription {self.subscription_id}"

    def doing(self, plan: Plan) -> str:
        return f"{self.owner}: cannot {self._verb} {self.namespace}"

    @property
    def _verb(self) -> str:
        return "register" if self.present else "unregister"

    def state(self, raw: Raw) -> State:
        found = str(raw.get("registrationState"))
        # Azure calls a provider that was never registered NotRegistered and one that was once Unregistered.
        return {"namespace": self.namespace, "registered": found.lower() == "registered"}

    def wanted(self, raw: Raw | None) -> State:
        # A provider is always there; absence is a state of its registration.
        return {"namespace": self.namespace, "registered": self.present}

    def request(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Request:
        return Request("POST", f"{self.path}/{self._verb}")

    def busy(self, raw: Raw) -> bool:
        # Only a registration on its way to where it shall go: one that goes the other way has to be turned round.
        return str(raw.get("registrationState")).lower() == f"{self._verb}ing"

    def broken(self, raw: Raw) -> bool:
        return False
