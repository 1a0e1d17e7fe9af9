# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which subscriptions, resource groups, resources and providers does the caller see?

Microsoft.Resources. Lists hold what the caller has any role for; registration of a provider takes its time, without
headers of a long-running operation: clients poll the GET.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..http import Answer, ArmFailure, Context
from ..paths import spelled
from ..routes import Route
from ..services import Services, query
from ..versions import ALWAYS_REGISTERED, LOCATIONS, NAMESPACES, SUPPORTED, newest_first
from ..world import EXTENSIONS, MACHINES, RUN_COMMANDS

SUBSCRIPTIONS = "microsoft.resources/subscriptions"
GROUPS = "microsoft.resources/subscriptions/resourcegroups"
PROVIDERS = "microsoft.resources/subscriptions/providers"
_LISTED = (MACHINES, EXTENSIONS, RUN_COMMANDS)
_SPELLED = {
    MACHINES: "Microsoft.HybridCompute/machines",
    EXTENSIONS: "Microsoft.HybridCompute/machines/extensions",
    RUN_COMMANDS: "Microsoft.HybridCompute/machines/runCommands",
}
_CONDITION = re.compile(
    r"""\s*(?:
        (?P<name>name|resourceType|location|resourceGroup|tagName|tagValue|tags\['(?P<tag>[^']+)'\])
        \s+(?P<operator>eq|ne)\s+'(?P<value>(?:[^']|'')*)'
      | (?P<function>substringof|startswith)\(\s*(?P<first>'(?:[^']|'')*'|name|resourceGroup)\s*,
        \s*(?P<second>'(?:[^']|'')*'|name|resourceGroup)\s*\)
    )\s*""",
    re.VERBOSE | re.IGNORECASE,
)


class Resources:
    """Everything that hangs on no provider of its own."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.world = services.world

    def routes(self) -> list[Route]:
        resources = "microsoft.resources/subscriptions/resources"
        return [
            Route("GET", SUBSCRIPTIONS, self.list_subscriptions, collection=True, permission=""),
            Route("GET", SUBSCRIPTIONS, self.get_subscription, permission=""),
            Route("GET", "microsoft.resources/subscriptions/locations", self.list_locations, collection=True),
            Route("GET", "microsoft.resources/tenants", self.list_tenants, collection=True, permission=""),
            Route("GET", GROUPS, self.list_groups, collection=True, permission=""),
            Route("GET", GROUPS, self.get_group),
            Route("GET", resources, self.list_resources, collection=True, permission=""),
            Route("GET", f"{GROUPS}/resources", self.list_resources, collection=True, permission=""),
            Route("GET", PROVIDERS, self.list_providers, collection=True),
            Route("GET", PROVIDERS, self.get_provider),
            Route("POST", PROVIDERS, self.register, action="register"),
            Route("POST", PROVIDERS, self.unregister, action="unregister"),
            Route("GET", "microsoft.resources/providers", self.list_providers, collection=True, permission=""),
            Route("GET", "microsoft.resources/providers", self.get_provider, permission=""),
        ]

    # Subscriptions and groups

    def list_subscriptions(self, context: Context) -> Answer:
        rbac = self.world.rbac
        keys = [key for key in self.world.of_type("subscriptions") if rbac.sees(context.principal_id, key)]
        value = [self.world.resources[key] for key in keys]
        return Answer(200, {"value": value, "count": {"type": "Total", "value": len(value)}})

    def get_subscription(self, context: Context) -> Answer:
        return Answer(200, self.world.resources[f"/subscriptions/{context.params['subscription'].lower()}"])

    def list_locations(self, context: Context) -> Answer:
        scope = f"/subscriptions/{context.params['subscription']}"
        value = [
            {
                "id": f"{scope}/locations/{name}",
                "name": name,
                "type": "Region",
                "displayName": shown,
                "regionalDisplayName": shown,
                "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
            }
            for name, shown in LOCATIONS.items()
        ]
        return Answer(200, {"value": value})

    def list_tenants(self, context: Context) -> Answer:
        tenant = self.world.tenant
        value = [
            {
                "id": f"/tenants/{tenant}",
                "tenantId": tenant,
                "tenantCategory": "Home",
                "displayName": "Arc lab",
                "countryCode": "NL",
                "domains": ["arclab.onmicrosoft.example"],
                "defaultDomain": "arclab.onmicrosoft.example",
                "tenantType": "AAD",
            }
        ]
        return Answer(200, {"value": value})

    def list_groups(self, context: Context) -> Answer:
        test = _tag_filter(query(context, "$filter"))
        scope = f"/subscriptions/{context.params['subscription']}"
        keys = [
            key
            for key in self.world.children(scope, "groups")
            if self.world.rbac.sees(context.principal_id, key) and test(self.world.resources[key])
        ]
        return self.services.page(context, keys, lambda key: self.world.resources[key])

    def get_group(self, context: Context) -> Answer:
        return Answer(200, self.services.group(context))

    # Resources

    def list_resources(self, context: Context) -> Answer:
        """The tracked resources of a subscription or group; `$filter` as the resources API documents it."""
        scope = f"/subscriptions/{context.params['subscription']}"
        if "group" in context.params:
            scope = self.services.group(context)["id"]
        test = parse_filter(query(context, "$filter"))
        keys = []
        for machine in self.world.children(scope, MACHINES):
            for key in (
                machine,
                *self.world.children(machine, EXTENSIONS),
                *self.world.children(machine, RUN_COMMANDS),
            ):
                if test(_listed(key, self.world.resources[key])) and self._readable(context, key):
                    keys.append(key)
        keys.sort()
        top = query(context, "$top")
        if top is not None:
            if not top.isdigit() or int(top) < 1:
                raise ArmFailure(400, "InvalidTopParameter", f"The value '{top}' of $top is not a positive integer.")
            keys = keys[: int(top)]
        return self.services.page(context, keys, lambda key: _listed(key, self.world.resources[key]))

    def _readable(self, context: Context, key: str) -> bool:
        kind = RUN_COMMANDS if "/runcommands/" in key else EXTENSIONS if "/extensions/" in key else MACHINES
        return self.world.rbac.allowed(context.principal_id, f"{kind}/read", key)

    # Providers

    def _provider(self, context: Context, namespace: str) -> dict[str, Any]:
        subscription = context.params.get("subscription")
        types = [
            {
                "resourceType": _spelled_type(full_type.partition("/")[2]),
                "locations": list(LOCATIONS.values()),
                "apiVersions": newest_first(versions),
                "capabilities": "None",
            }
            for full_type, versions in SUPPORTED.items()
            if full_type.partition("/")[0] == namespace.lower()
        ]
        body: dict[str, Any] = {"namespace": namespace, "resourceTypes": types}
        if subscription is None:
            return body
        registered = namespace.lower() in ALWAYS_REGISTERED
        return {
            "id": f"/subscriptions/{subscription}/providers/{namespace}",
            **body,
            "registrationState": self.world.registration(subscription.lower(), namespace.lower(), context.now),
            "registrationPolicy": "RegistrationFree" if registered else "RegistrationRequired",
        }

    def _namespace(self, context: Context) -> str:
        wanted = context.params["providers"]
        for namespace in NAMESPACES:
            if namespace.lower() == wanted.lower():
                return namespace
        raise ArmFailure(404, "InvalidResourceNamespace", f"The resource namespace '{wanted}' is invalid.")

    def list_providers(self, context: Context) -> Answer:
        return Answer(200, {"value": [self._provider(context, namespace) for namespace in NAMESPACES]})

    def get_provider(self, context: Context) -> Answer:
        return Answer(200, self._provider(context, self._namespace(context)))

    def register(self, context: Context) -> Answer:
        return self._change(context, "Registering", "Registered")

    def unregister(self, context: Context) -> Answer:
        return self._change(context, "Unregistering", "Unregistered")

    def _change(self, context: Context, through: str, to: str) -> Answer:
        namespace, subscription = self._namespace(context), context.params["subscription"].lower()
        if namespace.lower() not in ALWAYS_REGISTERED:
            now = self.world.registration(subscription, namespace.lower(), context.now)
            if now not in (through, to):
                until = context.now + self.services.options.registration_seconds
                self.world.set_registration(subscription, namespace.lower(), through, until)
        return Answer(200, self._provider(context, namespace))


def _spelled_type(lowered: str) -> str:
    return "/".join(spelled(part) for part in lowered.split("/"))


def _listed(key: str, body: dict[str, Any]) -> dict[str, Any]:
    """A resource as the generic lists show it: without its properties."""
    kind = RUN_COMMANDS if "/runcommands/" in key else EXTENSIONS if "/extensions/" in key else MACHINES
    shown = {name: body[name] for name in ("id", "location", "tags", "kind", "identity") if body.get(name)}
    name = body["name"] if kind == MACHINES else f"{body['id'].split('/')[8]}/{body['name']}"
    return {**shown, "name": name, "type": _SPELLED[kind]}


Test = Callable[[dict[str, Any]], bool]


def _tag_filter(text: str | None) -> Test:
    """Groups can be filtered by tag only."""
    if text and "tagname" not in text.lower() and "tagvalue" not in text.lower():
        raise _invalid_filter(text)
    return parse_filter(text)


def _invalid_filter(text: str) -> ArmFailure:
    return ArmFailure(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified in the query string.")


def parse_filter(text: str | None) -> Test:
    """`$filter` of a resource list: comparisons and functions joined by `and` and `or`, `or` binding less."""
    if not text:
        return lambda _resource: True
    alternatives: list[list[Test]] = [[]]
    position = 0
    while True:
        match = _CONDITION.match(text, position)
        if match is None:
            raise _invalid_filter(text)
        alternatives[-1].append(_condition(match, text))
        position = match.end()
        if position == len(text):
            break
        joined = re.compile(r"(and|or)\b", re.IGNORECASE).match(text, position)
        if joined is None:
            raise _invalid_filter(text)
        position = joined.end()
        if joined[1].lower() == "or":
            alternatives.append([])
    return lambda resource: any(all(test(resource) for test in tests) for tests in alternatives)


def _condition(match: re.Match[str], text: str) -> Test:
    if match["function"]:
        first, second = match["first"], match["second"]
        if match["function"].lower() == "substringof":
            if not first.startswith("'") or second.startswith("'"):
                raise _invalid_filter(text)
            needle, field = first[1:-1].lower(), second
            return lambda resource: needle in _value(resource, field)
        if first.startswith("'") or not second.startswith("'"):
            raise _invalid_filter(text)
        start, field = second[1:-1].lower(), first
        return lambda resource: _value(resource, field).startswith(start)
    wanted = match["value"].replace("''", "'").lower()
    negated = match["operator"].lower() == "ne"
    name = match["name"].lower()
    if match["tag"]:
        tag = match["tag"]
        return lambda resource: (str((resource.get("tags") or {}).get(tag, "")).lower() == wanted) != negated
    if name == "tagname":
        return lambda resource: (wanted in map(str.lower, resource.get("tags") or {})) != negated
    if name == "tagvalue":
        return lambda resource: (wanted in map(str.lower, (resource.get("tags") or {}).values())) != negated
    return lambda resource: (_value(resource, name) == wanted) != negated


def _value(resource: dict[str, Any], name: str) -> str:
    match name.lower():
        case "resourcetype":
            return str(resource["type"]).lower()
        case "resourcegroup":
            return str(resource["id"]).split("/")[4].lower()
        case other:
            return str(resource[other]).lower()
