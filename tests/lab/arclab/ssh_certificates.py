# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which SSH certificates does Entra ID issue, and is a presented one of them good?

As `az ssh` asks for them (token_type ssh-cert, the RSA key as a JWK in req_cnf): the token is the body of an
ssh-rsa-cert-v01@openssh.com certificate whose one principal is the client id of a service principal, or a user's name.
What a machine presents is held against the same authority.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_private_key,
    load_ssh_public_identity,
)

from .entra_errors import EntraFailure
from .fleet import guid
from .sshd import write_private

SCOPE = "https://pas.windows.net/CheckMyAccess/Linux"
KIND = "ssh-rsa-cert-v01@openssh.com"
_BEFORE = 300
_EXTENSIONS = (
    b"permit-X11-forwarding",
    b"permit-agent-forwarding",
    b"permit-port-forwarding",
    b"permit-pty",
    b"permit-user-rc",
)


class CertificateRefused(Exception):
    """A presented certificate is not good for this login; the message says why."""


@dataclass(frozen=True)
class _Asked:
    """The key of a request and the text that names it."""

    key: rsa.RSAPublicKey
    key_id: str


def load_authority(path: Path) -> rsa.RSAPrivateKey:
    """The key that signs the certificates, made at first use; its public half lies beside it."""
    if path.exists():
        key = load_ssh_private_key(path.read_bytes(), None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key
    key = rsa.generate_private_key(65537, 2048)
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())
    path.with_suffix(".pub").write_text(_openssh(key.public_key()) + "\n")
    return key


def _openssh(key: rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


class SshCertificates:
    """The authority of one lab; `seconds` is how long a certificate is good from now on."""

    def __init__(self, authority: rsa.RSAPrivateKey, seconds: float) -> None:
        self._authority = authority
        self.seconds = seconds

    @property
    def public(self) -> str:
        """The authority's public key as OpenSSH writes it."""
        return _openssh(self._authority.public_key())

    def issue(self, form: Mapping[str, str], principal: str, now: float) -> str:
        """The body of a certificate (base64) for the key in the form; EntraFailure says what is wrong with the form."""
        asked = _asked(form)
        builder = (
            SSHCertificateBuilder()
            .public_key(asked.key)
            .serial(int(now * 1000))
            .type(SSHCertificateType.USER)
            .key_id(guid("ssh-certificate", principal, asked.key_id, now).encode())
            .valid_principals([principal.encode()])
            # A real sshd judges this end, by the computer's clock, which the lab's may be ahead of.
            .valid_after(int(min(now, time.time())) - _BEFORE)
            .valid_before(int(now + self.seconds))
        )
        for extension in _EXTENSIONS:
            builder = builder.add_extension(extension, b"")
        return builder.sign(self._authority).public_bytes().decode().split(" ")[1]

    def check(self, blob: str, user: str, now: float) -> str:
        """The first principal of a certificate that is good for a login as `user`; CertificateRefused otherwise."""
        try:
            certificate = load_ssh_public_identity(f"{KIND} {blob}".encode())
        except (ValueError, binascii.Error) as exc:
            raise CertificateRefused("what was presented is no RSA certificate") from exc
        if not isinstance(certificate, SSHCertificate) or certificate.type is not SSHCertificateType.USER:
            raise CertificateRefused("what was presented is no user certificate")
        signer = certificate.signature_key()
        if not isinstance(signer, rsa.RSAPublicKey) or _openssh(signer) != self.public:
            raise CertificateRefused("the certificate was signed by an unknown authority")
        try:
            certificate.verify_cert_signature()
        except InvalidSignature as exc:
            raise CertificateRefused("the signature of the certificate is wrong") from exc
        if not certificate.valid_after <= now < certificate.valid_before:
            raise CertificateRefused("the certificate is expired or not yet valid")
        principals = [one.decode() for one in certificate.valid_principals]
        if not principals or principals[0].lower() != user.lower():
            raise CertificateRefused(f"the certificate is for {', '.join(principals) or 'nobody'}")
        return principals[0]


def _asked(form: Mapping[str, str]) -> _Asked:
    """The key in `req_cnf`, which has to be written as az writes it: padded base64, `kid` the digest of both numbers."""
    for name in ("req_cnf", "key_id"):
        if not form.get(name):
            text = f"The request body must contain the following parameter: '{name}'."
            raise EntraFailure(400, "invalid_request", 900144, text)
    try:
        jwk = json.loads(form["req_cnf"])
        texts = [jwk[name] for name in "ne"]
        modulus, exponent = (int.from_bytes(base64.b64decode(one, b"-_", validate=True), "big") for one in texts)
        if jwk["kty"] != "RSA" or modulus.bit_length() < 2048:
            raise ValueError("an RSA key of 2048 bits or more is needed")
        if not jwk["kid"] == form["key_id"] == hashlib.sha256("".join(texts).encode()).hexdigest():
            raise ValueError("kid and key_id have to be the SHA-256 of n and e")
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        text = f"The value of 'req_cnf' is no RSA key in JWK form: {exc}."
        raise EntraFailure(400, "invalid_request", 900023, text) from exc
    return _Asked(key, form["key_id"])
