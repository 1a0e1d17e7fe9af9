# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the check against Azure's API descriptions accept Azure's own examples and find what is wrong?

The descriptions are not part of this repository; without them these tests have nothing to read.
"""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arclab import specs as arclab_specs
from arclab.specs import Specs
from arclab.specs_validate import MAX_ITEMS

SPECS = arclab_specs.load()
needs_specs = pytest.mark.skipif(
    SPECS is None,
    reason="Azure's API descriptions are not here: put them beside the checkout or name them in ARCLAB_SPECS",
)
SUB = "/subscriptions/11111111-1111-1111-1111-111111111111"
MACHINE = f"{SUB}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/web01"
ENDPOINT = f"{MACHINE}/providers/Microsoft.HybridConnectivity/endpoints/default"
SSH = f"{ENDPOINT}/serviceConfigurations/SSH"
CONNECTIVITY = ["2023-03-15", "2024-12-01", "2027-01-01"]
COMPUTE = ["2022-12-27", "2024-07-10", "2025-01-13", "2025-06-01", "2026-07-15"]
ERROR = {"error": {"code": "ResourceNotFound", "message": "It is not there."}}

EXAMPLE_SLIPS = {
    ("Machines_Update.json", "response.id: is not the path of the request"),
    ("HybridIdentityMetadata_Get.json", "response.name: is not the last segment of the id"),
}
"""Where Microsoft's examples contradict their own request or the rule that every resource has id, name and type."""


@pytest.fixture
def specs() -> Specs:
    assert SPECS is not None
    return SPECS


def endpoint_body() -> dict[str, Any]:
    return {
        "id": ENDPOINT,
        "name": "default",
        "type": "microsoft.hybridconnectivity/endpoints",
        "properties": {"type": "default", "provisioningState": "Succeeded"},
    }


def configuration_body() -> dict[str, Any]:
    return {
        "id": SSH,
        "name": "SSH",
        "type": "microsoft.hybridconnectivity/endpoints/serviceConfigurations",
        "properties": {"serviceName": "SSH", "port": 22, "provisioningState": "Succeeded"},
    }


def extension_body() -> dict[str, Any]:
    return {
        "id": f"{MACHINE}/extensions/AADSSHLogin",
        "name": "AADSSHLogin",
        "type": "Microsoft.HybridCompute/machines/extensions",
        "location": "westeurope",
        "properties": {
            "publisher": "Microsoft.Azure.ActiveDirectory",
            "type": "AADSSHLoginForLinux",
            "provisioningState": "Succeeded",
            "settings": {},
        },
    }


def credentials_body() -> dict[str, Any]:
    relay = {
        "namespaceName": "127",
        "namespaceNameSuffix": "0.0.1:1",
        "hybridConnectionName": "c",
        "accessKey": "SharedAccessSignature x",
        "expiresOn": 1,
        "serviceConfigurationToken": "t",
    }
    return {"relay": relay}


def examples() -> Iterator[tuple[Path, str, str, dict[str, str], Any, int, Any]]:
    """Every exchange of the examples that the swagger files name: file, method, path, query, body, status, answer."""
    if SPECS is None:
        return
    for file in sorted(SPECS.root.glob("*/*/*.json")):
        document = json.loads(file.read_text())
        if not isinstance(document, dict) or "swagger" not in document:
            continue
        for template, item in document["paths"].items():
            for method, node in item.items():
                for reference in node.get("x-ms-examples", {}).values():
                    source = file.parent / reference["$ref"]
                    if source.is_file():
                        yield from _exchanges(SPECS, file, source, template, method, node)


def _exchanges(specs: Specs, file: Path, source: Path, template: str, method: str, node: Any) -> Iterator[Any]:
    example = json.loads(source.read_text())
    values = example["parameters"]
    query = {"api-version": json.loads(file.read_text())["info"]["version"]}
    body = None
    for parameter in node.get("parameters", []):
        if "$ref" in parameter:
            _file, parameter = specs.documents.follow(file, parameter["$ref"])
        if parameter["in"] == "body":
            body = values.get(parameter["name"])
        elif parameter["in"] == "query" and parameter["name"] in values:
            query[parameter["name"]] = str(values[parameter["name"]])
    path = re.sub(r"\{(\w+)\}", lambda found: str(values.get(found[1], "x")).strip("/"), template)
    for status, answer in example["responses"].items():
        if status != "default":
            yield source, method.upper(), path, query, body, int(status), answer.get("body")


@needs_specs
def test_microsofts_examples_are_accepted(specs: Specs) -> None:
    count = 0
    unexpected = []
    for source, method, path, query, body, status, answer in examples():
        count += 1
        for sentence in specs.check(method, path, query, body, status, answer):
            secret = sentence.endswith("a secret must never be answered") and "protected" in sentence
            nameless = "ServiceConfigurations" in source.name and sentence.endswith("is missing")
            if not secret and not nameless and (source.name, sentence) not in EXAMPLE_SLIPS:
                unexpected.append(f"{source.parent.parent.name}/{source.name} {status}: {sentence}")
    assert unexpected == [] and count > 100


@needs_specs
@pytest.mark.parametrize("version", CONNECTIVITY)
def test_connectivity_exchanges(specs: Specs, version: str) -> None:
    query = {"api-version": version}
    put = {"properties": {"type": "default"}}
    ssh = {"properties": {"serviceName": "SSH", "port": 22}}
    assert specs.check("GET", ENDPOINT, query, None, 200, endpoint_body()) == []
    assert specs.check("GET", ENDPOINT, query, None, 404, ERROR) == []
    assert specs.check("PUT", ENDPOINT, query, put, 200, endpoint_body()) == []
    assert specs.check("PUT", SSH, query, ssh, 201, configuration_body()) == []
    assert specs.check("PATCH", SSH, query, {"properties": {"port": 23}}, 200, configuration_body()) == []
    assert specs.check("DELETE", ENDPOINT, query, None, 204, None) == []
    listed = {"value": [configuration_body()], "nextLink": None}
    assert specs.check("GET", f"{ENDPOINT}/serviceConfigurations", query, None, 200, listed) == []
    ask = {"serviceName": "SSH"}
    found = specs.check(
        "POST", f"{ENDPOINT}/listCredentials", {**query, "expiresin": "10800"}, ask, 200, credentials_body()
    )
    assert found == []


@needs_specs
@pytest.mark.parametrize("version", CONNECTIVITY)
@pytest.mark.parametrize(
    ("method", "path", "query", "request_body", "status", "answer", "sentence"),
    [
        (
            "PUT",
            ENDPOINT,
            {},
            {"properties": {"type": "default"}},
            201,
            endpoint_body(),
            "status: 201 is not described",
        ),
        (
            "PUT",
            ENDPOINT,
            {},
            {"properties": {"type": "relay"}},
            200,
            endpoint_body(),
            "request.properties.type: must be one of",
        ),
        ("PUT", ENDPOINT, {}, {"properties": {}}, 200, endpoint_body(), "request.properties: lacks type"),
        ("PUT", ENDPOINT, {}, None, 200, endpoint_body(), "request: the body is required"),
        ("PUT", ENDPOINT, {}, {"location": "x"}, 200, endpoint_body(), "request: has unknown properties location"),
        (
            "PUT",
            SSH,
            {},
            {"name": "WAC", "properties": {"serviceName": "SSH", "port": 22}},
            200,
            configuration_body(),
            "request.name: is read-only",
        ),
        (
            "PUT",
            SSH,
            {},
            {"properties": {"serviceName": "SSH", "port": "22"}},
            200,
            configuration_body(),
            "request.properties.port: is string, must be integer",
        ),
        (
            "PATCH",
            SSH,
            {},
            {"properties": {"serviceName": "SSH"}},
            200,
            configuration_body(),
            "has unknown properties serviceName",
        ),
        ("DELETE", ENDPOINT, {}, None, 202, None, "status: 202 is not described"),
        ("DELETE", ENDPOINT, {}, None, 200, {}, "response: 200 is described without a body"),
        ("GET", ENDPOINT, {}, None, 200, None, "response: a body is required"),
        ("GET", ENDPOINT, {"expand": "x"}, None, 200, endpoint_body(), "query: expand is not a parameter"),
        (
            "POST",
            f"{ENDPOINT}/listCredentials",
            {"expiresIn": "ten"},
            None,
            200,
            credentials_body(),
            "must be a number",
        ),
        ("POST", f"{ENDPOINT}/listSecrets", {}, None, 200, {}, "no description has the operation POST"),
        ("GET", ENDPOINT, {}, None, 404, {"code": "x"}, "response: an error answer must have the object 'error'"),
        ("GET", ENDPOINT, {}, None, 404, {"error": {"code": "x"}}, "response.error.message: must be a string"),
        ("GET", ENDPOINT, {}, None, 404, {"error": {**ERROR["error"], "hint": "x"}}, "has unknown properties hint"),
    ],
)
def test_connectivity_violations(
    specs: Specs,
    version: str,
    method: str,
    path: str,
    query: dict[str, str],
    request_body: Any,
    status: int,
    answer: Any,
    sentence: str,
) -> None:
    found = specs.check(method, path, {"api-version": version, **query}, request_body, status, answer)
    assert any(sentence in each for each in found), found


@needs_specs
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": MACHINE}, "response.id: is not the path of the request"),
        ({"name": "other"}, "response.name: is not the last segment"),
        (
            {"type": "Microsoft.HybridConnectivity/endpoint"},
            "response.type: must be microsoft.hybridconnectivity/endpoints",
        ),
        ({"location": "westeurope"}, "response: has unknown properties location"),
        ({"properties": {"type": 1}}, "response.properties.type: is integer, must be string"),
        ({"properties": {}}, "response.properties: lacks type"),
    ],
)
def test_answers_of_resources(specs: Specs, change: dict[str, Any], sentence: str) -> None:
    body = {**endpoint_body(), **change}
    found = specs.check("GET", ENDPOINT, {"api-version": "2023-03-15"}, None, 200, body)
    assert any(sentence in each for each in found), found


@needs_specs
def test_ids_and_types_compare_without_case(specs: Specs) -> None:
    body = {**endpoint_body(), "id": ENDPOINT.lower(), "type": "MICROSOFT.HYBRIDCONNECTIVITY/ENDPOINTS"}
    path = ENDPOINT.replace("machines", "Machines").replace("resourceGroups", "resourcegroups")
    assert specs.check("GET", path, {"Api-Version": "2023-03-15"}, None, 200, body) == []


@needs_specs
def test_the_api_version_is_required(specs: Specs) -> None:
    assert specs.check("GET", ENDPOINT, {}, None, 200, endpoint_body()) == [
        "query: api-version is required, the request was accepted without"
    ]
    assert specs.check("GET", ENDPOINT, {}, None, 400, ERROR) == []


@needs_specs
def test_expiresin_has_bounds_and_a_refused_request_is_not_judged(specs: Specs) -> None:
    path = f"{ENDPOINT}/listCredentials"
    query = {"api-version": "2023-03-15", "expiresin": "10801"}
    found = specs.check("POST", path, query, None, 200, credentials_body())
    assert found == ["query.expiresin: must be between 600 and 10800"]
    assert specs.check("POST", path, query, {"serviceName": 5}, 400, ERROR) == []


@needs_specs
@pytest.mark.parametrize("version", COMPUTE)
def test_compute_exchanges(specs: Specs, version: str) -> None:
    query = {"api-version": version}
    path = f"{MACHINE}/extensions/AADSSHLogin"
    body = extension_body()
    put = {
        "location": "westeurope",
        "properties": {"publisher": "p", "type": "t", "protectedSettings": {"secret": "x"}},
    }
    assert specs.check("PUT", path, query, put, 202, None) == []
    assert specs.check("PUT", path, query, put, 200, body) == []
    assert specs.check("DELETE", path, query, None, 204, None) == []
    assert specs.check("GET", f"{MACHINE}/extensions", query, None, 200, {"value": [body]}) == []
    machine = {
        "id": MACHINE,
        "name": "web01",
        "type": "Microsoft.HybridCompute/machines",
        "location": "westeurope",
        "tags": {"env": "prod"},
        "properties": {"status": "Expired", "agentVersion": "1.40", "lastStatusChange": "2026-01-01T00:00:00.1234567Z"},
        "resources": [body],
    }
    assert specs.check("GET", MACHINE, {**query, "$expand": "instanceView"}, None, 200, machine) == []
    listed = {"value": [machine], "nextLink": f"https://x{MACHINE}?$skiptoken=1"}
    assert specs.check("GET", f"{SUB}/providers/Microsoft.HybridCompute/machines", query, None, 200, listed) == []
    machine["properties"]["lastStatusChange"] = "yesterday"
    found = specs.check("GET", MACHINE, query, None, 200, machine)
    assert found == ["response.properties.lastStatusChange: breaks format date-time"]


@needs_specs
@pytest.mark.parametrize("version", COMPUTE)
def test_secrets_must_not_be_answered_and_never_stand_in_a_sentence(specs: Specs, version: str) -> None:
    body = extension_body()
    body["properties"]["protectedSettings"] = {"password": "hunter2"}
    path = f"{MACHINE}/extensions/AADSSHLogin"
    found = specs.check("GET", path, {"api-version": version}, None, 200, body)
    assert found == ["response.properties.protectedSettings: a secret must never be answered"]
    leaky = {"location": 5, "properties": {"protectedSettings": "hunter2", "settings": {}}}
    found = specs.check("PUT", path, {"api-version": version}, leaky, 200, extension_body())
    assert found and not any("hunter2" in each for each in found)


@needs_specs
def test_versions_differ(specs: Specs) -> None:
    run_command = f"{MACHINE}/runCommands/check"
    body = {
        "id": run_command,
        "name": "check",
        "type": "Microsoft.HybridCompute/machines/runcommands",
        "location": "westeurope",
        "properties": {"provisioningState": "Creating"},
    }
    put = {"location": "westeurope", "properties": {"source": {"script": "true"}}}
    for version in ("2023-10-03-preview", "2024-05-20-preview", "2024-11-10-preview", "2025-01-13", "2026-07-15"):
        assert specs.check("PUT", run_command, {"api-version": version}, put, 201, body) == []
    found = specs.check("PUT", run_command, {"api-version": "2024-07-10"}, put, 201, body)
    assert found == ["api-version 2024-07-10 does not have Microsoft.HybridCompute/machines/runCommands"]
    assert (
        "no description has the operation"
        in specs.check("PUT", run_command, {"api-version": "2022-12-27"}, put, 201, body)[0]
    )
    gone = {"api-version": "2026-07-15"}
    assert specs.check("DELETE", MACHINE, gone, None, 202, None) == []
    assert "status: 200 is not described" in specs.check("DELETE", MACHINE, gone, None, 200, None)[0]
    assert (
        "status: 202 is not described"
        in specs.check("DELETE", MACHINE, {"api-version": "2025-01-13"}, None, 202, None)[0]
    )


@needs_specs
@pytest.mark.parametrize("version", ["2016-02-01", "2021-04-01", "2024-03-01", "2025-04-01"])
def test_providers(specs: Specs, version: str) -> None:
    path = f"{SUB}/providers/Microsoft.HybridConnectivity"
    body = {
        "id": path,
        "namespace": "Microsoft.HybridConnectivity",
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [{"resourceType": "endpoints", "locations": [], "apiVersions": ["2023-03-15"]}],
    }
    query = {"api-version": version}
    assert specs.check("GET", path, query, None, 200, body) == []
    assert specs.check("POST", f"{path}/register", query, None, 200, body) == []
    assert specs.check("GET", f"{SUB}/providers", query, None, 200, {"value": [body]}) == []
    assert specs.check("POST", f"{path}/register", query, None, 202, body) != []


@needs_specs
def test_role_assignments_and_resource_graph(specs: Specs) -> None:
    name = "22222222-2222-2222-2222-222222222222"
    path = f"{MACHINE}/providers/Microsoft.Authorization/roleAssignments/{name}"
    properties = {
        "roleDefinitionId": f"{SUB}/providers/Microsoft.Authorization/roleDefinitions/{name}",
        "principalId": name,
    }
    body = {"id": path, "name": name, "type": "Microsoft.Authorization/roleAssignments", "properties": properties}
    query = {"api-version": "2022-04-01"}
    assert specs.check("PUT", path, query, {"properties": properties}, 201, body) == []
    lacking = {"properties": {"principalId": name}}
    assert specs.check("PUT", path, query, lacking, 201, body) == ["request.properties: lacks roleDefinitionId"]
    listing = path.rpartition("/")[0]
    assert specs.check("GET", listing, {**query, "$filter": "atScope()"}, None, 200, {"value": [body]}) == []
    graph = "/providers/Microsoft.ResourceGraph/resources"
    answer = {"totalRecords": 1, "count": 1, "resultTruncated": "false", "facets": [], "data": [{"id": "x"}]}
    for version in ("2021-03-01", "2022-10-01", "2024-04-01"):
        assert specs.check("POST", graph, {"api-version": version}, {"query": "resources"}, 200, answer) == []
    wrong = {**answer, "resultTruncated": False}
    found = specs.check("POST", graph, {"api-version": "2022-10-01"}, {"query": "resources"}, 200, wrong)
    assert found == ["response.resultTruncated: must be one of true, false"]


@needs_specs
def test_long_lists_are_sampled(specs: Specs) -> None:
    path = f"{MACHINE}/extensions"
    body = {"value": [copy.deepcopy(extension_body()) for _dummy in range(10 * MAX_ITEMS)]}
    for item in body["value"]:
        item["properties"]["publisher"] = 5
    found = specs.check("GET", path, {"api-version": "2025-01-13"}, None, 200, body)
    assert len(found) == MAX_ITEMS


@needs_specs
def test_a_check_takes_less_than_a_millisecond(specs: Specs) -> None:
    query = {"api-version": "2025-01-13"}
    path = f"{MACHINE}/extensions/AADSSHLogin"
    bodies = [{**extension_body(), "tags": {"n": str(number)}} for number in range(200)]
    specs.check("GET", path, query, None, 200, extension_body())
    start = time.process_time()
    for body in bodies:
        specs.check("GET", path, query, None, 200, body)
    assert (time.process_time() - start) / len(bodies) < 0.001


def test_without_descriptions_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert arclab_specs.load(tmp_path) is None


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCLAB_SPECS", str(tmp_path))
    assert arclab_specs.load() is None
    (tmp_path / "Microsoft.HybridConnectivity").mkdir()
    found = arclab_specs.load()
    assert found is not None and found.root == tmp_path
