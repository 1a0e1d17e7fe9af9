# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When is ssh started again, and when is there no use in that?"""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ConnectionFailed, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel import _link
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._link import Link, pause, refusal


@pytest.mark.parametrize(
    "said",
    [
        "Host key verification failed.",
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
        "ops@web01: Permission denied (publickey).",
        "Received disconnect from UNKNOWN port 65535:2: Too many authentication failures",
        "config line 3: Bad configuration option: nonsense",
        "arcfleet.ssh: web01: cannot get relay credentials: Azure answers 404 ResourceNotFound: not found.",
        "arcfleet.ssh: web01: cannot get relay credentials: Azure answers 403 AuthorizationFailed: no.",
    ],
)
def test_what_will_not_pass(said: str) -> None:
    assert refusal(f"before\r\n{said}\r\n".encode())


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Timeout, server not responding.",
        "client_loop: send disconnect: Broken pipe",
        "Connection closed by UNKNOWN port 65535",
        "arcfleet.ssh: web01: the relay answers 404, its agent does not listen yet.",
        "arcfleet.ssh: web01: Azure answers 429 TooManyRequests: later.",
    ],
)
def test_what_can_pass(said: str) -> None:
    assert refusal(said.encode()) is None


def test_pauses_grow_to_a_limit_and_differ() -> None:
    assert pause(0, 1.0) == 0.0
    assert [pause(failures, 1.0) for failures in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pause(100_000, 0.0) == 15.0


# --- with a program in ssh's place


@pytest.fixture
def path() -> Iterator[str]:
    """pytest's own directories have names too long for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "0")


def stand_in(path: str, end: str, begin: str = "") -> list[str]:
    """Opens the socket and ends."""
    script = begin + (
        "import os, socket, sys, time\ns = socket.socket(socket.AF_UNIX)\n"
        f"s.bind({path + 'x'!r})\ns.listen()\nos.rename({path + 'x'!r}, {path!r})\n{end}"
    )
    return [sys.executable, "-S", "-c", script]


def test_the_first_failure_ends_it() -> None:
    said: list[str] = []

    async def run() -> None:
        await Link(["false"], ["/nowhere/0"], "web01", said.append).keep()

    with pytest.raises(ConnectionFailed, match="web01: there is no tunnel, ssh has ended. See what ssh says above."):
        asyncio.run(run())
    assert said == []


def test_without_ssh_that_is_said() -> None:
    async def run() -> None:
        await Link(["/nowhere/ssh"], ["/nowhere/0"], "web01", print).keep()

    with pytest.raises(InputError, match="Install the client of OpenSSH"):
        asyncio.run(run())


def test_a_lost_connection_comes_again_and_a_refusal_ends_it(
    path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_link, "pause", lambda _failures, _chance: 0.0)
    said: list[str] = []
    flag = pathlib.Path(path + ".second")
    refused = "sys.stderr.write('Host key verification failed.\\n')\n"
    begin = f"import pathlib, sys\nif pathlib.Path({str(flag)!r}).exists():\n    {refused}    sys.exit(255)\n"
    # What is said by a connection that stands is no refusal.
    end = f"{refused}pathlib.Path({str(flag)!r}).touch()\ntime.sleep(0.2)\nsys.exit(255)"

    async def run() -> None:
        await Link(stand_in(path, end, begin), [path], "web01", said.append).keep()

    with pytest.raises(ConnectionFailed, match="web01: there is no tunnel, its host key is not the one that is known"):
        asyncio.run(run())
    assert said == ["web01: the connection was lost; connecting again."]
    assert capfd.readouterr().err == "Host key verification failed.\n" * 2


def test_who_waits_is_let_in_and_told_when_it_is_over(path: str) -> None:
    async def run() -> list[bool]:
        link = Link(stand_in(path, "time.sleep(60)"), [path], "web01", print)
        keeping = asyncio.ensure_future(link.keep())
        before = link.stands
        ended = await link.wait()
        seen = [before, link.stands, ended.done()]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
        keeping.cancel()
        await asyncio.wait({keeping})
        return [*seen, link.stands, ended.done()]

    assert asyncio.run(run()) == [False, True, False, False, True]


def test_what_holds_on_to_stderr_does_not_hold_up_the_end(
    path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_link, "_END", 0.1)
    end = "import subprocess\nprint(subprocess.Popen(['sleep', '30']).pid, file=sys.stderr, flush=True)\nsys.exit(255)"

    async def run() -> bool:
        link = Link(stand_in(path, "time.sleep(0.2)\n" + end), [path], "web01", print)
        keeping = asyncio.ensure_future(link.keep())
        ended = await link.wait()
        done, _pending = await asyncio.wait({ended}, timeout=20)
        keeping.cancel()
        await asyncio.wait({keeping})
        return bool(done)

    try:
        assert asyncio.run(run())
    finally:
        os.kill(int(capfd.readouterr().err), signal.SIGKILL)
