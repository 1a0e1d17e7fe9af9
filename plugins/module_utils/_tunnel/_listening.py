# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where do programs of this computer find the tunnel?

Our own sockets, opened before anything else and kept until the end: a port that is taken is told at once, and one that we have does not
vanish while ssh connects again. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from .._errors import InputError
from ._forward import ANY_ADDRESS, Forward, address_and_port

# What may wait to be accepted; we accept at once.
_BACKLOG = 128
# Some systems call a path of more bytes too long (sun_path).
LONGEST_PATH = 103


class Listening:
    """The sockets of one forward; `name` is what programs connect to, `port` its number, 0 for a socket with a path."""

    def __init__(self, sockets: list[socket.socket], name: str, port: int = 0, path: str | None = None) -> None:
        self.sockets = sockets
        self.name = name
        self.port = port
        self._path = path

    def close(self) -> None:
        """Close them; nothing is left behind."""
        for one in self.sockets:
            one.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def listen(forward: Forward, bind: str) -> Listening:
    """Open the sockets of a forward; `bind` is the address for those that name none. Raises InputError."""
    if forward.path is not None:
        return _at_path(os.path.abspath(os.path.expanduser(forward.path)))
    return at_port(bind if forward.address is None else forward.address, forward.port)


def at_port(address: str, port: int) -> Listening:
    """Listen at an address or the addresses of a name; port 0 is any free one, the same at all of them. Raises InputError."""
    wanted = None if address in ANY_ADDRESS else address
    try:
        found = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise InputError(
            f"{address} is no address of this computer ({getattr(exc, 'strerror', None) or exc}).",
            hint="Listen at 127.0.0.1.",
        ) from exc
    sockets: list[socket.socket] = []
    number = port
    try:
        for family, kind, protocol, _name, place in dict.fromkeys(found):
            one = _bound(family, kind, protocol, (place[0], number, *place[2:]), optional=bool(sockets))
            if one is not None:
                sockets.append(one)
                number = one.getsockname()[1]
    except OSError as exc:
        for one in sockets:
            one.close()
        raise refusal(exc, address, number) from exc
    return Listening(sockets, address_and_port(address, number), number)


def _bound(family: int, kind: int, protocol: int, place: tuple[object, ...], *, optional: bool) -> socket.socket | None:
    """A socket that listens; `None` for a family that this computer has a name for, but no address."""
    try:
        one = socket.socket(family, kind, protocol)
    except OSError:
        if optional:
            return None
        raise
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(place)
        one.listen(_BACKLOG)
        one.setblocking(False)
    except OSError as exc:
        one.close()
        if optional and exc.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return one


def refusal(exc: OSError, address: str, port: int) -> InputError:
    """Why this computer does not let us listen there."""
    name = address_and_port(address, port)
    if exc.errno == errno.EADDRINUSE:
        return InputError(f"{name} is taken by another program.", hint="Choose another port, or 0 for any free one.")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return InputError(
            f"{name} is for the superuser, like the ports below 1024 on most computers.",
            hint=f"Choose another port, such as {port + 8000}.",
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return InputError(f"{address} is no address of this computer.", hint="Listen at 127.0.0.1.")
    return InputError(f"{name}: {exc.strerror or exc}.", hint="Choose another address and port.")


def _at_path(path: str) -> Listening:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise InputError(f"{path} is too long for a socket.", hint=f"Name one of at most {LONGEST_PATH} bytes.")
    if _is_dead(path):
        os.unlink(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        one.bind(path)
        one.listen(_BACKLOG)
        one.setblocking(False)
    except OSError as exc:
        one.close()
        if exc.errno == errno.EADDRINUSE:
            raise InputError(f"{path} is there already.", hint="Name another file, or take this one away.") from exc
        raise InputError(f"{path}: {exc.strerror or exc}.", hint="Name a file in a directory of your own.") from exc
    finally:
        os.umask(before)
    return Listening([one], path, path=path)


def _is_dead(path: str) -> bool:
    """Whether a program of ours left a socket here without the time to remove it."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        return False
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED
