# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the helper make of the relay's answers, and does it get through proxies and TLS as it should?"""

# pylint does not see through a generator's return value, which is what a dial gives.
# pylint: disable=unpacking-non-sequence

from __future__ import annotations

import base64
import contextlib
import os
import pathlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from relay_double import (
    ACCESS_KEY,
    CONNECTION,
    SERVICE_TOKEN,
    Authority,
    Peer,
    ProxyDouble,
    RelayDouble,
    bridge,
    frame,
    make_credentials,
)

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ConnectionFailed
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _dial, _tls
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._credentials import Credentials
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._dial import (
    CERTIFICATE,
    HTTP,
    PROTOCOL,
    PROXY,
    SETTINGS,
    SILENT,
    UNREACHABLE,
    Answer,
    Refresh,
    Retry,
    Stop,
    decide,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._pump import Pump

NO_ENDPOINT = "Endpoint does not exist. TrackingId:118dae85_G13, SystemTracker:sb://x, Timestamp:2025-04-24T11:08:04."
NO_LISTENER = "There are no listeners connected for the endpoint. TrackingId:1"
NO_SSHD = "connection to localhost:22 failed: dial tcp [::1]:22: connectex: No connection could be made"

Relay = Callable[..., RelayDouble]


# --- policy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "text", "state", "decision"),
    [
        (HTTP, 404, NO_ENDPOINT, {}, Retry(1)),
        (HTTP, 404, NO_LISTENER, {"count": 2}, Retry(2)),
        (HTTP, 404, NO_LISTENER, {"count": 3}, Retry(4)),
        (HTTP, 404, NO_LISTENER, {"count": 4}, Retry(5)),
        (HTTP, 404, NO_LISTENER, {"count": 50}, Retry(5)),
        (HTTP, 404, NO_ENDPOINT, {"age": 15}, Refresh(1)),
        (HTTP, 404, NO_ENDPOINT, {"age": 14.9}, Retry(1)),
        (HTTP, 404, NO_ENDPOINT, {"age": 9000, "refreshed": True}, Refresh(1)),
        (HTTP, 404, NO_ENDPOINT, {"elapsed": 179.5}, Stop()),
        (HTTP, 404, NO_ENDPOINT, {"elapsed": 178.9}, Retry(1)),
        (HTTP, 503, NO_SSHD, {}, Stop()),
        (HTTP, 503, NO_SSHD.replace("22", "2222").title(), {}, Stop()),
        (HTTP, 503, "Service Unavailable", {}, Retry(1)),
        (HTTP, 500, "", {"count": 9}, Retry(5)),
        (HTTP, 502, "", {}, Retry(1)),
        (HTTP, 429, "", {}, Retry(1)),
        (HTTP, 401, "", {}, Refresh(0)),
        (HTTP, 403, "", {"age": 1}, Refresh(0)),
        (HTTP, 401, "", {"refreshed": True}, Stop()),
        (HTTP, 401, "", {"elapsed": 999}, Refresh(0)),
        (HTTP, 400, "", {}, Stop()),
        (HTTP, 302, "", {}, Stop()),
        (SILENT, None, "", {}, Retry(1)),
        (SILENT, None, "", {"count": 6}, Stop()),
        (UNREACHABLE, None, "", {"count": 5}, Retry(5)),
        (UNREACHABLE, None, "", {"count": 6}, Stop()),
        (PROXY, 407, "", {}, Stop()),
        (PROXY, 403, "", {}, Stop()),
        (PROXY, 503, "", {}, Retry(1)),
        (PROXY, None, "", {}, Retry(1)),
        (CERTIFICATE, None, "", {}, Stop()),
        (SETTINGS, None, "", {}, Stop()),
        (PROTOCOL, None, "", {}, Stop()),
    ],
)
def test_decisions(kind: str, status: int | None, text: str, state: dict[str, Any], decision: Retry) -> None:
    arguments: dict[str, Any] = {"elapsed": 0.0, "refreshed": False, "budget": 180.0, "count": 1, "age": 0.0, **state}
    assert decide(Answer(kind, text, status), **arguments) == decision


@pytest.mark.parametrize(
    ("kind", "status", "text", "sentence", "advice"),
    [
        (HTTP, 404, NO_ENDPOINT, "does not know the machine yet", "enabled just now"),
        (HTTP, 404, NO_LISTENER, "agent is not connected", "himds"),
        (HTTP, 503, NO_SSHD, "nothing listens on port 2222 of the machine", "Start sshd there, or set the service"),
        (HTTP, 503, "busy", "cannot take the connection", "again"),
        (HTTP, 401, "no", "refuses newly issued credentials", "Virtual Machine Local User Login"),
        (HTTP, 403, "no", "refuses newly issued credentials", "clock"),
        (HTTP, 418, "no", "refuses the connection", "--verbose"),
        (PROXY, 407, "Authentication Required", "407", "USER:PASSWORD@HOST"),
        (PROXY, 502, "no", "502 no", "HTTPS_PROXY"),
        (CERTIFICATE, None, "expired", "expired", "SSL_CERT_FILE"),
        (SETTINGS, None, "x", "x", "environment"),
        (UNREACHABLE, None, "x", "cannot reach the relay r.example", "name resolution"),
        (SILENT, None, "x", "cannot reach the relay r.example", "firewall"),
        (PROTOCOL, None, "x", "cannot reach the relay r.example", "proxy"),
    ],
)
def test_explanations(kind: str, status: int | None, text: str, sentence: str, advice: str) -> None:
    error = _dial.explain(Answer(kind, text, status), "web01", 2222, "r.example")
    assert str(error).startswith("web01: ")
    assert sentence in error.message
    assert advice in (error.hint or "")
    assert isinstance(error, ConnectionFailed) is (kind != HTTP)


def test_explanations_hold_no_secrets() -> None:
    error = _dial.explain(Answer(HTTP, f"bad token {ACCESS_KEY} {SERVICE_TOKEN}", 401), "web01", 22, "r.example")
    assert "HUSH" not in str(error)


# --- the loop --------------------------------------------------------------------------------------------------------


class Play:
    """A clock, a source of credentials and a relay that gives one answer after the other."""

    def __init__(self, *answers: Answer | None, age: float = 0.0) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.renewals = 0
        self.dials: list[Credentials] = []
        self.said: list[str] = []
        self.details: list[str] = []
        self._issued = -age

    def current(self) -> Credentials:
        return make_credentials(1, now=self._issued)

    def renew(self, refused: Credentials) -> Credentials:
        assert refused == self.dials[-1]
        self.renewals += 1
        return make_credentials(1 + self.renewals, now=self.now)

    def open(self, credentials: Credentials, port: int, _deadline: float) -> Any:
        assert port == 22
        self.dials.append(credentials)
        self.now += 0.1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer
        return "relay", b"early"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, budget: float = 180) -> Any:
        return _dial.connect(
            self,
            "web01",
            22,
            budget,
            {},
            say=self.said.append,
            detail=self.details.append,
            open_relay=self.open,
            clock=lambda: self.now,
            wall_clock=lambda: self.now,
            sleep=self.sleep,
        )


def refusal(status: int, text: str = "") -> Answer:
    return Answer(HTTP, text, status)


def test_a_warm_connection_is_silent() -> None:
    play = Play(None)
    assert play.run() == ("relay", b"early")
    assert play.said == []
    assert len(play.details) == 1


def test_old_credentials_are_renewed_after_404_and_then_every_15_seconds() -> None:
    play = Play(*[refusal(404, NO_ENDPOINT)] * 8, None, age=3600)
    play.run()
    # 1, 2, 4, 5, 5, 5, 5, 5 s between the dials; renewed before the second, and whenever 15 s have passed.
    assert [credentials.suffix for credentials in play.dials] == [
        "0.0.1:1",
        *["0.0.1:2"] * 5,
        *["0.0.1:3"] * 3,
    ]
    assert play.said == ["web01: the relay answers 404 Endpoint does not exist; trying again for up to 180 s."]


def test_each_reason_is_told_once() -> None:
    play = Play(refusal(404, NO_ENDPOINT), refusal(404, NO_LISTENER), Answer(SILENT, "no answer within 10 s"), None)
    play.run()
    assert len(play.said) == 2
    assert "no answer within 10 s" in play.said[1]


def test_the_budget_ends_the_wait_with_the_last_reason() -> None:
    play = Play(refusal(404, NO_ENDPOINT), refusal(404, NO_LISTENER))
    with pytest.raises(ArcError, match="agent is not connected"):
        play.run(budget=30)
    assert 24 < play.now <= 30


def test_an_expired_token_is_replaced_once() -> None:
    play = Play(refusal(401), None)
    play.run()
    assert play.renewals == 1
    assert play.said == []
    refused = Play(refusal(401), refusal(403))
    with pytest.raises(ArcError, match="refuses newly issued credentials"):
        refused.run()
    assert refused.renewals == 1


def test_a_401_after_a_404_still_gets_its_renewal() -> None:
    play = Play(refusal(404), refusal(401), None, age=60)
    play.run()
    assert play.renewals == 2


def test_a_missing_sshd_is_told_at_once() -> None:
    play = Play(refusal(503, NO_SSHD))
    with pytest.raises(ArcError, match="nothing listens on port 22"):
        play.run()
    assert len(play.dials) == 1


def test_stalls_between_404s_do_not_use_up_the_patience() -> None:
    play = Play(*[refusal(404)] * 25, Answer(SILENT, "stalled"), *[refusal(404)] * 3, None)
    play.run()
    assert play.now > 120


# --- the race --------------------------------------------------------------------------------------------------------


class Heat:
    """Dials that take some seconds of the heat's own time: each ends with an answer, or is let in."""

    def __init__(self, *lanes: tuple[float, Answer | None]) -> None:
        self.now = 0.0
        self.started: list[float] = []
        self.closed: dict[int, float] = {}
        self._lanes = lanes

    def dial(self) -> Iterator[Any]:
        number = len(self.started)
        self.started.append(self.now)
        return self._run(number, self.now + self._lanes[number][0], self._lanes[number][1])

    def _run(self, number: int, end: float, answer: Answer | None) -> Iterator[Any]:
        try:
            while self.now < end:
                yield number, 0, end
        except GeneratorExit:
            self.closed[number] = self.now
            raise
        if answer is not None:
            raise answer
        return f"relay {number}", b"early"

    def wait(self, waiting: Any, until: float) -> list[Any]:
        assert 0 < len(waiting) <= 2
        self.now = min([until, *(end for _number, _events, end in waiting.values())])
        return [one for one, (_number, _events, end) in waiting.items() if end <= self.now]

    def run(self) -> Any:
        return _dial.race(self.dial, clock=lambda: self.now, wait=self.wait)  # type: ignore[arg-type]


SILENCE = Answer(SILENT, "no answer within 10 s")


@pytest.mark.parametrize(
    ("lanes", "winner", "at", "started"),
    [
        ([(0.6, None)], 0, 0.6, [0]),
        ([(1.9, None)], 0, 1.9, [0]),
        ([(5, None), (0.5, None)], 1, 2.5, [0, 2]),
        ([(2.3, None), (5, None)], 0, 2.3, [0, 2]),
        ([(10, SILENCE), (7, None)], 1, 9, [0, 2]),
        # Refusals that would be tried again wait for the other dial, whichever that is.
        ([(5, None), (0.5, refusal(404, NO_LISTENER))], 0, 5, [0, 2]),
        ([(5, None), (0.5, refusal(503))], 0, 5, [0, 2]),
        ([(5, None), (0.5, Answer(SILENT, "the connection broke off"))], 0, 5, [0, 2]),
        ([(5, None), (0.5, Answer(UNREACHABLE, "refused"))], 0, 5, [0, 2]),
        ([(2.2, refusal(404, NO_ENDPOINT)), (0.5, None)], 1, 2.5, [0, 2]),
        ([(3, Answer(SILENT, "the connection broke off")), (2, None)], 1, 4, [0, 2]),
    ],
)
def test_whoever_is_let_in_first_wins(
    lanes: list[tuple[float, Answer | None]], winner: int, at: float, started: list[float]
) -> None:
    heat = Heat(*lanes)
    assert heat.run() == (f"relay {winner}", b"early")
    assert heat.now == at
    assert heat.started == started
    # A dial that ended by itself needs no closing; the other one is closed in the same moment.
    loser = 1 - winner
    ended = len(started) == 1 or started[loser] + lanes[loser][0] <= at
    assert heat.closed == ({} if ended else {loser: at})


@pytest.mark.parametrize(
    ("lanes", "answer", "at"),
    [
        # Alone, a refusal counts at once.
        ([(0.3, refusal(404, NO_LISTENER))], "404", 0.3),
        ([(0.3, Answer(SILENT, "reset"))], "reset", 0.3),
        # What no other dial could change ends the race.
        ([(5, None), (0.5, refusal(401))], "401", 2.5),
        ([(5, None), (0.5, refusal(403))], "403", 2.5),
        ([(5, None), (0.5, refusal(503, NO_SSHD))], "503", 2.5),
        ([(5, None), (0.5, refusal(400))], "400", 2.5),
        ([(5, None), (0.5, Answer(CERTIFICATE, "expired"))], "expired", 2.5),
        ([(5, None), (0.5, Answer(PROXY, "login", 407))], "407", 2.5),
        ([(2.1, refusal(401)), (5, None)], "401", 2.1),
        # Of two refusals the relay's own word says more.
        ([(10, SILENCE), (0.5, refusal(404, NO_LISTENER))], "404", 10),
        ([(2.5, refusal(404, NO_LISTENER)), (8, SILENCE)], "404", 10),
        ([(10, SILENCE), (8, SILENCE)], "no answer", 10),
    ],
)
def test_refusals_of_a_race(lanes: list[tuple[float, Answer | None]], answer: str, at: float) -> None:
    heat = Heat(*lanes)
    with pytest.raises(Answer, match=answer):
        heat.run()
    assert heat.now == at
    assert len(heat.started) == len(lanes)
    # Nothing is left behind, also while the exception is looked at.
    assert set(heat.closed) == {
        number for number, (seconds, _answer) in enumerate(lanes) if heat.started[number] + seconds > at
    }


def test_an_interrupted_race_closes_both() -> None:
    heat = Heat((5, None), (5, None))
    real = heat.wait

    def interrupted(waiting: Any, until: float) -> list[Any]:
        if len(waiting) == 2:
            raise KeyboardInterrupt
        return real(waiting, until)

    heat.wait = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        heat.run()
    assert heat.closed == {0: 2, 1: 2}


def test_a_second_dial_leaves_time_for_both_within_an_attempt() -> None:
    # A spike of the live relay takes 3-7 s, also for the second dial.
    assert _dial.SECOND_AFTER + 7 < _dial.ATTEMPT


# --- one attempt -----------------------------------------------------------------------------------------------------


def dial(port: int, environ: dict[str, str], *, patience: float = 5.0) -> tuple[_tls.Tls, bytes]:
    return _dial.Dialler(environ).open(make_credentials(port), 2222, time.monotonic() + patience)


def trusting(authority: Authority, **more: str) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(authority.file), **more}


def test_the_request_carries_the_three_headers(authority: Authority, relay: Relay) -> None:
    double = relay(lambda peer: peer.accept(frame(2, b"SSH-2.0-x\r\n")))
    tls, early = dial(double.port, trusting(authority))
    tls.close()
    assert frame(2, b"SSH-2.0-x\r\n").startswith(early)
    peer = double.requests[0]
    line = peer.head.decode().split("\r\n")[0]
    path, _dummy, query = line.split(" ")[1].partition("?")
    assert path == f"/$hc/{CONNECTION}"
    action, _dummy, connection_id = query.partition("&sb-hc-id=")
    assert action == "sb-hc-action=connect"
    assert [len(part) for part in connection_id.split("-")] == [8, 4, 4, 4, 12]
    assert connection_id[14] == "4"
    assert peer.headers["servicebusauthorization"] == ACCESS_KEY
    assert peer.headers["service-configuration-token"] == SERVICE_TOKEN
    assert peer.headers["microsoft-guestgateway-target"] == "localhost:2222"
    assert peer.headers["host"] == f"127.0.0.1:{double.port}"
    assert SERVICE_TOKEN not in line


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (f"HTTP/1.1 404 {NO_LISTENER}\r\n\r\n", f"404 {NO_LISTENER}"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\n404 No more", "404 Not Found: No more"),
        ("HTTP/1.1 503 \r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n", "503 busy"),
        ("HTTP/1.1 503 busy\r\nContent-Length: 4\r\n\r\nbusy", "503 busy"),
        (
            "HTTP/1.1 503 Unavailable\r\nContent-Length: 99\r\n\r\nconnection to localhost",
            "503 Unavailable: connection to localhost",
        ),
    ],
)
def test_the_text_is_found_wherever_it_stands(authority: Authority, relay: Relay, answer: str, text: str) -> None:
    double = relay(lambda peer: peer.send(answer.encode()))
    with pytest.raises(Answer) as refused:
        dial(double.port, trusting(authority))
    assert refused.value.kind == HTTP
    assert str(refused.value) == text


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n", b"HTTP/1.1 101", b"x" * 90_000])
def test_answers_of_somebody_else_are_refused(authority: Authority, relay: Relay, answer: bytes) -> None:
    double = relay(lambda peer: peer.send(answer))
    with pytest.raises(Answer) as refused:
        dial(double.port, trusting(authority))
    assert refused.value.kind == PROTOCOL


def test_a_foreign_certificate_is_refused(authority: Authority, stranger: Authority, relay: Relay) -> None:
    double = relay(Peer.accept, context=stranger.server_context())
    with pytest.raises(Answer, match="certificate is not valid") as refused:
        dial(double.port, trusting(authority))
    assert refused.value.kind == CERTIFICATE
    assert double.requests == []


def test_a_certificate_for_another_name_is_refused(authority: Authority, relay: Relay) -> None:
    double = relay(Peer.accept)
    credentials = make_credentials(double.port)
    credentials.suffix = f"0.0.2:{double.port}"
    with socket.create_server(("127.0.0.2", 0)) as listener:
        credentials.suffix = f"0.0.2:{listener.getsockname()[1]}"

        def forward() -> None:
            for _dummy in range(2):
                client, _dummy = listener.accept()
                bridge(client, socket.create_connection(("127.0.0.1", double.port)))

        threading.Thread(target=forward, daemon=True).start()
        with pytest.raises(Answer, match="certificate is not valid") as refused:
            _dial.Dialler(trusting(authority)).open(credentials, 22, time.monotonic() + 5)
    assert refused.value.kind == CERTIFICATE


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_ca_is_named_by_any_usual_variable(authority: Authority, relay: Relay, variable: str) -> None:
    double = relay(Peer.accept)
    dial(double.port, {variable: str(authority.file)})[0].close()


def test_a_ca_may_be_a_directory(authority: Authority, relay: Relay, tmp_path: pathlib.Path) -> None:
    import subprocess

    (tmp_path / "ca.pem").write_bytes(authority.file.read_bytes())
    subprocess.run(["openssl", "rehash", tmp_path], check=True)
    double = relay(Peer.accept)
    dial(double.port, {"SSL_CERT_DIR": str(tmp_path)})[0].close()
    dial(double.port, {"REQUESTS_CA_BUNDLE": str(tmp_path)})[0].close()


def test_a_ca_that_cannot_be_loaded_is_named(tmp_path: pathlib.Path, authority: Authority, relay: Relay) -> None:
    double = relay(Peer.accept)
    (tmp_path / "empty.pem").touch()
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(Answer, match=path.name) as refused:
            dial(double.port, {"SSL_CERT_FILE": str(path)})
        assert refused.value.kind == SETTINGS


def test_the_systems_cas_do_not_trust_the_test(relay: Relay) -> None:
    double = relay(Peer.accept)
    with pytest.raises(Answer) as refused:
        dial(double.port, {})
    assert refused.value.kind == CERTIFICATE


def test_p384_is_offered_first(authority: Authority, relay: Relay) -> None:
    context = authority.server_context()
    context.set_ecdh_curve("secp384r1")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    double = relay(Peer.accept, context=context)
    dial(double.port, trusting(authority))[0].close()
    assert double.handshakes == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_front_without_p384_gets_the_defaults(authority: Authority, relay: Relay, version: ssl.TLSVersion) -> None:
    context = authority.server_context()
    context.set_ecdh_curve("prime256v1")
    context.minimum_version = context.maximum_version = version
    double = relay(Peer.accept, context=context)
    dialler = _dial.Dialler(trusting(authority))
    for handshakes in (2, 3):
        dialler.open(make_credentials(double.port), 22, time.monotonic() + 5)[0].close()
        assert double.handshakes == handshakes


def test_nothing_older_than_tls_1_2_is_spoken(authority: Authority) -> None:
    trust = _tls.Trust(trusting(authority))
    for context in (trust.quick(), trust.wide()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


@pytest.mark.parametrize("after", ["accept", "request"])
def test_a_stalled_handshake_is_given_up(authority: Authority, relay: Relay, after: str) -> None:
    gone = threading.Event()
    double = relay(lambda _peer: gone.wait(5) and None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1] if after == "accept" else double.port
        started = time.monotonic()
        with pytest.raises(Answer, match="no answer") as refused:
            dial(port, trusting(authority), patience=0.3)
    gone.set()
    assert refused.value.kind == SILENT
    assert 0.2 < time.monotonic() - started < 2


def test_a_dribbling_answer_is_given_up(authority: Authority, relay: Relay) -> None:
    def dribble(peer: Peer) -> None:
        for _dummy in range(100):
            peer.send(b"H")
            time.sleep(0.05)

    double = relay(dribble)
    with pytest.raises(Answer) as refused:
        dial(double.port, trusting(authority), patience=0.4)
    assert refused.value.kind == SILENT


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dial, "SECOND_AFTER", 0.15)


class Pair:
    """The relay's side of a race: the first to come is held until `release`, the second is let in and echoes."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.over = threading.Event()
        self.left: bytes | None = None
        self.loser: Peer | None = None

    def __call__(self, peer: Peer) -> None:
        if self.loser is not None:
            peer.accept(frame(2, b"SSH-2.0-x"))
            while (got := peer.read_frame())[0] == 2:
                peer.send(frame(2, got[1]))
            return
        self.loser = peer
        peer.stream.suppress_ragged_eofs = False
        self.release.wait(5)
        try:
            # Nothing but TLS's own good-bye may come: anything else raises or is data.
            self.left = peer.stream.recv(100)
            peer.accept(frame(2, b"SSH-2.0-late"))
        finally:
            self.over.set()


@pytest.mark.usefixtures("hurried")
def test_the_loser_is_told_at_once_and_gets_nothing(
    authority: Authority, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[Any] = []
    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *what, **how: (looked_up.append(what), getaddrinfo(*what, **how))[1]
    )
    pair = Pair()
    pair.release.set()
    double = relay(pair)
    tls, early = dial(double.port, trusting(authority))
    try:
        # While the winner is open still.
        assert pair.over.wait(5)
        assert pair.left == b""
        assert frame(2, b"SSH-2.0-x").startswith(early)
        assert len(double.requests) == 2
        assert len({peer.head.split(b"sb-hc-id=")[1].split()[0] for peer in double.requests}) == 2
        assert len(looked_up) == 1
    finally:
        tls.close()


@pytest.mark.usefixtures("hurried")
def test_the_winner_is_not_disturbed_by_what_the_loser_hears_later(authority: Authority, relay: Relay) -> None:
    pair = Pair()
    double = relay(pair)
    tls, early = dial(double.port, trusting(authority))
    sent = os.urandom(100_000)
    source, feed = os.pipe()
    drain, sink = os.pipe()
    for descriptor in (source, sink):
        os.set_blocking(descriptor, False)
    pump = threading.Thread(target=Pump(tls, source, sink, early=early).run, daemon=True)
    pump.start()
    try:
        received = os.read(drain, 9)
        for start in range(0, len(sent), 10_000):
            os.write(feed, sent[start : start + 10_000])
            if start == 50_000:
                pair.release.set()
                assert pair.over.wait(5)
            goal = 9 + start + 10_000
            while len(received) < goal:
                received += os.read(drain, goal - len(received))
        assert received == b"SSH-2.0-x" + sent
    finally:
        os.close(feed)
        pump.join(5)
        tls.close()
        for descriptor in (source, drain, sink):
            os.close(descriptor)


@pytest.mark.usefixtures("hurried")
def test_a_handshake_that_stalls_gets_company_too(authority: Authority, relay: Relay) -> None:
    double = relay(Peer.accept)
    with socket.create_server(("127.0.0.1", 0)) as front:

        def serve() -> None:
            mute, _dummy = front.accept()
            client, _dummy = front.accept()
            bridge(client, socket.create_connection(("127.0.0.1", double.port)))
            mute.close()

        threading.Thread(target=serve, daemon=True).start()
        dial(front.getsockname()[1], trusting(authority))[0].close()
    assert double.handshakes == 1


@pytest.mark.usefixtures("hurried")
def test_both_held_for_ever(authority: Authority, relay: Relay) -> None:
    gone = threading.Event()
    double = relay(lambda _peer: gone.wait(5) and None)
    with pytest.raises(Answer, match="no answer"):
        dial(double.port, trusting(authority), patience=0.8)
    gone.set()
    assert len(double.requests) == 2


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    authority: Authority, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = relay(Peer.accept)
    with socket.socket() as deaf:
        # A listener whose queue is full swallows packets.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _dummy in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        addresses = [(*kind, deaf.getsockname()), (*kind, ("127.0.0.1", double.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_what, **_how: addresses)
        dial(double.port, trusting(authority), patience=1.0)[0].close()
        for filler in fillers:
            filler.close()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Answer, match="Connection refused") as refused:
        dial(port, {})
    assert refused.value.kind == UNREACHABLE
    credentials = make_credentials()
    credentials.suffix = "invalid"
    with pytest.raises(Answer, match="name 127.invalid cannot be resolved") as refused:
        _dial.Dialler({}).open(credentials, 22, time.monotonic() + 5)
    assert refused.value.kind == UNREACHABLE


# --- proxies ---------------------------------------------------------------------------------------------------------


def test_the_proxy_is_used(authority: Authority, relay: Relay, proxy: Callable[..., ProxyDouble]) -> None:
    double, way = relay(Peer.accept), proxy()
    dial(double.port, trusting(authority, HTTPS_PROXY=f"http://127.0.0.1:{way.port}"))[0].close()
    assert way.targets == [f"127.0.0.1:{double.port}"]
    dial(double.port, trusting(authority, HTTPS_PROXY=f"http://127.0.0.1:{way.port}", NO_PROXY="127.0.0.0/8"))[
        0
    ].close()
    assert len(way.targets) == 1
    assert len(double.requests) == 2


def test_the_proxys_login(authority: Authority, relay: Relay, proxy: Callable[..., ProxyDouble]) -> None:
    double = relay(Peer.accept)
    way = proxy(login="Basic " + base64.b64encode(b"me:SECRET").decode())
    dial(double.port, trusting(authority, HTTPS_PROXY=f"http://me:SECRET@127.0.0.1:{way.port}"))[0].close()
    with pytest.raises(Answer, match="407 Proxy Authentication Required") as refused:
        dial(double.port, trusting(authority, HTTPS_PROXY=f"http://you:SECRET9@127.0.0.1:{way.port}"))
    assert refused.value.kind == PROXY
    assert refused.value.status == 407
    assert "SECRET" not in str(refused.value)


def test_a_certificate_that_came_through_a_proxy_names_it(
    authority: Authority, stranger: Authority, relay: Relay, proxy: Callable[..., ProxyDouble]
) -> None:
    double, way = relay(Peer.accept, context=stranger.server_context()), proxy()
    with pytest.raises(Answer, match=f"not valid through the proxy 127.0.0.1:{way.port}: ") as refused:
        dial(double.port, trusting(authority, HTTPS_PROXY=f"http://me:SECRET@127.0.0.1:{way.port}"))
    assert refused.value.kind == CERTIFICATE


def test_tls_inside_tls(authority: Authority, relay: Relay, proxy: Callable[..., ProxyDouble]) -> None:
    big = frame(2, bytes(range(256)) * 256)
    double = relay(lambda peer: (peer.accept(big), peer.read_frame())[0])
    way = proxy(context=authority.server_context())
    tls, early = dial(double.port, trusting(authority, HTTPS_PROXY=f"https://localhost:{way.port}"))
    view = memoryview(bytearray(len(big)))
    received = len(early)
    while received < len(big):
        if not tls.ready:
            assert select.select([tls], [], [], 5)[0]
        with contextlib.suppress(BlockingIOError):
            received += tls.recv_into(view[: len(big) - received])
    tls.close()


@pytest.mark.parametrize(
    ("answer", "text", "decision"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "503 Busy", Retry),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden", Stop),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n", "which takes NTLM\\)", Stop),
        (
            b'HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Digest realm="a, b", nonce="c"\r\n\r\n',
            "which takes Negotiate or Digest\\)",
            Stop,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "data of its own", Stop),
        (b"no\r\n\r\n", "does not speak HTTP", Stop),
    ],
)
def test_proxies_that_refuse(
    proxy: Callable[..., ProxyDouble], answer: bytes, text: str, decision: type[Retry]
) -> None:
    way = proxy(answer=answer)
    with pytest.raises(Answer, match=text) as refused:
        dial(443, {"HTTPS_PROXY": f"127.0.0.1:{way.port}"})
    assert refused.value.kind == PROXY
    assert isinstance(decide(refused.value, 0, False, 180, count=1, age=0), decision)


def test_proxies_that_are_not_there_or_not_trusted(
    authority: Authority, stranger: Authority, proxy: Callable[..., ProxyDouble]
) -> None:
    way = proxy(context=stranger.server_context())
    with pytest.raises(Answer, match="no TLS with the proxy localhost") as refused:
        dial(443, trusting(authority, HTTPS_PROXY=f"https://localhost:{way.port}"))
    assert refused.value.kind == PROXY
    with pytest.raises(Answer, match="scheme 'socks5' is not supported") as refused:
        dial(443, {"HTTPS_PROXY": "socks5://127.0.0.1:1"})
    assert refused.value.kind == SETTINGS
    way.close()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Answer, match=f"the proxy 127.0.0.1:{port} cannot be connected to") as refused:
        dial(443, {"HTTPS_PROXY": f"http://127.0.0.1:{port}"})
    assert refused.value.kind == UNREACHABLE
