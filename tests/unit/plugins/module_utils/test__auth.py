# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the identity the one that options, environment and files name, and is one login enough for all threads?"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.core.credentials import AccessToken

from ansible_collections.arcfleet.ssh.plugins.module_utils import _auth
from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import (
    AuthOptions,
    TokenSource,
    ca_bundle,
    cloud,
    parse_metadata,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import AuthError, InputError

ENV = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT": "t", "AZURE_SECRET": "s", "AZURE_SUBSCRIPTION_ID": "sub"}


@pytest.fixture
def nowhere(tmp_path):
    return str(tmp_path / "none")


def test_the_environment_of_azcollection_carries_over(nowhere):
    options = AuthOptions.from_params({}, ENV, nowhere)
    assert (options.auth_source, options.client_id, options.tenant, options.secret) == ("env", "c", "t", "s")
    assert options.subscription_id == "sub"
    assert options.cloud_environment == "AzureCloud"


def test_azure_identitys_names_do_as_well(nowhere):
    environ = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_CLIENT_SECRET": "s"}
    assert AuthOptions.from_params({}, environ, nowhere).secret == "s"


def test_workload_identity(nowhere):
    environ = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}
    options = AuthOptions.from_params({}, environ, nowhere)
    assert options.oidc_token_file_path == "/var/run/token"


def test_options_win_over_the_environment(nowhere):
    options = AuthOptions.from_params({"client_id": "mine", "secret": "own"}, ENV, nowhere)
    assert (options.auth_source, options.client_id, options.secret, options.tenant) == ("options", "mine", "own", "t")


@pytest.mark.parametrize("source", ["env", "auto"])
def test_what_is_missing_is_named(source, nowhere):
    environ = {"AZURE_CLIENT_ID": "c", "AZURE_SECRET": "s"}
    with pytest.raises(InputError) as caught:
        AuthOptions.from_params({"auth_source": source}, environ, nowhere)
    assert "lacks tenant" in str(caught.value)


def test_no_identity_anywhere_says_what_to_do(nowhere):
    with pytest.raises(InputError) as caught:
        AuthOptions.from_params({}, {"PATH": "/nonexistent"}, nowhere)
    assert "az login" in str(caught.value)


def test_unknown_source_is_refused(nowhere):
    with pytest.raises(InputError):
        AuthOptions.from_params({"auth_source": "magic"}, ENV, nowhere)


def write_profile(tmp_path, text):
    path = tmp_path / "credentials"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_credential_file_and_its_cloud(tmp_path):
    path = write_profile(
        tmp_path,
        "[default]\nclient_id=c\n[gov]\nclient_id=g\ntenant=t\nsecret=a%b\nsubscription_id=s\ncloud_environment=AzureUSGovernment\n",
    )
    options = AuthOptions.from_params({"auth_source": "credential_file", "profile": "gov"}, {}, path)
    assert (options.client_id, options.secret, options.subscription_id) == ("g", "a%b", "s")
    assert options.cloud_environment == "AzureUSGovernment"
    chosen = AuthOptions.from_params(
        {"auth_source": "credential_file", "profile": "gov", "cloud_environment": "AzureCloud"}, {}, path
    )
    assert chosen.cloud_environment == "AzureCloud"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[other]\nclient_id=c\n", "no profile [default]"),
        ("hunter2 is no ini\n", "INI"),
        ("[default]\nclient_id=c\ntenant=t\n", "lacks secret"),
    ],
)
def test_a_bad_credential_file_is_told_without_its_content(tmp_path, text, said):
    with pytest.raises(InputError) as caught:
        AuthOptions.from_params({"auth_source": "credential_file"}, {}, write_profile(tmp_path, text))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_identity_names_the_login_and_holds_no_secret(nowhere):
    one = AuthOptions.from_params({}, ENV, nowhere)
    other = AuthOptions.from_params({}, {**ENV, "AZURE_CLIENT_ID": "d"}, nowhere)
    rotated = AuthOptions.from_params({}, {**ENV, "AZURE_SECRET": "hunter2"}, nowhere)
    assert one.identity != other.identity
    assert one.identity == rotated.identity
    assert "hunter2" not in rotated.identity


def test_national_clouds():
    assert cloud("azureusgovernment").scope == "https://management.core.usgovcloudapi.net/.default"
    with pytest.raises(InputError):
        cloud("AzureMoonCloud")


LOGIN = {"loginEndpoint": "https://login.example/", "audiences": ["https://arm.example/", "https://other/"]}


@pytest.mark.parametrize(
    "answer",
    [
        {"authentication": LOGIN},
        [
            {
                "name": "Else",
                "resourceManager": "https://else/",
                "authentication": {**LOGIN, "audiences": ["https://wrong"]},
            },
            {"name": "Mine", "resourceManager": "https://arm.example/", "authentication": LOGIN},
        ],
    ],
)
def test_metadata_of_both_generations(answer):
    found = parse_metadata("https://arm.example", answer)
    assert (found.authority, found.resource_manager, found.scope) == (
        "https://login.example",
        "https://arm.example",
        "https://arm.example/.default",
    )


@pytest.mark.parametrize(
    "answer", [{}, [], [{"authentication": {"loginEndpoint": "https://x", "audiences": []}}], "text", None]
)
def test_metadata_without_a_login_are_refused(answer):
    with pytest.raises(InputError):
        parse_metadata("https://arm.example", answer)


def test_ca_bundle_leaves_requests_own_variable_to_requests():
    assert ca_bundle({}) is True
    assert ca_bundle({"SSL_CERT_FILE": "/ca"}) == "/ca"
    assert ca_bundle({"SSL_CERT_FILE": "/ca", "REQUESTS_CA_BUNDLE": "/other"}) is True


class Credential:
    """Counts its logins; each token is called after its number."""

    def __init__(self, life=3600.0):
        self.logins = 0
        self.life = life
        self.claims = []
        self.lock = threading.Lock()

    def get_token(self, *scopes, claims=None, **kwargs):
        with self.lock:
            self.logins += 1
            self.claims.append(claims)
        return AccessToken(f"token{self.logins}", int(time.time() + self.life))


@pytest.fixture
def source(monkeypatch, nowhere):
    credential = Credential()
    monkeypatch.setattr(_auth, "_credential", lambda options, where: credential)
    return TokenSource(AuthOptions.from_params({}, ENV, nowhere)), credential


def test_one_login_serves_all_threads(source):
    tokens, credential = source
    with ThreadPoolExecutor(16) as pool:
        found = {token.token for token in pool.map(lambda _n: tokens.token(), range(64))}
    assert found == {"token1"}
    assert credential.logins == 1


def test_a_token_is_renewed_before_it_ends(source):
    tokens, credential = source
    credential.life = 200
    assert tokens.token().token == "token1"
    assert tokens.token().token == "token2"


def test_a_refused_token_is_dropped_once(source):
    tokens, credential = source
    refused = f"Bearer {tokens.token().token}"
    tokens.forget(refused)
    assert tokens.token().token == "token2"
    tokens.forget(refused)
    assert tokens.token().token == "token2"
    assert credential.logins == 2


def test_a_challenged_token_serves_everybody_after_it(source):
    tokens, credential = source
    tokens.token()
    assert tokens.get_token(tokens.cloud.scope, claims="c").token == "token2"
    assert tokens.get_token(tokens.cloud.scope, claims="c").token == "token2"
    assert tokens.token().token == "token2"
    assert credential.claims == [None, "c"]


def test_a_failed_login_is_one_sentence_without_secrets(monkeypatch, nowhere):
    from azure.core.exceptions import ClientAuthenticationError

    def refuse(options, where):
        raise ClientAuthenticationError(
            "AADSTS7000215: Invalid client secret provided. Trace ID: x client_secret=hunter2\nContent: {}"
        )

    monkeypatch.setattr(_auth, "_credential", refuse)
    with pytest.raises(AuthError) as caught:
        TokenSource(AuthOptions.from_params({}, ENV, nowhere)).token()
    said = str(caught.value)
    assert said.startswith(
        "Cannot log in to https://login.microsoftonline.com as c of tenant t: AADSTS7000215: Invalid client secret provided."
    )
    assert "hunter2" not in said and "\n" not in said
