# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does ssh itself print the reason when it has silenced the helper?"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
from relay_double import HELPER, MACHINE, Helper

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _farewell


def test_only_dev_null_is_silence(tmp_path: pathlib.Path) -> None:
    with open(os.devnull, "w", encoding="utf-8") as null, open(tmp_path / "log", "w", encoding="utf-8") as log:
        assert _farewell.is_silenced(null.fileno())
        assert not _farewell.is_silenced(log.fileno())
        closed = os.dup(log.fileno())
    os.close(closed)
    assert _farewell.is_silenced(closed)


def test_the_remedy_survives_a_long_message() -> None:
    assert _farewell.fit("a.", "b.") == "a. b."
    assert _farewell.fit("a.", None) == "a."
    assert _farewell.fit("a" * 999, None) == "a" * 400
    fitted = _farewell.fit("a" * 999, "do this.")
    assert len(fitted) == 400
    assert fitted.endswith("a... do this.")
    assert _farewell.fit("a" * 999, "b" * 999) == "a" * 100 + "... " + "b" * 296


@pytest.mark.parametrize("length", range(20))
def test_the_packet_is_one_of_rfc_4253(length: int) -> None:
    data = _farewell.packet("x" * length)
    assert data.startswith(b"SSH-2.0-arcfleet.ssh\r\n")
    binary = data.partition(b"\r\n")[2]
    assert len(binary) % 8 == 0
    assert int.from_bytes(binary[:4], "big") == len(binary) - 4
    padding = binary[4]
    assert padding >= 4
    assert binary[5 : len(binary) - padding] == b"\x01\0\0\0\x07" + length.to_bytes(4, "big") + b"x" * length + bytes(4)


def test_nobody_is_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_farewell, "_PATIENCE", 0.1)
    source, ours = os.pipe()
    theirs, sink = os.pipe()
    begun = time.monotonic()
    _farewell.disconnect("x", source, sink)
    assert 0.05 < time.monotonic() - begun < 1
    os.close(ours)
    os.close(theirs)
    _farewell.disconnect("x", source, sink)
    os.close(source)
    os.close(sink)


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh on this computer")
@pytest.mark.parametrize("persist", ["no", "60s"])
def test_ssh_prints_the_reason(helper: Helper, tmp_path: pathlib.Path, persist: str) -> None:
    helper.cache.mkdir(mode=0o755)
    proxy = f"{sys.executable} {HELPER} --resource-id {MACHINE} --port %p --cache-dir {helper.cache}"
    options = ("ProxyCommand=" + proxy, "ControlMaster=auto", f"ControlPersist={persist}", f"ControlPath={tmp_path}/s")
    done = subprocess.run(
        ["ssh", "-F", "none", *(part for option in options for part in ("-o", option)), "web01", "true"],
        env=helper.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 255
    assert f"The directory {helper.cache} for relay credentials is open to others" in done.stderr
    assert "--cache-dir" in done.stderr
    assert ("Received disconnect from" in done.stderr) is (persist != "no")
