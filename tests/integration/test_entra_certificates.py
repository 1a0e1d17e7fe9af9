# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do identities of every kind get SSH certificates from Entra ID, once each, and is every refusal one sentence with its number?"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_certificate import HINTS, Issued, obtain
from arclab.client import Lab
from on_lab import COLLECTIONS, ansible, environment

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

HELPER = COLLECTIONS / "ansible_collections/arcfleet/ssh/plugins/module_utils/_relay/_start.py"
INVENTORY = "plugin: arcfleet.ssh.arc_machines\nconnection: relay\nssh_auth: entra\n"
ROLE = "Virtual Machine User Login"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    found = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=500, operation_seconds=0.2)
    yield found
    found.down()


def issued(lab: Lab, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], **options: Any) -> Issued:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, lab.env[name])
    return obtain(AuthOptions.from_params(options, environ), environ)


def application(lab: Lab, **more: Any) -> tuple[dict[str, str], dict[str, str]]:
    """A new service principal with a login role, and the environment of who logs in as it."""
    principal = lab.principal(f"app-{os.urandom(4).hex()}", roles=[ROLE, "Reader"], **more)
    return principal, lab.env_of(principal)


def without(environ: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in names}


def entra_inventory(path: pathlib.Path, more: str = "") -> str:
    file = path / "arc.yml"
    file.write_text(INVENTORY + more, encoding="utf-8")
    return str(file)


def plain(value: Any) -> Any:
    """A value of `ansible-inventory --list`, which says of texts that they are no templates."""
    return value["__ansible_unsafe"] if isinstance(value, dict) and "__ansible_unsafe" in value else value


def asked(lab: Lab, name: str) -> int:
    return dict(lab.certificate_requests()).get(name, 0)


# ---- who gets one


def test_a_service_principal_with_a_secret(fleet: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    principal, environ = application(fleet)
    found = issued(fleet, monkeypatch, environ)
    assert found.principal == principal["client_id"]
    assert 3000 < found.valid_before - time.time() < 4000


def test_a_service_principal_with_a_certificate(
    fleet: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "app")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    file = tmp_path / "app.pem"
    file.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    principal, environ = application(fleet, certificates=[pem.decode()])
    environ = without(environ, "AZURE_SECRET", "AZURE_CLIENT_SECRET")
    found = issued(fleet, monkeypatch, environ, x509_certificate_path=str(file))
    assert found.principal == principal["client_id"]


def test_a_federated_identity_whose_token_is_in_a_file(
    fleet: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    trusted = {"issuer": "https://ci.example", "subject": "repo:fleet", "public_key": public}
    principal, environ = application(fleet, federated=[trusted])
    environ = without(environ, "AZURE_SECRET", "AZURE_CLIENT_SECRET")
    claims = {"iss": "https://ci.example", "sub": "repo:fleet", "aud": "api://AzureADTokenExchange"}
    file = tmp_path / "token"
    file.write_text(jwt.encode({**claims, "exp": int(time.time()) + 600}, key, "RS256") + "\n", encoding="utf-8")
    assert issued(fleet, monkeypatch, environ, oidc_token_file_path=str(file)).principal == principal["client_id"]
    file.write_text(jwt.encode({**claims, "exp": int(time.time()) - 600}, key, "RS256"), encoding="utf-8")
    with pytest.raises(ArcError, match="AADSTS700024") as caught:
        issued(fleet, monkeypatch, environ, oidc_token_file_path=str(file))
    assert "eyJ" not in str(caught.value)


def test_a_user_of_the_azure_cli_whose_name_is_lower_cased_and_whose_logins_stay_as_they_are(
    fleet: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    user = "Anna.Admin@arclab.onmicrosoft.example"
    fleet.principal(user, type="User", roles=[ROLE])
    environ = {**without(fleet.env, "AZURE_CLIENT_ID"), **fleet.cli_login(tmp_path / "azure", user)}
    files = [tmp_path / "azure" / name for name in ("azureProfile.json", "msal_token_cache.json")]
    before = [file.read_bytes() for file in files]
    assert issued(fleet, monkeypatch, environ, auth_source="cli").principal == user.lower()
    assert [file.read_bytes() for file in files] == before
    for number in (700082, 50057, 53003):
        fleet.refuse(user, number)
        with pytest.raises(ArcError, match=f"AADSTS{number}: ") as caught:
            issued(fleet, monkeypatch, environ, auth_source="cli")
        assert caught.value.hint == HINTS[number]
        fleet.refuse(user, None)


# ---- who gets none


@pytest.mark.parametrize("number", [7000112, 65001, 53003])
def test_entra_s_refusal_is_one_sentence_with_its_number(
    fleet: Lab, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    principal, environ = application(fleet)
    fleet.refuse(principal["client_id"], number, certificates_only=True)
    with pytest.raises(ArcError) as caught:
        issued(fleet, monkeypatch, environ)
    assert caught.value.code == f"AADSTS{number}"
    assert caught.value.message.count(f"AADSTS{number}") == 1
    assert caught.value.message.startswith(f"{fleet.env['AZURE_CLOUD_ENVIRONMENT']} issues no SSH certificate to ")
    assert caught.value.hint == HINTS[number]
    assert principal["secret"] not in str(caught.value)
    for appendix in ("Trace ID", "Correlation ID", "Timestamp", "\n"):
        assert appendix not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"AZURE_TENANT": "00000000-0000-0000-0000-000000000001"}, 90002),
        ({"AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000001"}, 700016),
        ({"AZURE_SECRET": "no-such-secret"}, 7000215),
    ],
)
def test_a_wrong_tenant_application_or_secret_is_told_by_its_number(
    fleet: Lab, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], number: int
) -> None:
    with pytest.raises(ArcError) as caught:
        issued(fleet, monkeypatch, {**fleet.env, **changed})
    assert caught.value.code == f"AADSTS{number}"
    assert caught.value.hint == HINTS[number]
    assert "no-such-secret" not in str(caught.value)


def test_the_inventory_says_why_there_is_no_certificate(fleet: Lab, tmp_path: pathlib.Path) -> None:
    principal, environ = application(fleet)
    fleet.refuse(principal["client_id"], 53003, certificates_only=True)
    listing = ("ansible-inventory", "-i", entra_inventory(tmp_path), "--list")
    env = {**environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = ansible(fleet, *listing, env=env, rc=None)
    assert done.returncode != 0
    assert "AADSTS53003" in done.stderr
    assert "conditional access policy" in " ".join(done.stderr.split())
    assert principal["secret"] not in done.stdout + done.stderr


def test_a_managed_identity_is_refused_with_a_way_out(fleet: Lab, tmp_path: pathlib.Path) -> None:
    listing = ("ansible-inventory", "-i", entra_inventory(tmp_path, "auth_source: msi\n"), "--list")
    done = ansible(fleet, *listing, env={"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"}, rc=None)
    assert done.returncode != 0
    assert "workload identity federation" in " ".join(done.stderr.split())


# ---- how often


def test_five_hundred_hosts_cost_one_certificate(fleet: Lab, tmp_path: pathlib.Path) -> None:
    principal, environ = application(fleet)
    cache = tmp_path / "cache"
    env = {**environ, "XDG_CACHE_HOME": str(cache)}
    listing = ("ansible-inventory", "-i", entra_inventory(tmp_path), "--list")
    done = ansible(fleet, *listing, env=env)
    listed = json.loads(done.stdout)["_meta"]["hostvars"].values()
    hosts = [{name: plain(value) for name, value in found.items()} for found in listed]
    assert len(hosts) == 500
    assert {found["ansible_user"] for found in hosts} == {principal["client_id"]}
    assert asked(fleet, principal["client_id"]) == 1
    assert "PRIVATE KEY" not in done.stdout
    assert "ssh-rsa-cert" not in done.stdout
    # The next run finds it.
    ansible(fleet, *listing, env=env)
    assert asked(fleet, principal["client_id"]) == 1

    # What many connections do that find it near its end: one of them renews it.
    (name,) = re.findall(r"--certificate (entra-[0-9a-f]+)", hosts[0]["ansible_ssh_common_args"])
    note = cache / "arcfleet/relay" / f"{name}.json"
    content = json.loads(note.read_text(encoding="utf-8"))
    for pair in content["pairs"]:
        pair.update(obtained_on=int(time.time()) - 3540, valid_before=int(time.time()) + 60)
    note.write_text(json.dumps(content), encoding="utf-8")
    helpers = [
        subprocess.Popen(
            [
                *(sys.executable, str(HELPER), "--resource-id", found["arc_resource_id"]),
                *("--port", "22", "--timeout", "5", "--certificate", name),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(fleet, **env),
        )
        for found in hosts[:16]
    ]
    said = [helper.communicate(timeout=120)[1].decode() for helper in helpers]
    assert asked(fleet, principal["client_id"]) == 2, said
    assert principal["secret"] not in "".join(said)
    files = list((cache / "arcfleet/relay").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((cache / "arcfleet/relay").stat().st_mode) == 0o700
