# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a request and its answer agree with Azure's published API descriptions?

Reads a folder of Azure's swagger files, bicep types and an extract of the SDKs' operations (never part of this
repository; named by `ARCLAB_SPECS` or found beside the checkout) and lists what an exchange violates. Violations name
places and rules, never values, so they may be logged. The best description of an api-version wins: its own swagger,
its bicep types, the nearest swagger.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .specs_schema import ANYTHING, BicepTypes, Documents, Json, SwaggerSchemas, with_formats
from .specs_validate import (
    Query,
    Validator,
    Verdicts,
    check_parameter,
    identity,
    read_only_differences,
    resource_type,
    validator,
)

CHECKOUT = Path(__file__).resolve().parents[3]
_MULTI_SEGMENT = frozenset(("resourceUri", "scope"))
_GENERIC = re.compile(r"^/\{[^/]+\}$|\{resourceProviderNamespace\}/\{")
_PARAMETER = re.compile(r"\{([^}]+)\}")
_PAGING = frozenset(("$skiptoken", "$top"))
_WRITES_RESOURCE = ("GET", "PUT", "PATCH")

_UNDESCRIBED = (
    ("GET", r"/subscriptions"),
    ("GET", r"/subscriptions/[^/]+"),
    ("GET", r"/subscriptions/[^/]+/locations"),
    ("GET", r"/tenants"),
    ("POST", r"/batch"),
    ("GET", r"/subscriptions/[^/]+/providers/microsoft\.insights/eventtypes/management/values"),
    (
        "GET",
        r"/subscriptions/[^/]+/providers/microsoft\.[a-z]+/locations/[^/]+/operation(status|statuses|results)/[^/]+",
    ),
)
"""Operations that ARM has but none of the descriptions here: checked for status, error body and list shape only."""


@dataclass
class Operation:
    """One method on one path template of one description."""

    method: str
    template: str
    pattern: re.Pattern[str]
    home: Path
    statuses: dict[int, Any] = field(default_factory=dict)
    """Success status → swagger schema of the body, or None where there is none."""
    error: Any = None
    body: Any = None
    body_required: bool = False
    queries: dict[str, Query] = field(default_factory=dict)
    literals: int = 0


class _Description:
    """The operations of one namespace and api-version."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.operations: list[Operation] = []

    def find(self, method: str, path: str) -> Operation | None:
        matching = [each for each in self.operations if each.method == method and each.pattern.fullmatch(path)]
        return max(matching, key=lambda each: each.literals, default=None)


@dataclass
class _Plan:
    """All that is needed to check exchanges of one operation in one api-version; made once."""

    operation: Operation
    statuses: dict[int, Any]
    request: Validator | None
    read_only: Json
    answers: dict[int, Validator | None]
    queries: dict[str, Query]
    error: Validator
    is_resource: bool
    is_list: bool
    problem: str | None = None


class Specs:
    """Everything known of Azure's descriptions below `root`. Files are read when a path first needs them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.documents = Documents(root)
        self._verdicts = Verdicts()
        self._swaggers: dict[str, list[_Description]] = {}
        self._sdk: dict[tuple[str, str], _Description] | None = None
        self._bicep: dict[tuple[str, str], BicepTypes | None] = {}
        self._described: dict[tuple[str, str], str] = {}
        self._plan = lru_cache(maxsize=4096)(self._make_plan)

    # -- checking

    def check(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        request_body: Any,
        status: int,
        response_body: Any,
    ) -> list[str]:
        """What this exchange violates (empty: nothing).

        The request is only judged when it was accepted (status < 400): refusing a bad one is what Azure does.
        `request_body` and `response_body` are decoded JSON, None when there was no body.
        """
        path = path.rstrip("/") or "/"
        version = next((value for name, value in query.items() if name.lower() == "api-version"), None)
        if version is None:
            if status < 400:
                return ["query: api-version is required, the request was accepted without"]
            return self._check_error_shape(method, response_body)
        if status in (401, 405, 429) or status >= 500:
            return self._check_error_shape(method, response_body)
        plan = self._plan_for(method, path, version)
        if plan is None:
            return self._check_undescribed(method, path, version, status, response_body)
        if status >= 400:
            found = self._check_error_shape(method, response_body)
            return found or (
                [] if method == "HEAD" else self._verdicts.violations(plan.error, response_body, "response")
            )
        found = [plan.problem] if plan.problem else []
        found += self._check_query(plan, query)
        found += self._check_request(plan, request_body, response_body)
        found += self._check_answer(plan, path, status, response_body)
        return found

    def _check_error_shape(self, method: str, body: Any) -> list[str]:
        if method == "HEAD":
            return []
        error = body.get("error") if isinstance(body, Mapping) else None
        if not isinstance(error, Mapping):
            return ["response: an error answer must have the object 'error'"]
        return [
            f"response.error.{name}: must be a string"
            for name in ("code", "message")
            if not isinstance(error.get(name), str)
        ]

    def _check_undescribed(self, method: str, path: str, version: str, status: int, body: Any) -> list[str]:
        lowered = path.lower()
        if any(method == known and re.fullmatch(pattern, lowered) for known, pattern in _UNDESCRIBED):
            if status >= 400:
                return self._check_error_shape(method, body)
            return [] if body is None or isinstance(body, Mapping) else ["response: must be an object"]
        if status >= 400:
            return self._check_error_shape(method, body)
        return [f"no description has the operation {method} {_anonymous(path)} (api-version {version})"]

    def _check_query(self, plan: _Plan, query: Mapping[str, str]) -> list[str]:
        found = []
        given = {name.lower(): value for name, value in query.items()}
        for name, parameter in plan.queries.items():
            if name not in given:
                if parameter.required:
                    found.append(f"query: {parameter.name} is required")
                continue
            found += check_parameter(parameter, given[name])
        unknown = sorted(set(given) - set(plan.queries) - _PAGING - {"api-version"})
        return found + [f"query: {name} is not a parameter of this operation" for name in unknown]

    def _check_request(self, plan: _Plan, body: Any, answer: Any) -> list[str]:
        if body is None:
            return ["request: the body is required"] if plan.operation.body_required else []
        if plan.request is None:
            return []
        found = self._verdicts.violations(plan.request, body, "request")
        return found + read_only_differences(plan.read_only, body, answer, "request")

    def _check_answer(self, plan: _Plan, path: str, status: int, body: Any) -> list[str]:
        if status not in plan.statuses:
            known = ", ".join(str(code) for code in sorted(plan.statuses))
            return [
                f"status: {status} is not described for {plan.operation.method} {plan.operation.template} ({known})"
            ]
        validator = plan.answers.get(status)
        if body is None:
            return ["response: a body is required"] if validator is not None and status in (200, 201) else []
        if status == 204:
            return ["response: 204 has no body"]
        if validator is None:
            return [f"response: {status} is described without a body"] if status == 200 else []
        found = self._verdicts.violations(validator, body, "response")
        if plan.is_resource:
            found += identity(body, path)
        elif plan.is_list and isinstance(body, Mapping):
            for position, item in enumerate(body.get("value") or []):
                found += [
                    f"response.value[{position}].{name}: is missing"
                    for name in ("id", "name", "type")
                    if name not in item
                ]
        return found

    # -- plans

    def _plan_for(self, method: str, path: str, version: str) -> _Plan | None:
        namespace, template, version = self._route(method, path, version)
        return None if template is None else self._plan(namespace, method, template, version)

    def _route(self, method: str, path: str, asked: str) -> tuple[str, str | None, str]:
        """Namespace, path template and described version of a request.

        A provider itself (`/providers/X`) belongs to Microsoft.Resources.
        """
        _head, found, tail = path.lower().rpartition("/providers/")
        candidates = ["microsoft.resources"]
        if found and "/" in tail:
            candidates.insert(0, tail.partition("/")[0])
        for namespace in candidates:
            version = self._described_version(namespace, asked)
            for description in (self._sdk_for(namespace, version), self._nearest(namespace, version)):
                operation = description.find(method, path) if description else None
                if operation is not None:
                    return namespace, operation.template, version
        return "", None, asked

    def _described_version(self, namespace: str, version: str) -> str:
        """The version itself; for a preview without a description the next described one, which came from it."""
        key = (namespace, version)
        if key not in self._described:
            folder = self._folder(namespace)
            known = {each.name for each in folder.iterdir() if each.is_dir()} if folder else set()
            known |= {each for name, each in self._sdk_descriptions() if name == namespace}
            later = sorted(each for each in known if each > version)
            replaced = version.endswith("-preview") and version not in known and later
            self._described[key] = later[0] if replaced else version
        return self._described[key]

    def _folder(self, namespace: str) -> Path | None:
        return next((each for each in self.root.iterdir() if each.is_dir() and each.name.lower() == namespace), None)

    def _make_plan(self, namespace: str, method: str, template: str, version: str) -> _Plan:
        described = self._nearest(namespace, version)
        sdk = self._sdk_for(namespace, version)
        shape = _shape(template)
        swagger = _same(described, method, shape)
        extract = _same(sdk, method, shape)
        operation = swagger or extract
        if operation is None:
            raise KeyError(template)
        exact = described is not None and described.version == version
        statuses = dict(operation.statuses)
        queries = dict(operation.queries)
        if extract is not None and not exact:
            statuses = {status: operation.statuses.get(status) for status in extract.statuses}
            queries = {**extract.queries, **queries}
        kind = resource_type(template)
        bicep = None if exact else self._bicep_for(namespace, version)
        problem = None
        if bicep is not None and bicep.resources and extract is None and method != "POST" and _is_typed(template):
            known = bicep.resources
            if kind.lower() not in known and kind.lower().count("/") > 1:
                problem = f"api-version {version} does not have {kind}"
        request, read_only = self._request_schema(operation, bicep, kind)
        answers = {status: self._answer_schema(operation, status, statuses, bicep, kind) for status in statuses}
        success = answers.get(200) or answers.get(201) or ANYTHING
        properties = success.get("properties", {})
        is_resource = method in _WRITES_RESOURCE and _is_identified(template, properties)
        items = properties.get("value", {}).get("items", {})
        return _Plan(
            operation=operation,
            statuses=statuses,
            request=validator(request) if request is not None else None,
            read_only=read_only,
            answers={status: validator(schema) if schema is not None else None for status, schema in answers.items()},
            queries=queries,
            error=validator(SwaggerSchemas(self.documents, True).convert(operation.home, operation.error)),
            is_resource=is_resource,
            is_list=method == "GET" and _is_identified(template, items.get("properties", {})),
            problem=problem,
        )

    def _request_schema(self, operation: Operation, bicep: BicepTypes | None, kind: str) -> tuple[Json | None, Json]:
        if bicep is not None and operation.method == "PUT":
            schema = bicep.resource(kind, answers=False)
            if schema is not None:
                return schema, schema
        if operation.body is None:
            return None, ANYTHING
        schema = SwaggerSchemas(self.documents, False).convert(operation.home, operation.body)
        return schema, schema

    def _answer_schema(
        self,
        operation: Operation,
        status: int,
        statuses: Mapping[int, Any],
        bicep: BicepTypes | None,
        kind: str,
    ) -> Json | None:
        node = statuses.get(status)
        if node is None and status in (201, 202) and operation.method in ("PUT", "PATCH"):
            node = statuses.get(200)
        if node is None:
            return None
        schema = SwaggerSchemas(self.documents, True, operation.method == "POST").convert(operation.home, node)
        if bicep is None or operation.method not in _WRITES_RESOURCE:
            return schema
        typed = bicep.resource(kind, answers=True)
        if typed is None:
            return schema
        properties = schema.get("properties", {})
        if "value" in properties and "id" not in properties:
            item = properties["value"].get("items", ANYTHING)
            listed = {**properties["value"], "items": with_formats(_with_children(typed, item, bicep, kind), item)}
            return {**schema, "properties": {**properties, "value": listed}}
        return with_formats(_with_children(typed, schema, bicep, kind), schema)

    # -- descriptions

    def _nearest(self, namespace: str, version: str) -> _Description | None:
        """The namespace's swagger of this version, else the newest older one, else the oldest."""
        described = self._swagger(namespace)
        older = [each for each in described if each.version[:10] <= version[:10]]
        exact = [each for each in described if each.version == version]
        return next(iter(exact or older[-1:] or described[:1]), None)

    def _swagger(self, namespace: str) -> list[_Description]:
        key = namespace.lower()
        if key not in self._swaggers:
            folder = self._folder(key)
            versions = sorted(each for each in folder.iterdir() if each.is_dir()) if folder else []
            found = [self._read_version(each) for each in versions]
            self._swaggers[key] = [each for each in found if each.operations]
        return self._swaggers[key]

    def _read_version(self, folder: Path) -> _Description:
        description = _Description(folder.name)
        for file in sorted(folder.glob("*.json")):
            document = self.documents.load(file)
            if isinstance(document, dict) and "swagger" in document:
                for template, item in document["paths"].items():
                    if not _GENERIC.search(template):
                        description.operations += self._read_path(file, template, item)
        return description

    def _read_path(self, home: Path, template: str, item: Json) -> Iterable[Operation]:
        for method, node in item.items():
            if method == "parameters":
                continue
            operation = _operation(method.upper(), template.rstrip("/"), home)
            for parameter in [*item.get("parameters", []), *node.get("parameters", [])]:
                _home, resolved = (
                    self.documents.follow(home, parameter["$ref"]) if "$ref" in parameter else (home, parameter)
                )
                if resolved["in"] == "body":
                    operation.body = resolved["schema"]
                    operation.body_required = bool(resolved.get("required"))
                elif resolved["in"] == "query" and resolved["name"] != "api-version":
                    operation.queries[resolved["name"].lower()] = Query(
                        resolved["name"], bool(resolved.get("required")), resolved
                    )
            for status, answer in node["responses"].items():
                if status == "default":
                    operation.error = answer.get("schema")
                elif int(status) < 400 or method == "head":
                    operation.statuses[int(status)] = answer.get("schema")
            yield operation

    def _sdk_for(self, namespace: str, version: str) -> _Description | None:
        return self._sdk_descriptions().get((namespace, version))

    def _sdk_descriptions(self) -> dict[tuple[str, str], _Description]:
        if self._sdk is None:
            self._sdk = self._read_sdk()
        return self._sdk

    def _read_sdk(self) -> dict[tuple[str, str], _Description]:
        file = self.root / "derived" / "sdk-operations.json"
        found: dict[tuple[str, str], _Description] = {}
        if not file.is_file():
            return found
        for package in self.documents.load(file).values():
            for node in package["operations"]:
                template = node["path"].rstrip("/")
                if _GENERIC.search(template):
                    continue
                operation = _operation(node["method"], template, file)
                operation.statuses = dict.fromkeys(node["success_codes"])
                operation.queries = {
                    name.lower(): Query(name, False, {}) for name in node["query"] if name != "api-version"
                }
                key = (_namespace_of(template).lower(), node["api_version"])
                found.setdefault(key, _Description(node["api_version"])).operations.append(operation)
        return found

    def _bicep_for(self, namespace: str, version: str) -> BicepTypes | None:
        """Bicep types of this version, else of the newest older one that has some (never a newer one)."""
        key = (namespace.lower(), version)
        if key not in self._bicep:
            files = [
                file
                for file in self.root.glob("*/*/bicep-types.json")
                if file.parent.parent.name.lower() == key[0] and file.parent.name <= version
            ]
            best = max(files, key=lambda file: file.parent.name, default=None)
            newest_swagger = self._nearest(namespace, version)
            if best is None or (newest_swagger is not None and newest_swagger.version > best.parent.name):
                self._bicep[key] = None
            else:
                self._bicep[key] = BicepTypes(self.documents.load(best))
        return self._bicep[key]


def load(path: Path | None = None) -> Specs | None:
    """The descriptions at `path`, at `$ARCLAB_SPECS`, or beside the checkout; None when there are none."""
    named = path or (Path(os.environ["ARCLAB_SPECS"]) if os.environ.get("ARCLAB_SPECS") else None)
    root = named or CHECKOUT.parent / "shared" / "specs"
    return Specs(root) if (root / "Microsoft.HybridConnectivity").is_dir() else None


# -- templates


def _operation(method: str, template: str, home: Path) -> Operation:
    parts = []
    literals = 0
    for segment in template.strip("/").split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            literals += 1
            parts.append(re.escape(segment))
        else:
            parts.append(".+" if parameter.group(1) in _MULTI_SEGMENT else "[^/]+")
    return Operation(method, template, re.compile("/" + "/".join(parts), re.IGNORECASE), home, literals=literals)


def _shape(template: str) -> str:
    return _PARAMETER.sub("{}", template).lower()


def _same(description: _Description | None, method: str, shape: str) -> Operation | None:
    if description is None:
        return None
    return next(
        (each for each in description.operations if each.method == method and _shape(each.template) == shape), None
    )


def _namespace_of(template: str) -> str:
    _head, found, tail = template.rpartition("/providers/")
    name = tail.partition("/")[0] if found else ""
    return "Microsoft.Resources" if not name or name.startswith("{") else name


def _is_typed(template: str) -> bool:
    """Whether the tail of the template alternates types and names, as resources and lists of them do."""
    segments = template.rpartition("/providers/")[2].split("/")[1:]
    types, names = segments[::2], segments[1::2]
    return all(not each.startswith("{") for each in types) and all(each.startswith("{") for each in names)


def _is_identified(template: str, properties: Json) -> bool:
    """Whether answers carry id, name and type; extension metadata below a location has only the id (its examples)."""
    return {"id", "name", "type"} <= set(properties) and "/locations/" not in template


def _anonymous(path: str) -> str:
    """The path without what names an account: ids tell nothing here, and long ones hide the point."""
    return re.sub(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", "…", path)


def _with_children(typed: Json, swagger: Json, bicep: BicepTypes, kind: str) -> Json:
    """A machine's answer lists its extensions in `resources`; bicep types leave such read-only children out."""
    child = swagger.get("properties", {}).get("resources")
    if child is None or "resources" in typed["properties"]:
        return typed
    extension = bicep.resource(f"{kind}/extensions", answers=True)
    listed = {**child, "items": extension} if extension else child
    return {**typed, "properties": {**typed["properties"], "resources": listed}}
