# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom does the helper trust, and how do bytes pass through TLS without waiting?

Certificates are always verified. TLS runs over memory buffers: many records per system call, a write that never has to
be repeated, and TLS inside TLS for proxies that are reached by https. The relay's front ends prefer the curve P-384 and
make a client that offers another one first pay a round trip (reported by aztunnel's maintainers); fronts and proxies
that lack it get OpenSSL's defaults. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Ciphertext taken from the kernel, and given to it, at once, in bytes. For what is given, memory is asked for each time:
# above 128 KiB malloc would get it from the kernel, page by page.
_CHUNK = 256 * 1024
_PIECE = 96 * 1024

# The beginning of Linux's struct tcp_info (linux/tcp.h), up to tcpi_last_ack_recv.
_TCP_INFO = struct.Struct("=8B13I")

# Where distributions keep their certificates, for a Python whose OpenSSL looks elsewhere.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class TrustError(Exception):
    """A CA that the environment names cannot be loaded; the text says which."""


def named_ca(environ: Mapping[str, str]) -> tuple[str | None, str | None] | None:
    """File and directory of the CA that the environment names; `None` for the system's own."""
    file, directory = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    if file or directory:
        return file, directory
    path = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if not path:
        return None
    return (None, path) if os.path.isdir(path) else (path, None)


class Trust:
    """The settings of TLS for one process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._named = named_ca(environ)

    def quick(self) -> ssl.SSLContext:
        """What to try first: P-384, and of the system's CAs those that are found without reading them all (20 ms)."""
        context = _context()
        context.set_ecdh_curve("secp384r1")
        capath = None if self._named else _hashed(ssl.get_default_verify_paths().capath)
        if capath:
            context.load_verify_locations(capath=capath)
        else:
            self._load(context)
        return context

    def wide(self) -> ssl.SSLContext:
        """What to fall back to when a handshake fails: OpenSSL's own curves, all of the system's CAs."""
        context = _context()
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        if self._named:
            try:
                context.load_verify_locations(*self._named)
            except (OSError, ValueError) as exc:
                names = " and ".join(filter(None, self._named))
                raise TrustError(f"the CA certificates {names} cannot be loaded ({_why(exc)})") from exc
            return
        context.set_default_verify_paths()
        if ssl.get_default_verify_paths().cafile is None:
            for bundle in _BUNDLES:
                if os.path.exists(bundle):
                    context.load_verify_locations(bundle)
                    break


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A server that renegotiates would make writes wait for reads.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _hashed(directory: str | None) -> str | None:
    """`directory` if OpenSSL can look up certificates in it by the hash of their names."""
    try:
        return directory if directory and any(name.endswith(".0") for name in os.listdir(directory)) else None
    except OSError:
        return None


def _why(exc: BaseException) -> str:
    return str(getattr(exc, "strerror", None) or getattr(exc, "reason", None) or exc)


def _unanswered(stream: socket.socket) -> float:
    """Seconds since the last acknowledgement, while data or probes of a closed window are sent repeatedly; else 0.

    A slow other end acknowledges what it cannot take yet, a dead one or a path that swallows packets does not. Also 0
    where the system does not tell: this is Linux's own.
    """
    try:
        info = _TCP_INFO.unpack(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except (AttributeError, OSError, struct.error):
        return 0.0
    retransmits, probes, last_ack = info[2], info[3], info[-1]
    return last_ack / 1000 if retransmits or probes > 1 else 0.0


class Tls:
    """A TLS connection over a non-blocking socket or over another Tls. BlockingIOError says "not yet"."""

    def __init__(self, lower: socket.socket | Tls, context: ssl.SSLContext, host: str) -> None:
        self._lower = lower
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # As bytes, the name spares the import of the IDNA codec.
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host.encode("ascii"))
        self._chunk = memoryview(bytearray(_CHUNK))
        self._unsent = memoryview(b"")
        self._full = False

    def fileno(self) -> int:
        """The socket to wait for."""
        return self._lower.fileno()

    def close(self) -> None:
        """Say good-bye and close the socket; what the kernel does not take at once is lost."""
        with contextlib.suppress(OSError):
            try:
                self._tls.unwrap()
            finally:
                self.flush()
        self._lower.close()

    @property
    def ready(self) -> bool:
        """Whether bytes may be there that were taken from the socket already, so that waiting for it would be wrong."""
        return self._full or (isinstance(self._lower, Tls) and self._lower.ready)

    @property
    def unanswered(self) -> float:
        """For how many seconds the other end's TCP has been silent though it is asked again and again; see `_unanswered`."""
        return self._lower.unanswered if isinstance(self._lower, Tls) else _unanswered(self._lower)

    def handshake(self) -> bool:
        """One step; True when it is done. Raises ssl.SSLError when the sides do not agree or the other one leaves."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            self._fill()
            return False
        except ssl.SSLError:
            # The alert tells the other side why.
            with contextlib.suppress(OSError):
                self.flush()
            raise
        self.flush()
        return True

    def recv_into(self, view: memoryview) -> int:
        """Fill `view` as far as bytes are at hand; 0 at the end of the stream."""
        total, size, read = 0, len(view), self._tls.read
        while total < size:
            try:
                count = read(size - total, view[total:])
            except ssl.SSLWantReadError:
                if total:
                    break
                self._fill()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if not count:
                break
            total += int(count)
        self._full = total == size
        return total

    def send(self, data: bytes | memoryview) -> int:
        """Take all of `data`; `flush` brings it on its way."""
        if data:
            self._tls.write(data)
        return len(data)

    def flush(self) -> bool:
        """Whether everything sent is with the kernel now."""
        while True:
            if isinstance(self._lower, Tls) and not self._lower.flush():
                return False
            if not self._unsent:
                data = self._outgoing.read(_PIECE)
                if not data:
                    return True
                self._unsent = memoryview(data)
            try:
                self._unsent = self._unsent[self._lower.send(self._unsent) :]
            except BlockingIOError:
                return False

    def _fill(self) -> None:
        count = self._lower.recv_into(self._chunk)
        if count:
            self._incoming.write(self._chunk[:count])
        else:
            self._incoming.write_eof()
