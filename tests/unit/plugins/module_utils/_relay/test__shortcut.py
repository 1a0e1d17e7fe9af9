# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is ARM asked the short way only with this identity's token, only at a place that is trusted, and is only a good answer taken?"""

from __future__ import annotations

import json
import pathlib
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from relay_double import Authority, Peer, ProxyDouble, RelayDouble

from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions, TokenSource
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import AuthError, ConnectionFailed
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._login import Kept, Resting
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._shortcut import Shortcut

OPTIONS = AuthOptions(auth_source="env", client_id="client", tenant="tenant", secret="HUSH")
SCOPE = "https://management.azure.com/.default"
PATH = "/subscriptions/s/resourceGroups/rg(1)/providers/x/machines/web01/listCredentials"
LONG_WAY = {"the": "long way"}

Relay = Callable[..., RelayDouble]


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(str(tmp_path / "relay"))


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the whole of `_arm` was asked."""
    asked: list[dict[str, Any]] = []

    def post(path: str, version: str, body: Any, **more: Any) -> dict[str, Any]:
        asked.append({"path": path, "version": version, "body": body, **more})
        return LONG_WAY

    monkeypatch.setattr(Shortcut, "_whole", lambda _self: SimpleNamespace(post=post))
    return asked


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who logged in."""
    found: list[str] = []

    def log_in(source: TokenSource, *_rest: Any) -> AccessToken:
        time.sleep(0.02)
        found.append(source.options.identity)
        return AccessToken(f"new{len(found)}", int(time.time()) + 3600)

    monkeypatch.setattr(TokenSource, "_login", log_in)
    return found


def answering(status: int, body: bytes, **headers: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.answer(status, body, **headers)

    return script


def rest(cache: Cache, port: int, **more: Any) -> None:
    """Leave a login as the first helper does."""
    kept = Kept("T0KEN", int(time.time()) + 3600, [SCOPE], f"https://127.0.0.1:{port}")
    for name, value in more.items():
        setattr(kept, name, value)
    Resting(OPTIONS, cache).keep(kept)


def ask(cache: Cache, environ: dict[str, str], options: AuthOptions = OPTIONS) -> dict[str, Any]:
    return Shortcut(options, cache, environ).post(
        PATH, "2023-03-15", {"serviceName": "SSH"}, query={"expiresin": "10800"}, doing="web01: cannot"
    )


def test_a_good_answer_is_taken_as_it_is(
    cache: Cache, authority: Authority, relay: Relay, long_way: list[dict[str, Any]], logins: list[str]
) -> None:
    bodies: list[bytes] = []

    def script(peer: Peer) -> None:
        bodies.append(peer.read_body())
        peer.answer(200, b'{"relay": {"a": "b  c"}}')

    double = relay(script)
    rest(cache, double.port)
    assert ask(cache, {"SSL_CERT_FILE": str(authority.file)}) == {"relay": {"a": "b  c"}}
    (peer,) = double.requests
    assert peer.head.decode().split("\r\n")[0] == f"POST {PATH}?expiresin=10800&api-version=2023-03-15 HTTP/1.1"
    assert peer.headers["authorization"] == "Bearer T0KEN"
    assert json.loads(bodies[0]) == {"serviceName": "SSH"}
    assert long_way == logins == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error": {"code": "ExpiredAuthenticationToken"}}'),
        (403, b"{}"),
        (429, b"{}"),
        (500, b"{}"),
        (302, b"{}"),
        (204, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"relay": "\xff'),
        (200, b"[" * 100_000),
    ],
)
def test_whatever_else_comes_is_left_to_the_long_way(
    cache: Cache, authority: Authority, relay: Relay, long_way: list[dict[str, Any]], status: int, body: bytes
) -> None:
    double = relay(answering(status, body, Location="https://127.0.0.1:9/", Retry_After="60"))
    rest(cache, double.port)
    assert ask(cache, {"SSL_CERT_FILE": str(authority.file)}) == LONG_WAY
    assert len(double.requests) == 1
    assert long_way == [
        {
            "path": PATH,
            "version": "2023-03-15",
            "body": {"serviceName": "SSH"},
            "query": {"expiresin": "10800"},
            "doing": "web01: cannot",
        }
    ]


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (HEAD + b'Content-Length: 7\r\n\r\n{"a":1}more', {"a": 1}),
        (HEAD + b'\r\n{"a":1}', {"a": 1}),
        (CHUNKED + b'3;x=y\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n', {"a": 1}),
        # Whatever breaks off, never ends or is no HTTP.
        (HEAD + b'Content-Length: 900\r\n\r\n{"a":1}', None),
        (HEAD + b'Content-Length: 999999999\r\n\r\n{"a":1}', None),
        (HEAD + b'Content-Length: -1\r\n\r\n{"a":1}', None),
        (HEAD + b'Content-Length: x\r\n\r\n{"a":1}', None),
        (CHUNKED + b'7\r\n{"a":1}\r\n', None),
        (CHUNKED + b'7\r\n{"a"', None),
        (CHUNKED + b'-7\r\n{"a":1}\r\n0\r\n\r\n', None),
        (CHUNKED + b"10000\r\n" + b" " * 65536 + b"\r\n" + 4 * (b"10000\r\n" + b" " * 65536 + b"\r\n"), None),
        (HEAD + b"Content-Length: 7\r\n", None),
        (HEAD + b"X: " + b"x" * 100_000, None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"", None),
    ],
)
def test_a_good_answer_is_read_however_it_is_framed_and_no_other(
    cache: Cache,
    authority: Authority,
    relay: Relay,
    long_way: list[dict[str, Any]],
    sent: bytes,
    taken: dict[str, Any] | None,
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.stream.sendall(sent)

    rest(cache, relay(script).port)
    assert ask(cache, {"SSL_CERT_FILE": str(authority.file)}) == (LONG_WAY if taken is None else taken)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_nobody_untrusted_sees_the_token(
    cache: Cache,
    authority: Authority,
    stranger: Authority,
    relay: Relay,
    long_way: list[dict[str, Any]],
    variable: str,
) -> None:
    double = relay(answering(200, b"{}"), context=stranger.server_context())
    rest(cache, double.port)
    # As with requests, its variable goes before OpenSSL's.
    environ = {"SSL_CERT_FILE": str(stranger.file), variable: str(authority.file)}
    assert ask(cache, environ) == LONG_WAY
    assert double.requests == []


@pytest.mark.parametrize("where", ["http://127.0.0.1:{}", "https://", "127.0.0.1:{}", "https://127.0.0.1:x"])
def test_an_address_that_is_none_is_left_to_the_long_way(
    cache: Cache, authority: Authority, relay: Relay, long_way: list[dict[str, Any]], where: str
) -> None:
    double = relay(answering(200, b"{}"))
    rest(cache, double.port, resource_manager=where.format(double.port))
    assert ask(cache, {"SSL_CERT_FILE": str(authority.file)}) == LONG_WAY
    assert double.handshakes == 0


def test_proxies_are_used_as_by_the_long_way(
    cache: Cache,
    authority: Authority,
    relay: Relay,
    proxy: Callable[..., ProxyDouble],
    long_way: list[dict[str, Any]],
) -> None:
    double = relay(answering(200, b'{"through": 1}'))
    way = proxy(login="Basic bWU6U0VDUkVU")
    rest(cache, double.port)
    environ = {"SSL_CERT_FILE": str(authority.file), "HTTPS_PROXY": f"http://me:SECRET@127.0.0.1:{way.port}"}
    assert ask(cache, environ) == {"through": 1}
    assert way.targets == [f"127.0.0.1:{double.port}"]
    assert ask(cache, {**environ, "NO_PROXY": "127.0.0.1"}) == {"through": 1}
    assert len(way.targets) == 1
    assert long_way == []
    for url in (f"http://you:9@127.0.0.1:{way.port}", f"https://127.0.0.1:{way.port}", "socks5://127.0.0.1", "http://"):
        assert ask(cache, {**environ, "HTTPS_PROXY": url}) == LONG_WAY
    assert len(double.requests) == 2


def test_a_token_of_somebody_else_or_for_something_else_is_not_used(
    cache: Cache, authority: Authority, relay: Relay, monkeypatch: pytest.MonkeyPatch, logins: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "ansible_collections.arcfleet.ssh.plugins.module_utils._relay._shortcut._ask",
        lambda kept, *_rest: asked.append(kept.token) or {},
    )
    environ = {"SSL_CERT_FILE": str(authority.file)}
    rest(cache, 1)
    others = AuthOptions(auth_source="env", client_id="other", tenant="tenant", secret="HUSH")
    ask(cache, environ, others)
    assert (asked, logins) == (["new1"], [others.identity])
    rest(cache, 1, scopes=["https://pas.windows.net/.default"], resource_manager=None)
    ask(cache, environ)
    assert asked[1:] == ["new2"]
    rest(cache, 1, expires_on=int(time.time()) + 200)
    ask(cache, environ)
    assert asked[2:] == ["new3"]


def test_of_many_one_logs_in_and_the_others_wait(
    cache: Cache, authority: Authority, monkeypatch: pytest.MonkeyPatch, logins: list[str]
) -> None:
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        "ansible_collections.arcfleet.ssh.plugins.module_utils._relay._shortcut._ask",
        lambda kept, *_rest: asked.append((kept.token, kept.resource_manager)) or {},
    )
    threads = [threading.Thread(target=ask, args=(cache, {})) for _dummy in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [("new1", "https://management.azure.com")] * 12
    assert logins == [OPTIONS.identity]


@pytest.mark.parametrize(
    ("failure", "said"),
    [(ConnectionFailed("no way", hint="Try."), "web01: cannot: no way Try."), (AuthError("no login"), "no login")],
)
def test_a_login_that_fails_is_tried_once_and_told(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, long_way: list[dict[str, Any]], failure: Exception, said: str
) -> None:
    tried: list[int] = []

    def log_in(*_rest: Any) -> AccessToken:
        tried.append(1)
        raise failure

    monkeypatch.setattr(TokenSource, "_login", log_in)
    with pytest.raises(type(failure)) as told:
        ask(cache, {})
    assert str(told.value) == said
    assert len(tried) == 1
    assert long_way == []
    # The lock is free again.
    with Resting(OPTIONS, cache).lock():
        pass
