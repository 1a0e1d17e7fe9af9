# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does an Entra identity get an OpenSSH certificate?

With a token request of the type `ssh-cert`: it carries a new RSA key as a JWK, and the "token" that comes back is the certificate.
azure-identity cannot ask so; MSAL can, for service principals and, with what `az login` left behind, for users. The request's shape is
that of the Azure CLI's extension `ssh`. What comes back is looked at before it is taken: it has to carry the key that was sent.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._auth import CLOUDS, AuthOptions, Cloud, cloud, first_sentences, session
from ._errors import ArcError, AuthError, ConnectionFailed, InputError, in_the_way

# The application that stands for logins to Linux machines; a tenant in which nobody ever logged in so does not know it.
LOGIN_APPLICATION = "Azure Linux VM Sign-In (ce6ff14a-7fdc-4685-bbe0-f6afdfcfa8e0)"
LOGIN_ROLES = "Virtual Machine Administrator Login or Virtual Machine User Login"

# Where a certificate is asked for, by cloud (the Azure CLI's extension `ssh`). A cloud that describes itself says nothing of it.
_PUBLIC_SCOPE = "https://pas.windows.net/CheckMyAccess/Linux/.default"
SCOPES = {
    "azurecloud": _PUBLIC_SCOPE,
    "azureusgovernment": "https://pasff.usgovcloudapi.net/CheckMyAccess/Linux/.default",
    "azurechinacloud": "https://pas.chinacloudapi.cn/CheckMyAccess/Linux/.default",
}

# The Azure CLI's own application: a refresh token that it got is good for no other.
_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
_BITS = 3072
_TYPE = b"ssh-rsa-cert-v01@openssh.com"
# A first principal: a GUID or a user principal name ("Plan and troubleshoot User Principal Name changes in Microsoft Entra ID" has its
# characters), and nothing that another program could take for more.
_PRINCIPAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._'#!~^-]*(@[A-Za-z0-9._-]+)?")

MANAGED_IDENTITY = (
    "Azure issues no SSH certificates to managed identities: their token endpoint knows no other tokens than bearer tokens.",
    (
        "Use ssh_auth: key with the role Virtual Machine Local User Login, or an app registration that trusts the managed identity "
        "(workload identity federation) with client_id, tenant and oidc_token_file_path."
    ),
)

# Remedies by Entra's error number.
_AGAIN = "Log in again with `az login`, with the tenant in question."
HINTS: Mapping[int, str] = {
    50057: "Have the account enabled, or use another one.",
    50059: "Check tenant.",
    50076: _AGAIN,
    50079: _AGAIN,
    50173: _AGAIN,
    53000: "Conditional access wants a compliant device; see the sign-in log in Entra ID for the policy.",
    53003: (
        f"A conditional access policy blocks this login; its owner can see it in Entra ID's sign-in log, for the application "
        f"{LOGIN_APPLICATION}."
    ),
    65001: f"An administrator of the tenant has to consent to {LOGIN_APPLICATION}.",
    70008: _AGAIN,
    70043: _AGAIN,
    90002: "Check tenant and cloud_environment.",
    500011: f"The tenant does not know {LOGIN_APPLICATION}; an administrator can add it with `az ad sp create --id ce6ff14a-...`.",
    700016: "Check client_id, and that tenant is the one of the application.",
    700024: "The federated token has expired or is not valid yet; have it renewed, and check the clock.",
    700027: "Check x509_certificate_path, and that the certificate is registered with the application.",
    700082: _AGAIN,
    700213: "Check the federated credential of the application: issuer, subject and audience have to be those of the token.",
    7000112: "The service principal is disabled; an administrator can enable it in Entra ID under Enterprise applications.",
    7000215: "Check the secret: its value is wanted, not its id.",
    7000222: "The secret has expired; make a new one.",
}


@dataclass(frozen=True)
class Issued:
    """A certificate and its key. `private_key` is a secret, an OpenSSH file; `certificate` is a line of OpenSSH's; times are unix
    seconds. `principal` is the first one, lower-cased: the name to log in with."""

    private_key: bytes
    certificate: bytes
    principal: str
    valid_before: int

    def __repr__(self) -> str:
        return f"Issued({self.principal}, valid_before={self.valid_before})"


def scope(where: Cloud) -> str:
    """The scope of a certificate in this cloud; a cloud that describes itself is taken to use the public one's."""
    return SCOPES.get(where.name.lower(), _PUBLIC_SCOPE)


def check_identity(options: AuthOptions) -> None:
    """Raises InputError for an identity that can get no certificate, before anything is asked."""
    if options.auth_source == "msi":
        raise InputError(MANAGED_IDENTITY[0], hint=MANAGED_IDENTITY[1])


def key_claims(blob: bytes) -> dict[str, str]:
    """What the request says of the key whose public half is `blob`, in OpenSSH's wire format (RFC 4253, 6.6).

    Modulus and exponent are the bytes of the wire, with their leading zero, and the encoding keeps its padding, as the Azure CLI
    sends them; the service may compute `key_id` from the very same texts.
    """
    _kind, exponent, modulus = _strings(blob, 3)
    n, e = (base64.urlsafe_b64encode(number).decode("ascii") for number in (modulus, exponent))
    key_id = hashlib.sha256(f"{n}{e}".encode("ascii")).hexdigest()
    confirmation = json.dumps({"kty": "RSA", "n": n, "e": e, "kid": key_id})
    return {"token_type": "ssh-cert", "req_cnf": confirmation, "key_id": key_id}


def _strings(blob: bytes, count: int) -> list[bytes]:
    found, rest = [], blob
    for _index in range(count):
        length = int.from_bytes(rest[:4], "big")
        found.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return found


def read(private_key: bytes, token: Any, who: str) -> Issued:
    """What Entra answered, as the certificate of this key. Raises AuthError where it is none."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_identity
    from cryptography.hazmat.primitives.serialization.ssh import SSHCertificate, SSHCertificateType

    line = b"%s %s\n" % (_TYPE, str(token).encode("ascii", "replace"))
    try:
        found = load_ssh_public_identity(line)
        own = load_ssh_private_key(private_key, None).public_key()
    except (ValueError, TypeError) as exc:
        raise _unusable(who, "is no OpenSSH certificate") from exc
    if not isinstance(found, SSHCertificate) or found.type is not SSHCertificateType.USER:
        raise _unusable(who, "is no user's certificate")
    if found.public_key() != own:
        raise _unusable(who, "belongs to another key than the one that was sent")
    principal = found.valid_principals[0].decode("utf-8", "replace") if found.valid_principals else ""
    if not _PRINCIPAL.fullmatch(principal):
        raise _unusable(who, "names nobody that could log in")
    return Issued(private_key, line, principal.lower(), int(found.valid_before))


def _unusable(who: str, why: str) -> AuthError:
    return AuthError(
        f"The SSH certificate that Entra ID issued{who} {why}.",
        code="UnusableCertificate",
        hint="Try again; if this comes back, ssh_auth: key works without certificates.",
    )


def obtain(options: AuthOptions, environ: Mapping[str, str] | None = None) -> Issued:
    """A new key and a certificate for it. Raises InputError, AuthError with Entra's error number as `code`, or ConnectionFailed."""
    environ = os.environ if environ is None else environ
    check_identity(options)
    try:
        import msal
        import requests
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )
    except ImportError as exc:
        raise AuthError(f"A Python package is missing: {exc}.", hint="pip install msal cryptography requests") from exc
    where = cloud(options.cloud_environment)
    key = rsa.generate_private_key(65537, _BITS)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    claims = key_claims(base64.b64decode(public.split()[1]))
    login: _ServicePrincipal | _CliUser = (
        _CliUser.find(options, environ) if options.auth_source == "cli" else _ServicePrincipal(options)
    )
    heard: list[Mapping[str, Any]] = []
    try:
        with _session(heard) as asking:
            common: dict[str, Any] = {
                "authority": f"{where.authority}/{login.tenant}",
                "http_client": asking,
                # Microsoft's directory of login hosts does not know a private cloud, and such a cloud may not reach it.
                "instance_discovery": None if where.name.lower() in CLOUDS else False,
            }
            answer = login.request(msal, common, scope(where), claims)
    except requests.RequestException as exc:
        obstacle = in_the_way(exc)
        if obstacle:
            raise ConnectionFailed(
                f"{where.authority} cannot be reached for an SSH certificate: {obstacle[0]}.", hint=obstacle[1]
            ) from exc
        raise ConnectionFailed(
            f"{where.authority} cannot be reached for an SSH certificate: {first_sentences(exc)}",
            hint="Check the proxy settings, cloud_environment and, for a private CA, REQUESTS_CA_BUNDLE.",
        ) from exc
    except ArcError:
        raise
    except Exception as exc:
        # MSAL raises what it likes, and not always what Entra ID said; whoever reads this is to get one sentence.
        raise refused(where.authority, login.who, heard[-1] if heard else {"error_description": str(exc)}) from exc
    if "access_token" not in answer:
        raise refused(where.authority, login.who, answer)
    return read(private, answer["access_token"], login.who)


def refused(authority: str, who: str, answer: Mapping[str, Any]) -> AuthError:
    """Entra's refusal as one sentence with its number and a remedy."""
    text = str(answer.get("error_description") or answer.get("error") or "it gives no reason.")
    found = re.search(r"AADSTS(\d+): ?(.*)", text, re.DOTALL)
    number = int(found[1]) if found else None
    told = f"AADSTS{number}: {found[2]}" if found else text
    return AuthError(
        f"{authority} issues no SSH certificate{who}: {first_sentences(told)}",
        code=f"AADSTS{number}" if number else str(answer.get("error") or "NoCertificate"),
        hint=HINTS.get(number or 0, "Check tenant, cloud_environment and the identity's secret, certificate or token."),
    )


def _session(heard: list[Mapping[str, Any]]) -> Any:
    """A session for MSAL that adds what Entra ID refuses to `heard`."""

    def hear(answer: Any, **_more: Any) -> None:
        with contextlib.suppress(ValueError):
            told = answer.json() if answer.status_code >= 400 else None
            heard.extend([told] if isinstance(told, Mapping) else [])

    # A token request changes nothing, so it may be sent again.
    made = session()
    made.hooks["response"].append(hear)
    return made


class _ServicePrincipal:
    """An application with a secret, a certificate or a federated token."""

    def __init__(self, options: AuthOptions) -> None:
        self._options = options
        self.tenant = options.tenant
        self.who = f" to {options.client_id} of tenant {options.tenant}"

    def request(
        self, msal: Any, common: Mapping[str, Any], wanted: str, claims: Mapping[str, str]
    ) -> Mapping[str, Any]:
        application = msal.ConfidentialClientApplication(
            self._options.client_id, client_credential=self._proof(), **common
        )
        answer: Mapping[str, Any] = application.acquire_token_for_client([wanted], data=dict(claims))
        return answer

    def _proof(self) -> Any:
        options = self._options
        if options.secret:
            return options.secret
        if options.x509_certificate_path:
            return _certificate(options.x509_certificate_path)
        if options.oidc_token:
            return {"client_assertion": options.oidc_token}
        return {"client_assertion": _text(str(options.oidc_token_file_path), "oidc_token_file_path").strip()}


def _certificate(path: str) -> dict[str, Any]:
    """The certificate of a service principal, PEM with its key or PKCS #12, as MSAL wants it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read()
        if b"-----BEGIN" not in content:
            return {"private_key_pfx_path": os.path.expanduser(path)}
        thumbprint = x509.load_pem_x509_certificate(content).fingerprint(hashes.SHA1()).hex()
    except OSError as exc:
        raise InputError(f"x509_certificate_path: {path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise InputError(f"x509_certificate_path: {path} holds no certificate with its private key.") from exc
    return {"private_key": content.decode("ascii", "replace"), "thumbprint": thumbprint}


def _text(path: str, what: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            return file.read()
    except OSError as exc:
        raise InputError(f"{what}: {path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"{what}: {path} is no text.") from exc


class _CliUser:
    """Who logged in with `az login`. The CLI's files are read, never written."""

    def __init__(self, name: str, tenant: str, cache: str) -> None:
        self._name = name
        self._cache = cache
        self.tenant = tenant
        self.who = f" to {name}, who is logged in with the Azure CLI,"

    @classmethod
    def find(cls, options: AuthOptions, environ: Mapping[str, str]) -> _CliUser:
        """Raises InputError where nobody is logged in who could get a certificate."""
        directory = os.path.expanduser(environ.get("AZURE_CONFIG_DIR") or "~/.azure")
        try:
            profile = json.loads(_text(os.path.join(directory, "azureProfile.json"), "The Azure CLI's profile"))
            known = [entry for entry in profile["subscriptions"] if isinstance(entry["user"]["name"], str)]
        except (ValueError, KeyError, TypeError, InputError) as exc:
            raise InputError(
                "Nobody is logged in with the Azure CLI.", hint="Run `az login`, or choose another auth_source."
            ) from exc
        tenant = (options.tenant or "").lower()
        here = [entry for entry in known if not tenant or str(entry.get("tenantId")).lower() == tenant] or known
        chosen = next((entry for entry in here if entry.get("isDefault")), here[0] if here else None)
        if chosen is None:
            raise InputError(
                "Nobody is logged in with the Azure CLI.", hint="Run `az login`, or choose another auth_source."
            )
        name, kind = chosen["user"]["name"], chosen["user"].get("type")
        if kind != "user":
            if name in ("systemAssignedIdentity", "userAssignedIdentity"):
                raise InputError(MANAGED_IDENTITY[0], hint=MANAGED_IDENTITY[1])
            raise InputError(
                f"The Azure CLI is logged in as the service principal {name}, whose secret it keeps for itself.",
                hint="Give client_id, tenant and secret (or a certificate or a federated token) as options or in the environment.",
            )
        path = os.path.join(directory, "msal_token_cache.json")
        if not os.path.exists(path):
            raise InputError(
                f"The Azure CLI keeps its logins encrypted, and {path} is not there.",
                hint="Run `az config set core.encrypt_token_cache=false` and `az login`, or use a service principal.",
            )
        return cls(
            name,
            options.tenant or str(chosen.get("tenantId") or "organizations"),
            _text(path, "The Azure CLI's logins"),
        )

    def request(
        self, msal: Any, common: Mapping[str, Any], wanted: str, claims: Mapping[str, str]
    ) -> Mapping[str, Any]:
        cache = msal.SerializableTokenCache()
        cache.deserialize(self._cache)
        application = msal.PublicClientApplication(_CLI, token_cache=cache, **common)
        accounts = application.get_accounts(self._name)
        if not accounts:
            raise InputError(f"The Azure CLI has no login of {self._name} at {common['authority']}.", hint=_AGAIN)
        answer = application.acquire_token_silent_with_error([wanted], account=accounts[0], data=dict(claims))
        return answer or {"error": f"the Azure CLI's login of {self._name} is not good for SSH certificates any more."}
