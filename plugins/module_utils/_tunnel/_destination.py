# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does ssh know of the machine that somebody named?

The name is one of ssh's configuration, or a resource id. What ssh makes of it, it tells itself (`ssh -G`), so the configuration that
arc_ssh_config wrote is used as it is; for an id that it does not know, the relay helper is added. Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._errors import InputError
from .._ids import MachineId

HELPER = os.path.join("_relay", "_start.py")

# Seconds: as the written configuration has it, for the helper's own patience; and how soon a dead connection is noticed: after three.
_CONNECT_TIMEOUT = 200
_ALIVE_EVERY = 15

# Nothing of a person's own session: no shared connection, whose end would be ours, no shell, nothing that runs here or there.
_TUNNEL = (
    "ControlMaster=no",
    "ControlPath=none",
    "ControlPersist=no",
    "ExitOnForwardFailure=yes",
    "StreamLocalBindUnlink=yes",
    "StreamLocalBindMask=0177",
    f"ServerAliveInterval={_ALIVE_EVERY}",
    "ServerAliveCountMax=3",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "Tunnel=no",
)
# Options of the helper that are the connection's, not the login's, and those of them without a value.
_OF_CONNECTION = ("--port", "--service", "--certificate", "--timeout")
_OF_ATTEMPT = ("--once",)


@dataclass(frozen=True)
class Destination:
    """A machine: its `name` in sentences, `host` as ssh is told it, `options` that ssh needs besides, and its `settings` from `ssh -G`."""

    name: str
    host: str
    options: tuple[str, ...]
    settings: Mapping[str, str]
    arguments: tuple[str, ...]

    def tunnel(self, forwards: Sequence[tuple[str, str]]) -> list[str]:
        """The ssh that leads local sockets to their targets and does nothing else; forwards as (path, target)."""
        options = [part for option in (*_TUNNEL, *self.options) for part in ("-o", option)]
        local = [part for path, target in forwards for part in ("-L", f"{path}:{target}")]
        return ["ssh", "-N", "-T", *self.arguments, *options, *local, "--", self.host]

    def helper(self, service: str, port: int) -> list[str]:
        """The relay helper for another service of the machine, with the login of its ProxyCommand. Raises InputError without one."""
        words = shlex.split(_expanded(self.settings))
        place = next((number for number, text in enumerate(words) if text.endswith(HELPER)), None)
        if place is None:
            raise InputError(
                f"{self.name}: ssh does not reach it through the relay.",
                hint="Name a machine of the configuration that arc_ssh_config wrote, or a resource id.",
            )
        return [*words[: place + 1], *_login(words[place + 1 :]), "--service", service, "--port", str(port)]


def _login(words: Sequence[str]) -> list[str]:
    kept, rest = [], iter(words)
    for argument in rest:
        if argument in _OF_CONNECTION:
            next(rest, None)
        elif argument not in _OF_ATTEMPT and argument.partition("=")[0] not in _OF_CONNECTION:
            kept.append(argument)
    return kept


def _expanded(settings: Mapping[str, str]) -> str:
    """The ProxyCommand with ssh's tokens replaced (ssh_config(5))."""
    tokens = {"h": settings.get("hostname", ""), "n": settings.get("host", ""), "p": settings.get("port", ""), "%": "%"}
    tokens["r"] = settings.get("user", "")
    command = settings.get("proxycommand", "")
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), command)


def settle(given: str, *, config: str | None, user: str | None, auth: Mapping[str, str]) -> Destination:
    """The machine that somebody means by `given`, [USER@]NAME or [USER@]ID.

    `config` is the file for ssh, `None` for the user's own; `auth` the options of a login that is used where ssh's configuration has
    none. Raises InputError.
    """
    before, _at, name = given.rpartition("@")
    login = user or before or None
    if not name or name.startswith("-") or login is not None and login.startswith("-"):
        raise InputError(f"{given!r} is no machine.", hint="Give a name that ssh knows, or a resource id.")
    arguments = (
        *(("-F", os.path.abspath(os.path.expanduser(config))) if config else ()),
        *(("-l", login) if login else ()),
    )
    if not name.startswith("/"):
        return Destination(name, name, (), _ask(arguments, name), arguments)
    machine = MachineId.parse(name)
    # ssh takes no host with parentheses, which a resource group may have.
    host = re.sub(r"[()]", "_", str(machine))
    settings = _ask(arguments, host)
    quoted = f"'{machine}'"
    known = settings.get("proxycommand", "")
    if HELPER in known and host == name:
        return Destination(machine.name, host, (), settings, arguments)
    if HELPER in known:
        command = re.sub(r"'%[hn]'|%[hn]", quoted, known)
    else:
        login_options = [part for option, value in sorted(auth.items()) for part in (f"--{option}", value)]
        start = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), HELPER)
        command = shlex.join([sys.executable, start, *login_options]).replace("%", "%%")
        command = f"{command} --resource-id {quoted} --port %p"
    options = (f"ProxyCommand={command}", f"HostKeyAlias={machine.key}", f"ConnectTimeout={_CONNECT_TIMEOUT}")
    return Destination(machine.name, host, options, {**settings, "proxycommand": command}, arguments)


def _ask(arguments: Sequence[str], host: str) -> dict[str, str]:
    try:
        done = subprocess.run(
            ["ssh", "-G", *arguments, "--", host], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as exc:
        raise InputError(f"ssh cannot be run ({exc.strerror}).", hint="Install the client of OpenSSH.") from exc
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise InputError(
            f"{host}: ssh does not take its configuration: {said}.", hint="Mend it, or name another with -F."
        )
    lines = (line.partition(" ") for line in done.stdout.decode("utf-8", "surrogateescape").splitlines())
    settings: dict[str, str] = {}
    for name, _blank, value in lines:
        settings.setdefault(name, value)
    return settings
