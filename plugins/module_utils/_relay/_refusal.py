# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Did sshd take the certificate, and what does the user hear when it did not?

sshd says "Permission denied (publickey)" whatever the reason is, inside its own encryption, and most often it is a role in Azure. What
the helper can see is how much ssh sends: it offers a certificate, and signs only when sshd would take it (RFC 4252, 7), so that a request
which is longer by a signature follows, or does not. Who is at the terminal hears of a refusal at once; for Ansible, where ssh has silenced
the helper, the next attempt says it instead of trying the same again. Private to arcfleet.ssh.
"""

from __future__ import annotations

import time

from ._repetition import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._cache import Cache

# Seconds after a refusal in which the next attempt is taken for a repetition of the same one.
RECENT = 60

# By how much a signed request is longer, at least: a signature of RSA with 2048 bits has 256 bytes, ours 384; padding makes up to 32.
SIGNATURE = 224

# A packet before encryption begins is shorter than this (RFC 4253, 6.1), and so is everything that is sent until then.
_LONGEST_PACKET = 35000
LONGEST_OPENING = 65536
_NEW_KEYS = 21


class Requests:
    """Looks at what ssh sends until it is clear whether sshd takes a certificate of `offer` bytes.

    ssh waits for an answer to each request (RFC 4252, 5.1), so that what comes at once is one request.
    """

    def __init__(self, offer: int) -> None:
        self._offer = offer
        self._opening: bytearray | None = bytearray()
        self._shortest: int | None = None
        self.refused = False

    def see(self, data: memoryview) -> bool:
        """Whether more is wanted."""
        size = len(data)
        if self._opening is not None:
            self._opening += data
            encrypted = encrypted_size(self._opening)
            if encrypted is None:
                return len(self._opening) < LONGEST_OPENING
            self._opening, size = None, encrypted
        if size < self._offer:
            return True
        if self._shortest is not None and size >= self._shortest + SIGNATURE:
            self.refused = False
            return False
        self._shortest = size if self._shortest is None else min(size, self._shortest)
        self.refused = True
        return True


def encrypted_size(opening: bytearray) -> int | None:
    """How many of ssh's first bytes are encrypted; `None` before its NEWKEYS is there."""
    position = opening.find(b"\n") + 1
    while position and position + 6 <= len(opening):
        length = int.from_bytes(opening[position : position + 4], "big")
        if length > _LONGEST_PACKET:
            break
        end = position + 4 + length
        if opening[position + 5] == _NEW_KEYS and end <= len(opening):
            return len(opening) - end
        position = end
    return None


class Login:
    """One login of `principal` to a machine, with the certificate called `certificate`, of `offer` bytes."""

    def __init__(
        self,
        cache: Cache,
        certificate: str,
        principal: str,
        offer: int,
        machine: str,
        resource_id: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._note = Note(cache, certificate, resource_id, clock)
        self._principal = principal
        self._machine = machine
        self.requests = Requests(offer)

    def follows_refusal(self) -> bool:
        """Whether sshd refused the login just before this one. Asked once: the next one is made in earnest again."""
        return self._note.taken_within(RECENT)

    def was_refused(self, clean: bool) -> bool:
        """Whether sshd refused this one, now that it is over; `clean`: by no fault of the connection."""
        if not clean or not self.requests.refused:
            return False
        self._note.leave()
        return True

    def refusal(self) -> tuple[str, str]:
        """What to say, and the remedy."""
        from .._ssh_certificate import LOGIN_ROLES

        return (
            f"{self._machine}: sshd did not take the SSH certificate of {self._principal}.",
            (
                f"Most often the role {LOGIN_ROLES} is missing on the machine (a new one needs up to ten minutes), else "
                "AADSSHLoginForLinux: run the role arcfleet.ssh.arc_entra_login."
            ),
        )
