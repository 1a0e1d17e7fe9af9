# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do ssh, scp and sftp reach the machines by name with what the playbook wrote, also after the credentials have expired, and never the wrong one?"""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import tempfile
import time

import pytest

from on_lab import ansible, environment, module

CONNECT = ("ansible-playbook", "arcfleet.ssh.connect")


@pytest.fixture
def site(start, tmp_path):
    """Four machines, two of which have the same name, and the home of a user who has a configuration already."""
    fleet = tmp_path / "fleet.json"
    fleet.write_text(
        json.dumps(
            [
                {"name": "web01"},
                {"name": "web01", "subscription": 2},
                {"name": "db01", "resource_group": "rg(1)"},
                {"name": "off01", "stopped": True},
            ]
        ),
        encoding="utf-8",
    )
    lab = start(fleet=str(fleet), subscriptions=2, listener_lag=0, credential_lifetime=4)
    done = module(lab, "arc_ssh_service_config", machines=[one["id"] for one in lab.machines()])
    assert not done.get("failed"), done
    # pytest's own directories have names too long for the sockets of shared connections.
    with tempfile.TemporaryDirectory() as folder:
        yield Site(lab, pathlib.Path(folder))


class Site:
    """A user, who never touches their own home here: ssh takes it from the password database, so files are named to it."""

    def __init__(self, lab, folder):
        self.lab = lab
        self.folder = folder / "ssh"
        self.folder.mkdir(mode=0o700)
        self.config = self.folder / "config"
        self.file = self.folder / "arcfleet.conf"
        self.config.write_text("Host *\n  LogLevel ERROR\n", encoding="utf-8")
        # All subscriptions, not the one of the environment.
        self.env = {"XDG_CACHE_HOME": str(folder / "cache"), "AZURE_SUBSCRIPTION_ID": ""}
        self.options = (
            "-e",
            json.dumps({"arc_connection_path": str(self.file), "arc_connection_config": str(self.config)}),
        )

    def connect(self, *arguments, **how):
        return ansible(self.lab, *CONNECT, *self.options, *arguments, env=self.env, **how).stdout

    def run(self, program, *arguments, rc=0, **how):
        done = subprocess.run(
            [program, "-F", str(self.config), *arguments],
            env=environment(self.lab, **self.env),
            capture_output=True,
            timeout=60,
            check=False,
            **how,
        )
        assert done.returncode == rc, done.stderr.decode()
        return done

    def effective(self, name):
        lines = self.run("ssh", "-G", name).stdout.decode().splitlines()
        return dict(line.split(" ", 1) for line in lines if " " in line)


def files(folder):
    return {
        file.name: (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) for file in folder.iterdir() if file.is_file()
    }


def test_everything_that_uses_ssh_reaches_the_machines(site, tmp_path):
    before = files(site.folder)
    assert "changed=1" in site.connect("--check", "--diff")
    assert files(site.folder) == before
    assert "changed=1" in site.connect()
    assert "changed=0" in site.connect()
    assert files(site.folder)["arcfleet.conf"][1] == 0o600
    written = site.file.read_text(encoding="utf-8")
    assert site.lab.env["AZURE_SECRET"] not in written
    names = [line.split()[1] for line in written.splitlines() if line.startswith("Host ")]
    one, other = sorted(name for name in names if name.startswith("web01."))
    assert set(names) == {one, other, "db01", "off01"}

    first = site.effective(one)
    for name in (one, other, "db01"):
        sent = b"\x00\xff\r\n~.\n"
        said = site.run("ssh", name, "echo $ARCLAB_MACHINE; cat", input=sent).stdout
        assert said == name.partition(".")[0].encode() + b"\n" + sent

    # So does whoever types an id; ssh itself refuses one with parentheses.
    identifier = first["hostname"]
    assert site.run("ssh", identifier, "echo typed").stdout == b"typed\n"

    sent = os.urandom(300_000)
    (tmp_path / "up").write_bytes(sent)
    site.run("scp", "-q", str(tmp_path / "up"), f"db01:{tmp_path}/there")
    site.run("scp", "-q", f"db01:{tmp_path}/there", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == sent
    site.run("sftp", "-q", "-b", "-", "db01", input=f"get {tmp_path}/there {tmp_path}/again\n".encode())
    assert (tmp_path / "again").read_bytes() == sent

    # Credentials have expired several times since; nothing was written anew.
    for master in (one, other, "db01"):
        subprocess.run(
            ["ssh", "-F", site.config, "-O", "exit", master],
            env=environment(site.lab),
            capture_output=True,
            check=False,
        )
    time.sleep(4.5)
    site.lab.clear_journal()
    assert site.run("ssh", one, "echo later").stdout == b"later\n"
    assert [line for line in site.lab.journal() if (line.get("path") or "").endswith("listCredentials")]

    subprocess.run(
        ["ssh", "-F", site.config, "-O", "exit", one], env=environment(site.lab), capture_output=True, check=False
    )
    assert "changed=1" in site.connect("-e", "arc_connection_state=absent")
    assert files(site.folder) == before


@pytest.mark.one_core
def test_machines_of_one_name_are_never_taken_for_each_other(site, tmp_path):
    site.connect()
    written = site.file.read_text(encoding="utf-8")
    one, other = sorted(line.split()[1] for line in written.splitlines() if line.startswith("Host web01."))
    first, second = site.effective(one), site.effective(other)
    for option in ("hostname", "controlpath"):
        assert first[option] != second[option], option
    # By which ssh also knows their host keys.
    identifiers = {one: first["hostname"].lower(), other: second["hostname"].lower()}

    def where(name, *options, rc=0):
        """The home in which a login ends, of which each machine of the lab has its own; or what ssh says."""
        done = site.run("ssh", *options, name, "echo $HOME", rc=rc)
        return done.stdout.decode().strip() if rc == 0 else done.stderr.decode()

    # An open connection to the one is none to the other.
    homes = {one: where(one)}
    checked = ["ssh", "-F", str(site.config), "-O", "check"]
    env = environment(site.lab, **site.env)
    assert subprocess.run([*checked, one], env=env, capture_output=True, check=False).returncode == 0
    assert subprocess.run([*checked, other], env=env, capture_output=True, check=False).returncode != 0
    homes[other] = where(other)
    assert homes[one] != homes[other]

    # Each has credentials of its own, and those of the other in their place are not taken.
    alone = ("-o", "ControlMaster=no", "-o", "ControlPath=none")
    cache = pathlib.Path(site.env["XDG_CACHE_HOME"]) / "arcfleet" / "relay"
    held = {
        subject[0]: file
        for file in cache.glob("*.json")
        if isinstance(subject := json.loads(file.read_bytes()).get("subject"), list)
    }
    assert set(held) == set(identifiers.values())
    mine, theirs = (held[identifiers[name]] for name in (one, other))
    texts = mine.read_bytes(), theirs.read_bytes()
    mine.write_bytes(texts[1])
    theirs.write_bytes(texts[0])
    site.lab.clear_journal()
    for name in (one, other):
        assert where(name, *alone) == homes[name]
    asked = [line for line in site.lab.journal() if (line.get("path") or "").endswith("listCredentials")]
    assert len(asked) == 2, "credentials of another machine were taken for one's own"

    # The other's host key under this one's name is somebody else's, in both directions.
    known = pathlib.Path(site.lab.env["ARCLAB_KNOWN_HOSTS"])
    lines = known.read_text(encoding="utf-8")
    swapped = lines.replace(identifiers[one], "@").replace(identifiers[other], identifiers[one])
    known.write_text(swapped.replace("@", identifiers[other]), encoding="utf-8")
    for name in (one, other):
        assert "Host key verification failed" in where(name, *alone, rc=255)


@pytest.mark.one_core
def test_a_machine_that_is_away_is_named_and_others_leave_the_file(site):
    site.connect("-e", "arc_targets=off01")
    written = site.file.read_text(encoding="utf-8")
    assert "Host off01" in written
    assert "db01" not in written
    refused = site.run(
        "ssh", "-o", "ControlPath=none", "-o", "ControlMaster=no", "-o", "ConnectTimeout=5", "off01", "true", rc=255
    )
    assert b"off01" in refused.stderr


def test_a_changed_host_key_is_refused_by_the_machine_s_name(site):
    site.connect()
    known = pathlib.Path(site.lab.env["ARCLAB_KNOWN_HOSTS"])
    lines = known.read_text(encoding="utf-8").splitlines()
    identifier = site.effective("db01")["hostname"].lower()
    other = next(line.split(" ", 1)[1] for line in lines if not line.startswith(identifier))
    spoiled = "\n".join(f"{identifier} {other}" if line.startswith(identifier) else line for line in lines)
    known.write_text(spoiled + "\n", encoding="utf-8")
    refused = site.run("ssh", "-o", "ControlMaster=no", "-o", "ControlPath=none", "db01", "true", rc=255)
    assert identifier.encode() in refused.stderr
    assert b"Host key verification failed" in refused.stderr
    assert known.read_text(encoding="utf-8") == spoiled + "\n"
