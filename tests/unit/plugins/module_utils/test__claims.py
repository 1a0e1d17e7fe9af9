# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do claims keep two runs off one machine, and go when a run is killed?"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _claims
from ansible_collections.arcfleet.ssh.plugins.module_utils._claims import Claims
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import Interrupted

OTHER = """
import sys
from ansible_collections.arcfleet.ssh.plugins.module_utils._claims import Claims
with Claims(sys.argv[1]).hold(sys.argv[2], lambda seconds: sys.exit("held")):
    print("claimed", flush=True)
    sys.stdin.read()
"""


COLLECTIONS = pathlib.Path(_claims.__file__).parents[5]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}


class Gave(Exception):
    """Patience is over."""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the claim of web01."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, tmp_path / "a" / "claims", "web01"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    ) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def give_up(seconds):
    raise Gave


def test_what_another_run_holds_is_waited_for(other, tmp_path):
    claims = Claims(str(tmp_path / "a" / "claims"))
    with pytest.raises(Gave), claims.hold("web01", give_up):
        pass
    with claims.hold("web02", give_up):
        pass
    waits = []

    def wait(seconds):
        waits.append(seconds)
        other.stdin.close()
        other.wait(10)

    with claims.hold("web01", wait):
        assert waits == [0.1]
    claims.close()


def test_a_killed_run_holds_nothing(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait(10)
    with Claims(str(tmp_path / "a" / "claims")).hold("web01", give_up):
        pass


def test_a_failure_in_the_block_gives_the_claim_back(tmp_path):
    path = str(tmp_path / "a" / "claims")
    claims = Claims(path)
    with pytest.raises(Interrupted), claims.hold("web01", give_up):
        raise Interrupted("x")
    subprocess.run([sys.executable, "-c", OTHER, path, "web01"], env=ENVIRONMENT, input="", text=True, check=True)
    claims.close()


def test_the_file_is_the_owners_alone_and_stays_empty(tmp_path):
    path = tmp_path / "a" / "claims"
    with Claims(str(path)).hold("web01", give_up):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_size == 0


def test_without_a_place_to_write_the_run_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    with Claims(str(tmp_path / "file" / "claims")).hold("web01", give_up):
        pass
