# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is changing this machine's resources right now?

Two runs at the same time would both read "absent" and both write. So a run claims a machine before it reads, and gives it back
after the write: one byte of one file, locked by fcntl(2), at an offset that the machine's id determines. The kernel gives the
claims of a killed process back, nothing is left lying about, and nothing is written to the file. Claims bind the runs of one user
on one controller (one cache directory); ARM has no means to bind others. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator

# Seconds between attempts to get a claim that another run holds; it doubles up to the second number.
_LOOK, _LOOK_AT_MOST = 0.1, 2.0


def default_path() -> str:
    """`$XDG_CACHE_HOME/arcfleet/claims`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "arcfleet", "claims")


class Claims:
    """The claims of this process. Threads may share it, as long as no two of them claim the same key."""

    def __init__(self, path: str) -> None:
        self._handle: int | None = None
        # A controller without a place to write has no second run of the same user to fear more than no run at all.
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def hold(self, key: str, sleep: Callable[[float], None]) -> Iterator[None]:
        """Claim `key` for as long as the block lasts; `sleep` waits for another run to give it back, and may raise."""
        claimed = self._handle is not None and self._claim(key, sleep)
        try:
            yield
        finally:
            if claimed:
                self._lock(fcntl.LOCK_UN, key)

    def close(self) -> None:
        """Give everything back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _claim(self, key: str, sleep: Callable[[float], None]) -> bool:
        pause = _LOOK
        while True:
            try:
                self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, key)
                return True
            except (BlockingIOError, PermissionError):
                # EAGAIN or EACCES, as the system likes it: another run holds it.
                sleep(pause)
                pause = min(pause * 2, _LOOK_AT_MOST)
            except OSError:
                # A file system without locks.
                return False

    def _lock(self, what: int, key: str) -> None:
        if self._handle is not None:
            fcntl.lockf(self._handle, what, 1, _offset(key))


def _offset(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
