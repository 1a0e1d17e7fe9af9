# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is what Entra answers taken for a certificate only if it is one, and is each refusal one sentence with a number and a remedy?"""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

from ansible_collections.arcfleet.ssh.plugins.module_utils import _ssh_certificate as made
from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import CLOUDS, AuthOptions, Cloud
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, AuthError, InputError

AUTHORITY = "https://login.example"


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def signer() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def private(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def token(
    key: Any, signer: Any, principals: list[str], kind: SSHCertificateType = SSHCertificateType.USER, until: int = 0
) -> str:
    """What Entra sends: the certificate without its type and comment."""
    builder = SSHCertificateBuilder().public_key(key.public_key()).serial(1).type(kind).key_id(b"x")
    if principals:
        builder = builder.valid_principals([name.encode() for name in principals])
    else:
        builder = builder.valid_for_all_principals()
    builder = builder.valid_after(0).valid_before(until or int(time.time()) + 3600)
    return builder.sign(signer).public_bytes().decode().split(" ", 1)[1]


def test_the_request_names_the_key_as_the_azure_cli_does(key: rsa.RSAPrivateKey) -> None:
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    claims = made.key_claims(base64.b64decode(public.split()[1]))
    confirmation = json.loads(claims["req_cnf"])
    numbers = key.public_key().public_numbers()
    modulus = base64.urlsafe_b64decode(confirmation["n"])
    # The wire's leading zero and the encoding's padding are part of the texts.
    assert modulus == b"\0" + numbers.n.to_bytes(256, "big")
    assert confirmation["n"].endswith("=")
    assert confirmation["e"] == "AQAB"
    assert confirmation["kty"] == "RSA"
    assert confirmation["kid"] == claims["key_id"]
    assert claims["key_id"] == hashlib.sha256((confirmation["n"] + confirmation["e"]).encode()).hexdigest()
    assert claims["token_type"] == "ssh-cert"


def test_a_certificate_is_read(key: rsa.RSAPrivateKey, signer: Any) -> None:
    issued = made.read(private(key), token(key, signer, ["Anna.Admin@Contoso.example", "x"], until=2000000000), "")
    assert issued.principal == "anna.admin@contoso.example"
    assert issued.valid_before == 2000000000
    assert issued.certificate.startswith(b"ssh-rsa-cert-v01@openssh.com ")
    assert issued.certificate.endswith(b"\n")
    assert "PRIVATE" not in repr(issued)


def test_the_certificate_of_another_key_is_refused(key: rsa.RSAPrivateKey, signer: Any) -> None:
    other = rsa.generate_private_key(65537, 2048)
    with pytest.raises(AuthError, match="belongs to another key"):
        made.read(private(key), token(other, signer, ["a"]), "")


@pytest.mark.parametrize(
    "principal", ["", "a b", "-oProxyCommand=x", "a;b", "a\nb", "$(id)", "a@b@c", "a/b", "%h", '"']
)
def test_a_principal_that_is_no_name_is_refused(key: rsa.RSAPrivateKey, signer: Any, principal: str) -> None:
    with pytest.raises(AuthError, match="names nobody"):
        made.read(private(key), token(key, signer, [principal] if principal else []), "")


@pytest.mark.parametrize("principal", ["o'brien@contoso.example", "guest_x.org#EXT#@contoso.example", "0f-1", "a~b@c"])
def test_names_as_entra_has_them_are_taken(key: rsa.RSAPrivateKey, signer: Any, principal: str) -> None:
    assert made.read(private(key), token(key, signer, [principal]), "").principal == principal.lower()


def test_what_is_no_users_certificate_is_refused(key: rsa.RSAPrivateKey, signer: Any) -> None:
    with pytest.raises(AuthError, match="no user's certificate"):
        made.read(private(key), token(key, signer, ["a"], SSHCertificateType.HOST), "")
    for text in ("eyJhbGciOi.e30.x", "", None, "AAAA"):
        with pytest.raises(AuthError, match="is no OpenSSH certificate") as caught:
            made.read(private(key), text, " to x")
        assert "eyJ" not in str(caught.value)


def test_each_cloud_has_its_scope() -> None:
    assert made.scope(CLOUDS["azurecloud"]) == "https://pas.windows.net/CheckMyAccess/Linux/.default"
    assert made.scope(CLOUDS["azureusgovernment"]) == "https://pasff.usgovcloudapi.net/CheckMyAccess/Linux/.default"
    assert made.scope(CLOUDS["azurechinacloud"]) == "https://pas.chinacloudapi.cn/CheckMyAccess/Linux/.default"
    own = Cloud("AzureStack-x", AUTHORITY, "https://m", "https://m")
    assert made.scope(own) == made.scope(CLOUDS["azurecloud"])


def test_a_managed_identity_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(InputError, match="no SSH certificates to managed identities") as caught:
        made.obtain(AuthOptions(auth_source="msi"))
    assert "workload identity federation" in str(caught.value)
    assert "ssh_auth: key" in str(caught.value)


@pytest.mark.parametrize("number", sorted(made.HINTS))
def test_a_refusal_is_a_sentence_with_its_number_and_a_remedy(number: int) -> None:
    told = f"AADSTS{number}: It is not allowed. Trace ID: 1 Correlation ID: 2 Timestamp: 3"
    error = made.refused(AUTHORITY, " to app", {"error": "x", "error_description": told})
    assert error.code == f"AADSTS{number}"
    assert str(error) == (
        f"{AUTHORITY} issues no SSH certificate to app: AADSTS{number}: It is not allowed. {made.HINTS[number]}"
    )


def test_a_refusal_without_a_number_is_a_sentence_too() -> None:
    error = made.refused(AUTHORITY, "", {"error": "temporarily_unavailable"})
    assert error.code == "temporarily_unavailable"
    assert error.message.endswith(": temporarily_unavailable.")
    assert error.hint


# ---- the Azure CLI's login


def cli(tmp_path: pathlib.Path, *entries: dict[str, Any], logins: bool = True) -> dict[str, str]:
    tmp_path.mkdir(exist_ok=True)
    # The CLI writes a byte order mark.
    (tmp_path / "azureProfile.json").write_text(json.dumps({"subscriptions": list(entries)}), encoding="utf-8-sig")
    if logins:
        (tmp_path / "msal_token_cache.json").write_text("{}", encoding="utf-8")
    return {"AZURE_CONFIG_DIR": str(tmp_path)}


def entry(name: str, tenant: str, *, default: bool = False, kind: str = "user") -> dict[str, Any]:
    return {"id": tenant, "tenantId": tenant, "isDefault": default, "user": {"name": name, "type": kind}}


def find(environ: dict[str, str], **options: Any) -> Any:
    return made._CliUser.find(AuthOptions(auth_source="cli", **options), environ)


def test_the_cli_s_default_user_is_taken_or_the_one_of_the_tenant(tmp_path: pathlib.Path) -> None:
    environ = cli(tmp_path, entry("a@x", "t1"), entry("b@y", "t2", default=True), entry("c@z", "t3"))
    assert (find(environ).tenant, find(environ).who) == ("t2", " to b@y, who is logged in with the Azure CLI,")
    assert "c@z" in find(environ, tenant="T3").who
    assert find(environ, tenant="T3").tenant == "T3"
    # A guest of another tenant logs in there with the same account.
    assert "b@y" in find(environ, tenant="t9").who


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "Nobody is logged in"),
        ([{"user": {}}], "Nobody is logged in"),
        ([entry("app", "t", default=True, kind="servicePrincipal")], "the service principal app"),
        ([entry("systemAssignedIdentity", "t", default=True, kind="servicePrincipal")], "managed identities"),
    ],
)
def test_who_can_get_no_certificate_is_told_so(tmp_path: pathlib.Path, entries: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        find(cli(tmp_path, *entries))
    assert caught.value.hint


def test_no_login_at_all_and_encrypted_logins_are_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="Nobody is logged in"):
        find({"AZURE_CONFIG_DIR": str(tmp_path / "none")})
    with pytest.raises(InputError, match="encrypted"):
        find(cli(tmp_path, entry("a@x", "t", default=True), logins=False))


# ---- a service principal's certificate


def test_a_certificate_of_the_service_principal_that_is_none_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        made._certificate(str(tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("-----BEGIN NONSENSE-----\nsecret\n", encoding="utf-8")
    with pytest.raises(ArcError, match="holds no certificate") as caught:
        made._certificate(str(tmp_path / "bad.pem"))
    assert "secret" not in str(caught.value)
    (tmp_path / "store.pfx").write_bytes(b"\x30\x82")
    assert made._certificate(str(tmp_path / "store.pfx")) == {"private_key_pfx_path": str(tmp_path / "store.pfx")}
