# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who logs in to which cloud, and where does the access token come from?

Option and environment names are those of azure.azcollection, so that a working set-up carries over; tokens come from
azure-identity. One login serves all threads of a run. Addresses of the national clouds: azure-identity's and azure-mgmt-core's
constants; any other cloud describes itself at `/metadata/endpoints`. Private to arcfleet.ssh.
"""

from __future__ import annotations

import configparser
import functools
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._errors import AuthError, ConnectionFailed, InputError, in_the_way, redact

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

AUTH_SOURCES = ("auto", "env", "cli", "credential_file", "msi")
CREDENTIALS_FILE = "~/.azure/credentials"

# A token is renewed when less than this many seconds of it are left; azure-core uses the same margin.
RENEW_BEFORE = 300

_METADATA_VERSIONS = ("2022-09-01", "2015-01-01")

# Options by the environment variables that may hold them, first one wins.
_ENVIRONMENT = {
    "subscription_id": ("AZURE_SUBSCRIPTION_ID",),
    "client_id": ("AZURE_CLIENT_ID",),
    "secret": ("AZURE_SECRET", "AZURE_CLIENT_SECRET"),
    "tenant": ("AZURE_TENANT", "AZURE_TENANT_ID"),
    "x509_certificate_path": ("AZURE_X509_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PATH"),
    "oidc_token": ("AZURE_OIDC_TOKEN",),
    "oidc_token_file_path": ("AZURE_OIDC_TOKEN_FILE_PATH", "AZURE_FEDERATED_TOKEN_FILE"),
}
_PROOFS = ("secret", "x509_certificate_path", "oidc_token", "oidc_token_file_path")


@dataclass(frozen=True)
class AuthOptions:
    """Where the identity comes from. All values but `auth_source` and `cloud_environment` may be absent."""

    auth_source: str = "auto"
    cloud_environment: str = "AzureCloud"
    profile: str | None = None
    subscription_id: str | None = None
    client_id: str | None = None
    secret: str | None = None
    tenant: str | None = None
    x509_certificate_path: str | None = None
    oidc_token: str | None = None
    oidc_token_file_path: str | None = None

    @classmethod
    def from_params(
        cls,
        params: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
        credentials_file: str = CREDENTIALS_FILE,
    ) -> AuthOptions:
        """Options, else environment, else credential file, else the Azure CLI; `auth_source` narrows that to one of them.

        Raises InputError when the chosen source does not hold what a login needs.
        """
        environ = os.environ if environ is None else environ
        given = {name: params.get(name) or None for name in _ENVIRONMENT}
        source = params.get("auth_source") or environ.get("ANSIBLE_AZURE_AUTH_SOURCE") or "auto"
        if source not in AUTH_SOURCES:
            raise InputError(f"auth_source {source!r} is none of {', '.join(AUTH_SOURCES)}.")
        options = cls(
            auth_source=source,
            cloud_environment=params.get("cloud_environment") or environ.get("AZURE_CLOUD_ENVIRONMENT") or "AzureCloud",
            profile=params.get("profile") or environ.get("AZURE_PROFILE") or None,
            **given,
        )
        surroundings = {
            name: next((environ[key] for key in keys if environ.get(key)), None) for name, keys in _ENVIRONMENT.items()
        }
        options = options._with(subscription_id=surroundings["subscription_id"])
        if source == "auto":
            return options._automatic(
                surroundings, environ, credentials_file, chosen_cloud=bool(params.get("cloud_environment"))
            )
        if source == "env":
            options = options._with(**surroundings)
            options._require_proof("The environment")
        elif source == "credential_file":
            options = options._from_file(credentials_file, environ, bool(params.get("cloud_environment")))
        elif source == "msi":
            options = options._with(client_id=surroundings["client_id"])
        else:
            options = options._with(tenant=surroundings["tenant"])
        return options

    def _automatic(
        self, surroundings: Mapping[str, str | None], environ: Mapping[str, str], path: str, *, chosen_cloud: bool
    ) -> AuthOptions:
        if self._proof() or self.client_id:
            options = self._with(**surroundings)
            options._require_proof("The options")
            return replace(options, auth_source="options")
        if surroundings["client_id"] and any(surroundings[name] for name in _PROOFS):
            options = self._with(**surroundings)
            options._require_proof("The environment")
            return replace(options, auth_source="env")
        if os.path.exists(os.path.expanduser(path)):
            return replace(self._from_file(path, environ, chosen_cloud), auth_source="credential_file")
        if shutil.which("az", path=environ.get("PATH")):
            return replace(self._with(tenant=surroundings["tenant"]), auth_source="cli")
        raise InputError(
            "No Azure identity was found in the options, in the environment, in ~/.azure/credentials or in the Azure CLI.",
            hint=(
                "Set AZURE_CLIENT_ID, AZURE_TENANT and AZURE_SECRET (or AZURE_FEDERATED_TOKEN_FILE), log in with `az login`, "
                "or set auth_source: msi on a machine with a managed identity."
            ),
        )

    def _from_file(self, path: str, environ: Mapping[str, str], chosen_cloud: bool) -> AuthOptions:
        profile = self.profile or "default"
        parser = configparser.ConfigParser(interpolation=None)
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as handle:
                parser.read_file(handle)
            section = dict(parser.items(profile))
        except OSError as exc:
            raise InputError(f"The credential file {path} cannot be read: {exc.strerror}.") from exc
        except configparser.NoSectionError as exc:
            raise InputError(f"The credential file {path} has no profile [{profile}].") from exc
        except configparser.Error as exc:
            # The parser's own text quotes the faulty line, which may hold a secret.
            raise InputError(f"The credential file {path} is not in INI format.") from exc
        options = self._with(**{name: section.get(name) for name in _ENVIRONMENT})
        cloud = section.get("cloud_environment")
        if cloud and not chosen_cloud and not environ.get("AZURE_CLOUD_ENVIRONMENT"):
            options = replace(options, cloud_environment=cloud)
        options._require_proof(f"Profile [{profile}] of {path}")
        return options

    def _with(self, **values: str | None) -> AuthOptions:
        return replace(self, **{name: getattr(self, name) or value for name, value in values.items()})  # type: ignore[arg-type]

    def _proof(self) -> str | None:
        return next((name for name in _PROOFS if getattr(self, name)), None)

    def _require_proof(self, where: str) -> None:
        missing = [name for name in ("client_id", "tenant") if not getattr(self, name)]
        if not self._proof():
            missing.append("secret (or a certificate or an OIDC token)")
        if missing:
            raise InputError(f"{where} lacks {' and '.join(missing)}, which a login as a service principal needs.")

    @property
    def identity(self) -> str:
        """Who logs in where, without any secret: names the login in caches shared by several processes."""
        named = (self.auth_source, self.profile, self.tenant, self.client_id, self.x509_certificate_path, self._proof())
        return "|".join([*(value or "" for value in named), self.cloud_environment.rstrip("/").lower()])


@dataclass(frozen=True)
class Cloud:
    """The addresses of one Azure cloud, without trailing slashes (but `audience`, which is kept to the letter)."""

    name: str
    authority: str
    resource_manager: str
    audience: str

    @property
    def scope(self) -> str:
        """The scope of an ARM token."""
        return f"{self.audience.rstrip('/')}/.default"


CLOUDS = {
    cloud.name.lower(): cloud
    for cloud in (
        Cloud(
            "AzureCloud",
            "https://login.microsoftonline.com",
            "https://management.azure.com",
            "https://management.azure.com",
        ),
        Cloud(
            "AzureUSGovernment",
            "https://login.microsoftonline.us",
            "https://management.usgovcloudapi.net",
            "https://management.core.usgovcloudapi.net",
        ),
        Cloud(
            "AzureChinaCloud",
            "https://login.chinacloudapi.cn",
            "https://management.chinacloudapi.cn",
            "https://management.chinacloudapi.cn",
        ),
    )
}


def ca_bundle(environ: Mapping[str, str] | None = None) -> str | bool:
    """The private CA for HTTPS, or `True` for the defaults.

    `requests` reads REQUESTS_CA_BUNDLE itself; SSL_CERT_FILE, which OpenSSL's users set, it does not know.
    """
    environ = os.environ if environ is None else environ
    if environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"):
        return True
    return environ.get("SSL_CERT_FILE") or True


def cloud(environment: str) -> Cloud:
    """The cloud of this name, or the one that describes itself at this URL. Raises InputError or ConnectionFailed."""
    known = CLOUDS.get(environment.lower())
    if known:
        return known
    if not environment.lower().startswith("https://"):
        names = ", ".join(entry.name for entry in CLOUDS.values())
        raise InputError(f"cloud_environment {environment!r} is neither one of {names} nor an https:// URL.")
    return parse_metadata(environment, _metadata(environment.rstrip("/")))


def session() -> Any:
    """A session of `requests` for requests that change nothing: it asks again where Azure could not answer, and trusts the private CA.

    A proxy's refusal and a certificate that nobody vouches for are raised at once: they do not change by themselves.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class Patient(Retry):
        """Not so patient with what does not change by itself."""

        def increment(
            self, method: Any = None, url: Any = None, response: Any = None, error: Any = None, *rest: Any, **more: Any
        ) -> Any:
            state = self.new(total=0) if error and in_the_way(error) else self
            return Retry.increment(state, method, url, response, error, *rest, **more)

    again = Patient(
        total=4,
        backoff_factor=1,
        status_forcelist=(408, 429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    made = requests.Session()
    made.mount("https://", HTTPAdapter(max_retries=again))
    # What stands in the environment prevails over a session's own setting, and SSL_CERT_FILE is not known there.
    made.request = functools.partial(made.request, timeout=30, verify=_verify())  # type: ignore[method-assign]
    return made


def _metadata(url: str) -> Any:
    import requests

    with session() as asking:
        answer = None
        for version in _METADATA_VERSIONS:
            try:
                answer = asking.get(f"{url}/metadata/endpoints", params={"api-version": version})
                if answer.status_code == 200:
                    return answer.json()
            except (requests.RequestException, ValueError) as exc:
                obstacle = in_the_way(exc)
                if obstacle:
                    raise ConnectionFailed(
                        f"Cannot reach the cloud at {url}: {obstacle[0]}.", hint=obstacle[1]
                    ) from exc
                raise ConnectionFailed(
                    f"The cloud at {url} does not describe itself at /metadata/endpoints: {redact(str(exc))}",
                    hint="Check cloud_environment, the proxy settings and, for a private CA, REQUESTS_CA_BUNDLE.",
                ) from exc
    status = answer.status_code if answer is not None else "nothing"
    raise ConnectionFailed(
        f"The cloud at {url} answers {status} at /metadata/endpoints.", hint="Check cloud_environment."
    )


def _verify() -> str | bool | None:
    bundle = ca_bundle()
    # None lets `requests` look at its own variables; True would do as well, but hides them in some of its versions.
    return None if bundle is True else bundle


def parse_metadata(url: str, answer: Any) -> Cloud:
    """The cloud in an answer of `/metadata/endpoints`: a list of clouds (2019-05-01 and later) or one (2015-01-01)."""
    entries = answer if isinstance(answer, list) else [answer]
    wanted = url.rstrip("/").lower()
    found = [
        entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("authentication"), Mapping)
    ]
    here = [entry for entry in found if str(entry.get("resourceManager") or url).rstrip("/").lower() == wanted]
    for entry in here or found[:1]:
        login = entry["authentication"]
        audiences = login.get("audiences") or []
        if login.get("loginEndpoint") and audiences:
            return Cloud(
                name=str(entry.get("name") or url),
                authority=str(login["loginEndpoint"]).rstrip("/"),
                resource_manager=str(entry.get("resourceManager") or url).rstrip("/"),
                audience=str(audiences[0]),
            )
    raise InputError(
        f"The metadata of the cloud at {url} name no login endpoint and audience.", hint="Check cloud_environment."
    )


class TokenSource:
    """The tokens of one identity in one cloud; azure-core's TokenCredential, safe to share between threads.

    All threads wait for the same login, and a token that ARM refused is dropped once, not once per thread.
    """

    def __init__(self, options: AuthOptions) -> None:
        self.options = options
        self.cloud = cloud(options.cloud_environment)
        self._lock = threading.Lock()
        self._credential: TokenCredential | None = None
        self._tokens: dict[tuple[tuple[str, ...], str | None], AccessToken] = {}

    def get_token(self, *scopes: str, claims: str | None = None, **kwargs: Any) -> AccessToken:
        """A token with at least five minutes of life; `claims` answers a challenge of continuous access evaluation."""
        with self._lock:
            token = self._tokens.get((scopes, claims))
            if token is None or token.expires_on - time.time() < RENEW_BEFORE:
                token = self._login(scopes, claims, kwargs)
                self._tokens[scopes, claims] = token
                # The challenged token replaces the refused one for everybody.
                self._tokens[scopes, None] = token
            return token

    def token(self) -> AccessToken:
        """A token for ARM."""
        return self.get_token(self.cloud.scope)

    def forget(self, refused: str) -> None:
        """Log in anew before the next request, if `refused` (an Authorization header) is what is in use now."""
        with self._lock:
            for key, token in list(self._tokens.items()):
                if refused == f"Bearer {token.token}":
                    del self._tokens[key]
                    # azure-identity keeps a cache of its own, which only a new credential forgets.
                    self._credential = None

    def _login(self, scopes: tuple[str, ...], claims: str | None, kwargs: Mapping[str, Any]) -> AccessToken:
        try:
            from azure.core.exceptions import AzureError
        except ImportError as exc:
            raise AuthError(
                f"The Python package azure-identity is missing: {exc}.", hint="pip install azure-identity"
            ) from exc
        try:
            if self._credential is None:
                self._credential = _credential(self.options, self.cloud)
            return self._credential.get_token(*scopes, claims=claims, **kwargs)
        except (AzureError, ValueError, OSError) as exc:
            obstacle = in_the_way(exc)
            if obstacle:
                raise ConnectionFailed(
                    f"Cannot log in to {self.cloud.authority}{_who(self.options)}: {obstacle[0]}.", hint=obstacle[1]
                ) from exc
            raise AuthError(
                f"Cannot log in to {self.cloud.authority}{_who(self.options)}: {first_sentences(exc)}",
                code=getattr(exc, "code", None),
                hint=_login_hint(self.options),
            ) from exc


def _credential(options: AuthOptions, where: Cloud) -> TokenCredential:
    from azure import identity

    common: dict[str, Any] = {"authority": where.authority, "connection_verify": ca_bundle()}
    # Microsoft's directory of login hosts does not know a private cloud, and such a cloud may not reach it.
    common["disable_instance_discovery"] = where.name.lower() not in CLOUDS
    if options.auth_source == "msi":
        return identity.ManagedIdentityCredential(client_id=options.client_id)
    if options.auth_source == "cli":
        return identity.AzureCliCredential(tenant_id=options.tenant or "")
    tenant, client = options.tenant or "", options.client_id or ""
    if options.secret:
        return identity.ClientSecretCredential(tenant, client, options.secret, **common)
    if options.x509_certificate_path:
        return identity.CertificateCredential(tenant, client, options.x509_certificate_path, **common)
    if options.oidc_token:
        return identity.ClientAssertionCredential(tenant, client, lambda: options.oidc_token or "", **common)
    # Such files are rotated while a run goes on: this credential reads them again.
    return identity.WorkloadIdentityCredential(
        tenant_id=tenant, client_id=client, token_file_path=options.oidc_token_file_path, **common
    )


def _who(options: AuthOptions) -> str:
    if options.auth_source == "cli":
        return " through the Azure CLI"
    if options.auth_source == "msi":
        return " with the managed identity"
    return f" as {options.client_id} of tenant {options.tenant}"


def _login_hint(options: AuthOptions) -> str:
    if options.auth_source == "cli":
        return "Run `az login`, or choose another auth_source."
    if options.auth_source == "msi":
        return "Run on a machine with a managed identity, or choose another auth_source."
    return "Check client_id, tenant and the secret, certificate or token, and cloud_environment."


def first_sentences(told: object) -> str:
    """azure-identity's or MSAL's message without its appendices (correlation ids, links, the raw answer)."""
    text = " ".join(str(told).split())
    for end in (" Content:", " To mitigate", " Trace ID:", " Correlation ID:", " Timestamp:"):
        text = text.partition(end)[0]
    text = redact(text)[:500]
    return text if text.endswith(".") else text + "."
