# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To whom, for how long and in what form does the lab's Entra issue SSH certificates, and how does it say no?

Asked by MSAL as `az ssh` does it, for service principals and for users of the Azure CLI.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msal
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import AzureCliCredential
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from arclab.client import Lab, LabFailed
from arclab.tokens import AZURE_CLI

SCOPE = "https://pas.windows.net/CheckMyAccess/Linux/.default"
KEY = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=1) as one:
        yield one


def client(lab: Lab) -> requests.Session:
    """HTTP that trusts the lab, whatever this computer's environment says."""
    session = requests.Session()
    session.trust_env = False
    session.verify = lab.env["REQUESTS_CA_BUNDLE"]
    return session


def of_msal(lab: Lab) -> dict[str, Any]:
    authority = f"{lab.url}/{lab.env['AZURE_TENANT']}"
    return {"authority": authority, "instance_discovery": False, "http_client": client(lab)}


def asked(key: rsa.RSAPrivateKey = KEY) -> dict[str, str]:
    """The fields of az: SSH's own numbers, urlsafe and with padding."""
    numbers = key.public_key().public_numbers()
    modulus, exponent = (
        base64.urlsafe_b64encode(one.to_bytes(one.bit_length() // 8 + 1, "big")).decode()
        for one in (numbers.n, numbers.e)
    )
    key_id = hashlib.sha256((modulus + exponent).encode()).hexdigest()
    jwk = {"kty": "RSA", "n": modulus, "e": exponent, "kid": key_id}
    return {"token_type": "ssh-cert", "req_cnf": json.dumps(jwk), "key_id": key_id}


def by_principal(lab: Lab, principal: Mapping[str, str], data: Mapping[str, str]) -> dict[str, Any]:
    application = msal.ConfidentialClientApplication(principal["client_id"], principal["secret"], **of_msal(lab))
    return dict(application.acquire_token_for_client([SCOPE], data=dict(data)))


def read(answer: Mapping[str, Any]) -> SSHCertificate:
    certificate = load_ssh_public_identity(f"ssh-rsa-cert-v01@openssh.com {answer['access_token']}".encode())
    assert isinstance(certificate, SSHCertificate)
    return certificate


def test_a_certificate_is_signed_with_sha2_and_lives_as_long_as_the_lab_says(lab: Lab, tmp_path: Path) -> None:
    principal = lab.principal("lifetime")
    lab.setting(certificate_seconds=400)
    answer = by_principal(lab, principal, asked())
    lab.setting(certificate_seconds=3600)
    certificate = read(answer)
    certificate.verify_cert_signature()
    assert answer["expires_in"] == 400 and 395 <= certificate.valid_before - time.time() <= 400
    assert certificate.valid_principals == [principal["client_id"].encode()]
    assert certificate.public_key().public_numbers() == KEY.public_key().public_numbers()  # type: ignore[union-attr]
    path = tmp_path / "cert.pub"
    path.write_text(f"ssh-rsa-cert-v01@openssh.com {answer['access_token']}\n")
    shown = subprocess.run(["ssh-keygen", "-L", "-f", path], capture_output=True, text=True, check=True).stdout
    assert "(using rsa-sha2-512)" in shown
    assert (lab.state_dir / "ssh_ca").stat().st_mode & 0o777 == 0o600
    assert lab.certificate_requests() == {principal["client_id"]: 1}


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"key_id": ""}, 900144),
        ({"key_id": "0" * 64}, 900023),
        ({"req_cnf": "no JSON"}, 900023),
        ({"req_cnf": json.dumps({"kty": "EC", "n": "AQAB", "e": "AQAB", "kid": "x"})}, 900023),
        ({"req_cnf": asked()["req_cnf"].replace("=", "")}, 900023),
        (asked(rsa.generate_private_key(65537, 1024)), 900023),
    ],
)
def test_only_what_az_is_known_to_send_is_taken(lab: Lab, change: dict[str, str], number: int) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": lab.env["AZURE_CLIENT_ID"],
        "client_secret": lab.env["AZURE_SECRET"],
        "scope": SCOPE,
        **asked(),
        **change,
    }
    address = f"{lab.url}/{lab.env['AZURE_TENANT']}/oauth2/v2.0/token"
    answer = client(lab).post(address, data=form)
    assert (answer.status_code, answer.json()["error_codes"]) == (400, [number])


@pytest.mark.parametrize(
    ("number", "error"), [(7000112, "unauthorized_client"), (65001, "invalid_grant"), (53003, "invalid_grant")]
)
def test_refusals_can_be_switched_on_and_off(lab: Lab, number: int, error: str) -> None:
    principal = lab.principal(f"refused-{number}")
    lab.refuse(principal["client_id"], number, certificates_only=True)
    application = msal.ConfidentialClientApplication(principal["client_id"], principal["secret"], **of_msal(lab))
    assert "access_token" in application.acquire_token_for_client([f"{lab.url}/.default"])
    answer = by_principal(lab, principal, asked())
    assert (answer["error"], answer["error_codes"]) == (error, [number])
    assert answer["error_description"].startswith(f"AADSTS{number}: ")
    assert ("claims" in answer) == (number == 53003)
    lab.refuse(principal["client_id"], None, certificates_only=True)
    with lab.faulty(kind="entra", token_type="ssh-cert", principal=principal["client_id"], aadsts=number):
        assert by_principal(lab, principal, asked())["error_codes"] == [number]
    assert "access_token" in by_principal(lab, principal, asked())
    with pytest.raises(LabFailed, match="AADSTS1 cannot be switched on"):
        lab.refuse(principal["client_id"], 1)


def test_a_user_of_the_cli_gets_tokens_and_certificates_by_a_refresh_token(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "Anna.Admin@arclab.onmicrosoft.example"
    user = lab.principal(name, type="User", roles=["Reader"])
    variables = lab.cli_login(tmp_path / "azure", name)
    folder = Path(variables["AZURE_CONFIG_DIR"])
    profile = json.loads((folder / "azureProfile.json").read_text(encoding="utf-8-sig"))
    assert profile["subscriptions"][0]["user"] == {"name": name, "type": "user"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir() if path.is_file())
    cache = msal.SerializableTokenCache()
    cache.deserialize((folder / "msal_token_cache.json").read_text())
    application = msal.PublicClientApplication(AZURE_CLI, token_cache=cache, **of_msal(lab))
    accounts = application.get_accounts(name)
    assert [account["local_account_id"] for account in accounts] == [user["object_id"]]
    answer = application.acquire_token_silent_with_error([SCOPE], accounts[0], data=asked())
    assert read(answer).valid_principals == [name.encode()]
    assert lab.certificate_requests()[name] == 1
    token = application.acquire_token_silent([f"{lab.url}/.default"], accounts[0], force_refresh=True)["access_token"]
    groups = f"{lab.url}/subscriptions/{lab.env['AZURE_SUBSCRIPTION_ID']}/resourcegroups?api-version=2021-04-01"
    assert client(lab).get(groups, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    environment = {"REQUESTS_CA_BUNDLE": lab.env["REQUESTS_CA_BUNDLE"], **variables}
    for name_of, value in environment.items():
        monkeypatch.setenv(name_of, value)
    by_az = AzureCliCredential().get_token(f"{lab.url}/.default").token
    assert client(lab).get(groups, headers={"Authorization": f"Bearer {by_az}"}).status_code == 200
    for number in (50057, 700082):
        lab.refuse(name, number)
        fresh = asked(rsa.generate_private_key(65537, 2048))
        refused = application.acquire_token_silent_with_error([SCOPE], accounts[0], data=fresh)
        assert refused["error_codes"] == [number]
    with pytest.raises(ClientAuthenticationError, match="AADSTS700082"):
        AzureCliCredential().get_token("https://vault.azure.net/.default")
    journal = (lab.state_dir / "journal.jsonl").read_text()
    assert name in journal and "eyJ" not in journal and "AAAAHHNz" not in journal


def test_a_stranger_to_the_tenant_cannot_sign_in(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(LabFailed, match="There is no principal"):
        lab.cli_login(tmp_path, "nobody@arclab.onmicrosoft.example")
    application = msal.PublicClientApplication(AZURE_CLI, **of_msal(lab))
    answer = application.acquire_token_by_refresh_token("made up", [SCOPE])
    assert answer["error_codes"] == [9002313]
