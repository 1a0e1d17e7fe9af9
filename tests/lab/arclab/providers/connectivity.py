# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Microsoft.HybridConnectivity keep for a machine, and to whom does it give relay credentials?

Endpoints, their service configurations, and the three list actions, alike in all versions. Writing an endpoint again
mints a new hybrid connection and the listener's lag starts anew; so it does when a service configuration is written: a
client that PUTs blindly is punished as reported of the live service.
"""

from __future__ import annotations

import uuid
from typing import Any

from ..fleet import stamp
from ..http import Answer, ArmFailure, Context
from ..relay import HybridConnection
from ..routes import Route
from ..services import Services, body_of, expect, invalid, machine_path, not_found, parent_not_found, properties_of
from ..world import ENDPOINTS, SERVICE_CONFIGURATIONS

NAMESPACE = "Microsoft.HybridConnectivity"
SERVICES = ("SSH", "WAC")
LIFETIME_DEFAULT, LIFETIME_MINIMUM, LIFETIME_MAXIMUM = 10800, 600, 10800


class Connectivity:
    """Endpoints and service configurations of machines."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.world = services.world

    def routes(self) -> list[Route]:
        return [
            Route("GET", ENDPOINTS, self.get_endpoint),
            Route("PUT", ENDPOINTS, self.put_endpoint),
            Route("PATCH", ENDPOINTS, self.update_endpoint),
            Route("DELETE", ENDPOINTS, self.delete_endpoint),
            Route("GET", ENDPOINTS, self.list_endpoints, collection=True),
            Route("POST", ENDPOINTS, self.list_credentials, action="listcredentials"),
            Route("POST", ENDPOINTS, self.list_ingress, action="listingressgatewaycredentials"),
            Route("POST", ENDPOINTS, self.list_proxy, action="listmanagedproxydetails"),
            Route("GET", SERVICE_CONFIGURATIONS, self.get_configuration),
            Route("PUT", SERVICE_CONFIGURATIONS, self.put_configuration),
            Route("PATCH", SERVICE_CONFIGURATIONS, self.update_configuration),
            Route("DELETE", SERVICE_CONFIGURATIONS, self.delete_configuration),
            Route("GET", SERVICE_CONFIGURATIONS, self.list_configurations, collection=True),
            Route("GET", "microsoft.hybridconnectivity/operations", self.list_operations, collection=True),
        ]

    # Endpoints

    def _endpoint_path(self, context: Context) -> str:
        return f"{machine_path(context)}/providers/{NAMESPACE}/endpoints/{context.params['endpoints']}"

    def _endpoint(self, context: Context) -> dict[str, Any]:
        self.services.machine(context)
        endpoint = self.world.get(self._endpoint_path(context))
        if endpoint is None:
            raise not_found(f"{NAMESPACE}/endpoints", context.params["endpoints"], context.params["group"])
        return endpoint

    def get_endpoint(self, context: Context) -> Answer:
        return Answer(200, self._endpoint(context))

    def list_endpoints(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        keys = self.world.children(machine["id"], ENDPOINTS)
        return self.services.page(context, keys, lambda key: self.world.resources[key])

    def put_endpoint(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        name = context.params["endpoints"]
        properties = _endpoint_properties(properties_of(body_of(context)), name)
        path = f"{machine['id']}/providers/{NAMESPACE}/endpoints/{name}"
        existing = self.world.get(path)
        endpoint = self.world.put(
            path,
            {
                "id": existing["id"] if existing else path,
                "name": existing["name"] if existing else name,
                "type": f"{NAMESPACE}/endpoints",
                "properties": {**properties, "provisioningState": "Succeeded"},
                "systemData": _system_data(context, existing),
            },
        )
        if properties["type"] == "default":
            self._mint(machine["id"].lower(), context.now)
        return Answer(200, endpoint)

    def update_endpoint(self, context: Context) -> Answer:
        endpoint = self._endpoint(context)
        given = properties_of(body_of(context), required=False)
        merged = {**endpoint["properties"], **given}
        properties = _endpoint_properties(merged, context.params["endpoints"])
        endpoint["properties"] = {**properties, "provisioningState": "Succeeded"}
        endpoint["systemData"] = _system_data(context, endpoint)
        return Answer(200, self.world.put(endpoint["id"], endpoint))

    def delete_endpoint(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        path = self._endpoint_path(context)
        if not self.world.delete(path):
            return Answer(204)
        key = machine["id"].lower()
        if context.params["endpoints"].lower() == "default":
            connection = self._connection(key)
            if connection is not None:
                self.services.relay.drop(connection.name)
                self.world.store.delete("connection", key)
        return Answer(200)

    # Service configurations

    def _configuration_path(self, context: Context) -> str:
        return f"{self._endpoint_path(context)}/serviceConfigurations/{context.params['serviceconfigurations']}"

    def _configuration(self, context: Context) -> dict[str, Any]:
        self._endpoint(context)
        configuration = self.world.get(self._configuration_path(context))
        if configuration is None:
            name = f"{context.params['endpoints']}/serviceConfigurations/{context.params['serviceconfigurations']}"
            raise not_found(f"{NAMESPACE}/endpoints", name, context.params["group"])
        return configuration

    def get_configuration(self, context: Context) -> Answer:
        return Answer(200, self._configuration(context))

    def list_configurations(self, context: Context) -> Answer:
        endpoint = self._endpoint(context)
        keys = self.world.children(endpoint["id"], SERVICE_CONFIGURATIONS)
        return self.services.page(context, keys, self._listed)

    def _listed(self, key: str) -> dict[str, Any]:
        configuration = self.world.resources[key]
        path = configuration["id"].replace("/serviceConfigurations/", "/serviceconfigurations/")
        return {**configuration, "id": path}

    def put_configuration(self, context: Context) -> Answer:
        machine = self.services.machine(context)
        name = context.params["serviceconfigurations"]
        endpoint = self.world.get(self._endpoint_path(context))
        if endpoint is None:
            raise parent_not_found(f"{NAMESPACE}/endpoints/serviceConfigurations", self._endpoint_path(context))
        properties = properties_of(body_of(context))
        service = expect(properties, "serviceName", str, required=True)
        if service not in SERVICES:
            raise invalid(
                f"The value '{service}' of 'serviceName' is none of {', '.join(SERVICES)}.", "properties.serviceName"
            )
        if name.lower() != service.lower():
            raise invalid(
                f"The service configuration '{name}' has to be named after its service '{service}'.",
                "properties.serviceName",
            )
        port = _port(properties)
        path = f"{endpoint['id']}/serviceConfigurations/{service}"
        existing = self.world.get(path)
        configuration = self.world.put(
            path,
            {
                "id": path,
                "name": service,
                "type": f"{NAMESPACE}/endpoints/serviceConfigurations",
                "properties": {
                    "serviceName": service,
                    "port": 22 if port is None and service == "SSH" else 6516 if port is None else port,
                    "provisioningState": "Succeeded",
                },
                "systemData": _system_data(context, existing),
            },
        )
        self._restart_listener(machine["id"].lower(), context.now)
        return Answer(200 if existing else 201, configuration)

    def update_configuration(self, context: Context) -> Answer:
        configuration = self._configuration(context)
        properties = properties_of(body_of(context), required=False)
        if unknown := sorted(set(properties) - {"port"}):
            raise invalid(
                f"Only 'port' of a service configuration can be updated, not {', '.join(unknown)}.", "properties"
            )
        port = _port(properties)
        if port is not None:
            configuration["properties"]["port"] = port
        configuration["systemData"] = _system_data(context, configuration)
        self.world.put(configuration["id"], configuration)
        self._restart_listener(machine_path(context).lower(), context.now)
        return Answer(200, configuration)

    def delete_configuration(self, context: Context) -> Answer:
        self.services.machine(context)
        return Answer(200 if self.world.delete(self._configuration_path(context)) else 204)

    # Credentials

    def list_credentials(self, context: Context) -> Answer:
        endpoint, service, configuration = self._asked_service(context)
        if endpoint["properties"]["type"] != "default":
            raise ArmFailure(400, "BadRequest", "Credentials are only given for endpoints of type 'default'.")
        key = machine_path(context).lower()
        connection = self._connection(key) or self._mint(key, context.now)
        port = configuration["properties"]["port"] if configuration else None
        expires_on = int(context.now + self._lifetime(context))
        relay = self.services.relay.credentials(
            connection, service_name=service, port=port, expires_on=expires_on, authority=self.services.authority
        )
        return Answer(200, {"relay": relay})

    def list_ingress(self, context: Context) -> Answer:
        answer = self.list_credentials(context)
        answer.body["ingress"] = {
            "hostname": f"{context.params['machines'].lower()}.ingress.invalid",
            "aadProfile": {"serverId": "6256c85f-0aad-4d50-b960-e6e9b21efe35", "tenantId": self.world.tenant},
        }
        return answer

    def list_proxy(self, context: Context) -> Answer:
        body = context.body if isinstance(context.body, dict) else {}
        service = body.get("service")
        if not isinstance(service, str) or not service:
            raise invalid("The request content was invalid: property 'service' is required.", "service")
        self._asked_service(context)
        hostname = body.get("hostname") or "r.proxy.arc.invalid"
        return Answer(
            200, {"proxy": f"{uuid.uuid4().hex}.{hostname}", "expiresOn": int(context.now) + LIFETIME_MAXIMUM}
        )

    def _asked_service(self, context: Context) -> tuple[dict[str, Any], str | None, dict[str, Any] | None]:
        """The endpoint, the service that the body names, and that service's configuration."""
        endpoint = self._endpoint(context)
        body = context.body if context.body is not None else {}
        if not isinstance(body, dict):
            raise invalid("The request content was invalid: a JSON object is required.")
        service = body.get("serviceName")
        if service is None:
            return endpoint, None, None
        if service not in SERVICES:
            raise invalid(f"The value '{service}' of 'serviceName' is none of {', '.join(SERVICES)}.", "serviceName")
        configuration = self.world.get(f"{endpoint['id']}/serviceConfigurations/{service}")
        if configuration is None:
            raise ArmFailure(
                412,
                "PreconditionFailed",
                f"The service configuration for service '{service}' does not exist on endpoint '{endpoint['name']}'. "
                "Create "
                "it before asking for credentials.",
            )
        return endpoint, service, configuration

    def _lifetime(self, context: Context) -> float:
        given = next((value for name, value in context.query.items() if name.lower() == "expiresin"), None)
        seconds = LIFETIME_DEFAULT
        if given is not None:
            if not given.lstrip("-").isdigit():
                raise ArmFailure(
                    400, "InvalidParameter", f"The value '{given}' of 'expiresin' is no integer.", target="expiresin"
                )
            seconds = int(given)
        if not LIFETIME_MINIMUM <= seconds <= LIFETIME_MAXIMUM:
            raise ArmFailure(
                400,
                "InvalidParameter",
                f"The value '{seconds}' of 'expiresin' is not between {LIFETIME_MINIMUM} and {LIFETIME_MAXIMUM}.",
                target="expiresin",
            )
        cap = self.services.options.credential_lifetime
        return seconds if cap is None else min(float(seconds), cap)

    # Hybrid connections

    def _connection(self, machine_key: str) -> HybridConnection | None:
        name = self.world.connection_names.get(machine_key)
        return self.services.relay.connections.get(name) if name else None

    def _mint(self, machine_key: str, now: float) -> HybridConnection:
        old = self._connection(machine_key)
        if old is not None:
            self.services.relay.drop(old.name)
        connection = self.services.relay.mint(machine_key, now)
        self._keep(connection)
        return connection

    def _restart_listener(self, machine_key: str, now: float) -> None:
        connection = self._connection(machine_key)
        if connection is not None:
            connection.created_at = now
            self._keep(connection)

    def _keep(self, connection: HybridConnection) -> None:
        if connection.machine_id is not None:
            self.world.connection_names[connection.machine_id] = connection.name
            self.world.store.save("connection", connection.machine_id, connection.to_json())

    def list_operations(self, context: Context) -> Answer:
        verbs = {
            "endpoints/read": "Get the endpoint to the resource.",
            "endpoints/write": "Create or update the endpoint to the target resource.",
            "endpoints/delete": "Deletes the endpoint access to the target resource.",
            "endpoints/listCredentials/action": "Gets the endpoint access credentials to the resource.",
            "endpoints/serviceConfigurations/read": "Gets the details about the service to the resource.",
            "endpoints/serviceConfigurations/write": "Create or update a service of the endpoint.",
            "endpoints/serviceConfigurations/delete": "Deletes the service details to the target resource.",
        }
        return Answer(
            200,
            {
                "value": [
                    {
                        "name": f"{NAMESPACE}/{verb}",
                        "isDataAction": False,
                        "display": {
                            "provider": NAMESPACE,
                            "resource": verb.rsplit("/", 1)[0],
                            "operation": text,
                            "description": text,
                        },
                    }
                    for verb, text in verbs.items()
                ]
            },
        )


def _endpoint_properties(properties: dict[str, Any], name: str) -> dict[str, Any]:
    """The writable properties of an endpoint, checked against its name."""
    kind = expect(properties, "type", str, required=True)
    if kind not in ("default", "custom"):
        raise invalid(f"The value '{kind}' of 'type' is neither 'default' nor 'custom'.", "properties.type")
    if (kind == "default") != (name.lower() == "default"):
        raise ArmFailure(
            400, "InvalidResourceName", f"An endpoint of type '{kind}' cannot be named '{name}'.", target="endpointName"
        )
    if kind == "default":
        return {"type": kind}
    resource_id = expect(properties, "resourceId", str, required=True)
    return {"type": kind, "resourceId": resource_id}


def _port(properties: dict[str, Any]) -> int | None:
    port: int | None = expect(properties, "port", int)
    if port is not None and not 1 <= port <= 65535:
        raise invalid(f"The value '{port}' of 'port' is not between 1 and 65535.", "properties.port")
    return port


def _system_data(context: Context, existing: dict[str, Any] | None) -> dict[str, Any]:
    now = stamp(context.now)
    who = {"By": context.principal_id, "ByType": "Application", "At": now}
    created = (existing or {}).get("systemData") or {f"created{name}": value for name, value in who.items()}
    return {
        **{name: value for name, value in created.items() if name.startswith("created")},
        **{f"lastModified{name}": value for name, value in who.items()},
    }
