# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does arc_enforcement refuse what cannot work, before it changes anything, and tell all of it at once?"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

BIN = pathlib.Path(sys.prefix, "bin")


@pytest.fixture
def refusal(tmp_path):
    """Run the role here in check mode, which it does not survive; the reason."""

    def refusal(**variables):
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable, **variables},
            "roles": ["arcfleet.ssh.arc_enforcement"],
        }
        (tmp_path / "site.json").write_text(json.dumps([play]))
        (tmp_path / "ansible.cfg").touch()
        done = subprocess.run(
            [BIN / "ansible-playbook", "--check", "-i", "localhost,", "site.json"],
            cwd=tmp_path,
            env={
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "LANG": "C.UTF-8",
                "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(pathlib.Path(sys.prefix, "collections")),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stdout + done.stderr
        line = next(line for line in done.stdout.splitlines() if line.startswith("fatal:"))
        return json.loads(line.partition(" => ")[2])["msg"]

    return refusal


def test_everything_that_cannot_work_is_told(refusal):
    told = refusal(
        arc_enforcement_scheduler="cron",
        arc_enforcement_cron_schedule="hourly",
        arc_enforcement_install=False,
        arc_enforcement_ansible_playbook="/nowhere/ansible-playbook",
        arc_enforcement_inventory="/nowhere/arc.yml",
        arc_enforcement_group_vars={"all": {"arc_entra": True}},
        arc_enforcement_environment={"KEY": "-----BEGIN\nhere", "A-B": "x"},
        arc_enforcement_credentials=[{"name": "../etc", "path": "/x", "encrypted": True}],
    )
    for part in (
        "arc_enforcement_group_vars goes with an arc_enforcement_inventory that is given as content",
        "There is no /nowhere/ansible-playbook and no /nowhere/arc.yml on this host.",
        "A value of arc_enforcement_environment has several lines.",
        "A name in arc_enforcement_environment is none of an environment variable",
        "A name in arc_enforcement_credentials has other characters",
        "arc_enforcement_cron_schedule has not five fields",
        "Only systemd reads encrypted credentials.",
    ):
        assert part in told
    assert "Which fleet?" not in told
    assert "BEGIN" not in told


def test_what_is_right_is_not_objected_to(refusal):
    # Only what is missing is told.
    told = refusal(
        arc_enforcement_scheduler="cron",
        arc_enforcement_cron_schedule="*/30 2-4 * * mon",
        arc_enforcement_environment={"AZURE_TENANT": "x", "_A1": 1},
        arc_enforcement_credentials=[{"name": "ssh-key_1.pem", "content": "a\nb"}],
    )
    assert told.startswith("Which fleet?")
    assert "arc_enforcement_environment" not in told
    assert "arc_enforcement_credentials" not in told
    assert "arc_enforcement_cron_schedule" not in told
