# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can Azure's own Python SDKs, unmodified, work with the lab?

azure-identity and the management clients are pointed at the lab the way a private cloud is: by authority, base URL and
credential scope, with the lab's CA in the usual environment variables. Every exchange is checked against Azure's API
descriptions where they are at hand.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from azure.mgmt.hybridcompute import models as compute
from azure.mgmt.hybridconnectivity import HybridConnectivityMgmtClient
from azure.mgmt.hybridconnectivity import models as connectivity
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resource.resources.models import GenericResource
from azure.mgmt.resourcegraph import ResourceGraphClient
from azure.mgmt.resourcegraph import models as graph

from arclab.client import Lab

MACHINES = 7
VM_USER_LOGIN = "fb879df8-f326-4884-b1cf-06f3ad86be52"


class Clients:
    """The SDK clients of one lab and one service principal."""

    def __init__(self, lab: Lab, env: dict[str, str] | None = None, patience: float = 0.0) -> None:
        self.lab = lab
        self.patience = patience
        env = env or lab.env
        cloud = requests.get(
            f"{lab.url}/metadata/endpoints",
            params={"api-version": "2022-09-01"},
            verify=env["REQUESTS_CA_BUNDLE"],
            timeout=10,
        ).json()
        self.subscription = env["AZURE_SUBSCRIPTION_ID"]
        self.credential = ClientSecretCredential(
            env["AZURE_TENANT_ID"],
            env["AZURE_CLIENT_ID"],
            env["AZURE_CLIENT_SECRET"],
            authority=cloud["authentication"]["loginEndpoint"],
            disable_instance_discovery=True,
        )
        scope = cloud["authentication"]["audiences"][0].rstrip("/") + "/.default"
        options: dict[str, Any] = {"base_url": lab.url, "credential_scopes": [scope]}
        named = {"polling_interval": 0.1, **options}
        self.compute = HybridComputeManagementClient(self.credential, self.subscription, **named)
        self.connectivity = HybridConnectivityMgmtClient(self.credential, self.subscription, **named)
        self.resources = ResourceManagementClient(self.credential, self.subscription, **named)
        self.graph = ResourceGraphClient(self.credential, **options)
        self.authorization = AuthorizationManagementClient(self.credential, self.subscription, **options)

    def machine(self, position: int = 0) -> compute.Machine:
        """A connected machine."""
        connected = [
            one for one in self.compute.machines.list_by_subscription() if one.properties.status == "Connected"
        ]
        return sorted(connected, key=lambda one: one.name)[position]


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        yield patch


def _up(tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch, **options: Any) -> Lab:
    asked = {"machines": MACHINES, "page_size": 3, "operation_seconds": 0.3, "registration_seconds": 0.3, **options}
    lab = Lab.up(tmp_path_factory.mktemp("lab"), **asked)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        environment.setenv(name, lab.env[name])
    return lab


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch) -> Iterator[Clients]:
    with _up(tmp_path_factory, environment) as lab:
        yield Clients(lab)


@pytest.fixture(scope="module", params=["async", "location", "body"])
def by_style(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch
) -> Iterator[Clients]:
    """A lab per style of long-running operations."""
    with _up(tmp_path_factory, environment, lro_style=request.param) as lab:
        yield Clients(lab, patience=10.0 if request.param == "body" else 0.0)


@pytest.fixture
def azure(shared: Clients, environment: pytest.MonkeyPatch) -> Iterator[Clients]:
    """The clients of the common lab; afterwards no exchange of the test may have violated the API descriptions."""
    yield from _checked(shared, environment)


@pytest.fixture
def styled(by_style: Clients, environment: pytest.MonkeyPatch) -> Iterator[Clients]:
    """The same for the lab of a style."""
    yield from _checked(by_style, environment)


def _checked(clients: Clients, environment: pytest.MonkeyPatch) -> Iterator[Clients]:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        environment.setenv(name, clients.lab.env[name])
    clients.lab.clear_journal()
    yield clients
    assert violations(clients.lab) == []


def _is_gone(styled: Clients, read: Callable[[], Any]) -> None:
    """Without a header to poll the SDK cannot know when a deletion is over; with one, the resource is gone at once."""
    deadline = time.monotonic() + styled.patience
    while True:
        try:
            read()
        except ResourceNotFoundError:
            return
        assert time.monotonic() < deadline, "the resource did not go away"
        time.sleep(0.1)


def violations(lab: Lab) -> list[str]:
    return [f"{line['method']} {line['path']}: {each}" for line in lab.journal() for each in line.get("spec") or []]


def test_machines_are_listed_page_by_page_and_read_one_by_one(azure: Clients) -> None:
    machines = list(azure.compute.machines.list_by_subscription())
    assert len(machines) == MACHINES
    pages = list(azure.compute.machines.list_by_subscription().by_page())
    assert [len(list(page)) for page in pages] == [3, 3, 1]
    groups = {one.id.split("/")[4] for one in machines}
    by_group = [one.id.lower() for group in groups for one in azure.compute.machines.list_by_resource_group(group)]
    assert sorted(by_group) == sorted(one.id.lower() for one in machines)
    one = machines[0]
    read = azure.compute.machines.get(one.id.split("/")[4], one.name, expand="instanceView")
    assert read.id.lower() == one.id.lower() and read.location == one.location
    assert read.properties.status in ("Connected", "Disconnected")
    assert read.properties.agent_version and read.properties.os_name and read.properties.last_status_change.year > 2000
    assert isinstance(read.properties.agent_configuration.incoming_connections_ports, list)


def test_what_is_not_there_is_a_resource_not_found_error(azure: Clients) -> None:
    with pytest.raises(ResourceNotFoundError) as caught:
        azure.compute.machines.get(azure.machine().id.split("/")[4], "nowhere")
    assert caught.value.error.code == "ResourceNotFound"
    with pytest.raises(ResourceNotFoundError) as caught:
        azure.compute.machines.get("no-such-group", "nowhere")
    assert caught.value.error.code == "ResourceGroupNotFound"


def test_tags_of_a_machine(azure: Clients) -> None:
    machine = azure.machine()
    group = machine.id.split("/")[4]
    updated = azure.compute.machines.update(group, machine.name, compute.MachineUpdate(tags={"owner": "tests"}))
    assert updated.tags == {"owner": "tests"}
    assert azure.compute.machines.get(group, machine.name).tags == {"owner": "tests"}


def test_a_machine_can_be_deleted(azure: Clients) -> None:
    machine = azure.machine(-1)
    group = machine.id.split("/")[4]
    azure.compute.machines.begin_delete(group, machine.name).result()
    with pytest.raises(ResourceNotFoundError):
        azure.compute.machines.get(group, machine.name)


def test_the_life_of_an_endpoint_and_its_credentials(azure: Clients) -> None:
    uri = azure.machine(1).id.strip("/")
    endpoints, services = azure.connectivity.endpoints, azure.connectivity.service_configurations
    ask = connectivity.ListCredentialsRequest(service_name="SSH")
    assert list(endpoints.list(uri)) == []
    with pytest.raises(ResourceNotFoundError):
        endpoints.get(uri, "default")
    with pytest.raises(ResourceNotFoundError) as missing:
        endpoints.list_credentials(uri, "default", ask, expiresin=3600)
    assert missing.value.error.code == "ResourceNotFound"

    wanted = connectivity.EndpointResource(properties=connectivity.EndpointProperties(type="default"))
    created = endpoints.create_or_update(uri, "default", wanted)
    assert (created.name, created.properties.type) == ("default", "default")
    assert endpoints.get(uri, "default").id.lower() == created.id.lower()
    assert [one.name for one in endpoints.list(uri)] == ["default"]
    with pytest.raises(HttpResponseError) as unconfigured:
        endpoints.list_credentials(uri, "default", ask, expiresin=3600)
    assert (unconfigured.value.status_code, unconfigured.value.reason) == (412, "Precondition Failed")
    assert endpoints.list_credentials(uri, "default").relay.service_configuration_token is None

    _configure(services, uri)
    before = int(time.time())
    relay = endpoints.list_credentials(uri, "default", ask, expiresin=3600).relay
    assert before + 3500 <= relay.expires_on <= int(time.time()) + 3601
    assert relay.access_key.startswith("SharedAccessSignature sr=") and relay.service_configuration_token
    assert f"{relay.namespace_name}.{relay.namespace_name_suffix}" == azure.lab.url.removeprefix("https://")
    for lifetime in (599, 10801):
        with pytest.raises(HttpResponseError) as bounds:
            endpoints.list_credentials(uri, "default", ask, expiresin=lifetime)
        assert bounds.value.status_code == 400

    endpoints.delete(uri, "default")
    endpoints.delete(uri, "default")
    with pytest.raises(ResourceNotFoundError):
        services.get(uri, "default", "SSH")


def _configure(services: Any, uri: str) -> None:
    properties = connectivity.ServiceConfigurationProperties(service_name="SSH", port=22)
    wanted = connectivity.ServiceConfigurationResource(properties=properties)
    made = services.create_orupdate(uri, "default", "SSH", wanted)
    assert (made.properties.service_name, made.properties.port) == ("SSH", 22)
    patch = connectivity.ServiceConfigurationResourcePatch(
        properties=connectivity.ServiceConfigurationPropertiesPatch(port=2222)
    )
    assert services.update(uri, "default", "SSH", patch).properties.port == 2222
    assert services.get(uri, "default", "SSH").properties.port == 2222
    assert [one.properties.service_name for one in services.list_by_endpoint_resource(uri, "default")] == ["SSH"]
    services.delete(uri, "default", "SSH")
    services.delete(uri, "default", "SSH")
    services.create_orupdate(uri, "default", "SSH", wanted)


def test_ingress_gateway_and_managed_proxy(azure: Clients) -> None:
    uri = azure.machine(2).id.strip("/")
    endpoints, services = azure.connectivity.endpoints, azure.connectivity.service_configurations
    wanted = connectivity.EndpointResource(properties=connectivity.EndpointProperties(type="default"))
    endpoints.create_or_update(uri, "default", wanted)
    properties = connectivity.ServiceConfigurationProperties(service_name="WAC", port=6516)
    services.create_orupdate(uri, "default", "WAC", connectivity.ServiceConfigurationResource(properties=properties))
    gateway = endpoints.list_ingress_gateway_credentials(
        uri, "default", connectivity.ListIngressGatewayCredentialsRequest(service_name="WAC"), expiresin=900
    )
    assert gateway.relay.hybrid_connection_name and gateway.ingress.hostname
    proxy = endpoints.list_managed_proxy_details(
        uri, "default", connectivity.ManagedProxyRequest(service="127.0.0.1:65035", service_name="WAC")
    )
    assert proxy.proxy and proxy.expires_on > time.time()


def test_extensions_in_every_style(styled: Clients) -> None:
    machine = styled.machine()
    group = machine.id.split("/")[4]
    extensions = styled.compute.machine_extensions
    properties = compute.MachineExtensionProperties(
        publisher="Microsoft.Azure.ActiveDirectory", type="AADSSHLoginForLinux", auto_upgrade_minor_version=True
    )
    wanted = compute.MachineExtension(location=machine.location, properties=properties)
    made = extensions.begin_create_or_update(group, machine.name, "AADSSHLogin", wanted).result()
    assert made.properties.provisioning_state == "Succeeded"
    assert made.properties.type_handler_version
    assert made.properties.protected_settings is None
    read = extensions.get(group, machine.name, "AADSSHLogin")
    assert read.properties.publisher == "Microsoft.Azure.ActiveDirectory"
    assert [one.name for one in extensions.list(group, machine.name)] == ["AADSSHLogin"]
    change = compute.MachineExtensionUpdate(properties=compute.MachineExtensionUpdateProperties(settings={"a": 1}))
    assert extensions.begin_update(group, machine.name, "AADSSHLogin", change).result().properties.settings == {"a": 1}
    extensions.begin_delete(group, machine.name, "AADSSHLogin").result()
    _is_gone(styled, lambda: extensions.get(group, machine.name, "AADSSHLogin"))


def test_a_second_operation_on_an_extension_type_conflicts(styled: Clients) -> None:
    machine = styled.machine(1)
    group = machine.id.split("/")[4]
    properties = compute.MachineExtensionProperties(
        publisher="Microsoft.Azure.ActiveDirectory", type="AADSSHLoginForLinux"
    )
    wanted = compute.MachineExtension(location=machine.location, properties=properties)
    first = styled.compute.machine_extensions.begin_create_or_update(group, machine.name, "AADSSHLogin", wanted)
    with pytest.raises(HttpResponseError) as caught:
        styled.compute.machine_extensions.begin_create_or_update(group, machine.name, "AADSSHLogin", wanted).result()
    assert (caught.value.status_code, caught.value.error.code) == (409, "HCRP409")
    assert first.result().properties.provisioning_state == "Succeeded"


def test_run_commands_in_every_style(styled: Clients) -> None:
    machine = styled.machine()
    group = machine.id.split("/")[4]
    commands = styled.compute.machine_run_commands
    name = f"check-{uuid.uuid4().hex[:8]}"
    wanted = compute.MachineRunCommand(
        location=machine.location,
        properties=compute.MachineRunCommandProperties(
            source=compute.MachineRunCommandScriptSource(script='echo "hello $who"; echo oops >&2; exit 3'),
            parameters=[compute.RunCommandInputParameter(name="who", value="lab")],
            timeout_in_seconds=30,
        ),
    )
    commands.begin_create_or_update(group, machine.name, name, wanted).result()
    view = _ended(commands, group, machine.name, name)
    assert (view.exit_code, view.output.strip(), view.error.strip()) == (3, "hello lab", "oops")
    assert view.execution_state == "Failed" and view.start_time <= view.end_time
    assert name in [one.name for one in commands.list(group, machine.name)]
    commands.begin_delete(group, machine.name, name).result()
    _is_gone(styled, lambda: commands.get(group, machine.name, name))


def _ended(commands: Any, group: str, machine: str, name: str) -> Any:
    deadline = time.monotonic() + 20
    while True:
        view = commands.get(group, machine, name).properties.instance_view
        if view is not None and view.execution_state not in ("Unknown", "Pending", "Running"):
            return view
        assert time.monotonic() < deadline, "the run command did not end"
        time.sleep(0.1)


def test_machine_deletion_in_every_style(styled: Clients) -> None:
    machine = styled.machine(-1)
    group = machine.id.split("/")[4]
    styled.compute.machines.begin_delete(group, machine.name).result()
    _is_gone(styled, lambda: styled.compute.machines.get(group, machine.name))


def test_upgrade_and_metadata_of_extensions(azure: Clients) -> None:
    machine = azure.machine(3)
    group = machine.id.split("/")[4]
    publisher, kind = "Microsoft.Azure.ActiveDirectory", "AADSSHLoginForLinux"
    versions = [
        one.properties.version for one in azure.compute.extension_metadata.list(machine.location, publisher, kind)
    ]
    assert versions
    properties = compute.MachineExtensionProperties(publisher=publisher, type=kind, type_handler_version=versions[0])
    wanted = compute.MachineExtension(location=machine.location, properties=properties)
    azure.compute.machine_extensions.begin_create_or_update(group, machine.name, "AADSSHLogin", wanted).result()
    target = compute.ExtensionTargetProperties(target_version=versions[-1])
    upgrade = compute.MachineExtensionUpgrade(extension_targets={f"{publisher}.{kind}": target})
    azure.compute.begin_upgrade_extensions(group, machine.name, upgrade).result()
    read = azure.compute.machine_extensions.get(group, machine.name, "AADSSHLogin")
    assert read.properties.type_handler_version.startswith(versions[-1])


def test_providers(azure: Clients) -> None:
    providers = azure.resources.providers
    assert "Microsoft.HybridConnectivity" in [one.namespace for one in providers.list()]
    one = providers.get("Microsoft.HybridConnectivity")
    assert one.registration_state == "Registered"
    versions = {kind.resource_type.lower(): kind.api_versions for kind in one.resource_types}
    assert {"2023-03-15", "2024-12-01", "2027-01-01"} <= set(versions["endpoints"])
    assert providers.unregister("Microsoft.HybridConnectivity").registration_state in ("Unregistering", "Unregistered")
    _until(azure, "Unregistered")
    assert providers.register("Microsoft.HybridConnectivity").registration_state in ("Registering", "Registered")
    _until(azure, "Registered")


def _until(azure: Clients, state: str) -> None:
    deadline = time.monotonic() + 10
    while azure.resources.providers.get("Microsoft.HybridConnectivity").registration_state != state:
        assert time.monotonic() < deadline, f"Microsoft.HybridConnectivity did not become {state}"
        time.sleep(0.1)


def test_the_sdk_registers_a_missing_provider_by_itself(
    tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every management client does so on MissingSubscriptionRegistration; only its ten-second pauses are cut here."""
    real = time.sleep
    monkeypatch.setattr("azure.mgmt.core.policies._base.time", SimpleNamespace(sleep=lambda seconds: real(0.2)))
    with _up(tmp_path_factory, environment, unregistered=True) as lab:
        azure = Clients(lab)
        assert azure.resources.providers.get("Microsoft.HybridConnectivity").registration_state == "NotRegistered"
        with pytest.raises(ResourceNotFoundError):
            azure.connectivity.endpoints.get(azure.machine().id.strip("/"), "default")
        assert azure.resources.providers.get("Microsoft.HybridConnectivity").registration_state == "Registered"
        refused = [line["error_code"] for line in lab.journal() if line["status"] == 409]
        assert set(refused) == {"MissingSubscriptionRegistration"}
        assert violations(lab) == []


def test_resources_and_groups(azure: Clients) -> None:
    groups = [one.name for one in azure.resources.resource_groups.list()]
    assert azure.resources.resource_groups.get(groups[0]).name == groups[0]
    chosen = "resourceType eq 'Microsoft.HybridCompute/machines'"
    listed = [one.id.lower() for one in azure.resources.resources.list(filter=chosen)]
    assert sorted(listed) == sorted(one.id.lower() for one in azure.compute.machines.list_by_subscription())
    read = azure.resources.resources.get_by_id(azure.machine().id, api_version="2025-01-13")
    assert read.type.lower() == "microsoft.hybridcompute/machines"
    endpoint = f"{azure.machine(3).id}/providers/Microsoft.HybridConnectivity/endpoints/default"
    wanted = GenericResource(properties={"type": "default"})
    version = {"api_version": "2023-03-15"}
    made = azure.resources.resources.begin_create_or_update_by_id(endpoint, wanted, **version).result()
    assert made.properties["type"] == "default"
    azure.resources.resources.begin_delete_by_id(endpoint, **version).result()
    with pytest.raises(ResourceNotFoundError):
        azure.resources.resources.get_by_id(endpoint, **version)


def test_role_definitions_and_assignments(azure: Clients) -> None:
    scope = azure.machine().id
    client = azure.authorization
    roles = list(client.role_definitions.list(scope, filter="roleName eq 'Virtual Machine User Login'"))
    assert [role.name for role in roles] == [VM_USER_LOGIN]
    principal = azure.lab.principal("sdk-reader", actions=["*/read"], scope=f"/subscriptions/{azure.subscription}")
    wanted = {
        "role_definition_id": roles[0].id,
        "principal_id": principal["object_id"],
        "principal_type": "ServicePrincipal",
    }
    name = str(uuid.uuid4())
    made = client.role_assignments.create(scope, name, wanted)
    assert (made.name, made.principal_id) == (name, principal["object_id"])
    assert client.role_assignments.create(scope, name, wanted).id == made.id
    with pytest.raises(HttpResponseError) as twice:
        client.role_assignments.create(scope, str(uuid.uuid4()), wanted)
    assert (twice.value.status_code, twice.value.error.code) == (409, "RoleAssignmentExists")
    mine = client.role_assignments.list_for_scope(scope, filter=f"principalId eq '{principal['object_id']}'")
    assert name in [one.name for one in mine]
    assert client.role_assignments.get(scope, name).role_definition_id == roles[0].id
    assert client.role_assignments.delete(scope, name).name == name
    assert client.role_assignments.delete(scope, name) is None


def test_resource_graph_paging(azure: Clients) -> None:
    query = "resources | where type =~ 'Microsoft.HybridCompute/machines' | project id, name, tags | order by id asc"
    token: str | None = None
    seen: list[str] = []
    while True:
        options = graph.QueryRequestOptions(top=2, skip_token=token, result_format="objectArray")
        request = graph.QueryRequest(subscriptions=[azure.subscription], query=query, options=options)
        page = azure.graph.resources(request)
        assert page.count == len(page.data) <= 2 and page.result_truncated == "false"
        seen += [row["id"].lower() for row in page.data]
        token = page.skip_token
        if token is None:
            break
    expected = sorted(one.id.lower() for one in azure.compute.machines.list_by_subscription())
    assert seen == expected and page.total_records == len(expected)


def test_resource_graph_tables_tenant_scope_and_refusals(azure: Clients) -> None:
    table = graph.QueryRequestOptions(result_format="table")
    page = azure.graph.resources(graph.QueryRequest(query="resources | summarize count() by type", options=table))
    assert [column["name"] for column in page.data["columns"]] == ["type", "count_"]
    containers = "resourcecontainers | where type == 'microsoft.resources/subscriptions' | project subscriptionId"
    found = azure.graph.resources(graph.QueryRequest(query=containers)).data
    assert found == [{"subscriptionId": azure.subscription}]
    with pytest.raises(HttpResponseError) as refused:
        azure.graph.resources(graph.QueryRequest(query="resources | where nonsense"))
    assert refused.value.status_code == 400
    assert refused.value.error.details[0].code == "InvalidQuery"


def test_permissions_decide(azure: Clients) -> None:
    scope = f"/subscriptions/{azure.subscription}"
    principal = azure.lab.principal("sdk-narrow", actions=["Microsoft.HybridCompute/machines/read"], scope=scope)
    narrow = Clients(azure.lab, azure.lab.env_of(principal))
    uri = narrow.machine().id.strip("/")
    with pytest.raises(HttpResponseError) as caught:
        narrow.connectivity.endpoints.get(uri, "default")
    assert (caught.value.status_code, caught.value.error.code) == (403, "AuthorizationFailed")
    assert "Microsoft.HybridConnectivity/endpoints/read" in caught.value.message


def test_a_wrong_secret_is_refused_by_entra(azure: Clients) -> None:
    wrong = Clients(azure.lab, {**azure.lab.env, "AZURE_CLIENT_SECRET": "not-the-secret"})
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        wrong.machine()
