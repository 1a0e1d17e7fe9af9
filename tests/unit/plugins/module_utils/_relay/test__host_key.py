# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the helper tell who turned away from a host key how to verify it, and nobody else?"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _host_key
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._host_key import HostKey, where_ssh_speaks


def packet(kind: int, size: int) -> bytes:
    """An unencrypted packet (RFC 4253, 6): length, length of padding, type, and the rest."""
    body = bytes([4, kind]) + bytes(size - 2)
    return len(body).to_bytes(4, "big") + body


HELLO = b"SSH-2.0-OpenSSH_9.2p1\r\n" + packet(20, 1532)
OURS, THEIRS, NEW_KEYS, BYE = packet(30, 1200), packet(31, 1180), packet(21, 12), b""


@pytest.fixture
def terminal(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    file = tmp_path / "terminal"
    file.touch()
    monkeypatch.setattr(_host_key, "where_ssh_speaks", lambda ssh: os.open(file, os.O_WRONLY | os.O_APPEND))
    descriptors = len(os.listdir("/dev/fd"))
    yield file
    assert len(os.listdir("/dev/fd")) == descriptors


def play(*steps: tuple[str, bytes]) -> None:
    key = HostKey("web01", 1)
    watched = {"sent": True, "received": True}
    for way, data in steps:
        if watched[way]:
            watched[way] = getattr(key, way)(memoryview(data))


def test_who_leaves_when_the_host_key_was_shown_hears_how_to_verify_it(terminal: pathlib.Path) -> None:
    play(("sent", HELLO), ("received", HELLO), ("sent", OURS), ("received", THEIRS + NEW_KEYS), ("sent", BYE))
    said = terminal.read_text(encoding="utf-8")
    assert "web01" in said
    assert "arc_connection_host_keys=run_command" in said
    assert said.count("\n") == 1


def test_pieces_do_not_matter(terminal: pathlib.Path) -> None:
    shown = HELLO + THEIRS + NEW_KEYS
    pieces = [("received", shown[at : at + 5]) for at in range(0, len(shown), 5)]
    play(("sent", HELLO + OURS), *pieces, ("sent", BYE))
    assert terminal.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "steps",
    [
        [("sent", HELLO), ("received", HELLO), ("sent", OURS), ("sent", BYE)],
        [("sent", HELLO), ("received", HELLO), ("sent", OURS), ("received", THEIRS), ("sent", BYE)],
        [("received", HELLO + THEIRS + NEW_KEYS), ("sent", HELLO + OURS + NEW_KEYS), ("sent", BYE)],
        [("received", HELLO + THEIRS + NEW_KEYS), ("sent", HELLO + OURS + NEW_KEYS + bytes(90)), ("sent", BYE)],
        [("sent", BYE)],
        # Not ssh at all.
        [("received", bytes(range(256)) * 300), ("sent", bytes(range(256)) * 300), ("sent", BYE)],
    ],
)
def test_nobody_else_does(steps: list[tuple[str, bytes]], terminal: pathlib.Path) -> None:
    play(*steps)
    assert not terminal.read_text(encoding="utf-8")


def test_who_else_watches_sees_all_and_decides_by_itself() -> None:
    seen: list[bytes] = []

    def then(data: memoryview) -> bool:
        seen.append(bytes(data))
        return len(seen) < 3

    key = HostKey("web01", 1, then=then)
    assert key.sent(memoryview(HELLO + OURS + NEW_KEYS))
    assert key.sent(memoryview(b"offer"))
    assert not key.sent(memoryview(b"signature"))
    assert seen == [HELLO + OURS + NEW_KEYS, b"offer", b"signature"]


@pytest.fixture
def silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible_collections.arcfleet.ssh.plugins.module_utils._relay._farewell.is_silenced", lambda: True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="Elsewhere it is the terminal, which a test does not have.")
@pytest.mark.usefixtures("silenced")
def test_a_silenced_helper_speaks_where_ssh_does() -> None:
    ssh = subprocess.Popen(["sleep", "30"], stderr=subprocess.PIPE)
    assert ssh.stderr is not None
    with ssh.stderr:
        descriptor = where_ssh_speaks(ssh.pid)
        ssh.kill()
        ssh.wait()
        assert descriptor is not None
        os.write(descriptor, b"heard")
        os.close(descriptor)
        assert ssh.stderr.read() == b"heard"


@pytest.mark.usefixtures("silenced")
def test_ssh_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr("os.open", gone)
    assert where_ssh_speaks(1) is None
