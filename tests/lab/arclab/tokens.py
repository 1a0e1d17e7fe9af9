# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this access token good, and whose is it?

RS256 JWTs with the claims that ARM looks at (aud, iss, oid, appid, tid, iat, nbf, exp, xms_cc), signed by a key that
outlives a restart. Tokens whose client declared itself capable of claims challenges (CP1) can be revoked before they
expire.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from .http import ArmFailure
from .sshd import write_private
from .world import Principal

# The Azure CLI, the public client with which the lab's users sign in.
AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
ARM_AUDIENCES = ("https://management.core.windows.net", "https://management.azure.com")
_REMEMBERED = 10_000
_ID_TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class Caller:
    """Who sent a request, by a token that is good."""

    principal_id: str
    app_id: str
    token_id: str


def load_signing_key(path: Path) -> rsa.RSAPrivateKey:
    """The RSA key in `path`, made on first use."""
    if not path.exists():
        key = rsa.generate_private_key(65537, 2048)
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    loaded = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise TypeError(f"{path} holds no RSA key.")
    return loaded


def _number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


class Tokens:
    """Makes access tokens and reads them; `url` is the lab's own address, `tenant` its only tenant."""

    def __init__(self, key: rsa.RSAPrivateKey, url: str, tenant: str) -> None:
        self._key = key
        self._public = key.public_key()
        self.url = url
        self.tenant = tenant
        self.issuer = f"{url}/{tenant}/"
        numbers = self._public.public_numbers()
        self.key_id = hashlib.sha256(str(numbers.n).encode()).hexdigest()[:27]
        self.jwk = {
            "kty": "RSA",
            "use": "sig",
            "kid": self.key_id,
            "x5t": self.key_id,
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }
        self._good: dict[str, dict[str, Any]] = {}
        self._minted: dict[str, float] = {}
        self._revoked_at: dict[str | None, float] = {}

    @property
    def audiences(self) -> tuple[str, ...]:
        """What a token for this ARM may be addressed to, without the slash at the end."""
        return (*ARM_AUDIENCES, self.url)

    def mint(self, principal: Principal, audience: str, *, lifetime: float, capable: bool, now: float) -> str:
        """An access token; `capable`: the client handles claims challenges (CP1)."""
        token_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        claims: dict[str, Any] = {
            "aud": audience,
            "iss": self.issuer,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + lifetime),
            "appid": principal.app_id,
            "appidacr": "1",
            "idp": self.issuer,
            "idtyp": "app",
            "oid": principal.id,
            "sub": principal.id,
            "tid": self.tenant,
            "uti": token_id,
            "ver": "1.0",
        }
        if principal.upn is not None:
            user = {"appidacr": "0", "idtyp": "user", "scp": "user_impersonation", "upn": principal.upn}
            claims.update(user, appid=AZURE_CLI, name=principal.name, unique_name=principal.upn)
        if capable:
            claims["xms_cc"] = ["CP1"]
        if len(self._minted) > _REMEMBERED:
            self._minted.clear()
        self._minted[token_id] = now
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.key_id, "x5t": self.key_id})

    def identify(self, user: Principal, now: float) -> dict[str, str]:
        """What tells a client which user signed in: `id_token` and `client_info`."""
        claims = {
            "aud": AZURE_CLI,
            "iss": f"{self.issuer}v2.0",
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + _ID_TOKEN_SECONDS),
            "name": user.name,
            "oid": user.id,
            "preferred_username": user.upn,
            "sub": user.id,
            "tid": self.tenant,
            "ver": "2.0",
        }
        info = json.dumps({"uid": user.id, "utid": self.tenant}).encode()
        return {
            "id_token": jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.key_id}),
            "client_info": base64.urlsafe_b64encode(info).rstrip(b"=").decode(),
        }

    def revoke(self, principal_id: str | None, now: float) -> None:
        """Refuse the tokens made so far, of one principal or of all, if their clients can handle a challenge."""
        self._revoked_at[principal_id] = now

    def caller(self, authorization: str | None, now: float) -> Caller:
        """The caller of an ARM request; ArmFailure 401 says what is wrong with the token."""
        if not authorization:
            raise self._refusal("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
        scheme, _space, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise self._refusal(
                "AuthenticationFailedInvalidHeader",
                "Authentication failed. The 'Authorization' header is provided in an invalid format.",
            )
        claims = self._good.get(token)
        if claims is None:
            claims = self._read(token)
            if len(self._good) > _REMEMBERED:
                self._good.clear()
            self._good[token] = claims
        if now >= claims["exp"]:
            raise self.expired(claims["exp"], now)
        self._check_revocation(claims)
        return Caller(claims["oid"], claims["appid"], claims["uti"])

    def expired(self, expiry: float, now: float) -> ArmFailure:
        """The refusal of a token that expired."""
        written = [time.strftime("%m/%d/%Y %I:%M:%S %p", time.gmtime(one)) for one in (expiry, now)]
        return self._refusal(
            "ExpiredAuthenticationToken",
            f"The access token expiry UTC time '{written[0]}' is earlier than current UTC time '{written[1]}'.",
            "The access token expired",
        )

    def _read(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=["RS256"],
                options={
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "require": ["exp", "aud", "oid"],
                },
            )
        except jwt.PyJWTError as exc:
            code = "InvalidAuthenticationToken"
            raise self._refusal(code, "The access token is invalid.", "The access token is invalid") from exc
        if claims.get("iss") != self.issuer:
            raise self._refusal(
                "InvalidAuthenticationTokenTenant",
                f"The access token is from the wrong issuer '{claims.get('iss')}'. It must match the tenant "
                f"'{self.issuer}' associated with this subscription. Please use the authority (URL) "
                f"'{self.url}/{self.tenant}' to get the token.",
                "The access token is from the wrong issuer",
            )
        if str(claims["aud"]).rstrip("/") not in self.audiences:
            allowed = ",".join(f"'{one}/','{one}'" for one in self.audiences)
            raise self._refusal(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. It should "
                "exactly "
                f"match with one of the allowed audiences {allowed}.",
                "The access token has been obtained for wrong audience or resource",
            )
        return claims

    def _check_revocation(self, claims: Mapping[str, Any]) -> None:
        if "CP1" not in claims.get("xms_cc", ()):
            return
        revoked_at = max(self._revoked_at.get(None, 0.0), self._revoked_at.get(claims["oid"], 0.0))
        if self._minted.get(claims["uti"], float(claims["iat"])) <= revoked_at:
            raise self.challenge(revoked_at)

    def challenge(self, revoked_at: float) -> ArmFailure:
        """The refusal that asks for a token made after a moment."""
        demand = {"access_token": {"nbf": {"essential": True, "value": str(int(revoked_at))}}}
        claims = base64.b64encode(json.dumps(demand, separators=(",", ":")).encode()).decode()
        failure = self._refusal(
            "TokenIssuedBeforeRevocationTimestamp",
            "Continuous access evaluation resulted in claims challenge with result: InteractionRequired and code: "
            "TokenIssuedBeforeRevocationTimestamp",
        )
        failure.headers["WWW-Authenticate"] = (
            f'Bearer realm="", authorization_uri="{self.url}/common/oauth2/authorize", '
            f'client_id="{self.tenant}", error="insufficient_claims", claims="{claims}"'
        )
        return failure

    def _refusal(self, code: str, message: str, description: str = "The authentication failed.") -> ArmFailure:
        header = (
            f'Bearer authorization_uri="{self.url}/{self.tenant}", error="invalid_token", '
            f'error_description="{description}"'
        )
        return ArmFailure(401, code, message, headers={"WWW-Authenticate": header})
