# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does anybody still want the result of this run?

Ctrl-C and a killed playbook must not leave a module behind that goes on changing a fleet for half an hour. SIGINT and SIGTERM
stop the run, and so does the loss of the reader of standard output: ansible-core starts modules in a session of their own, where
the terminal's signals do not arrive. Stopping means to begin nothing new. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import threading
from collections.abc import Iterator

from ._pacing import Pace

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Milliseconds between looks at whether the run has ended by itself.
_LOOK = 500


@contextlib.contextmanager
def stoppable(pace: Pace, output: int = 1) -> Iterator[None]:
    """Stop `pace` on a signal, or when nobody reads the file descriptor `output` any more, as long as the block lasts."""
    ended = threading.Event()
    before = {}
    # Only the main thread may set handlers; elsewhere the signals are somebody else's.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, lambda _number, _frame: pace.stop()) for number in _SIGNALS}
    watcher = threading.Thread(target=_watch, args=(output, pace, ended), daemon=True)
    if _is_pipe(output):
        watcher.start()
    try:
        yield
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _watch(output: int, pace: Pace, ended: threading.Event) -> None:
    poller = select.poll()
    # No event is asked for: errors and hang-ups are told all the same.
    poller.register(output, 0)
    while not ended.is_set():
        if poller.poll(_LOOK):
            pace.stop()
            return
