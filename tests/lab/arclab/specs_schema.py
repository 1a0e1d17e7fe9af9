# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which JSON schema must a request or an answer fulfil, according to an Azure API description?

Turns schemas of Azure's swagger files (with `$ref` across files, `allOf`, discriminators and `x-ms-*`) and bicep
types into plain JSON schemas for `jsonschema`. Everything is inlined, since references cost most of the validation
time; a recursive reference accepts anything. Objects that list their properties are closed: a name that Azure does
not have is a fault in a stand-in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Json = dict[str, Any]
ANYTHING: Json = {}
SECRET_MARK = "x-secret"
SECRET: Json = {"type": "null", SECRET_MARK: True}
WRITE_ONLY = frozenset(("protectedSettings", "protectedParameters", "runAsPassword"))
"""Never answered by HybridCompute with a value, though its descriptions do not mark all of them."""

_KEPT = ("minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems", "uniqueItems")
_FORMATS = frozenset(("date-time", "uuid"))


def nullable(schema: Json) -> Json:
    """The same, or null: Azure's own examples answer null for optional properties that have no value."""
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str) and schema["type"] != "null":
        return {**schema, "type": [schema["type"], "null"]}
    return schema


def with_formats(schema: Json, described: Json) -> Json:
    """`schema` with the string formats of `described`, another schema of the same thing: bicep types have none."""
    result = schema
    if "format" in described and "format" not in schema:
        result = {**result, "format": described["format"]}
    if "items" in schema and "items" in described:
        result = {**result, "items": with_formats(schema["items"], described["items"])}
    if "properties" in schema and "properties" in described:
        known = described["properties"]
        properties = {name: with_formats(child, known.get(name, {})) for name, child in schema["properties"].items()}
        result = {**result, "properties": properties}
    return result


class Documents:
    """Swagger files below the specs folder, parsed once, and what a `$ref` points to, also in another file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: dict[Path, Any] = {}

    def load(self, path: Path) -> Any:
        if path not in self._loaded:
            self._loaded[path] = json.loads(path.read_text(encoding="utf-8"))
        return self._loaded[path]

    def follow(self, home: Path, reference: str) -> tuple[Path, Any]:
        """The file and node of a `$ref` found in `home`; paths are the original repository's, hence the re-rooting."""
        file, _dummy, pointer = reference.partition("#")
        target = self._reroot(home, file) if file else home
        if file.endswith("/v1/types.json") and "/v1/" not in target.as_posix():
            pointer = pointer.replace("/ErrorResponse", "/ErrorDetail")  # its name before there was an envelope
        node = self.load(target)
        for part in pointer.strip("/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return target, node

    def _reroot(self, home: Path, file: str) -> Path:
        if "/common-types/" not in file:
            return (home.parent / file).resolve()
        version = file.split("/")[-2]
        kept = self.root / "common-types" / version / "types.json"
        if kept.is_file():
            return kept
        oldest = sorted((self.root / "common-types").iterdir(), key=lambda folder: folder.name)
        return oldest[0] / "types.json"


@dataclass(frozen=True)
class SwaggerSchemas:
    """Converts swagger schemas for requests (`answers` False) or for answers."""

    documents: Documents
    answers: bool
    secrets_allowed: bool = False

    def convert(self, home: Path, node: Any, above: tuple[int, ...] = ()) -> Json:
        if not isinstance(node, dict):
            return ANYTHING
        if "$ref" in node:
            home, node = self.documents.follow(home, node["$ref"])
        if id(node) in above:
            return ANYTHING
        above = (*above, id(node))
        if "enum" in node:
            return self._enum(node)
        kind = node.get("type")
        if kind == "array":
            schema: Json = {"type": "array", "items": self.convert(home, node.get("items"), above)}
        elif kind in ("string", "integer", "number", "boolean"):
            schema = {"type": kind}
            if node.get("format") in _FORMATS:
                schema["format"] = node["format"]
        else:
            return self._object(home, node, above)
        schema.update({key: node[key] for key in _KEPT if key in node})
        return schema

    def _enum(self, node: Json) -> Json:
        extensible = node.get("x-ms-enum", {}).get("modelAsString", True)
        if self.answers and extensible:
            return {"type": "string"}
        return {"enum": list(node["enum"])}

    def _object(self, home: Path, node: Json, above: tuple[int, ...]) -> Json:
        properties: Json = {}
        required: list[str] = []
        additional: Any = None
        is_open = False
        for part_home, part in self._parts(home, node):
            for name, child in part.get("properties", {}).items():
                properties[name] = self._property(part_home, name, child, above)
            required += [name for name in part.get("required", []) if name not in required]
            if isinstance(part.get("additionalProperties"), dict):
                additional = self.convert(part_home, part["additionalProperties"], above)
            is_open = is_open or bool(part.get("additionalProperties")) or "discriminator" in part
        if not properties:
            return {"type": "object", "additionalProperties": additional} if additional else ANYTHING
        if not self.answers:
            required = [name for name in required if not properties[name].get("x-read-only")]
        if self.answers:
            properties = {name: child if name in required else nullable(child) for name, child in properties.items()}
        schema: Json = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        if not is_open:
            schema["additionalProperties"] = False
        elif additional:
            schema["additionalProperties"] = additional
        return schema

    def _parts(self, home: Path, node: Json) -> Iterator[tuple[Path, Json]]:
        """The object itself and, flattened, everything it inherits by `allOf`."""
        for base in node.get("allOf", []):
            base_home = home
            if "$ref" in base:
                base_home, base = self.documents.follow(home, base["$ref"])
            yield from self._parts(base_home, base)
        yield home, node

    def _property(self, home: Path, name: str, node: Json, above: tuple[int, ...]) -> Json:
        if self.answers and not self.secrets_allowed and (node.get("x-ms-secret") or name in WRITE_ONLY):
            return SECRET
        read_only = bool(node.get("readOnly"))
        if "$ref" in node:
            _file, target = self.documents.follow(home, node["$ref"])
            read_only = read_only or bool(target.get("readOnly"))
        if read_only and not self.answers:
            return {"x-read-only": True}
        return self.convert(home, node, above)


class BicepTypes:
    """The resource bodies and functions in a `bicep-types.json`, as JSON schemas."""

    def __init__(self, types: list[Json]) -> None:
        self._types = types

    @cached_property
    def resources(self) -> dict[str, Json]:
        """Body type by lower-cased resource type."""
        found = {}
        for entry in self._types:
            if entry["$type"] == "ResourceType":
                found[entry["name"].partition("@")[0].lower()] = entry["body"]
        return found

    def resource(self, resource_type: str, *, answers: bool) -> Json | None:
        body = self.resources.get(resource_type.lower())
        return None if body is None else self._convert(body, answers, ())

    def _convert(self, reference: Json, answers: bool, above: tuple[int, ...]) -> Json:
        index = int(reference["$ref"].rpartition("/")[2])
        if index in above:
            return ANYTHING
        entry = self._types[index]
        above = (*above, index)
        kind = entry["$type"]
        if kind == "StringType":
            return {
                "type": "string",
                **{key: entry[key] for key in ("minLength", "maxLength", "pattern") if key in entry},
            }
        if kind == "StringLiteralType":
            return {"enum": [entry["value"]]}
        if kind == "IntegerType":
            return {"type": "integer"}
        if kind == "BooleanType":
            return {"type": "boolean"}
        if kind == "ArrayType":
            return {"type": "array", "items": self._convert(entry["itemType"], answers, above)}
        if kind == "UnionType":
            return self._union(entry, answers)
        if kind == "ObjectType":
            return self._object(entry, answers, above)
        return ANYTHING

    def _union(self, entry: Json, answers: bool) -> Json:
        members = [self._types[int(member["$ref"].rpartition("/")[2])] for member in entry["elements"]]
        literals = [member["value"] for member in members if member["$type"] == "StringLiteralType"]
        closed = len(literals) == len(members)
        return {"enum": literals} if literals and (closed or not answers) else {"type": "string"}

    def _object(self, entry: Json, answers: bool, above: tuple[int, ...]) -> Json:
        properties: Json = {}
        required: list[str] = []
        for name, field in entry["properties"].items():
            flags = field["flags"]
            read_only = bool(flags & 2) or (bool(flags & 8) and name in ("id", "name", "type", "apiVersion"))
            if name == "apiVersion" and read_only:
                continue
            if answers and (flags & 4 or name in WRITE_ONLY):
                properties[name] = SECRET
            elif read_only and name in ("id", "name", "type"):
                properties[name] = {"type": "string"} if answers else {"x-read-only": True}
            elif read_only and not answers:
                properties[name] = {"x-read-only": True}
            else:
                properties[name] = self._convert(field["type"], answers, above)
                if flags & 1:
                    required.append(name)
                elif answers:
                    properties[name] = nullable(properties[name])
        additional = entry.get("additionalProperties")
        if not properties:
            extra = self._convert(additional, answers, above) if additional else ANYTHING
            return {"type": "object", "additionalProperties": extra} if extra else ANYTHING
        schema: Json = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        if additional is None:
            schema["additionalProperties"] = False
        return schema
