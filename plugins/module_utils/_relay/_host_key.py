# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Did ssh turn away from the machine's host key, and where does its user hear what to do then?

ssh says that the key is not the one it knows, but not how to find out which is right. What passes through the helper shows it: the key
exchange is not encrypted, a server ends its part with NEWKEYS right after it has shown its host key, and ssh answers with its own only if
it takes the key (RFC 4253, 7.3 and 8). Who leaves in between did not. With ControlPersist the helper has no stderr (see `_farewell`), and
nothing can be said in ssh's language any more, so the sentence goes to where ssh's own went. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import sys

from ._refusal import LONGEST_OPENING, encrypted_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_IDENTIFICATION = b"SSH-"


class HostKey:
    """Follows a connection of the process `ssh` to `machine` until its key is taken, or tells the remedy when it is not.

    `then` is shown what ssh sends as well, and says whether it wants more.
    """

    def __init__(self, machine: str, ssh: int, then: Callable[[memoryview], bool] | None = None) -> None:
        self._machine = machine
        self._ssh = ssh
        self._then = then
        self._sent: bytearray | None = bytearray()
        self._received = bytearray()
        self._terminal: int | None = None

    def sent(self, data: memoryview) -> bool:
        """What ssh sends, and nothing when it has enough; whether more is wanted."""
        if self._then is not None and not self._then(data):
            self._then = None
        if self._sent is not None:
            self._sent += data
            if not data:
                self._settle(refused=True)
            elif encrypted_size(self._sent) is not None or len(self._sent) > LONGEST_OPENING:
                self._settle(refused=False)
        return self._sent is not None or self._then is not None

    def received(self, data: memoryview) -> bool:
        """What the machine sends; whether more is wanted."""
        self._received += data
        is_ssh = self._received.startswith(_IDENTIFICATION[: len(self._received)])
        if self._sent is None or not is_ssh or len(self._received) > LONGEST_OPENING:
            return False
        if encrypted_size(self._received) is None:
            return True
        # ssh has to be there for this, and is not any more when it has turned away.
        self._terminal = where_ssh_speaks(self._ssh)
        return False

    def _settle(self, *, refused: bool) -> None:
        self._sent = None
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                if refused:
                    os.write(self._terminal, f"arcfleet.ssh: {remedy(self._machine)}\n".encode("utf-8", "replace"))
                os.close(self._terminal)


def remedy(machine: str) -> str:
    """What to say. The helper cannot know whether the key was another one, or the first."""
    return (
        f"{machine}: ssh did not accept the machine's host key. To have the machine tell its keys by way of Azure, and note them if they are "
        "right: ansible-playbook -i INVENTORY arcfleet.ssh.connect -e arc_connection_host_keys=run_command "
        f"-e arc_connection_host_keys_of={machine}. If that names another key than the one that is known, and you know why it has changed, "
        "add -e arc_connection_changed_host_keys=replace."
    )


def where_ssh_speaks(ssh: int) -> int | None:
    """A descriptor for what the user shall read; `None` where there is no place for that."""
    from ._farewell import is_silenced

    # A terminal must not become this process's own, and a full pipe must not stop it.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
    with contextlib.suppress(OSError):
        if not is_silenced():
            return os.dup(2)
        return os.open(f"/proc/{ssh}/fd/2" if sys.platform == "linux" else "/dev/tty", flags)
    return None
