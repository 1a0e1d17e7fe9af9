# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which resource, list or action does the path of an ARM request name?

ARM compares ids without regard to case; `key` is the lower-cased id and the identity of a resource everywhere in the
lab. What hangs on nothing but the subscription (resource groups, providers) is treated as Microsoft.Resources, whose
action names (`Microsoft.Resources/subscriptions/resourceGroups/read`) Azure uses for it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

RESOURCES = "Microsoft.Resources"

_SPELLING = {
    name.lower(): name
    for name in (
        "Microsoft.Authorization Microsoft.HybridCompute Microsoft.HybridConnectivity Microsoft.Management "
        "Microsoft.ResourceGraph Microsoft.Resources Microsoft.GuestConfiguration "
        "subscriptions resourceGroups resources providers locations tenants tags machines extensions runCommands "
        "endpoints "
        "serviceConfigurations roleAssignments roleDefinitions publishers extensionTypes versions operations "
        "operationStatus operationResults listCredentials listIngressGatewayCredentials listManagedProxyDetails "
        "upgradeExtensions register unregister managementGroups Microsoft.Insights eventtypes management values"
    ).split()
}


def spelled(name: str) -> str:
    """A type or namespace in Azure's own spelling, whatever the request's."""
    return _SPELLING.get(name.lower(), name)


@dataclass(frozen=True)
class Target:
    """What a path names.

    `path` is the id as written, `scope` the id of what the last provider hangs on (`""` for the tenant), `types` and
    `names` alternate below `namespace`; a list has one type more than names. `tail` is the last segment when it may be
    a type (of a list) or an action, which only the method tells.
    """

    path: str
    scope: str
    namespace: str
    types: tuple[str, ...]
    names: tuple[str, ...]
    tail: str | None

    @property
    def key(self) -> str:
        return self.path.lower()

    @property
    def subscription(self) -> str | None:
        """The subscription's GUID in lower case."""
        parts = self.path.lower().split("/")
        return parts[2] if len(parts) > 2 and parts[1] == "subscriptions" else None

    @property
    def group(self) -> str | None:
        """The resource group's name, as written."""
        parts = self.path.split("/")
        return parts[4] if len(parts) > 4 and parts[3].lower() == "resourcegroups" else None


def _below_tenant(segments: list[str], path: str) -> Target | None:
    """A path without a provider: tenants, subscriptions, resource groups and what lies directly in them."""
    lowered = [segment.lower() for segment in segments]
    if lowered[0] not in ("subscriptions", "tenants", "providers", "batch") or (lowered[0] == "batch" and lowered[2:]):
        return None
    if len(lowered) > 2 and lowered[2] not in ("resourcegroups", "resources", "providers", "locations"):
        return None
    if len(lowered) > 4 and (lowered[2] != "resourcegroups" or lowered[4] != "resources" or len(lowered) > 5):
        return None
    types, names = tuple(segments[0::2]), tuple(segments[1::2])
    if len(types) > len(names):
        return Target(path, "", RESOURCES, types[:-1], names, types[-1])
    return Target(path, "", RESOURCES, types, names, None)


@functools.lru_cache(maxsize=32768)
def parse(path: str) -> Target | None:
    """The target of `path` (decoded, starting with a slash); `None` if ARM has no such form."""
    segments = [segment for segment in path.split("/") if segment]
    if not segments:
        return None
    path = "/" + "/".join(segments)
    lowered = [segment.lower() for segment in segments]
    last = len(lowered) - 1 - lowered[::-1].index("providers") if "providers" in lowered else None
    if last is None:
        return _below_tenant(segments, path)
    scope = "/" + "/".join(segments[:last]) if last else ""
    below = segments[last + 1 :]
    if not below or len(below) == 1 or (len(below) == 2 and below[1].lower() in ("register", "unregister")):
        return _provider(path, scope, below)
    namespace, below = below[0], below[1:]
    types, names = tuple(below[0::2]), tuple(below[1::2])
    if len(types) > len(names):
        return Target(path, scope, namespace, types[:-1], names, types[-1])
    return Target(path, scope, namespace, types, names, None)


def _provider(path: str, scope: str, below: list[str]) -> Target | None:
    """A provider itself, or the list of them."""
    above = [segment for segment in scope.split("/") if segment]
    if above and (len(above) != 2 or above[0].lower() != "subscriptions"):
        return None
    types, names = tuple(above[0::2]), tuple(above[1::2])
    if not below:
        return Target(path, "", RESOURCES, types, names, "providers")
    tail = below[1] if len(below) == 2 else None
    return Target(path, "", RESOURCES, (*types, "providers"), (*names, below[0]), tail)


def parent_and_type(key: str) -> tuple[str, str]:
    """The key of what a resource hangs on, and its full type in lower case."""
    scope, _providers, below = key.rpartition("/providers/")
    namespace, *pairs = below.split("/")
    full_type = "/".join([namespace, *pairs[0::2]])
    return (scope if len(pairs) == 2 else key.rsplit("/", 2)[0]), full_type


def group_of(key: str) -> str:
    """`/subscriptions/…/resourcegroups/…` of a lower-cased id below a resource group."""
    return "/".join(key.split("/")[:5])


def subscription_of(key: str) -> str:
    """`/subscriptions/…` of a lower-cased id below a subscription."""
    return "/".join(key.split("/")[:3])
