# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a body, a query parameter or a resource's identity?

Validation by `jsonschema` and the rules that no schema holds: read-only properties, secrets, ids. Sentences name the
place and the rule and never a value, since bodies hold secrets.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import jsonschema  # type: ignore[import-untyped]

from .specs_schema import SECRET_MARK, Json

MAX_ITEMS = 20


class Validator(Protocol):
    """What is used of jsonschema's validators (the package carries no types)."""

    def iter_errors(self, instance: Any) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Query:
    name: str
    required: bool
    schema: Json


def resource_type(template: str) -> str:
    """`Microsoft.X/a/b` of a template that ends in `/providers/Microsoft.X/a/{..}/b` or `…/b/{..}`."""
    namespace, *segments = re.split("/providers/", template, flags=re.IGNORECASE)[-1].split("/")
    return "/".join([namespace, *segments[::2]])


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not re.match(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}", value):
        return False
    try:
        datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper().replace("Z", "+00:00")))
    except ValueError:
        return False
    return True


def _is_uuid(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        return str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def validator(schema: Json) -> Validator:
    checker = jsonschema.FormatChecker(formats=())
    checker.checkers = {"date-time": (_is_date_time, ()), "uuid": (_is_uuid, ())}
    validator: Validator = jsonschema.Draft4Validator(schema, format_checker=checker)
    return validator


class Verdicts:
    """Remembers what was found in a body, by a digest of it: most answers of a lab are given again and again."""

    def __init__(self, most: int = 20000) -> None:
        self.most = most
        self._known: dict[tuple[int, bytes], list[str]] = {}

    def violations(self, validator: Validator, body: Any, where: str) -> list[str]:
        """The sentences about `body`, each beginning with `where` and the place in it."""
        digest = hashlib.blake2b(json.dumps([where, body]).encode(), digest_size=16).digest()
        key = (id(validator), digest)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self.most:
                self._known.clear()
            found = [_sentence(error, where) for error in validator.iter_errors(sampled(body))]
            self._known[key] = found
        return list(found)


def sampled(body: Any) -> Any:
    """A list answer with at most `MAX_ITEMS` of its items, evenly spread: pages of a thousand machines look alike."""
    items = body.get("value") if isinstance(body, dict) else None
    if not isinstance(items, list) or len(items) <= MAX_ITEMS:
        return body
    step = (len(items) - 1) / (MAX_ITEMS - 1)
    return {**body, "value": [items[round(position * step)] for position in range(MAX_ITEMS)]}


def _sentence(error: Any, where: str) -> str:
    place = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    rule = error.validator
    if error.schema.get(SECRET_MARK):
        return f"{place}: a secret must never be answered"
    if rule == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{place}: lacks {', '.join(missing)}"
    if rule == "additionalProperties":
        unknown = sorted(set(error.instance) - set(error.schema.get("properties", {})))
        return f"{place}: has unknown properties {', '.join(unknown)}"
    if rule == "type":
        return f"{place}: is {_kind(error.instance)}, must be {error.validator_value}"
    if rule == "enum":
        return f"{place}: must be one of {', '.join(map(str, error.validator_value))}"
    return f"{place}: breaks {rule} {error.validator_value}"


def _kind(value: Any) -> str:
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def check_parameter(parameter: Query, value: str) -> list[str]:
    schema = parameter.schema
    if schema.get("type") == "integer":
        if not re.fullmatch(r"-?\d+", value):
            return [f"query.{parameter.name}: must be a number"]
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and int(value) < low) or (high is not None and int(value) > high):
            return [f"query.{parameter.name}: must be between {low} and {high}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"query.{parameter.name}: must be one of {', '.join(schema['enum'])}"]
    return []


def read_only_differences(schema: Json, request: Any, answer: Any, where: str) -> list[str]:
    """Read-only properties may be sent back as they were read, not with another value."""
    if not isinstance(request, Mapping) or not isinstance(answer, Mapping):
        return []
    found = []
    for name, child in schema.get("properties", {}).items():
        if name not in request:
            continue
        if child.get("x-read-only"):
            if name in answer and not _alike(request[name], answer[name]) and not _moves(name):
                found.append(f"{where}.{name}: is read-only and differs from the answer")
        else:
            found += read_only_differences(child, request[name], answer.get(name), f"{where}.{name}")
    return found


def _moves(name: str) -> bool:
    """Read-only properties that a write itself changes."""
    return name in ("provisioningState", "systemData", "instanceView", "lastStatusChange", "status")


def _alike(one: Any, other: Any) -> bool:
    return one.lower() == other.lower() if isinstance(one, str) and isinstance(other, str) else bool(one == other)


def identity(body: Any, path: str) -> list[str]:
    """A resource says its own id, name and type; ids compare without case, role definitions live above the scope."""
    if not isinstance(body, Mapping):
        return []
    found = [f"response.{name}: is missing" for name in ("id", "name", "type") if not isinstance(body.get(name), str)]
    if found:
        return found
    if body["id"].rstrip("/").lower() != path.lower() and "/roledefinitions/" not in path.lower():
        found.append("response.id: is not the path of the request")
    if body["name"].lower() != path.rpartition("/")[2].lower():
        found.append("response.name: is not the last segment of the id")
    expected = resource_type(path).lower() if "/providers/" in path.lower() else "microsoft.resources/resourcegroups"
    if body["type"].lower() != expected:
        found.append(f"response.type: must be {expected}")
    return found
