# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do Microsoft's own login libraries get along with the lab's Entra?

azure-identity and MSAL, unmodified: client secret, certificate, federated assertion, managed identity, and the SSH certificate of
a service principal.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msal
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from arclab.client import Lab
from arclab.envfile import read_exports


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.up(tmp_path_factory.mktemp("entra") / "state", machines=1) as found:
        yield found


@pytest.fixture
def trusted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What every credential needs to talk to the lab."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", lab.env["REQUESTS_CA_BUNDLE"])
    return {"authority": lab.url, "disable_instance_discovery": True}


def private(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public(key: rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def owner(token: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})["appid"])


def test_a_client_secret(lab: Lab, trusted: dict[str, Any]) -> None:
    credential = ClientSecretCredential(
        lab.env["AZURE_TENANT"], lab.env["AZURE_CLIENT_ID"], lab.env["AZURE_SECRET"], **trusted
    )
    token = credential.get_token("https://management.azure.com/.default")
    assert owner(token.token) == lab.env["AZURE_CLIENT_ID"]
    assert 3500 < token.expires_on - time.time() <= 3600


def test_a_wrong_secret_is_told_in_entras_words(lab: Lab, trusted: dict[str, Any]) -> None:
    credential = ClientSecretCredential(lab.env["AZURE_TENANT"], lab.env["AZURE_CLIENT_ID"], "wrong", **trusted)
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        credential.get_token("https://management.azure.com/.default")


def certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_certificate(lab: Lab, trusted: dict[str, Any]) -> None:
    key, stranger = (rsa.generate_private_key(65537, 2048) for _number in range(2))
    pem = certificate(key)
    principal = lab.principal("with-certificate", certificates=[pem.decode()])
    where = (principal["tenant"], principal["client_id"])
    good = CertificateCredential(*where, certificate_data=private(key) + pem, **trusted)
    assert owner(good.get_token(f"{lab.url}/.default").token) == principal["client_id"]
    bad = CertificateCredential(*where, certificate_data=private(stranger) + certificate(stranger), **trusted)
    with pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
        bad.get_token(f"{lab.url}/.default")


def test_a_federated_assertion(lab: Lab, trusted: dict[str, Any]) -> None:
    key = rsa.generate_private_key(65537, 2048)
    trust = {"issuer": "https://issuer.example", "subject": "repo:fleet", "public_key": public(key)}
    principal = lab.principal("federated", federated=[trust])

    def credential(subject: str) -> ClientAssertionCredential:
        claims = {"iss": trust["issuer"], "sub": subject, "aud": "api://AzureADTokenExchange", "exp": time.time() + 60}
        assertion = jwt.encode(claims, private(key), algorithm="RS256")
        return ClientAssertionCredential(principal["tenant"], principal["client_id"], lambda: assertion, **trusted)

    token = credential("repo:fleet").get_token(f"{lab.url}/.default").token
    assert owner(token) == principal["client_id"]
    with pytest.raises(ClientAuthenticationError, match="AADSTS700213"):
        credential("repo:other").get_token(f"{lab.url}/.default")
    assert "eyJ" not in (lab.state_dir / "journal.jsonl").read_text()


def test_a_managed_identity(lab: Lab, trusted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in read_exports(lab.state_dir / "msi.sh").items():
        monkeypatch.setenv(name, value)
    token = ManagedIdentityCredential().get_token(f"{lab.url}/.default").token
    assert owner(token) == lab.env["AZURE_CLIENT_ID"]


def test_an_ssh_certificate(lab: Lab, trusted: dict[str, Any], tmp_path: Path) -> None:
    """As `az ssh` asks for it: an RSA key as JWK in `req_cnf`, the token is the certificate's body."""
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    # As az writes them: the bytes of SSH's own numbers, with the leading zero and the padding.
    modulus, exponent = (
        base64.urlsafe_b64encode(one.to_bytes(one.bit_length() // 8 + 1, "big")).decode()
        for one in (numbers.n, numbers.e)
    )
    key_id = hashlib.sha256((modulus + exponent).encode()).hexdigest()
    request = {"kty": "RSA", "n": modulus, "e": exponent, "kid": key_id}
    application = msal.ConfidentialClientApplication(
        lab.env["AZURE_CLIENT_ID"],
        client_credential=lab.env["AZURE_SECRET"],
        authority=f"{trusted['authority']}/{lab.env['AZURE_TENANT']}",
        instance_discovery=False,
    )
    answer = application.acquire_token_for_client(
        ["https://pas.windows.net/CheckMyAccess/Linux/.default"],
        data={"token_type": "ssh-cert", "req_cnf": json.dumps(request), "key_id": key_id},
    )
    assert answer["token_type"] == "ssh-cert"
    path = tmp_path / "id-cert.pub"
    path.write_text(f"ssh-rsa-cert-v01@openssh.com {answer['access_token']}\n")
    shown = subprocess.run(["ssh-keygen", "-L", "-f", path], capture_output=True, text=True, check=True).stdout
    assert "user certificate" in shown
    assert lab.env["AZURE_CLIENT_ID"] in shown.partition("Principals:")[2]
    authority = subprocess.run(
        ["ssh-keygen", "-l", "-f", lab.state_dir / "ssh_ca.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert authority.split()[1] in shown
