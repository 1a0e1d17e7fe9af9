# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong, and what can the reader do about it?

Every expected failure is an `ArcError`: one sentence that names the machine and the action, the remedy as `hint`, and ARM's
own code, status and request id for a support case. `HINTS` holds the remedies for ARM's error codes as data.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any


class ArcError(Exception):
    """A failure told in one sentence; `str()` is the sentence and its remedy.

    `uncertain`: it was a write, and Azure may have carried it out all the same. `retry_after`: seconds before which Azure does
    not want to be asked again, where it said so.
    """

    uncertain = False
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def failure(self) -> dict[str, Any]:
        """The shape in which results report it: `code`, `message`, `status`, `request_id`, `hint`."""
        return {
            "code": self.code or type(self).__name__,
            "message": self.message,
            "status": self.status,
            "request_id": self.request_id,
            "hint": self.hint,
        }


class InputError(ArcError):
    """The user's input cannot be right; raised before any request."""


class AuthError(ArcError):
    """No access token is to be had."""


class ConnectionFailed(ArcError):
    """No answer at all: name resolution, TCP, TLS, or a time-out."""


class Throttled(ArcError):
    """Azure has told this identity to stay away for longer than a run should wait; the request was not sent."""


class Interrupted(ArcError):
    """The run was told to stop before this was done."""


class OperationTimeout(ArcError):
    """A long-running operation did not end in time; it goes on in Azure."""


class Unavailable(ArcError):
    """The machine's agent cannot take the work now (disconnected, expired, too old, extension manager off)."""


class ArmError(ArcError):
    """ARM answered with an error; `status` and `code` are always set."""


# Remedies by ARM error code, else by HTTP status. Codes and their meanings: Azure Resource Manager's documentation of common
# deployment errors, and the HybridCompute and HybridConnectivity providers' public troubleshooting pages.
HINTS: Mapping[str, str] = {
    "AuthorizationFailed": (
        "Give this identity a role that contains the action named above (the README lists what preparing and what "
        "connecting need); a new assignment takes up to ten minutes to work."
    ),
    "LinkedAuthorizationFailed": "Give this identity the action on the linked scope as well.",
    "MissingSubscriptionRegistration": (
        "Register the provider once in this subscription, for example with arcfleet.ssh.arc_resource_provider."
    ),
    "NoRegisteredProviderFound": (
        "Register the provider with arcfleet.ssh.arc_resource_provider; if it is registered, this cloud does not know the "
        "api-version that was sent."
    ),
    "SubscriptionNotFound": "Check the subscription id, and that this identity can read the subscription.",
    "ResourceGroupNotFound": "Check the resource group in the machine's id.",
    "ParentResourceNotFound": "Check the machine's id; the resource that this one belongs to does not exist.",
    "ResourceNotFound": "Check the machine's id.",
    "PreconditionFailed": "Allow the service first, for example with arcfleet.ssh.arc_ssh_service_config.",
    "HCRP409": "Another operation on this extension is under way (often Azure Policy); run again when it has ended.",
    "ScopeLocked": "A resource lock forbids the change; remove the lock or leave the machine out.",
    "RequestDisallowedByPolicy": "An Azure Policy assignment forbids the change; ask its owner for an exemption.",
    "ReadOnlyDisabledSubscription": "The subscription is disabled and can only be read.",
    "ExpiredAuthenticationToken": "Log in again; if this comes back, check the clock of this machine.",
    "InvalidAuthenticationToken": "Log in again, and check tenant and cloud_environment.",
    "InvalidAuthenticationTokenTenant": "The identity belongs to another tenant than the subscription; set tenant.",
    "401": "Log in again, and check tenant and cloud_environment.",
    "403": "Give this identity a role that allows the action.",
    "412": "Allow the service first, for example with arcfleet.ssh.arc_ssh_service_config.",
    "429": "Azure throttles this identity in this subscription; run again later or lower concurrency.",
    "5xx": "Azure could not answer; run again later.",
}


def hint_for(code: str | None, status: int) -> str | None:
    """The remedy for an ARM error, or `None` where Azure's own sentence has to do."""
    for key in (code or "", str(status), f"{status // 100}xx"):
        if key in HINTS:
            return HINTS[key]
    return None


def arm_error(doing: str, status: int, body: Any, request_id: str | None) -> ArmError:
    """ARM's answer as a sentence.

    `doing` is its beginning ("web01: cannot allow SSH on port 22"); `body` the decoded JSON or the text of the answer. Understood
    are common-types' ErrorResponse, the status body of a failed asynchronous operation (whose HTTP status is 200), and a bare
    `code`/`message`.
    """
    told = body.get("error") or body if isinstance(body, Mapping) else {}
    error = told if isinstance(told, Mapping) else {"message": told}
    code = str(error["code"]) if error.get("code") else None
    message = error.get("message") or (" ".join(body.split())[:300] if isinstance(body, str) else None)
    answer = " ".join(filter(None, ("Azure answers", str(status), code) if status >= 400 else ("Azure reports", code)))
    return ArmError(
        f"{doing}: {answer}: {_sentence(message, _details(error))}",
        code=code or str(status),
        status=status,
        request_id=request_id,
        hint=hint_for(code, status),
    )


def _sentence(message: Any, details: str) -> str:
    text = redact(" ".join(str(message or "(no message)").split()))
    if details and details not in text:
        text = f"{text} ({details})"
    return text if text.endswith((".", "!", "?", ")")) else text + "."


def _details(error: Mapping[str, Any]) -> str:
    parts = [
        " ".join(str(detail.get("message") or detail.get("code")).split())
        for detail in error.get("details") or []
        if isinstance(detail, Mapping) and (detail.get("message") or detail.get("code"))
    ]
    return "; ".join(parts)


_SECRETS = re.compile(
    r"(?i)(SharedAccessSignature\s+\S+|\beyJ[\w-]+\.[\w-]+\.[\w-]*|"
    r"(?<=client_secret=)[^&\s]+|(?<=sb-hc-token=)[^&\s]+|(?<=bearer )\S+)"
)


def redact(text: str) -> str:
    """`text` without anything that looks like a token or a shared access signature: the last guard, for foreign exceptions."""
    return _SECRETS.sub("***", text)


_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3}[^')\"]*)")


def in_the_way(exc: BaseException) -> tuple[str, str] | None:
    """What of a proxy's refusal or of a certificate that is not trusted is behind `exc`, as half a sentence, and its remedy.

    `None` for everything else. Asking again is of no use before somebody has changed the settings. The exceptions of azure-core,
    azure-identity, requests and urllib3 hold each other in several ways.
    """
    left: list[BaseException] = [exc]
    seen: set[int] = set()
    while left:
        one = left.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not valid ({one.verify_message})",
                (
                    "If a proxy intercepts TLS or the cloud has a private CA, name the CA's certificate in REQUESTS_CA_BUNDLE and "
                    "SSL_CERT_FILE."
                ),
            )
        refused = _TUNNEL_REFUSED.search(str(one)) if isinstance(one, OSError) else None
        if refused and refused[1].startswith("407"):
            return (
                f"the proxy asks for a login ({refused[1].strip()})",
                "Set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, or exempt Azure with NO_PROXY.",
            )
        if refused and refused[1].startswith("4"):
            return f"the proxy refuses ({refused[1].strip()})", "Check HTTPS_PROXY, or exempt Azure with NO_PROXY."
        inner = (getattr(one, name, None) for name in ("__cause__", "__context__", "inner_exception", "reason"))
        left += [other for other in (*inner, *one.args) if isinstance(other, BaseException)]
    return None
