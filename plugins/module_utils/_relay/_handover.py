# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which program of Microsoft's may take over from the helper, and how?

Microsoft's SSH proxy takes a port by `-p` and credentials from the environment, and nothing else: it tells its version
by the name only that `az ssh` gives its file (azext_ssh/connectivity_utils.py). Nothing is downloaded here. Where a
digest is named, what runs is a copy of exactly the bytes that were compared, in the directory of the cache, which is
the user's alone: that works where there is no /proc, too. Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import re
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn, Tuple

    from ._cache import Cache
    from ._credentials import Credentials

    Version = Tuple[int, ...]

FIND = "find"
DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")

# Where `az ssh` puts it.
DIRECTORY = "~/.clientsshproxy"

# The oldest version that Microsoft's documentation of SSH over Arc names; it parts the last number by a zero.
LEAST = (1, 3, 22941)

_NAME = re.compile(r"sshProxy_([a-z]+)_([a-z0-9]+)_(\d+)_(\d+)_(\d+)(?:\.exe)?", re.IGNORECASE)

# It has some 10 MB.
_LARGEST = 256 * 1024 * 1024


def program(asked: str, digest: str | None, machine: str, cache: Cache) -> str:
    """The file to run: the newest one that `az ssh` has placed if `asked` is `find`, else the one at this path.

    `digest` is `sha256:` and 64 hexadecimal digits, or `None`; `machine` is the name for the error sentence. Raises
    InputError for a file that is missing, too old, in the hands of others, or another one than the digest's.
    """
    path = _found(machine) if asked == FIND else os.path.expanduser(asked)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise cannot_run(machine, path, exc.strerror) from exc
    try:
        _check_owner(machine, path, os.fstat(handle))
        _check_version(machine, path, pinned=digest is not None)
        if digest is None:
            return path
        with open(handle, "rb", closefd=False) as file:
            return _pinned(machine, path, file.read(_LARGEST), digest, cache)
    finally:
        os.close(handle)


def become(binary: str, machine: str, port: int, credentials: Credentials, environ: Mapping[str, str]) -> NoReturn:
    """Run it in the place of this process, as `az ssh` does. Raises InputError when that fails."""
    import base64
    import json

    blob = base64.b64encode(json.dumps({"relay": credentials.relay()}).encode("ascii")).decode("ascii")
    try:
        os.execve(binary, [binary, "-p", str(port)], {**environ, "SSHPROXY_RELAY_INFO": blob})
    except OSError as exc:
        raise cannot_run(machine, binary, exc.strerror) from exc


def cannot_run(machine: str, path: str, why: str | None) -> Exception:
    """The error for a file that is no program here."""
    return _refused(
        f"{machine}: {path} cannot be run ({why}).",
        "--proxy-binary takes the path of Microsoft's SSH proxy, made executable; or leave it out.",
    )


def newest(names: list[str], system: str, processor: str) -> str | None:
    """Of the names in a directory, that of the newest proxy for such a computer."""
    found = [
        (tuple(int(part) for part in parts.groups()[2:]), name)
        for name in names
        for parts in (_NAME.fullmatch(name),)
        if parts and (parts[1].lower(), parts[2].lower()) == (system, processor)
    ]
    return max(found)[1] if found else None


def kind_of_processor(machine: str) -> str:
    """What `az ssh` calls a processor that the system calls so."""
    if machine in ("arm64", "aarch64"):
        return "arm64"
    return "amd64" if machine.endswith("64") else "386" if machine.endswith("86") else machine


def _found(machine: str) -> str:
    directory = os.path.expanduser(DIRECTORY)
    system, processor = sys.platform, kind_of_processor(os.uname().machine)
    try:
        names = os.listdir(directory)
    except OSError:
        names = []
    name = newest(names, system, processor)
    if name is None:
        raise _refused(
            f"{machine}: there is no SSH proxy of Microsoft for {system} on {processor} in {DIRECTORY}.",
            "`az ssh arc` places it there when it connects, nothing is downloaded here; or leave --proxy-binary out.",
        )
    return os.path.join(directory, name)


def _check_owner(machine: str, path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise cannot_run(machine, path, "no regular file")
    if _is_others(status):
        raise _refused(
            f"{machine}: {path} is not run, as others may change it (mode {stat.S_IMODE(status.st_mode):04o}).",
            "It has to belong to you or root, and nobody else may write to it: chmod go-w mends the mode.",
        )
    # Where a link to it is, somebody could put another link.
    for folder in (os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))):
        place = os.stat(folder)
        if _is_others(place) and not place.st_mode & stat.S_ISVTX:
            raise _refused(
                f"{machine}: {path} is not run, as others may put another file in its place.",
                f"Nobody else may write to the directory {folder}: chmod go-w mends that.",
            )
    if not os.access(path, os.X_OK):
        raise cannot_run(machine, path, "not executable")


def _is_others(status: os.stat_result) -> bool:
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _check_version(machine: str, path: str, *, pinned: bool) -> None:
    parts = _NAME.fullmatch(os.path.basename(path))
    if parts is None:
        if pinned:
            return
        raise _refused(
            f"{machine}: the name of {path} does not tell which version of Microsoft's SSH proxy it is.",
            "Keep the name that `az ssh` gave it, such as sshProxy_linux_amd64_1_3_026973, or name its --proxy-digest.",
        )
    version = tuple(int(part) for part in parts.groups()[2:])
    if version < LEAST:
        raise _refused(
            f"{machine}: {path} is too old: version {_text(version)}, and {_text(LEAST)} is needed.",
            "Upgrade with `az extension update --name ssh` and connect once with `az ssh arc`; or leave --proxy-binary out.",
        )


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}.{version[2]:06d}"


def _pinned(machine: str, path: str, content: bytes, digest: str, cache: Cache) -> str:
    import hashlib

    real = hashlib.sha256(content).hexdigest()
    if real != digest.partition(":")[2].lower():
        raise _refused(
            f"{machine}: {path} is not run: its digest is sha256:{real}, which is not that of --proxy-digest.",
            "If the file was upgraded on purpose, name the digest of the new one, from a source that you trust.",
        )
    name = f"proxy-{real}"
    # Another helper may be about to run it: one that is the same stays.
    if cache.read_bytes(name, largest=len(content) + 1) != content:
        cache.write_bytes(name, content, mode=0o700)
    return os.path.join(cache.directory, name)


def _refused(message: str, hint: str) -> Exception:
    from .._errors import InputError

    return InputError(message, hint=hint)
