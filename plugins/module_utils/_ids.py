# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which resource does an ARM id name, and do two ids name the same one?

ARM ids are compared without regard to case: Azure itself answers with `Machines` where `machines` was asked for. The machine
name's alphabet is that of the HybridCompute specification; a resource group's is that of Azure's naming rules. Both keep
whatever comes in from outside harmless in URLs, file names and command lines. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ._errors import InputError

MACHINE_TYPE = "Microsoft.HybridCompute/machines"

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MACHINE_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,54}")
_RESOURCE_GROUP = re.compile(r"[-\w().]{0,89}[-\w()]")

# Types that carry SSH over Arc as well, or look as if they did: their users need to know which id to give instead.
_RELATED_TYPES = {
    "microsoft.compute/virtualmachines": "That is an Azure VM, which has no Arc agent.",
    "microsoft.azurestackhci/virtualmachines": "",
    "microsoft.azurestackhci/virtualmachineinstances": "",
    "microsoft.connectedvmwarevsphere/virtualmachines": "",
    "microsoft.scvmm/virtualmachines": "",
}


@dataclass(frozen=True)
class MachineId:
    """An Arc-enabled server, whatever its kind; spelt as the user or Azure spelt it, compared by `key`."""

    subscription_id: str
    resource_group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> MachineId:
        """The machine that an ARM id names. Raises InputError for anything else, child resources included."""
        parts = text.strip().rstrip("/").split("/") if isinstance(text, str) else []
        if (
            len(parts) < 9
            or parts[0]
            or [parts[1].lower(), parts[3].lower(), parts[5].lower()]
            != [
                "subscriptions",
                "resourcegroups",
                "providers",
            ]
        ):
            raise InputError(
                f"{text!r} is not the resource id of an Arc machine.",
                hint=f"It has the form /subscriptions/GUID/resourceGroups/NAME/providers/{MACHINE_TYPE}/NAME.",
            )
        kind = f"{parts[6]}/{parts[7]}"
        if kind.lower() != MACHINE_TYPE.lower() or len(parts) != 9:
            foreign = "/".join([parts[6], *parts[7::2]])
            hint = _RELATED_TYPES.get(foreign.lower(), _RELATED_TYPES.get(kind.lower(), ""))
            raise InputError(
                f"{text!r} names a {foreign}, not a {MACHINE_TYPE}.",
                hint=hint or f"Give the id of the {MACHINE_TYPE} resource itself.",
            )
        return cls.build(parts[2], parts[4], parts[8])

    @classmethod
    def build(cls, subscription_id: str, resource_group: str, name: str) -> MachineId:
        """The machine of this name; raises InputError where a part cannot be one."""
        subscription(subscription_id)
        if not _RESOURCE_GROUP.fullmatch(resource_group):
            raise InputError(f"{resource_group!r} cannot be the name of a resource group.")
        if not _MACHINE_NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be the name of an Arc machine: 1 to 54 letters, digits, '.', '_' and '-' are allowed."
            )
        return cls(subscription_id, resource_group, name)

    @property
    def key(self) -> str:
        """The id in lower case: the identity of the machine in results, caches and host key aliases."""
        return str(self).lower()

    @property
    def parent(self) -> str:
        """The id of the resource group."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"

    def __str__(self) -> str:
        return f"{self.parent}/providers/{MACHINE_TYPE}/{self.name}"


def subscription(text: str) -> str:
    """`text` if it is a subscription id (a GUID); InputError otherwise."""
    if not isinstance(text, str) or not _GUID.fullmatch(text):
        raise InputError(f"{text!r} is not a subscription id.", hint="It is a GUID, as `az account show` prints it.")
    return text


def same(one: str, other: str) -> bool:
    """Whether two ARM ids or types are equal; case and a trailing slash do not count."""
    return one.rstrip("/").lower() == other.rstrip("/").lower()
