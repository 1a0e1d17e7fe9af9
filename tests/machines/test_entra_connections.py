# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does Ansible log in with nothing but an Entra identity, for as long as a play takes, and does it say what is missing when it may not?"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import stat
import subprocess
import time

import pytest

from on_lab import environment, module

ADMIN, USER, LOCAL = (f"Virtual Machine {kind} Login" for kind in ("Administrator", "User", "Local User"))
EXTENSION = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
MACHINES = ("web01", "db01")


@pytest.fixture(scope="module")
def lab(machines):
    """Two machines with aadsshlogin, which SSH is allowed to, and on which nobody has a key."""
    found = machines(
        {"name": "web01", "extensions": [EXTENSION]},
        {"name": "db01", "suite": "trixie", "extensions": [EXTENSION]},
        listener_lag=0,
    )
    allowed = module(found, "arc_ssh_service_config", machines=[found.machine(name)["id"] for name in MACHINES])
    assert not allowed.get("failed"), allowed
    for name in MACHINES:
        found.shell(name, "rm -rf /root/.ssh")
    return found


class Who:
    """A principal with these roles, and what it does with Ansible."""

    def __init__(self, lab, folder, *roles):
        self.lab = lab
        self.principal = lab.principal(f"app-{os.urandom(4).hex()}", roles=[*roles, "Reader"])
        self.name = self.principal["client_id"]
        self.cache = folder / "cache"
        self.inventory = folder / "arc.yml"
        self.inventory.write_text(
            "plugin: arcfleet.ssh.arc_machines\nconnection: relay\nssh_auth: entra\n"
            f"ssh_known_hosts_file: {lab.env['ARCLAB_KNOWN_HOSTS']}\n",
            encoding="utf-8",
        )
        # Masters of one test would serve the next one, whatever was taken away meanwhile.
        self.env = {
            **lab.env_of(self.principal),
            "XDG_CACHE_HOME": str(self.cache),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=5s",
        }

    def run(self, *command, rc=0, **how):
        environ = environment(self.lab, **self.env)
        environ["PATH"] = f"{environment(self.lab)['PATH']}{os.pathsep}{environ['PATH']}"
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False, **how)
        assert done.returncode == rc, done.stdout + done.stderr
        return done

    def ansible(self, program, *arguments, rc=0):
        return self.run(program, "-i", str(self.inventory), *arguments, rc=rc)

    def ping(self, *arguments, rc=0):
        return self.ansible("ansible", "all", "-m", "ansible.builtin.ping", *arguments, rc=rc)

    def assignment(self, role, state):
        done = module(
            self.lab,
            "arc_role_assignment",
            role=role,
            principal_id=self.principal["object_id"],
            principal_type="ServicePrincipal",
            scope=self.principal["scope"],
            state=state,
        )
        assert done.get("changed"), done

    def certificates(self):
        return dict(self.lab.certificate_requests()).get(self.name, 0)

    def files(self, ending):
        return sorted((self.cache / "arcfleet" / "relay").glob(f"entra-*{ending}"))


@pytest.fixture
def who(lab, tmp_path):
    return lambda *roles: Who(lab, tmp_path, *roles)


def test_a_service_principal_logs_in_without_a_key_and_an_admin_is_root(lab, who):
    admin = who(ADMIN)
    done = admin.ping("--become", "-vvvv")
    assert done.stdout.count("| SUCCESS") == 2
    assert admin.certificates() == 1
    for name in MACHINES:
        homes = lab.shell(name, "find / -xdev -path /usr -prune -o -name 'authorized_keys*' -size +0 -print").stdout
        assert homes == ""
    # Nothing of it shows, not even to who asks for every detail.
    said = done.stdout + done.stderr
    assert admin.principal["secret"] not in said
    for file in admin.files("-a") + admin.files("-b"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "-----BEGIN OPENSSH PRIVATE KEY-----"
        assert not [line for line in lines if line in said]
    for file in admin.files("-cert.pub"):
        assert file.read_text(encoding="utf-8").split()[1] not in said
    relay = admin.cache / "arcfleet" / "relay"
    assert {stat.S_IMODE(file.stat().st_mode) for file in relay.iterdir()} == {0o600}
    assert stat.S_IMODE(relay.stat().st_mode) == 0o700


def test_a_user_is_not_root(who):
    user = who(USER)
    assert user.ping().stdout.count("| SUCCESS") == 2
    assert user.ping("--become", rc=2).stdout.count('"msg": "Task failed: Missing sudo password"') == 2


def test_without_the_role_the_next_login_names_it(lab, who):
    admin = who(ADMIN)
    admin.ping()
    admin.assignment(ADMIN, "absent")
    said = admin.ping("--ssh-extra-args=-oControlPath=none", rc=4).stdout
    for name in MACHINES:
        assert f"{name}: cannot get the relay credentials" in said
    assert said.count(ADMIN) >= 2

    # Who may still reach the machine is refused by sshd, which tells nobody why.
    admin.assignment(LOCAL, "present")
    said = " ".join(admin.ping("--ssh-extra-args=-oControlPath=none", rc=4).stdout.split())
    for name in MACHINES:
        assert (
            f"{name}: sshd did not take the SSH certificate of {admin.name}. Most often the role {ADMIN} or {USER}"
            in said
        )
    admin.assignment(USER, "present")
    assert admin.ping().stdout.count("| SUCCESS") == 2


def test_a_terminal_hears_of_it_at_once(who):
    stranger = who(LOCAL)
    listed = stranger.ansible("ansible-inventory", "--host", "web01").stdout
    arguments = json.loads(listed)["ansible_ssh_common_args"]
    done = stranger.run(
        "ssh", *shlex.split(arguments), "-F", "none", "-o", "BatchMode=yes", f"{stranger.name}@web01", "true", rc=255
    )
    assert "Permission denied (publickey)" in done.stderr
    assert "web01: sshd did not take the SSH certificate" in done.stderr


def test_a_certificate_that_ends_in_the_middle_of_a_play_is_renewed(lab, who, tmp_path):
    admin = who(ADMIN)
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.ping": None},
                {"ansible.builtin.meta": "reset_connection"},
                {"ansible.builtin.pause": {"seconds": 9}},
                {"ansible.builtin.ping": None},
                {"ansible.builtin.copy": {"dest": "/tmp/large", "content": "x" * 300000}},
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    lab.setting(certificate_seconds=8)
    try:
        admin.ansible("ansible-playbook", str(tmp_path / "play.yml"))
    finally:
        lab.setting(certificate_seconds=3600)
    assert admin.certificates() >= 2


def test_a_key_that_was_replaced_is_no_harm(who):
    admin = who(ADMIN)
    admin.ping()
    for file in [*admin.files("-a"), *admin.files("-b")]:
        file.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", file], check=True)
    assert admin.ping("--ssh-extra-args=-oControlPath=none").stdout.count("| SUCCESS") == 2
    assert admin.certificates() == 2


def test_files_go_both_ways_without_a_shared_connection(who, tmp_path):
    admin = who(ADMIN)
    listed = admin.ansible("ansible-inventory", "--host", "db01").stdout
    arguments = json.loads(listed)["ansible_ssh_common_args"]
    (tmp_path / "up").write_bytes(os.urandom(200000))
    commands = f"put {tmp_path}/up /tmp/up-{admin.name}\nget /tmp/up-{admin.name} {tmp_path}/down\n"
    for _time in range(2):
        done = admin.run("sftp", "-b", "-", *shlex.split(arguments), "-F", "none", f"{admin.name}@db01", input=commands)
        assert "did not take" not in done.stderr
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


def test_a_user_of_the_azure_cli_logs_in_by_name(lab, who, tmp_path):
    one = who(USER)
    upn = "Anna.Admin@arclab.onmicrosoft.example"
    lab.principal(upn, type="User", roles=[ADMIN, "Reader"])
    signed_in = lab.cli_login(tmp_path / "azure", upn)
    one.env = {
        **{
            name: value
            for name, value in one.env.items()
            if name not in ("AZURE_CLIENT_ID", "AZURE_SECRET", "AZURE_CLIENT_SECRET")
        },
        **signed_in,
        "ANSIBLE_AZURE_AUTH_SOURCE": "cli",
    }
    done = one.ansible("ansible", "all", "--become", "-m", "ansible.builtin.command", "-a", "printenv SUDO_USER")
    assert done.stdout.count(upn.lower()) == 2


def test_no_helper_is_left_behind(lab):
    until = time.monotonic() + 30
    while (left := helpers(lab)) and time.monotonic() < until:
        time.sleep(0.5)
    assert left == []


def helpers(lab):
    """The helpers that serve a certificate's connection to this lab; other tests have labs and connections of their own."""
    mine = f"ARCLAB_STATE_DIR={lab.env['ARCLAB_STATE_DIR']}\0".encode()
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes() + b"\0"
        except OSError:
            continue
        if b"_start.py" in command and b"--certificate" in command and mine in environ:
            found.append(command.decode(errors="replace"))
    return found
