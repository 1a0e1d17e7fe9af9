# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does ssh get its connection from the helper, and does the helper leave with ssh?"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _passing

PROGRAM = """
import os, sys
sys.path.insert(0, {folder!r})
import _passing
if not _passing.is_awaited():
    os.write(1, b"pipe")
    raise SystemExit
_passing.hand_over()
with _passing.while_wanted():
    {wait}
os.write(1, b"through " + os.read(0, 100))
os.read(0, 1)
"""


def start(wait: str, stdout: socket.socket | int) -> subprocess.Popen[bytes]:
    text = PROGRAM.format(folder=os.path.dirname(str(_passing.__file__)), wait=wait)
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.DEVNULL, stdout=stdout)


def received(channel: socket.socket) -> socket.socket:
    """What ssh does (mm_receive_fd): one byte, and the descriptor beside it."""
    channel.settimeout(20)
    data, descriptors, _flags, _address = socket.recv_fds(channel, 1, 1)
    assert data == b"\0"
    connection = socket.socket(fileno=descriptors[0])
    connection.settimeout(20)
    return connection


def test_ssh_gets_a_connection_once_the_command_has_ended() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        helper = start("pass", theirs)
        with received(ours) as connection:
            # ssh waits for the command that it knows; the connection lives on.
            assert helper.wait(20) == 0
            connection.sendall(b"and back")
            assert connection.recv(100) == b"through and back"


def test_the_helper_ends_with_ssh_while_it_waits_for_the_relay(tmp_path: pathlib.Path) -> None:
    note = tmp_path / "pid"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait = f"open({str(note)!r}, 'w').write(str(os.getpid())); import time; time.sleep(60)"
        helper = start(wait, theirs)
        connection = received(ours)
        assert helper.wait(20) == 0
        until = time.monotonic() + 20
        while not (note.exists() and note.read_text(encoding="utf-8")) and time.monotonic() < until:
            time.sleep(0.01)
        child = pathlib.Path("/proc", note.read_text(encoding="utf-8"))
        # Bytes that nobody reads yet are no reason to leave.
        connection.sendall(b"SSH-2.0-x\r\n")
        time.sleep(0.1)
        assert child.exists()
        connection.close()
        while child.exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert not child.exists()


def test_pipes_are_left_as_they_are() -> None:
    helper = start("pass", subprocess.PIPE)
    assert helper.communicate(timeout=20)[0] == b"pipe"
