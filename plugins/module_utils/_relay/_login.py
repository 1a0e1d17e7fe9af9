# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do helpers that start together get by with one login?

The ARM token rests in the same cache as the relay credentials, named by the identity that it belongs to; whoever holds
its lock logs in, the others wait for the file. With it rests ARM's address, so that they need not ask for that either.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .._auth import RENEW_BEFORE, AuthOptions, TokenSource
from ._cache import Cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azure.core.credentials import AccessToken


class Kept:
    """A token as it rests: `expires_on` in unix seconds; `resource_manager` is ARM's address if the token is for ARM."""

    __slots__ = ("expires_on", "resource_manager", "scopes", "token")

    def __init__(self, token: str, expires_on: int, scopes: Sequence[str], resource_manager: str | None) -> None:
        self.token = token
        self.expires_on = expires_on
        self.scopes = list(scopes)
        self.resource_manager = resource_manager


class Resting:
    """Where the token of one identity rests. Nothing of Azure's libraries is imported here."""

    def __init__(self, options: AuthOptions, cache: Cache) -> None:
        self._cache = cache
        self._subject = subject_of(options)
        self._file = f"login-{hashlib.sha256(self._subject.encode()).hexdigest()[:40]}.json"

    def lock(self) -> AbstractContextManager[None]:
        """Only one process and thread at a time logs in. Whoever holds it must not take it again."""
        return self._cache.lock(self._file)

    def kept(self) -> Kept | None:
        """The token of this identity, if it is good for a while yet."""
        content = self._cache.read(self._file)
        if content is None or content.get("subject") != self._subject or not isinstance(content.get("scopes"), list):
            return None
        token, expires_on = content.get("token"), content.get("expires_on")
        if not isinstance(token, str) or not isinstance(expires_on, int) or expires_on - time.time() < RENEW_BEFORE:
            return None
        where = content.get("resource_manager")
        return Kept(token, expires_on, content["scopes"], where if isinstance(where, str) else None)

    def keep(self, kept: Kept) -> None:
        """Leave a token for others."""
        self._cache.write(
            self._file, {"subject": self._subject, **{name: getattr(kept, name) for name in Kept.__slots__}}
        )

    def forget(self, refused: str) -> None:
        """Drop the token of this Authorization header, unless another process has done so since."""
        with self.lock():
            content = self._cache.read(self._file)
            if content is not None and refused == f"Bearer {content.get('token')}":
                self._cache.remove(self._file)


class SharedLogin(TokenSource):
    """A TokenSource whose tokens outlive the process."""

    def __init__(self, options: AuthOptions, cache: Cache) -> None:
        super().__init__(options)
        self._resting = Resting(options, cache)

    def get_token(self, *scopes: str, claims: str | None = None, **kwargs: Any) -> AccessToken:
        """The kept token, or a new one; `claims` always makes a new login."""
        with self._resting.lock():
            return self.get_token_locked(*scopes, claims=claims, **kwargs)

    def get_token_locked(self, *scopes: str, claims: str | None = None, **kwargs: Any) -> AccessToken:
        """As `get_token`, for whoever holds the lock already."""
        kept = None if claims else self._resting.kept()
        if kept is not None and kept.scopes == list(scopes):
            from azure.core.credentials import AccessToken

            return AccessToken(kept.token, kept.expires_on)
        token = super().get_token(*scopes, claims=claims, **kwargs)
        where = self.cloud.resource_manager if scopes == (self.cloud.scope,) else None
        self._resting.keep(Kept(token.token, token.expires_on, scopes, where))
        return token

    def forget(self, refused: str) -> None:
        """Log in anew before the next request, unless another process has done so since."""
        super().forget(refused)
        self._resting.forget(refused)


def subject_of(options: AuthOptions) -> str:
    """Who logs in where; for the Azure CLI also since when, since `az login` may have made it somebody else."""
    if options.auth_source != "cli":
        return options.identity
    profile = os.path.join(os.environ.get("AZURE_CONFIG_DIR") or os.path.expanduser("~/.azure"), "azureProfile.json")
    try:
        return f"{options.identity}|{os.stat(profile).st_mtime_ns}"
    except OSError:
        return options.identity
