# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a person mean by -L?

Pure. The grammar is that of ssh(1): [bind_address:]port:host:hostport, [bind_address:]port:remote_socket, local_socket:host:hostport and
local_socket:remote_socket, IPv6 addresses in brackets; and port 0 here, for any that is free. The target is ssh's business and stays as it
was written. Private to arcfleet.ssh.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from .._errors import InputError

ANY_ADDRESS = ("", "*")

_FIELD = re.compile(r"\[([^\]]*)\]|([^:\[\]]*)")
_HINT = "Write [ADDRESS:]PORT:HOST:HOSTPORT as for ssh, such as 5432:db.internal:5432; IPv6 addresses in brackets."


@dataclass(frozen=True)
class Forward:
    """One -L: the local `port` (0: any free one) at `address` (`None`: not said), or the local socket `path`; and the target."""

    target: str
    port: int = 0
    address: str | None = None
    path: str | None = None


def parse(text: str) -> Forward:
    """What `-L text` means. Raises InputError."""
    try:
        return _parse(_fields(text))
    except ValueError as exc:
        raise InputError(f"-L {text}: {exc}.", hint=_HINT) from exc


def _fields(text: str) -> list[str]:
    fields, at = [], 0
    while True:
        match = _FIELD.match(text, at)
        end = match.end() if match else at
        if match is None or end < len(text) and text[end] != ":" or any(not char.isprintable() for char in text):
            raise ValueError("its brackets or characters are not as they should be")
        fields.append(match[1] if match[1] is not None else match[2])
        if end == len(text):
            return fields
        at = end + 1


def _parse(fields: list[str]) -> Forward:
    *listening, last = fields
    if "/" in last:
        target = _bracketed(last)
    else:
        if len(fields) < 3:
            raise ValueError("that is no forward")
        *listening, host = listening
        if not host:
            raise ValueError("it names no host to connect to")
        target = f"{_bracketed(host)}:{port(last, least=1)}"
    if len(listening) == 1 and "/" in listening[0]:
        return Forward(target, path=listening[0])
    if len(listening) == 1:
        return Forward(target, port=port(listening[0]))
    if len(listening) == 2 and "/" not in listening[0]:
        return Forward(target, port=port(listening[1]), address=listening[0])
    raise ValueError("that is no forward")


def port(text: str, least: int = 0) -> int:
    """A port's number, from that or from the name of a service. Raises ValueError with half a sentence."""
    if text.isascii() and text.isdigit():
        number = int(text[:6])
        if least <= number < 65536:
            return number
        raise ValueError(f"{text} is no port, which is a number from {least} to 65535")
    try:
        return socket.getservbyname(text, "tcp")
    except (OSError, UnicodeError) as exc:
        raise ValueError(f"{text!r} is no port") from exc


def address_and_port(address: str, number: int) -> str:
    """As people write it."""
    return f"{_bracketed('*' if address in ANY_ADDRESS else address)}:{number}"


def _bracketed(text: str) -> str:
    return f"[{text}]" if ":" in text else text


def is_loopback(address: str) -> bool:
    """Whether nobody but this computer can connect to it."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address.lower() == "localhost"
