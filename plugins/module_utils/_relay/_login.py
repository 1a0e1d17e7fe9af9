# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do helpers that start together get by with one login?

The ARM token rests in the same cache as the relay credentials, named by the identity that it belongs to; whoever holds
its lock logs in, the others wait for the file. Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

from .._auth import RENEW_BEFORE, AuthOptions, TokenSource
from ._cache import Cache

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken


class SharedLogin(TokenSource):
    """A TokenSource whose tokens outlive the process."""

    def __init__(self, options: AuthOptions, cache: Cache) -> None:
        super().__init__(options)
        self._cache = cache
        self._subject = subject_of(options)
        self._file = f"login-{hashlib.sha256(self._subject.encode()).hexdigest()[:40]}.json"

    def get_token(self, *scopes: str, claims: str | None = None, **kwargs: Any) -> AccessToken:
        """The kept token, or a new one; `claims` always makes a new login."""
        with self._cache.lock(self._file):
            kept = None if claims else self._kept(scopes)
            if kept is not None:
                return kept
            token = super().get_token(*scopes, claims=claims, **kwargs)
            self._cache.write(
                self._file,
                {"subject": self._subject, "scopes": scopes, "token": token.token, "expires_on": token.expires_on},
            )
            return token

    def forget(self, refused: str) -> None:
        """Log in anew before the next request, unless another process has done so since."""
        super().forget(refused)
        with self._cache.lock(self._file):
            content = self._cache.read(self._file)
            if content is not None and refused == f"Bearer {content.get('token')}":
                self._cache.remove(self._file)

    def _kept(self, scopes: tuple[str, ...]) -> AccessToken | None:
        from azure.core.credentials import AccessToken

        content = self._cache.read(self._file)
        if content is None or content.get("subject") != self._subject or content.get("scopes") != list(scopes):
            return None
        token, expires_on = content.get("token"), content.get("expires_on")
        if not isinstance(token, str) or not isinstance(expires_on, int) or expires_on - time.time() < RENEW_BEFORE:
            return None
        return AccessToken(token, expires_on)


def subject_of(options: AuthOptions) -> str:
    """Who logs in where; for the Azure CLI also since when, since `az login` may have made it somebody else."""
    if options.auth_source != "cli":
        return options.identity
    profile = os.path.join(os.environ.get("AZURE_CONFIG_DIR") or os.path.expanduser("~/.azure"), "azureProfile.json")
    try:
        return f"{options.identity}|{os.stat(profile).st_mtime_ns}"
    except OSError:
        return options.identity
