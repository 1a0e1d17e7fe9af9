# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the proxy chosen as the package requests chooses it?"""

from __future__ import annotations

import base64

import pytest
from requests.utils import should_bypass_proxies

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _proxy

RELAY = "azgn-eastus.servicebus.windows.net"


@pytest.mark.parametrize("host", [RELAY, "127.0.0.1", "10.1.2.3", "windows.net", "localhost"])
@pytest.mark.parametrize(
    "no_proxy",
    [
        "",
        "*",
        "*,x",
        "servicebus.windows.net",
        ".servicebus.windows.net",
        "WINDOWS.NET",
        " localhost , 127.0.0.1",
        "10.0.0.0/8",
        "10.1.2.3/32,127.0.0.0/8",
        "10.0.0.0/33",
        "127.0.0.1:8443",
        f"{RELAY}:8443",
        f"{RELAY}:9443",
        "windows.net:8443",
    ],
)
def test_no_proxy_means_what_it_means_to_requests(monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert _proxy.bypass(host, 8443, no_proxy) == should_bypass_proxies(f"https://{host}:8443/", no_proxy or None)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "p:1"),
        ({"https_proxy": "http://q:2", "HTTPS_PROXY": "http://p:1"}, "q:2"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://p:1"}, None),
        ({"ALL_PROXY": "p:3128"}, "p:3128"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://p:1"}, "p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "servicebus.windows.net"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "elsewhere", "NO_PROXY": "*"}, "p:1"),
        ({"HTTPS_PROXY": "http://p"}, "p:80"),
        ({"HTTPS_PROXY": "https://p"}, "p:443"),
        ({"HTTPS_PROXY": "http://[fd00::1]:3128"}, "[fd00::1]:3128"),
    ],
)
def test_choice(environ: dict[str, str], expected: str | None) -> None:
    chosen = _proxy.choose(RELAY, 443, environ)
    assert (str(chosen) if chosen else None) == expected


def test_login_comes_from_the_url() -> None:
    proxy = _proxy.parse("http://me:p%40ss@proxy.example:3128")
    request = proxy.connect_request(RELAY, 443).decode()
    assert request.startswith(f"CONNECT {RELAY}:443 HTTP/1.1\r\nHost: {RELAY}:443\r\n")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:p@ss').decode()}\r\n" in request
    assert request.endswith("\r\n\r\n")
    assert "Proxy-Authorization" not in _proxy.parse("http://proxy:1").connect_request("::1", 443).decode()


@pytest.mark.parametrize("url", ["socks5://me:secret@p:1", "http://me:secret@p:x", "http://", "ftp://p", "http://[::1"])
def test_useless_addresses_are_refused_without_their_secrets(url: str) -> None:
    with pytest.raises(_proxy.ProxyUrlError) as refused:
        _proxy.parse(url)
    assert "secret" not in str(refused.value)
