# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is an Arc machine to Ansible: which host, which variables, which groups, and how is it reached?

Pure: records of the API in, names and JSON values out. Whatever the API says is untrusted (names, tags and the fully
qualified name come from other people's machines), so nothing of it reaches a command line or a host name without being
checked or quoted. OpenSSH's side: ssh_config(5), the tokens of ProxyCommand. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from ..module_utils._errors import InputError
from ..module_utils._ids import MachineId
from ..module_utils._names import alias
from ..module_utils._relay._certificates import ssh_options
from ..module_utils._resources._machine import extension_facts, facts
from ..module_utils._ssh_config import file_word

HOSTNAMES = ("name", "fqdn", "vm_id", "resource_id")

# Native groupings and the variable each of them looks at; `tag:NAME` comes on top.
GROUPINGS: Mapping[str, str] = {
    "os_type": "arc_os_type",
    "os_name": "arc_os_name",
    "location": "arc_location",
    "resource_group": "arc_resource_group",
    "subscription": "arc_subscription_id",
    "status": "arc_status",
    "kind": "arc_kind",
    "agent_version": "arc_agent_version",
}

# Seconds that ssh waits for the relay: the helper's own patience (180) and time to start and log in.
SSH_TIMEOUT = 200
# The helper tries again by itself; one more start is for a relay that is lost during the handshake. Ansible would repeat a task as well
# whose connection was lost: `--once` has the helper refuse that.
SSH_RETRIES = 1

# How `shlex.quote` writes a quotation mark inside a word.
_QUOTE_IN_QUOTES = "'\"'\"'"
_VERSION_BAND = re.compile(r"(\d+)\.(\d+)(\D|$)")


class HostVars(TypedDict):
    """The variables of a host. A value that Azure does not know is `None`; `arc_tags` is empty then."""

    arc_resource_id: str
    arc_name: str
    arc_resource_group: str
    arc_subscription_id: str
    arc_location: str | None
    arc_status: str | None
    arc_last_status_change: str | None
    arc_agent_version: str | None
    arc_os_type: str | None
    arc_os_name: str | None
    arc_os_sku: str | None
    arc_fqdn: str | None
    arc_vm_id: str | None
    arc_kind: str | None
    arc_tags: dict[str, str]
    arc_agent_config: dict[str, Any] | None
    arc_extensions: list[dict[str, Any]] | None


# A variable's name is one object, however many hosts have it.
_VARIABLES = {name[len("arc_") :]: name for name in HostVars.__annotations__}


def host_vars(raw: Mapping[str, Any]) -> HostVars:
    """The variables of the machine in ARM's record `raw`, with its extensions where `resources` lists them.

    Anything may be missing in a record, or be of a wrong kind: it is absent then. Raises InputError for one without a machine's id.
    """
    tags, children = raw.get("tags"), raw.get("resources")
    # The name is the id's: it goes into commands, and the id's parts are looked at.
    known = facts({**raw, "name": None, "tags": tags if isinstance(tags, Mapping) else None})
    config = known["agent_config"]
    variables: Any = {
        _VARIABLES[name]: value if value and isinstance(value, str) else None for name, value in known.items()
    }
    variables["arc_resource_id"] = str(machine_of(variables))
    variables["arc_tags"] = {
        str(name): value if isinstance(value, str) else "" for name, value in known["tags"].items()
    }
    variables["arc_agent_config"] = dict(config) if isinstance(config, Mapping) else None
    variables["arc_extensions"] = (
        [_extension(child) for child in children if isinstance(child, Mapping)] if isinstance(children, list) else None
    )
    return variables  # type: ignore[no-any-return]


def _extension(raw: Mapping[str, Any]) -> dict[str, Any]:
    known = extension_facts(raw)
    upgrade = known["automatic_upgrade"]
    shown = {name: value if value and isinstance(value, str) else None for name, value in known.items()}
    return {**shown, "automatic_upgrade": upgrade if isinstance(upgrade, bool) else None}


def machine_of(variables: Mapping[str, Any]) -> MachineId:
    """The machine whose variables these are; `host_vars` has looked at its parts."""
    return MachineId(variables["arc_subscription_id"], variables["arc_resource_group"], variables["arc_name"])


def grouping(groups_by: Sequence[str]) -> Callable[[Mapping[str, Any]], list[str]]:
    """The function that tells a host's groups from its variables. Raises InputError for a grouping that there is not.

    A group is called after the grouping and the value, in lower case, with an underscore for whatever is no letter or
    digit: `os_type_linux`, `location_westeurope`, `agent_version_1_50` (major and minor version), `tag_env_prod`.
    """
    getters: list[Callable[[Mapping[str, Any]], str | None]] = []
    for entry in groups_by:
        kind, colon, tag = entry.partition(":")
        if kind == "tag" and tag:
            getters.append(_tag_group(tag))
        elif not colon and entry in GROUPINGS:
            getters.append(_field_group(entry))
        else:
            raise InputError(f"groups_by: {entry!r} is none of {', '.join(GROUPINGS)} and tag:NAME.")
    return lambda variables: [group for group in (getter(variables) for getter in getters) if group]


def _field_group(kind: str) -> Callable[[Mapping[str, Any]], str | None]:
    variable = GROUPINGS[kind]
    known: dict[str | None, str | None] = {}

    def group(variables: Mapping[str, Any]) -> str | None:
        value = variables[variable]
        if value not in known:
            known[value] = _group_name(kind, _band(value) if kind == "agent_version" else value)
        return known[value]

    return group


def _tag_group(tag: str) -> Callable[[Mapping[str, Any]], str | None]:
    known: dict[str | None, str | None] = {None: None}
    prefix = _group_name("tag", tag) or "tag"

    def group(variables: Mapping[str, Any]) -> str | None:
        value = variables["arc_tags"].get(tag)
        if value not in known:
            known[value] = _group_name(prefix, value) or prefix
        return known[value]

    return group


def _group_name(prefix: str, value: str | None) -> str | None:
    safe = re.sub(r"\W+", "_", (value or "").lower()).strip("_")
    return f"{prefix}_{safe}" if safe else None


def _band(version: str | None) -> str | None:
    found = _VERSION_BAND.match(version or "")
    return f"{found.group(1)}.{found.group(2)}" if found else None


class Certificate(NamedTuple):
    """An SSH certificate that the helper keeps good: whom it names, and the directory and name of its files."""

    principal: str
    directory: str
    name: str


class Relay:
    """How ssh reaches machines through the relay: with our helper as its ProxyCommand.

    `python` and `helper` are the interpreter and the path of the helper; `auth` are the login's options that are no
    secrets, by their names in the inventory; `private_key_file`, `known_hosts_file` and `user` may be absent. With a
    `certificate`, machines that are not known to run Windows are logged in to with that and as its principal; `agent`
    leaves the keys to ssh-agent. `proxy_binary` and `proxy_digest` are options of the helper.
    """

    def __init__(
        self,
        *,
        python: str,
        helper: str,
        auth: Mapping[str, str],
        port: int = 22,
        user: str | None = None,
        private_key_file: str | None = None,
        known_hosts_file: str | None = None,
        certificate: Certificate | None = None,
        agent: bool = False,
        proxy_binary: str | None = None,
        proxy_digest: str | None = None,
    ) -> None:
        given = [*sorted(auth.items()), ("proxy_binary", proxy_binary), ("proxy_digest", proxy_digest)]
        options = [part for name, value in given if value for part in (f"--{name.replace('_', '-')}", value)]
        # The command is read by a shell, after ssh has replaced its own tokens: `%p` is the only one that is meant.
        command = f"{shlex.join([python, helper, *options])} --resource-id ".replace("%", "%%")
        # A word in quotation marks whose end is still to come.
        self._before = f"-o {shlex.quote(f'ProxyCommand={command}')[:-1]}"
        more = [("UserKnownHostsFile", file_word(known_hosts_file))] if known_hosts_file else []
        if agent:
            more += [("IdentityFile", "none"), ("IdentitiesOnly", "no")]
        self._after = _options(more)
        self._certificate = certificate
        self._of_certificate = _options(
            [(name, file_word(value)) for name, value in ssh_options(certificate.directory, certificate.name)]
            if certificate
            else []
        )
        self._common: dict[str, Any] = {
            "ansible_port": port,
            "ansible_ssh_timeout": SSH_TIMEOUT,
            "ansible_ssh_retries": SSH_RETRIES,
            # AWX switches this off for all hosts; here it is what makes the machine at the far end the one that is meant.
            "ansible_ssh_host_key_checking": True,
        }
        if user:
            self._common["ansible_user"] = user
        if private_key_file:
            self._common["ansible_ssh_private_key_file"] = private_key_file

    def variables(self, machine: MachineId, os_type: str | None) -> dict[str, Any]:
        """The connection variables of one machine."""
        resource_id = shlex.quote(str(machine)).replace("'", _QUOTE_IN_QUOTES)
        alias_of_key = shlex.quote(f"HostKeyAlias={machine.key}")
        # aadsshlogin exists for Linux only.
        certificate = None if os_type == "windows" else self._certificate
        more = f" --certificate {certificate.name}" if certificate else ""
        arguments = f"{self._before}{resource_id} --port %p --once{more}' -o {alias_of_key}{self._after}"
        variables = {**self._common, "ansible_host": alias(machine)}
        if certificate:
            arguments += self._of_certificate
            variables["ansible_user"] = certificate.principal
            # Ansible would have the shell expand `~` and the name, which it does not for one with an `@`.
            variables["ansible_remote_tmp"] = "$HOME/.ansible/tmp"
            variables.pop("ansible_ssh_private_key_file", None)
        variables["ansible_ssh_common_args"] = arguments
        if os_type == "windows":
            variables["ansible_shell_type"] = "powershell"
        return variables


def _options(pairs: Iterable[tuple[str, str]]) -> str:
    """Options of ssh as the rest of a command line."""
    return "".join(f" -o {shlex.quote(f'{name}={value}')}" for name, value in pairs)
