# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does every answer of ARM become a sentence with its remedy, and never one with a secret?"""

from __future__ import annotations

import ssl

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import (
    ArcError,
    arm_error,
    hint_for,
    in_the_way,
    redact,
)


def test_the_sentence_names_machine_action_answer_and_remedy():
    body = {"error": {"code": "AuthorizationFailed", "message": "The client 'x' has no authorization\nto do it"}}
    error = arm_error("web01: cannot allow SSH on port 22", 403, body, "req-1")
    assert str(error).startswith(
        "web01: cannot allow SSH on port 22: Azure answers 403 AuthorizationFailed: The client 'x' has no authorization to do it. Give"
    )
    assert error.failure() == {
        "code": "AuthorizationFailed",
        "message": error.message,
        "status": 403,
        "request_id": "req-1",
        "hint": hint_for("AuthorizationFailed", 403),
    }


def test_details_are_told_once():
    body = {"error": {"code": "C", "message": "Whole.", "details": [{"message": "part"}, {"message": "Whole."}]}}
    assert arm_error("x: cannot", 400, body, None).message.endswith("Whole. (part; Whole.)")
    body["error"]["details"] = [{"message": "Whole."}]
    assert arm_error("x: cannot", 400, body, None).message.endswith(": Whole.")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "Azure answers 500: (no message)"),
        ("<html>\n bad gateway </html>", "Azure answers 500: <html> bad gateway </html>."),
        ([1], "Azure answers 500: (no message)"),
        ({"code": "Bare", "message": "no envelope"}, "Azure answers 500 Bare: no envelope."),
        ({"error": "a string"}, "Azure answers 500: a string."),
        ({"error": {"code": "C", "message": None}}, "Azure answers 500 C: (no message)"),
    ],
)
def test_answers_of_any_shape_are_told(body, said):
    assert said in str(arm_error("x: cannot", 500, body, None))


def test_a_failed_operation_is_not_told_as_http_200():
    body = {"status": "Failed", "error": {"code": "ExtensionFailed", "message": "exit 64"}}
    assert str(arm_error("x: cannot", 200, body, None)) == "x: cannot: Azure reports ExtensionFailed: exit 64."


@pytest.mark.parametrize(
    ("code", "status", "part"),
    [
        ("Strange", 429, "throttles"),
        ("Strange", 503, "run again later"),
        (None, 403, "role"),
        ("HCRP409", 409, "under way"),
    ],
)
def test_hints_go_by_code_then_status(code, status, part):
    assert part in hint_for(code, status)


def test_no_hint_where_azure_says_it_all():
    assert hint_for("LocationRequired", 400) is None
    assert str(ArcError("Just this.")) == "Just this."


@pytest.mark.parametrize(
    "secret",
    [
        "SharedAccessSignature sr=a&sig=b&se=1&skn=c",
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln",
        "client_secret=hunter2&x=1",
        "Bearer abc.def",
    ],
)
def test_redact(secret):
    said = redact(f"before {secret} after")
    assert said.startswith("before ") and said.endswith("after")
    for part in ("sig=b", "eyJhdWQ", "hunter2", "abc.def"):
        assert part not in said


def not_trusted():
    fault = ssl.SSLCertVerificationError(1, "certificate verify failed")
    fault.verify_message = "unable to get local issuer certificate"
    return fault


def held(fault, how):
    """`fault` inside others, as the libraries between us and the network hold it."""
    outer = OSError("Failed to connect", fault) if how == "args" else OSError("Failed to connect")
    if how == "cause":
        outer.__cause__ = fault
    elif how != "args":
        setattr(outer, how, fault)
    # Libraries raise in the handling of what they raise: there are rings.
    fault.__context__ = outer
    return outer


@pytest.mark.parametrize("how", ["args", "cause", "reason", "inner_exception"])
@pytest.mark.parametrize(
    ("fault", "text", "remedy"),
    [
        (OSError("Tunnel connection failed: 407 Who are you?"), "asks for a login (407 Who are you?)", "HTTPS_PROXY="),
        (OSError("Tunnel connection failed: 403 Forbidden"), "the proxy refuses (403 Forbidden)", "NO_PROXY"),
        (not_trusted(), "not valid (unable to get local issuer certificate)", "REQUESTS_CA_BUNDLE"),
    ],
)
def test_what_is_in_the_way_is_found_wherever_it_is_held(fault, how, text, remedy):
    told, hint = in_the_way(held(held(fault, how), "reason"))
    assert text in told
    assert remedy in hint


@pytest.mark.parametrize("text", ["Tunnel connection failed: 503 Busy", "Connection refused"])
def test_what_may_pass_is_not_in_the_way(text):
    assert in_the_way(held(OSError(text), "cause")) is None
