# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops a run from outside?"""

from __future__ import annotations

import os
import signal
import time

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._interruption import stoppable
from ansible_collections.arcfleet.ssh.plugins.module_utils._pacing import Pace


def waited(pace):
    """Whether the pace is stopped, soon."""
    deadline = time.monotonic() + 10
    while not pace.stopped and time.monotonic() < deadline:
        time.sleep(0.01)
    return pace.stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_the_run_and_are_given_back(number):
    before, pace = signal.getsignal(number), Pace()
    with stoppable(pace):
        os.kill(os.getpid(), number)
        assert waited(pace)
    assert signal.getsignal(number) == before


def test_the_loss_of_the_reader_stops_the_run():
    reading, writing = os.pipe()
    pace = Pace()
    try:
        with stoppable(pace, writing):
            time.sleep(0.02)
            assert not pace.stopped
            os.close(reading)
            assert waited(pace)
    finally:
        os.close(writing)


def test_a_file_has_no_reader_to_lose(tmp_path):
    pace = Pace()
    with open(tmp_path / "out", "w", encoding="utf-8") as handle, stoppable(pace, handle.fileno()):
        time.sleep(0.02)
    assert not pace.stopped
