# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab tell what was changed as Azure does, minutes late, and does everything age when its clock is moved?

The collection's reader of the log is the client, through the real login; what it does not use is asked with plain HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ansible_collections.arcfleet.ssh.plugins.module_utils import _activity_log
from ansible_collections.arcfleet.ssh.plugins.module_utils._arm import Arm as Door
from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions, TokenSource
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError
from arclab.client import Lab, LabFailed
from arclab.ssh_certificates import CertificateRefused, SshCertificates
from on_lab import Arm

CONNECTIVITY, COMPUTE = "2024-12-01", "2025-01-13"
ENTRA = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
READABLE = 1201.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two machines; two events to a page, so that every reading takes several."""
    with Lab.up(
        tmp_path_factory.mktemp("lab") / "state", machines=2, operation_seconds=0.2, activity_page_size=2, throttle=True
    ) as found:
        yield found


@pytest.fixture
def door(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    for name, value in lab.env.items():
        monkeypatch.setenv(name, value)
    arm = Door(TokenSource(AuthOptions.from_params({})))
    yield arm
    arm.close()


def web01(lab: Lab, below: str = "") -> str:
    return str(lab.machine("web01")["id"]) + below


def endpoint(lab: Lab) -> str:
    return web01(lab, "/providers/Microsoft.HybridConnectivity/endpoints/default")


def subscription(lab: Lab) -> str:
    return lab.env["AZURE_SUBSCRIPTION_ID"]


def now(lab: Lab) -> datetime:
    return datetime.fromtimestamp(lab.time(), UTC)


def told(lab: Lab, door: Door, since: datetime) -> list[tuple[str, str]]:
    """What the collection reads, by time: the operation and its status."""
    found = reversed(list(_activity_log.events(door, subscription(lab), since, now(lab))))
    return [(event.operation, event.status) for event in sorted(found, key=lambda event: event.timestamp)]


def raw(lab: Lab, since: datetime, **query: str) -> requests.Response:
    span = f"eventTimestamp ge '{since:%Y-%m-%dT%H:%M:%S.%fZ}' and eventTimestamp le '{now(lab):%Y-%m-%dT%H:%M:%S.%fZ}'"
    return Arm(lab).session.get(
        f"{lab.url}/subscriptions/{subscription(lab)}/providers/Microsoft.Insights/eventtypes/management/values",
        params={"api-version": "2015-04-01", "$filter": span, **query},
    )


def dial(lab: Lab, relay: dict[str, Any]) -> connect:
    """A connection to port 22, as the wire protocol has it. Not the client of threads: where no answer comes, it waits for its own for ever."""
    return connect(
        f"{lab.url.replace('https', 'wss')}/$hc/{relay['hybridConnectionName']}?sb-hc-action=connect&sb-hc-id=1",
        additional_headers={
            "ServiceBusAuthorization": relay["accessKey"],
            "Service-Configuration-Token": relay["serviceConfigurationToken"],
            "Microsoft-Guestgateway-Target": "localhost:22",
        },
        ssl=ssl.create_default_context(cafile=lab.env["REQUESTS_CA_BUNDLE"]),
        compression=None,
        proxy=None,
    )


def test_every_change_is_told_once_it_is_readable_and_no_read_ever(lab: Lab, door: Door) -> None:
    since, arm = now(lab), Arm(lab)
    arm.ask("PUT", endpoint(lab), CONNECTIVITY, {"properties": {"type": "default"}})
    arm.ask("GET", endpoint(lab), CONNECTIVITY)
    refused = arm.session.put(
        f"{lab.url}{endpoint(lab)}?api-version={CONNECTIVITY}", json={"properties": {"type": "x"}}
    )
    assert refused.status_code == 400
    extension = web01(lab, "/extensions/Entra")
    arm.ask("PUT", extension, COMPUTE, {"location": lab.machine("web01")["location"], "properties": ENTRA})
    assert told(lab, door, since) == [], "an event is not readable at once"
    lab.advance(READABLE)
    Arm(lab).ask("DELETE", endpoint(lab), CONNECTIVITY)
    lab.advance(READABLE)
    write, added = "Microsoft.HybridConnectivity/endpoints/write", "Microsoft.HybridCompute/machines/extensions/write"
    assert told(lab, door, since) == [
        (write, "Started"),
        (write, "Succeeded"),
        (write, "Started"),
        (write, "Failed"),
        (added, "Started"),
        (added, "Accepted"),
        (added, "Succeeded"),
        ("Microsoft.HybridConnectivity/endpoints/delete", "Started"),
        ("Microsoft.HybridConnectivity/endpoints/delete", "Succeeded"),
    ]
    machines = {
        _activity_log.machine_of_event(event.resource_id)
        for event in _activity_log.events(door, subscription(lab), since, now(lab))
    }
    assert machines == {web01(lab).lower()}


def test_connecting_registering_and_roles_leave_events_too_and_one_operation_one_correlation(lab: Lab) -> None:
    since, arm = now(lab), Arm(lab)
    lab.drift(endpoint(lab), {"properties": {"type": "default"}}, logged=False)
    arm.ask("POST", f"{endpoint(lab)}/listCredentials", CONNECTIVITY, {})
    arm.ask(
        "POST", f"/subscriptions/{subscription(lab)}/providers/Microsoft.HybridConnectivity/unregister", "2021-04-01"
    )
    arm.ask("POST", f"/subscriptions/{subscription(lab)}/providers/Microsoft.HybridConnectivity/register", "2021-04-01")
    lab.advance(READABLE)
    events: list[dict[str, Any]] = []
    page = raw(lab, since, **{"$select": "operationName,correlationId,resourceId,status,eventTimestamp"}).json()
    while True:
        assert 0 < len(page["value"]) <= 2
        events += page["value"]
        if "nextLink" not in page:
            break
        page = Arm(lab).session.get(page["nextLink"]).json()
    assert [event["eventTimestamp"] for event in events] == sorted(
        (event["eventTimestamp"] for event in events), reverse=True
    )
    assert all(len(event) == 5 for event in events), "only what was selected"
    by_correlation: dict[str, list[tuple[str, str]]] = {}
    for event in reversed(events):
        line = (event["operationName"]["value"], event["status"]["value"])
        by_correlation.setdefault(event["correlationId"], []).append(line)
    provider = "Microsoft.HybridConnectivity"
    assert list(by_correlation.values()) == [
        [(f"{provider}/{operation}", "Started"), (f"{provider}/{operation}", "Succeeded")]
        for operation in ("endpoints/listCredentials/action", "unregister/action", "register/action")
    ]
    assert {event["resourceId"].rsplit("/", 1)[1] for event in events} == {"default", provider}


def test_a_colleagues_change_is_told_and_a_silent_one_is_not(lab: Lab, door: Door) -> None:
    since = now(lab)
    lab.drift(endpoint(lab), {"properties": {"type": "default"}}, logged=False)
    configuration = f"{endpoint(lab)}/serviceConfigurations/SSH"
    lab.drift(configuration, {"properties": {"serviceName": "SSH", "port": 22}})
    changed = lab.drift(configuration, {"properties": {"serviceName": "SSH", "port": 2222}}, logged=False)
    assert changed is not None and changed["properties"]["port"] == 2222
    assert lab.drift(endpoint(lab)) is None
    lab.advance(READABLE)
    assert told(lab, door, since) == [
        ("Microsoft.HybridConnectivity/endpoints/serviceConfigurations/write", "Started"),
        ("Microsoft.HybridConnectivity/endpoints/serviceConfigurations/write", "Succeeded"),
        ("Microsoft.HybridConnectivity/endpoints/delete", "Started"),
        ("Microsoft.HybridConnectivity/endpoints/delete", "Succeeded"),
    ]
    assert not [line for line in lab.journal(kind="arm", method="PUT") if line["path"] == configuration]
    with pytest.raises(LabFailed, match="ParentResourceNotFound"):
        lab.drift(configuration, {"properties": {"serviceName": "SSH", "port": 22}})
    with pytest.raises(LabFailed, match="no resource of this lab"):
        lab.drift("/nowhere")


def test_drift_of_an_extension_is_there_at_once(lab: Lab) -> None:
    extension = web01(lab, "/extensions/Drifted")
    found = lab.drift(web01(lab, "/extensions/Entra"))
    assert found is None
    body = {"location": lab.machine("web01")["location"], "properties": ENTRA}
    found = lab.drift(extension, body)
    assert found is not None and found["properties"]["provisioningState"] == "Succeeded"
    failed = lab.drift(extension, body, fails={"code": "HCRP500", "message": "No space is left."}, logged=False)
    assert failed is not None and failed["properties"]["provisioningState"] == "Failed"
    assert lab.drift(extension) is None


def test_only_the_documented_questions_are_answered(lab: Lab) -> None:
    for query in ({"$filter": "status eq 'Failed'"}, {"$filter": ""}, {"$select": "caller"}, {"$skipToken": "x"}):
        answer = raw(lab, now(lab) - timedelta(hours=1), **query)
        assert (answer.status_code, set(answer.json()["error"])) == (400, {"code", "message"}), query
    old = raw(lab, now(lab) - timedelta(days=91))
    assert old.status_code == 400 and "90 days" in old.json()["error"]["message"]


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        ({"roles": ["Reader"]}, True),
        ({"actions": ["Microsoft.Insights/eventtypes/values/read"]}, True),
        ({"actions": ["Microsoft.HybridConnectivity/*", "Microsoft.HybridCompute/*"]}, False),
    ],
)
def test_the_log_takes_a_right_on_the_subscription(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, rights: dict[str, list[str]], allowed: bool
) -> None:
    for name, value in lab.env_of(lab.principal("reader", **rights)).items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)
    door, since = Door(TokenSource(AuthOptions.from_params({}))), now(lab) - timedelta(hours=1)
    if allowed:
        list(_activity_log.events(door, subscription(lab), since, now(lab)))
    else:
        with pytest.raises(ArmError, match="Microsoft.Insights/eventtypes/values/read") as caught:
            list(_activity_log.events(door, subscription(lab), since, now(lab)))
        assert caught.value.status == 403


def test_when_the_clock_is_moved_answers_are_dated_by_it_and_tokens_are_expired(lab: Lab, door: Door) -> None:
    arm, path = Arm(lab), f"/subscriptions/{subscription(lab)}"
    arm.ask("GET", path, "2022-12-01")
    door.get(path, "2022-12-01", doing="cannot read")
    days = 30
    before = lab.time()
    assert lab.advance(days * 86400) == pytest.approx(before + days * 86400, abs=5)
    refused = arm.session.get(f"{lab.url}{path}?api-version=2022-12-01")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")
    dated = email.utils.parsedate_to_datetime(refused.headers["Date"])
    assert dated.timestamp() == pytest.approx(lab.time(), abs=5)
    assert door.get(path, "2022-12-01", doing="cannot read"), "the collection logs in again"
    assert door.azure_time is not None and abs(door.azure_time - dated) < timedelta(seconds=5)
    with pytest.raises(LabFailed, match="only goes forward"):
        lab.advance(-1)


def test_when_the_clock_is_moved_relay_credentials_are_expired_and_streams_go_on(lab: Lab) -> None:
    lab.drift(endpoint(lab), {"properties": {"type": "default"}})
    lab.drift(f"{endpoint(lab)}/serviceConfigurations/SSH", {"properties": {"serviceName": "SSH", "port": 22}})
    service = {"serviceName": "SSH"}
    old = Arm(lab).ask("POST", f"{endpoint(lab)}/listCredentials", CONNECTIVITY, service)["relay"]

    async def talk() -> None:
        async with dial(lab, old) as stream:
            assert bytes(await asyncio.wait_for(stream.recv(), 10)).startswith(b"SSH-2.0-")
            lab.advance(old["expiresOn"] - lab.time() + 1)
            await stream.send(b"SSH-2.0-test\r\n")
            assert await asyncio.wait_for(stream.recv(), 10), "the server goes on with its key exchange"
            with pytest.raises(InvalidStatus) as refused:
                await dial(lab, old)
        assert (refused.value.response.status_code, b"ExpiredToken" in (refused.value.response.body or b"")) == (
            403,
            True,
        )
        new = Arm(lab).ask("POST", f"{endpoint(lab)}/listCredentials", CONNECTIVITY, service)["relay"]
        async with dial(lab, new) as stream:
            assert bytes(await asyncio.wait_for(stream.recv(), 10)).startswith(b"SSH-2.0-")

    asyncio.run(talk())


def test_a_certificate_made_after_the_clock_was_moved_is_good_for_a_real_sshd() -> None:
    key = rsa.generate_private_key(65537, 2048)
    authority, public = SshCertificates(key, 3600), key.public_key().public_numbers()
    numbers = [
        base64.urlsafe_b64encode(one.to_bytes((one.bit_length() + 7) // 8, "big")).decode()
        for one in (public.n, public.e)
    ]
    kid = hashlib.sha256("".join(numbers).encode()).hexdigest()
    form = {"key_id": kid, "req_cnf": json.dumps({"kty": "RSA", "n": numbers[0], "e": numbers[1], "kid": kid})}
    ahead = time.time() + 30 * 86400
    blob = authority.issue(form, "someone", ahead)
    certificate = load_ssh_public_identity(f"ssh-rsa-cert-v01@openssh.com {blob}".encode())
    assert isinstance(certificate, SSHCertificate)
    assert certificate.valid_after < time.time() < certificate.valid_before
    assert authority.check(blob, "someone", ahead) == "someone"
    with pytest.raises(CertificateRefused, match="expired"):
        authority.check(blob, "someone", ahead + 3601)


def test_a_machine_that_appears_is_told_and_can_be_reached(lab: Lab, door: Door) -> None:
    since = now(lab)
    new = lab.onboard("new01", resource_group="arc-new", tags={"env": "prod"})
    assert (new["status"], new["resource_group"], new["tags"]) == ("Connected", "arc-new", {"env": "prod"})
    assert f"{new['id'].lower()} {new['host_key']}" in (lab.state_dir / "known_hosts").read_text()
    hung = f"{new['id']}/providers/Microsoft.HybridConnectivity/endpoints/default"
    lab.drift(hung, {"properties": {"type": "default"}}, logged=False)
    lab.drift(f"{hung}/serviceConfigurations/SSH", {"properties": {"serviceName": "SSH", "port": 22}}, logged=False)
    relay = Arm(lab).ask("POST", f"{hung}/listCredentials", CONNECTIVITY, {"serviceName": "SSH"})["relay"]

    async def banner() -> bytes:
        async with dial(lab, relay) as stream:
            return bytes(await asyncio.wait_for(stream.recv(), 10))

    assert asyncio.run(banner()).startswith(b"SSH-2.0-")
    lab.drift(new["id"])
    assert not lab.ask("/machines", name="new01")
    lab.advance(READABLE)
    assert told(lab, door, since) == [
        ("Microsoft.HybridCompute/machines/write", "Started"),
        ("Microsoft.HybridCompute/machines/write", "Succeeded"),
        ("Microsoft.HybridCompute/machines/delete", "Started"),
        ("Microsoft.HybridCompute/machines/delete", "Accepted"),
        ("Microsoft.HybridCompute/machines/delete", "Succeeded"),
    ]
    with pytest.raises(LabFailed, match="already"):
        lab.onboard("web01")


def test_when_the_clock_is_moved_buckets_are_full_and_operations_over(lab: Lab) -> None:
    arm = Arm(lab)
    header, path = "x-ms-ratelimit-remaining-subscription-reads", f"/subscriptions/{subscription(lab)}"
    for _number in range(30):
        answer = arm.session.get(f"{lab.url}{path}?api-version=2022-12-01")
    assert int(answer.headers[header]) < 245
    lab.advance(60)
    assert int(arm.session.get(f"{lab.url}{path}?api-version=2022-12-01").headers[header]) == 249
    extension = web01(lab, "/extensions/Slow")
    body = {"location": lab.machine("web01")["location"], "properties": ENTRA}
    arm.ask("PUT", extension, COMPUTE, body)
    lab.advance(1)
    assert arm.ask("GET", extension, COMPUTE)["properties"]["provisioningState"] == "Succeeded"


def test_the_clock_outlives_a_restart_and_the_log_too(start: Callable[..., Lab]) -> None:
    lab = start(machines=1)
    since = now(lab)
    lab.drift(endpoint(lab), {"properties": {"type": "default"}})
    before = lab.advance(86400)
    lab.down()
    again = Lab.up(lab.state_dir, machines=1)
    try:
        assert before <= again.time() < before + 60
        events = raw(again, since, **{"$select": "status"}).json()["value"]
        assert [event["status"]["value"] for event in events] == ["Succeeded", "Started"]
    finally:
        again.down()
