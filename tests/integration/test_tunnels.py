# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do programs reach what is behind a machine, for as long as somebody wants, and does nothing stay afterwards?"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from arclab.client import Lab
from on_lab import HELPER, ansible, descendants, environment, module

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

COMMAND = HELPER.parents[1] / "_tunnel" / "_start.py"
ADMIN_CENTER = 6516
REFUSED = "open failed: connect failed: Connection refused"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two machines, the configuration that reaches them, and what listens behind them."""
    lab = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=2, listener_lag=0)
    with tempfile.TemporaryDirectory() as folder:
        yield Site(lab, pathlib.Path(folder))
    lab.down()


class Site:
    def __init__(self, lab: Lab, folder: pathlib.Path) -> None:
        self.lab = lab
        self.folder = folder
        self.machine, self.other = lab.machines()
        for service in ("SSH", "WAC"):
            done = module(
                lab,
                "arc_ssh_service_config",
                machines=[machine["id"] for machine in lab.machines()],
                service_name=service,
            )
            assert not done.get("failed"), done
        self.config = folder / "config"
        done = module(
            lab,
            "arc_ssh_config",
            machines=[
                {"id": machine["id"], "ssh_args": self.arguments(machine), "user": lab.env["ARCLAB_USER"]}
                for machine in lab.machines()
            ],
            path=str(self.config),
            include=False,
        )
        assert not done.get("failed"), done

    def arguments(self, machine: dict[str, Any]) -> str:
        helper = shlex.join([sys.executable, str(HELPER), "--resource-id", machine["id"]])
        settings = {
            "ProxyCommand": f"{helper} --port %p --once",
            "UserKnownHostsFile": self.lab.env["ARCLAB_KNOWN_HOSTS"],
            "StrictHostKeyChecking": "yes",
            "IdentityFile": self.lab.env["ARCLAB_KEY"],
            "IdentitiesOnly": "yes",
        }
        return " ".join(f"-o {shlex.quote(f'{name}={value}')}" for name, value in settings.items())

    def start(self, *arguments: str, config: pathlib.Path | None = None, **env: str) -> Running:
        command, *rest = arguments
        return Running(
            subprocess.Popen(
                [sys.executable, str(COMMAND), command, "-F", str(config or self.config), *rest],
                env=environment(self.lab, TMPDIR=str(self.folder), XDG_RUNTIME_DIR="", **env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )

    def left(self) -> list[str]:
        """Directories of tunnels."""
        return [path.name for path in self.folder.glob("arcfleet-*")]


class Running:
    """The command at work: what it says is read all the time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: queue.Queue[str] = queue.Queue()
        self.said = ""
        self._readers = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for read, stream in ((self._read, process.stdout), (self._note, process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            self.lines.put(line.rstrip("\n"))

    def _note(self, stream: Any) -> None:
        for line in stream:
            self.said += line

    def line(self) -> str:
        try:
            return self.lines.get(timeout=60)
        except queue.Empty:
            raise AssertionError(self.said) from None

    def port(self) -> int:
        """The port in the next line."""
        return int(self.line().split()[0].rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop; its exit status. No process stays."""
        below = descendants(self.process.pid)
        self.process.send_signal(number)
        status = self.outcome()
        assert soon(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in below))
        return status

    def outcome(self) -> int:
        status = self.process.wait(60)
        for reader in self._readers:
            reader.join(60)
        assert "Traceback" not in self.said
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.end()


def soon(happens: Callable[[], bool]) -> bool:
    """Whether it happens within half a minute."""
    deadline = time.monotonic() + 30
    while not (happened := happens()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened


# --- what listens behind the machines


@contextlib.contextmanager
def behind(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a port of its own, each connection in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def everything(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def turn_around(connection: socket.socket) -> None:
    """Take all to the end before the first byte goes back: without half-closes nothing would come."""
    connection.sendall(everything(connection)[::-1])


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def asked(family: int, place: Any, data: bytes) -> bytes:
    """What is answered to `data`, sent to the end."""
    with socket.socket(family) as connection:
        connection.settimeout(60)
        connection.connect(place)
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        answer = everything(connection)
        sender.join()
    return answer


# --- tunnels


def test_several_forwards_carry_bytes_exactly_and_leave_nothing(site: Site) -> None:
    path = site.folder / "db.sock"
    with behind(turn_around) as one, behind(echo) as other:
        forwards = (
            "-L",
            f"0:localhost:{one}",
            "-L",
            f"[::1]:0:127.0.0.1:{other}",
            "-L",
            f"{path}:localhost:{one}",
            "-L",
            "0:localhost:1",
        )
        with site.start("tunnel", site.machine["name"], *forwards) as running:
            name = site.machine["name"]
            lines = [running.line() for _forward in range(3)]
            first, second = (int(line.split()[0].rpartition(":")[2]) for line in lines[:2])
            assert lines == [
                f"127.0.0.1:{first} -> localhost:{one} by {name}",
                f"[::1]:{second} -> 127.0.0.1:{other} by {name}",
                f"{path} -> localhost:{one} by {name}",
            ]
            nowhere = running.port()
            assert path.stat().st_mode & 0o777 == 0o600
            data = os.urandom(1_000_000)
            assert asked(socket.AF_INET, ("127.0.0.1", first), data) == data[::-1]
            assert asked(socket.AF_INET6, ("::1", second), data) == data
            assert asked(socket.AF_UNIX, str(path), b"\x00\xff\r\n~.\n") == b"\n.~\n\r\xff\x00"
            # Where nothing listens behind the machine, the connection ends, and the tunnel stays.
            with contextlib.suppress(ConnectionResetError):
                assert asked(socket.AF_INET, ("127.0.0.1", nowhere), b"") == b""
            assert asked(socket.AF_INET, ("127.0.0.1", first), b"ab") == b"ba"
            assert site.left()
            assert running.end(signal.SIGINT) == 0
        assert [line.split(": ", 1)[1] for line in running.said.splitlines()] == [REFUSED]
    assert not path.exists()
    assert site.left() == []


def test_a_lost_relay_breaks_what_goes_on_and_the_port_works_again(site: Site) -> None:
    with behind(echo) as target, site.start("tunnel", site.machine["name"], "-L", f"0:localhost:{target}") as running:
        place = ("127.0.0.1", running.port())
        with socket.create_connection(place, 60) as connection:
            connection.sendall(b"half a sen")
            assert connection.recv(100) == b"half a sen"
            site.lab.machine(site.machine["name"], "drop")
            # Not the end of the data: the rest is missing.
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
        assert asked(socket.AF_INET, place, b"again") == b"again"
        assert soon(lambda: "connected again" in running.said)
        # Even killed it leaves no process, only a directory.
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
    for name in site.left():
        shutil.rmtree(site.folder / name)


def test_a_refusal_ends_it_and_a_wait_can_be_ended(site: Site) -> None:
    name, other = site.machine["name"], site.other["name"]
    with site.start("tunnel", f"nobody@{name}", "-L", "0:localhost:1") as running:
        assert running.outcome() == 1
        assert "Permission denied" in running.said
        assert f"{name}: there is no tunnel, it does not let you log in." in running.said
    # ssh and the relay helper, which is still waiting for the machine, go as well.
    site.lab.machine(other, "stop")
    with site.start("tunnel", site.other["id"], "-L", "0:localhost:1") as running:
        assert soon(lambda: f"{other}: " in running.said)
        assert len(descendants(running.process.pid)) == 2
        assert running.end() == 0
    assert site.left() == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with site.start("tunnel", name, "-L", f"{port}:localhost:1") as running:
            assert running.outcome() == 2
            assert f"127.0.0.1:{port} is taken by another program." in running.said


def test_a_resource_id_is_enough(site: Site) -> None:
    # ssh asks nobody for the way: there is nothing of Azure in its configuration.
    config = site.folder / "plain"
    known, key = site.lab.env["ARCLAB_KNOWN_HOSTS"], site.lab.env["ARCLAB_KEY"]
    config.write_text(f"UserKnownHostsFile {known}\nStrictHostKeyChecking yes\nIdentityFile {key}\n", encoding="utf-8")
    user = site.lab.env["ARCLAB_USER"]
    with (
        behind(echo) as target,
        site.start(
            "tunnel", site.machine["id"], "--user", user, "-L", f"0:localhost:{target}", config=config
        ) as running,
    ):
        assert asked(socket.AF_INET, ("127.0.0.1", running.port()), b"by id") == b"by id"


def test_windows_admin_center_needs_no_ssh(site: Site) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1_000_000) * 3)

    name = site.machine["name"]
    with behind(greet) as target:
        site.lab.listener(name, ADMIN_CENTER, target)
        with site.start("tunnel", name, "--service", "WAC", "--local-port", "0") as running:
            line = running.line()
            port = int(line.split()[0].rpartition(":")[2])
            assert line == f"https://localhost:{port} is Windows Admin Center of {name}"
            answers = []
            for word in (b"one", b"two"):
                with socket.create_connection(("127.0.0.1", port), 60) as connection:
                    connection.sendall(word)
                    answers.append(everything(connection))
            assert answers == [b"oneoneone", b"twotwotwo"]
            assert running.end() == 0
        assert running.said == ""
    with site.start(
        "tunnel", site.machine["name"], "--service", "WAC", "--port", "6517", "--local-port", "0"
    ) as running:
        assert running.outcome() == 1
        assert f"{name}: there is no tunnel." in running.said


# --- desktops


def test_a_desktop_lasts_as_long_as_freerdp(site: Site) -> None:
    programs = site.folder / "programs"
    programs.mkdir()
    stand_in = programs / "xfreerdp3"
    noted = site.folder / "noted"
    stand_in.write_text(
        f"#!{sys.executable}\nimport json, socket, sys\n"
        "connection = socket.create_connection(sys.argv[1][3:].rsplit(':', 1), 60)\nconnection.sendall(b'desktop')\n"
        f"open({str(noted)!r}, 'w').write(json.dumps((sys.argv[1:], connection.recv(100).decode())))\nraise SystemExit(3)\n",
        encoding="utf-8",
    )
    stand_in.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    with behind(echo) as target:
        desktop = ("rdp", site.machine["name"], "--user", "CONTOSO\\ada", "--port", str(target))
        with site.start(*desktop, "--", "/f", PATH=path) as running:
            assert running.outcome() == 3
        (address, *rest), answer = json.loads(noted.read_text(encoding="utf-8"))
        assert address.startswith("/v:127.0.0.1:")
        assert (rest, answer) == (["/u:CONTOSO\\ada", "/f"], "desktop")
        file = site.folder / "desktop.rdp"
        with site.start(*desktop, "--file", str(file), PATH=path) as running:
            port = running.port()
            assert str(file) in running.line()
            assert file.stat().st_mode & 0o777 == 0o600
            assert f"full address:s:127.0.0.1:{port}\r\n" in file.read_bytes().decode("utf-16")
            assert asked(socket.AF_INET, ("127.0.0.1", port), b"windows") == b"windows"
    assert site.left() == []


# --- the command


def test_the_role_writes_the_command_and_takes_no_other_file(site: Site) -> None:
    command = site.folder / "bin" / "arcfleet"
    foreign = site.folder / "foreign"
    foreign.write_text("#!/bin/sh\n", encoding="utf-8")
    play = site.folder / "play.yml"

    def run(*steps: tuple[pathlib.Path, str], rc: int = 0) -> str:
        roles = [
            {
                "ansible.builtin.include_role": {"name": "arcfleet.ssh.arc_connection", "tasks_from": "command"},
                "vars": {"arc_connection_command": str(path), "arc_connection_state": state},
            }
            for path, state in steps
        ]
        play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": roles}]), encoding="utf-8")
        return ansible(site.lab, "ansible-playbook", str(play), rc=rc).stdout

    # The directory and the command; not a second time.
    assert "changed=2" in run((command, "present"), (command, "present"), (foreign, "absent"))
    assert command.stat().st_mode & 0o777 == 0o755
    assert foreign.exists()
    told = subprocess.run([command, "rdp", "--help"], capture_output=True, text=True, check=True)
    assert "usage: arcfleet rdp" in told.stdout
    assert "changed=1" in run((command, "absent"), (foreign, "present"), rc=2)
    assert not command.exists()
    assert foreign.read_text(encoding="utf-8") == "#!/bin/sh\n"
