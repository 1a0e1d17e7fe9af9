# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Azure Resource Manager answer to a request?

The order of ARM's front: token, form of the path, api-version, throttling, (faults of the lab), subscription, type and
version, registration of the provider, permission, content, and only then the provider's own handler.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import paths
from .activity_log import ACCEPTED, FAILED, STARTED, SUCCEEDED, Occasion
from .faults import Fault
from .http import Answer, ArmFailure, Context
from .paths import Target, spelled
from .routes import Route, Router
from .services import Services, invalid, not_found
from .throttle import Throttle
from .tokens import Caller
from .versions import ALWAYS_REGISTERED, LOCATIONS, NAMESPACES, REGIONAL, SUPPORTED, newest_first
from .world import MACHINES, ROLE_DEFINITIONS

_VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-[a-z]+)?")
# Lists that are read by POST.
_POSTED = ("microsoft.resourcegraph/resources", "microsoft.resources/batch")
_EXTENDS = "microsoft.hybridconnectivity"
_NAMESPACES = {namespace.lower() for namespace in NAMESPACES}


@dataclass(frozen=True)
class Request:
    """One request as it came in: `path` decoded, header names in any case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False, default=b"")


@dataclass
class Exchange:
    """What the front found out about a request, for the journal and for the faults that strike its answer. `logged`: the
    activity log tells of it."""

    api_version: str = ""
    action: str = ""
    resource_id: str = ""
    caller: Caller | None = None
    body: Any = None
    fault: Fault | None = None
    headers: dict[str, str] = field(default_factory=dict)
    carried_out: bool = False
    logged: bool = True


class Interrupted(Exception):
    """A fault takes the place of the answer: the server carries it out."""


class Arm:
    """The front of ARM."""

    def __init__(self, services: Services, router: Router, throttle: Throttle) -> None:
        self.services = services
        self.router = router
        self.throttle = throttle

    def answer(self, request: Request, now: float, base_url: str, exchange: Exchange) -> Answer:
        """The answer; ArmFailure is one too, Interrupted asks the server to do something else."""
        self.services.operations.settle(now)
        exchange.caller = self.services.tokens.caller(request.headers.get("Authorization"), now)
        return self.answer_for(request, now, base_url, exchange)

    def answer_for(self, request: Request, now: float, base_url: str, exchange: Exchange) -> Answer:
        """As `answer`, for the caller that `exchange` holds already."""
        exchange.api_version = _query(request.query, "api-version") or ""
        if exchange.caller is None:
            raise ArmFailure(401, "AuthenticationFailed", "Authentication failed.")
        target = paths.parse(request.path)
        if target is None:
            raise _no_such_path(request)
        exchange.resource_id = target.key
        if not exchange.api_version:
            raise ArmFailure(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        principal_id = exchange.caller.principal_id
        is_graph = target.namespace.lower() == "microsoft.resourcegraph"
        exchange.headers = self.throttle.take(target.subscription, principal_id, request.method, now)
        self._strike(request, target, exchange, now, "graph" if is_graph else "arm")
        if is_graph:
            exchange.headers.update(self.throttle.take_query(principal_id, now))
        return self.carry_out(request, target, now, base_url, exchange)

    def carry_out(self, request: Request, target: Target, now: float, base_url: str, exchange: Exchange) -> Answer:
        """The answer to a known caller who is not throttled; no fault strikes."""
        if exchange.caller is None:
            raise ArmFailure(401, "AuthenticationFailed", "Authentication failed.")
        self._check_subscription(target, exchange.caller.principal_id, exchange)
        full_type, collection, action = self._type_of(target, request.method)
        self._check_version(target, full_type, exchange.api_version, now)
        routes = self.router.methods(full_type, collection, action)
        if routes is None:
            raise _unknown_type(target, full_type, exchange.api_version)
        method = "GET" if request.method == "HEAD" else request.method
        route = routes.get(method)
        if route is None:
            raise _method_not_allowed(request.method, sorted(routes))
        exchange.action = _action(route, target, full_type)
        occasion = self._occasion(request, target, exchange, exchange.caller)
        try:
            self._check_permission(route, target, full_type, exchange)
            exchange.body = _content(request)
            context = self._context(request, target, full_type, now, base_url, exchange)
            answer = self._handle(route, context, exchange, occasion)
        except ArmFailure as failure:
            self._log(occasion, FAILED, now, failure.status)
            raise
        return answer

    def _context(
        self, request: Request, target: Target, full_type: str, now: float, base_url: str, exchange: Exchange
    ) -> Context:
        return Context(
            method=request.method,
            path=target.path,
            query=request.query,
            body=exchange.body,
            api_version=exchange.api_version,
            principal_id=exchange.caller.principal_id if exchange.caller else "",
            now=now,
            base_url=base_url,
            params=self._params(target, full_type),
        )

    def _handle(self, route: Route, context: Context, exchange: Exchange, occasion: Occasion | None) -> Answer:
        operations = self.services.operations
        operations.failure_of_next = exchange.fault.fail_operation if exchange.fault else None
        operations.occasion_of_next = occasion.to_json() if occasion is not None else None
        try:
            answer = route.handler(context)
            goes_on = occasion is not None and operations.occasion_of_next is None
        finally:
            operations.failure_of_next = operations.occasion_of_next = None
        exchange.carried_out = answer.status < 400
        self._log(occasion, ACCEPTED if goes_on or answer.status == 202 else SUCCEEDED, context.now, answer.status)
        if context.method == "HEAD":
            return Answer(204, None, answer.headers)
        return answer

    # The activity log

    def _occasion(self, request: Request, target: Target, exchange: Exchange, caller: Caller) -> Occasion | None:
        """What the log has about this request, if it keeps it: changes and actions in a subscription, not reads."""
        if target.subscription is None or exchange.action.lower().endswith("/read") or not exchange.logged:
            return None
        correlation_id = request.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4())
        exchange.headers["x-ms-correlation-request-id"] = correlation_id
        return Occasion(
            operation=exchange.action,
            resource_id=target.path if target.tail is None else target.path.rsplit("/", 1)[0],
            caller=caller.app_id,
            principal_id=caller.principal_id,
            method=request.method,
            correlation_id=correlation_id,
            operation_id=str(uuid.uuid4()),
        )

    def _log(self, occasion: Occasion | None, status: str, now: float, http_status: int) -> None:
        if occasion is not None:
            self.services.activity.note(occasion, STARTED, now)
            self.services.activity.note(occasion, status, now, http_status)

    # Faults

    def _strike(self, request: Request, target: Target, exchange: Exchange, now: float, kind: str) -> None:
        if not self.services.faults.rules or exchange.caller is None:
            return
        fault = self.services.faults.take(
            kind=kind,
            method=request.method,
            path=request.path,
            machine=machine_of(target.key),
            principal=exchange.caller.app_id,
        )
        exchange.fault = fault
        if fault is None:
            return
        if fault.revoke_tokens:
            self.services.tokens.revoke(exchange.caller.principal_id, now)
            raise self.services.tokens.challenge(now)
        if fault.expire_token:
            raise self.services.tokens.expired(now, now)
        if fault.when == "before" and (fault.reset or fault.status):
            raise Interrupted

    # What is asked for

    def _check_subscription(self, target: Target, principal_id: str, exchange: Exchange) -> None:
        subscription = target.subscription
        if subscription is None:
            return
        key = f"/subscriptions/{subscription}"
        if key not in self.services.world.resources:
            raise ArmFailure(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
        if not self.services.world.rbac.sees(principal_id, key):
            exchange.action = exchange.action or "Microsoft.Resources/subscriptions/read"
            if exchange.caller is not None:
                raise _forbidden(exchange.caller, exchange.action, key)

    def _type_of(self, target: Target, method: str) -> tuple[str, bool, str | None]:
        """Full type, is it a list, and the name of the action, all in lower case."""
        types = [one.lower() for one in target.types]
        tail = target.tail.lower() if target.tail is not None else None
        namespace = target.namespace.lower()
        if tail is None:
            return "/".join([namespace, *types]), False, None
        listed = "/".join([namespace, *types, tail])
        if method == "POST" and listed not in _POSTED:
            return "/".join([namespace, *types]), False, tail
        return listed, True, None

    def _check_version(self, target: Target, full_type: str, version: str, now: float) -> None:
        namespace = target.namespace.lower()
        if namespace not in _NAMESPACES:
            raise ArmFailure(
                404, "InvalidResourceNamespace", f"The resource namespace '{target.namespace}' is invalid."
            )
        if not _VERSION.fullmatch(version):
            raise ArmFailure(
                400,
                "InvalidApiVersionParameter",
                f"The api-version '{version}' is invalid. The supported versions are "
                f"'{','.join(newest_first(SUPPORTED['microsoft.resources/subscriptions/resourcegroups']))}'.",
            )
        supported = SUPPORTED.get(full_type)
        if supported is None:
            raise _unknown_type(target, full_type, version)
        if version not in supported:
            raise self._unknown_version(target, full_type, version, supported)
        if namespace in REGIONAL and target.subscription and full_type.count("operation") == 0:
            self._check_registration(target.subscription, namespace, now)

    def _unknown_version(self, target: Target, full_type: str, version: str, supported: list[str]) -> ArmFailure:
        namespace, _slash, kind = full_type.partition("/")
        shown = "/".join(spelled(part) for part in kind.split("/"))
        versions = ", ".join(newest_first(supported))
        if namespace == "microsoft.resources":
            return ArmFailure(
                400,
                "InvalidApiVersionParameter",
                f"The api-version '{version}' is invalid. The supported versions are '{versions.replace(' ', '')}'.",
            )
        if namespace in REGIONAL:
            machine = self.services.world.get(_machine_path(target) or "")
            where = machine["location"] if machine else "westeurope"
            return ArmFailure(
                400,
                "NoRegisteredProviderFound",
                f"No registered resource provider found for location '{where}' and API version '{version}' for type "
                f"'{shown}'. "
                f"The supported api-versions are '{versions}'. The supported locations are '{', '.join(LOCATIONS)}'.",
            )
        return _unknown_type(target, full_type, version, supported)

    def _check_registration(self, subscription: str, namespace: str, now: float) -> None:
        if namespace in ALWAYS_REGISTERED:
            return
        if self.services.world.registration(subscription, namespace, now) != "Registered":
            shown = spelled(namespace)
            text = (
                f"The subscription is not registered to use namespace '{shown}'. See https://aka.ms/rps-not-found for "
                "how to "
                "register subscriptions."
            )
            details = [{"code": "MissingSubscriptionRegistration", "target": shown, "message": text}]
            raise ArmFailure(409, "MissingSubscriptionRegistration", text, details=details)

    def _check_permission(self, route: Route, target: Target, full_type: str, exchange: Exchange) -> None:
        caller = exchange.caller
        if caller is None or route.permission == "":
            return
        scope = target.path
        if target.tail is not None:
            scope = target.path.rsplit("/", 1)[0]
            if scope.lower().endswith(f"/providers/{target.namespace.lower()}"):
                scope = target.scope
        if full_type == "microsoft.resources/subscriptions/providers":
            scope = f"/subscriptions/{target.subscription}"
        if self._may_poll(full_type, target, caller) or _is_common(full_type, scope, route.method):
            return
        if not self.services.world.rbac.allowed(caller.principal_id, exchange.action, scope):
            raise _forbidden(caller, exchange.action, scope)

    def _may_poll(self, full_type: str, target: Target, caller: Caller) -> bool:
        """Who started an operation may ask how it ended, whatever its role's scope."""
        if not full_type.startswith("microsoft.hybridcompute/locations/operation"):
            return False
        return self.services.operations.find(target.names[-1]).principal_id == caller.principal_id

    def _params(self, target: Target, full_type: str) -> dict[str, str]:
        """Names by lower-cased type, those of the scope included, and `subscription`, `group`, `scope`."""
        params = {kind.lower(): name for kind, name in zip(target.types, target.names, strict=False)}
        params["scope"] = target.scope
        outer = paths.parse(target.scope) if target.scope else None
        if outer is not None:
            params = {**{kind.lower(): name for kind, name in zip(outer.types, outer.names, strict=False)}, **params}
        if full_type.startswith(_EXTENDS) and not full_type.endswith("/operations"):
            self._check_scope(outer)
        if target.subscription is not None:
            params["subscription"] = target.path.split("/")[2]
        if target.group is not None:
            params["group"] = target.group
        return params

    def _check_scope(self, outer: Target | None) -> None:
        """HybridConnectivity hangs on machines here; whatever else it is asked for does not exist."""
        kind = "/".join([outer.namespace, *outer.types]) if outer is not None else ""
        if outer is None or outer.tail is not None or kind.lower() != MACHINES:
            raise not_found(
                kind or "<null>", outer.names[-1] if outer and outer.names else "", outer.group if outer else None
            )


def _is_common(full_type: str, scope: str, method: str) -> bool:
    """What every identity of the tenant may read."""
    if full_type.endswith("/operations") or full_type == "microsoft.resourcegraph/resources":
        return True
    return full_type == ROLE_DEFINITIONS and not scope and method == "GET"


def machine_of(key: str) -> str | None:
    """The name of the machine in a lower-cased path."""
    _before, found, after = key.partition("/providers/microsoft.hybridcompute/machines/")
    return after.partition("/")[0] if found and after else None


def _machine_path(target: Target) -> str | None:
    name = machine_of(target.key)
    if name is None or target.group is None:
        return None
    return (
        f"/subscriptions/{target.subscription}/resourcegroups/{target.group}"
        f"/providers/microsoft.hybridcompute/machines/{name}"
    )


def _action(route: Route, target: Target, full_type: str) -> str:
    """The name of the operation, as roles hold it."""
    if route.permission:
        return route.permission
    if full_type == "microsoft.resources/subscriptions/providers" and route.action:
        return f"{spelled(target.names[-1])}/{route.action}/action"
    parts = [spelled(part) for part in full_type.split("/")]
    if route.action is not None:
        return "/".join([*parts, spelled(route.action), "action"])
    if full_type == "microsoft.resourcegraph/resources":
        return "Microsoft.ResourceGraph/resources/read"
    return "/".join([*parts, _VERBS.get(route.method, "action")])


def _content(request: Request) -> Any:
    """The body, where there is one: JSON of a JSON content type."""
    if not request.body or request.method in ("GET", "HEAD"):
        return None
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if request.method != "DELETE" and media_type not in ("application/json", "text/json"):
        raise ArmFailure(
            415,
            "UnsupportedMediaType",
            f"The content media type '{media_type or '<null>'}' is not supported. Only 'application/json' is "
            "supported.",
        )
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError) as exc:
        if request.method == "DELETE":
            return None
        raise invalid(
            f"The request content was invalid and could not be deserialized: '{type(exc).__name__}: the content is "
            "not JSON.'."
        ) from exc


def _query(values: Mapping[str, str], name: str) -> str | None:
    for given, value in values.items():
        if given.lower() == name:
            return value
    return None


def _no_such_path(request: Request) -> ArmFailure:
    return ArmFailure(
        404,
        "NotFound",
        f"No HTTP resource was found that matches the request URI path '{request.path}'.",
    )


def _unknown_type(target: Target, full_type: str, version: str, supported: list[str] | None = None) -> ArmFailure:
    _namespace, _slash, kind = full_type.partition("/")
    shown = "/".join(spelled(part) for part in kind.split("/"))
    versions = f" The supported api-versions are '{','.join(newest_first(supported))}'." if supported else ""
    return ArmFailure(
        404,
        "InvalidResourceType",
        f"The resource type '{shown}' could not be found in the namespace '{spelled(target.namespace)}' for api "
        "version "
        f"'{version}'.{versions}",
    )


def _method_not_allowed(method: str, allowed: list[str]) -> ArmFailure:
    return ArmFailure(
        405,
        "MethodNotAllowed",
        f"The requested resource does not support http method '{method}'.",
        headers={"Allow": ", ".join(allowed)},
    )


def _forbidden(caller: Caller, action: str, scope: str) -> ArmFailure:
    return ArmFailure(
        403,
        "AuthorizationFailed",
        f"The client '{caller.app_id}' with object id '{caller.principal_id}' does not have authorization to perform "
        "action "
        f"'{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your "
        "credentials.",
    )
