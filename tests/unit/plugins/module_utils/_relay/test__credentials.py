# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are relay credentials checked, kept, renewed in time and asked for once?"""

from __future__ import annotations

import base64
import json
import pathlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from relay_double import ACCESS_KEY, CONNECTION, MACHINE, SERVICE_TOKEN, make_credentials

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ArmError, arm_error
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _credentials
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache

ID = MachineId.parse(MACHINE)


class FakeArm:
    """Answers listCredentials and counts."""

    def __init__(self, *, failure: ArmError | None = None, life: int = 10800, delay: float = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure = failure
        self.life = life
        self.delay = delay

    def post(
        self,
        path: str,
        api_version: str,
        body: Mapping[str, Any],
        *,
        query: Mapping[str, str],
        doing: str,
    ) -> dict[str, Any]:
        self.calls.append((path, api_version, dict(body), dict(query), doing))
        time.sleep(self.delay)
        if self.failure:
            raise self.failure
        return {"relay": make_credentials(1000 + len(self.calls), life=self.life).relay()}


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(str(tmp_path / "relay"))


def relay(**changes: Any) -> dict[str, Any]:
    good = make_credentials().relay()
    return {"relay": {key: value for key, value in {**good, **changes}.items() if value is not ...}}


def test_answer_is_understood() -> None:
    credentials = _credentials.parse(relay(expiresOn=1620000256), "web01", 1620000000)
    assert credentials.host == "127.0.0.1:443"
    assert (credentials.access_key, credentials.service_token) == (ACCESS_KEY, SERVICE_TOKEN)
    assert (credentials.expires_on, credentials.obtained_on) == (1620000256, 1620000000)
    assert credentials.public() == {
        "expires_on": 1620000256,
        "relay_host": "127.0.0.1:443",
        "hybrid_connection_name": CONNECTION,
    }
    assert "HUSH" not in repr(credentials)
    assert "HUSH" not in json.dumps(credentials.public())


def test_missing_expiry_counts_as_the_shortest_life() -> None:
    assert _credentials.parse(relay(expiresOn=...), "web01", 1000).expires_on == 1600


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({}, "relay"),
        ([], "relay"),
        ({"relay": None}, "relay"),
        (relay(namespaceName="evil.example/x?"), "namespaceName"),
        (relay(namespaceName="a@b"), "namespaceName"),
        (relay(namespaceNameSuffix=...), "namespaceNameSuffix"),
        (relay(hybridConnectionName="a b"), "hybridConnectionName"),
        (relay(hybridConnectionName="a\r\nX: y"), "hybridConnectionName"),
        (relay(hybridConnectionName="a?sb-hc-token=b"), "hybridConnectionName"),
        (relay(accessKey="a\r\nHost: b"), "accessKey"),
        (relay(accessKey=""), "accessKey"),
        (relay(accessKey=...), "accessKey"),
        (relay(serviceConfigurationToken=...), "serviceConfigurationToken"),
        (relay(serviceConfigurationToken=None), "serviceConfigurationToken"),
        (relay(serviceConfigurationToken="ü"), "serviceConfigurationToken"),
        (relay(expiresOn="soon"), "expiresOn"),
        (relay(expiresOn=True), "expiresOn"),
    ],
)
def test_optional_or_poisoned_fields_are_named(answer: Any, field: str) -> None:
    with pytest.raises(ArcError, match=rf"^web01: .* no usable {field}\.") as refused:
        _credentials.parse(answer, "web01", 0)
    assert "HUSH" not in str(refused.value)


@pytest.mark.parametrize(
    ("life", "age", "minimum", "good"),
    [
        (10800, 10199, None, True),
        (10800, 10201, None, False),
        (600, 539, None, True),
        (600, 541, None, False),
        (10800, 3599, 7200, True),
        (10800, 3601, 7200, False),
        (10800, 1079, 10800, True),
        (10800, 1081, 10800, False),
        (600, 59, 3600, True),
        (600, 61, 3600, False),
    ],
)
def test_margin(life: int, age: int, minimum: int | None, good: bool) -> None:
    assert make_credentials(now=1000, life=life).lasts(1000 + age, minimum) is good


def test_request_is_the_documented_one_and_its_answer_is_kept(cache: Cache) -> None:
    arm = FakeArm()
    fetched, was_fetched = _credentials.ensure(lambda: arm, cache, ID, "SSH")
    assert was_fetched
    assert arm.calls == [
        (
            f"{MACHINE}/providers/Microsoft.HybridConnectivity/endpoints/default/listCredentials",
            "2023-03-15",
            {"serviceName": "SSH"},
            {"expiresin": "10800"},
            "web01: cannot get the relay credentials",
        )
    ]
    assert _credentials.ensure(lambda: arm, cache, ID, "SSH") == (fetched, False)
    assert _credentials.load(cache, MACHINE.upper(), "SSH", "https://x/") is None
    assert _credentials.load(cache, MACHINE.upper(), "SSH", "AZURECLOUD") == fetched
    assert len(arm.calls) == 1


def test_cached_credentials_need_no_login(cache: Cache) -> None:
    _credentials.ensure(FakeArm, cache, ID, "SSH")

    def log_in() -> Any:
        raise AssertionError("no login is needed")

    assert not _credentials.ensure(log_in, cache, ID, "SSH")[1]


def test_service_and_cloud_have_credentials_of_their_own(cache: Cache) -> None:
    arm = FakeArm()
    for service, cloud in (
        ("SSH", "AzureCloud"),
        ("WAC", "AzureCloud"),
        ("SSH", "https://arm.local/"),
        ("SSH", "azurecloud"),
    ):
        _credentials.ensure(lambda: arm, cache, ID, service, cloud=cloud)
    assert len(arm.calls) == 3


def test_expiry_force_and_minimum_life_fetch_anew(cache: Cache) -> None:
    arm = FakeArm(life=3600)
    first, _dummy = _credentials.ensure(lambda: arm, cache, ID, "SSH")
    assert not _credentials.ensure(lambda: arm, cache, ID, "SSH", minimum_life=3000)[1]
    second, forced = _credentials.ensure(lambda: arm, cache, ID, "SSH", force=True)
    assert forced
    assert second != first
    old = make_credentials(now=time.time() - 10500)
    cache.write(
        _credentials.file_name(ID.key, "SSH", "AzureCloud"),
        {"version": 1, "subject": [ID.key, "SSH", "azurecloud"], "obtained_on": old.obtained_on, "relay": old.relay()},
    )
    assert _credentials.load(cache, ID.key, "SSH", "AzureCloud") == old
    assert _credentials.ensure(lambda: arm, cache, ID, "SSH")[1]


def test_refused_credentials_are_replaced_once(cache: Cache) -> None:
    arm = FakeArm()
    refused, _dummy = _credentials.ensure(lambda: arm, cache, ID, "SSH")
    renewed, fetched = _credentials.ensure(lambda: arm, cache, ID, "SSH", refused=refused)
    assert fetched
    # Another helper with the same refused ones finds what this one fetched.
    assert _credentials.ensure(lambda: arm, cache, ID, "SSH", refused=refused) == (renewed, False)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"subject": ["another", "SSH", "azurecloud"]},
        {"obtained_on": None},
        {"obtained_on": True},
        {"relay": {}},
        {"relay": {**make_credentials().relay(), "accessKey": "a\nb"}},
    ],
)
def test_files_that_are_not_ours_are_ignored(cache: Cache, change: dict[str, Any]) -> None:
    _credentials.ensure(FakeArm, cache, ID, "SSH")
    name = _credentials.file_name(ID.key, "SSH", "AzureCloud")
    cache.write(name, {**(cache.read(name) or {}), **change})
    assert _credentials.load(cache, ID.key, "SSH", "AzureCloud") is None
    assert _credentials.ensure(FakeArm, cache, ID, "SSH")[1]


def test_many_at_once_make_one_request(cache: Cache) -> None:
    arm = FakeArm(delay=0.05)
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(_credentials.ensure(lambda: arm, cache, ID, "SSH")[1]))
        for _dummy in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 15 + [True]
    assert len(arm.calls) == 1


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (404, "ResourceNotFound", "arcfleet.ssh.enable"),
        (404, "SubscriptionNotFound", "Check the subscription id"),
        (412, "PreconditionFailed", "service configuration for SSH is missing"),
        (403, "AuthorizationFailed", "Virtual Machine Local User Login"),
        (403, "AuthorizationFailed", "Microsoft.HybridConnectivity/endpoints/listCredentials/action"),
        (409, "MissingSubscriptionRegistration", "arcfleet.ssh.arc_resource_provider"),
        (429, "TooManyRequests", "throttles"),
    ],
)
def test_refusals_of_arm_say_what_to_do(cache: Cache, status: int, code: str, advice: str) -> None:
    body = {"error": {"code": code, "message": "No."}}
    arm = FakeArm(failure=arm_error("web01: cannot get the relay credentials", status, body, "r1"))
    with pytest.raises(ArmError) as refused:
        _credentials.ensure(lambda: arm, cache, ID, "SSH")
    assert str(refused.value).startswith(f"web01: cannot get the relay credentials: Azure answers {status} {code}: No.")
    assert advice in str(refused.value)
    assert _credentials.load(cache, ID.key, "SSH", "AzureCloud") is None


def test_fields_for_the_proxy_binary_have_azures_names() -> None:
    blob = base64.b64encode(json.dumps({"relay": make_credentials().relay()}).encode())
    assert set(json.loads(base64.b64decode(blob))["relay"]) == {
        "namespaceName",
        "namespaceNameSuffix",
        "hybridConnectionName",
        "accessKey",
        "expiresOn",
        "serviceConfigurationToken",
    }
