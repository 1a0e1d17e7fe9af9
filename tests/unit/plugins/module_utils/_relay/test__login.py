# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do helpers that start together log in once?"""

from __future__ import annotations

import os
import pathlib
import threading
import time
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions, TokenSource
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import AuthError
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._login import SharedLogin

SCOPE = "https://management.azure.com/.default"
OPTIONS = AuthOptions(auth_source="env", client_id="client", tenant="tenant", secret="SECRET")


class Entra:
    """Stands in for the login of TokenSource."""

    def __init__(self, life: int = 3600) -> None:
        self.logins: list[tuple[tuple[str, ...], str | None]] = []
        self.life = life
        self.down = False

    def log_in(self, _source: TokenSource, scopes: tuple[str, ...], claims: str | None, _kwargs: Any) -> AccessToken:
        time.sleep(0.02)
        if self.down:
            raise AuthError("no login")
        self.logins.append((scopes, claims))
        return AccessToken(f"token{len(self.logins)}", int(time.time()) + self.life)


@pytest.fixture
def entra(monkeypatch: pytest.MonkeyPatch) -> Entra:
    stand_in = Entra()

    def log_in(source: TokenSource, *rest: Any) -> AccessToken:
        return stand_in.log_in(source, *rest)

    monkeypatch.setattr(TokenSource, "_login", log_in)
    return stand_in


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(str(tmp_path / "relay"))


def test_one_login_serves_all(entra: Entra, cache: Cache) -> None:
    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda: tokens.append(SharedLogin(OPTIONS, cache).get_token(SCOPE).token))
        for _dummy in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == ["token1"] * 12
    assert entra.logins == [((SCOPE,), None)]


def test_the_file_is_private_and_holds_no_secret_of_the_login(entra: Entra, cache: Cache) -> None:
    SharedLogin(OPTIONS, cache).get_token(SCOPE)
    (file,) = pathlib.Path(cache.directory).glob("login-*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "SECRET" not in file.read_text()


def test_identities_clouds_and_scopes_do_not_mix(entra: Entra, cache: Cache) -> None:
    SharedLogin(OPTIONS, cache).get_token(SCOPE)
    for options in (
        AuthOptions(auth_source="env", client_id="other", tenant="tenant", secret="x"),
        AuthOptions(auth_source="env", client_id="client", tenant="other", secret="x"),
        AuthOptions(
            auth_source="env", client_id="client", tenant="tenant", secret="x", cloud_environment="AzureChinaCloud"
        ),
    ):
        SharedLogin(options, cache).get_token(SCOPE)
    SharedLogin(OPTIONS, cache).get_token("https://other/.default")
    assert len(entra.logins) == 5


def test_a_token_is_renewed_before_it_expires(entra: Entra, cache: Cache) -> None:
    entra.life = 299
    SharedLogin(OPTIONS, cache).get_token(SCOPE)
    SharedLogin(OPTIONS, cache).get_token(SCOPE)
    assert len(entra.logins) == 2


def test_a_refused_token_is_dropped_once(entra: Entra, cache: Cache) -> None:
    first, second = SharedLogin(OPTIONS, cache), SharedLogin(OPTIONS, cache)
    assert first.get_token(SCOPE).token == second.get_token(SCOPE).token == "token1"
    first.forget("Bearer token1")
    assert first.get_token(SCOPE).token == "token2"
    second.forget("Bearer token1")
    assert second.get_token(SCOPE).token == "token2"
    assert len(entra.logins) == 2


def test_a_challenge_makes_a_new_login_for_everybody(entra: Entra, cache: Cache) -> None:
    SharedLogin(OPTIONS, cache).get_token(SCOPE)
    assert SharedLogin(OPTIONS, cache).get_token(SCOPE, claims="c").token == "token2"
    assert SharedLogin(OPTIONS, cache).get_token(SCOPE).token == "token2"


@pytest.mark.parametrize("content", [{}, {"subject": "x"}, {"token": 1}, {"expires_on": "soon"}])
def test_files_that_are_not_ours_are_replaced(entra: Entra, cache: Cache, content: dict[str, Any]) -> None:
    SharedLogin(OPTIONS, cache).get_token(SCOPE)
    (file,) = pathlib.Path(cache.directory).glob("login-*.json")
    cache.write(file.name, {**(cache.read(file.name) or {}), **content} if content else {})
    assert SharedLogin(OPTIONS, cache).get_token(SCOPE).token == "token2"


def test_a_failed_login_leaves_the_lock_and_no_file(entra: Entra, cache: Cache) -> None:
    entra.down = True
    with pytest.raises(AuthError):
        SharedLogin(OPTIONS, cache).get_token(SCOPE)
    entra.down = False
    assert SharedLogin(OPTIONS, cache).get_token(SCOPE).token == "token1"


def test_az_login_as_somebody_else_counts_at_once(
    entra: Entra, cache: Cache, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    profile = tmp_path / "azureProfile.json"
    profile.touch()
    options = AuthOptions(auth_source="cli")
    SharedLogin(options, cache).get_token(SCOPE)
    SharedLogin(options, cache).get_token(SCOPE)
    assert len(entra.logins) == 1
    os.utime(profile, (1, 1))
    SharedLogin(options, cache).get_token(SCOPE)
    assert len(entra.logins) == 2
