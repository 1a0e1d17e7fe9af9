# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does ssh's user learn what went wrong when ssh has silenced its ProxyCommand?

With ControlPersist, which is Ansible's default, ssh gives the ProxyCommand /dev/null for stderr (OpenSSH, sshconnect.c), and all
that is left is "Connection closed by UNKNOWN port 65535". So the helper says it in ssh's own language: as an SSH server that
disconnects at once and gives its reason (RFC 4253, 4.2, 6 and 11.1), which ssh prints. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time

_IDENTIFICATION = b"SSH-2.0-arcfleet.ssh\r\n"
_DISCONNECT = 1
_SERVICE_NOT_AVAILABLE = 7

# ssh prints no more of a reason than this (packet.c).
LONGEST = 400

# Seconds for ssh to read it.
_PATIENCE = 2.0


def is_silenced(stderr: int = 2) -> bool:
    """Whether nobody will see what is written to `stderr`."""
    try:
        status = os.fstat(stderr)
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return True


def fit(message: str, hint: str | None) -> str:
    """Message and remedy in what ssh prints; rather the remedy than a long message."""
    text = f"{message} {hint}" if hint else message
    if len(text) <= LONGEST or not hint:
        return text[:LONGEST]
    room = max(LONGEST - len(hint) - 4, LONGEST // 4)
    return f"{message[:room]}... {hint}"[:LONGEST]


def packet(sentence: str) -> bytes:
    """Identification and disconnection of an SSH server, unencrypted, as before any key exchange."""
    reason = sentence.encode("ascii", "replace")
    payload = b"".join(
        (
            bytes([_DISCONNECT]),
            _SERVICE_NOT_AVAILABLE.to_bytes(4, "big"),
            len(reason).to_bytes(4, "big"),
            reason,
            (0).to_bytes(4, "big"),
        )
    )
    padding = 4 + -(len(payload) + 9) % 8
    body = bytes([padding]) + payload + bytes(padding)
    return _IDENTIFICATION + len(body).to_bytes(4, "big") + body


def disconnect(sentence: str, source: int = 0, sink: int = 1) -> None:
    """Tell ssh, which reads from `sink`, and wait until it has left: it would not read on from somebody who is gone."""
    with contextlib.suppress(OSError):
        os.write(sink, packet(sentence))
        deadline = time.monotonic() + _PATIENCE
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if not os.read(source, 65536):
                return
