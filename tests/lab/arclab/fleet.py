# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines does a new lab have, and what does ARM say about them?

Everything is deterministic: two labs with the same options have the same ids. Bodies follow the machine of
HybridCompute 2025-01-13. Linux machines come first (two web servers for each database), Windows after them; stopped
machines and old agents are taken from the end of the Linux ones.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import azcmagent
from .agent import Machine

_NAMESPACE = uuid.UUID("6f1d5a52-0a8c-4f0e-9f7a-0d1f3c3b9a10")
AGENT = "1.55.03212.2"
OLD_AGENT = "1.30.02345.1"
_GROUPS = {"arc-prod": "westeurope", "arc-test": "northeurope"}
_LINUX = (
    ("Ubuntu 22.04.5 LTS", "5.15.0-125-generic", "ubuntu"),
    ("Debian GNU/Linux 12", "6.1.0-28-amd64", "debian"),
    ("Red Hat Enterprise Linux 9.4 (Plow)", "5.14.0-427.el9.x86_64", "rhel"),
)
_DEBIAN = {
    "bookworm": ("Debian GNU/Linux 12 (bookworm)", "6.1.0-28-amd64", "debian"),
    "trixie": ("Debian GNU/Linux 13 (trixie)", "6.12.48+deb13-amd64", "debian"),
}
_WINDOWS = ("Windows Server 2022 Datacenter", "10.0.20348.2762", "windows")


def guid(*parts: object) -> str:
    """A GUID that is always the same for the same parts."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, parts))))


TENANT = guid("tenant")


def stamp(seconds: float) -> str:
    """Unix seconds as ARM writes times."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


@dataclass
class Plan:
    """One machine of the fleet to be, before it is a resource; `properties` are merged into its properties.

    `image` and `suite` only count where Linux machines are containers.
    """

    name: str
    subscription: str
    group: str
    location: str
    os_type: str = "linux"
    agent_version: str = AGENT
    stopped: bool = False
    status: str | None = None
    kind: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    sshd_port: int = 22
    sshd_running: bool = True
    config_mode: str = "full"
    incoming_enabled: bool = True
    extensions_enabled: bool = True
    extensions: list[dict[str, Any]] = field(default_factory=list)
    properties: dict[str, Any] = field(default_factory=dict)
    image: str | None = None
    suite: str | None = None

    @property
    def id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.HybridCompute/machines/{self.name}"
        )

    def runtime(self) -> Machine:
        """What the agent needs to know of it."""
        return Machine(
            id=self.id.lower(),
            name=self.name,
            agent_version=self.agent_version,
            running=not self.stopped,
            incoming_enabled=self.incoming_enabled,
            config_mode=self.config_mode,
            sshd_running=self.sshd_running,
            sshd_port=self.sshd_port,
            image=self.image,
            suite=self.suite,
        )


def subscription_ids(count: int) -> list[str]:
    return [guid("subscription", number) for number in range(1, count + 1)]


def _names(linux: int, windows: int) -> Iterator[tuple[str, str]]:
    """Names and kinds of operating system: web01, web02, db01, web03, …, win01."""
    width = max(2, len(str(linux + windows)))
    webs = dbs = 0
    for number in range(linux):
        if number % 3 == 2:
            dbs += 1
            yield f"db{dbs:0{width}d}", "linux"
        else:
            webs += 1
            yield f"web{webs:0{width}d}", "linux"
    for number in range(1, windows + 1):
        yield f"win{number:0{width}d}", "windows"


def plan(
    machines: int, *, subscriptions: int = 1, stopped: int = 0, old_agents: int = 0, windows: int = 0
) -> list[Plan]:
    """`machines` of them in all, `windows` of which run Windows; the subscriptions take turns."""
    windows = min(windows, machines)
    linux = machines - windows
    ids = subscription_ids(subscriptions)
    plans = []
    for index, (name, os_type) in enumerate(_names(linux, windows)):
        group = "arc-test" if index % 3 == 1 else "arc-prod"
        plans.append(
            Plan(
                name=name,
                subscription=ids[index % len(ids)],
                group=group,
                location=_GROUPS[group],
                os_type=os_type,
                kind="VMware" if name.startswith("db") else None,
                tags={"environment": group.removeprefix("arc-"), "role": name.rstrip("0123456789"), "team": "platform"},
            )
        )
    ordered = [*reversed(plans[:linux]), *reversed(plans[linux:])]
    for one in ordered[:stopped]:
        one.stopped = True
    for one in ordered[stopped : stopped + old_agents]:
        one.agent_version = OLD_AGENT
    return plans


def plan_from_file(entries: Sequence[Mapping[str, Any]], subscriptions: int) -> list[Plan]:
    """The fleet of a `--fleet` file; `subscription` is a GUID or a number from 1. ValueError names a bad entry."""
    ids = subscription_ids(subscriptions)
    plans = []
    for entry in entries:
        given = dict(entry)
        if not given.get("name"):
            raise ValueError(f"A machine of the fleet file has no name: {entry!r}.")
        subscription = given.pop("subscription", 1)
        group = given.pop("resource_group", "arc-prod")
        location = given.pop("location", _GROUPS.get(group, "westeurope"))
        try:
            plans.append(
                Plan(
                    **given,
                    subscription=ids[subscription - 1] if isinstance(subscription, int) else str(subscription).lower(),
                    group=group,
                    location=location,
                )
            )
        except (TypeError, IndexError) as exc:
            raise ValueError(f"Machine {given['name']} of the fleet file: {exc}.") from None
    return plans


def contain(plans: Sequence[Plan], image: str, suites: Sequence[str]) -> None:
    """Make the Linux machines containers: of these suites in turn, where they do not say it themselves."""
    linux = [one for one in plans if one.os_type.lower() == "linux"]
    for number, one in enumerate(linux):
        one.image = one.image or image
        one.suite = one.suite or suites[number % len(suites)]
        if one.image not in ("bare", "ready"):
            raise ValueError(f"Machine {one.name} of the fleet file: its image is bare or ready, not {one.image!r}.")


def resource(one: Plan, now: float) -> dict[str, Any]:
    """The machine as an ARM resource."""
    index = sum(map(ord, one.name))
    windows = one.os_type.lower() == "windows"
    sku, version, distribution = _WINDOWS if windows else _DEBIAN.get(one.suite or "", _LINUX[index % len(_LINUX)])
    fqdn = f"{one.name}.corp.example"
    body: dict[str, Any] = {
        "id": one.id,
        "name": one.name,
        "type": "Microsoft.HybridCompute/machines",
        "location": one.location,
        "tags": dict(one.tags),
        "identity": {"type": "SystemAssigned", "principalId": guid(one.id, "identity"), "tenantId": TENANT},
        "systemData": {
            "createdBy": guid("app", "onboarding"),
            "createdByType": "Application",
            "createdAt": stamp(now - 90 * 86400),
            "lastModifiedBy": guid("app", "onboarding"),
            "lastModifiedByType": "Application",
            "lastModifiedAt": stamp(now - 90 * 86400),
        },
        "properties": {
            "provisioningState": "Succeeded",
            "status": one.status or ("Disconnected" if one.stopped else "Connected"),
            "lastStatusChange": stamp(now - (3 * 86400 if one.stopped else 120)),
            "vmId": guid(one.id, "vm"),
            "vmUuid": guid(one.id, "uuid"),
            "displayName": one.name,
            "machineFqdn": fqdn,
            "dnsFqdn": fqdn,
            "domainName": "corp.example" if windows else "",
            "osName": one.os_type,
            "osType": one.os_type,
            "osSku": sku,
            "osVersion": version,
            "osEdition": "Datacenter" if windows else "",
            "osProfile": {"computerName": one.name},
            "agentVersion": one.agent_version,
            "errorDetails": [],
            "mssqlDiscovered": "false",
            "cloudMetadata": {"provider": "N/A"},
            "locationData": {"name": "Amsterdam" if one.location == "westeurope" else "Dublin"},
            "detectedProperties": {
                "cloudprovider": "N/A",
                "coreCount": "4",
                "logicalCoreCount": "8",
                "manufacturer": "VMware, Inc." if one.kind == "VMware" else "QEMU",
                "model": "Virtual Machine",
                "mssqldiscovered": "false",
                "processorCount": "1",
                "totalPhysicalMemoryInGigabytes": "16",
                "osdistribution": distribution,
            },
            "agentConfiguration": {
                "proxyUrl": "",
                "incomingConnectionsPorts": [str(one.sshd_port)] if one.incoming_enabled else [],
                "extensionsAllowList": [],
                "extensionsBlockList": [],
                "proxyBypass": [],
                "extensionsEnabled": "true" if one.extensions_enabled else "false",
                "guestConfigurationEnabled": "true",
                "configMode": one.config_mode,
            },
            "serviceStatuses": {
                "extensionService": {"status": "stopped" if one.stopped else "running", "startupType": "automatic"},
                "guestConfigurationService": {"status": "running", "startupType": "automatic"},
            },
            "networkProfile": {
                "networkInterfaces": [
                    {
                        "ipAddresses": [
                            {
                                "address": f"10.20.{index % 256}.{len(one.name) + 10}",
                                "ipAddressVersion": "IPv4",
                                "subnet": {"addressPrefix": f"10.20.{index % 256}.0/24"},
                            }
                        ]
                    }
                ]
            },
            **one.properties,
        },
    }
    if one.kind:
        body["kind"] = one.kind
    return body


def identity(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the agent on a machine knows of the machine's resource, as `azcmagent show` names it."""
    properties = body["properties"]
    parts = body["id"].split("/")
    return {
        "resourceName": body["name"],
        "resourceGroup": parts[4],
        "subscriptionId": parts[2],
        "tenantId": body["identity"]["tenantId"],
        "resourceId": body["id"],
        "vmId": properties["vmId"],
        "vmUuid": properties["vmUuid"],
        "correlationId": guid(body["id"], "correlation"),
        "location": body["location"],
        "cloud": "AzureCloud",
        "agentVersion": properties["agentVersion"],
        "manufacturer": properties["detectedProperties"]["manufacturer"],
        "model": properties["detectedProperties"]["model"],
    }


def agent_settings(machine: Machine, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a new machine's azcmagent is set to."""
    return {
        **azcmagent.DEFAULTS,
        "incomingconnections.enabled": machine.incoming_enabled,
        "incomingconnections.ports": machine.incoming_ports,
        "config.mode": machine.config_mode,
        "extensions.enabled": body["properties"]["agentConfiguration"]["extensionsEnabled"] == "true",
    }
