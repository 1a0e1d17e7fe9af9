# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does anything the lab answers contradict Azure's published API descriptions?

Drives every operation that the lab offers, in every api-version and through its refusals, with plain HTTP; the lab
itself checks each exchange and journals what it violates. Needs the descriptions (see tests/lab/README.md).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

import on_lab
from arclab import specs
from arclab.client import Lab

pytestmark = pytest.mark.skipif(
    specs.load() is None,
    reason="Azure's API descriptions are not here: put them beside the checkout or name them in ARCLAB_SPECS",
)

CONNECTIVITY = ["2021-10-06-preview", "2022-05-01-preview", "2023-03-15", "2023-04-01-preview", "2024-12-01"]
CONNECTIVITY += ["2025-12-01-preview", "2027-01-01"]
MACHINES = ["2022-11-10", "2022-12-27", "2023-10-03-preview", "2024-05-20-preview", "2024-07-10", "2024-11-10-preview"]
MACHINES += ["2025-01-13", "2025-06-01", "2026-07-15"]
RUN_COMMANDS = [one for one in MACHINES if one.endswith("-preview") or one >= "2025"]
RESOURCES = ["2016-02-01", "2021-04-01", "2024-03-01", "2025-04-01"]
GRAPH = ["2019-04-01", "2021-03-01", "2022-10-01", "2024-04-01"]
HCRP = "Microsoft.HybridCompute"
PUBLISHER = "Microsoft.Azure.ActiveDirectory"


class Arm(on_lab.Arm):
    """Plain requests to the lab's ARM, with a token of its default service principal."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.subscription = f"/subscriptions/{lab.env['AZURE_SUBSCRIPTION_ID']}"
        self.machines = [one["id"] for one in lab.machines() if one["status"] == "Connected"]

    def call(self, method: str, path: str, version: str | None, body: Any = None, **query: str) -> requests.Response:
        params = {**query, **({"api-version": version} if version else {})}
        return self.session.request(method, self.lab.url + path, params=params, json=body, timeout=30)

    def expect(self, status: int, method: str, path: str, version: str, body: Any = None, **query: str) -> Any:
        response = self.call(method, path, version, body, **query)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def settled(self, path: str, version: str) -> Any:
        """The resource when its operation is over; None when it is gone."""
        deadline = time.monotonic() + 20
        while True:
            response = self.call("GET", path, version)
            if response.status_code == 404:
                return None
            body = response.json()
            if body["properties"].get("provisioningState") in ("Succeeded", "Failed", "Canceled"):
                return body
            assert time.monotonic() < deadline, f"{path} does not settle"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    options: dict[str, Any] = {"machines": 14, "stopped": 1, "windows": 1, "page_size": 4}
    with Lab.up(tmp_path_factory.mktemp("lab"), operation_seconds=0.2, registration_seconds=0.2, **options) as lab:
        yield Arm(lab)


@pytest.fixture
def arm(shared: Arm) -> Iterator[Arm]:
    """The common lab; afterwards no exchange of the test may have violated a description."""
    shared.lab.clear_journal()
    yield shared
    lines = [line for line in shared.lab.journal() if line["kind"] in ("arm", "graph") and line["principal"]]
    assert lines and all("spec" in line for line in lines), "the lab did not check its exchanges"
    found = {
        f"{line['method']} {line['path']} ({line['api_version']}) {line['status']}: {each}"
        for line in lines
        for each in line["spec"]
    }
    assert sorted(found) == []


def test_the_check_is_alive(arm: Arm) -> None:
    """The checker itself is asked, with an exchange that the lab would never give."""
    loaded = specs.load()
    assert loaded is not None
    arm.expect(200, "GET", arm.machines[0], "2025-01-13")
    assert loaded.check("GET", arm.machines[0], {"api-version": "2025-01-13"}, None, 200, {"id": 5}) != []


@pytest.mark.parametrize("version", MACHINES)
def test_machines(arm: Arm, version: str) -> None:
    machine = arm.machines[0]
    group = machine.rpartition("/providers/")[0]
    arm.expect(200, "GET", machine, version)
    arm.expect(200, "GET", machine, version, **{"$expand": "instanceView"})
    arm.expect(200, "PATCH", machine, version, {"tags": {"version": version}})
    for listing in (f"{group}/providers/{HCRP}/machines", f"{arm.subscription}/providers/{HCRP}/machines"):
        page = arm.expect(200, "GET", listing, version)
        seen = len(page["value"])
        while page.get("nextLink"):
            page = arm.session.get(page["nextLink"], timeout=10).json()
            seen += len(page["value"])
        assert seen >= 1
    arm.expect(200, "GET", f"/providers/{HCRP}/operations", version)
    arm.expect(404, "GET", f"{machine}-absent", version)
    arm.expect(404, "GET", f"{arm.subscription}/resourceGroups/absent/providers/{HCRP}/machines/x", version)
    arm.expect(404, "GET", f"/subscriptions/{uuid.uuid4()}/providers/{HCRP}/machines", version)
    deleted = next(one for one in arm.machines[::-1] if arm.call("GET", one, version).status_code == 200)
    assert arm.call("DELETE", deleted, version).status_code == (202 if version == "2026-07-15" else 200)
    deadline = time.monotonic() + 10
    while arm.call("GET", deleted, version).status_code != 404 and time.monotonic() < deadline:
        time.sleep(0.1)
    arm.expect(204, "DELETE", deleted, version)


@pytest.mark.parametrize("version", MACHINES)
def test_extensions(arm: Arm, version: str) -> None:
    machine = arm.machines[1]
    location = arm.expect(200, "GET", machine, version)["location"]
    path = f"{machine}/extensions/AADSSHLogin"
    properties = {
        "publisher": PUBLISHER,
        "type": "AADSSHLoginForLinux",
        "autoUpgradeMinorVersion": True,
        "settings": {"a": [1, {"b": None}]},
        "protectedSettings": {"secret": "never seen again"},
    }
    body = {"location": location, "properties": properties, "tags": {"a": "b"}}
    response = arm.call("PUT", path, version, body)
    assert response.status_code in (200, 202), response.text
    arm.expect(409, "PUT", path, version, body)
    for header in ("Azure-AsyncOperation", "Location"):
        if header in response.headers:
            assert arm.session.get(response.headers[header], timeout=10).status_code in (200, 202)
    assert arm.settled(path, version)["properties"]["provisioningState"] == "Succeeded"
    for header in ("Azure-AsyncOperation", "Location"):
        if header in response.headers:
            assert arm.session.get(response.headers[header], timeout=10).status_code in (200, 204)
    arm.expect(200, "GET", f"{machine}/extensions", version)
    arm.expect(200, "GET", machine, version, **{"$expand": "instanceView"})
    assert arm.call("PATCH", path, version, {"properties": {"settings": {"c": 1}}}).status_code in (200, 202)
    arm.settled(path, version)
    upgrade = {"extensionTargets": {f"{PUBLISHER}.AADSSHLoginForLinux": {"targetVersion": "1.0"}}}
    assert arm.call("POST", f"{machine}/upgradeExtensions", version, upgrade).status_code in (200, 202, 400)
    arm.settled(path, version)
    assert arm.call("DELETE", path, version).status_code in (200, 202)
    assert arm.settled(path, version) is None
    arm.expect(204, "DELETE", path, version)
    arm.expect(404, "GET", path, version)
    arm.expect(404, "PUT", f"{machine}-absent/extensions/x", version, body)
    assert arm.call("PUT", path, version, {"properties": properties}).status_code == 400
    assert arm.call("PUT", path, version, {"location": location, "properties": []}).status_code == 400
    metadata = f"{arm.subscription}/providers/{HCRP}/locations/{location}/publishers/{PUBLISHER}"
    versions = arm.expect(200, "GET", f"{metadata}/extensionTypes/AADSSHLoginForLinux/versions", version)["value"]
    one = versions[0]["properties"]["version"]
    arm.expect(200, "GET", f"{metadata}/extensionTypes/AADSSHLoginForLinux/versions/{one}", version)


@pytest.mark.parametrize("version", RUN_COMMANDS)
def test_run_commands(arm: Arm, version: str) -> None:
    machine = arm.machines[2]
    path = f"{machine}/runCommands/c-{uuid.uuid4().hex[:8]}"
    properties = {
        "source": {"script": "echo $a; exit 4"},
        "parameters": [{"name": "a", "value": "b"}],
        "protectedParameters": [{"name": "p", "value": "never seen again"}],
        "timeoutInSeconds": 20,
    }
    response = arm.call("PUT", path, version, {"location": "westeurope", "properties": properties})
    if response.status_code == 400:
        location = arm.expect(200, "GET", machine, version)["location"]
        response = arm.call("PUT", path, version, {"location": location, "properties": properties})
    assert response.status_code in (200, 201), response.text
    for header in ("Azure-AsyncOperation", "Location"):
        if header in response.headers:
            assert arm.session.get(response.headers[header], timeout=10).status_code in (200, 202)
    assert arm.settled(path, version)["properties"]["instanceView"] is not None
    arm.expect(200, "GET", f"{machine}/runCommands", version)
    assert arm.call("DELETE", path, version).status_code in (202, 204)
    assert arm.settled(path, version) is None
    arm.expect(204, "DELETE", path, version)
    arm.expect(404, "GET", path, version)


@pytest.mark.parametrize("version", CONNECTIVITY)
def test_endpoints(arm: Arm, version: str) -> None:
    uri = f"{arm.machines[3]}/providers/Microsoft.HybridConnectivity/endpoints"
    path = f"{uri}/default"
    body = {"properties": {"type": "default"}}
    arm.expect(404, "GET", path, version)
    arm.expect(404, "POST", f"{path}/listCredentials", version, {"serviceName": "SSH"}, expiresin="3600")
    created = arm.expect(200, "PUT", path, version, body)
    arm.expect(200, "PUT", path, version, created)
    arm.expect(200, "GET", path, version)
    arm.expect(200, "GET", uri, version)
    arm.expect(200, "PATCH", path, version, body)
    arm.expect(200, "POST", f"{path}/listCredentials", version, expiresin="10800")
    arm.expect(400, "POST", f"{path}/listCredentials", version, expiresin="10801")
    arm.expect(412, "POST", f"{path}/listCredentials", version, {"serviceName": "SSH"})
    assert arm.call("PUT", path, version, {"properties": {"type": "other"}}).status_code == 400
    assert arm.call("PUT", path, version, {}).status_code == 400
    assert arm.call("PUT", path, version).status_code == 400
    if version >= "2023":
        _service_configurations(arm, path, version)
    arm.expect(200, "DELETE", path, version)
    arm.expect(204, "DELETE", path, version)
    arm.expect(200, "GET", "/providers/Microsoft.HybridConnectivity/operations", version)


def _service_configurations(arm: Arm, path: str, version: str) -> None:
    services = f"{path}/serviceConfigurations"
    for name, port in (("SSH", 22), ("WAC", 6516)):
        body = {"properties": {"serviceName": name, "port": port}}
        arm.expect(404, "GET", f"{services}/{name}", version)
        made = arm.expect(201, "PUT", f"{services}/{name}", version, body)
        arm.expect(200, "PUT", f"{services}/{name}", version, made)
        arm.expect(200, "GET", f"{services}/{name}", version)
        arm.expect(200, "PATCH", f"{services}/{name}", version, {"properties": {"port": port + 1}})
    assert len(arm.expect(200, "GET", services, version)["value"]) == 2
    ssh = f"{services}/SSH"
    assert arm.call("PUT", ssh, version, {"properties": {"serviceName": "SSH", "port": "22"}}).status_code == 400
    assert arm.call("PUT", ssh, version, {"properties": {"serviceName": "FTP", "port": 21}}).status_code == 400
    assert arm.call("PATCH", ssh, version, {"properties": {"port": "x"}}).status_code == 400
    arm.expect(200, "POST", f"{path}/listCredentials", version, {"serviceName": "SSH"}, expiresin="600")
    arm.expect(200, "POST", f"{path}/listIngressGatewayCredentials", version, {"serviceName": "WAC"}, expiresin="600")
    proxy = {"service": "127.0.0.1:65035", "serviceName": "WAC"}
    arm.expect(200, "POST", f"{path}/listManagedProxyDetails", version, proxy)
    assert arm.call("POST", f"{path}/listManagedProxyDetails", version, {}).status_code == 400
    arm.expect(200, "DELETE", f"{services}/WAC", version)
    arm.expect(204, "DELETE", f"{services}/WAC", version)


@pytest.mark.parametrize("version", RESOURCES)
def test_resources_and_providers(arm: Arm, version: str) -> None:
    subscription = arm.subscription
    for path in ("/subscriptions", subscription, "/tenants", f"{subscription}/locations"):
        arm.expect(200, "GET", path, version if version != "2016-02-01" else "2016-06-01")
    groups = arm.expect(200, "GET", f"{subscription}/resourcegroups", version)["value"]
    arm.expect(200, "GET", groups[0]["id"], version)
    arm.expect(404, "GET", f"{subscription}/resourcegroups/absent", version)
    chosen = {"$filter": "resourceType eq 'Microsoft.HybridCompute/machines'"}
    arm.expect(200, "GET", f"{subscription}/resources", version, **chosen)
    arm.expect(200, "GET", f"{groups[0]['id']}/resources", version, **chosen)
    arm.expect(200, "GET", f"{subscription}/providers", version)
    arm.expect(200, "GET", "/providers", version)
    arm.expect(200, "GET", "/providers/Microsoft.HybridConnectivity", version)
    provider = f"{subscription}/providers/Microsoft.HybridConnectivity"
    arm.expect(200, "GET", provider, version)
    arm.expect(200, "POST", f"{provider}/unregister", version)
    _until(arm, provider, version, "Unregistered")
    endpoint = f"{arm.machines[0]}/providers/Microsoft.HybridConnectivity/endpoints/default"
    arm.expect(409, "PUT", endpoint, "2023-03-15", {"properties": {"type": "default"}})
    arm.expect(200, "POST", f"{provider}/register", version)
    _until(arm, provider, version, "Registered")


def _until(arm: Arm, provider: str, version: str, state: str) -> None:
    deadline = time.monotonic() + 10
    while arm.expect(200, "GET", provider, version)["registrationState"] != state:
        assert time.monotonic() < deadline, f"the provider did not become {state}"
        time.sleep(0.1)


def test_authorization(arm: Arm) -> None:
    version = "2022-04-01"
    scope = arm.machines[0]
    definitions = f"{scope}/providers/Microsoft.Authorization/roleDefinitions"
    chosen = {"$filter": "roleName eq 'Virtual Machine User Login'"}
    role = arm.expect(200, "GET", definitions, version, **chosen)["value"][0]
    arm.expect(200, "GET", f"{definitions}/{role['name']}", version)
    principal = arm.lab.principal("conformance", actions=["*/read"], scope=arm.subscription)["object_id"]
    assignments = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
    path = f"{assignments}/{uuid.uuid4()}"
    body = {
        "properties": {"roleDefinitionId": role["id"], "principalId": principal, "principalType": "ServicePrincipal"}
    }
    arm.expect(201, "PUT", path, version, body)
    arm.expect(200, "PUT", path, version, body)
    arm.expect(200, "GET", path, version)
    arm.expect(409, "PUT", f"{assignments}/{uuid.uuid4()}", version, body)
    for chosen in ({}, {"$filter": "atScope()"}, {"$filter": f"principalId eq '{principal}'"}):
        arm.expect(200, "GET", assignments, version, **chosen)
        arm.expect(
            200, "GET", f"{arm.subscription}/providers/Microsoft.Authorization/roleAssignments", version, **chosen
        )
    stranger = {"properties": {"roleDefinitionId": role["id"], "principalId": str(uuid.uuid4())}}
    arm.expect(400, "PUT", f"{assignments}/{uuid.uuid4()}", version, stranger)
    arm.expect(200, "DELETE", path, version)
    arm.expect(204, "DELETE", path, version)
    _custom_role(arm, version)


def _custom_role(arm: Arm, version: str) -> None:
    path = f"{arm.subscription}/providers/Microsoft.Authorization/roleDefinitions/{uuid.uuid4()}"
    body = {
        "properties": {
            "roleName": "Arc SSH enabler of a test",
            "description": "For a test.",
            "type": "CustomRole",
            "permissions": [{"actions": ["Microsoft.HybridCompute/machines/read"], "notActions": []}],
            "assignableScopes": [arm.subscription],
        }
    }
    arm.expect(201, "PUT", path, version, body)
    arm.expect(200, "GET", path, version)
    arm.expect(200, "DELETE", path, version)
    arm.expect(204, "DELETE", path, version)


@pytest.mark.parametrize("version", GRAPH)
def test_resource_graph(arm: Arm, version: str) -> None:
    path = "/providers/Microsoft.ResourceGraph/resources"
    query = "resources | where type =~ 'microsoft.hybridcompute/machines' | project id, name, tags | order by id asc"
    scope = {"subscriptions": [arm.lab.env["AZURE_SUBSCRIPTION_ID"]]}
    page = arm.expect(200, "POST", path, version, {"query": query, "options": {"$top": 2}, **scope})
    again = {"query": query, "options": {"$skipToken": page["$skipToken"]}, **scope}
    arm.expect(200, "POST", path, version, again)
    facets = [{"expression": "location"}, {"expression": "nonsense"}]
    arm.expect(200, "POST", path, version, {"query": "resources", "facets": facets, **scope})
    for wanted in ("table", "objectArray"):
        arm.expect(200, "POST", path, version, {"query": query, "options": {"resultFormat": wanted}, **scope})
    for table in ("resourcecontainers", "authorizationresources"):
        arm.expect(200, "POST", path, version, {"query": f"{table} | summarize count() by type"})
    arm.expect(400, "POST", path, version, {"query": "resources | nonsense", **scope})
    arm.expect(400, "POST", path, version, {"options": {}})
    arm.expect(403, "POST", path, version, {"query": query, "subscriptions": [str(uuid.uuid4())]})


@pytest.mark.parametrize("style", ["location", "body"])
def test_other_styles_of_long_running_operations(style: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Lab.up(tmp_path_factory.mktemp("lab"), machines=2, operation_seconds=0.2, lro_style=style) as lab:
        arm = Arm(lab)
        machine = arm.machines[0]
        location = arm.expect(200, "GET", machine, "2025-01-13")["location"]
        path = f"{machine}/extensions/AADSSHLogin"
        body = {"location": location, "properties": {"publisher": PUBLISHER, "type": "AADSSHLoginForLinux"}}
        for version in ("2022-12-27", "2024-07-10", "2025-01-13", "2026-07-15"):
            response = arm.call("PUT", path, version, body)
            assert response.status_code in (200, 202), response.text
            assert ("Location" in response.headers) == (style == "location")
            assert arm.settled(path, version) is not None
            assert arm.call("DELETE", path, version).status_code in (200, 202)
            assert arm.settled(path, version) is None
        assert [each for line in lab.journal() for each in line.get("spec") or []] == []


def test_refusals_of_the_front_door(arm: Arm) -> None:
    machine = arm.machines[0]
    assert arm.call("GET", machine, None).status_code == 400
    assert arm.call("GET", machine, "2001-01-01").status_code == 400
    assert arm.call("PUT", f"{arm.subscription}/providers/{HCRP}/machines", "2025-01-13").status_code in (404, 405)
    assert arm.call("GET", f"{arm.subscription}/nonsense/x", "2025-01-13").status_code in (400, 404)
    url = f"{arm.lab.url}{machine}/extensions/x?api-version=2025-01-13"
    assert arm.session.put(url, data="{", headers={"Content-Type": "application/json"}, timeout=10).status_code == 400
    assert arm.session.put(url, data="{}", headers={"Content-Type": "text/plain"}, timeout=10).status_code == 415
    arm.expect(200, "GET", machine, "2025-01-13")
