# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does the lab use podman without meeting the operator's own containers?

Everything has places of its own: images and containers below .cache/machines of the checkout, what must not outlive a boot below
/run, locks as files instead of the shared memory that all of root's podmans use. runc, because crun refuses hybrid control groups;
limits at or below those of this process, because not every root may raise them.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import threading
from pathlib import Path

CACHE = Path(os.environ.get("ARCLAB_MACHINES") or Path(__file__).resolve().parents[3] / ".cache" / "machines")
PROGRAMS = ("podman", "runc", "conmon", "debootstrap", "chroot", "tar", "ip", "nsenter", "unshare")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 1024), "nproc": (resource.RLIMIT_NPROC, 4096)}
_CONFIGURING = threading.Lock()


class MachinesFailed(Exception):
    """Machines of their own cannot be made or used here; the message says why."""


def obstacle() -> str | None:
    """Why there can be no such machines here; `None` if nothing is in the way."""
    if os.geteuid() != 0:
        return "Machines of their own (--backend podman) need root: namespaces and systemd are not to be had without."
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"{', '.join(missing)} not found. On Debian, as root: apt-get install podman runc netavark debootstrap iproute2 util-linux"
    return None


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"


def _limit(which: int, most: int) -> int:
    hard = resource.getrlimit(which)[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _configuration() -> str:
    known = {name: _limit(*wanted) for name, wanted in _LIMITS.items()}
    limits = ", ".join(f'"{name}={most}:{most}"' for name, most in known.items())
    return (
        f"# {CACHE.resolve()}\n"
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nlock_type = "file"\nevents_logger = "none"\n'
        f'[network]\nnetwork_backend = "netavark"\n[containers]\ndefault_ulimits = [{limits}]\n'
    )


def run(
    command: list[str], *, stdin: bytes | None = None, timeout: float = 120.0, env: dict[str, str] | None = None
) -> str:
    """Run a program and return what it printed; MachinesFailed with the end of its complaint."""
    try:
        done = subprocess.run(
            command,
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "PATH": _path(), "LC_ALL": "C.UTF-8", **(env or {})},
            umask=0o022,
        )
    except subprocess.TimeoutExpired:
        raise MachinesFailed(f"`{' '.join(command[:6])}` took longer than {timeout:g} s.") from None
    except OSError as exc:
        raise MachinesFailed(f"`{command[0]}` cannot be run: {exc.strerror}.") from None
    if done.returncode:
        complaint = (done.stderr or done.stdout).decode(errors="replace").strip()[-800:]
        raise MachinesFailed(f"`{' '.join(command)[:300]}` ended with status {done.returncode}: {complaint}")
    return done.stdout.decode(errors="replace")


def podman(*arguments: str, stdin: bytes | None = None, timeout: float = 120.0) -> str:
    """Run podman on the lab's own storage."""
    return run([*command(), *arguments], stdin=stdin, timeout=timeout, env=environment())


def command() -> list[str]:
    """podman with the lab's own places."""
    volatile = f"/run/arclab-{hashlib.sha256(bytes(CACHE.resolve())).hexdigest()[:8]}"
    return [
        "podman",
        f"--root={CACHE.resolve() / 'storage'}",
        f"--runroot={volatile}/run",
        f"--tmpdir={volatile}/tmp",
        f"--volumepath={CACHE.resolve() / 'volumes'}",
    ]


def environment() -> dict[str, str]:
    """The variable that names podman's configuration, which is written if it is not there."""
    path = CACHE / "containers.conf"
    text = _configuration()
    # The images of two suites are made by two threads.
    with _CONFIGURING:
        before = path.read_text() if path.exists() else ""
        if before != text:
            # podman's database knows its own path: in a checkout that was moved the images are made anew.
            if before.startswith("# /") and before.partition("\n")[0] != text.partition("\n")[0]:
                shutil.rmtree(CACHE / "storage", ignore_errors=True)
            CACHE.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(text)
            draft.replace(path)
    return {"CONTAINERS_CONF": str(path.resolve())}
