# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the Azure CLI leave on disk when a user signs in, and what does it do for others then?

`azureProfile.json` with the subscriptions and whose they are (it begins with a byte order mark, as the CLI's own), the registered cloud,
and MSAL's token cache, unencrypted as on Linux. MSAL itself fills that, by a refresh token. A program `az` knows the one command that
azure-identity runs. Only tests that ask for this need MSAL.
"""

from __future__ import annotations

import argparse
import configparser
import io
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .sshd import private_directory, write_private
from .tokens import AZURE_CLI

PROFILE, TOKENS, CLOUDS, CONFIGURATION = "azureProfile.json", "msal_token_cache.json", "clouds.config", "config"
CLOUD = "arclab"
_AZ = """\
#!{python}
import sys
sys.path.insert(0, {package!r})
from arclab.azure_cli import main
sys.exit(main())
"""


def sign_in(environment: Mapping[str, str], url: str, directory: Path, user: str, refresh_token: str) -> dict[str, str]:
    """Write the files; the variables with which the CLI, and who reads its files, finds them, and `PATH` with `az` in it."""
    import requests

    tenant = environment["AZURE_TENANT"]
    private_directory(directory)
    with requests.Session() as session:
        # The lab's authority counts, whatever this computer's environment says.
        session.trust_env = False
        session.verify = environment["REQUESTS_CA_BUNDLE"]
        application, cache = _application(f"{url}/{tenant}", "{}", http_client=session)
        answer = application.acquire_token_by_refresh_token(refresh_token, [f"{url}/.default"])
    if "access_token" not in answer:
        raise ValueError(f"{user} cannot sign in: {answer['error_description']}")
    write_private(directory / TOKENS, cache.serialize())
    subscription = {
        "id": environment["AZURE_SUBSCRIPTION_ID"],
        "name": "Arc lab 1",
        "state": "Enabled",
        "user": {"name": user, "type": "user"},
        "isDefault": True,
        "tenantId": tenant,
        "environmentName": CLOUD,
        "homeTenantId": tenant,
        "managedByTenants": [],
    }
    profile = {"installationId": "00000000-0000-0000-0000-000000000000", "subscriptions": [subscription]}
    write_private(directory / PROFILE, "\ufeff" + json.dumps(profile))
    write_private(directory / CLOUDS, _ini(CLOUD, endpoint_resource_manager=url, endpoint_active_directory=url))
    write_private(directory / CONFIGURATION, _ini("cloud", name=CLOUD))
    programs = private_directory(directory / "bin")
    package = str(Path(__file__).resolve().parent.parent)
    write_private(programs / "az", _AZ.format(python=sys.executable, package=package))
    (programs / "az").chmod(0o700)
    path = os.pathsep.join((os.fspath(programs.resolve()), os.environ.get("PATH", os.defpath)))
    return {"AZURE_CONFIG_DIR": os.fspath(directory.resolve()), "PATH": path}


def _application(authority: str, cached: str, **more: Any) -> tuple[Any, Any]:
    """The CLI as MSAL knows it, with its cache."""
    import msal

    cache = msal.SerializableTokenCache()
    cache.deserialize(cached)
    application = msal.PublicClientApplication(
        AZURE_CLI, authority=authority, token_cache=cache, instance_discovery=False, **more
    )
    return application, cache


def _ini(section: str, **values: str) -> str:
    parser = configparser.ConfigParser()
    parser[section] = values
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def main() -> int:
    """`az account get-access-token`, of whom the files in AZURE_CONFIG_DIR say is signed in."""
    parser = argparse.ArgumentParser(prog="az")
    parser.add_argument("command", nargs=2)
    for name in ("output", "resource", "scope", "tenant", "subscription"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    if arguments.command != ["account", "get-access-token"]:
        parser.error(f"'{' '.join(arguments.command)}' is misspelled or not recognized by the system.")
    directory = Path(os.environ["AZURE_CONFIG_DIR"])
    clouds = configparser.ConfigParser()
    clouds.read(directory / CLOUDS)
    account = json.loads((directory / PROFILE).read_text(encoding="utf-8-sig"))["subscriptions"][0]
    tenant, url = arguments.tenant or account["tenantId"], clouds[CLOUD]["endpoint_active_directory"]
    application, cache = _application(f"{url}/{tenant}", (directory / TOKENS).read_text())
    scope = arguments.scope or f"{arguments.resource or url}/.default"
    found = application.get_accounts(account["user"]["name"])
    answer = application.acquire_token_silent_with_error([scope], found[0]) if found else None
    if not answer or "access_token" not in answer:
        told = answer["error_description"] if answer else "Can't find token from MSAL cache."
        print(f"ERROR: {told}\nTo re-authenticate, please run:\naz login", file=sys.stderr)
        return 1
    if cache.has_state_changed:
        write_private(directory / TOKENS, cache.serialize())
    expires = int(time.time()) + int(answer["expires_in"])
    shown = {
        "accessToken": answer["access_token"],
        "expiresOn": time.strftime("%Y-%m-%d %H:%M:%S.000000", time.localtime(expires)),
        "expires_on": expires,
        "subscription": account["id"],
        "tenant": tenant,
        "tokenType": answer["token_type"],
    }
    print(json.dumps(shown, indent=2))
    return 0
