# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a helper ask ARM for one thing without Azure's libraries?

Importing them takes four times as long as all else that a helper does, and of a hundred helpers that start together
only the first one has to log in. The others send their one request by themselves, with the token that rests in the
cache, as the dial does: `http.client` alone would be a quarter of what their start costs. Only a good answer counts
here: whatever else comes, `_arm` asks again and knows what to do or to say. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import json
import socket

from .._auth import AuthOptions
from .._errors import ConnectionFailed
from . import _proxy, _tls, _websocket
from ._login import Kept, Resting, SharedLogin

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import IO, Any

    from .._arm import Arm
    from ._cache import Cache

# Seconds for a connection, and for an answer: those of `_arm`.
_CONNECT, _READ = 20, 100

# An answer is some 4 KB.
_LARGEST = 256 * 1024


class Shortcut:
    """ARM for one process that has hardly anything to ask, with the method of `_arm.Arm` that it needs."""

    def __init__(self, options: AuthOptions, cache: Cache, environ: Mapping[str, str]) -> None:
        self._options = options
        self._cache = cache
        self._environ = environ
        self._login: SharedLogin | None = None
        self._arm: Arm | None = None

    def post(
        self,
        path: str,
        api_version: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        doing: str,
    ) -> dict[str, Any]:
        """As `Arm.post`."""
        if self._arm is None:
            kept = self._kept(doing)
            answer = _ask(kept, path, {**(query or {}), "api-version": api_version}, body, self._environ)
            if answer is not None:
                return answer
        return self._whole().post(path, api_version, body, query=query, doing=doing)

    def _kept(self, doing: str) -> Kept:
        """The token that rests. If there is none, this process logs in, while others wait for it."""
        resting = Resting(self._options, self._cache)
        with resting.lock():
            kept = resting.kept()
            if kept is not None and kept.resource_manager:
                return kept
            login = self._log_in()
            cloud = login.cloud
            try:
                token = login.get_token_locked(cloud.scope)
            except ConnectionFailed as exc:
                raise ConnectionFailed(f"{doing}: {exc.message}", hint=exc.hint) from exc
            return Kept(token.token, token.expires_on, [cloud.scope], cloud.resource_manager)

    def _log_in(self) -> SharedLogin:
        if self._login is None:
            import logging

            # azure-identity logs its failures as well, in paragraphs; what they come to is said once.
            logging.getLogger().addHandler(logging.NullHandler())
            self._login = SharedLogin(self._options, self._cache)
        return self._login

    def _whole(self) -> Arm:
        if self._arm is None:
            from .._arm import Arm

            self._arm = Arm(self._log_in(), connections=1)
        return self._arm


def _ask(
    kept: Kept, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None, environ: Mapping[str, str]
) -> dict[str, Any] | None:
    """The object that ARM answers; `None` for whatever else happens."""
    from urllib.parse import quote, urlencode, urlsplit

    try:
        parts = urlsplit(kept.resource_manager or "")
        if parts.scheme != "https" or not parts.hostname:
            return None
        with contextlib.closing(_connect(parts.hostname, parts.port or 443, environ)) as stream:
            data = json.dumps(body or {}).encode()
            head = [
                f"POST {quote(parts.path.rstrip('/') + path, safe='/()')}?{urlencode(query)} HTTP/1.1",
                f"Host: {parts.netloc.rpartition('@')[2]}",
                "Accept: application/json",
                f"Authorization: Bearer {kept.token}",
                "Connection: close",
                f"Content-Length: {len(data)}",
                "Content-Type: application/json",
                "User-Agent: arcfleet.ssh",
            ]
            stream.sendall("\r\n".join([*head, "", ""]).encode("ascii") + data)
            with stream.makefile("rb") as answer:
                head_of_answer = _head(answer)
                found = json.loads(_body(answer, head_of_answer)) if head_of_answer.status == 200 else None
    except (OSError, ValueError, RecursionError, _websocket.ProtocolError, _proxy.ProxyUrlError, _tls.TrustError):
        return None
    return found if isinstance(found, dict) else None


def _connect(host: str, port: int, environ: Mapping[str, str]) -> ssl.SSLSocket:
    """A connection to `host`, through the proxy if there is one."""
    proxy = _proxy.choose(host, port, environ)
    if proxy is not None and proxy.secure:
        raise _proxy.ProxyUrlError("TLS inside TLS is left to those who can")
    context = _tls.Trust(_trusted(environ)).quick()
    # As bytes, the names spare the import of the IDNA codec.
    near: Any = (host.encode("ascii"), port) if proxy is None else (proxy.host.encode("ascii"), proxy.port)
    stream = socket.create_connection(near, _CONNECT)
    try:
        if proxy is not None:
            stream.sendall(proxy.connect_request(host, port))
            # Unbuffered, for what follows belongs to TLS.
            with stream.makefile("rb", buffering=0) as answer:
                if not 200 <= _head(answer).status < 300:
                    raise _websocket.ProtocolError("the proxy refuses")
        secured = context.wrap_socket(stream, server_hostname=host.encode("ascii"))
    except BaseException:
        stream.close()
        raise
    secured.settimeout(_READ)
    return secured


def _head(answer: IO[bytes] | socket.SocketIO) -> _websocket.Head:
    block = b""
    while not block.endswith(b"\r\n\r\n"):
        line = answer.readline(_websocket.LONGEST_HEAD)
        block += line
        if not line or len(block) > _websocket.LONGEST_HEAD:
            raise _websocket.ProtocolError("the answer is incomplete or not HTTP")
    return _websocket.parse_head(block[:-4])


def _body(answer: IO[bytes], head: _websocket.Head) -> bytes:
    """As RFC 9112 frames it. Raises ValueError for what is no number, and for what is cut or too long."""
    if "transfer-encoding" not in head.headers:
        size = int(head.headers.get("content-length", _LARGEST))
        return _exactly(answer, size) if "content-length" in head.headers else answer.read(size)
    data = b""
    while len(data) <= _LARGEST:
        size = int(answer.readline(64).partition(b";")[0], 16)
        if not size:
            return data
        data += _exactly(answer, size + 2)[:-2]
    raise ValueError("the answer is too long")


def _exactly(answer: IO[bytes], size: int) -> bytes:
    data = answer.read(size) if 0 <= size <= _LARGEST else b""
    if len(data) != size:
        raise ValueError("the answer is cut or too long")
    return data


def _trusted(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which `_tls` trusts whom `_arm` does: these variables go before OpenSSL's own."""
    named = {name: environ[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if environ.get(name)}
    return named or environ
