# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a lab machine come by a real OpenSSH server that touches nothing but its own directory?

Each machine gets its own `sshd -D` on a free loopback port with its own configuration, host key and authorized keys
below the lab's state directory. It is started when somebody needs it, so ten thousand machines cost nothing until then.
Host keys are derived from one secret of the state directory: nothing is written per machine, and they survive a restart
of the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

_START_TIMEOUT = 10.0
_STOP_TIMEOUT = 3.0
_POLL = 0.003
_PRIVSEP_DIRECTORY = Path("/run/sshd")


class SshdFailed(Exception):
    """A machine's sshd could not be started."""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, never readable in between."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def private_directory(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def openssh_private(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def openssh_public(key: Ed25519PrivateKey) -> str:
    """`ssh-ed25519 AAAA..`, without a comment."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def client_key(state_dir: Path) -> Path:
    """The key pair that every machine of this lab accepts: `id_ed25519` and `.pub`, made on first use."""
    path = private_directory(state_dir) / "id_ed25519"
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        path.with_suffix(".pub").write_text(openssh_public(key) + " arclab\n")
        write_private(path, openssh_private(key))
    return path


class HostKeys:
    """The ed25519 host key of every machine, derived from one secret of the state directory."""

    def __init__(self, state_dir: Path) -> None:
        path = private_directory(state_dir) / "host_keys.secret"
        if not path.exists():
            write_private(path, secrets.token_hex(32))
        self._secret = path.read_text().encode()

    def private(self, machine_id: str) -> Ed25519PrivateKey:
        seed = hmac.digest(self._secret, machine_id.lower().encode(), hashlib.sha256)
        return Ed25519PrivateKey.from_private_bytes(seed)


@functools.cache
def sshd_binary() -> str:
    """The absolute path of sshd, which it needs to execute itself anew for each connection."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SshdFailed("No sshd on this machine: install OpenSSH's server (Debian: openssh-server).")
    return os.path.realpath(found)


@functools.cache
def _sshd_version() -> tuple[int, int]:
    """sshd names its version on `-V`, older ones in the usage message they print instead."""
    output = subprocess.run([sshd_binary(), "-V"], capture_output=True, text=True, check=False).stderr
    match = re.search(r"OpenSSH_(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(path: Path) -> str:
    """A path as sshd_config wants it: quoted, with `%` doubled because sshd expands tokens there."""
    return '"' + str(path).replace("%", "%%") + '"'


def configuration(
    directory: Path, *, port: int, user: str, name: str, machine_id: str, version: tuple[int, int]
) -> str:
    """The text of one machine's sshd_config; it includes nothing from /etc."""
    lines = [
        f"Port {port}",
        "AddressFamily inet",
        "ListenAddress 127.0.0.1",
        f'HostKey "{directory / "ssh_host_ed25519_key"}"',
        f'PidFile "{directory / "sshd.pid"}"',
        "LogLevel VERBOSE",
        "UsePAM no",
        "StrictModes no",
        "UseDNS no",
        "PrintMotd no",
        "PrintLastLog no",
        "PermitUserRC no",
        "PubkeyAuthentication yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "HostbasedAuthentication no",
        "PermitRootLogin prohibit-password",
        f'AllowUsers "{user}"',
        f"AuthorizedKeysFile {_quoted(directory / 'authorized_keys')}",
        f"TrustedUserCAKeys {_quoted(directory / 'user_ca.pub')}",
        # Every connection of the fleet comes from one address: no limit may mistake that for an attack.
        "MaxStartups 1000:30:2000",
        "MaxSessions 200",
        # A home of its own, so that neither the shell start-up files of whoever runs the lab count nor anything is left there.
        (
            f'SetEnv "ARCLAB_MACHINE={name}" "ARCLAB_RESOURCE_ID={machine_id}" '
            f'"HOME={directory / "home"}" "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'
        ),
        "AcceptEnv LANG LC_*",
        "Subsystem sftp internal-sftp",
    ]
    if version >= (9, 8):
        lines.append("PerSourcePenalties no")
    return "\n".join(lines) + "\n"


def _command(directory: Path) -> list[str]:
    """sshd in the foreground; where util-linux is at hand it also dies with the lab, even if that is killed."""
    sshd = [sshd_binary(), "-D", "-f", str(directory / "sshd_config"), "-E", str(directory / "sshd.log")]
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *sshd] if setpriv else sshd


def _descendants(pid: int) -> Iterator[int]:
    """Every process below `pid`, as far as /proc tells."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield int(child)
        yield from _descendants(int(child))


def _end(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_leftovers(machines_dir: Path) -> None:
    """End the servers that a killed lab left in this directory: recorded pids, if they are still our sshd."""
    for pid_file in machines_dir.glob("*/sshd.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            if os.fsencode(pid_file.parent / "sshd_config") in Path(f"/proc/{pid}/cmdline").read_bytes():
                _end(pid, signal.SIGTERM)
        pid_file.unlink(missing_ok=True)


class SshServer:
    """The sshd of one machine; `port` is where it really listens on 127.0.0.1, `None` while it does not."""

    def __init__(self, machines_dir: Path, *, machine_id: str, name: str, user: str) -> None:
        suffix = hashlib.sha256(machine_id.encode()).hexdigest()[:12]
        self.directory = machines_dir / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{suffix}"
        self._machine_id = machine_id
        self._name = name
        self._user = user
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    @property
    def port(self) -> int | None:
        process = self._process
        return self._port if process is not None and process.poll() is None else None

    def prepare(self, host_key: Ed25519PrivateKey, authorized_key: str) -> None:
        """Write what sshd reads, once: whatever a test changes afterwards stays."""
        private_directory(self.directory)
        private_directory(self.directory / "home")
        for file_name, text in (
            ("ssh_host_ed25519_key", openssh_private(host_key)),
            ("authorized_keys", authorized_key),
            ("user_ca.pub", ""),
        ):
            if not (self.directory / file_name).exists():
                write_private(self.directory / file_name, text)
        if os.geteuid() == 0:
            _PRIVSEP_DIRECTORY.mkdir(mode=0o755, exist_ok=True)

    def trust_user_ca(self, public_key: str | None) -> None:
        """Accept (or no longer accept) user certificates of this OpenSSH certificate authority."""
        write_private(self.directory / "user_ca.pub", f"{public_key}\n" if public_key else "")

    async def start(self) -> int:
        """Start sshd unless it runs, wait until it listens, return its port; SshdFailed if it will not."""
        async with self._lock:
            if (port := self.port) is not None:
                return port
            for _attempt in range(5):
                if await self._try(port := _free_port()):
                    self._port = port
                    return port
        raise SshdFailed(f"The sshd of {self._name} does not start; see {self.directory / 'sshd.log'}.")

    async def _try(self, port: int) -> bool:
        pid_file = self.directory / "sshd.pid"
        pid_file.unlink(missing_ok=True)
        text = configuration(
            self.directory,
            port=port,
            user=self._user,
            name=self._name,
            machine_id=self._machine_id,
            version=_sshd_version(),
        )
        write_private(self.directory / "sshd_config", text)
        process = self._spawn()
        self._process = process
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
        # sshd writes its pid only after its sockets listen, so no probing connection is needed.
        while not (pid_file.exists() and pid_file.read_text().strip()):
            if process.poll() is not None:
                return False
            if asyncio.get_running_loop().time() > deadline:
                process.kill()
                process.wait()
                return False
            await asyncio.sleep(_POLL)
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Not asyncio's way: before Python 3.12 that keeps a thread per process, and there may be thousands."""
        return subprocess.Popen(
            _command(self.directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath},
            start_new_session=True,
        )

    async def stop(self, *, sessions: bool) -> None:
        """Stop listening; open sessions go on (as after `systemctl stop ssh`) unless `sessions` says to end them."""
        async with self._lock:
            process, self._process, self._port = self._process, None, None
            if process is None:
                return
            below = list(_descendants(process.pid)) if sessions else []
            for pid in below:
                _end(pid, signal.SIGTERM)
            if process.poll() is None:
                process.terminate()
            deadline = asyncio.get_running_loop().time() + _STOP_TIMEOUT
            while process.poll() is None:
                if asyncio.get_running_loop().time() > deadline:
                    process.kill()
                await asyncio.sleep(_POLL)
            (self.directory / "sshd.pid").unlink(missing_ok=True)
