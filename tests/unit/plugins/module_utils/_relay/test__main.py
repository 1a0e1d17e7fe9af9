# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the helper behave as a ProxyCommand: arguments, exit status, sentences, signals, and a start without ballast?"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from relay_double import (
    HELPER,
    MACHINE,
    Authority,
    Helper,
    Peer,
    RelayDouble,
    close_frame,
    frame,
    make_credentials,
    prefill,
)

from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _main
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._login import Kept, Resting

Relay = Callable[..., RelayDouble]


def echo(peer: Peer) -> None:
    """Send back what comes, until the helper closes."""
    peer.accept()
    while True:
        opcode, payload = peer.read_frame()
        if opcode == 8:
            peer.send(close_frame(1000))
            return
        peer.send(frame(2, payload))


# --- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_and_their_defaults() -> None:
    given = _main.parse_arguments(["--resource-id", MACHINE, "--port=2222"])
    assert (given.resource_id, given.machine, given.port) == (MACHINE, "web01", 2222)
    assert (given.service, given.timeout, given.flags) == ("SSH", 180.0, frozenset())
    assert set(given.auth.values()) == {None}
    given = _main.parse_arguments(
        ["--port", "22", "--resource-id", MACHINE, "--client-id=c", "--service", "WAC", "--timeout", "9.5", "--verbose"]
    )
    assert (given.service, given.timeout, given.flags) == ("WAC", 9.5, frozenset({"verbose"}))
    assert given.auth["client_id"] == "c"


def test_auth_options_are_those_of_the_collection_without_its_secrets() -> None:
    from dataclasses import fields

    from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions

    taken = set(_main.parse_arguments(["--resource-id", MACHINE, "--port", "22"]).auth)
    assert taken == {field.name for field in fields(AuthOptions)} - {"secret", "oidc_token"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--resource-id is missing"),
        (["--resource-id", "", "--port", "22"], "--resource-id needs a value"),
        (["--resource-id", "x"], "--port is missing"),
        (["--resource-id", "x", "--port"], "--port needs a value"),
        (["--resource-id", "x", "--port", "0"], "'0' is no port"),
        (["--resource-id", "x", "--port", "65536"], "no port"),
        (["--resource-id", "x", "--port", "ssh"], "no port"),
        (["--resource-id", "x", "--port", "22", "--service", "RDP"], "none of SSH, WAC"),
        (["--resource-id", "x", "--port", "22", "--timeout", "soon"], "no number of seconds"),
        (["--resource-id", "x", "--port", "22", "--timeout", "nan"], "no number of seconds"),
        (["--resource-id", "x", "--port", "22", "--timeout", "-1"], "no number of seconds"),
        (["--resource-id", "x", "--port", "22", "--proxy-digest", "sha256:0"], "needs --proxy-binary"),
        (["--resource-id", "x", "--port", "22", "--proxy-binary", "x", "--proxy-digest", "md5:0"], "64 hexadecimal"),
        (["--secret=hunter2"], "unknown argument '--secret'"),
        (["web01"], "unknown argument"),
    ],
)
def test_wrong_use_is_explained(arguments: list[str], text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert _main.main(arguments, {}) == 2
    said = capfd.readouterr().err
    assert text in said
    assert "hunter2" not in said
    assert said.count("\n") == 1


def test_help_names_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["--help"], {}) == 0
    text = capfd.readouterr().out
    for option in (*_main._OPTIONS, *_main._AUTH_OPTIONS, *_main._FLAGS):
        assert f"--{option}" in text


def test_an_id_that_is_none_is_wrong_use(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--resource-id", "/subscriptions/x", "--port", "22", "--cache-dir", str(tmp_path / "relay")]
    assert _main.main(arguments, {}) == 2
    assert "is not the resource id of an Arc machine" in capfd.readouterr().err


# --- as a process ----------------------------------------------------------------------------------------------------


def test_bytes_pass_both_ways(helper: Helper, relay: Relay) -> None:
    data = os.urandom(1_000_000)
    double = relay(echo)
    process = helper.start(port=double.port)
    assert process.stdin is not None
    assert process.stdout is not None
    received = b""
    for start in range(0, len(data), 50_000):
        process.stdin.write(data[start : start + 50_000])
        process.stdin.flush()
        while len(received) < start + 50_000:
            received += os.read(process.stdout.fileno(), 65536)
    assert received == data
    out, said = process.communicate(timeout=10)
    assert (process.returncode, out, said) == (0, b"", b"")


def test_the_relay_ends_it(helper: Helper, relay: Relay) -> None:
    def script(peer: Peer) -> None:
        peer.accept(frame(2, b"bye") + close_frame(1000))
        peer.read_frame()

    process = helper.start(port=relay(script).port)
    assert process.stdout is not None
    assert process.stdout.read() == b"bye"
    assert process.wait(10) == 0


def test_credentials_that_expire_under_way_are_named(helper: Helper, relay: Relay) -> None:
    double = relay(lambda peer: peer.accept(close_frame(1008, b"token expired")))
    process = helper.start(port=double.port)
    assert process.wait(10) == 255
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert said.startswith(
        "arcfleet.ssh: web01: the relay credentials expired (close code 1008, token expired). Connect again"
    )


def test_a_missing_sshd_is_one_sentence(helper: Helper, relay: Relay) -> None:
    double = relay(
        lambda peer: peer.refuse(503, "connection to localhost:22 failed: dial tcp 127.0.0.1:22: connection refused")
    )
    status, out, said = helper.run(port=double.port)
    assert (status, out) == (255, b"")
    assert said.startswith(
        "arcfleet.ssh: web01: nothing listens on port 22 of the machine (the relay answers: 503 connection"
    )
    assert said.endswith(
        "Start sshd there, or set the service configuration to sshd's port (arcfleet.ssh.arc_ssh_service_config).\n"
    )


def test_patience_has_an_end(helper: Helper, relay: Relay) -> None:
    double = relay(lambda peer: peer.refuse(404, "There are no listeners connected for the endpoint."))
    status, _dummy, said = helper.run("--timeout", "0.5", port=double.port)
    assert status == 255
    assert "web01: the machine's agent is not connected to the relay" in said


def test_details_on_request(helper: Helper, relay: Relay) -> None:
    double = relay(echo)
    status, out, said = helper.run("--verbose", port=double.port, data=b"x")
    assert (status, out) == (0, b"x")
    assert "web01: connected through 127.0.0.1:" in said


def test_ssh_that_stops_reading_is_no_failure(helper: Helper, relay: Relay) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        while True:
            peer.send(frame(2, bytes(60000)))

    process = helper.start(port=relay(script).port)
    assert process.stdout is not None
    assert process.stdout.read(1000) == bytes(1000)
    process.stdout.close()
    process.stdout = None
    assert process.wait(10) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_close_in_good_order(helper: Helper, relay: Relay, number: signal.Signals) -> None:
    closed: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        peer.accept(frame(2, b"ready"))
        closed.append(peer.read_frame())
        peer.send(close_frame(1000))

    process = helper.start(port=relay(script).port)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    process.send_signal(number)
    assert process.wait(10) == 0
    assert closed == [(8, b"\x03\xe8")]
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_ctrl_c_does_not_end_a_connection_that_others_share(helper: Helper, relay: Relay) -> None:
    process = helper.start(port=relay(echo).port)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"1")
    process.stdin.flush()
    assert process.stdout.read(1) == b"1"
    process.send_signal(signal.SIGINT)
    process.stdin.write(b"2")
    process.stdin.flush()
    assert process.stdout.read(1) == b"2"


def test_ctrl_c_before_the_connection_ends_it_quietly(helper: Helper) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        process = helper.start(port=mute.getsockname()[1])
        mute.settimeout(10)
        connection, _dummy = mute.accept()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 255
        connection.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_a_refused_cache_directory_is_one_sentence(helper: Helper) -> None:
    helper.cache.mkdir(mode=0o755)
    status, _dummy, said = helper.run()
    assert status == 255
    assert said.count("\n") == 1
    assert "is open to others (mode 0755" in said


def test_no_identity_is_one_sentence(helper: Helper) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_SECRET"):
        del helper.environment[name]
    helper.environment["PATH"] = "/nonexistent"
    status, _dummy, said = helper.run()
    assert status == 255
    assert said.count("\n") == 1
    assert "No Azure identity was found" in said


def test_a_cloud_that_is_not_there_is_one_sentence(helper: Helper) -> None:
    status, _dummy, said = helper.run("--cloud-environment", "nowhere")
    assert status == 255
    assert said.count("\n") == 1
    assert "cloud_environment 'nowhere' is neither" in said


def test_the_unexpected_is_one_sentence_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def explode(*_dummy: object) -> int:
        raise RuntimeError("SharedAccessSignature sr=x&sig=HUSH went wrong")

    monkeypatch.setattr(_main, "run", explode)
    arguments = ["--resource-id", MACHINE, "--port", "22"]
    assert _main.main(arguments, {}) == 255
    said = capfd.readouterr().err
    assert said.startswith("arcfleet.ssh: unexpected RuntimeError: *** went wrong.")
    assert said.count("\n") == 1
    assert _main.main([*arguments, "--verbose"], {}) == 255
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "HUSH" not in said


def test_in_a_checkout_the_folder_starts_the_helper_too() -> None:
    done = subprocess.run([sys.executable, str(HELPER.parent), "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{_main.usage()}\n")


# --- the start -------------------------------------------------------------------------------------------------------


def test_a_warm_start_imports_no_ballast(tmp_path: pathlib.Path, authority: Authority, relay: Relay) -> None:
    cache = tmp_path / "relay"
    prefill(cache, make_credentials(relay(echo).port))
    # -S: without what the site's own start-up files import.
    command = [sys.executable, "-S", "-X", "importtime", str(HELPER), "--resource-id", MACHINE, "--port", "22"]
    environment = {"SSL_CERT_FILE": str(authority.file), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*command, "--cache-dir", str(cache)],
        env=environment,
        input=b"hello",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"hello")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "arcfleet_ssh._relay._pump" in loaded
    ballast = {
        "argparse",
        "asyncio",
        "azure",
        "dataclasses",
        "encodings.idna",
        "http.client",
        "inspect",
        "msal",
        "requests",
        "subprocess",
        "typing",
        "urllib.parse",
        "websockets",
        "arcfleet_ssh._arm",
        "arcfleet_ssh._auth",
        "arcfleet_ssh._errors",
        "arcfleet_ssh._ids",
    }
    assert loaded & ballast == set()


def test_a_start_with_a_login_that_rests_imports_nothing_of_azure(helper: Helper, relay: Relay) -> None:
    def both(peer: Peer) -> None:
        if peer.head.startswith(b"GET "):
            echo(peer)
            return
        peer.read_body()
        peer.answer(200, json.dumps({"relay": make_credentials(double.port).relay()}).encode())

    double = relay(both)
    options = AuthOptions.from_params({}, helper.environment)
    kept = Kept("T0KEN", int(time.time()) + 3600, ["x"], f"https://127.0.0.1:{double.port}")
    Resting(options, Cache(str(helper.cache))).keep(kept)
    helper.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    status, out, said = helper.run("--verbose", data=b"hello")
    assert (status, out) == (0, b"hello")
    assert [peer.head.split()[0] for peer in double.requests] == [b"POST", b"GET"]
    loaded = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert "arcfleet_ssh._relay._shortcut" in loaded
    ballast = {"azure.core", "azure.identity", "azure.mgmt.core", "email", "http.client", "logging", "msal", "requests"}
    assert loaded & ballast == set()


def test_the_helper_stays_small(helper: Helper, relay: Relay) -> None:
    data = os.urandom(1 << 16)
    process = helper.start(port=relay(echo).port)
    assert process.stdin is not None
    assert process.stdout is not None
    for _dummy in range(40):
        process.stdin.write(data)
        process.stdin.flush()
        assert process.stdout.read(len(data)) == data
    status = pathlib.Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("the memory of another process can be read on Linux only")
    resident = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert resident < 25 * 1024


# --- Microsoft's proxy -----------------------------------------------------------------------------------------------


def _stand_in(tmp_path: pathlib.Path) -> pathlib.Path:
    """A program that tells how it was called."""
    binary = tmp_path / "sshProxy_linux_amd64_1_3_026973"
    binary.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "print(sys.argv[1:], os.environ['SSHPROXY_RELAY_INFO'], sys.stdin.read())\n"
    )
    binary.chmod(0o755)
    return binary


def test_the_proxy_binary_takes_over(helper: Helper, tmp_path: pathlib.Path) -> None:
    credentials = make_credentials(443)
    prefill(helper.cache, credentials)
    status, out, said = helper.run("--proxy-binary", str(_stand_in(tmp_path)), data=b"SSH-2.0")
    assert (status, said) == (0, "")
    arguments, _dummy, rest = out.decode().partition("] ")
    blob, _dummy, received = rest.partition(" ")
    assert arguments == "['-p', '22'"
    assert received.strip() == "SSH-2.0"
    assert json.loads(base64.b64decode(blob)) == {"relay": credentials.relay()}


def test_a_proxy_binary_that_is_pinned_runs_from_its_copy(helper: Helper, tmp_path: pathlib.Path) -> None:
    prefill(helper.cache, make_credentials(443))
    binary = _stand_in(tmp_path)
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    pinned = ("--proxy-binary", str(binary), "--proxy-digest")
    status, out, said = helper.run(*pinned, f"sha256:{digest}", data=b"SSH-2.0")
    assert (status, said) == (0, "")
    assert out.startswith(b"['-p', '22'] ")
    assert (helper.cache / f"proxy-{digest}").exists()
    status, out, said = helper.run(*pinned, f"sha256:{'0' * 64}", data=b"SSH-2.0")
    assert (status, out) == (255, b"")
    assert f"web01: {binary} is not run: its digest is sha256:{digest}" in said


def test_credentials_for_the_proxy_binary_last(helper: Helper, tmp_path: pathlib.Path) -> None:
    # Half an hour old: good for our own helper, which can renew them, but not for a program that cannot.
    prefill(helper.cache, make_credentials(443, now=time.time() - 1800))
    helper.environment["AZURE_CLOUD_ENVIRONMENT"] = "AzureCloud"
    del helper.environment["AZURE_TENANT"]
    status, _dummy, said = helper.run("--proxy-binary", str(_stand_in(tmp_path)), "--auth-source", "env")
    assert status == 255
    assert "lacks tenant" in said


@pytest.mark.parametrize("name", ["missing", "plain"])
def test_a_proxy_binary_that_cannot_run_is_named(helper: Helper, tmp_path: pathlib.Path, name: str) -> None:
    prefill(helper.cache, make_credentials(443))
    (tmp_path / "plain").touch(0o644)
    status, _dummy, said = helper.run("--proxy-binary", str(tmp_path / name))
    assert status == 255
    assert f"{tmp_path / name} cannot be run" in said
