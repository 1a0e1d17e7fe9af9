# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Arc machines are there for Ansible, and how does it reach them?

The Ansible side of the inventory: options, cache, names, and what goes into the inventory. Azure is read by `_listing`,
a machine is described by `_hosts`. Reads only; never asks for relay credentials.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: arc_machines
short_description: Azure Arc-enabled servers as an inventory
version_added: 0.1.0
author:
  - arcfleet.ssh contributors (@arcfleet)
description:
  - Lists the Azure Arc-enabled servers (C(Microsoft.HybridCompute/machines), of any kind) that an identity can read,
    over any number of subscriptions, and on request tells Ansible how to reach them with SSH through the Azure relay.
  - The file name of the inventory ends in C(arc.yml), C(arc.yaml), C(arc_machines.yml) or C(arc_machines.yaml).
  - It reads only. It never writes to Azure, and never asks for credentials of the relay.
  - A list that is incomplete is an error, never a short inventory.
extends_documentation_fragment:
  - arcfleet.ssh._azure.plugin
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Marks the file as an inventory of this plugin.
    type: str
    required: true
    choices: [arcfleet.ssh.arc_machines]
  subscriptions:
    description:
      - Ids of the subscriptions whose machines are listed.
      - Without O(subscriptions) and O(management_groups) it is O(subscription_id), and without that everything the
        identity can read.
    type: list
    elements: str
    default: []
  management_groups:
    description:
      - Names of management groups whose machines are listed, in addition to those of O(subscriptions).
      - Needs O(source=resource_graph).
    type: list
    elements: str
    default: []
  resource_groups:
    description: Lists only machines in resource groups of these names.
    type: list
    elements: str
    default: []
  source:
    description:
      - With V(resource_graph), Azure Resource Graph is asked. It answers for 1,000 machines at once, over all
        subscriptions, but may be some minutes behind. It allows about 15 requests in 5 seconds.
      - With V(arm), Azure Resource Manager is asked, subscription by subscription. Its answer is up to date.
    type: str
    choices: [resource_graph, arm]
    default: resource_graph
  filters:
    description:
      - Lists only machines that meet all of these conditions. Each is one text or a list of texts, of which one has
        to match; case does not count, except in O(filters.tags).
      - Azure applies them itself with O(source=resource_graph).
    type: dict
    default: {}
    suboptions:
      status:
        description: Status of the agent, such as V(Connected), V(Disconnected), V(Expired) or V(Error).
        type: list
        elements: str
      os_type:
        description: V(linux) or V(windows).
        type: list
        elements: str
      locations:
        description: Azure regions, such as V(westeurope) or V(West Europe).
        type: list
        elements: str
      kinds:
        description:
          - Kinds of machine, such as V(HCI), V(VMware) or V(SCVMM). The empty text means machines without a kind.
        type: list
        elements: str
      tags:
        description:
          - Names of tags and the value, or list of values, that each must have. A V(null) means any value.
          - Names are compared as they are written.
        type: dict
      where:
        description:
          - One more condition in the language of Resource Graph (KQL), over the columns of its table C(resources).
          - Needs O(source=resource_graph).
        type: str
  extensions:
    description:
      - Whether C(arc_extensions) is filled. This doubles the number of requests to Resource Graph, or more.
      - With O(source=arm), it costs nothing, but holds only what ARM's list tells, which may be V(null).
    type: bool
    default: true
  unreadable_subscriptions:
    description:
      - What to do about one of the O(subscriptions) that the identity cannot read. With O(source=arm) also about one
        whose machines it cannot list.
      - V(skip) leaves it out with a warning.
    type: str
    choices: [fail, skip]
    default: fail
  hostname:
    description:
      - What hosts are called - V(name), V(fqdn), V(vm_id), V(resource_id), or a Jinja template over the host's
        variables, such as V("{{ arc_tags.hostname | default(arc_name\) }}").
      - A machine for which that gives nothing, or something that cannot be a host name, goes by its Azure name.
      - Machines that would share a name are all called C(name.resource-group), and where that is not enough
        C(name.resource-group.subscription), with a warning. So are machines called like a group of O(groups_by), like
        V(all), or like V(localhost).
      - Templates are slow, about 1 s for 2,000 hosts.
    type: str
    default: name
  groups_by:
    description:
      - Groups to make, of V(os_type), V(os_name), V(location), V(resource_group), V(subscription), V(status),
        V(kind), V(agent_version) and V(tag:NAME). Many times faster than O(keyed_groups).
      - Groups are called after the entry and the value, in lower case, with an underscore in place of other
        characters than letters and digits - C(os_type_linux), C(location_westeurope), C(resource_group_arc_prod),
        C(status_connected), C(kind_hci), C(agent_version_1_50) (major and minor version), C(tag_env_prod) for
        V(tag:env). A tag without a value makes the group C(tag_env). A machine that does not have the property is in
        no group of that entry.
    type: list
    elements: str
    default: []
  connection:
    description:
      - With V(relay), hosts get the variables that let plain OpenSSH reach them through the relay - C(ansible_host),
        which becomes an alias of no meaning to DNS, C(ansible_port), C(ansible_user),
        C(ansible_ssh_private_key_file), C(ansible_ssh_common_args), C(ansible_ssh_timeout),
        C(ansible_ssh_retries) and C(ansible_ssh_host_key_checking), which is on whatever the controller's
        configuration says, for Windows also C(ansible_shell_type=powershell). Nothing else has to be set up on
        the controller.
      - With V(none), no such variables are set.
    type: str
    choices: [relay, none]
    default: none
  ssh_auth:
    description:
      - How ssh proves who logs in, with O(connection=relay).
      - With V(key), by a private key - O(ssh_private_key_file), or what ssh finds by itself.
      - With V(agent), by the keys in ssh-agent (E(SSH_AUTH_SOCK)), and no files.
      - With V(entra), Linux machines are logged in to with an SSH certificate of the Entra identity that the login's
        options name, a service principal or a user of C(az login). No key has to be on the machines; they need the
        extension C(AADSSHLoginForLinux) (role P(arcfleet.ssh.arc_entra_login#role)), and the identity one of the
        roles C(Virtual Machine Administrator Login) and C(Virtual Machine User Login). The user name is the
        certificate's first principal in lower case. A certificate lives for about an hour; each connection renews it
        when it ends soon. It is asked for once, when the inventory is read, and lies with its key in
        C($XDG_CACHE_HOME/arcfleet/relay), for this user alone. C(ansible_remote_tmp) becomes C($HOME/.ansible/tmp), as shells
        do not expand C(~) before every such name. Windows machines know no such logins, so that
        O(ssh_user) and O(ssh_private_key_file) apply to them, and to them only.
      - A managed identity gets no certificates, so V(entra) refuses it.
    type: str
    choices: [key, agent, entra]
    default: key
  ssh_user:
    description: The user to log in as, with O(connection=relay). May be a Jinja template.
    type: str
  ssh_port:
    description: The port that the machines' SSH service configuration allows, with O(connection=relay).
    type: int
    default: 22
  ssh_private_key_file:
    description: The private key to log in with, with O(connection=relay). May be a Jinja template.
    type: str
  ssh_known_hosts_file:
    description:
      - The file with the machines' host keys, with O(connection=relay), instead of OpenSSH's usual ones.
      - Host keys are known by the lower-cased resource id.
    type: path
  proxy_binary:
    description:
      - Hand connections over to Microsoft's SSH proxy, with O(connection=relay), instead of the collection's own helper carrying them.
      - The path of the program, or V(find) for the newest one that C(az ssh) has placed in C(~/.clientsshproxy) of the user who
        connects. Nothing is downloaded.
      - It is refused when others than that user and root may change it, and when its name tells a version before 1.3.022941 or none.
      - Such a connection ends when the credentials do that it began with, after three hours at most.
    type: str
  proxy_digest:
    description:
      - The digest of O(proxy_binary), C(sha256:) and 64 hexadecimal digits. Any other program is refused.
    type: str
seealso:
  - name: SSH access to Azure Arc-enabled servers
    description: What has to be set up in Azure and on the machines.
    link: https://learn.microsoft.com/azure/azure-arc/servers/ssh-arc-overview
notes:
  - With O(connection=relay), each SSH connection logs in to Azure by itself. The options of the login that the
    inventory file sets are handed to it, but never a secret. So a file that holds O(secret) or O(oidc_token) is
    refused; have them in the environment, or use a profile, a certificate, workload identity, a managed identity or
    the Azure CLI.
  - C(ansible_ssh_common_args) set in C(group_vars/all) or below an inventory group has no effect on these hosts, as
    variables of a host prevail; use C(ansible_ssh_extra_args) for further arguments.
  - For Windows machines, C(ansible_shell_type=powershell) must agree with the C(DefaultShell) of their OpenSSH
    server.
  - Ansible repeats what ends with ssh's 255, once for these hosts. A task whose connection is lost while it may be running is not sent
    again; the helper refuses the repetition, and the host becomes unreachable.
  - Connections to machines whose agent is not V(Connected) fail after up to three minutes; O(filters.status) leaves
    them out.
  - Ansible itself goes on with an empty inventory when a plugin reports an error. Set
    E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED) to V(true) where that must not happen.
  - Values from Azure, such as tags, are never taken for templates.
"""

EXAMPLES = r"""
# The smallest arc.yml: every machine that the identity in the environment, or of `az login`, can read.
plugin: arcfleet.ssh.arc_machines

---
# Ready for `ansible -i arc.yml all -m ansible.builtin.ping`: connected machines, reached through the relay.
plugin: arcfleet.ssh.arc_machines
filters:
  status: Connected
connection: relay
ssh_user: ops
ssh_private_key_file: ~/.ssh/fleet
groups_by:
  - os_type
  - location
  - tag:env

---
# Without keys: a service principal of the environment, or the user of `az login`, logs in to Linux machines by certificate.
plugin: arcfleet.ssh.arc_machines
filters:
  status: Connected
  os_type: linux
connection: relay
ssh_auth: entra

---
# Production on Linux, over all subscriptions of a management group, without the domain-joined ones.
plugin: arcfleet.ssh.arc_machines
management_groups:
  - production
filters:
  os_type: linux
  tags:
    env: [prod, dr]
    owner: # any value
  where: isempty(properties.adFqdn) and properties.agentVersion !startswith "1.2"
groups_by: [resource_group, status, agent_version]

---
# The truth of the moment, from ARM, for two resource groups; hosts are called after a tag.
plugin: arcfleet.ssh.arc_machines
auth_source: msi
source: arm
subscriptions:
  - 11111111-2222-3333-4444-555555555555
resource_groups: [arc-prod, arc-test]
hostname: "{{ arc_tags.hostname | default(arc_name) }}"

---
# Extra variables and groups as in other inventories, and a cache that survives for an hour.
plugin: arcfleet.ssh.arc_machines
groups_by: [os_type]
compose:
  patch_window: arc_tags.window | default('sunday')
groups:
  agent_too_old: arc_agent_version is version('1.31', '<')
  entra_login: arc_extensions | selectattr('type', 'match', 'AADSSHLogin') | length > 0
keyed_groups:
  - key: arc_os_sku
    prefix: sku
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/arcfleet/inventory
cache_timeout: 3600
"""

import base64
import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible import template
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ..module_utils._auth import AuthOptions, TokenSource
from ..module_utils._errors import ArcError, InputError
from ..module_utils._names import unique_names
from ..module_utils._relay._handover import DIGEST, FIND
from ..plugin_utils._hosts import HOSTNAMES, Certificate, HostVars, Relay, grouping, machine_of
from ..plugin_utils._listing import Listing, Query, from_arm, from_resource_graph

ENDINGS = tuple(f"{name}.{ending}" for name in ("arc", "arc_machines") for ending in ("yml", "yaml"))
HELPER = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "module_utils", "_relay", "_start.py"
)

AUTH_NAMES = tuple(entry.name for entry in dataclasses.fields(AuthOptions))
SECRETS = ("secret", "oidc_token")
SCOPE_NAMES = ("subscriptions", "management_groups", "resource_groups", "filters")
# Part of the cache's key: an entry of another shape must not be taken for one of these.
CACHE_FORMAT = 2

# From ansible-core 2.19 on, a text is a template only if somebody trusts it; before, unless somebody distrusts it.
TRUST_IS_EXPLICIT = hasattr(template, "trust_as_template")


def as_data(value: Any) -> Any:
    """`value`, which came from Azure, so that nothing in it is ever taken for a template."""
    if TRUST_IS_EXPLICIT:
        return value
    from ansible.utils.unsafe_proxy import wrap_var

    return wrap_var(value)


def packed(value: Any) -> str:
    """`value`, which is JSON, as one short text. A cache plugin looks into every part of what is not a text, and copies it."""
    return base64.b64encode(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)).decode("ascii")


def unpacked(text: str) -> Any:
    """What `packed` made a text of; ValueError for any other text."""
    try:
        return json.loads(zlib.decompress(base64.b64decode(text)))
    except zlib.error as exc:
        raise ValueError(str(exc)) from exc


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No search for garbage where none is made: going through ever more objects takes a quarter of an inventory's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The inventory plugin."""

    NAME = "arcfleet.ssh.arc_machines"

    def verify_file(self, path: str) -> bool:
        """Whether the file is ours, by its name."""
        return path.endswith(ENDINGS) and bool(super().verify_file(path))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory, wholly or not at all."""
        super().parse(inventory, loader, path, cache)
        given = self._read_config_data(path)
        try:
            auth = self._auth(given)
            relay = self._relay(auth) if self.get_option("connection") == "relay" else None
            groups = grouping(self.get_option("groups_by"))
            self._check_hostname()
            # Templates do make garbage.
            with contextlib.nullcontext() if self._templates() else collector_paused():
                self._populate(self._hosts(path, auth, cache), groups, relay)
        except ArcError as exc:
            raise AnsibleParserError(str(exc)) from None

    def _auth(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The login's options that the file sets; `AuthOptions` looks at the environment itself, as for modules."""
        return {name: self._templated(name) for name in AUTH_NAMES if given.get(name) is not None}

    def _templated(self, name: str) -> Any:
        try:
            return self.templar.template(self.get_option(name))
        except AnsibleError as exc:
            raise InputError(f"{name}: the template fails: {exc}") from exc

    def _relay(self, auth: Mapping[str, Any]) -> Relay:
        secrets = [name for name in SECRETS if name in auth]
        if secrets:
            raise InputError(
                f"The inventory file holds {' and '.join(secrets)}, which ssh cannot get without others seeing it.",
                hint=(
                    "With connection: relay, keep it in the environment (AZURE_SECRET) or in a profile of "
                    "~/.azure/credentials, or log in with x509_certificate_path, oidc_token_file_path, a managed "
                    "identity (auth_source: msi) or the Azure CLI."
                ),
            )
        login = self.get_option("ssh_auth")
        if login == "agent" and self.get_option("ssh_private_key_file"):
            raise InputError(
                "ssh_auth: agent and ssh_private_key_file exclude each other.", hint="Leave one of them out."
            )
        binary, digest = self.get_option("proxy_binary"), self.get_option("proxy_digest")
        if digest and not (binary and DIGEST.fullmatch(digest)):
            raise InputError(
                "proxy_digest is sha256: and 64 hexadecimal digits, and needs proxy_binary.",
                hint="Write the digest that `sha256sum` tells behind sha256:.",
            )
        return Relay(
            python=sys.executable or "python3",
            helper=HELPER,
            auth={name: str(value) for name, value in auth.items() if value},
            port=self.get_option("ssh_port"),
            user=self.get_option("ssh_user"),
            private_key_file=self.get_option("ssh_private_key_file"),
            known_hosts_file=self.get_option("ssh_known_hosts_file"),
            certificate=self._certificate(auth) if login == "entra" else None,
            agent=login == "agent",
            proxy_binary=os.path.abspath(os.path.expanduser(binary)) if binary and binary != FIND else binary,
            proxy_digest=digest,
        )

    def _certificate(self, auth: Mapping[str, Any]) -> Certificate:
        """The certificate for all hosts, obtained here if there is none that is good: its name for the user is needed."""
        from ..module_utils._relay import _certificates
        from ..module_utils._relay._cache import Cache
        from ..module_utils._relay._login import subject_of
        from ..module_utils._ssh_certificate import check_identity, obtain

        options = AuthOptions.from_params(auth)
        check_identity(options)
        cache = Cache()
        try:
            name = _certificates.name_of(options.identity)
            state = _certificates.ensure(cache, name, subject_of(options), lambda: obtain(options))
            return Certificate(state.principal, cache.directory, name)
        finally:
            cache.close()

    def _templates(self) -> bool:
        extras = (self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        return self.get_option("hostname") not in HOSTNAMES or any(extras)

    def _check_hostname(self) -> None:
        hostname = self.get_option("hostname")
        if hostname not in HOSTNAMES and "{{" not in hostname and "{%" not in hostname:
            raise InputError(f"hostname: {hostname!r} is neither one of {', '.join(HOSTNAMES)} nor a Jinja template.")

    def _hosts(self, path: str, auth: Mapping[str, Any], cache: bool) -> list[HostVars]:
        """The machines' variables; where the cache has them, without any request, not even to log in."""
        source = self.get_option("source")
        scope = {name: self._templated(name) for name in SCOPE_NAMES}
        options = {name: self.get_option(name) for name in ("extensions", "unreadable_subscriptions")}
        login = AuthOptions.from_params(auth)
        query = Query.from_options({**scope, **options, "source": source}, subscription_id=login.subscription_id)
        key = self._key(path, source, query, login)
        caching = self.get_option("cache")
        found = self._cached(key) if caching and cache else None
        if found is None:
            listing = self._fetch(source, query, login)
            found = {"hosts": listing.hosts, "warnings": listing.warnings}
            if caching:
                self._cache[key] = {"packed": packed(found)}
        for warning in found["warnings"]:
            self.display.warning(warning)
        return found["hosts"]  # type: ignore[no-any-return]

    def _cached(self, key: str) -> dict[str, Any] | None:
        try:
            return unpacked(self._cache[key]["packed"])  # type: ignore[no-any-return]
        except (KeyError, TypeError, ValueError):
            return None

    def _key(self, path: str, source: str, query: Query, login: AuthOptions) -> str:
        asked = json.dumps([CACHE_FORMAT, source, dataclasses.asdict(query), login.identity], sort_keys=True)
        return f"{self.get_cache_key(path)}_{hashlib.sha256(asked.encode()).hexdigest()[:16]}"

    def _fetch(self, source: str, query: Query, login: AuthOptions) -> Listing:
        # Only now: importing the Azure libraries takes longer than reading a cache.
        from ..module_utils._arm import MISSING, Arm

        if MISSING is not None:
            raise InputError(
                f"The Python packages for Azure are missing ({MISSING}).",
                hint=f"{sys.executable} -m pip install azure-identity azure-mgmt-core requests",
            )
        arm = Arm(TokenSource(login))
        try:
            return (from_arm if source == "arm" else from_resource_graph)(arm, query)
        finally:
            arm.close()

    def _populate(self, found: Sequence[HostVars], groups: Any, relay: Relay | None) -> None:
        machines = [machine_of(variables) for variables in found]
        hosts = [as_data(variables) for variables in found]
        memberships = [groups(variables) for variables in hosts]
        known = sorted({group for member in memberships for group in member})
        wanted = [(machine, self._wanted_name(variables)) for machine, variables in zip(machines, hosts)]
        names, shared, refused = unique_names(wanted, known)
        self._warn(shared, refused)
        in_group = {group: self.inventory.groups[self.inventory.add_group(group)] for group in known}
        extras = {name: self.get_option(name) for name in ("compose", "groups", "keyed_groups")}
        # Looked up once: from ansible-core 2.19 on, the inventory is a proxy, and each look costs as much as the call.
        add_host, known_hosts = self.inventory.add_host, self.inventory.hosts
        for name, machine, variables, member in zip(names, machines, hosts, memberships):
            host = known_hosts[add_host(name)]
            # One update in place of `set_variable` for each of 20 variables, which takes five times as long.
            host.vars.update(variables)
            if relay:
                host.vars.update(relay.variables(machine, variables["arc_os_type"]))
            for group in member:
                # What `add_child` does after it has looked up both by name.
                in_group[group].add_host(host)
            if any(extras.values()):
                self._construct(host, extras)

    def _wanted_name(self, variables: Mapping[str, Any]) -> str | None:
        hostname = self.get_option("hostname")
        if hostname in HOSTNAMES:
            found: str | None = variables[f"arc_{hostname}"] or variables["arc_name"]
            return found
        self.templar.available_variables = variables
        try:
            return str(self.templar.template(hostname) or "").strip()
        except AnsibleError as exc:
            if self.get_option("strict"):
                raise InputError(f"hostname: the template fails for {variables['arc_resource_id']}: {exc}") from exc
            return None

    def _warn(self, shared: list[str], refused: int) -> None:
        if shared:
            more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
            self.display.warning(
                "These names stand for several machines, a group or the controller, so the resource group was added to "
                f"each of their machines: {', '.join(shared[:5])}{more}. The option `hostname` can tell them apart."
            )
        if refused:
            self.display.warning(
                f"For {refused} machine{'s' if refused > 1 else ''} the option `hostname` gives nothing that can be a "
                "host name; they go by their Azure names."
            )

    def _construct(self, host: Any, extras: Mapping[str, Any]) -> None:
        strict = self.get_option("strict")
        self._set_composite_vars(extras["compose"], host.get_vars(), host.name, strict=strict)
        known = host.get_vars()
        self._add_host_to_composed_groups(extras["groups"], known, host.name, strict=strict, fetch_hostvars=False)
        self._add_host_to_keyed_groups(extras["keyed_groups"], known, host.name, strict=strict, fetch_hostvars=False)
