# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests and benchmarks hold a lab in their hands?

`with Lab.up(state_dir, machines=3) as lab:` starts the daemon of the command line and ends it; the methods ask its
control API. Nothing here needs more than the standard library, but for `cli_login`, which needs MSAL.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from . import containers, images, podman
from .envfile import read_exports
from .journal import repeated_writes
from .options import Options
from .podman import MachinesFailed

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0


class LabFailed(Exception):
    """The lab did not do what it was asked for; the message says why."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket whose path may be longer than an address can be."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(60)
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def control(state_dir: Path, path: str, asked: dict[str, Any] | None = None) -> Any:
    """Ask the control API of the lab in `state_dir`; LabFailed if there is none or it refuses."""
    connection = _UnixConnection(state_dir / "control.sock")
    try:
        connection.request("POST", path, body=json.dumps(asked or {}), headers={"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as exc:
        raise LabFailed(f"No lab answers in {state_dir}: {exc}.") from exc
    finally:
        connection.close()
    if "error" in answer:
        raise LabFailed(answer["error"])
    return answer["result"]


def running_pid(state_dir: Path) -> int | None:
    """The pid of the daemon of a state directory, if it lives."""
    try:
        pid = int((state_dir / "lab.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"arclab" in command and os.fsencode(state_dir) in command else None


def start(state_dir: Path, options: Options) -> dict[str, Any]:
    """Start the daemon and wait until it answers; its status."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state_dir = state_dir.resolve()
    state_dir.chmod(0o700)
    if (pid := running_pid(state_dir)) is not None:
        raise LabFailed(
            f"A lab runs in {state_dir} already (pid {pid}); end it with `arclab down` or choose another --state-dir."
        )
    (state_dir / "control.sock").unlink(missing_ok=True)
    if options.backend == "podman":
        _prepare_machines(options)
    options.write(state_dir)
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    descriptor = os.open(state_dir / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "arclab", "serve", "--state-dir", str(state_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
    # Machines of their own take a while to boot; a machine that does not is given up by the lab itself.
    deadline = time.monotonic() + START_TIMEOUT + (0 if options.backend == "sshd" else containers.START_TIMEOUT)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LabFailed(
                f"The lab ended while it was starting; {state_dir / 'lab.log'} ends with:\n{_tail(state_dir)}"
            )
        with contextlib.suppress(LabFailed):
            status: dict[str, Any] = control(state_dir, "/status")
            return status
        time.sleep(0.05)
    process.terminate()
    raise LabFailed(f"The lab did not answer within {START_TIMEOUT:g} s; see {state_dir / 'lab.log'}.")


def _prepare_machines(options: Options) -> None:
    """What machines of their own need before a lab can have them; nothing is left of labs that were killed."""
    if (obstacle := podman.obstacle()) is not None:
        raise LabFailed(obstacle)
    try:
        given = json.loads(Path(options.fleet).read_text()) if options.fleet is not None else []
    except (OSError, ValueError) as exc:
        raise LabFailed(f"The fleet file {options.fleet} cannot be read: {exc}.") from exc
    suites = {one["suite"] for one in given if one.get("suite")}
    suites |= set(images.SUITES) if options.suite == "both" else {options.suite}
    try:
        containers.remove_orphans(lambda other: running_pid(other) is not None)
        images.ensure(suites)
    except MachinesFailed as exc:
        raise LabFailed(str(exc)) from exc


def _tail(state_dir: Path) -> str:
    return "\n".join((state_dir / "lab.log").read_text(errors="replace").splitlines()[-12:])


def stop(state_dir: Path, *, purge: bool = False) -> bool:
    """End the daemon and everything it started; `purge` removes the state too. Was one running?"""
    state_dir = state_dir.resolve()
    pid = running_pid(state_dir)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        while running_pid(state_dir) is not None and not _ended(pid):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.05)
    _remove_machines(state_dir)
    if purge:
        shutil.rmtree(state_dir, ignore_errors=True)
    return pid is not None


def _remove_machines(state_dir: Path) -> None:
    """The lab removes its machines itself, unless it was killed."""
    if (state_dir / "config.json").exists() and Options.read(state_dir).backend == "podman" and not podman.obstacle():
        try:
            containers.remove(containers.digest(state_dir))
        except MachinesFailed as exc:
            raise LabFailed(str(exc)) from exc


def _ended(pid: int) -> bool:
    """Is it gone, or a child of ours that nobody waited for yet?"""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


class Lab:
    """A running lab; `env` are the variables of its env.sh, `url` the address of its ARM."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.resolve()
        self.env = read_exports(self.state_dir / "env.sh")
        self.url = self.env["AZURE_CLOUD_ENVIRONMENT"]

    @classmethod
    def up(cls, state_dir: Path | str, **options: Any) -> Lab:
        """Start a lab; options are those of `Options`."""
        path = Path(state_dir)
        start(path, dataclasses.replace(Options(), **options))
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def down(self, *, purge: bool = False) -> None:
        stop(self.state_dir, purge=purge)

    def ask(self, what: str, /, **asked: Any) -> Any:
        """The control API itself."""
        return control(self.state_dir, what, asked)

    def status(self) -> dict[str, Any]:
        return dict(self.ask("/status"))

    def machines(self) -> list[dict[str, Any]]:
        """Every machine: id, name, resource_group, status, ports, host_key."""
        return list(self.ask("/machines"))

    def machine(self, name: str, action: str | None = None, **settings: Any) -> dict[str, Any]:
        """One machine by name or id, after an action (stop, start, sshd-stop, sshd-start, drop) or with new settings."""
        if action is None and not settings:
            found = self.ask("/machines", name=name)
            if len(found) != 1:
                raise LabFailed(f"{len(found)} machines are called {name!r}.")
            return dict(found[0])
        return dict(self.ask("/machine", name=name, action=action or "set", settings=settings))

    def shell(
        self,
        name: str,
        command: str | Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell, or a program with arguments, as root in a machine of its own; `check`: LabFailed unless it
        ends with status 0. The environment is clean, and the caller may do there whatever root may do."""
        machine = self.machine(name)
        if machine["image"] is None:
            raise LabFailed(f"{name} is no machine of its own: the lab needs `backend='podman'`.")
        try:
            done = containers.shell(machine["pid"], name, command, stdin=stdin, timeout=timeout)
        except MachinesFailed as exc:
            raise LabFailed(str(exc)) from exc
        if check and done.returncode:
            raise LabFailed(f"{command!r} ended with status {done.returncode} on {name}: {done.stdout}{done.stderr}")
        return done

    def journal(self, **wanted: Any) -> list[dict[str, Any]]:
        """The journal's lines, filtered: kind, method, status, principal, machine, since (seq), and by regular
        expression path, resource_id, action."""
        return list(self.ask("/journal", **wanted))

    def repeated_writes(self) -> list[str]:
        """The writes in the journal that were carried out twice; see `journal.repeated_writes`."""
        return repeated_writes(self.journal())

    def clear_journal(self) -> None:
        self.ask("/journal/clear")

    def fault(self, **rule: Any) -> int:
        """Add a fault rule (see `Fault`); its id."""
        return int(self.ask("/fault/add", **rule))

    def clear_faults(self, fault_id: int | None = None) -> None:
        self.ask("/fault/clear", **({} if fault_id is None else {"id": fault_id}))

    @contextlib.contextmanager
    def faulty(self, **rule: Any) -> Iterator[int]:
        """A fault rule for the length of a block."""
        fault_id = self.fault(**rule)
        try:
            yield fault_id
        finally:
            self.clear_faults(fault_id)

    def principal(
        self,
        name: str,
        *,
        actions: list[str] | None = None,
        data_actions: list[str] | None = None,
        roles: list[str] | None = None,
        scope: str | None = None,
        certificates: list[str] | None = None,
        federated: list[dict[str, str]] | None = None,
        type: Literal["ServicePrincipal", "User"] = "ServicePrincipal",
    ) -> dict[str, str]:
        """A new service principal: client_id, secret, object_id, tenant; a User, whose `name` is what they sign in with, has
        a `upn` instead of client_id and secret."""
        return dict(
            self.ask(
                "/principal",
                name=name,
                actions=actions,
                data_actions=data_actions,
                roles=roles,
                scope=scope,
                certificates=certificates,
                federated=federated,
                type=type,
            )
        )

    def cli_login(self, directory: Path, user: str) -> dict[str, str]:
        """Let a user be signed in with the Azure CLI: its files and a program `az` in `directory`; the variables that lead
        there (AZURE_CONFIG_DIR, PATH)."""
        from . import azure_cli

        return azure_cli.sign_in(self.env, self.url, directory, user, str(self.ask("/principal/sign-in", name=user)))

    def refuse(self, name: str, number: int | None, *, certificates_only: bool = False) -> None:
        """Let Entra refuse a principal (client id or user name) with this AADSTS number, `None`: no more; `certificates_only`:
        it still gets tokens, but no SSH certificate."""
        field = "certificate_refused" if certificates_only else "refused"
        self.ask("/principal/change", name=name, **{field: number})

    def certificate_requests(self) -> dict[str, int]:
        """How many SSH certificates Entra was asked for, by the principal that got them, as the journal has it."""
        got = (line["certificate_for"] for line in self.journal(kind="entra", token_type="ssh-cert"))
        return dict(Counter(name for name in got if name is not None))

    def setting(self, **settings: float) -> None:
        """Change while the lab runs: `certificate_seconds`, `role_delay`, `role_assignment_limit`."""
        self.ask("/setting", **settings)

    def advance(self, seconds: float) -> float:
        """Move the lab's clock ahead; its new time (unix seconds). What it gave out before may be expired then."""
        return float(self.ask("/advance", seconds=seconds))

    def time(self) -> float:
        """The lab's time in unix seconds."""
        return self.advance(0)

    def drift(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        logged: bool = True,
        fails: dict[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """Change a resource past whoever looks after it: write `body`, or delete it. `logged`: as a colleague in the portal, so
        that the activity log will tell of it; otherwise nothing does. `fails`: the error (`code`, `message`) with which a
        long-running operation ends. The resource, as the lab has it then."""
        changed = self.ask("/drift", path=path, body=body, logged=logged, fails=fails)
        return dict(changed) if changed is not None else None

    def onboard(self, name: str, **entry: Any) -> dict[str, Any]:
        """Let a machine appear; `entry` as in a fleet file. The activity log will tell of it."""
        return dict(self.ask("/onboard", machine={"name": name, **entry}))

    def env_of(self, principal: dict[str, str]) -> dict[str, str]:
        """`env` for another principal."""
        return {
            **self.env,
            "AZURE_CLIENT_ID": principal["client_id"],
            "AZURE_SECRET": principal["secret"],
            "AZURE_CLIENT_SECRET": principal["secret"],
        }

    def revoke_tokens(self, client_id: str | None = None) -> None:
        """Continuous access evaluation: refuse the tokens made until now."""
        self.ask("/revoke", principal=client_id)

    def connection(self, name: str | None = None) -> dict[str, str]:
        """A hybrid connection for a listener outside the lab: name, authority, key_name, token."""
        return dict(self.ask("/connection", name=name))

    def listener(self, name: str, port: int, real_port: int) -> None:
        """Let a port of a machine lead to a loopback port."""
        self.ask("/listener", name=name, port=port, real_port=real_port)
