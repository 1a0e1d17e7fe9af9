# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does each failure that Azure knows become the behaviour of the reference and a sentence that helps?"""

from __future__ import annotations

import time

import pytest

from on_lab import module

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core


def ids(lab):
    return [machine["id"] for machine in lab.machines()]


def only_failure(result):
    assert result["failed"] and len(result["failures"]) == 1, result
    return next(iter(result["failures"].values()))["failure"]


def assert_helps(failure, machine):
    """Machine, action and remedy."""
    assert failure["message"].startswith(f"{machine}: cannot "), failure
    assert failure["hint"], failure


def test_forbidden_names_the_action(start):
    lab = start(machines=1)
    reader = lab.env_of(
        lab.principal(
            "reader",
            actions=["Microsoft.HybridConnectivity/endpoints/*/read", "Microsoft.HybridConnectivity/endpoints/read"],
        )
    )
    failure = only_failure(module(lab, "arc_ssh_service_config", machines=ids(lab), env=reader))
    assert_helps(failure, "web01")
    assert (failure["status"], failure["code"]) == (403, "AuthorizationFailed")
    assert "Microsoft.HybridConnectivity/endpoints/write" in failure["message"] and "role" in failure["hint"]


def test_one_forbidden_machine_stops_no_other(start):
    lab = start(machines=5)
    lab.fault(kind="arm", path="/machines/web02/", status=403, code="AuthorizationFailed", message="No.")
    result = module(lab, "arc_ssh_service_config", machines=ids(lab))
    assert result["failed"] and result["summary"]["created"] == 4 and result["summary"]["failed"] == 1
    assert result["msg"].startswith("1 of 5 machines failed. web02: ")
    tolerant = module(lab, "arc_ssh_service_config", machines=ids(lab), max_fail_percentage=20)
    assert not tolerant.get("failed") and tolerant["summary"]["unchanged"] == 4 and len(tolerant["failures"]) == 1


def test_a_missing_machine_fails_alike_in_check_mode(start):
    lab = start(machines=1)
    missing = ids(lab)[0].replace("web01", "web99")
    results = [module(lab, "arc_ssh_service_config", machines=[missing], check=check) for check in (True, False)]
    failures = [only_failure(result) for result in results]
    assert failures[0] == failures[1] and failures[0]["code"] == "MachineNotFound"


@pytest.mark.parametrize(
    ("part", "code"), [("resourceGroups", "ResourceGroupNotFound"), ("subscriptions", "SubscriptionNotFound")]
)
def test_a_wrong_scope_is_told(start, part, code):
    lab = start(machines=1)
    words = ids(lab)[0].split("/")
    place = [word.lower() for word in words].index(part.lower()) + 1
    words[place] = "nowhere" if part == "resourceGroups" else "99999999-9999-9999-9999-999999999999"
    failure = only_failure(module(lab, "arc_ssh_service_config", machines=["/".join(words)]))
    assert_helps(failure, "web01")
    assert failure["code"] == code


def test_throttling_is_obeyed_to_the_second(start):
    lab = start(machines=1)
    lab.fault(
        kind="arm",
        method="PUT",
        status=429,
        code="TooManyRequests",
        message="Slow down.",
        headers={"Retry-After": "2"},
        times=1,
    )
    result = module(lab, "arc_connectivity_endpoint", machines=ids(lab))
    assert not result.get("failed") and result["summary"]["created"] == 1
    puts = [entry["time"] for entry in lab.journal() if entry.get("method") == "PUT"]
    assert len(puts) == 2 and puts[1] - puts[0] >= 2


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 500, "code": "InternalServerError", "message": "Oops."},
        {"status": 503, "code": "ServiceUnavailable", "message": "Oops."},
        {"reset": True},
        {"truncate": True},
    ],
)
def test_faults_of_the_moment_do_not_show(start, effect):
    lab = start(machines=2)
    lab.fault(kind="arm", times=2, **effect)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab))
    assert not result.get("failed") and result["summary"]["created"] == 2, result


def test_an_answer_that_is_no_json_is_told(start):
    lab = start(machines=1)
    lab.fault(kind="arm", garbage=True, times=50)
    failure = only_failure(module(lab, "arc_ssh_service_config", machines=ids(lab)))
    assert_helps(failure, "web01")
    assert "not JSON" in failure["message"]


def test_an_expired_token_is_replaced(start):
    lab = start(machines=2)
    lab.fault(kind="arm", expire_token=True, times=1)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab))
    assert not result.get("failed") and result["summary"]["created"] == 2, result


def test_the_challenge_of_continuous_access_evaluation_is_answered(start):
    lab = start(machines=2)
    lab.fault(kind="arm", revoke_tokens=True, times=1)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab))
    assert not result.get("failed") and result["summary"]["created"] == 2, result


def test_a_wrong_secret_is_one_sentence(start):
    lab = start(machines=3)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab), env={"AZURE_SECRET": "hunter2-wrong"})
    assert result["failed"] and "machines" not in result
    assert result["msg"].startswith(f"Cannot log in to {lab.url} as ") and "AADSTS7000215" in result["msg"]
    assert "hunter2" not in str(result)


def test_no_azure_at_all_is_one_sentence(start):
    lab = start(machines=1)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab), cloud_environment="https://127.0.0.1:9/")
    assert result["failed"] and "does not describe itself at /metadata/endpoints" in result["msg"]


def test_a_certificate_that_nobody_vouches_for_is_refused(start):
    lab = start(machines=1)
    result = module(
        lab, "arc_ssh_service_config", machines=ids(lab), env={"REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": ""}
    )
    assert result["failed"]
    assert "its certificate is not valid (unable to get local issuer certificate)" in result["msg"]


def test_the_private_ca_may_come_from_ssl_cert_file_alone(start):
    lab = start(machines=1)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab), env={"REQUESTS_CA_BUNDLE": ""})
    assert not result.get("failed"), result


def test_a_failed_operation_tells_the_machines_words(start):
    lab = start(machines=1, operation_seconds=0.1)
    lab.fault(
        kind="arm",
        method="PUT",
        path="/extensions/",
        fail_operation={
            "code": "ExtensionInstallFailed",
            "message": "Extension returned non-zero exit code for Install: 64",
        },
        times=1,
    )
    extension = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
    failure = only_failure(module(lab, "arc_extension", machines=ids(lab), **extension))
    assert "exit code for Install: 64" in failure["message"]
    failure = only_failure(module(lab, "arc_extension", machines=ids(lab), **extension))
    assert failure["code"] == "FailedState" and "exit code for Install: 64" in failure["message"]
    repaired = module(lab, "arc_extension", machines=ids(lab), repair=True, **extension)
    assert not repaired.get("failed") and repaired["summary"]["updated"] == 1, repaired


def test_an_operation_that_does_not_end_is_left(start):
    lab = start(machines=1, operation_seconds=60)
    begun = time.monotonic()
    extension = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux", "wait_timeout": 2}
    failure = only_failure(module(lab, "arc_extension", machines=ids(lab), **extension))
    assert "did not end within 2 s" in failure["message"] and time.monotonic() - begun < 30
