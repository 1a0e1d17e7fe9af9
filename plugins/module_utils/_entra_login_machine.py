# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of Entra ID login on this machine, and what does its sshd say of Entra users?

The edge of `_entra_login`: reads files, asks sshd, the package manager and SELinux, and tries the repository. Changes nothing. Runs on the
managed machine, so it needs the standard library only. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import glob
import os
import posixpath
import stat
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence

from . import _sshd
from ._azcmagent import AgentError
from ._azcmagent_machine import Azcmagent
from ._entra_login import (
    OBSOLETE_PACKAGE,
    PACKAGE,
    POLICY_PACKAGES,
    SELINUX_MODULE,
    Distribution,
    Ground,
    Login,
    Look,
    Registrations,
    block_of,
    nss_serves,
    pam_uses,
    parse_os_release,
)
from ._sshd_machine import PROGRAM_PATH, Sshd

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/yum.repos.d/*.repo", "/etc/zypp/repos.d/*.repo")
# Seconds for the repository to answer.
PATIENCE = 10.0


class LoginSshd(Sshd):
    """The OpenSSH server of this machine, asked about logins of others. All methods raise SshdError."""

    def logins(self, users: Iterable[str]) -> list[Login]:
        """What counts for each of these users, coming through Azure Arc."""
        port = (_sshd.ports_of(_sshd.parse_effective(self._checked("-T"))) or [22])[0]
        return [
            Login(
                user,
                _sshd.parse_effective(self._checked("-T", "-C", f"user={user},{_sshd.RELAYED},lport={port}")),
                port,
            )
            for user in users
        ]

    def release(self) -> tuple[int, int] | None:
        """Major and minor version."""
        return _sshd.parse_version(self._version())


def distribution() -> Distribution:
    """The distribution of this machine."""
    return parse_os_release(next((text for text in map(_text, OS_RELEASE) if text), ""))


def look(scratch: str, users: Sequence[str]) -> Look:
    """What is installed, and what sshd says of these users. Raises SshdError."""
    sshd = LoginSshd(scratch)
    said = _sshd.directives(sshd.read())
    block = block_of(said)
    command = _sshd.words(block.value)[0] if block is not None else None
    return Look(
        said,
        sshd.logins(users),
        Registrations(
            nss_serves(_text("/etc/nsswitch.conf")),
            pam_uses(_text(path) for path in sorted(glob.glob("/etc/pam.d/*"))),
            block is not None,
            _selinux(),
        ),
        has_package(PACKAGE, distribution().manager),
        sshd.release(),
        unsafe(command) if command is not None else None,
    )


def ground(source: str, repository: str, proxy: str, *, probe: bool) -> Ground:
    """What matters before an installation. `probe` tries the repository, which takes seconds where it is not to be had."""
    found = distribution()
    return Ground(
        found,
        source,
        has_package(OBSOLETE_PACKAGE, found.manager),
        _text("/proc/mounts"),
        repository,
        unreachable(repository, proxy or _proxy(source)) if probe and repository else None,
        [one for one in POLICY_PACKAGES[found.manager] if has_package(one, found.manager)],
        bool(repository) and configured(repository, [_text(path) for one in SOURCES for path in glob.glob(one)]),
    )


def configured(repository: str, sources: Iterable[str]) -> bool:
    """Whether a package manager uses the repository already."""
    place = repository.partition("://")[2].rstrip("/") or repository.partition(":")[2].rstrip("/")
    return any(place in line.partition("#")[0] for text in sources for line in text.splitlines())


def unreachable(repository: str, proxy: str = "", patience: float = PATIENCE) -> str | None:
    """Why the repository cannot be reached from here, `None` if it can. Without `proxy`, what the environment says of proxies counts."""
    parts = urllib.parse.urlsplit(repository)
    if parts.scheme == "file":
        return None if os.path.isdir(parts.path) else f"there is no {parts.path}"
    proxies = {"http": proxy, "https": proxy} if proxy else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(urllib.request.Request(repository, method="HEAD"), timeout=patience):
            return None
    except urllib.error.HTTPError as exc:
        # An answer of the repository, whatever it says of its first page; a proxy's own is told.
        return f"the proxy answered {exc.code} {exc.reason}" if exc.code == 407 else None
    except urllib.error.URLError as exc:
        return str(getattr(exc.reason, "strerror", None) or exc.reason)
    except (OSError, ValueError) as exc:
        return str(exc)


def has_package(name: str, manager: str) -> bool:
    """Whether a package is installed."""
    if manager == "apt":
        return _said("dpkg-query", "--show", "--showformat=${db:Status-Status}", name) == "installed"
    return _said("rpm", "--query", name) is not None


def unsafe(command: str) -> str | None:
    """Why sshd would not run this for AuthorizedKeysCommand, as sshd_config(5) asks of it; `None` if it would."""
    path = os.path.realpath(command)
    try:
        about = os.stat(path)
    except OSError as exc:
        return f"{command} cannot be found: {exc.strerror}"
    if not stat.S_ISREG(about.st_mode) or not about.st_mode & stat.S_IXUSR:
        return f"{command} cannot be executed"
    while True:
        if about.st_uid != 0 or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{path} can be changed by others than root"
        if path == "/":
            return None
        path = posixpath.dirname(path)
        about = os.stat(path)


def _proxy(source: str) -> str:
    """The proxy of the agent, through which it lets its extensions out."""
    if source == "extension":
        with contextlib.suppress(AgentError):
            return str(Azcmagent().settings().get("proxy.url") or "")
    return ""


def _selinux() -> bool | None:
    if not os.path.exists("/sys/fs/selinux/enforce"):
        return None
    return SELINUX_MODULE in (_said("semodule", "--list-modules") or "")


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def _said(*command: str) -> str | None:
    """What a program printed; `None` if it failed or is not there."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
            env={"PATH": PROGRAM_PATH, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
