# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a lab leave in its state directory for those who use it?

`env.sh` (to be sourced), the inventory file, the known hosts (by lower-cased resource id, the alias under which hosts
are verified), and what a managed identity needs. Files with secrets are 0600 in a directory of 0700.
"""

from __future__ import annotations

import json

from .envfile import exports
from .services import Services
from .sshd import private_directory, write_private

_INVENTORY = """\
plugin: arcfleet.ssh.arc_machines
connection: relay
ssh_user: {user}
ssh_private_key_file: {key}
ssh_known_hosts_file: {known_hosts}
groups_by: [os_type, status, resource_group]
groups:
  agent_too_old: "arc_agent_version is version('1.31', '<')"
"""


def environment(services: Services, url: str) -> dict[str, str]:
    """The variables of `env.sh`."""
    directory, world = services.state_dir, services.world
    owner = world.applications[world.meta["owner"]]
    authority = str(directory / "ca.pem")
    return {
        "AZURE_CLIENT_ID": owner.app_id,
        "AZURE_SECRET": owner.secrets[0],
        "AZURE_CLIENT_SECRET": owner.secrets[0],
        "AZURE_TENANT": world.tenant,
        "AZURE_TENANT_ID": world.tenant,
        "AZURE_SUBSCRIPTION_ID": world.subscriptions[0],
        "AZURE_CLOUD_ENVIRONMENT": url,
        "REQUESTS_CA_BUNDLE": authority,
        "SSL_CERT_FILE": authority,
        "XDG_CACHE_HOME": str(directory / "cache"),
        "ARCLAB_STATE_DIR": str(directory),
        "ARCLAB_INVENTORY": str(directory / "arc.yml"),
        "ARCLAB_USER": services.agents.user,
        "ARCLAB_KEY": str(services.agents.client_key),
        "ARCLAB_KNOWN_HOSTS": str(directory / "known_hosts"),
    }


def write_known_hosts(services: Services) -> None:
    """The host keys of all machines; one without an SSH server has no host key to be known by yet."""
    known = {key: services.agents.host_key_public(key) for key in services.world.machines}
    lines = (f"{key} {public}\n" for key, public in known.items() if public is not None)
    write_private(services.state_dir / "known_hosts", "".join(lines))


def write(services: Services, url: str) -> None:
    """Write all of them."""
    directory = services.state_dir
    private_directory(directory / "cache")
    write_known_hosts(services)
    inventory = _INVENTORY.format(
        user=json.dumps(services.agents.user),
        key=json.dumps(str(services.agents.client_key)),
        known_hosts=json.dumps(str(directory / "known_hosts")),
    )
    write_private(directory / "arc.yml", inventory)
    identity = {
        "IDENTITY_ENDPOINT": f"{url}/msi/token",
        "IDENTITY_HEADER": services.world.meta["identity_header"],
    }
    write_private(directory / "msi.sh", exports(identity))
    write_private(directory / "env.sh", exports(environment(services, url)))
