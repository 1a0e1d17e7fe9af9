# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which api-versions does each resource type answer to?

From the contract's tables: run commands came with previews of 2023 and are stable since 2025-01-13, service
configurations came with 2023-03-15. Other types have the versions that the newest SDKs, the Azure CLI and azcollection
send.
"""

from __future__ import annotations

_RESOURCES = (
    "2016-02-01 2016-06-01 2016-09-01 2017-05-10 2018-01-01 2018-02-01 2018-05-01 2019-03-01 2019-05-01 2019-05-10 "
    "2019-07-01 "
    "2019-08-01 2019-10-01 2020-01-01 2020-06-01 2020-10-01 2021-01-01 2021-04-01 2022-09-01 2022-12-01 2023-07-01 "
    "2024-03-01 "
    "2024-07-01 2024-11-01 2025-03-01 2025-04-01"
).split()
_SUBSCRIPTIONS = (
    "2014-04-01 2015-01-01 2015-11-01 2016-06-01 2018-02-01 2018-05-01 2018-06-01 2019-03-01 2019-06-01 2019-10-01 "
    "2019-11-01 "
    "2020-01-01 2020-06-01 2021-01-01 2021-04-01 2022-09-01 2022-12-01 2024-03-01 2024-11-01 2025-04-01"
).split()
_MACHINES = (
    "2022-11-10 2022-12-27 2023-10-03-preview 2024-05-20-preview 2024-07-10 2024-11-10-preview 2025-01-13 2025-06-01 "
    "2026-07-15"
).split()
_RUN_COMMANDS = [
    version
    for version in _MACHINES
    if version.endswith("-preview") or version in ("2025-01-13", "2025-06-01", "2026-07-15")
]
_ENDPOINTS = (
    "2021-10-06-preview 2022-05-01-preview 2023-03-15 2023-04-01-preview 2024-12-01 2025-12-01-preview 2027-01-01"
).split()
_ASSIGNMENTS = (
    "2015-07-01 2017-10-01-preview 2018-01-01-preview 2018-09-01-preview 2020-03-01-preview 2020-04-01-preview "
    "2020-08-01-preview 2020-10-01-preview 2022-04-01"
).split()

SUPPORTED: dict[str, list[str]] = {
    "microsoft.resources/subscriptions": _SUBSCRIPTIONS,
    "microsoft.resources/subscriptions/locations": _SUBSCRIPTIONS,
    "microsoft.resources/tenants": _SUBSCRIPTIONS,
    "microsoft.resources/subscriptions/resourcegroups": _RESOURCES,
    "microsoft.resources/subscriptions/resources": _RESOURCES,
    "microsoft.resources/subscriptions/resourcegroups/resources": _RESOURCES,
    "microsoft.resources/subscriptions/providers": _RESOURCES,
    "microsoft.resources/providers": _RESOURCES,
    "microsoft.resources/batch": ["2015-11-01", "2020-06-01", "2022-12-01"],
    "microsoft.hybridcompute/machines": _MACHINES,
    "microsoft.hybridcompute/machines/extensions": _MACHINES,
    "microsoft.hybridcompute/machines/runcommands": _RUN_COMMANDS,
    "microsoft.hybridcompute/operations": _MACHINES,
    "microsoft.hybridcompute/locations/operationstatus": _MACHINES,
    "microsoft.hybridcompute/locations/operationresults": _MACHINES,
    "microsoft.hybridcompute/locations/publishers/extensiontypes/versions": _MACHINES,
    "microsoft.hybridconnectivity/endpoints": _ENDPOINTS,
    "microsoft.hybridconnectivity/endpoints/serviceconfigurations": _ENDPOINTS[2:],
    "microsoft.hybridconnectivity/operations": _ENDPOINTS,
    "microsoft.authorization/roleassignments": _ASSIGNMENTS,
    "microsoft.authorization/roledefinitions": ["2015-07-01", "2018-01-01-preview", "2022-04-01", "2022-05-01-preview"],
    "microsoft.insights/eventtypes/values": ["2014-04-01", "2015-04-01"],
    "microsoft.resourcegraph/resources": (
        "2018-09-01-preview 2019-04-01 2020-04-01-preview 2021-03-01 2021-06-01-preview 2022-10-01 2024-04-01"
    ).split(),
}

# Providers whose types are regional: an unknown version of one of theirs is a NoRegisteredProviderFound.
REGIONAL = ("microsoft.hybridcompute", "microsoft.hybridconnectivity")

LOCATIONS = {
    "eastus": "East US",
    "eastus2": "East US 2",
    "westus2": "West US 2",
    "northeurope": "North Europe",
    "westeurope": "West Europe",
    "uksouth": "UK South",
    "germanywestcentral": "Germany West Central",
    "swedencentral": "Sweden Central",
}

# Namespaces that `providers` lists, in Azure's spelling; the last two have no operations here.
NAMESPACES = (
    "Microsoft.HybridCompute",
    "Microsoft.HybridConnectivity",
    "Microsoft.Authorization",
    "Microsoft.Insights",
    "Microsoft.ResourceGraph",
    "Microsoft.Resources",
    "Microsoft.GuestConfiguration",
    "Microsoft.Compute",
)
ALWAYS_REGISTERED = frozenset(
    ("microsoft.authorization", "microsoft.insights", "microsoft.resourcegraph", "microsoft.resources")
)


def location(text: str) -> str:
    """A location's name as ARM compares it: `West Europe` is `westeurope`."""
    return text.replace(" ", "").lower()


def newest_first(versions: list[str]) -> list[str]:
    return sorted(versions, reverse=True)
