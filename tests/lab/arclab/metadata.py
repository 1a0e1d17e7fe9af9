# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a cloud describe itself?

`/metadata/endpoints` of ARM, which needs no login. Version 2015-01-01 is one object of the old shape, 2019-05-01 and
2020-06-01 are a list of clouds, 2022-09-01 is one object again (azure-cli#29283, azure-powershell-common#374).
"""

from __future__ import annotations

from typing import Any

from .http import Answer, ArmFailure

CLOUD = "ArcLab"
_LISTS = ("2018-05-01", "2019-05-01", "2019-10-01", "2020-06-01", "2020-09-01", "2021-01-01", "2021-04-01")
_VERSIONS = ("1.0", "2014-11-01-privatepreview", "2015-01-01", *_LISTS, "2022-09-01")


def _cloud(url: str) -> dict[str, Any]:
    host = url.partition("//")[2]
    return {
        "portal": f"{url}/portal",
        "authentication": {
            "loginEndpoint": f"{url}/",
            "audiences": [f"{url}/", "https://management.core.windows.net/", "https://management.azure.com/"],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "media": f"{url}/media",
        "graphAudience": "https://graph.windows.net/",
        "graph": "https://graph.windows.net/",
        "name": CLOUD,
        "suffixes": {
            "acrLoginServer": "azurecr.invalid",
            "keyVaultDns": "vault.invalid",
            "sqlServerHostname": "database.invalid",
            "storage": "core.invalid",
        },
        "batch": f"{url}/batch-accounts",
        "resourceManager": f"{url}/",
        "vmImageAliasDoc": f"{url}/aliases.json",
        "sqlManagement": f"{url}/sql",
        "microsoftGraphResourceId": "https://graph.microsoft.com/",
        "gallery": f"{url}/gallery",
        "arcGatewayHost": host,
    }


def endpoints(url: str, api_version: str | None) -> Answer:
    """The answer for the cloud at `url` (no slash at the end)."""
    if not api_version:
        raise ArmFailure(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    version = "2022-09-01" if api_version == "latest" else api_version
    if version not in _VERSIONS:
        raise ArmFailure(
            400,
            "InvalidApiVersionParameter",
            f"The api-version '{api_version}' is invalid. The supported versions are "
            f"'{','.join(reversed(_VERSIONS))}'.",
        )
    cloud = _cloud(url)
    if version in _LISTS:
        return Answer(200, [cloud])
    if version == "2022-09-01":
        return Answer(200, cloud)
    authentication = cloud["authentication"]
    return Answer(
        200,
        {
            "galleryEndpoint": cloud["gallery"],
            "graphEndpoint": cloud["graph"],
            "portalEndpoint": cloud["portal"],
            "authentication": {name: authentication[name] for name in ("loginEndpoint", "audiences")},
        },
    )
