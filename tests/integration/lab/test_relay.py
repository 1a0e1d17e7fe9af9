# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lab's relay treat a sender as Azure's does, with a real sshd behind it?

The sender is the `websockets` package, which knows nothing of this project; the expectations are the wire protocol's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import hashlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType
from relay_app import MACHINE_ID, RelayApp, forward, local_server, make_machine, relay_app
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from arclab import sas
from arclab.sshd import end_leftovers, openssh_private, openssh_public, write_private

REFUSED = "connection to localhost:{port} failed: dial tcp 127.0.0.1:{port}: connect: connection refused"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def ssh(app: RelayApp, port: int, *command: str, machine_id: str = MACHINE_ID) -> tuple[int | None, str, str]:
    """Run a command through a real ssh client that trusts this machine's host key and no other."""
    known_hosts = app.agents.client_key.parent / "known_hosts"
    known_hosts.write_text(f"machine {app.agents.host_key_public(machine_id)}\n")
    options = {
        "UserKnownHostsFile": known_hosts,
        "HostKeyAlias": "machine",
        "StrictHostKeyChecking": "yes",
        "IdentityFile": app.agents.client_key,
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
    }
    arguments = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    process = await asyncio.create_subprocess_exec(
        "ssh", "-F", "none", *arguments, "-p", str(port), "-l", app.agents.user, "127.0.0.1", *command,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def banner(sender: ClientConnection) -> None:
    """The first message is what sshd says first."""
    message = await sender.recv()
    assert isinstance(message, bytes)
    assert message.startswith(b"SSH-2.0-")


async def closed(sender: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end; the close code and reason that the relay gave."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await sender.recv()
    return sender.close_code, sender.close_reason


@pytest.mark.parametrize("tls", [False, True])
def test_ssh_reaches_the_machine_and_only_the_right_one(tmp_path: Path, tls: bool) -> None:
    other = make_machine(MACHINE_ID.replace("web01", "web02"), sshd_port=2222)

    async def scenario() -> None:
        async with relay_app(tmp_path, make_machine(), other, tls=tls) as app:
            for machine, port in ((app.machines[MACHINE_ID], 22), (other, 2222)):
                connection = app.relay.mint(machine.id, time.time())
                async with forward(app, connection, port) as local:
                    command = "echo $ARCLAB_MACHINE $ARCLAB_RESOURCE_ID"
                    code, out, err = await ssh(app, local, command, machine_id=machine.id)
                assert (code, out) == (0, f"{machine.name} {machine.id}\n"), err
            assert app.journal[0] == {
                "kind": "relay",
                "path": app.journal[0]["connection"],
                "action": "connect",
                "connection": app.journal[0]["connection"],
                "machine_id": MACHINE_ID,
                "status": 101,
                "text": "",
                "target": "localhost:22",
            }

    run(scenario())


def test_the_name_and_the_credentials_have_azures_shape(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            older = app.relay.mint(MACHINE_ID.upper(), 1_745_492_868.0)
            connection = app.relay.mint(MACHINE_ID, 1_745_492_900.0)
            assert list(app.relay.connections) == [connection.name]
            assert older.machine_id == MACHINE_ID
            parts = connection.name.split("/")
            assert parts[:2] + parts[4:] == ["microsoft.hybridcompute", "machines", "v2"]
            assert (len(parts[2]), parts[3]) == (64, "1745492900000000000")
            assert type(connection).from_json(connection.to_json()) == connection
            credentials = app.credentials(connection)
            assert f"{credentials['namespaceName']}.{credentials['namespaceNameSuffix']}" == app.authority
            assert set(credentials) == {
                "namespaceName",
                "namespaceNameSuffix",
                "hybridConnectionName",
                "accessKey",
                "expiresOn",
                "serviceConfigurationToken",
            }
            without = app.relay.credentials(
                connection, service_name=None, port=None, expires_on=1_900_000_000, authority=app.authority
            )
            assert set(credentials) - set(without) == {"serviceConfigurationToken"}

    run(scenario())


def test_bad_tokens_get_401_or_403_and_leave_no_secret_in_the_journal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            good = app.headers(app.credentials(connection))
            expired = app.credentials(connection, expires_in=-1)
            elsewhere = sas.sign(f"http://{app.authority}/other", "sender", connection.key, int(time.time()) + 60)
            forged = sas.sign(f"http://{app.authority}/{connection.name}", "sender", "k", int(time.time()) + 60)
            cases: list[tuple[dict[str, str], int, str]] = [
                ({"ServiceBusAuthorization": ""}, 401, "MissingToken"),
                ({"ServiceBusAuthorization": "Bearer x"}, 401, "MalformedToken"),
                ({"ServiceBusAuthorization": expired["accessKey"]}, 403, "ExpiredToken"),
                ({"ServiceBusAuthorization": elsewhere}, 403, "InvalidAudience"),
                ({"ServiceBusAuthorization": forged}, 403, "InvalidSignature"),
                ({"Service-Configuration-Token": ""}, 401, "Service configuration token is missing."),
                ({"Service-Configuration-Token": "x.y.z"}, 401, "Service configuration token is malformed."),
                (
                    {"Service-Configuration-Token": expired["serviceConfigurationToken"]},
                    403,
                    "Service configuration token is expired.",
                ),
                ({"Microsoft-Guestgateway-Target": ""}, 400, "Microsoft-Guestgateway-Target is missing."),
                ({"Microsoft-Guestgateway-Target": "10.0.0.1:22"}, 403, "Microsoft-Guestgateway-Target has to be"),
                ({"Microsoft-Guestgateway-Target": "localhost:3389"}, 403, "Port 3389 is not allowed"),
            ]
            for changed, expected, text in cases:
                status, reason, body = await app.refusal(app.url(connection.name), {**good, **changed})
                assert (status, reason) == (expected, body)
                assert reason.startswith(text)
            written = repr(app.journal)
            assert [entry["status"] for entry in app.journal] == [case[1] for case in cases]
            assert "sig=" not in written
            assert good["Service-Configuration-Token"] not in written

    run(scenario())


def test_a_service_token_of_another_machine_is_refused(tmp_path: Path) -> None:
    other = make_machine(MACHINE_ID.replace("web01", "web02"))

    async def scenario() -> None:
        async with relay_app(tmp_path, make_machine(), other) as app:
            mine, theirs = (app.relay.mint(machine.id, time.time()) for machine in app.machines.values())
            headers = app.headers(app.credentials(mine))
            headers["Service-Configuration-Token"] = app.credentials(theirs)["serviceConfigurationToken"]
            status, reason, _body = await app.refusal(app.url(mine.name), headers)
            assert (status, reason) == (403, "Service configuration token is for another resource.")

    run(scenario())


def test_requests_that_are_no_upgrade_or_lack_parameters_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            headers = app.headers(app.credentials(connection))
            for query in ({"sb-hc-action": ""}, {"sb-hc-action": "dance"}):
                status, _reason, _body = await app.refusal(app.url(connection.name, **query), headers)
                assert status == 400

            def plain(method: str) -> Any:
                url = app.url(connection.name).replace("ws", "http", 1)
                try:
                    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                        urllib.request.Request(url, headers=headers, method=method)
                    )
                except urllib.error.HTTPError as refused:
                    return refused
                raise AssertionError("the relay answered a plain request")

            for method in ("GET", "HEAD"):
                answer = await asyncio.to_thread(plain, method)
                assert (answer.code, answer.headers["Upgrade"]) == (426, "websocket")
                answer.close()

    run(scenario())


def test_a_new_connection_is_unknown_then_without_listener_then_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path, listener_lag=1.0) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            headers = app.headers(app.credentials(connection))
            first = await app.refusal(app.url(connection.name, **{"sb-hc-id": "abc"}), headers)
            assert first[0] == 404
            assert first[1] == first[2]
            assert first[1].startswith("Endpoint does not exist. TrackingId:abc_G")
            assert f", SystemTracker:sb://{app.authority}/{connection.name}, Timestamp:" in first[1]
            connection.created_at -= 0.7
            second = await app.refusal(app.url(connection.name), headers)
            assert second[0] == 404
            assert second[1].startswith("There are no listeners connected for the endpoint. TrackingId:")
            connection.created_at -= 0.7
            async with await app.dial(connection) as sender:
                await banner(sender)

    run(scenario())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"agent_version": "1.30.02300.1234"}, "Endpoint does not exist."),
        ({"running": False}, "There are no listeners connected for the endpoint."),
        ({"incoming_enabled": False}, "There are no listeners connected for the endpoint."),
        ({"config_mode": "monitor"}, "There are no listeners connected for the endpoint."),
    ],
)
def test_agents_that_do_not_listen_are_404(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path, make_machine(**changes)) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            headers = app.headers(app.credentials(connection))
            status, reason, _body = await app.refusal(app.url(connection.name), headers)
            assert (status, reason.partition(" TrackingId")[0]) == (404, text)

    run(scenario())


def test_unknown_names_and_suffixes_of_machine_names_are_404(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            headers = app.headers(app.credentials(connection))
            for name in (f"{connection.name}/more", connection.name.replace("/v2", ""), "nothing"):
                status, reason, _body = await app.refusal(app.url(name), headers)
                assert (status, reason.partition(" TrackingId")[0]) == (404, "Endpoint does not exist.")
            async with connect(
                app.url(quote(connection.name, safe="")), additional_headers=headers, proxy=None
            ) as encoded:
                await banner(encoded)

    run(scenario())


def test_the_token_may_travel_in_the_query_as_documented(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            headers = app.headers(app.credentials(connection))
            token = quote(headers.pop("ServiceBusAuthorization"), safe="")
            url = app.url(connection.name, **{"sb-hc-token": token})
            async with connect(url, additional_headers=headers, proxy=None) as sender:
                await banner(sender)
                assert sender.response is not None
                assert "Sec-WebSocket-Extensions" not in sender.response.headers
            assert "sig" not in repr(app.journal)

    run(scenario())


def test_sshd_that_does_not_listen_is_503_with_the_agents_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            machine = app.machines[MACHINE_ID]
            connection = app.relay.mint(MACHINE_ID, time.time())
            live = await app.dial(connection)
            await banner(live)
            machine.sshd_running = False
            await app.agents.stop_sshd(machine)
            for port in (22, 2222):
                headers = app.headers(app.credentials(connection, port), port)
                status, reason, body = await app.refusal(app.url(connection.name), headers)
                assert (status, reason, body) == (503, REFUSED.format(port=port), REFUSED.format(port=port))
            machine.sshd_running = True
            async with await app.dial(connection) as sender:
                await banner(sender)
            await live.close()

    run(scenario())


def test_stopping_the_agent_cuts_what_runs_and_starting_it_brings_it_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            machine = app.machines[MACHINE_ID]
            connection = app.relay.mint(MACHINE_ID, time.time())
            async with await app.dial(connection) as sender:
                await sender.recv()
                machine.running = False
                await app.agents.stop_machine(machine)
                assert (await closed(sender))[0] == 1011
            assert app.agents.real_port(MACHINE_ID) is None
            machine.running = True
            app.relay.options = dataclasses.replace(app.relay.options, listener_lag=60.0)
            connection.created_at -= 60
            await app.agents.start_machine(machine)
            headers = app.headers(app.credentials(connection))
            assert (await app.refusal(app.url(connection.name), headers))[1].startswith("There are no listeners")
            app.relay.options = dataclasses.replace(app.relay.options, listener_lag=0.0)
            async with await app.dial(connection) as sender:
                await banner(sender)

    run(scenario())


@pytest.mark.parametrize("code", [1001, 1008, 1011, None])
def test_live_connections_can_be_dropped(tmp_path: Path, code: int | None) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            sender = await app.dial(connection)
            await sender.recv()
            assert app.relay.drop_streams(MACHINE_ID, code) == 1
            assert (await closed(sender))[0] == (code or 1006)
            assert app.relay.drop_streams(MACHINE_ID) == 0

    run(scenario())


def test_a_dropped_connection_is_unknown_and_its_streams_live_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            async with await app.dial(connection) as sender:
                await sender.recv()
                app.relay.drop(connection.name)
                await sender.send(b"SSH-2.0-test\r\n")
                assert await sender.recv()
            headers = app.headers(app.credentials(connection))
            assert (await app.refusal(app.url(connection.name), headers))[1].startswith("Endpoint does not exist.")

    run(scenario())


def test_silence_ends_a_connection_and_pings_keep_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path, idle_timeout=0.4) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            silent = await app.dial(connection, ping_interval=None)
            pinging = await app.dial(connection, ping_interval=None)
            await silent.recv()
            for _round in range(8):
                await asyncio.sleep(0.1)
                await asyncio.wait_for(await pinging.ping(), 1)
            assert (await closed(silent))[0] == 1011
            await banner(pinging)
            await pinging.close()

    run(scenario())


def test_text_messages_and_fragments_are_bytes_too(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def scenario() -> None:
        async with relay_app(tmp_path) as app, local_server(echo) as real_port:
            app.agents.add_listener(MACHINE_ID, 6516, real_port)
            connection = app.relay.mint(MACHINE_ID, time.time())
            async with await app.dial(connection, 6516) as sender:
                for sent in ("text \u00e9", b"bytes", [b"frag", b"ment"]):
                    await sender.send(sent)
                received = b""
                while len(received) < 20:
                    message = await sender.recv()
                    assert isinstance(message, bytes)
                    received += message
                assert received == "text \u00e9bytesfragment".encode()

    run(scenario())


def test_what_was_queued_before_a_close_arrives_both_ways(tmp_path: Path) -> None:
    payload = os.urandom(8 << 20)
    arrived: asyncio.Future[str]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        writer.write_eof()
        await asyncio.sleep(0.2)
        writer.close()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        arrived.set_result(hashlib.sha256(await reader.read()).hexdigest())
        writer.close()

    async def scenario() -> None:
        nonlocal arrived
        arrived = asyncio.get_running_loop().create_future()
        async with (
            relay_app(tmp_path, tls=True) as app,
            local_server(serve) as sending,
            local_server(collect) as collecting,
        ):
            app.agents.add_listener(MACHINE_ID, 1001, sending)
            app.agents.add_listener(MACHINE_ID, 1002, collecting)
            connection = app.relay.mint(MACHINE_ID, time.time())
            async with await app.dial(connection, 1001) as sender:
                received = b""
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        received += await sender.recv(decode=False)
                assert (received == payload, sender.close_code) == (True, 1000)
            async with await app.dial(connection, 1002) as sender:
                for start in range(0, len(payload), 32768):
                    await sender.send(payload[start : start + 32768])
            assert await arrived == hashlib.sha256(payload).hexdigest()

    run(scenario())


@pytest.mark.parametrize("profile", ["plain", "live"])
def test_a_side_that_does_not_read_stops_the_other(tmp_path: Path, profile: str) -> None:
    """The sender stalls: what is under way in the relay, the agent and the kernel stays below a bound."""
    stuck = asyncio.Event()

    async def ignore(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stuck.wait()
        writer.close()

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()

    async def scenario() -> None:
        async with (
            relay_app(tmp_path, profile=profile, seed=2) as app,
            local_server(ignore) as ignoring,
            local_server(flood) as flooding,
        ):
            app.agents.add_listener(MACHINE_ID, 1001, ignoring)
            app.agents.add_listener(MACHINE_ID, 1002, flooding)
            connection = app.relay.mint(MACHINE_ID, time.time())
            sender = await app.dial(connection, 1001)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64 << 20:
                    await asyncio.wait_for(sender.send(bytes(262144)), 1.0)
                    sent += 262144
            assert sent < 32 << 20
            if profile == "live":
                assert sent > 4 << 20
            sender.transport.abort()
            # The other way round: a sender that does not read leaves a bounded heap behind.
            idle = await app.dial(connection, 1002, max_queue=1)
            await asyncio.sleep(1.0)
            streams = [one for one in app.agents._streams[MACHINE_ID] if one._transport is not None]
            assert max(stream._size for stream in streams) < 4 << 20
            idle.transport.abort()
            stuck.set()

    run(scenario())


def test_profile_live_is_slow_now_and_then_and_always_the_same_for_a_seed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path, profile="live", seed=2) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            started = time.monotonic()
            async with await app.dial(connection) as sender:
                assert 0.4 <= time.monotonic() - started < 1.5
                await banner(sender)

    run(scenario())


def test_a_stalled_handshake_never_answers_and_ends_with_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path, profile="live") as app:
            monkeypatch.setattr(app.relay._random, "random", lambda: 0.0)
            connection = app.relay.mint(MACHINE_ID, time.time())
            with pytest.raises(TimeoutError):
                await app.dial(connection, open_timeout=0.5)
            assert [entry["status"] for entry in app.journal] == [0]
            await asyncio.sleep(0.5)
            assert not app.relay._handlers

    run(scenario())


def test_host_keys_survive_a_restart_and_differ_between_machines(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            first = app.agents.host_key_public(MACHINE_ID)
            connection = app.relay.mint(MACHINE_ID, time.time())
            async with await app.dial(connection) as sender:
                await sender.recv()
            assert app.agents.host_key_public(MACHINE_ID + "x") != first
        async with relay_app(tmp_path) as app:
            assert app.agents.host_key_public(MACHINE_ID) == first
            port = await app.agents.start_sshd(app.machines[MACHINE_ID])
            assert port == app.agents.real_port(MACHINE_ID)
            code, out, err = await ssh(app, port, "echo direct")
            assert (code, out) == (0, "direct\n"), err

    run(scenario())


def test_a_machine_accepts_certificates_of_the_authority_it_trusts(tmp_path: Path) -> None:
    """As after the Entra login extension; without the authority the very same certificate opens nothing."""
    authority, own = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    user = getpass.getuser()
    certificate = (
        SSHCertificateBuilder()
        .public_key(own.public_key())
        .type(SSHCertificateType.USER)
        .key_id(b"test")
        .valid_principals([user.encode()])
        .valid_after(int(time.time()) - 60)
        .valid_before(int(time.time()) + 600)
        .sign(authority)
    )
    key = tmp_path / "id_own"
    write_private(key, openssh_private(own))
    (tmp_path / "id_own-cert.pub").write_bytes(certificate.public_bytes())

    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            app.agents.client_key = key
            machine = app.machines[MACHINE_ID]
            (tmp_path / "known_hosts").write_text("")
            port = await app.agents.start_sshd(machine)
            for trusted, expected in ((None, 255), (openssh_public(authority), 0), (None, 255)):
                app.agents.trust_user_ca(machine, trusted)
                code, _out, err = await ssh(app, port, "true")
                assert code == expected, err

    run(scenario())


def test_ten_thousand_host_keys_take_seconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            started = time.process_time()
            keys = {app.agents.host_key_public(f"{MACHINE_ID}{number}") for number in range(10_000)}
            assert len(keys) == 10_000
            assert time.process_time() - started < 10
            assert list((tmp_path / "state" / "machines").iterdir()) == []

    run(scenario())


def test_files_are_private_and_nothing_runs_after_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            sender = await app.dial(connection)
            await sender.recv()
            [directory] = (tmp_path / "state" / "machines").iterdir()
            assert directory.stat().st_mode & 0o777 == 0o700
            for name in ("ssh_host_ed25519_key", "authorized_keys", "sshd_config"):
                assert (directory / name).stat().st_mode & 0o777 == 0o600
            pid = int((directory / "sshd.pid").read_text())
            os.kill(pid, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(scenario())


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from arclab.agent import Agents, Machine
machine = Machine(id="/m/a", name="a", agent_version="1.55")
async def main():
    agents = Agents(Path(sys.argv[1]), {machine.id: machine}.get, "nobody")
    await agents.start_sshd(machine)
    [pid_file] = Path(sys.argv[1]).glob("machines/*/sshd.pid")
    print(pid_file.read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    """A process whose parent does not collect it stays as a zombie, which runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("with_setpriv", [True, False])
def test_a_killed_lab_leaves_no_sshd_for_ever(tmp_path: Path, with_setpriv: bool) -> None:
    """sshd dies with the lab; where util-linux cannot arrange that, the next start ends it."""
    path = os.environ["PATH"] if with_setpriv else str(tmp_path / "empty")
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    if not with_setpriv:
        assert is_running(pid)
        end_leftovers(tmp_path / "machines")
    deadline = time.monotonic() + 3
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)
