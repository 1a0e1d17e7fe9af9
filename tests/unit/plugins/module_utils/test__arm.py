# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the door to ARM do with throttling, faults, challenges, pages and long-running operations?

The answers are scripted below `requests`, so that azure-core's own policies take part.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from datetime import UTC, datetime

import pytest
import requests
import responses
from azure.core.credentials import AccessToken
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

from ansible_collections.arcfleet.ssh.plugins.module_utils import _arm
from ansible_collections.arcfleet.ssh.plugins.module_utils._arm import Arm
from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import CLOUDS
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError, ConnectionFailed, OperationTimeout
from ansible_collections.arcfleet.ssh.plugins.module_utils._pacing import Pace

BASE = "https://management.azure.com"
URL = f"{BASE}/thing"
VERSION = "2023-03-15"


class Credential:
    """A TokenSource without a login."""

    cloud = CLOUDS["azurecloud"]

    def __init__(self):
        self.claims = []
        self.forgotten = []

    def get_token(self, *scopes, claims=None, **kwargs):
        self.claims.append(claims)
        return AccessToken(f"token{len(self.claims)}", int(time.time()) + 3600)

    def forget(self, refused):
        self.forgotten.append(refused)


@pytest.fixture
def slept():
    """The sleeps that were asked for; none takes time, but the clock of the run moves."""
    return []


@pytest.fixture
def arm(slept, monkeypatch):
    monkeypatch.setattr(_arm.time, "monotonic", lambda: sum(slept))
    with responses.RequestsMock() as script:
        credential = Credential()
        door = Arm(credential, pace=Pace(clock=lambda: sum(slept), pause=slept.append))
        door.script, door.login = script, credential
        yield door
        door.close()


def answer(arm, method, status=200, body=None, url=URL, **headers):
    text = "" if status == 204 else json.dumps(body if body is not None else {})
    arm.script.add(method, url, body=text, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def error(code):
    return {"error": {"code": code, "message": f"{code} happened"}}


def test_a_request_carries_version_token_and_name(arm):
    answer(arm, "GET", body={"a": 1})
    assert arm.get("/thing", VERSION, query={"q": "x y"}, doing="x: cannot") == {"a": 1}
    sent = arm.script.calls[0].request
    assert sent.url == f"{URL}?q=x%20y&api-version={VERSION}"
    assert sent.headers["Authorization"] == "Bearer token1"
    assert sent.headers["User-Agent"].startswith("arcfleet.ssh")
    assert sent.headers["x-ms-client-request-id"]


@pytest.mark.parametrize("code", ["ResourceNotFound", "NotFound", "ParentResourceNotFound"])
def test_absent_is_none(arm, code):
    answer(arm, "GET", 404, error(code))
    assert arm.get("/thing", VERSION, doing="x: cannot read") is None


@pytest.mark.parametrize("code", ["SubscriptionNotFound", "ResourceGroupNotFound", "InvalidResourceType"])
def test_a_wrong_scope_is_no_absence(arm, code):
    answer(arm, "GET", 404, error(code))
    with pytest.raises(ArmError) as caught:
        arm.get("/thing", VERSION, doing="x: cannot read")
    assert caught.value.code == code


def test_retry_after_is_honoured_on_every_status(arm, slept):
    answer(arm, "GET", 429, error("TooManyRequests"), Retry_After="7")
    answer(arm, "GET", 503, error("Unavailable"), Retry_After="3")
    answer(arm, "GET", 409, error("Busy"), Retry_After="2")
    answer(arm, "GET", 200, {"ok": True})
    assert arm.get("/thing", VERSION, doing="x: cannot") == {"ok": True}
    assert slept == [7, 3, 2]


def test_a_write_that_was_refused_goes_again(arm, slept):
    answer(arm, "PUT", 429, error("TooManyRequests"), Retry_After="7")
    answer(arm, "PUT", 409, error("Busy"), Retry_After="2")
    answer(arm, "PUT", 200, {"ok": True})
    assert arm.put("/thing", VERSION, {"b": 1}, doing="x: cannot") == {"ok": True}
    assert slept == [7, 2]
    assert [call.request.body for call in arm.script.calls] == ['{"b": 1}'] * 3


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_write_of_unknown_fate_is_left_to_whoever_can_read_first(arm, slept, status, method):
    answer(arm, method, status, error("Moment"), Retry_After="9")
    with pytest.raises(ArmError) as caught:
        arm.put("/thing", VERSION, {}, doing="x: cannot") if method == "PUT" else arm.delete(
            "/thing", VERSION, doing="x"
        )
    assert caught.value.uncertain and caught.value.retry_after == 9
    assert slept == [] and len(arm.script.calls) == 1


@pytest.mark.parametrize(
    "fault",
    [
        requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104, "reset"))),
        requests.ReadTimeout("slow"),
    ],
)
def test_a_write_without_an_answer_is_uncertain(arm, fault):
    arm.script.add("PUT", URL, body=fault)
    with pytest.raises(ConnectionFailed) as caught:
        arm.put("/thing", VERSION, {}, doing="x: cannot")
    assert caught.value.uncertain and len(arm.script.calls) == 1


def test_a_write_that_was_never_sent_goes_again(arm):
    refused = NewConnectionError(None, "refused")
    arm.script.add("PUT", URL, body=requests.ConnectionError(MaxRetryError(None, URL, refused)))
    answer(arm, "PUT", 200, {"ok": True})
    assert arm.put("/thing", VERSION, {"b": 1}, doing="x: cannot") == {"ok": True}


def test_a_broken_answer_to_a_write_leaves_it_uncertain(arm):
    arm.script.add("PUT", URL, body='{"half": ')
    with pytest.raises(ConnectionFailed) as caught:
        arm.put("/thing", VERSION, {}, doing="x: cannot")
    assert caught.value.uncertain


def test_hours_are_not_waited(arm, slept):
    answer(arm, "GET", 429, error("TooManyRequests"), Retry_After="3600")
    with pytest.raises(ArmError) as caught:
        arm.get("/thing", VERSION, doing="web01: cannot read it")
    assert "3600 s" in caught.value.hint and slept == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_faults_of_the_moment_are_retried_with_back_off(arm, slept, status, method):
    for _time in range(4):
        answer(arm, method, status, error("Moment"))
    answer(arm, method, 200, {"ok": True})
    call = arm.get if method == "GET" else arm.post
    assert call("/thing", VERSION, doing="x: cannot") == {"ok": True}
    assert slept == sorted(slept) and slept[-1] > slept[0] > 0


def test_resets_are_retried(arm, slept):
    for fault in (
        requests.ConnectionError("reset"),
        requests.exceptions.ChunkedEncodingError("broken body"),
        requests.ReadTimeout("slow"),
    ):
        arm.script.add("GET", URL, body=fault)
    answer(arm, "GET", 200, {"ok": True})
    assert arm.get("/thing", VERSION, doing="x: cannot") == {"ok": True}


def test_no_answer_at_all_is_a_sentence(arm):
    arm.script.add("GET", URL, body=requests.ConnectionError("Name or service not known"))
    with pytest.raises(ConnectionFailed) as caught:
        arm.get("/thing", VERSION, doing="web01: cannot read it")
    assert str(caught.value).startswith("web01: cannot read it: no answer from https://management.azure.com: ")
    assert "HTTPS_PROXY" in caught.value.hint


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_what_azure_means_is_not_retried(arm, slept, status):
    answer(arm, "PUT", status, error("Meant"), x_ms_request_id="req-7")
    with pytest.raises(ArmError) as caught:
        arm.put("/thing", VERSION, {}, doing="x: cannot")
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "Meant", "req-7")
    assert slept == [] and len(arm.script.calls) == 1


def test_an_unregistered_provider_is_not_registered_behind_the_users_back(arm):
    answer(arm, "GET", 409, error("MissingSubscriptionRegistration"))
    with pytest.raises(ArmError):
        arm.get("/subscriptions/s/thing".replace("/subscriptions/s", ""), VERSION, doing="x: cannot")
    assert [call.request.method for call in arm.script.calls] == ["GET"]


def test_the_challenge_of_continuous_access_evaluation_is_answered(arm):
    claims = base64.b64encode(b'{"access_token":{"nbf":{"value":"1"}}}').decode()
    answer(arm, "GET", 401, error("Revoked"), WWW_Authenticate=f'Bearer error="insufficient_claims", claims="{claims}"')
    answer(arm, "GET", 200, {"ok": True})
    assert arm.get("/thing", VERSION, doing="x: cannot") == {"ok": True}
    assert arm.login.claims[-1] == '{"access_token":{"nbf":{"value":"1"}}}'


def test_a_token_refused_without_a_challenge_is_replaced_once(arm):
    answer(arm, "GET", 401, error("ExpiredAuthenticationToken"))
    answer(arm, "GET", 200, {"ok": True})
    assert arm.get("/thing", VERSION, doing="x: cannot") == {"ok": True}
    assert arm.login.forgotten == ["Bearer token1"]


def test_new_tokens_that_are_refused_as_well_end_it(arm):
    answer(arm, "GET", 401, error("InvalidAuthenticationToken"))
    with pytest.raises(ArmError) as caught:
        arm.get("/thing", VERSION, doing="x: cannot")
    assert caught.value.status == 401 and len(arm.script.calls) == 3


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]", b'{"a": '])
def test_an_answer_that_is_no_object_is_told(arm, body):
    arm.script.add("GET", URL, body=body, status=200)
    with pytest.raises(ConnectionFailed):
        arm.get("/thing", VERSION, doing="x: cannot")


def test_a_404_that_is_not_arms_is_no_absence(arm):
    arm.script.add("GET", URL, body=b"<html>\xff no such page</html>", status=404)
    with pytest.raises(ConnectionFailed):
        arm.get("/thing", VERSION, doing="x: cannot")


def test_pages_are_followed_verbatim(arm):
    answer(arm, "GET", body={"value": [{"n": 1}, {"n": 2}], "nextLink": f"{BASE}/next?%24skiptoken=a%2Bb"})
    answer(arm, "GET", body={"value": [{"n": 3}]}, url=f"{BASE}/next")
    assert [item["n"] for item in arm.pages("/thing", VERSION, doing="x: cannot")] == [1, 2, 3]
    assert arm.script.calls[1].request.url == f"{BASE}/next?%24skiptoken=a%2Bb"


@pytest.mark.parametrize("bad", [{"status": 403, "body": error("Forbidden")}, {"body": {"values": []}}])
def test_a_list_is_never_silently_short(arm, bad):
    answer(arm, "GET", body={"value": [{"n": 1}], "nextLink": f"{BASE}/next"})
    answer(arm, "GET", url=f"{BASE}/next", **bad)
    with pytest.raises((ArmError, ConnectionFailed)):
        list(arm.pages("/thing", VERSION, doing="x: cannot"))


@pytest.mark.parametrize("status", [200, 202, 204, 404])
def test_delete(arm, status):
    answer(arm, "DELETE", status, error("ResourceNotFound") if status == 404 else None)
    arm.delete("/thing", VERSION, doing="x: cannot")


def put_and_wait(arm, timeout=600.0):
    return arm.put_and_wait("/thing", VERSION, {"b": 1}, doing="web01: cannot create it", timeout=timeout)


def test_an_operation_by_azure_asyncoperation(arm, slept):
    operation = f"{BASE}/operations/1"
    answer(arm, "PUT", 202, Azure_AsyncOperation=operation, Location=f"{BASE}/wrong")
    answer(arm, "GET", body={"status": "InProgress"}, url=operation, Retry_After="200")
    answer(arm, "GET", body={"status": "Succeeded"}, url=operation)
    answer(arm, "GET", body={"ok": True})
    assert put_and_wait(arm) == {"ok": True}
    assert slept == [200]


def test_an_operation_by_location(arm, slept):
    location = f"{BASE}/results/1"
    answer(arm, "PUT", 202, Location=location, Retry_After="5")
    answer(arm, "GET", 202, url=location, Retry_After="4")
    answer(arm, "GET", 200, {"ignored": True}, url=location)
    answer(arm, "GET", body={"ok": True})
    assert put_and_wait(arm) == {"ok": True}
    assert slept[-1] == 4


def test_an_operation_by_provisioning_state(arm):
    answer(arm, "PUT", 201, {"properties": {"provisioningState": "Creating"}})
    answer(arm, "GET", body={"properties": {"provisioningState": "Creating"}})
    answer(arm, "GET", body={"properties": {"provisioningState": "Succeeded"}})
    answer(arm, "GET", body={"ok": True})
    assert put_and_wait(arm) == {"ok": True}


def test_an_operation_that_fails_tells_why(arm):
    operation = f"{BASE}/operations/1"
    answer(arm, "PUT", 202, Azure_AsyncOperation=operation)
    answer(arm, "GET", body={"status": "Failed", **error("VMExtensionProvisioningError")}, url=operation)
    with pytest.raises(ArmError) as caught:
        put_and_wait(arm)
    assert caught.value.message.startswith("web01: cannot create it: Azure reports VMExtensionProvisioningError: ")


def test_an_operation_that_does_not_end_is_left(arm, slept):
    operation = f"{BASE}/operations/1"
    answer(arm, "PUT", 202, Azure_AsyncOperation=operation)
    answer(arm, "GET", body={"status": "InProgress"}, url=operation)
    with pytest.raises(OperationTimeout) as caught:
        put_and_wait(arm, timeout=25)
    assert "within 25 s" in str(caught.value)
    assert sum(slept) == 25


def test_nothing_secret_is_told_when_the_body_repeats_it(arm):
    answer(arm, "GET", 400, {"error": {"code": "Bad", "message": "token eyJ0eXAi.eyJhdWQi.c2ln is bad"}})
    with pytest.raises(ArmError) as caught:
        arm.get("/thing", VERSION, doing="x: cannot")
    assert "eyJhdWQi" not in json.dumps(caught.value.failure())


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environment_is_read_once(monkeypatch, variable):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/ca.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    session = _arm._session(BASE, 8)
    monkeypatch.delenv("HTTPS_PROXY")
    assert session.verify == "/ca.pem"
    assert session.proxies["https"] == "http://proxy.example:3128"
    assert session.trust_env is False


def test_a_proxy_is_not_used_where_it_is_excluded(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "management.azure.com")
    assert "https" not in _arm._session(BASE, 8).proxies


def test_an_answer_that_was_mangled_on_its_way_is_asked_for_again(arm, slept):
    for body in ("<html>busy</html>", "[]", '{"half": '):
        arm.script.add("GET", URL, body=body)
    answer(arm, "GET", 200, {"ok": True})
    assert arm.get("/thing", VERSION, doing="x: cannot") == {"ok": True}
    assert slept == [1, 2, 4]


def test_the_time_of_azure_is_that_of_its_latest_answer_and_no_proxys(arm):
    known = []
    for status, more in (
        (200, {"x_ms_request_id": "1", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}),
        (403, {"x_ms_request_id": "2", "Date": "Sat, 21 Nov 2026 10:00:07 GMT"}),
        (404, {"Date": "Sat, 21 Nov 2020 10:00:08 GMT"}),
        (200, {"x_ms_request_id": "3", "Date": "noon"}),
        (200, {"x_ms_request_id": "4"}),
    ):
        arm.script.reset()
        known.append(arm.azure_time)
        answer(arm, "GET", status, error("ResourceNotFound") if status == 404 else {}, **more)
        with contextlib.suppress(ArmError):
            arm.get("/thing", VERSION, doing="x: cannot read")
    told = [datetime(2026, 11, 21, 10, 0, second, tzinfo=UTC) for second in (0, 7)]
    assert [*known, arm.azure_time] == [None, told[0], *[told[1]] * 4]
