# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab's relay open for genuine tokens only, and say 401 or 403 as the protocol guide does?"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import quote, unquote

import jwt
import pytest

from arclab import sas

NOW = 1_800_000_000.0
ENTITY = "microsoft.hybridcompute/machines/ab12/1745492868632290560/v2"
URI = f"http://127.0.0.1:8443/{ENTITY}/"
HOSTS = {"127.0.0.1", "localhost"}
SECRET = b"s" * 32


def check(token: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "key_name": "rule",
        "key": "k",
        "entity": ENTITY,
        "path": ENTITY,
        "hosts": HOSTS,
        "now": NOW,
    }
    sas.check(sas.parse(token), **{**values, **changes})


def refusal(token: str | None, **changes: Any) -> sas.TokenRefused:
    with pytest.raises(sas.TokenRefused) as caught:
        check(token, **changes)  # type: ignore[arg-type]
    return caught.value


def test_a_signature_has_the_documented_shape() -> None:
    token = sas.sign(URI, "rule", "k", 1_800_000_600)
    prefix, fields = token.split(" ")
    values = dict(field.split("=", 1) for field in fields.split("&"))
    expected = base64.b64encode(hmac.digest(b"k", f"{values['sr']}\n1800000600".encode(), hashlib.sha256)).decode()
    assert prefix == "SharedAccessSignature"
    assert values["sr"] == "http%3a%2f%2f127.0.0.1%3a8443%2f" + ENTITY.replace("/", "%2f") + "%2f"
    assert (unquote(values["sig"]), values["se"], values["skn"]) == (expected, "1800000600", "rule")
    check(token)


@pytest.mark.parametrize("uri", [f"http://localhost/{ENTITY}", f"sb://LOCALHOST:1/{ENTITY.upper()}", URI])
def test_scheme_port_case_and_slash_of_the_audience_do_not_count(uri: str) -> None:
    encoded = quote(uri, safe="")
    sig = base64.b64encode(hmac.digest(b"k", f"{encoded}\n1800000600".encode(), hashlib.sha256)).decode()
    check(f"SharedAccessSignature sr={encoded}&sig={quote(sig, safe='')}&se=1800000600&skn=rule")


def test_a_token_for_the_entity_opens_what_lies_below_it_and_not_the_reverse() -> None:
    check(sas.sign(URI, "rule", "k", 1_800_000_600), path=f"{ENTITY}/suffix")
    below = sas.sign(f"{URI}suffix", "rule", "k", 1_800_000_600)
    check(below, path=f"{ENTITY}/suffix/more")
    assert refusal(below).status == 403


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "Bearer abc",
        "SharedAccessSignature ",
        "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=1",
        "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=soon&skn=rule",
        "SharedAccessSignature sr=a&sig=!!&se=1&skn=rule",
        "SharedAccessSignature sr=a&sr=b&sig=YQ%3D%3D&se=1&skn=rule",
        "SharedAccessSignature sr=&sig=YQ%3D%3D&se=1&skn=rule",
    ],
)
def test_missing_and_malformed_tokens_are_401(token: str | None) -> None:
    assert refusal(token).status == 401


@pytest.mark.parametrize(
    ("uri", "expires_on", "changes", "text"),
    [
        (URI, 1_800_000_600, {"key": "other"}, "InvalidSignature"),
        (URI, 1_800_000_600, {"key_name": "other"}, "InvalidSignature"),
        ("http://127.0.0.1:8443/other/v2", 1_800_000_600, {}, "InvalidAudience"),
        ("http://127.0.0.1:8443/", 1_800_000_600, {}, "InvalidAudience"),
        (f"http://example.net/{ENTITY}", 1_800_000_600, {}, "InvalidAudience"),
        (f"http://127.0.0.1/{ENTITY}2", 1_800_000_600, {}, "InvalidAudience"),
        ("http://[/", 1_800_000_600, {}, "InvalidAudience"),
        (URI, 1_800_000_000, {}, "ExpiredToken"),
    ],
)
def test_tokens_that_are_not_valid_here_are_403(uri: str, expires_on: int, changes: dict[str, Any], text: str) -> None:
    caught = refusal(sas.sign(uri, "rule", "k", expires_on), **changes)
    assert caught.status == 403
    assert caught.text.startswith(text)


def test_a_token_whose_expiry_was_moved_is_403() -> None:
    moved = sas.sign(URI, "rule", "k", 1_799_999_999).replace("1799999999", "1800000600")
    assert refusal(moved).text.startswith("InvalidSignature")


def test_a_service_token_comes_back_as_it_was_issued() -> None:
    token = sas.ServiceToken("/subscriptions/1/machines/a", "SSH", 22, 1_800_000_600)
    assert sas.read_service_token(SECRET, sas.issue_service_token(SECRET, token, NOW), NOW) == token


def claims(**changes: Any) -> dict[str, Any]:
    return {"sub": "/a", "serviceName": "SSH", "port": 22, "exp": 1_800_000_600, **changes}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (None, 401),
        ("", 401),
        ("not.a.jwt", 401),
        (jwt.encode(claims(), b"o" * 32, algorithm="HS256"), 403),
        (jwt.encode(claims(), b"s" * 64, algorithm="HS512"), 403),
        (jwt.encode(claims(), "", algorithm="none"), 403),
        (jwt.encode({"sub": "/a", "exp": 1_800_000_600}, SECRET, algorithm="HS256"), 403),
        (jwt.encode(claims(exp=1_800_000_000), SECRET, algorithm="HS256"), 403),
    ],
)
def test_service_tokens_are_refused_like_signatures(text: str | None, status: int) -> None:
    with pytest.raises(sas.TokenRefused) as caught:
        sas.read_service_token(SECRET, text, NOW)
    assert caught.value.status == status
