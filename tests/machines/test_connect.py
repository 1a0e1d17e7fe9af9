# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does `connect` learn the machines' host keys from the machines themselves, and does ssh believe nobody else?"""

from __future__ import annotations

import json
import subprocess

import pytest

from on_lab import ansible, environment, module

NAMES = ("web01", "db01")


@pytest.fixture(scope="module")
def lab(machines):
    found = machines(
        {"name": "web01"}, {"name": "db01", "suite": "trixie"}, {"name": "bare01", "image": "bare"}, listener_lag=0
    )
    allowed = module(found, "arc_ssh_service_config", machines=[found.machine(name)["id"] for name in NAMES])
    assert not allowed.get("failed"), allowed
    return found


def connect(lab, folder, targets, *arguments, rc=0, **variables):
    folder.mkdir(mode=0o700, exist_ok=True)
    options = {
        "arc_targets": targets,
        "arc_connection_path": str(folder / "arcfleet.conf"),
        "arc_connection_config": str(folder / "config"),
        "arc_connection_known_hosts": str(folder / "known_hosts"),
        "arc_connection_host_keys": "run_command",
        "arc_connection_control_persist": "no",
        **variables,
    }
    return ansible(lab, "ansible-playbook", "arcfleet.ssh.connect", "-e", json.dumps(options), *arguments, rc=rc).stdout


def log_in(lab, folder, name, *options):
    known = f"UserKnownHostsFile={folder / 'known_hosts'}"
    return subprocess.run(
        ["ssh", "-F", folder / "config", "-o", known, *options, name, "true"],
        env=environment(lab),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_first_connection_is_verified_and_a_key_that_changed_is_taken_when_azure_confirms_it(lab, tmp_path):
    folder = tmp_path / "ssh"
    assert "changed=2" in connect(lab, folder, "web01:db01")
    assert "changed=0" in connect(lab, folder, "web01:db01")
    for name in NAMES:
        assert log_in(lab, folder, name).returncode == 0
        noted = (folder / "known_hosts").read_text(encoding="utf-8")
        assert lab.shell(name, "cut -d ' ' -f 2 /etc/ssh/ssh_host_ed25519_key.pub").stdout.strip() in noted

    lab.shell("web01", "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh")
    refused = log_in(lab, folder, "web01")
    assert refused.returncode == 255
    assert "machines/web01" in refused.stderr and "arc_connection_host_keys_of=web01" in refused.stderr
    said = connect(lab, folder, "web01:db01", rc=2)
    assert "web01" in said
    assert log_in(lab, folder, "web01").returncode == 255
    connect(lab, folder, "web01:db01", arc_connection_changed_host_keys="replace")
    assert log_in(lab, folder, "web01").returncode == 0


def test_a_connection_that_is_trusted_brings_the_keys_that_the_machine_will_have(lab, tmp_path):
    folder = tmp_path / "ssh"
    connect(lab, folder, "db01")
    known = folder / "known_hosts"
    lines = known.read_text(encoding="utf-8").splitlines()
    known.write_text("".join(f"{line}\n" for line in lines if " ssh-ed25519 " in line), encoding="utf-8")
    assert " ssh-rsa " not in known.read_text(encoding="utf-8")
    assert log_in(lab, folder, "db01").returncode == 0
    rsa = lab.shell("db01", "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_rsa_key.pub").stdout.strip()
    assert rsa in known.read_text(encoding="utf-8")

    # The key by which the machine was known goes; the one that it told before is as good.
    lab.shell("db01", "rm /etc/ssh/ssh_host_ed25519_key*; systemctl restart ssh")
    assert log_in(lab, folder, "db01").returncode == 0
    lab.shell("db01", "ssh-keygen -A; systemctl restart ssh")


def test_a_machine_without_a_server_is_named_and_the_others_are_noted(lab, tmp_path):
    folder = tmp_path / "ssh"
    said = connect(lab, folder, "all", rc=2)
    assert "bare01" in said
    assert "There is no OpenSSH server" in said
    assert log_in(lab, folder, "db01").returncode == 0
