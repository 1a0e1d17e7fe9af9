# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the Molecule scenarios of the roles pass: prepare, check, converge, idempotence, verify?"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from arclab.client import stop

# With ARCFLEET_STEPS=some, as in `make test`, the newest scenario stands for all: what the others verify, tests beside this one do too.
SCENARIOS = ("arc_enforcement", "arc_entra_login", "arc_agent", "arc_sshd")[
    : 1 if os.environ.get("ARCFLEET_STEPS") == "some" else None
]
EXTENSIONS = pathlib.Path(__file__).resolve().parents[2] / "extensions"
BIN = pathlib.Path(sys.prefix, "bin")


@pytest.mark.skipif(
    shutil.which("molecule", path=str(BIN)) is None, reason="Molecule is missing: `make setup-machines`"
)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario, tmp_path):
    state_dir = tmp_path / "molecule" / "lab"
    try:
        # The sockets of ssh's masters are in the home, and their paths have to be short.
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                ["molecule", "test", "--scenario-name", scenario],
                cwd=EXTENSIONS,
                env=environment(pathlib.Path(home), state_dir.parent),
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
    finally:
        if state_dir.exists():
            stop(state_dir)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def environment(home, ephemeral):
    """Nothing of whoever runs the tests; `ephemeral` is where Molecule keeps what it makes."""
    config = home / "ansible.cfg"
    config.touch()
    return {
        **{key: os.environ[key] for key in ("LANG", "LC_ALL", "TMPDIR") if key in os.environ},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_HOME": str(home / ".ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(pathlib.Path(sys.prefix, "collections")),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(ephemeral),
    }


def test_no_scenario_is_forgotten():
    there = {path.parent.name for path in EXTENSIONS.glob("molecule/*/molecule.yml")}
    assert there == {"arc_enforcement", "arc_entra_login", "arc_agent", "arc_sshd"}
