# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May a task be sent again when its connection was lost?

Ansible repeats whatever it was doing when ssh ends with 255, and has no way to tell a connection that did not come up, which is what the
repetition is for, from one that was lost while a task ran, which would then run twice. The helper can tell: it leaves a note of the
loss, and the attempt that follows at once finds it and is refused. The attempt after that is made in earnest. Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._cache import Cache

# Ansible repeats after a second at most; a connection that nobody used may be lost at any time before the next task.
AT_ONCE = 10

# What ssh sends before it can ask for anything to be run, in bytes: its part of a key exchange, and no login yet.
BEFORE_A_TASK = 2500


class Note:
    """A note about one machine that outlives the helper: when something happened."""

    def __init__(self, cache: Cache, name: str, resource_id: str, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._file = f"{name}-{hashlib.sha256(resource_id.lower().encode()).hexdigest()[:20]}.json"
        self._clock = clock

    def leave(self) -> None:
        """It happened now."""
        self._cache.write(self._file, {"happened_on": self._clock()})

    def taken_within(self, seconds: float) -> bool:
        """Whether it happened so many seconds ago at most; the note is gone then."""
        content = self._cache.read(self._file)
        if content is None:
            return False
        self._cache.remove(self._file)
        happened_on = content.get("happened_on")
        return isinstance(happened_on, (int, float)) and 0 <= self._clock() - happened_on <= seconds


def sentence(machine: str) -> tuple[str, str]:
    """What to say to the attempt that is refused, and the remedy."""
    return (
        f"{machine}: the connection was lost while a task may have been running, so that it is not sent a second time by itself.",
        "Run again; if this comes back, check the machine's agent and its network.",
    )
