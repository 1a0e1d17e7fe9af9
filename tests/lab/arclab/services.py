# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What do the ARM handlers work with?

One object that holds the parts of a lab, and the questions that several providers ask: is the machine there, is there a
page more, is the body what ARM takes.
"""

from __future__ import annotations

import base64
import binascii
import bisect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .activity_log import ActivityLog
from .agent import Agents
from .clock import Clock
from .faults import Faults
from .http import Answer, ArmFailure, Context
from .logins import Logins
from .operations import Operations
from .options import Options
from .relay import Relay
from .ssh_certificates import SshCertificates
from .tokens import Tokens
from .versions import LOCATIONS, location
from .world import World

_KNOWN_MEMBERS = frozenset(
    (
        "id name type location tags properties kind plan sku identity etag managedBy managedByExtended zones "
        "extendedLocation systemData scale placement apiVersion comments"
    )
    .lower()
    .split()
)

_TOKEN = b"after:"


@dataclass
class Services:
    """The parts of a running lab; `spawn` starts a task that ends with it, `logins` are those to machines of their own."""

    options: Options
    clock: Clock
    world: World
    activity: ActivityLog
    operations: Operations
    faults: Faults
    tokens: Tokens
    certificates: SshCertificates
    logins: Logins | None
    agents: Agents
    relay: Relay
    authority: str
    state_dir: Path
    spawn: Callable[[Coroutine[Any, Any, None]], None]

    def machine(self, context: Context, *, parent_of: str | None = None) -> dict[str, Any]:
        """The machine that the request names; `parent_of` a type that is to be written, a missing one is a missing
        parent."""
        path = machine_path(context)
        self.group(context)
        machine = self.world.get(path)
        if machine is None:
            name = context.params["machines"]
            if parent_of is not None:
                raise parent_not_found(parent_of, path)
            raise not_found("Microsoft.HybridCompute/machines", name, context.params.get("group"))
        return machine

    def group(self, context: Context) -> dict[str, Any]:
        """The resource group of the request."""
        name = context.params["group"]
        group = self.world.get(f"/subscriptions/{context.params['subscription']}/resourceGroups/{name}")
        if group is None:
            raise ArmFailure(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
        return group

    def page(self, context: Context, keys: list[str], render: Callable[[str], Any]) -> Answer:
        """One page of a list (`keys` in order), and the address of the next one."""
        start = 0
        if token := query(context, "$skiptoken"):
            start = bisect.bisect_right(keys, read_skip_token(token))
        end = start + self.options.page_size
        body: dict[str, Any] = {"value": [render(key) for key in keys[start:end]]}
        if end < len(keys):
            kept = {name: value for name, value in context.query.items() if name.lower() != "$skiptoken"}
            again = urlencode({**kept, "$skiptoken": skip_token(keys[end - 1])}, safe="$'")
            body["nextLink"] = f"{context.base_url}{context.path}?{again}"
        return Answer(200, body)


def query(context: Context, name: str) -> str | None:
    """A query parameter; ARM does not care for the case of their names."""
    for given, value in context.query.items():
        if given.lower() == name:
            return value
    return None


def skip_token(key: str) -> str:
    """A `$skiptoken`: the next page begins after `key`."""
    return base64.urlsafe_b64encode(_TOKEN + key.encode()).decode()


def read_skip_token(token: str) -> str:
    """The key in a `$skiptoken`; ArmFailure for anything else."""
    try:
        read = base64.urlsafe_b64decode(token.encode())
    except (binascii.Error, ValueError):
        read = b""
    if not read.startswith(_TOKEN):
        raise ArmFailure(400, "InvalidSkipToken", f"The skip token '{token}' is not valid.")
    return read.removeprefix(_TOKEN).decode(errors="replace")


def machine_path(context: Context) -> str:
    """The id of the machine that a request names, as the request spells it."""
    params = context.params
    return (
        f"/subscriptions/{params['subscription']}/resourceGroups/{params['group']}"
        f"/providers/Microsoft.HybridCompute/machines/{params['machines']}"
    )


def not_found(full_type: str, name: str, group: str | None) -> ArmFailure:
    """404 ResourceNotFound in ARM's words; `name` and `full_type` as Azure spells them."""
    return ArmFailure(
        404,
        "ResourceNotFound",
        f"The Resource '{full_type}/{name}' under resource group '{group or '<null>'}' was not found. For more "
        "details please "
        "go to https://aka.ms/ARMResourceNotFoundFix",
    )


def parent_not_found(full_type: str, parent: str) -> ArmFailure:
    return ArmFailure(
        404,
        "ParentResourceNotFound",
        f"Failed to perform 'write' on resource(s) of type '{full_type}', because the parent resource '{parent}' "
        "could not be found.",
    )


def invalid(message: str, target: str | None = None) -> ArmFailure:
    """400 InvalidRequestContent."""
    return ArmFailure(400, "InvalidRequestContent", message, target=target)


def body_of(context: Context) -> dict[str, Any]:
    """The body of a PUT or PATCH: an object with members that ARM knows."""
    body = context.body
    if not isinstance(body, dict):
        raise invalid("The request content was invalid and could not be deserialized: 'A JSON object is required.'.")
    for name in body:
        if name.lower() not in _KNOWN_MEMBERS:
            raise invalid(
                "The request content was invalid and could not be deserialized: 'Could not find member "
                f"'{name}' on object of type 'ResourceDefinition'. Path '{name}', line 1, position {len(name) + 4}.'."
            )
    return body


def properties_of(body: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    """`properties` of a body."""
    properties = body.get("properties")
    if properties is None and not required:
        return {}
    if not isinstance(properties, dict):
        raise invalid("The request content was invalid: 'properties' has to be an object.", "properties")
    return properties


def expect(properties: Mapping[str, Any], name: str, kind: type, *, required: bool = False) -> Any:
    """A property of the type that the schema asks for, `None` if it may be absent and is."""
    value = properties.get(name)
    if value is None:
        if required:
            raise invalid(f"The request content was invalid: property '{name}' is required.", f"properties.{name}")
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = {str: "string", int: "integer", bool: "boolean", dict: "object", list: "array"}[kind]
        raise invalid(
            f"The request content was invalid and could not be deserialized: property '{name}' has to be of type "
            f"{wanted}.",
            f"properties.{name}",
        )
    return value


def check_location(body: Mapping[str, Any], machine: Mapping[str, Any], full_type: str) -> str:
    """The location of a child of a machine: there, known, and the machine's."""
    given = body.get("location")
    if not isinstance(given, str) or not given.strip():
        raise ArmFailure(400, "LocationRequired", "The location property is required for this definition.")
    if location(given) not in LOCATIONS:
        raise ArmFailure(
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location '{given}' is not available for resource type '{full_type}'. List of available "
            "regions "
            f"for the resource type is '{','.join(LOCATIONS)}'.",
        )
    if location(given) != location(machine["location"]):
        raise ArmFailure(
            400,
            "InvalidResourceLocation",
            f"The resource '{machine['name']}' exists in location '{machine['location']}'. A child resource cannot be "
            f"created in location '{given}'. Please use the location of the machine.",
        )
    return str(given)


def check_tags(tags: Any) -> dict[str, str]:
    """Tags as ARM takes them: a flat object of strings, 50 at most."""
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise invalid("The request content was invalid: 'tags' has to be an object of strings.", "tags")
    if len(tags) > 50:
        raise ArmFailure(400, "InvalidTags", "The number of tags exceeds the maximum of 50.")
    return tags
