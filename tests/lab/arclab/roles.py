# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which roles does Azure bring along, and what do they allow?

GUIDs and the actions that matter for SSH over Arc from the contract's table of roles; the four general roles from
Azure's own list of built-in roles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
_COMPUTE = "Microsoft.HybridCompute"
_CONNECTIVITY = "Microsoft.HybridConnectivity"
_LOGIN_READS = (
    "Microsoft.Network/publicIPAddresses/read",
    "Microsoft.Network/virtualNetworks/read",
    "Microsoft.Network/loadBalancers/read",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Compute/virtualMachines/*/read",
    f"{_COMPUTE}/machines/*/read",
    f"{_CONNECTIVITY}/endpoints/listCredentials/action",
)


@dataclass(frozen=True)
class Role:
    """One role definition; `custom` ones belong to the scopes they are assignable in."""

    id: str
    name: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()
    description: str = ""
    custom: bool = False
    assignable_scopes: tuple[str, ...] = ("/",)

    def to_json(self, scope: str) -> dict[str, Any]:
        """The resource as ARM shows it to who asks at `scope`."""
        return {
            "properties": {
                "roleName": self.name,
                "type": "CustomRole" if self.custom else "BuiltInRole",
                "description": self.description,
                "assignableScopes": list(self.assignable_scopes),
                "permissions": [
                    {
                        "actions": list(self.actions),
                        "notActions": list(self.not_actions),
                        "dataActions": list(self.data_actions),
                        "notDataActions": list(self.not_data_actions),
                    }
                ],
            },
            "id": f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{self.id}",
            "type": "Microsoft.Authorization/roleDefinitions",
            "name": self.id,
        }


BUILT_IN: tuple[Role, ...] = (
    Role(OWNER, "Owner", ("*",), description="Grants full access to manage all resources."),
    Role(
        CONTRIBUTOR,
        "Contributor",
        ("*",),
        (
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ),
        description="Grants full access to manage all resources, but does not allow you to assign roles.",
    ),
    Role(READER, "Reader", ("*/read",), description="View all resources, but does not allow you to make any changes."),
    Role(
        "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
        "User Access Administrator",
        ("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"),
        description="Lets you manage user access to Azure resources.",
    ),
    Role(
        "1c0163c0-47e6-4577-8991-ea5c82e286e4",
        "Virtual Machine Administrator Login",
        _LOGIN_READS,
        data_actions=(
            "Microsoft.Compute/virtualMachines/login/action",
            "Microsoft.Compute/virtualMachines/loginAsAdmin/action",
            f"{_COMPUTE}/machines/login/action",
            f"{_COMPUTE}/machines/loginAsAdmin/action",
        ),
        description="View Virtual Machines in the portal and login as administrator",
    ),
    Role(
        "fb879df8-f326-4884-b1cf-06f3ad86be52",
        "Virtual Machine User Login",
        _LOGIN_READS,
        data_actions=("Microsoft.Compute/virtualMachines/login/action", f"{_COMPUTE}/machines/login/action"),
        description="View Virtual Machines in the portal and login as a regular user.",
    ),
    Role(
        "602da2ba-a5c2-41da-b01d-5360126ab525",
        "Virtual Machine Local User Login",
        (f"{_COMPUTE}/machines/*/read", f"{_CONNECTIVITY}/endpoints/listCredentials/action"),
        description="View Virtual Machines in the portal and login as a local user configured on the arc server.",
    ),
    Role(
        "a6333a3e-0164-44c3-b281-7a577aff287f",
        "Windows Admin Center Administrator Login",
        (
            f"{_COMPUTE}/machines/*/read",
            f"{_COMPUTE}/machines/extensions/*",
            f"{_CONNECTIVITY}/endpoints/read",
            f"{_CONNECTIVITY}/endpoints/write",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/read",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/write",
            f"{_CONNECTIVITY}/endpoints/listManagedProxyDetails/action",
        ),
        data_actions=(f"{_COMPUTE}/machines/WACLoginAsAdmin/action",),
        description="Let's you manage the OS of your resource via Windows Admin Center as an administrator.",
    ),
    Role(
        "cd570a14-e51a-42ad-bac8-bafd67325302",
        "Azure Connected Machine Resource Administrator",
        (
            f"{_COMPUTE}/machines/*",
            f"{_COMPUTE}/locations/*",
            f"{_COMPUTE}/licenses/*",
            f"{_COMPUTE}/*/read",
            "Microsoft.Resources/deployments/*",
        ),
        description="Can read, write, delete and re-onboard Azure Connected Machines.",
    ),
    Role(
        "b64e21ea-ac4e-4cdf-9dc9-5b892992bee7",
        "Azure Connected Machine Onboarding",
        (
            f"{_COMPUTE}/machines/read",
            f"{_COMPUTE}/machines/write",
            f"{_COMPUTE}/privateLinkScopes/read",
            "Microsoft.GuestConfiguration/guestConfigurationAssignments/read",
        ),
        description="Can onboard Azure Connected Machines.",
    ),
    Role(
        "f5819b54-e033-4d82-ac66-4fec3cbf3f4c",
        "Azure Connected Machine Resource Manager",
        (
            f"{_CONNECTIVITY}/endpoints/read",
            f"{_CONNECTIVITY}/endpoints/write",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/read",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/write",
            f"{_COMPUTE}/machines/read",
            f"{_COMPUTE}/machines/write",
            f"{_COMPUTE}/machines/delete",
            f"{_COMPUTE}/machines/extensions/read",
            f"{_COMPUTE}/machines/extensions/write",
            f"{_COMPUTE}/machines/extensions/delete",
        ),
        description="Lets AzureStackHCI manage hybrid compute machines and hybrid connectivity endpoints",
    ),
    Role(
        "b6d9c0f6-d69f-472b-91b4-7a6838c6d1cb",
        "Microsoft.AzureStackHCI Device Pool Machine Manager",
        (
            f"{_COMPUTE}/machines/read",
            f"{_CONNECTIVITY}/endpoints/read",
            f"{_CONNECTIVITY}/endpoints/write",
            f"{_CONNECTIVITY}/endpoints/delete",
            f"{_CONNECTIVITY}/endpoints/listCredentials/action",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/read",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/write",
            f"{_CONNECTIVITY}/endpoints/serviceConfigurations/delete",
        ),
        description="Microsoft.AzureStackHCI Device Pool Machine Manager",
    ),
)


def role_from_json(guid: str, properties: dict[str, Any]) -> Role:
    """A custom role from the `properties` of its resource; several permissions count as one."""
    permissions = properties.get("permissions") or []

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(action for permission in permissions for action in permission.get(name) or [])

    return Role(
        id=guid.lower(),
        name=properties["roleName"],
        actions=all_of("actions"),
        not_actions=all_of("notActions"),
        data_actions=all_of("dataActions"),
        not_data_actions=all_of("notDataActions"),
        description=properties.get("description") or "",
        custom=True,
        assignable_scopes=tuple(properties.get("assignableScopes") or ()),
    )
