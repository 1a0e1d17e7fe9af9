# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does `enable` lead from machines that have nothing but an agent to logins with Entra ID, without a key ever having been on them?"""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from on_lab import environment

pytestmark = pytest.mark.takes_minutes

ADMIN = "Virtual Machine Administrator Login"
NAMES = ("web01", "web02")


@pytest.fixture(scope="module")
def lab(machines):
    return machines({"name": "web01", "image": "bare"}, {"name": "web02"}, listener_lag=0)


@pytest.fixture(scope="module")
def enable(lab, tmp_path_factory):
    """Run the playbook as a service principal that owns the subscription, and may log in once the run has given it the role."""
    folder = tmp_path_factory.mktemp("entra")
    lab.shell("web02", "rm -rf /root/.ssh")
    owner = lab.principal("owner", roles=["Owner"])
    inventory = folder / "arc.yml"
    inventory.write_text(
        "plugin: arcfleet.ssh.arc_machines\nconnection: relay\nssh_auth: entra\n"
        f"ssh_known_hosts_file: {lab.env['ARCLAB_KNOWN_HOSTS']}\n",
        encoding="utf-8",
    )
    assignment = {
        "role": ADMIN,
        "principal_id": owner["object_id"],
        "principal_type": "ServicePrincipal",
        "scope": owner["scope"],
    }
    variables = {"arc_entra": True, "arc_entra_login_assignments": [assignment], "arc_entra_login_repository": ""}

    def run(*arguments, rc=0, **more):
        done = subprocess.run(
            [
                *("ansible-playbook", "-i", str(inventory), "arcfleet.ssh.enable"),
                *("-e", json.dumps({**variables, "arc_entra_login_ignore": [], **more}), *arguments),
            ],
            env=environment(lab, **{**lab.env_of(owner), "XDG_CACHE_HOME": str(folder / "cache")}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout

    return run


def recap(text, host):
    line = re.search(rf"^{host} .*$", text, re.MULTILINE)
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line[0])} if line else {}


def test_a_rehearsal_predicts_and_changes_nothing(lab, enable):
    said = enable("--check")
    assert "2 created" in said
    assert not [line for line in lab.journal() if line["kind"] == "arm" and line["method"] in ("PUT", "DELETE")]
    for name in NAMES:
        assert recap(said, name).get("unreachable", 0) == 0


def test_then_the_machines_are_logged_in_to_with_entra_id_alone(lab, enable):
    said = enable()
    assert f"ready: {', '.join(sorted(NAMES))}" in said
    for name in NAMES:
        assert recap(said, name)["changed"] >= 1
        assert lab.shell(name, "test ! -e /root/.ssh/authorized_keys", check=False).returncode == 0
        assert lab.shell(name, "grep -c aad_certhandler /etc/ssh/sshd_config").stdout.strip() == "1"


def test_a_second_run_changes_nothing(enable):
    said = enable()
    for name in NAMES:
        assert recap(said, name)["changed"] == 0, said
