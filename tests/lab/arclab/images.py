# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where do the root file systems of the lab's machines come from?

debootstrap makes one per suite, once: `bare` has systemd and Python but no SSH server, and a repository in a folder of its own that
holds one, as its only source; `ready` is the same after the installation from there of openssh-server and of what people use over SSH
that has to be on the machine too. An image gets its name, which names the recipe too, when it is complete, so that what was
interrupted is never taken for good.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import podman
from .podman import CACHE, MachinesFailed

SUITES = ("bookworm", "trixie")
KINDS = ("bare", "ready")
RELEASES = {"bookworm": "12", "trixie": "13"}
REPOSITORY = "/opt/arclab/apt"
_INCLUDED = "systemd,systemd-sysv,dbus,libnss-systemd,python3,python3-apt,sudo,iproute2,procps,e2fsprogs"
_OFFERED = ("openssh-server", "rsync", "git")
# Every machine makes its own host keys, as one does that was installed and not copied.
_HOST_KEYS = """\
[Unit]
Description=Make the SSH host keys of this machine
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
# Sockets come before what is usual for a service, and a cycle would let systemd leave out one of them.
DefaultDependencies=no
After=local-fs.target
Before=ssh.service ssh.socket
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
"""
_INSTALL = f"""\
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install --yes --no-install-recommends {" ".join(_OFFERED)}
rm -f /usr/sbin/policy-rc.d /etc/ssh/ssh_host_*
cat >/etc/systemd/system/arclab-host-keys.service
systemctl enable arclab-host-keys.service
apt-get clean
rm -rf /var/lib/apt/lists/*
: >/etc/machine-id
"""


def _recipe() -> str:
    """Changes with everything that an image is made of here."""
    parts = (
        _INCLUDED,
        *_OFFERED,
        _HOST_KEYS,
        _INSTALL,
        REPOSITORY,
        *(inspect.getsource(step) for step in (_bootstrap, _offer, _clean)),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def name(kind: str, suite: str) -> str:
    """The image of machines of this kind and suite."""
    return f"localhost/arclab-{kind}-{suite}:{_recipe()}"


def ensure(suites: Iterable[str]) -> None:
    """Make the images of these suites that are not there; takes a minute each. MachinesFailed if that does not work."""
    wanted = sorted(set(suites))
    if unknown := set(wanted) - set(SUITES):
        raise MachinesFailed(f"There is no suite {', '.join(sorted(unknown))}: {' and '.join(SUITES)} are known.")
    with ThreadPoolExecutor() as pool:
        list(pool.map(_ensure, wanted))


def _ensure(suite: str) -> None:
    if _has(suite):
        return
    with _alone(suite):
        if not _has(suite):
            about = f"Debian {RELEASES[suite]} for the lab's machines"
            print(f"Making {about} (once, about a minute)", file=sys.stderr, flush=True)
            _make(suite)


def _has(suite: str) -> bool:
    names = podman.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    return all(name(kind, suite) in names for kind in KINDS)


@contextlib.contextmanager
def _alone(suite: str) -> Iterator[None]:
    """One process at a time makes the images of a suite."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(suite: str) -> None:
    root = CACHE.resolve() / f"root-{suite}"
    builder = f"arclab-build-{suite}"
    podman.podman("rm", "--force", "--ignore", builder)
    shutil.rmtree(root, ignore_errors=True)
    try:
        _bootstrap(suite, root)
        _offer(root)
        _clean(root)
        _import(root, name("bare", suite))
        podman.podman(
            "run", "--name", builder, "--interactive", "--network=none", name("bare", suite), "sh", "-c", _INSTALL,
            stdin=_HOST_KEYS.encode(), timeout=300,
        )  # fmt: skip
        podman.podman("commit", "--quiet", builder, name("ready", suite), timeout=300)
    finally:
        podman.podman("rm", "--force", "--ignore", builder)
        shutil.rmtree(root, ignore_errors=True)
    _forget_older(suite)


def _bootstrap(suite: str, root: Path) -> None:
    mirror = _mirror()
    # What debootstrap mounts goes away with it, however it ends.
    podman.run(
        [
            *("unshare", "--mount", "--propagation=private"),
            "debootstrap",
            "--variant=minbase",
            f"--include={_INCLUDED}",
            suite,
            str(root),
            *([mirror] if mirror else []),
        ],
        timeout=900,
    )


def _mirror() -> str | None:
    """Debian's archive as this machine's apt knows it; `None`: debootstrap's own choice."""
    try:
        text = podman.run(["apt-get", "indextargets", "--format", "$(SITE) $(LABEL)", "Created-By: Packages"])
    except MachinesFailed:
        return None
    sites = [line.split(" ", 1)[0] for line in text.splitlines() if line.endswith(" Debian")]
    return next((site for site in sites if site.startswith("http://")), None)


def _offer(root: Path) -> None:
    """A repository in a folder, with what has not been installed; the index is what dpkg-scanpackages would write."""
    folder = root / REPOSITORY.lstrip("/")
    (folder / "partial").mkdir(parents=True)
    podman.run(
        [
            "chroot", str(root), "apt-get", "-q", "-o", f"Dir::Cache::archives={REPOSITORY}", "install", "--yes",
            "--download-only", "--no-install-recommends", *_OFFERED,
        ],
        timeout=300,
    )  # fmt: skip
    entries = []
    for package in sorted(folder.glob("*.deb")):
        content = package.read_bytes()
        plain = package.rename(folder / re.sub(r"%3a", "-", package.name))
        fields = podman.run(["chroot", str(root), "dpkg-deb", "--field", f"{REPOSITORY}/{plain.name}"]).strip()
        digest = hashlib.sha256(content).hexdigest()
        entries.append(f"{fields}\nFilename: ./{plain.name}\nSize: {len(content)}\nSHA256: {digest}\n")
    if not entries:
        raise MachinesFailed(f"apt fetched nothing of {', '.join(_OFFERED)}.")
    (folder / "Packages").write_text("\n".join(entries))
    shutil.rmtree(folder / "partial")
    (folder / "lock").unlink(missing_ok=True)
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{REPOSITORY} ./\n")


def _clean(root: Path) -> None:
    """What a copy must not share with other copies, and what would disturb a test by itself."""
    for pattern in ("var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "var/log/*.log"):
        for path in root.glob(pattern):
            path.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    # logind has no sessions to look after, and each machine's share of fs.inotify.max_user_instances is small.
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "systemd-logind.service"):
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _import(root: Path, image: str) -> None:
    """Pack the tree into an image; it has its name only when all of it is there."""
    with subprocess.Popen(["tar", "--directory", str(root), "--create", "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(
            [*podman.command(), "import", "--quiet", "--change", "CMD /sbin/init", "-"],
            stdin=tar.stdout,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": podman.SYSTEM_PATH, **podman.environment()},
        )
    if tar.returncode or done.returncode:
        raise MachinesFailed(f"The image {image} could not be packed: {done.stderr.strip()[-500:]}")
    podman.podman("tag", done.stdout.split()[-1], image)


def _forget_older(suite: str) -> None:
    """Remove images of earlier recipes, unless a machine still runs on them."""
    kept = {name(kind, suite) for kind in KINDS}
    for one in podman.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if re.match(rf"localhost/arclab-({'|'.join(KINDS)})-{suite}:", one) and one not in kept:
            with contextlib.suppress(MachinesFailed):
                podman.podman("rmi", one)
