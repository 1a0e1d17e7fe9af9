# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does `ansible -m ping` work through the relay with nothing before it, and do secrets stay where they belong?"""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
import time

import pytest

from on_lab import ansible, module

PING = ("ansible", "all", "-m", "ansible.builtin.ping")


def enable(lab):
    result = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in lab.machines()])
    assert not result.get("failed"), result


def test_ping_needs_nothing_before_it(start):
    lab = start(machines=3, listener_lag=1)
    enable(lab)
    done = ansible(lab, *PING)
    assert done.stdout.count('"ping": "pong"') == 3


@pytest.mark.one_core
def test_ping_works_when_the_credentials_expired_meanwhile(start):
    lab = start(machines=2, credential_lifetime=3)
    enable(lab)
    ansible(lab, *PING, env={"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"})
    time.sleep(3.5)
    lab.clear_journal()
    done = ansible(lab, *PING, env={"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"})
    assert done.stdout.count('"ping": "pong"') == 2
    assert [entry for entry in lab.journal() if (entry.get("path") or "").endswith("listCredentials")]


def test_connecting_never_prepares(start):
    lab = start(machines=1)
    done = ansible(lab, *PING, rc=4)
    assert "arcfleet.ssh.enable" in done.stdout and "web01" in done.stdout
    assert not [entry for entry in lab.journal() if entry.get("method") in ("PUT", "PATCH", "DELETE")]


@pytest.mark.one_core
def test_the_documented_roles_suffice_and_are_kept_apart(start):
    roles = pathlib.Path(__file__).parents[2] / "docs" / "roles"
    lab = start(machines=2, unregistered=True, registration_seconds=0.2)
    prepare, connect = (
        lab.env_of(
            lab.principal(
                name, actions=json.loads((roles / f"arc-ssh-{name}.json").read_text(encoding="utf-8"))["Actions"]
            )
        )
        for name in ("prepare", "connect")
    )
    ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane", env=prepare)
    extension = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
    for state in ("present", "absent"):
        result = module(lab, "arc_extension", machines=[lab.machines()[0]["id"]], env=prepare, state=state, **extension)
        assert not result.get("failed") and result["changed"], result
    done = ansible(lab, *PING, env=prepare, rc=4)
    assert "Microsoft.HybridConnectivity/endpoints/listCredentials/action" in done.stdout
    done = ansible(lab, *PING, env=connect)
    assert done.stdout.count('"ping": "pong"') == 2
    result = module(lab, "arc_ssh_service_config", machines=[lab.machines()[0]["id"]], state="absent", env=connect)
    assert result["failed"]
    ansible(lab, "ansible-playbook", "arcfleet.ssh.disable", env=prepare)


def secrets_of(lab):
    """Everything that must never be seen, from where the lab and the cache keep it."""
    found = {lab.env["AZURE_SECRET"], "hunter2-protected"}
    for path in pathlib.Path(lab.env["XDG_CACHE_HOME"], "arcfleet", "relay").glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        relay = content.get("relay", {})
        found |= {
            value
            for value in (content.get("token"), relay.get("accessKey"), relay.get("serviceConfigurationToken"))
            if value
        }
    return found


@pytest.mark.one_core
def test_secrets_are_nowhere_but_in_the_cache(start):
    lab = start(machines=2)
    command = ["-vvvv", "--diff"]
    outputs = []
    extension = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
    for check in (True, False):
        machines = [machine["id"] for machine in lab.machines()]
        protected = {"protected_settings": {"key": "hunter2-protected"}}
        outputs.append(
            json.dumps(module(lab, "arc_extension", machines=machines, check=check, **extension, **protected))
        )
    outputs.append(ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", *command).stdout)
    local = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_remote_tmp": str(lab.state_dir / "tmp"),
    }
    arguments = "force=true machines={{ [arc_resource_id] }}"
    prefetched = ansible(
        lab,
        "ansible",
        "all",
        "-m",
        "arcfleet.ssh.arc_relay_credential",
        "-a",
        arguments,
        "-e",
        json.dumps(local),
        *command,
    )
    outputs += [prefetched.stdout, prefetched.stderr]
    secrets = secrets_of(lab)
    assert len(secrets) >= 6, "secret, protected setting, and two for each machine"
    # Without what was prefetched and without a connection that is open still, the helpers log in and ask Azure themselves.
    for path in pathlib.Path(lab.env["XDG_CACHE_HOME"], "arcfleet", "relay").glob("*.json"):
        path.unlink()
    look = ("-m", "ansible.builtin.shell", "-a", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", "-e", "ansible_ssh_args=-C")
    running = ansible(lab, "ansible", "all", *look, *command)
    outputs += [running.stdout, running.stderr]
    assert "_relay" in running.stdout, "the helper's command line was among those looked at"
    inventory = ansible(lab, "ansible-inventory", "--list", "-vvvv")
    outputs += [inventory.stdout, inventory.stderr]
    fetched = secrets_of(lab)
    assert len(fetched) >= 7 and len(fetched - secrets) >= 5, "a token as well, and two new ones for each machine"
    secrets |= fetched
    for output in outputs:
        for secret in secrets:
            assert secret not in output

    journal = (lab.state_dir / "journal.jsonl").read_text(encoding="utf-8")
    for secret in secrets:
        assert secret not in journal

    cache = pathlib.Path(lab.env["XDG_CACHE_HOME"], "arcfleet", "relay")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for path in cache.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    home = lab.state_dir / "home"
    for path in (path for path in home.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, path


def test_the_cache_is_not_shared_with_others(start):
    lab = start(machines=1)
    enable(lab)
    cache = pathlib.Path(lab.env["XDG_CACHE_HOME"], "arcfleet", "relay")
    cache.mkdir(parents=True)
    os.chmod(cache, 0o755)
    done = ansible(lab, *PING, rc=4)
    assert "is open to others (mode 0755" in done.stdout
