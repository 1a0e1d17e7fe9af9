# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With what does the relay let us reach this machine, and how long will it?

Asks ARM for the relay credentials of one machine and keeps them in the cache, so that many connections need one
request. The answer's six fields and the limits of `expiresin` are those of HybridConnectivity 2023-03-15
(`endpoints/listCredentials`), where most fields are optional: all are checked here, before they become part of a URL or
a header. Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from .._errors import ArmError
    from .._ids import MachineId
    from ._cache import Cache

    class Asked(Protocol):
        """What of ARM is needed here; `_arm.Arm` tells what it does."""

        def post(
            self,
            path: str,
            api_version: str,
            body: Mapping[str, Any] | None = None,
            *,
            query: Mapping[str, str] | None = None,
            doing: str,
        ) -> dict[str, Any]: ...


API_VERSION = "2023-03-15"
ACTION = "Microsoft.HybridConnectivity/endpoints/listCredentials/action"
ROLES = "Virtual Machine Local User Login, Virtual Machine User Login or Virtual Machine Administrator Login"

# Seconds of life to ask for: the most that the API grants. It grants at least 600.
LIFE = 10800
LEAST_LIFE = 600

# Credentials are renewed this many seconds before they end, or a tenth of a shorter life.
MARGIN = 600

_VERSION = 1
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]+")
_HEADER = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_SHAPES = {
    "namespaceName": _HOST,
    "namespaceNameSuffix": _HOST,
    "hybridConnectionName": _PATH,
    "accessKey": _HEADER,
    "serviceConfigurationToken": _HEADER,
}


class Credentials:
    """What `listCredentials` answered for one service. `access_key` and `service_token` are secrets; times are unix
    seconds."""

    __slots__ = ("access_key", "expires_on", "hybrid_connection", "namespace", "obtained_on", "service_token", "suffix")

    def __init__(
        self,
        namespace: str,
        suffix: str,
        hybrid_connection: str,
        access_key: str,
        service_token: str,
        expires_on: int,
        obtained_on: int,
    ) -> None:
        self.namespace = namespace
        self.suffix = suffix
        self.hybrid_connection = hybrid_connection
        self.access_key = access_key
        self.service_token = service_token
        self.expires_on = expires_on
        self.obtained_on = obtained_on

    def __repr__(self) -> str:
        return f"Credentials({self.host}, expires_on={self.expires_on})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    @property
    def host(self) -> str:
        """The relay's host name, with a port where it is not 443."""
        return f"{self.namespace}.{self.suffix}"

    def public(self) -> dict[str, Any]:
        """What may be shown: `expires_on` (unix seconds), `relay_host`, `hybrid_connection_name`."""
        return {
            "expires_on": self.expires_on,
            "relay_host": self.host,
            "hybrid_connection_name": self.hybrid_connection,
        }

    def relay(self) -> dict[str, Any]:
        """The six fields under the names that Azure gave them."""
        return {
            "namespaceName": self.namespace,
            "namespaceNameSuffix": self.suffix,
            "hybridConnectionName": self.hybrid_connection,
            "accessKey": self.access_key,
            "expiresOn": self.expires_on,
            "serviceConfigurationToken": self.service_token,
        }

    def lasts(self, now: float, minimum_life: int | None = None) -> bool:
        """Whether they are good for another `minimum_life` seconds.

        `None` is the margin for one connection. A `minimum_life` that Azure does not grant counts as nine tenths of
        what it did grant, or every call would fetch anew.
        """
        life = self.expires_on - self.obtained_on
        needed = min(MARGIN, life * 0.1) if minimum_life is None else min(minimum_life, life * 0.9)
        return self.expires_on - now > needed


def parse(answer: Any, machine: str, now: float) -> Credentials:
    """Credentials from an answer of `listCredentials`; `machine` is the name for the error sentence.

    Raises ArcError when a field is missing or holds what can be no host name, path or header.
    """
    found = _read(answer, now)
    if isinstance(found, Credentials):
        return found
    from .._errors import ArcError

    raise ArcError(
        f"{machine}: Azure's relay credentials hold no usable {found}.",
        code="UnusableCredentials",
        hint="Check that SSH is allowed on this machine (playbook arcfleet.ssh.enable), then connect again.",
    )


def _read(answer: Any, now: float) -> Credentials | str:
    """The credentials, or the name of the field that spoils them."""
    relay = answer.get("relay") if isinstance(answer, dict) else None
    if not isinstance(relay, dict):
        return "relay"
    for field, shape in _SHAPES.items():
        value = relay.get(field)
        if not isinstance(value, str) or not shape.fullmatch(value):
            return field
    expires_on = relay.get("expiresOn")
    if expires_on is None:
        expires_on = now + LEAST_LIFE
    if isinstance(expires_on, bool) or not isinstance(expires_on, (int, float)):
        return "expiresOn"
    return Credentials(
        namespace=relay["namespaceName"],
        suffix=relay["namespaceNameSuffix"],
        hybrid_connection=relay["hybridConnectionName"],
        access_key=relay["accessKey"],
        service_token=relay["serviceConfigurationToken"],
        expires_on=int(expires_on),
        obtained_on=int(now),
    )


def file_name(key: str, service: str, cloud: str) -> str:
    """The file in the cache for the machine with this lower-cased id."""
    digest = hashlib.sha256("|".join(_subject(key, service, cloud)).encode()).hexdigest()
    return f"{digest[:40]}.json"


def _subject(key: str, service: str, cloud: str) -> tuple[str, str, str]:
    return key.lower(), service, cloud.rstrip("/").lower()


def load(cache: Cache, key: str, service: str, cloud: str) -> Credentials | None:
    """The cached credentials, good or expired; `None` when there are none that can be read."""
    content = cache.read(file_name(key, service, cloud))
    if (
        content is None
        or content.get("version") != _VERSION
        or content.get("subject") != list(_subject(key, service, cloud))
    ):
        return None
    obtained_on = content.get("obtained_on")
    if isinstance(obtained_on, bool) or not isinstance(obtained_on, int):
        return None
    found = _read(content, obtained_on)
    return found if isinstance(found, Credentials) else None


def ensure(
    arm_factory: Callable[[], Asked],
    cache: Cache,
    machine: MachineId,
    service: str,
    *,
    force: bool = False,
    minimum_life: int | None = None,
    refused: Credentials | None = None,
    cloud: str = "AzureCloud",
) -> tuple[Credentials, bool]:
    """Credentials that last, and whether they were fetched just now.

    `minimum_life` in seconds, see `Credentials.lasts`. `refused` are credentials that the relay did not take: they are
    replaced, unless another process has done that already. `force` fetches whatever is there. `cloud` is the configured
    cloud_environment. `arm_factory` is called only when a request is needed. Raises ArcError; ARM's refusals say what
    to do.
    """
    found = None if force else _good(load(cache, machine.key, service, cloud), refused, minimum_life)
    if found is not None:
        return found, False
    name = file_name(machine.key, service, cloud)
    with cache.lock(name):
        # Whoever held the lock before may have fetched them meanwhile.
        found = None if force else _good(load(cache, machine.key, service, cloud), refused, minimum_life)
        if found is not None:
            return found, False
        fetched = _fetch(arm_factory(), machine, service)
        content = {
            "version": _VERSION,
            "subject": _subject(machine.key, service, cloud),
            "obtained_on": fetched.obtained_on,
            "relay": fetched.relay(),
        }
        cache.write(name, content)
    return fetched, True


def _good(found: Credentials | None, refused: Credentials | None, minimum_life: int | None) -> Credentials | None:
    if found is None or found == refused or not found.lasts(time.time(), minimum_life):
        return None
    return found


def _fetch(arm: Asked, machine: MachineId, service: str) -> Credentials:
    from .._errors import ArmError

    try:
        answer = arm.post(
            f"{machine}/providers/Microsoft.HybridConnectivity/endpoints/default/listCredentials",
            API_VERSION,
            {"serviceName": service},
            query={"expiresin": str(LIFE)},
            doing=f"{machine.name}: cannot get the relay credentials",
        )
    except ArmError as exc:
        exc.hint = remedy(exc, service) or exc.hint
        raise
    return parse(answer, machine.name, time.time())


def remedy(error: ArmError, service: str) -> str | None:
    """What to do about ARM's refusal of `listCredentials`, where that is more than the remedy for its code."""
    by_code: Mapping[str, str] = {
        "ResourceNotFound": (
            "The machine has no endpoint to connect to, or does not exist: run the playbook arcfleet.ssh.enable for it "
            "once, and check the resource id."
        ),
        "MissingSubscriptionRegistration": (
            "Register Microsoft.HybridConnectivity in the subscription (arcfleet.ssh.arc_resource_provider), then run "
            "the playbook arcfleet.ssh.enable."
        ),
    }
    by_status: Mapping[int, str] = {
        412: (
            f"The service configuration for {service} is missing: run the playbook arcfleet.ssh.enable, or "
            "arcfleet.ssh.arc_ssh_service_config."
        ),
        403: (
            f"This identity lacks the action {ACTION}, which the roles {ROLES} hold: assign one on the machine, its "
            "resource group or subscription; that takes up to ten minutes to work."
        ),
    }
    return by_code.get(error.code or "") or by_status.get(error.status or 0)
