# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the way to the relay lead through a proxy, and how is it asked for?

HTTPS_PROXY, ALL_PROXY and NO_PROXY mean what they mean to the Python package requests, which carries the other half of
this collection's traffic (requests.utils.should_bypass_proxies, urllib.request.proxy_bypass_environment). Private to
arcfleet.ssh.
"""

from __future__ import annotations

import base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class ProxyUrlError(Exception):
    """The address of the proxy cannot be used; the text says why, without user name and password."""


class Proxy:
    """An HTTP proxy. `authorization` is a secret."""

    __slots__ = ("authorization", "host", "port", "secure")

    def __init__(self, host: str, port: int, secure: bool, authorization: str | None) -> None:
        self.host = host
        self.port = port
        self.secure = secure
        self.authorization = authorization

    def __str__(self) -> str:
        return _authority(self.host, self.port)

    def connect_request(self, host: str, port: int) -> bytes:
        """The request for a tunnel."""
        target = _authority(host, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def choose(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for an https connection to `host`, or `None`. Raises ProxyUrlError."""
    url = _variable(environ, "https_proxy") or _variable(environ, "all_proxy")
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not url or bypass(host, port, no_proxy):
        return None
    return parse(url)


def _variable(environ: Mapping[str, str], name: str) -> str:
    """Lower case wins over upper case, even when it is empty."""
    return environ.get(name, environ.get(name.upper(), "")).strip()


def parse(url: str) -> Proxy:
    """The proxy at `url`; without a scheme it is http. Raises ProxyUrlError."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ProxyUrlError("the address of the proxy is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise ProxyUrlError(f"the proxy's scheme {parts.scheme!r} is not supported (http and https are)")
    if not host or not host.isascii():
        raise ProxyUrlError("the address of the proxy names no host")
    secure = parts.scheme == "https"
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode("utf-8")).decode()
    return Proxy(host, port or (443 if secure else 80), secure, authorization)


def bypass(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY exempts `host`: by name or parent domain, `name:port`, IPv4 address or network, or `*`."""
    entries = [entry for entry in no_proxy.replace(" ", "").lower().split(",") if entry]
    if entries == ["*"]:
        return True
    host = host.lower()
    if host.replace(".", "").isdigit():
        return any(host == entry or ("/" in entry and _in_network(host, entry)) for entry in entries)
    for entry in (entry.lstrip(".") for entry in entries):
        if any(name == entry or name.endswith(f".{entry}") for name in (host, f"{host}:{port}")):
            return True
    return False


def _in_network(address: str, network: str) -> bool:
    from ipaddress import IPv4Address, IPv4Network

    try:
        return IPv4Address(address) in IPv4Network(network, strict=False)
    except ValueError:
        return False
