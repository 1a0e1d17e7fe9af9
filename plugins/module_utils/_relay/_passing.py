# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does ssh wait until its certificate is good?

ssh starts its ProxyCommand and reads its certificates at once, so that a helper that renews one comes too late. With ProxyUseFdpass
(ssh_config(5)) ssh does nothing before it was handed a connection, over the socket that is the command's stdout, and the command has
ended: so the helper looks after the certificate first, hands over one end of a socket pair, and goes on at the other end in a process
of its own. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def is_awaited(sink: int = 1) -> bool:
    """Whether ssh waits for a connection; otherwise it talks through pipes already."""
    return stat.S_ISSOCK(os.fstat(sink).st_mode)


def hand_over(source: int = 0, sink: int = 1) -> None:
    """Give ssh its connection. Only the child returns, to whom `source` and `sink` are the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(fileno=os.dup(sink)) as channel:
        socket.send_fds(channel, [b"\0"], [theirs.fileno()])
        if os.fork():
            # Nothing is to be cleaned up twice.
            os._exit(0)
        os.dup2(ours.fileno(), source)
        os.dup2(ours.fileno(), sink)


@contextlib.contextmanager
def held_back(source: int = 0, sink: int = 1) -> Iterator[None]:
    """ssh, if it waits, waits until this is over. It is handed its connection in any case: a failure is told over that."""
    try:
        yield
    finally:
        if is_awaited(sink):
            hand_over(source, sink)


@contextlib.contextmanager
def while_wanted(source: int = 0, parent: int | None = None) -> Iterator[None]:
    """End with ssh while it waits for the relay: one that is killed leaves its ProxyCommand behind.

    `parent`: the process whose end it is, when the end of `source` alone may be no more than the end of what somebody had to say.
    """
    left, leave = os.pipe()

    def watch() -> None:
        poll = select.poll()
        poll.register(source, getattr(select, "POLLRDHUP", select.POLLHUP))
        poll.register(left, select.POLLIN)
        if left not in dict(poll.poll()) and (parent is None or _ended(parent)):
            os._exit(255)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.write(leave, b".")
        watcher.join()
        os.close(left)
        os.close(leave)


def _ended(parent: int) -> bool:
    """Whether the parent is gone, or is about to: it lets go of everything before."""
    for _look in range(10):
        if os.getppid() != parent:
            return True
        time.sleep(0.1)
    return False
