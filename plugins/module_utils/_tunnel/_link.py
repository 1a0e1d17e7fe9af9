# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does ssh stay connected for hours?

One process of the user's own OpenSSH at a time. When it ends it is started again: at once if it had stood for a while, else later and later,
and not at all after a refusal that asking again does not change. Its sentences go to the user as they are. Private to arcfleet.ssh.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import random
import re
import signal
import sys
import time

from .._errors import ConnectionFailed, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import Any

# Seconds: between two looks whether ssh's sockets are there; the longest pause between two attempts; how long a connection has to have
# stood for the next attempt to come at once; and how long ssh and what belongs to it may take to end.
_LOOK = 0.05
LONGEST_PAUSE = 30.0
STABLE = 10.0
_END = 5.0
# PR_SET_PDEATHSIG of prctl(2).
_PARENT_DEATH_SIGNAL = 1
# Bytes of what ssh said last.
_REMEMBERED = 8192

# OpenSSH's (ssh.c, sshconnect.c, sshconnect2.c, readconf.c) and our relay helper's sentences.
_REFUSALS = (
    (
        re.compile(rb"Host key verification failed|HOST IDENTIFICATION HAS CHANGED"),
        "its host key is not the one that is known",
    ),
    (re.compile(rb"Permission denied \(|Too many authentication failures"), "it does not let you log in"),
    (
        re.compile(rb"Bad configuration option|terminating, \d+ bad configuration"),
        "ssh does not take its configuration",
    ),
    (re.compile(rb"Azure answers 404 "), "Azure does not know it"),
    (re.compile(rb"Azure answers 403 "), "Azure does not allow it"),
)


def refusal(said: bytes) -> str | None:
    """What of ssh's last words will be the same at the next attempt, as half a sentence; `None`: nothing."""
    return next((reason for pattern, reason in _REFUSALS if pattern.search(said)), None)


def pause(failures: int, chance: float) -> float:
    """Seconds before the next attempt; `failures` in a row, `chance` from 0 to 1 keeps many from coming together."""
    return 0.0 if failures == 0 else min(LONGEST_PAUSE, 2.0 ** (min(failures, 8) - 1)) * (0.5 + chance / 2)


class Link:
    """ssh as `command`, which stands when all of `sockets` (paths) are there; `machine` is its name in sentences."""

    def __init__(
        self, command: Sequence[str], sockets: Sequence[str], machine: str, say: Callable[[str], None]
    ) -> None:
        self._command = command
        self._sockets = sockets
        self._machine = machine
        self._say = say
        self._up = asyncio.Event()
        self._ended: asyncio.Future[int] | None = None
        self._times = 0

    @property
    def stands(self) -> bool:
        """Whether there is a connection now."""
        return self._up.is_set()

    async def wait(self) -> asyncio.Future[int]:
        """Wait for a connection; what is returned is done when that one is gone."""
        while True:
            await self._up.wait()
            if self._ended is not None and not self._ended.done():
                return self._ended
            await asyncio.sleep(0)

    async def keep(self) -> None:
        """Connect, and again whenever that is lost. Raises ConnectionFailed when there is no use in that, InputError without ssh."""
        failures = 0
        while True:
            begun, times = time.monotonic(), self._times
            said = await self._once()
            stood = self._times > times
            # What was said before it let us in, such as a warning, was no refusal.
            why = None if stood else refusal(said)
            if self._times == 0 or why is not None:
                raise ConnectionFailed(
                    f"{self._machine}: there is no tunnel, {why or 'ssh has ended'}.", hint="See what ssh says above."
                )
            if stood and time.monotonic() - begun >= STABLE:
                failures = 0
            seconds = pause(failures, random.random())
            failures += 1
            self._say(
                f"{self._machine}: the connection {'was lost' if stood else 'does not come about'}; connecting again."
            )
            await asyncio.sleep(seconds)

    async def _once(self) -> bytes:
        """Run ssh until it ends; its last words."""
        for path in self._sockets:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        said: list[bytes] = []
        async with _heard(said) as stderr:
            process = await _start(self._command, stderr)
            ended = self._ended = asyncio.ensure_future(process.wait())
            try:
                while not ended.done() and not all(os.path.exists(path) for path in self._sockets):
                    await asyncio.wait({ended}, timeout=_LOOK)
                if not ended.done():
                    self._times += 1
                    if self._times > 1:
                        self._say(f"{self._machine}: connected again.")
                    self._up.set()
                await asyncio.wait({ended})
            finally:
                self._up.clear()
                await end(process)
        return b"".join(said)[-_REMEMBERED:]


async def _start(command: Sequence[str], stderr: int) -> Any:
    nothing = asyncio.subprocess.DEVNULL
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=nothing, stdout=nothing, stderr=stderr, preexec_fn=_with_us()
        )
    except OSError as exc:
        raise InputError(f"ssh cannot be run ({exc.strerror}).", hint="Install the client of OpenSSH.") from exc


def _with_us() -> Callable[[], object] | None:
    """What ssh does before it begins, so that it ends with this process even when that is killed; Linux only."""
    if sys.platform != "linux":
        return None
    return functools.partial(ctypes.CDLL(None).prctl, _PARENT_DEATH_SIGNAL, int(signal.SIGTERM))


@contextlib.asynccontextmanager
async def _heard(said: list[bytes]) -> AsyncIterator[int]:
    """A descriptor for stderr; what comes is shown, and the last of it remembered.

    With a pipe of asyncio's own, ssh would not be seen to end before its helper, which has the same stderr.
    """
    source, sink = os.pipe()
    stream = asyncio.StreamReader()
    transport, _protocol = await asyncio.get_running_loop().connect_read_pipe(
        functools.partial(asyncio.StreamReaderProtocol, stream), os.fdopen(source, "rb", 0)
    )
    hearing = asyncio.ensure_future(_hear(stream, said))
    try:
        try:
            yield sink
        finally:
            os.close(sink)
            # The helper may hold it a little longer.
            await asyncio.wait({hearing}, timeout=_END)
    finally:
        hearing.cancel()
        transport.close()


async def _hear(stream: asyncio.StreamReader, said: list[bytes]) -> None:
    while True:
        data = await stream.read(_REMEMBERED)
        if not data:
            return
        said[:] = [*said[-1:], data]
        with contextlib.suppress(OSError):
            os.write(2, data)


async def end(process: Any) -> None:
    """End a process; a helper that it started ends with it."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait({ended}, timeout=_END)
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await ended
