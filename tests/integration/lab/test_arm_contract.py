# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab's ARM answer with the statuses and bodies of the contract?

Raw requests, no SDK: what is checked here is the wire. The reference is the contract of the Azure operations that the collection
uses; whatever it calls unknown is checked only as far as the lab's README says what the lab chose.
"""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from arclab.client import Lab, LabFailed, running_pid

COMPUTE, CONNECTIVITY, AUTHORIZATION, RESOURCES = "2025-01-13", "2023-03-15", "2022-04-01", "2021-04-01"
OPERATION_SECONDS = 0.6
SSH = {"properties": {"serviceName": "SSH", "port": 22}}
DEFAULT = {"properties": {"type": "default"}}


class Client:
    """A client of one lab as one principal."""

    def __init__(self, lab: Lab, env: dict[str, str] | None = None) -> None:
        self.lab = lab
        self.env = env or lab.env
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = self.env["REQUESTS_CA_BUNDLE"]
        self.subscription = f"/subscriptions/{self.env['AZURE_SUBSCRIPTION_ID']}"
        self.log_in()

    def login(self, *, tenant: str | None = None, v2: bool = True, **form: str) -> requests.Response:
        wanted = {
            "grant_type": "client_credentials",
            "client_id": self.env["AZURE_CLIENT_ID"],
            "client_secret": self.env["AZURE_SECRET"],
            "scope": f"{self.lab.url}/.default",
            **form,
        }
        path = "oauth2/v2.0/token" if v2 else "oauth2/token"
        address = f"{self.lab.url}/{tenant or self.env['AZURE_TENANT']}/{path}"
        data = {name: value for name, value in wanted.items() if value}
        return self.session.post(address, data=data, headers={"Authorization": ""})

    def log_in(self, **form: str) -> None:
        self.session.headers["Authorization"] = f"Bearer {self.login(**form).json()['access_token']}"

    def ask(
        self, method: str, path: str, version: str | None = COMPUTE, body: Any = None, **more: Any
    ) -> requests.Response:
        query = {**({"api-version": version} if version else {}), **more.pop("query", {})}
        address = path if path.startswith("https://") else self.lab.url + path
        return self.session.request(method, address, params=query, json=body, **more)

    def machine(self, name: str) -> str:
        return str(self.lab.machine(name)["id"])


def code(response: requests.Response) -> tuple[int, str]:
    """Status and error code; the body has to be ARM's error response."""
    error = response.json()["error"]
    assert set(error) <= {"code", "message", "target", "details", "additionalInfo"}
    assert error["message"]
    return response.status_code, error["code"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.up(
        tmp_path_factory.mktemp("contract") / "state",
        machines=9,
        stopped=1,
        old_agents=1,
        windows=1,
        page_size=4,
        operation_seconds=OPERATION_SECONDS,
        registration_seconds=0.2,
    ) as found:
        yield found


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    yield Client(lab)
    lab.clear_faults()


@pytest.fixture
def machine(client: Client) -> Iterator[str]:
    """A connected machine without any of our resources."""
    path = client.machine("web01")
    yield path
    client.ask("DELETE", endpoint(path), CONNECTIVITY)
    for kind in ("extensions", "runCommands"):
        for one in client.ask("GET", f"{path}/{kind}").json()["value"]:
            client.ask("DELETE", one["id"])
    until(
        lambda: not any(client.ask("GET", f"{path}/{kind}").json()["value"] for kind in ("extensions", "runCommands"))
    )


def endpoint(machine: str) -> str:
    return f"{machine}/providers/Microsoft.HybridConnectivity/endpoints/default"


def configuration(machine: str) -> str:
    return f"{endpoint(machine)}/serviceConfigurations/SSH"


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


class TestFront:
    """What ARM checks before any provider is asked."""

    def test_headers_of_every_answer(self, client: Client) -> None:
        headers = {"x-ms-client-request-id": "abc", "x-ms-return-client-request-id": "true"}
        answer = client.ask("GET", "/subscriptions", "2022-12-01", headers=headers)
        assert {"x-ms-request-id", "x-ms-correlation-request-id", "Date"} <= set(answer.headers)
        assert answer.headers["x-ms-client-request-id"] == "abc"
        assert answer.headers["x-ms-ratelimit-remaining-tenant-reads"].isdigit()
        silent = client.ask("GET", "/subscriptions", "2022-12-01", headers={"x-ms-client-request-id": "abc"})
        assert "x-ms-client-request-id" not in silent.headers

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            (None, "AuthenticationFailed"),
            ("Basic eDp5", "AuthenticationFailedInvalidHeader"),
            ("Bearer nonsense", "InvalidAuthenticationToken"),
        ],
    )
    def test_a_bad_token_is_401(self, client: Client, value: str | None, wanted: str) -> None:
        answer = client.ask("GET", "/subscriptions", "2022-12-01", headers={"Authorization": value})
        assert code(answer) == (401, wanted)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]

    def test_a_token_of_another_signer_is_401(self, client: Client) -> None:
        claims = {"aud": client.lab.url, "oid": "x", "appid": "x", "exp": time.time() + 600, "uti": "x"}
        token = jwt.encode(claims, "k" * 32, algorithm="HS256")
        answer = client.ask("GET", "/subscriptions", "2022-12-01", headers={"Authorization": f"Bearer {token}"})
        assert code(answer) == (401, "InvalidAuthenticationToken")

    def test_a_token_for_another_audience_is_401(self, client: Client) -> None:
        client.log_in(scope="https://graph.microsoft.com/.default")
        assert code(client.ask("GET", "/subscriptions", "2022-12-01")) == (401, "InvalidAuthenticationTokenAudience")

    @pytest.mark.parametrize(
        ("method", "path", "version", "wanted"),
        [
            ("GET", "/foo", COMPUTE, (404, "NotFound")),
            ("GET", "/subscriptions", None, (400, "MissingApiVersionParameter")),
            ("GET", "/subscriptions", "yesterday", (400, "InvalidApiVersionParameter")),
            ("GET", "/subscriptions/00000000-0000-0000-0000-000000000000", "2022-12-01", (404, "SubscriptionNotFound")),
            ("GET", "{s}/resourceGroups/none", RESOURCES, (404, "ResourceGroupNotFound")),
            ("GET", "{s}/providers/Microsoft.Nope/things", COMPUTE, (404, "InvalidResourceNamespace")),
            ("GET", "{s}/providers/Microsoft.HybridCompute/nopes", COMPUTE, (404, "InvalidResourceType")),
            ("PUT", "{s}/providers/Microsoft.HybridCompute/machines", COMPUTE, (405, "MethodNotAllowed")),
            ("GET", "{m}", "2000-01-01", (400, "NoRegisteredProviderFound")),
            ("GET", "{m}/runCommands", "2024-07-10", (400, "NoRegisteredProviderFound")),
            ("GET", "{m}x", COMPUTE, (404, "ResourceNotFound")),
            ("GET", "{m}/extensions/none", COMPUTE, (404, "ResourceNotFound")),
        ],
    )
    def test_what_is_not_there(
        self, client: Client, machine: str, method: str, path: str, version: str | None, wanted: tuple[int, str]
    ) -> None:
        path = path.format(s=client.subscription, m=machine)
        assert code(client.ask(method, path, version, {} if method == "PUT" else None)) == wanted

    def test_an_unknown_version_names_the_known_ones(self, client: Client, machine: str) -> None:
        message = client.ask("GET", endpoint(machine), "2019-01-01").json()["error"]["message"]
        assert message.startswith("No registered resource provider found for location 'westeurope' and API version")
        assert "2027-01-01, 2025-12-01-preview, 2024-12-01" in message

    def test_content_has_to_be_json(self, client: Client, machine: str) -> None:
        as_text = client.ask("PUT", endpoint(machine), CONNECTIVITY, data="{}", headers={"Content-Type": "text/plain"})
        assert code(as_text) == (415, "UnsupportedMediaType")
        json_type = {"Content-Type": "application/json"}
        broken = client.ask("PUT", endpoint(machine), CONNECTIVITY, data="{", headers=json_type)
        assert code(broken) == (400, "InvalidRequestContent")
        empty = client.ask("PUT", endpoint(machine), CONNECTIVITY, headers=json_type)
        assert code(empty) == (400, "InvalidRequestContent")

    def test_paths_are_compared_without_case(self, client: Client, machine: str) -> None:
        shouted = machine.upper().replace("/PROVIDERS/", "/providers/")
        assert client.ask("GET", shouted).json()["name"] == "web01"

    def test_head_tells_whether_something_exists(self, client: Client, machine: str) -> None:
        assert client.ask("HEAD", machine).status_code == 204
        assert client.ask("HEAD", machine + "x").status_code == 404


class TestEntra:
    """Tokens and refusals of the login side."""

    def test_v2_and_v1_tokens(self, client: Client) -> None:
        v2 = client.login().json()
        assert (v2["token_type"], v2["expires_in"]) == ("Bearer", 3599)
        v1 = client.login(v2=False, scope="", resource="https://management.core.windows.net/").json()
        assert v1["resource"] == "https://management.core.windows.net/"
        assert isinstance(v1["expires_on"], str)
        claims = jwt.decode(v2["access_token"], options={"verify_signature": False})
        assert {"aud", "iss", "oid", "appid", "tid", "exp"} <= set(claims)
        assert jwt.get_unverified_header(v2["access_token"])["alg"] == "RS256"

    @pytest.mark.parametrize(
        ("form", "wanted"),
        [
            ({"client_secret": "wrong"}, (401, "invalid_client", 7000215)),
            ({"client_secret": ""}, (401, "invalid_client", 7000216)),
            ({"client_id": "00000000-0000-0000-0000-000000000000"}, (400, "unauthorized_client", 700016)),
            ({"scope": "https://nobody.example/.default"}, (400, "invalid_resource", 500011)),
            ({"scope": "https://management.azure.com/user_impersonation"}, (400, "invalid_scope", 1002012)),
            ({"grant_type": "password"}, (400, "unsupported_grant_type", 70003)),
            ({"grant_type": ""}, (400, "invalid_request", 900144)),
            ({"tenant": "00000000-0000-0000-0000-000000000000"}, (400, "invalid_request", 90002)),
        ],
    )
    def test_refusals(self, client: Client, form: dict[str, str], wanted: tuple[int, str, int]) -> None:
        answer = client.login(**form)
        body = answer.json()
        assert (answer.status_code, body["error"], body["error_codes"][0]) == wanted
        assert body["error_description"].startswith(f"AADSTS{wanted[2]}: ")
        assert "Trace ID" in body["error_description"]

    def test_discovery(self, client: Client) -> None:
        base = f"{client.lab.url}/{client.env['AZURE_TENANT']}"
        found = client.session.get(f"{base}/v2.0/.well-known/openid-configuration").json()
        assert found["token_endpoint"] == f"{base}/oauth2/v2.0/token"
        assert client.session.get(found["jwks_uri"]).json()["keys"][0]["kty"] == "RSA"
        unknown = client.session.get(f"{client.lab.url}/nobody/v2.0/.well-known/openid-configuration")
        assert (unknown.status_code, unknown.json()["error"]) == (400, "invalid_tenant")
        instance = client.session.get(
            f"{client.lab.url}/common/discovery/instance",
            params={"api-version": "1.1", "authorization_endpoint": f"{base}/oauth2/v2.0/authorize"},
        ).json()
        assert instance["metadata"][0]["aliases"] == [client.lab.url.removeprefix("https://")]

    def test_a_managed_identity_gets_tokens_for_its_header(self, client: Client) -> None:
        lines = (client.lab.state_dir / "msi.sh").read_text().splitlines()
        identity = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        query = {"resource": client.lab.url, "api-version": "2019-08-01"}
        address = identity["IDENTITY_ENDPOINT"]
        refused = client.session.get(address, params=query, headers={"X-IDENTITY-HEADER": "guess"})
        assert refused.status_code == 401
        given = client.session.get(address, params=query, headers={"X-IDENTITY-HEADER": identity["IDENTITY_HEADER"]})
        client.session.headers["Authorization"] = f"Bearer {given.json()['access_token']}"
        assert client.ask("GET", "/subscriptions", "2022-12-01").status_code == 200

    def test_revoked_tokens_get_a_claims_challenge(self, client: Client) -> None:
        capable = json.dumps({"access_token": {"xms_cc": {"values": ["CP1"]}}})
        client.log_in(claims=capable)
        client.lab.fault(kind="arm", revoke_tokens=True, times=1, principal=client.env["AZURE_CLIENT_ID"])
        for _attempt in range(2):
            answer = client.ask("GET", "/subscriptions", "2022-12-01")
            assert answer.status_code == 401
            challenge = answer.headers["WWW-Authenticate"]
            assert 'error="insufficient_claims"' in challenge
            claims = json.loads(base64.b64decode(challenge.partition('claims="')[2].rstrip('"')))
            assert claims["access_token"]["nbf"]["essential"] is True
        client.log_in(claims=json.dumps({"access_token": {**claims["access_token"], "xms_cc": {"values": ["CP1"]}}}))
        assert client.ask("GET", "/subscriptions", "2022-12-01").status_code == 200


class TestLists:
    """Lists and their pages."""

    def test_machines_come_in_pages(self, client: Client) -> None:
        address: str | None = f"{client.subscription}/providers/Microsoft.HybridCompute/machines"
        pages: list[list[dict[str, Any]]] = []
        while address:
            answer = client.ask("GET", address, None if pages else COMPUTE).json()
            pages.append(answer["value"])
            address = answer.get("nextLink")
            assert address is None or address.startswith(client.lab.url)
        assert [len(page) for page in pages] == [4, 4, 1]
        ids = [one["id"].lower() for page in pages for one in page]
        assert sorted(ids) == sorted(one["id"].lower() for one in client.lab.machines())

    def test_a_made_up_page_is_400(self, client: Client) -> None:
        path = f"{client.subscription}/providers/Microsoft.HybridCompute/machines"
        assert client.ask("GET", path, query={"$skiptoken": "%%%"}).status_code == 400

    def test_resources_by_name_as_az_ssh_asks(self, client: Client) -> None:
        path = f"{client.subscription}/resourcegroups/arc-prod/resources"
        found = client.ask("GET", path, "2025-04-01", query={"$filter": "name eq 'WEB01'"}).json()["value"]
        assert [(one["name"], one["type"]) for one in found] == [("web01", "Microsoft.HybridCompute/machines")]
        assert "properties" not in found[0]

    def test_a_batch_answers_each_part(self, client: Client, machine: str) -> None:
        parts = [
            {"httpMethod": "GET", "name": name, "relativeUrl": f"{path}?api-version={COMPUTE}"}
            for name, path in (("a", machine), ("b", machine + "x"))
        ]
        answer = client.ask("POST", "/batch", "2022-12-01", {"requests": parts})
        assert [(one["name"], one["httpStatusCode"]) for one in answer.json()["responses"]] == [("a", 200), ("b", 404)]
        many = client.ask("POST", "/batch", "2015-11-01", {"requests": parts * 11})
        assert many.status_code == 202
        assert len(client.ask("GET", many.headers["Location"], None).json()["value"]) == 22


class TestMachines:
    """Machines themselves."""

    def test_tags_are_replaced_by_patch(self, client: Client) -> None:
        path = client.machine("web02")
        assert client.ask("PATCH", path, body={"tags": {"a": "b"}}).json()["tags"] == {"a": "b"}
        assert client.ask("GET", path).json()["tags"] == {"a": "b"}
        assert code(client.ask("PATCH", path, body={"tags": {"a": 1}})) == (400, "InvalidRequestContent")
        assert code(client.ask("PATCH", path, body={"nonsense": 1})) == (400, "InvalidRequestContent")

    def test_only_instance_view_can_be_expanded(self, client: Client, machine: str) -> None:
        assert client.ask("GET", machine, query={"$expand": "instanceView"}).status_code == 200
        assert client.ask("GET", machine, query={"$expand": "everything"}).status_code == 400

    @pytest.mark.parametrize(("name", "version", "status"), [("web04", "2025-06-01", 200), ("db02", "2026-07-15", 202)])
    def test_delete(self, client: Client, name: str, version: str, status: int) -> None:
        path = client.machine(name)
        client.ask("PUT", endpoint(path), CONNECTIVITY, DEFAULT)
        assert client.ask("DELETE", path, version).status_code == status
        until(lambda: client.ask("GET", path).status_code == 404)
        assert client.ask("DELETE", path, version).status_code == 204
        assert code(client.ask("GET", endpoint(path), CONNECTIVITY)) == (404, "ResourceNotFound")


class TestConnectivity:
    """Endpoints, service configurations, credentials."""

    def test_from_nothing_to_credentials(self, client: Client, machine: str) -> None:
        credentials = f"{endpoint(machine)}/listCredentials"
        asked = {"serviceName": "SSH"}
        assert code(client.ask("POST", credentials, CONNECTIVITY, asked)) == (404, "ResourceNotFound")
        assert code(client.ask("PUT", configuration(machine), CONNECTIVITY, SSH)) == (404, "ParentResourceNotFound")
        assert client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT).status_code == 200
        refused = client.ask("POST", credentials, CONNECTIVITY, asked)
        assert (code(refused), refused.reason) == ((412, "PreconditionFailed"), "Precondition Failed")
        assert client.ask("PUT", configuration(machine), CONNECTIVITY, SSH).status_code == 201
        assert client.ask("PUT", configuration(machine), CONNECTIVITY, SSH).status_code == 200
        relay = client.ask("POST", credentials, CONNECTIVITY, asked).json()["relay"]
        assert set(relay) == {
            "namespaceName",
            "namespaceNameSuffix",
            "hybridConnectionName",
            "accessKey",
            "expiresOn",
            "serviceConfigurationToken",
        }
        assert f"https://{relay['namespaceName']}.{relay['namespaceNameSuffix']}" == client.lab.url
        assert relay["accessKey"].startswith("SharedAccessSignature sr=")
        assert 10700 < relay["expiresOn"] - time.time() <= 10800
        bare = client.ask("POST", credentials, CONNECTIVITY).json()["relay"]
        assert "serviceConfigurationToken" not in bare

    @pytest.mark.parametrize(
        ("seconds", "status"), [("599", 400), ("600", 200), ("10800", 200), ("10801", 400), ("soon", 400)]
    )
    def test_bounds_of_the_lifetime(self, client: Client, machine: str, seconds: str, status: int) -> None:
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        answer = client.ask("POST", f"{endpoint(machine)}/listCredentials", CONNECTIVITY, query={"expiresin": seconds})
        assert answer.status_code == status

    @pytest.mark.parametrize("version", ["2023-03-15", "2024-12-01", "2027-01-01"])
    def test_the_stable_versions_are_alike(self, client: Client, machine: str, version: str) -> None:
        assert client.ask("PUT", endpoint(machine), version, DEFAULT).json()["properties"]["type"] == "default"
        assert client.ask("PUT", configuration(machine), version, SSH).status_code == 201
        assert client.ask("GET", configuration(machine), version).json()["properties"]["port"] == 22
        assert client.ask("DELETE", configuration(machine), version).status_code == 200
        assert client.ask("DELETE", configuration(machine), version).status_code == 204

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("{e}", {"properties": {"type": "other"}}),
            ("{e}", {"properties": {}}),
            ("{e}", {"type": "default"}),
            ("{e}x", DEFAULT),
            ("{e}", {"properties": {"type": "custom", "resourceId": "/x"}}),
            ("{c}", {"properties": {"serviceName": "SSH", "port": "22"}}),
            ("{c}", {"properties": {"serviceName": "SSH", "port": 22.5}}),
            ("{c}", {"properties": {"serviceName": "SSH", "port": True}}),
            ("{c}", {"properties": {"serviceName": "SSH", "port": 70000}}),
            ("{c}", {"properties": {"serviceName": "RDP", "port": 22}}),
            ("{c}", {"properties": {"serviceName": "WAC", "port": 22}}),
            ("{c}", {"properties": {"port": 22}}),
            ("{c}", []),
        ],
    )
    def test_bad_bodies_are_400(self, client: Client, machine: str, path: str, body: Any) -> None:
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        path = path.format(e=endpoint(machine), c=configuration(machine))
        assert client.ask("PUT", path, CONNECTIVITY, body).status_code == 400

    def test_only_the_port_can_be_patched(self, client: Client, machine: str) -> None:
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        client.ask("PUT", configuration(machine), CONNECTIVITY, SSH)
        patched = client.ask("PATCH", configuration(machine), CONNECTIVITY, {"properties": {"port": 2222}})
        assert (patched.status_code, patched.json()["properties"]["port"]) == (200, 2222)
        renamed = client.ask("PATCH", configuration(machine), CONNECTIVITY, {"properties": {"serviceName": "WAC"}})
        assert renamed.status_code == 400

    def test_writing_an_endpoint_again_makes_a_new_connection(self, client: Client, machine: str) -> None:
        def name() -> str:
            answer = client.ask("POST", f"{endpoint(machine)}/listCredentials", CONNECTIVITY)
            return str(answer.json()["relay"]["hybridConnectionName"])

        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        first = name()
        assert name() == first
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        assert name() != first

    def test_deleting_an_endpoint_deletes_its_configurations(self, client: Client, machine: str) -> None:
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        client.ask("PUT", configuration(machine), CONNECTIVITY, SSH)
        assert client.ask("DELETE", endpoint(machine), CONNECTIVITY).status_code == 200
        assert client.ask("DELETE", endpoint(machine), CONNECTIVITY).status_code == 204
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        assert code(client.ask("GET", configuration(machine), CONNECTIVITY)) == (404, "ResourceNotFound")

    def test_a_machine_that_is_not_there(self, client: Client, machine: str) -> None:
        assert code(client.ask("PUT", endpoint(machine + "x"), CONNECTIVITY, DEFAULT)) == (404, "ResourceNotFound")
        elsewhere = machine.replace("arc-prod", "none")
        assert code(client.ask("PUT", endpoint(elsewhere), CONNECTIVITY, DEFAULT)) == (404, "ResourceGroupNotFound")


def extension(**properties: Any) -> dict[str, Any]:
    wanted = {"publisher": "Microsoft.Azure.Extensions", "type": "CustomScript", "typeHandlerVersion": "2.1"}
    return {"location": "westeurope", "properties": {**wanted, **properties}}


class TestExtensions:
    """Extensions and their operations."""

    def settled(self, client: Client, path: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = client.ask("GET", path).json()["properties"]
            return found if found["provisioningState"] in ("Succeeded", "Failed") else None

        return dict(until(look))

    def test_from_creating_to_succeeded(self, client: Client, machine: str) -> None:
        path = f"{machine}/extensions/Script"
        body = extension(settings={"a": 1}, protectedSettings={"password": "hunter2"})
        answer = client.ask("PUT", path, body=body)
        assert answer.status_code == 202
        assert answer.json()["properties"]["provisioningState"] == "Creating"
        assert int(answer.headers["Retry-After"]) >= 1
        status = client.ask("GET", answer.headers["Azure-AsyncOperation"], None).json()
        assert status["status"] == "InProgress"
        found = self.settled(client, path)
        assert found["provisioningState"] == "Succeeded"
        assert found["typeHandlerVersion"] == "2.1.13"
        assert found["settings"] == {"a": 1}
        assert "protectedSettings" not in found
        assert client.ask("GET", answer.headers["Azure-AsyncOperation"], None).json()["status"] == "Succeeded"
        assert client.ask("GET", answer.headers["Location"], None).status_code == 200
        listed = client.ask("GET", machine).json()["resources"]
        assert [one["name"] for one in listed] == ["Script"]
        assert "hunter2" not in (client.lab.state_dir / "journal.jsonl").read_text()

    def test_one_operation_at_a_time(self, client: Client, machine: str) -> None:
        path = f"{machine}/extensions/Script"
        client.ask("PUT", path, body=extension())
        busy = client.ask("PUT", path, body=extension())
        assert code(busy) == (409, "HCRP409")
        assert "is still processing. Only one instance of an extension may be in progress" in busy.text
        self.settled(client, path)
        assert client.ask("DELETE", path).status_code == 202
        leaving = client.ask("PUT", path, body=extension())
        assert code(leaving) == (409, "HCRP409")
        assert "since it is marked for deletion" in leaving.text
        until(lambda: client.ask("GET", path).status_code == 404)
        assert client.ask("DELETE", path).status_code == 204

    def test_a_type_has_one_name(self, client: Client, machine: str) -> None:
        client.ask("PUT", f"{machine}/extensions/One", body=extension())
        self.settled(client, f"{machine}/extensions/One")
        assert code(client.ask("PUT", f"{machine}/extensions/Two", body=extension())) == (409, "HCRP409")

    def test_a_failure_is_told_everywhere(self, client: Client, machine: str) -> None:
        client.lab.fault(
            kind="arm", method="PUT", path="extensions", fail_operation={"code": "HCRP500", "message": "exit 51"}
        )
        path = f"{machine}/extensions/Script"
        answer = client.ask("PUT", path, body=extension())
        found = self.settled(client, path)
        assert (found["provisioningState"], found["instanceView"]["status"]["message"]) == ("Failed", "exit 51")
        status = client.ask("GET", answer.headers["Azure-AsyncOperation"], None).json()
        assert (status["status"], status["error"]["code"]) == ("Failed", "HCRP500")

    def test_a_disconnected_machine_keeps_it_waiting(self, client: Client, machine: str) -> None:
        client.lab.machine("web01", "stop")
        path = f"{machine}/extensions/Script"
        answer = client.ask("PUT", path, body=extension())
        time.sleep(OPERATION_SECONDS * 1.5)
        assert client.ask("GET", path).json()["properties"]["provisioningState"] == "Creating"
        assert client.ask("GET", answer.headers["Azure-AsyncOperation"], None).json()["status"] == "InProgress"
        client.lab.machine("web01", "start")
        assert self.settled(client, path)["provisioningState"] == "Succeeded"

    @pytest.mark.parametrize(
        ("body", "wanted"),
        [
            ({"properties": extension()["properties"]}, "LocationRequired"),
            ({**extension(), "location": "northeurope"}, "InvalidResourceLocation"),
            ({**extension(), "location": "atlantis"}, "LocationNotAvailableForResourceType"),
            (extension(publisher=None), "InvalidRequestContent"),
            (extension(settings="text"), "InvalidRequestContent"),
            (extension(autoUpgradeMinorVersion="yes"), "InvalidRequestContent"),
        ],
    )
    def test_bad_bodies_are_400(self, client: Client, machine: str, body: dict[str, Any], wanted: str) -> None:
        assert code(client.ask("PUT", f"{machine}/extensions/Script", body=body)) == (400, wanted)

    def test_the_parent_has_to_be_there(self, client: Client, machine: str) -> None:
        answer = client.ask("PUT", f"{machine}x/extensions/Script", body=extension())
        assert code(answer) == (404, "ParentResourceNotFound")

    def test_an_upgrade_goes_to_the_asked_version(self, client: Client, machine: str) -> None:
        path = f"{machine}/extensions/Script"
        client.ask("PUT", path, body=extension(typeHandlerVersion="2.1.6"))
        assert self.settled(client, path)["typeHandlerVersion"] == "2.1.6"
        targets = {"extensionTargets": {"Microsoft.Azure.Extensions.CustomScript": {"targetVersion": "2.1.10"}}}
        assert client.ask("POST", f"{machine}/upgradeExtensions", body=targets).status_code == 202
        assert self.settled(client, path)["typeHandlerVersion"] == "2.1.10"

    def test_versions_are_listed(self, client: Client) -> None:
        path = (
            f"{client.subscription}/providers/Microsoft.HybridCompute/locations/westeurope/publishers"
            "/Microsoft.Azure.OpenSSH/extensionTypes/WindowsOpenSSH/versions"
        )
        found = [one["properties"]["version"] for one in client.ask("GET", path).json()["value"]]
        assert "3.0.1.0" in found


class TestRunCommands:
    """Run commands really run."""

    def run(self, client: Client, machine: str, script: str, name: str = "test", **more: Any) -> dict[str, Any]:
        body = {"location": "westeurope", "properties": {"source": {"script": script}, **more}}
        answer = client.ask("PUT", f"{machine}/runCommands/{name}", body=body)
        assert answer.status_code == 201, answer.text

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = client.ask("GET", f"{machine}/runCommands/{name}").json()["properties"]
            return found if found["instanceView"]["executionState"] not in ("Pending", "Running") else None

        return dict(until(look))

    def test_output_exit_code_and_parameters(self, client: Client, machine: str) -> None:
        found = self.run(
            client,
            machine,
            'echo "$GREETING $SECRET $1 $ARCLAB_MACHINE"; echo oops >&2; exit 3',
            parameters=[{"name": "GREETING", "value": "hi"}, {"name": "", "value": "arg"}],
            protectedParameters=[{"name": "SECRET", "value": "hunter2"}],
        )
        view = found["instanceView"]
        assert found["provisioningState"] == "Succeeded"
        assert (view["executionState"], view["exitCode"]) == ("Failed", 3)
        assert (view["output"], view["error"]) == ("hi hunter2 arg web01\n", "oops\n")
        assert "protectedParameters" not in found

    def test_only_the_last_4_kb_come_back(self, client: Client, machine: str) -> None:
        found = self.run(client, machine, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done")
        output = found["instanceView"]["output"]
        assert len(output) == 4096
        assert output.endswith("line 1999\n")

    def test_a_script_that_takes_too_long_is_killed(self, client: Client, machine: str) -> None:
        started = time.monotonic()
        found = self.run(client, machine, "sleep 30 & sleep 30", timeoutInSeconds=1)
        assert found["instanceView"]["executionState"] == "TimedOut"
        assert time.monotonic() - started < 8

    def test_deleting_stops_the_script(self, client: Client, machine: str) -> None:
        path = f"{machine}/runCommands/long"
        body = {"location": "westeurope", "properties": {"source": {"script": "sleep 60"}}}
        client.ask("PUT", path, body=body)
        assert client.ask("PUT", path, body=body).status_code == 409
        assert client.ask("DELETE", path).status_code == 202
        until(lambda: client.ask("GET", path).status_code == 404)
        assert client.ask("DELETE", path).status_code == 204

    def test_the_agent_has_to_be_new_enough(self, client: Client) -> None:
        old = next(one for one in client.lab.machines() if one["agent_version"].startswith("1.30"))
        body = {"location": old["location"], "properties": {"source": {"script": "true"}}}
        answer = client.ask("PUT", f"{old['id']}/runCommands/x", body=body)
        assert answer.status_code == 400
        assert "1.33" in answer.text

    @pytest.mark.parametrize("source", [{}, {"script": "a", "commandId": "b"}, {"script": 1}])
    def test_one_source_exactly(self, client: Client, machine: str, source: dict[str, Any]) -> None:
        body = {"location": "westeurope", "properties": {"source": source}}
        assert code(client.ask("PUT", f"{machine}/runCommands/x", body=body)) == (400, "InvalidRequestContent")


class TestAuthorization:
    """Permissions, role assignments, role definitions."""

    def test_a_missing_action_is_named(self, client: Client, machine: str) -> None:
        principal = client.lab.principal("reader", actions=["Microsoft.HybridCompute/machines/read"])
        reader = Client(client.lab, client.lab.env_of(principal))
        assert reader.ask("GET", machine).status_code == 200
        answer = reader.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        assert code(answer) == (403, "AuthorizationFailed")
        message = answer.json()["error"]["message"]
        assert message.startswith(
            f"The client '{principal['client_id']}' with object id '{principal['object_id']}' does not have authorization "
            f"to perform action 'Microsoft.HybridConnectivity/endpoints/write' over scope '{endpoint(machine)}'"
        )
        credentials = reader.ask("POST", f"{endpoint(machine)}/listCredentials", CONNECTIVITY)
        assert "'Microsoft.HybridConnectivity/endpoints/listCredentials/action'" in credentials.text

    def test_a_role_at_a_group_ends_at_the_group(self, client: Client) -> None:
        principal = client.lab.principal(
            "grouped", roles=["Reader"], scope=f"{client.subscription}/resourceGroups/arc-prod"
        )
        grouped = Client(client.lab, client.lab.env_of(principal))
        here, there = f"{client.subscription}/resourceGroups/arc-prod", f"{client.subscription}/resourceGroups/arc-test"
        machines = "/providers/Microsoft.HybridCompute/machines"
        assert grouped.ask("GET", here + machines).status_code == 200
        assert code(grouped.ask("GET", there + machines)) == (403, "AuthorizationFailed")
        assert code(grouped.ask("GET", client.subscription + machines)) == (403, "AuthorizationFailed")
        groups = grouped.ask("GET", f"{client.subscription}/resourceGroups", RESOURCES).json()["value"]
        assert [one["name"] for one in groups] == ["arc-prod"]
        assert len(grouped.ask("GET", "/subscriptions", "2022-12-01").json()["value"]) == 1

    def test_who_has_nothing_sees_no_subscription(self, client: Client) -> None:
        nobody = Client(client.lab, client.lab.env_of(client.lab.principal("nobody")))
        assert nobody.ask("GET", "/subscriptions", "2022-12-01").json()["value"] == []
        assert code(nobody.ask("GET", client.subscription, "2022-12-01")) == (403, "AuthorizationFailed")

    def test_role_assignments(self, client: Client) -> None:
        principal = client.lab.principal("assigned")["object_id"]
        scope = f"{client.subscription}/resourceGroups/arc-prod"
        base = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        role = f"{client.subscription}/providers/Microsoft.Authorization/roleDefinitions/602da2ba-a5c2-41da-b01d-5360126ab525"
        body = {"properties": {"roleDefinitionId": role, "principalId": principal, "principalType": "ServicePrincipal"}}
        first, second = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
        made = client.ask("PUT", f"{base}/{first}", AUTHORIZATION, body)
        assert (made.status_code, made.json()["properties"]["scope"]) == (201, scope)
        assert client.ask("PUT", f"{base}/{first}", AUTHORIZATION, body).status_code == 200
        assert code(client.ask("PUT", f"{base}/{second}", AUTHORIZATION, body)) == (409, "RoleAssignmentExists")

        def listed(path: str, text: str) -> list[str]:
            path = f"{path}/providers/Microsoft.Authorization/roleAssignments"
            answer = client.ask("GET", path, AUTHORIZATION, query={"$filter": text}).json()
            return [one["name"] for one in answer["value"]]

        assert listed(scope, f"assignedTo('{principal}')") == [first]
        assert listed(client.subscription, f"principalId eq '{principal}'") == [first]
        assert first not in listed(client.subscription, "atScope()")
        other = {"properties": {**body["properties"], "roleDefinitionId": role[:-12] + "000000000000"}}
        assert code(client.ask("PUT", f"{base}/{second}", AUTHORIZATION, other)) == (404, "RoleDefinitionDoesNotExist")
        assert client.ask("DELETE", f"{base}/{first}", AUTHORIZATION).json()["name"] == first
        assert client.ask("DELETE", f"{base}/{first}", AUTHORIZATION).status_code == 204

    def test_an_unknown_principal_needs_its_type(self, client: Client) -> None:
        name = "33333333-3333-3333-3333-333333333333"
        path = f"{client.subscription}/providers/Microsoft.Authorization/roleAssignments/{name}"
        role = "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
        properties = {"roleDefinitionId": role, "principalId": name}
        assert code(client.ask("PUT", path, AUTHORIZATION, {"properties": properties})) == (400, "PrincipalNotFound")
        typed = {"properties": {**properties, "principalType": "ServicePrincipal"}}
        assert client.ask("PUT", path, AUTHORIZATION, typed).status_code == 201
        assert client.ask("DELETE", path, AUTHORIZATION).status_code == 200

    def test_a_subscription_holds_so_many_assignments(self, client: Client) -> None:
        client.lab.ask("/setting", role_assignment_limit=0)
        name = "44444444-4444-4444-4444-444444444444"
        role = "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
        body = {"properties": {"roleDefinitionId": role, "principalId": name, "principalType": "Group"}}
        path = f"{client.subscription}/providers/Microsoft.Authorization/roleAssignments/{name}"
        try:
            assert code(client.ask("PUT", path, AUTHORIZATION, body)) == (400, "RoleAssignmentLimitExceeded")
        finally:
            client.lab.ask("/setting", role_assignment_limit=4000)

    def test_roles_are_found_by_name(self, client: Client) -> None:
        path = f"{client.subscription}/providers/Microsoft.Authorization/roleDefinitions"
        query = {"$filter": "roleName eq 'Virtual Machine User Login'"}
        found = client.ask("GET", path, AUTHORIZATION, query=query).json()["value"]
        assert [one["name"] for one in found] == ["fb879df8-f326-4884-b1cf-06f3ad86be52"]


class TestFaults:
    """What goes wrong on purpose."""

    def test_status_headers_and_number_of_times(self, client: Client, machine: str) -> None:
        client.lab.fault(status=429, code="TooManyRequests", headers={"Retry-After": "7"}, machine="web01", times=1)
        answer = client.ask("GET", machine)
        assert (code(answer), answer.headers["Retry-After"]) == ((429, "TooManyRequests"), "7")
        assert client.ask("GET", machine).status_code == 200

    def test_a_request_may_be_done_though_its_answer_is_lost(self, client: Client, machine: str) -> None:
        client.lab.fault(method="PUT", path="endpoints/default$", reset=True, when="after", times=1)
        with pytest.raises(requests.ConnectionError):
            client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        assert client.ask("GET", endpoint(machine), CONNECTIVITY).status_code == 200
        assert [line["carried_out"] for line in client.lab.journal(method="PUT", path="endpoints/default$")[-1:]] == [
            True
        ]

    def test_a_reset_before_does_nothing(self, client: Client, machine: str) -> None:
        client.lab.fault(method="PUT", reset=True, times=1)
        with pytest.raises(requests.ConnectionError):
            client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        assert client.ask("GET", endpoint(machine), CONNECTIVITY).status_code == 404
        assert [line["carried_out"] for line in client.lab.journal(method="PUT", path="endpoints/default$")[-1:]] == [
            False
        ]

    def test_broken_bodies(self, client: Client, machine: str) -> None:
        client.lab.fault(truncate=True, times=1)
        with pytest.raises(requests.RequestException):
            client.ask("GET", machine)
        client.lab.fault(garbage=True, times=1)
        with pytest.raises(requests.JSONDecodeError):
            client.ask("GET", machine).json()
        client.lab.fault(slow_body=0.2, times=1)
        started = time.monotonic()
        assert client.ask("GET", machine).json()["name"] == "web01"
        assert time.monotonic() - started > 0.15

    def test_entra_and_expiry(self, client: Client, machine: str) -> None:
        client.lab.fault(expire_token=True, times=1)
        assert code(client.ask("GET", machine)) == (401, "ExpiredAuthenticationToken")
        client.lab.fault(kind="entra", status=503, times=1)
        assert client.login().status_code == 503
        assert client.login().status_code == 200


class TestJournal:
    """What the lab remembers."""

    def test_a_line_says_what_happened(self, client: Client, machine: str) -> None:
        before = client.lab.journal()[-1]["seq"]
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        client.ask("GET", machine + "x")
        client.login()
        written, missed = client.lab.journal(kind="arm", since=before)
        assert (written["action"], written["status"]) == ("Microsoft.HybridConnectivity/endpoints/write", 200)
        assert written["resource_id"] == endpoint(machine).lower()
        assert (written["request_body"], written["machine"]) == (DEFAULT, "web01")
        assert (missed["status"], missed["error_code"]) == (404, "ResourceNotFound")
        assert client.lab.journal(kind="entra", since=before)[0]["status"] == 200

    def test_no_secret_is_in_it(self, client: Client, machine: str) -> None:
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        client.ask("PUT", configuration(machine), CONNECTIVITY, SSH)
        relay = client.ask("POST", f"{endpoint(machine)}/listCredentials", CONNECTIVITY, {"serviceName": "SSH"}).json()[
            "relay"
        ]
        client.lab.journal()
        time.sleep(0.3)
        path = client.lab.state_dir / "journal.jsonl"
        text = path.read_text()
        token = str(client.session.headers["Authorization"]).partition(" ")[2]
        for secret in (relay["accessKey"], relay["serviceConfigurationToken"], client.env["AZURE_SECRET"], token):
            assert secret not in text
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


class TestOptions:
    """Labs of other kinds, and their lives."""

    def test_an_unregistered_provider(self, tmp_path: Path) -> None:
        with Lab.up(tmp_path / "state", machines=1, unregistered=True, registration_seconds=0.3) as lab:
            client = Client(lab)
            machine = client.machine("web01")
            provider = f"{client.subscription}/providers/Microsoft.HybridConnectivity"
            for method in ("GET", "PUT"):
                body = DEFAULT if method == "PUT" else None
                answer = client.ask(method, endpoint(machine), CONNECTIVITY, body)
                assert code(answer) == (409, "MissingSubscriptionRegistration")
                assert answer.json()["error"]["details"][0]["target"] == "Microsoft.HybridConnectivity"
            assert client.ask("GET", provider, RESOURCES).json()["registrationState"] == "NotRegistered"
            made = client.ask("POST", f"{provider}/register", "2016-02-01").json()
            assert made["registrationState"] == "Registering"
            assert "2027-01-01" in made["resourceTypes"][0]["apiVersions"]
            until(lambda: client.ask("GET", provider, RESOURCES).json()["registrationState"] == "Registered")
            assert client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT).status_code == 200

    def test_throttling(self, tmp_path: Path) -> None:
        with Lab.up(tmp_path / "state", machines=1, throttle=True, check_specs=False) as lab:
            client = Client(lab)
            path = client.machine("web01")
            answers = [client.ask("PATCH", path, body={"tags": {}}) for _number in range(230)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert refused
            assert int(refused[0].headers["Retry-After"]) >= 1
            assert answers[0].headers["x-ms-ratelimit-remaining-subscription-writes"] == "199"
            assert client.ask("GET", path).status_code == 200

    def test_tokens_expire(self, tmp_path: Path) -> None:
        with Lab.up(tmp_path / "state", machines=1, token_lifetime=1) as lab:
            client = Client(lab)
            path = client.machine("web01")
            assert until(lambda: (answer := client.ask("GET", path)).status_code == 401 and code(answer)) == (
                401,
                "ExpiredAuthenticationToken",
            )

    @pytest.mark.parametrize("style", ["location", "body"])
    def test_other_styles_of_operations(self, tmp_path: Path, style: str) -> None:
        with Lab.up(tmp_path / "state", machines=1, lro_style=style, operation_seconds=1) as lab:
            client = Client(lab)
            path = f"{client.machine('web01')}/extensions/Script"
            answer = client.ask("PUT", path, body=extension())
            assert answer.status_code == 202
            assert "Azure-AsyncOperation" not in answer.headers
            if style == "location":
                address = answer.headers["Location"]
                assert client.ask("GET", address, None).status_code == 202
                found = until(lambda: (one := client.ask("GET", address, None)).status_code == 200 and one).json()
            else:
                assert "Location" not in answer.headers
                until(lambda: client.ask("GET", path).json()["properties"]["provisioningState"] == "Succeeded")
                found = client.ask("GET", path).json()
            assert found["properties"]["provisioningState"] == "Succeeded"

    def test_credentials_live_no_longer_than_the_cap(self, tmp_path: Path) -> None:
        with Lab.up(tmp_path / "state", machines=1, credential_lifetime=30) as lab:
            client = Client(lab)
            machine = client.machine("web01")
            client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
            relay = client.ask("POST", f"{endpoint(machine)}/listCredentials", CONNECTIVITY).json()["relay"]
            assert relay["expiresOn"] - time.time() <= 30

    def test_a_stopped_lab_goes_on(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        lab = Lab.up(state, machines=2)
        client = Client(lab)
        machine = client.machine("web01")
        client.ask("PUT", endpoint(machine), CONNECTIVITY, DEFAULT)
        credentials = f"{endpoint(machine)}/listCredentials"
        name = client.ask("POST", credentials, CONNECTIVITY).json()["relay"]["hybridConnectionName"]
        with pytest.raises(LabFailed, match="already"):
            Lab.up(state)
        lab.down()
        assert running_pid(state) is None
        with Lab.up(state) as again:
            assert again.env == lab.env
            relay = client.ask("POST", credentials, CONNECTIVITY).json()["relay"]
            assert relay["hybridConnectionName"] == name
        again.down(purge=True)
        assert not state.exists()

    def test_a_fleet_that_makes_no_sense_is_refused(self, tmp_path: Path) -> None:
        fleet = tmp_path / "fleet.json"
        fleet.write_text('[{"name": "a", "nonsense": 1}]')
        with pytest.raises(LabFailed, match="nonsense"):
            Lab.up(tmp_path / "state", fleet=str(fleet))

    def test_files_are_private(self, lab: Lab) -> None:
        assert stat.S_IMODE(lab.state_dir.stat().st_mode) == 0o700
        for name in (
            "env.sh",
            "msi.sh",
            "known_hosts",
            "arc.yml",
            "world.sqlite",
            "tokens.key",
            "ca.key",
            "control.sock",
        ):
            assert stat.S_IMODE((lab.state_dir / name).stat().st_mode) == 0o600, name
        known = (lab.state_dir / "known_hosts").read_text().splitlines()
        assert all(line.split()[0] == line.split()[0].lower() and " ssh-ed25519 " in line for line in known)


def test_nothing_here_violated_the_descriptions(lab: Lab) -> None:
    """Runs last in this file: where Azure's descriptions are at hand, every exchange was compared with them."""
    wrong = [(line["method"], line["path"], line["status"], line["spec"]) for line in lab.journal() if line.get("spec")]
    assert wrong == []
