# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do bytes pass between a program and ssh, and how does the program learn that some are missing?

What one side has to say ends by itself, without the other (a half-close). When ssh is gone in the middle, the program's connection is reset:
an end in good order would pass for the end of the data. Private to arcfleet.ssh.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

# Bytes taken at once, and seconds that a process that has closed its files may need to be gone.
_CHUNK = 256 * 1024
_GRACE = 0.02


class Lost(Exception):
    """ssh was gone before the connection had ended."""


async def splice(
    program: tuple[StreamReader, StreamWriter], ssh: tuple[StreamReader, StreamWriter], ended: asyncio.Future[int]
) -> None:
    """Copy until both have said all; `ended` is done when ssh is gone. Raises OSError when a connection breaks."""
    up = asyncio.ensure_future(_copy(program[0], ssh[1]))
    down = asyncio.ensure_future(_down(ssh, program[1], ended))
    try:
        await asyncio.gather(up, down)
    except (OSError, Lost):
        # Closed by abort(), a TCP connection only ends; it is the linger time of 0 that resets it.
        reset(program[1])
        ssh[1].transport.abort()
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        data = await reader.read(_CHUNK)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        # Who has left already needs no word that there is no more.
        writer.write_eof()


async def _down(ssh: tuple[StreamReader, StreamWriter], writer: StreamWriter, ended: asyncio.Future[int]) -> None:
    reader = ssh[0]
    while True:
        data = await reader.read(_CHUNK)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    if _has_left(ssh[1]):
        await asyncio.wait({ended}, timeout=_GRACE)
    if ended.done():
        raise Lost
    with contextlib.suppress(OSError):
        writer.write_eof()


def _has_left(writer: StreamWriter) -> bool:
    """Whether ssh has closed its socket, and not only said that no more comes."""
    descriptor = writer.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLHUP for _same, events in poll.poll(0))


def reset(writer: StreamWriter) -> None:
    """End a connection so that the program takes it for broken."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
