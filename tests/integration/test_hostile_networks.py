# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does ssh get through networks that nobody would choose, and is it told when one of them swallows everything?

Real ssh, the real helper, the lab; what stands between them is in hostile_network.py. What the helper makes of single answers of proxies
is in its unit tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_network import HURRIED, LOGIN, Authority, Front, Host, Proxy, Server, obstacle, outcome

from arclab.client import Lab
from on_lab import descendants, module, start_ssh

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def servers() -> Iterator[Callable[[Server], Any]]:
    """Takes proxies and fronts that are to end with the test."""
    running: list[Server] = []

    def keep(server: Server) -> Server:
        running.append(server)
        return server

    yield keep
    for server in running:
        server.close()


@pytest.fixture
def run() -> Iterator[Run]:
    """`start_ssh`, whose processes end with the test at the latest."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        running.append(start_ssh(*args, **options))
        return running[-1]

    yield start
    for process in running:
        # Also a helper that was stopped, and that ssh does not end.
        for pid in [*descendants(process.pid), process.pid] if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError), process:
            pass


@pytest.fixture
def host() -> Iterator[Callable[[int], Host]]:
    """A host of its own, with addresses of one family only."""
    if (why := obstacle()) is not None:
        pytest.skip(why)
    made: list[Host] = []

    def make(family: int) -> Host:
        made.append(Host(family))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with one machine that lets SSH in; its cache of credentials is warm."""
    made = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=1)
    result = module(made, "arc_ssh_service_config", machines=[made.machines()[0]["id"]])
    assert not result.get("failed"), result
    assert outcome(start_ssh(made, made.machines()[0], "true")) == (0, b"", "")
    yield made
    made.down()


@pytest.fixture
def machine(lab: Lab) -> dict[str, Any]:
    (one,) = lab.machines()
    return one


def asked(lab: Lab, end: str) -> int:
    return len([entry for entry in lab.journal() if str(entry.get("path")).endswith(end)])


def ca(lab: Lab, *more: pathlib.Path, file: pathlib.Path) -> dict[str, str]:
    """Trust in the lab and in others, for OpenSSL and for requests."""
    file.write_bytes(b"".join(pathlib.Path(path).read_bytes() for path in (lab.env["SSL_CERT_FILE"], *more)))
    return {"SSL_CERT_FILE": str(file), "REQUESTS_CA_BUNDLE": str(file)}


def test_proxies_with_a_login_or_inspection_carry_everything(
    lab: Lab, machine: dict[str, Any], servers: Callable[[Server], Any], run: Run, tmp_path: pathlib.Path
) -> None:
    data = os.urandom(300_000)
    authority = Authority(tmp_path, "inspector")
    trusted = ca(lab, authority.file, file=tmp_path / "both.pem")
    locked = servers(Proxy(login=True))
    inspecting = servers(Proxy(inspector=authority, behind=lab.env["SSL_CERT_FILE"]))
    ways = {
        "locked": {"HTTPS_PROXY": locked.url(LOGIN)},
        "inspecting": {"https_proxy": inspecting.url(), **trusted},
        "none": {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "example.com,127.0.0.0/8"},
    }
    running = [
        run(lab, machine, "cat", helper=("--verbose",), env={**env, "XDG_CACHE_HOME": str(tmp_path / name)})
        for name, env in ways.items()
    ]
    for process in running:
        status, out, _dummy = outcome(process, data)
        assert status == 0
        assert out == data
    # Entra, ARM and the relay: each of them has a connection through either proxy.
    for proxy in (locked, inspecting):
        assert len(proxy.targets) >= 3
        assert set(proxy.targets) == {lab.url.removeprefix("https://").rstrip("/")}


def test_what_a_proxy_does_not_let_through_is_told(
    lab: Lab, machine: dict[str, Any], servers: Callable[[Server], Any], run: Run, tmp_path: pathlib.Path
) -> None:
    locked = servers(Proxy(login=True))
    inspecting = servers(Proxy(inspector=Authority(tmp_path, "inspector"), behind=lab.env["SSL_CERT_FILE"]))
    # Each its own: helpers with one cache wait for each other.
    cold = [{"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("first", "second")]
    relay = f"arcfleet.ssh: {machine['name']}: cannot reach the relay"
    cases = [
        (locked.url(), cold[0], ("the proxy asks for a login (407 Proxy Authentication Required)", "NO_PROXY")),
        (
            locked.url("me:hunter2"),
            {},
            (relay, "407 Proxy Authentication Required", f"proxy {locked.authority}", "HTTPS_PROXY="),
        ),
        (
            inspecting.url(),
            cold[1],
            (lab.url.rstrip("/"), "its certificate is not valid (unable to get", "proxy", "REQUESTS_CA_BUNDLE"),
        ),
        (
            inspecting.url(),
            {},
            (relay, f"not valid through the proxy {inspecting.authority}", "intercepts TLS", "SSL_CERT_FILE"),
        ),
    ]
    running = [(run(lab, machine, "true", env={"HTTPS_PROXY": url, **env}), texts) for url, env, texts in cases]
    for process, texts in running:
        status, out, said = outcome(process)
        assert (status, out) == (255, b"")
        (sentence,) = [line for line in said.splitlines() if line.startswith("arcfleet.ssh: ")]
        for text in texts:
            assert text in sentence


def test_ipv6_is_enough(
    lab: Lab,
    machine: dict[str, Any],
    servers: Callable[[Server], Any],
    run: Run,
    host: Callable[[int], Host],
    tmp_path: pathlib.Path,
) -> None:
    data = os.urandom(300_000)
    there = host(6)
    # Everything through a proxy that has an IPv6 address only.
    proxy = servers(Proxy(there.near))
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    process = run(lab, machine, "cat", within=there.within(), env={**cache, "HTTPS_PROXY": proxy.url()})
    assert outcome(process, data) == (0, data, "")
    # The relay itself, whose name has an address of either family, as the real one's has.
    name, authority = "azgn-lab.relay.test", Authority(tmp_path, "relay")
    target = lab.url.removeprefix("https://").rstrip("/").rpartition(":")
    front = servers(
        Front(there.near, authority.server_context(name), (target[0], int(target[2])), lab.env["SSL_CERT_FILE"])
    )
    (file,) = [path for path in tmp_path.rglob("*.json") if "relay" in json.loads(path.read_text())]
    kept = json.loads(file.read_text())
    kept["relay"].update(namespaceName="azgn-lab", namespaceNameSuffix=f"relay.test:{front.port}")
    file.write_text(json.dumps(kept))
    hosts = tmp_path / "hosts"
    hosts.write_text(f"192.0.2.1 {name}\n{there.near} {name}\n")
    process = run(
        lab, machine, "cat", within=there.within(hosts), env={**cache, **ca(lab, authority.file, file=tmp_path / "ca")}
    )
    assert outcome(process, data) == (0, data, "")
    assert front.passed > 2 * len(data)


def test_a_slow_link_is_only_slow(
    lab: Lab, machine: dict[str, Any], servers: Callable[[Server], Any], run: Run
) -> None:
    # 200 ms there and back, 1 Mbit/s.
    proxy = servers(Proxy(delay=0.1, rate=125_000))
    data = os.urandom(200_000)
    begun = time.monotonic()
    process = run(lab, machine, "cat; exit 7", env={"HTTPS_PROXY": proxy.url()})
    assert outcome(process, data) == (7, data, "")
    # Or it was not so slow.
    assert time.monotonic() - begun > 3


def test_many_helpers_for_one_machine(lab: Lab, machine: dict[str, Any], run: Run, tmp_path: pathlib.Path) -> None:
    lab.clear_journal()
    everybody = [
        (run(lab, machine, "cat", env={"XDG_CACHE_HOME": str(tmp_path)}), os.urandom(60_000)) for _dummy in range(20)
    ]
    for process, data in everybody:
        assert outcome(process, data) == (0, data, "")
    assert asked(lab, "/oauth2/v2.0/token") == 1
    assert asked(lab, "/listCredentials") == 1


def test_a_path_that_swallows_everything_is_noticed(
    lab: Lab, machine: dict[str, Any], servers: Callable[[Server], Any], run: Run, host: Callable[[int], Host]
) -> None:
    there = host(4)
    proxy = servers(Proxy(there.near))
    how = {"program": HURRIED, "within": there.within(), "env": {"HTTPS_PROXY": proxy.url()}}
    idle = run(lab, machine, "echo ready; exec sleep 600", **how)
    assert idle.stdout.read(6) == b"ready\n"
    with open("/dev/zero", "rb") as endless:
        sending = run(lab, machine, "cat >/dev/null", stdin=endless, **how)
        receiving = run(lab, machine, "cat /dev/zero", stdout=subprocess.DEVNULL, **how)
    before = proxy.passed
    everybody = [idle, sending, receiving]
    assert soon(lambda: proxy.passed - before > 40_000_000)
    helpers = [pid for process in everybody for pid in descendants(process.pid)]
    assert len(helpers) == 3
    there.cut()
    begun = time.monotonic()
    for process in everybody:
        # A ping goes out within a second and is to be answered within 2 s; the rest is for a busy computer.
        status, _dummy, said = outcome(process, within=max(1.0, begun + 20 - time.monotonic()))
        assert status == 255
        assert f"arcfleet.ssh: {machine['name']}: the relay's connection was lost (no answer for " in said
    assert soon(lambda: not any(pathlib.Path("/proc", str(pid)).exists() for pid in helpers))


def soon(happens: Callable[[], bool]) -> bool:
    """Whether it happens within half a minute."""
    deadline = time.monotonic() + 30
    while not (happened := happens()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened


def test_a_helper_that_slept_goes_on(lab: Lab, machine: dict[str, Any], run: Run) -> None:
    data = os.urandom(8_000_000)
    idle, busy = (run(lab, machine, "cat", program=HURRIED) for _dummy in range(2))

    def send(process: subprocess.Popen[bytes], rest: bytes) -> threading.Thread:
        def work() -> None:
            process.stdin.write(rest)
            process.stdin.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    idle.stdin.write(data[:7])
    idle.stdin.flush()
    assert idle.stdout.read(7) == data[:7]
    sending = [send(busy, data)]
    received = busy.stdout.read(500_000)
    helpers = [pid for process in (idle, busy) for pid in descendants(process.pid)]
    assert len(helpers) == 2
    for pid in helpers:
        os.kill(pid, signal.SIGSTOP)
    # Longer than the helper waits for an answer to its ping, while one has been asked for or not yet.
    sending.append(send(idle, data[7:1_000_000]))
    time.sleep(3.5)
    for pid in helpers:
        os.kill(pid, signal.SIGCONT)
    assert received + busy.stdout.read() == data
    assert idle.stdout.read() == data[7:1_000_000]
    for thread in sending:
        thread.join(10)
    for process in (idle, busy):
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
