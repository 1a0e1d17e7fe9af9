# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the machine say about its sockets and sessions, and when does a change need the relay?

What changes sshd itself runs on machines of its own in tests/machines.
"""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _sshd_machine
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import Configuration, SshdError, Wanted
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd_way_back import WayBack

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0100007F:0016 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
"""
TCP6 = TCP.split("\n", maxsplit=1)[0] + "\n   0: 00000000000000000000000001000000:0016 00000000:0000 0A 0 0 0 0 0 0 1\n"


def test_who_listens(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    assert _sshd_machine.listening(str(tmp_path)) == [("0.0.0.0", 2222), ("127.0.0.1", 22)]
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    assert ("::1", 22) in _sshd_machine.listening(str(tmp_path))


@pytest.mark.parametrize(("name", "right"), [("sshd", True), ("systemd", True), ("nginx", False)])
def test_whether_it_is_sshd_that_listens(tmp_path: pathlib.Path, name: str, right: bool) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP.replace("        0 1 1 0", "        0 4711 1 0"))
    (tmp_path / "77" / "fd").mkdir(parents=True)
    (tmp_path / "77" / "comm").write_text(f"{name}\n")
    (tmp_path / "77" / "fd" / "3").symlink_to("socket:[4711]")
    assert _sshd_machine.served(22, str(tmp_path)) is right
    assert not _sshd_machine.served(23, str(tmp_path))


def process(proc: pathlib.Path, pid: int, name: str, parent: int, ticks: int) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    fields = ["S", str(parent), *["0"] * 17, str(ticks), "0"]
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


@pytest.mark.parametrize("name", ["sshd", "sshd-session"])
def test_when_a_session_was_begun(tmp_path: pathlib.Path, name: str) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    process(tmp_path, os.getpid(), "python3 (x) y", 900, 99 * ticks)
    process(tmp_path, 900, "sudo", 800, 98 * ticks)
    process(tmp_path, 800, name, 700, 50 * ticks)
    process(tmp_path, 700, "sshd", 1, 3 * ticks)
    assert _sshd_machine.session_begun(str(tmp_path)) == 50


def test_a_process_of_no_session(tmp_path: pathlib.Path) -> None:
    process(tmp_path, os.getpid(), "python3", 1, 5)
    assert _sshd_machine.session_begun(str(tmp_path)) is None
    assert _sshd_machine.session_begun(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("x.conf line 3: Bad configuration option: Foo\nx.conf: terminating, 1 bad configuration options\n",
         "x.conf line 3: Bad configuration option: Foo"),
        ("terminating\n", "terminating"),
        ("\n", "it did not say why"),
    ],
)  # fmt: skip
def test_what_sshd_says_is_wrong(output: str, said: str) -> None:
    assert _sshd_machine._last_line(output) == said


class StandIn(_sshd_machine.Sshd):
    """An sshd that accepts everything; what changes it is written down."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def look(self) -> _sshd_machine.Found:
        return _sshd_machine.Found(Configuration("/x", {"/x": ""}, {}), "ssh.service", True, {}, (9, 2), "OpenSSH_9.2")

    def plan(self, found: _sshd_machine.Found, wanted: Wanted | None) -> _sshd_machine.Plan:
        return _sshd_machine.Plan({"/x": "Port 1\n"})

    def host_keys(self, effective: object) -> list[str]:
        return []

    def apply(self, way_back: WayBack, found: _sshd_machine.Found, plan: _sshd_machine.Plan, seconds: int) -> None:
        self.done.append("apply")


def test_listening_on_loopback_only_needs_a_connection_through_the_relay(tmp_path: pathlib.Path) -> None:
    way_back, sshd, wanted = WayBack(str(tmp_path)), StandIn(), Wanted(loopback=True)
    with pytest.raises(SshdError, match="does not come through Azure Arc"):
        _sshd_machine.change(sshd, way_back, wanted, seconds=30, check=False, through_arc=None)
    assert sshd.done == []
    assert _sshd_machine.change(sshd, way_back, wanted, seconds=30, check=False, through_arc=22)["changed"]
    assert sshd.done == ["apply"]


def test_check_mode_writes_nothing(tmp_path: pathlib.Path) -> None:
    sshd = StandIn()
    found = _sshd_machine.change(
        sshd, WayBack(str(tmp_path / "state")), Wanted(), seconds=30, check=True, through_arc=22
    )
    assert found["changed"] and sshd.done == [] and not (tmp_path / "state").exists()
    assert found["diff"] == [{"before_header": "/x", "after_header": "/x", "before": "", "after": "Port 1\n"}]
