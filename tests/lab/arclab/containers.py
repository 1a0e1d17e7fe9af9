# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a lab come by Linux machines of their own, with systemd, an address and a real sshd?

Each is a container with a network namespace whose one interface is on a bridge of the lab: the operator's machine reaches it, and it
reaches nothing else. All names come from the lab's state directory, so that what a killed lab left behind is found again. Whoever
looks into a machine does so through its init's namespaces: that is as quick as a fork, and needs nothing of podman.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import io
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import aadsshlogin, azcmagent, images, podman
from .podman import SYSTEM_PATH, MachinesFailed

LAB, STATE = "arclab.lab", "arclab.state"
MOST = 200
START_TIMEOUT = 60.0
_NETWORKS = ipaddress.IPv4Network("10.99.0.0/16")
_LOCK = Path("/run/arclab.lock")
_CLONE_NEWNET = 0x40000000
_HIMDS = f"#!/bin/sh\nexec flock --no-fork {azcmagent.HIMDS_LOCK} sleep infinity\n"
_HIMDS_UNIT = f"""\
[Unit]
Description=Azure Connected Machine Agent Service
[Service]
ExecStart=/opt/azcmagent/bin/himds
ExecStopPost=/usr/bin/touch {azcmagent.HIMDS_LOCK}
Restart=on-failure
RestartSec=5
[Install]
WantedBy=multi-user.target
"""


def digest(state_dir: Path) -> str:
    """What all names of a lab's machines carry."""
    return hashlib.sha256(bytes(state_dir.resolve())).hexdigest()[:8]


# ---- network


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two labs may not choose the same network."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _taken() -> list[ipaddress.IPv4Network]:
    """The networks that this machine knows a way to."""
    routes = json.loads(podman.run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    found = []
    for route in routes:
        with contextlib.suppress(ValueError):
            found.append(ipaddress.IPv4Network(route.get("dst", "").partition(" ")[0]))
    return [one for one in found if one.prefixlen]


def _bridge(lab: str) -> str:
    return f"br{lab}"


def _namespace(lab: str, number: int) -> str:
    return f"arc{lab}-{number}"


def make_bridge(lab: str) -> ipaddress.IPv4Network:
    """A bridge with the first address of a network that nobody here uses."""
    bridge = _bridge(lab)
    with _alone():
        taken = _taken()
        networks = list(_NETWORKS.subnets(new_prefix=24))
        first = int(lab, 16) % len(networks)
        for network in networks[first:] + networks[:first]:
            if not any(network.overlaps(one) for one in taken):
                break
        else:
            raise MachinesFailed(f"Every network of {_NETWORKS} is in use on this machine.")
        podman.run(["ip", "link", "add", bridge, "type", "bridge"])
        podman.run(["ip", "address", "add", f"{network[1]}/24", "dev", bridge])
        podman.run(["ip", "link", "set", bridge, "up"])
    return network


def make_namespace(lab: str, number: int, address: str) -> str:
    """A network namespace with loopback and one interface on the lab's bridge; its name."""
    name, outer = _namespace(lab, number), f"v{lab}{number}"
    podman.run(["ip", "netns", "add", name])
    podman.run(["ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name])
    podman.run(["ip", "link", "set", outer, "master", _bridge(lab), "up"])
    podman.run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0"])
    podman.run(["ip", "-n", name, "link", "set", "eth0", "up"])
    podman.run(["ip", "-n", name, "link", "set", "lo", "up"])
    return name


def remove(lab: str) -> None:
    """Everything of a lab: containers, namespaces, bridge. What is not there is no fault."""
    found = podman.podman("ps", "--all", "--quiet", "--filter", f"label={LAB}={lab}").split()
    if found:
        podman.podman("rm", "--force", "--time", "0", *found)
    for path in Path("/run/netns").glob(f"{_namespace(lab, 0)[:-1]}*"):
        podman.run(["ip", "netns", "delete", path.name])
    if Path("/sys/class/net", _bridge(lab)).exists():
        podman.run(["ip", "link", "delete", _bridge(lab)])


def remove_orphans(lives: Callable[[Path], bool]) -> None:
    """Remove the machines of labs that are gone; `lives` tells by the state directory."""
    listed = podman.podman("ps", "--all", "--format", f'{{{{index .Labels "{LAB}"}}}} {{{{index .Labels "{STATE}"}}}}')
    for lab, _space, state_dir in {tuple(line.partition(" ")) for line in listed.splitlines()}:
        if re.fullmatch("[0-9a-f]{8}", lab) and not lives(Path(state_dir)):
            remove(lab)


def _socket_in(namespace: Path, family: socket.AddressFamily) -> socket.socket:
    """A socket that belongs to a network namespace. A thread of its own enters that, and ends."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            with namespace.open("rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket(family, socket.SOCK_STREAM))
        except OSError as exc:
            failed.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    made[0].setblocking(False)
    return made[0]


# ---- one machine


class Container:
    """One machine: `pid` is its init's, `None` while it is off; `address` is where the operator's machine reaches it."""

    def __init__(self, lab: str, machine: Wanted, namespace: str, address: str) -> None:
        self.name = f"arc-{lab}-{machine.name.lower()}"
        self.hostname = machine.name
        self.address = address
        self.settings = machine.settings
        self.pid: int | None = None
        self._wanted = False
        self._switch = asyncio.Lock()
        # Until its sshd answered for the first time: later on a test may have stopped it for good.
        self._awaits_sshd = machine.image == "ready"
        self._namespace = Path("/run/netns", namespace)
        self._watched: int | None = None

    @property
    def root(self) -> Path | None:
        """Its file system, while it is on."""
        return Path(f"/proc/{self.pid}/root") if self.pid is not None else None

    def host_key(self) -> str | None:
        """Its ed25519 host key as `ssh-ed25519 AAAA..`, if it has one yet."""
        if self.root is None:
            return None
        try:
            words = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        except OSError:
            return None
        return " ".join(words[:2])

    def enter(self, *command: str) -> list[str]:
        """The command line that runs `command` in it as root; MachinesFailed while it is off."""
        return enter(self.pid, self.hostname, *command)

    async def shell(self, command: str, timeout: float = 60.0) -> str:
        """Run a line of shell in it as root; MachinesFailed if that fails."""
        return await asyncio.to_thread(
            podman.run, self.enter("/bin/sh", "-c", command), timeout=timeout, env={"HOME": "/root"}
        )

    def write(self, path: str, text: str) -> None:
        """Replace a file in it, in one step."""
        if self.root is not None:
            target = self.root / path.lstrip("/")
            draft = target.with_name(target.name + ".lab")
            draft.write_text(text)
            draft.chmod(0o644)
            draft.replace(target)

    async def connect(self, port: int) -> socket.socket | None:
        """A connection from inside the machine to its own localhost, 127.0.0.1 first; `None` if nothing listens."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            if self.pid is None:
                return None
            sock = None
            try:
                sock = await asyncio.to_thread(_socket_in, self._namespace, family)
                await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (host, port)), 10)
            except OSError:
                if sock is not None:
                    sock.close()
            else:
                return sock
        return None

    async def listen(self, port: int) -> socket.socket:
        """A socket that listens on the machine's own localhost, whether it is on or off."""
        sock = await asyncio.to_thread(_socket_in, self._namespace, socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(128)
        return sock

    # Life

    async def create(self, image: str, files: Mapping[str, tuple[int, str | bytes]], labels: Mapping[str, str]) -> None:
        """Make it, with these files (path: mode, text) in it; it is off."""
        chosen = [f"--label={name}={value}" for name, value in labels.items()]
        await asyncio.to_thread(
            podman.podman, "create", "--name", self.name, "--hostname", self.hostname, "--systemd=always",
            f"--network=ns:{self._namespace}", "--log-driver=none",
            "--pull=never", *chosen, image, "/sbin/init",
        )  # fmt: skip
        await asyncio.to_thread(podman.podman, "cp", "-", f"{self.name}:/", stdin=_archive(files))

    async def start(self) -> None:
        """Switch it on and wait until its agent runs, and its sshd if it is to have one; MachinesFailed if they do not."""
        async with self._switch:
            self._wanted = True
            if self.pid is None:
                await asyncio.to_thread(podman.podman, "start", self.name)
                pid = await asyncio.to_thread(podman.podman, "inspect", "--format", "{{.State.Pid}}", self.name)
                self._watch(int(pid))
            deadline = time.monotonic() + START_TIMEOUT
            while not await self._is_up():
                if self.pid is None or time.monotonic() > deadline:
                    raise MachinesFailed(
                        f"The machine {self.hostname} ({self.name}) does not come up. Each takes five instances of inotify, and "
                        "fs.inotify.max_user_instances (sysctl) says how many there may be on this computer."
                    )
                await asyncio.sleep(0.1)

    @property
    def was_rebooted(self) -> bool:
        """Did it end from inside, and nobody has switched it on again yet?"""
        return self._wanted and self.pid is None and not self._switch.locked()

    async def _is_up(self) -> bool:
        if self.root is None or not azcmagent.himds_runs(str(self.root)):
            return False
        if not self._awaits_sshd:
            return True
        found = await self.connect(22)
        if found is not None:
            found.close()
            self._awaits_sshd = False
        return found is not None

    def _watch(self, pid: int) -> None:
        """Notice when it ends, by whatever hand."""
        if pid <= 0:
            return
        self.pid = pid
        with contextlib.suppress(ProcessLookupError):
            self._watched = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._watched, self._ended)
            return
        self._ended()

    def _ended(self) -> None:
        self.pid = None
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None

    async def stop(self) -> None:
        """Switch it off, as its power button would; its file system stays."""
        async with self._switch:
            self._wanted = False
            await asyncio.to_thread(podman.podman, "stop", "--time", "10", self.name)
            if self.pid is not None:
                self._ended()

    def forget(self) -> None:
        """It is about to be removed."""
        self._wanted = False


def enter(pid: int | None, hostname: str, *command: str) -> list[str]:
    """The command line that runs `command` as root in the machine of this init."""
    if pid is None:
        raise MachinesFailed(f"The machine {hostname} is off.")
    return ["nsenter", "--target", str(pid), "--all", "--", *command]


def shell(
    pid: int | None, hostname: str, command: str | Sequence[str], *, stdin: str | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, or a program with arguments, in a machine as root, in a clean environment."""
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    return subprocess.run(
        enter(pid, hostname, *words),
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={"PATH": SYSTEM_PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8"},
        umask=0o022,
        cwd="/",
    )


def _archive(files: Mapping[str, tuple[int, str | bytes]]) -> bytes:
    """A tar of files, all root's: a mode of 0 is a symbolic link, a path that ends with a slash a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, (mode, given) in files.items():
            content = given.encode() if isinstance(given, str) else given
            entry = tarfile.TarInfo(path.strip("/"))
            entry.mode, entry.mtime = mode, int(time.time())
            if path.endswith("/"):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            elif mode:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = tarfile.SYMTYPE, content.decode()
                tar.addfile(entry)
    return stream.getvalue()


# ---- all of them


@dataclass(frozen=True)
class Wanted:
    """A machine to be made: `key` is its lower-cased resource id, `image` bare or ready, `identity` and `settings` its agent's."""

    key: str
    name: str
    image: str
    suite: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    running: bool


class Containers:
    """The machines of a lab that are containers, by lower-cased resource id."""

    def __init__(self, state_dir: Path, authorized_key: str) -> None:
        self._state_dir = state_dir.resolve()
        self._lab = digest(state_dir)
        self._authorized_key = authorized_key
        self._machines: dict[str, Container] = {}

    def get(self, machine_id: str) -> Container | None:
        return self._machines.get(machine_id)

    def __iter__(self) -> Iterator[tuple[str, Container]]:
        return iter(list(self._machines.items()))

    async def make(self, wanted: Sequence[Wanted]) -> None:
        """Make machines, and start those that are to run."""
        if len(wanted) > MOST:
            raise MachinesFailed(f"A lab has at most {MOST} machines of their own, not {len(wanted)}.")
        if not wanted:
            return
        await asyncio.to_thread(remove, self._lab)
        network = await asyncio.to_thread(make_bridge, self._lab)
        some = asyncio.Semaphore(2 * (os.cpu_count() or 1))

        async def one(number: int, machine: Wanted) -> None:
            address = str(network[number + 10])
            async with some:
                namespace = await asyncio.to_thread(make_namespace, self._lab, number, address)
                container = Container(self._lab, machine, namespace, address)
                labels = {LAB: self._lab, STATE: str(self._state_dir)}
                await container.create(images.name(machine.image, machine.suite), self._files(machine), labels)
                self._machines[machine.key] = container
                if machine.running:
                    await container.start()

        await asyncio.gather(*(one(number, machine) for number, machine in enumerate(wanted)))

    def _files(self, machine: Wanted) -> dict[str, tuple[int, str | bytes]]:
        """What the lab puts on a machine: the agent, a repository with Entra login, and on a ready one the lab's key."""
        files: dict[str, tuple[int, str | bytes]] = {
            **aadsshlogin.repository(),
            azcmagent.BINARY: (0o755, "#!/usr/bin/python3\n" + Path(azcmagent.__file__).read_text()),
            "/opt/azcmagent/bin/himds": (0o755, _HIMDS),
            azcmagent.IDENTITY: (0o644, identity_text(machine.identity)),
            azcmagent.SETTINGS: (0o644, json.dumps(machine.settings, indent=2) + "\n"),
            "/var/opt/azcmagent/log/himds.log": (0o600, ""),
            "/usr/lib/systemd/system/himdsd.service": (0o644, _HIMDS_UNIT),
            "/etc/systemd/system/multi-user.target.wants/himdsd.service": (0, "/usr/lib/systemd/system/himdsd.service"),
        }
        if machine.image == "ready":
            files["/root/.ssh/"] = (0o700, "")
            files["/root/.ssh/authorized_keys"] = (0o600, self._authorized_key)
        return files

    async def close(self) -> None:
        """Remove them all."""
        if self._machines:
            for _key, container in self:
                container.forget()
            await asyncio.to_thread(remove, self._lab)


def identity_text(who: dict[str, Any]) -> str:
    """The file that tells the agent who its machine is."""
    return json.dumps(who, indent=2) + "\n"


def end_marked(marker: str) -> None:
    """Kill every process of this computer that has `marker` in its environment, in whatever namespace it is."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
