# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may have a token?

Microsoft Entra ID's token endpoints (v2 and v1) for client credentials and users of the Azure CLI, discovery documents, the App Service kind of
managed identity, and OpenSSH certificates for `ssh-cert` requests. Errors are Entra's: `error`, `error_description`
with an AADSTS number, `error_codes`. There is one tenant.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from . import ssh_certificates
from .entra_errors import EntraFailure, refusal
from .http import Answer
from .ssh_certificates import SshCertificates
from .tokens import AZURE_CLI, Tokens
from .world import DOMAIN, Principal, World

_OTHER_RESOURCES = ("https://graph.microsoft.com", "https://graph.windows.net", "https://vault.azure.net")
_OF_IDENTITY = ("openid", "profile", "email", "offline_access")
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_EXCHANGE = "api://AzureADTokenExchange"


@dataclass(frozen=True)
class Grant:
    """What a token request gave; `certificate_for`: the principal of an SSH certificate."""

    principal_id: str
    answer: Answer
    certificate_for: str | None = None


class Entra:
    """The login side of the lab."""

    def __init__(self, world: World, tokens: Tokens, certificates: SshCertificates, *, lifetime: float) -> None:
        self.world = world
        self.tokens = tokens
        self.certificates = certificates
        self.lifetime = lifetime

    # Discovery

    def openid_configuration(self, tenant: str, *, v2: bool) -> Answer:
        """The discovery document of a tenant, or of `common` and `organizations`."""
        shown = tenant if tenant.lower() in ("common", "organizations") else self._tenant(tenant, "invalid_tenant")
        base = f"{self.tokens.url}/{shown}"
        oauth = "oauth2/v2.0" if v2 else "oauth2"
        issuer = shown if shown == self.world.tenant else "{tenantid}"
        return Answer(
            200,
            {
                "token_endpoint": f"{base}/{oauth}/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "private_key_jwt",
                    "client_secret_basic",
                ],
                "jwks_uri": f"{base}/discovery/{'v2.0/' if v2 else ''}keys",
                "response_modes_supported": ["query", "fragment", "form_post"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "issuer": f"{self.tokens.url}/{issuer}/{'v2.0' if v2 else ''}",
                "authorization_endpoint": f"{base}/{oauth}/authorize",
                "device_authorization_endpoint": f"{base}/{oauth}/devicecode",
                "end_session_endpoint": f"{base}/{oauth}/logout",
                "tenant_region_scope": "EU",
                "cloud_instance_name": self.tokens.url.partition("//")[2],
            },
        )

    def keys(self) -> Answer:
        return Answer(200, {"keys": [self.tokens.jwk]})

    def instance_discovery(self, query: Mapping[str, str], now: float) -> Answer:
        """Which hosts belong together: MSAL asks this before it trusts an authority."""
        host = self.tokens.url.partition("//")[2]
        tenant = self.world.tenant
        if "authorization_endpoint" not in query:
            failure = EntraFailure(
                400, "invalid_request", 50059, "No tenant-identifying information found in the request."
            )
            return failure.answer(now)
        return Answer(
            200,
            {
                "tenant_discovery_endpoint": f"{self.tokens.url}/{tenant}/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            },
        )

    # Tokens

    def token(self, tenant: str, form: Mapping[str, str], *, v2: bool, now: float) -> Grant:
        """The answer of the token endpoint; EntraFailure for every refusal."""
        self._tenant(tenant, "invalid_request")
        grant_type = _required(form, "grant_type")
        if grant_type == "refresh_token" and v2:
            return self._refresh(form, now)
        if grant_type != "client_credentials":
            raise EntraFailure(
                400, "unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant_type}'."
            )
        audience = self._audience(form, v2)
        principal = self._authenticate(form, tenant, v2=v2, now=now)
        if self._wants_certificate(form, principal):
            answer = self._ssh_certificate(principal, form, audience, now)
            return Grant(principal.id, answer, principal.login)
        return Grant(principal.id, self._bearer(principal, form, audience, v2=v2, now=now))

    def _wants_certificate(self, form: Mapping[str, str], principal: Principal) -> bool:
        """Is it an SSH certificate that is asked for? EntraFailure if the principal is to get neither that nor a token."""
        wanted = form.get("token_type") == "ssh-cert"
        number = principal.refused or (principal.certificate_refused if wanted else None)
        if number is not None:
            name = principal.name if principal.upn is None else "Microsoft Azure CLI"
            raise refusal(number, client_id=form["client_id"], name=name)
        return wanted

    def sign_in(self, user: Principal) -> str:
        """What the Azure CLI keeps of a user who signed in: a refresh token."""
        token = secrets.token_urlsafe(64)
        user.refresh_tokens.append(token)
        self.world.add_principal(user)
        return token

    def _refresh(self, form: Mapping[str, str], now: float) -> Grant:
        """A token or an SSH certificate for a user of the Azure CLI, by the refresh token of an earlier sign-in."""
        client_id, token = _required(form, "client_id"), _required(form, "refresh_token")
        scopes = [one for one in _required(form, "scope").split() if one not in _OF_IDENTITY]
        audience = self._audience({"scope": " ".join(scopes)}, True)
        if client_id.lower() != AZURE_CLI:
            text = f"Application with identifier '{client_id}' was not found in the directory 'Arc lab'."
            raise EntraFailure(400, "unauthorized_client", 700016, text)
        user = next((one for one in self.world.principals.values() if token in one.refresh_tokens), None)
        if user is None:
            text = "Invalid request. Request is malformed or invalid."
            raise EntraFailure(400, "invalid_grant", 9002313, text, suberror="bad_token")
        certificate_for = None
        if self._wants_certificate(form, user):
            certificate_for = user.login
            answer = self._ssh_certificate(user, form, audience, now)
        else:
            answer = self._bearer(user, form, audience, v2=True, now=now)
        more = {"scope": " ".join(scopes), "refresh_token": self.sign_in(user), "foci": "1"}
        return Grant(user.id, Answer(200, {**answer.body, **more, **self.tokens.identify(user, now)}), certificate_for)

    def _bearer(self, principal: Principal, form: Mapping[str, str], audience: str, *, v2: bool, now: float) -> Answer:
        token = self.tokens.mint(principal, audience, lifetime=self.lifetime, capable=_capable(form), now=now)
        seconds = int(self.lifetime)
        if v2:
            body = {
                "token_type": "Bearer",
                "expires_in": seconds,
                "ext_expires_in": seconds,
                "access_token": token,
            }
        else:
            body = {
                "token_type": "Bearer",
                "expires_in": str(seconds),
                "ext_expires_in": str(seconds),
                "expires_on": str(int(now) + seconds),
                "not_before": str(int(now)),
                "resource": audience,
                "access_token": token,
            }
        return Answer(200, body)

    def _tenant(self, tenant: str, error: str) -> str:
        if tenant.lower() not in (self.world.tenant, DOMAIN):
            raise EntraFailure(
                400,
                error,
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into "
                "the "
                "correct cloud. Check with your subscription administrator, this may happen if there are no active "
                "subscriptions for the tenant.",
            )
        return self.world.tenant

    def _audience(self, form: Mapping[str, str], v2: bool) -> str:
        if v2:
            scope = _required(form, "scope")
            if not scope.endswith("/.default") or " " in scope:
                raise EntraFailure(
                    400,
                    "invalid_scope",
                    1002012,
                    f"The provided value for scope {scope} is not valid. Client credential flows must have a scope "
                    "value "
                    "with /.default suffixed to the resource identifier (application ID URI).",
                )
            audience = scope.removesuffix("/.default")
        else:
            audience = _required(form, "resource")
        known = (*self.tokens.audiences, *_OTHER_RESOURCES, ssh_certificates.SCOPE)
        if audience.rstrip("/") not in known:
            raise EntraFailure(
                400,
                "invalid_resource",
                500011,
                f"The resource principal named {audience} was not found in the tenant named Arc lab. This can happen "
                "if the "
                "application has not been installed by the administrator of the tenant or consented to by any user in "
                "the "
                "tenant. You might have sent your authentication request to the wrong tenant.",
            )
        return audience

    def _authenticate(self, form: Mapping[str, str], tenant: str, *, v2: bool, now: float) -> Principal:
        client_id = _required(form, "client_id")
        principal = self.world.applications.get(client_id.lower())
        if principal is None:
            raise EntraFailure(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{client_id}' was not found in the directory 'Arc lab'. This can happen "
                "if the "
                "application has not been installed by the administrator of the tenant or consented to by any user in "
                "the "
                "tenant. You may have sent your authentication request to the wrong tenant.",
            )
        if secret := form.get("client_secret"):
            if secret not in principal.secrets:
                raise EntraFailure(
                    401,
                    "invalid_client",
                    7000215,
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
                    "value, "
                    f"not the client secret ID, for a secret added to app '{client_id}'.",
                )
            return principal
        if not form.get("client_assertion"):
            raise EntraFailure(
                401,
                "invalid_client",
                7000216,
                "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
            )
        if form.get("client_assertion_type") != _JWT_BEARER:
            raise EntraFailure(
                400,
                "invalid_request",
                900144,
                "The request body must contain the following parameter: 'client_assertion_type'.",
            )
        self._check_assertion(principal, form["client_assertion"], tenant, v2)
        return principal

    def _check_assertion(self, principal: Principal, assertion: str, tenant: str, v2: bool) -> None:
        try:
            header = jwt.get_unverified_header(assertion)
            claims = jwt.decode(assertion, options={"verify_signature": False})
        except jwt.PyJWTError as exc:
            raise EntraFailure(401, "invalid_client", 50027, "JWT token is invalid or malformed.") from exc
        if str(claims.get("iss", "")).lower() == principal.app_id:
            self._check_certificate(principal, assertion, header, tenant, v2)
        else:
            self._check_federation(principal, assertion, claims)

    def _check_certificate(
        self, principal: Principal, assertion: str, header: Mapping[str, Any], tenant: str, v2: bool
    ) -> None:
        audience = f"{self.tokens.url}/{tenant}/oauth2/{'v2.0/' if v2 else ''}token"
        for pem in principal.certificates:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            if not _thumbprint_matches(certificate, header):
                continue
            key = certificate.public_key()
            if not isinstance(key, rsa.RSAPublicKey):
                continue
            try:
                jwt.decode(assertion, key, algorithms=["RS256", "PS256"], audience=[audience], leeway=300)
            except jwt.PyJWTError as exc:
                raise EntraFailure(
                    401,
                    "invalid_client",
                    700027,
                    f"The certificate with identifier used to sign the client assertion: {exc}.",
                ) from exc
            return
        shown = header.get("x5t") or header.get("x5t#S256") or ""
        raise EntraFailure(
            401,
            "invalid_client",
            700027,
            "The certificate with identifier used to sign the client assertion is not registered on application. "
            f"[Reason - The key was not found., Thumbprint of key used by client: '{shown}'].",
        )

    def _check_federation(self, principal: Principal, assertion: str, claims: Mapping[str, Any]) -> None:
        shown = (
            f"Assertion Issuer: '{claims.get('iss')}'. Assertion Subject: '{claims.get('sub')}'. "
            f"Assertion Audience: '{claims.get('aud')}'."
        )
        for one in principal.federated:
            if (one["issuer"], one["subject"]) != (claims.get("iss"), claims.get("sub")):
                continue
            key = load_pem_public_key(one["public_key"].encode())
            try:
                jwt.decode(
                    assertion,
                    key,  # type: ignore[arg-type]
                    algorithms=["RS256", "ES256"],
                    audience=one.get("audience", _EXCHANGE),
                    issuer=one["issuer"],
                    leeway=300,
                )
            except jwt.ExpiredSignatureError as exc:
                raise EntraFailure(
                    401, "invalid_client", 700024, "Client assertion is not within its valid time range."
                ) from exc
            except jwt.PyJWTError as exc:
                raise EntraFailure(
                    401, "invalid_client", 5000232, f"Unable to validate the client assertion. {shown}"
                ) from exc
            return
        raise EntraFailure(
            401,
            "invalid_client",
            700213,
            f"No matching federated identity record found for presented assertion subject '{claims.get('sub')}'. "
            f"{shown}",
        )

    # Managed identity and SSH certificates

    def managed_identity(self, query: Mapping[str, str], headers: Mapping[str, str], now: float) -> Answer:
        """App Service's token endpoint: `X-IDENTITY-HEADER` proves that the caller runs on the resource."""
        if query.get("api-version") not in ("2019-08-01", "2017-09-01"):
            return Answer(400, {"statusCode": 400, "message": "Invalid or missing api-version."})
        if headers.get("X-IDENTITY-HEADER", headers.get("secret")) != self.world.meta["identity_header"]:
            return Answer(401, {"statusCode": 401, "message": "Unauthorized"})
        resource = query.get("resource", "")
        if resource.rstrip("/") not in (*self.tokens.audiences, *_OTHER_RESOURCES):
            return Answer(
                400,
                {"statusCode": 400, "message": f"AADSTS500011: The resource principal named {resource} was not found."},
            )
        principal = self.world.applications[self.world.meta["owner"]]
        asked = query.get("client_id", query.get("clientid"))
        if asked and asked.lower() != principal.app_id:
            return Answer(
                400,
                {
                    "statusCode": 400,
                    "message": "No User Assigned or Delegated Managed Identity found for specified "
                    "ClientId/ResourceId/PrincipalId.",
                },
            )
        token = self.tokens.mint(principal, resource, lifetime=self.lifetime, capable=True, now=now)
        return Answer(
            200,
            {
                "access_token": token,
                "expires_on": str(int(now + self.lifetime)),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": principal.app_id,
            },
        )

    def _ssh_certificate(self, principal: Principal, form: Mapping[str, str], audience: str, now: float) -> Answer:
        """A certificate for the RSA key in `req_cnf`, instead of a token."""
        if audience.rstrip("/") != ssh_certificates.SCOPE:
            raise EntraFailure(
                400,
                "invalid_scope",
                70011,
                f"The provided value for the input parameter 'scope' is not valid: {audience}.",
            )
        seconds = int(self.certificates.seconds)
        return Answer(
            200,
            {
                "token_type": "ssh-cert",
                "expires_in": seconds,
                "ext_expires_in": seconds,
                "access_token": self.certificates.issue(form, principal.login, now),
            },
        )


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if not value:
        raise EntraFailure(
            400, "invalid_request", 900144, f"The request body must contain the following parameter: '{name}'."
        )
    return value


def _capable(form: Mapping[str, str]) -> bool:
    """Does the client declare that it handles claims challenges?"""
    try:
        values = json.loads(form.get("claims") or "{}")["access_token"]["xms_cc"]["values"]
    except (ValueError, KeyError, TypeError):
        return False
    return "CP1" in values


def _thumbprint_matches(certificate: x509.Certificate, header: Mapping[str, Any]) -> bool:
    der = certificate.public_bytes(Encoding.DER)
    given = {str(header[name]).rstrip("=") for name in ("x5t", "x5t#S256") if name in header}
    own = {
        base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA1())).rstrip(b"=").decode(),
        base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode(),
    }
    return bool(given & own)
