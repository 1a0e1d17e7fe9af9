# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which secrets open the relay, and is this one genuine?

Two tokens travel with a connection. The shared access signature (header `ServiceBusAuthorization`) is checked by the
relay: `SharedAccessSignature sr=..&sig=..&se=..&skn=..`, an HMAC-SHA256 over the encoded resource and the expiry
(documented for Service Bus and Relay). The service token (header `Service-Configuration-Token`) is a JWT that the agent
checks; what it claims is not published, so its claims are the lab's own. 401 means missing or malformed, 403 means
genuine-looking but not valid here (documented in the hybrid connections protocol guide).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote, unquote, urlsplit

import jwt

_SCHEME = "SharedAccessSignature "
_FIELDS = {"sr", "sig", "se", "skn"}


class TokenRefused(Exception):
    """A token that opens nothing: `status` is 401 (missing, malformed) or 403 (not valid here), `text` says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Signature:
    """A shared access signature taken apart; `resource` is decoded, `signed` is the very text its HMAC covers."""

    resource: str
    key_name: str
    expires_on: int
    signed: str
    sig: bytes


@dataclass(frozen=True)
class ServiceToken:
    """What a service token allows: one service of one machine at one local port until `expires_on` (unix s)."""

    resource_id: str
    service_name: str
    port: int
    expires_on: int


def _hmac(key: str, signed: str) -> bytes:
    return hmac.digest(key.encode(), signed.encode(), hashlib.sha256)


def sign(resource: str, key_name: str, key: str, expires_on: int) -> str:
    """The shared access signature that rule `key_name` with `key` issues for `resource` until `expires_on` (unix s)."""
    encoded = quote(resource.lower(), safe="").lower()
    sig = base64.b64encode(_hmac(key, f"{encoded}\n{expires_on}")).decode()
    return f"{_SCHEME}sr={encoded}&sig={quote(sig, safe='')}&se={expires_on}&skn={quote(key_name, safe='')}"


def parse(token: str | None) -> Signature:
    """Take a shared access signature apart; TokenRefused(401) if there is none or it is not one."""
    if not token:
        raise TokenRefused(401, "MissingToken: Relay security token is required.")
    malformed = TokenRefused(401, "MalformedToken: The Relay security token is malformed.")
    if not token.startswith(_SCHEME):
        raise malformed
    pairs = [part.partition("=") for part in token[len(_SCHEME) :].strip().split("&")]
    fields = {name: value for name, _equals, value in pairs}
    if set(fields) != _FIELDS or len(pairs) != len(fields) or not all(fields.values()):
        raise malformed
    try:
        sig = base64.b64decode(unquote(fields["sig"]), validate=True)
        expires_on = int(fields["se"])
    except ValueError:
        raise malformed from None
    signed = f"{fields['sr']}\n{fields['se']}"
    return Signature(unquote(fields["sr"]), unquote(fields["skn"]), expires_on, signed, sig)


def check(
    token: Signature, *, key_name: str, key: str, entity: str, path: str, hosts: Collection[str], now: float
) -> None:
    """Is this token valid for `path`, which belongs to hybrid connection `entity` of a namespace known as `hosts`?

    Raises TokenRefused(403) for another rule, a wrong signature, another audience or an expired token. The scheme of
    the audience and its port do not count: SDKs sign `http://<host>/<path>` whatever they dial.
    """
    if token.key_name != key_name or not hmac.compare_digest(_hmac(key, token.signed), token.sig):
        raise TokenRefused(403, "InvalidSignature: The token has an invalid signature.")
    try:
        audience = urlsplit(token.resource.lower())
        host = audience.hostname
    except ValueError:
        host = None
    granted = audience.path.strip("/") if host in hosts else ""
    under_entity = f"{granted}/".startswith(f"{entity.lower()}/")
    if not (under_entity and f"{path.lower()}/".startswith(f"{granted}/")):
        raise TokenRefused(403, "InvalidAudience: The authorization header contains a token with a wrong audience.")
    if token.expires_on <= now:
        expired = formatdate(token.expires_on, usegmt=True)
        raise TokenRefused(403, f"ExpiredToken: The token is expired. Expiration time: '{expired}'.")


def issue_service_token(secret: bytes, token: ServiceToken, now: float) -> str:
    """The JWT that listCredentials hands out for one service of one machine."""
    claims = {
        "sub": token.resource_id,
        "serviceName": token.service_name,
        "port": token.port,
        "iat": int(now),
        "exp": token.expires_on,
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def read_service_token(secret: bytes, text: str | None, now: float) -> ServiceToken:
    """The genuine service token behind `text`; TokenRefused(401) if missing or no JWT, (403) if forged or expired."""
    if not text:
        raise TokenRefused(401, "Service configuration token is missing.")
    try:
        claims = jwt.decode(
            text,
            secret,
            algorithms=["HS256"],
            options={"verify_exp": False, "verify_iat": False, "require": ["sub", "serviceName", "port", "exp"]},
        )
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.MissingRequiredClaimError):
        raise TokenRefused(403, "Service configuration token is not valid.") from None
    except jwt.InvalidTokenError:
        raise TokenRefused(401, "Service configuration token is malformed.") from None
    token = ServiceToken(claims["sub"], claims["serviceName"], claims["port"], claims["exp"])
    if token.expires_on <= now:
        raise TokenRefused(403, "Service configuration token is expired.")
    return token
