# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the bootstrap get real machines to the point where a key opens them, and tell in a sentence where it cannot?

The role runs from the controller through Azure's run command; what is about the script alone is run in the machine by itself.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from on_lab import ansible, descendants, environment, module

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "arc_sshd"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILdKc5vHjdOMRHZOF8n1yDWYjSzPJZ3H2UwJ5Q0iY1Rb someone@somewhere"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
BOTH = pytest.mark.parametrize("name", ["db01", "db02"])
BARE = pytest.mark.parametrize("name", ["web01", "web02"])

# What came of it, told as enable.yml tells it, and as a file for the tests.
PLAYBOOK = [
    {
        "hosts": "{{ chosen }}",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.include_role": {"name": "arcfleet.ssh.arc_sshd", "tasks_from": "bootstrap"},
            },
            {
                "ansible.builtin.copy": {"content": "{{ told | to_json }}", "dest": "{{ file }}", "mode": "0600"},
                "delegate_to": "localhost",
                "run_once": True,
                "check_mode": False,
                "vars": {
                    **LOCAL,
                    "told": {
                        "ran": "{{ arc_sshd_bootstrap_result.results | map(attribute='machines', default={}) | list }}",
                        "noted": "{{ arc_sshd_known_hosts_result.machines | default({}) }}",
                    },
                },
            },
            {
                "ansible.builtin.fail": {"msg": "{{ arc_sshd_bootstrap_failure }}"},
                "when": "arc_sshd_bootstrap_failure is defined",
            },
        ],
    }
]


@pytest.fixture(scope="module")
def lab(machines):
    return machines(
        {"name": "web01", "image": "bare"},
        {"name": "web02", "image": "bare", "suite": "trixie"},
        {"name": "db01"},
        {"name": "db02", "suite": "trixie"},
    )


def play(lab, *names, rc=0, **variables):
    """Run the role. What is told of each machine, by its name, and the output."""
    playbook, file = lab.state_dir / "bootstrap.json", lab.state_dir / "told.json"
    playbook.write_text(json.dumps(PLAYBOOK))
    file.unlink(missing_ok=True)
    given = {"chosen": ":".join(names), "file": str(file), "arc_sshd_bootstrap": "always", **variables}
    done = ansible(lab, "ansible-playbook", str(playbook), "-e", json.dumps(given), rc=rc)
    told = json.loads(file.read_text())
    ran = {entry["name"]: entry for batch in told["ran"] for entry in batch.values()}
    for entry in told["noted"].values():
        ran[entry["name"]]["noted"] = entry
    return ran, done.stdout


def script(lab, name, **variables):
    """Run the script in the machine as the agent would: what it says, which is one line of JSON."""
    given = [f"ARCFLEET_{key}={value}" for key, value in variables.items()]
    text = (ROLE / "files" / "bootstrap.sh").read_text()
    done = lab.shell(name, ["env", "-i", *given, "sh", "-s"], stdin=text, check=False, timeout=60)
    [line] = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["problem"] is None) is (done.returncode == 0), (told, done.stderr)
    return told


def shown(lab, name, command):
    return lab.shell(name, command).stdout.strip()


def host_keys(lab, name):
    return set(shown(lab, name, "cut -d' ' -f1,2 /etc/ssh/ssh_host_*_key.pub").splitlines())


def known(lab, name):
    """The keys of a machine in the fleet's known_hosts."""
    lines = pathlib.Path(lab.env["ARCLAB_KNOWN_HOSTS"]).read_text().splitlines()
    identity = lab.machine(name)["id"].lower()
    return {line.partition(" ")[2] for line in lines if line.split()[0] == identity}


def ssh(lab, name, user, *command):
    """Log in with the lab's key, to a machine whose host key known_hosts has to have."""
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-i", lab.env["ARCLAB_KEY"], "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={lab.env['ARCLAB_KNOWN_HOSTS']}"),
            *("-o", "GlobalKnownHostsFile=none", "-o", f"HostKeyAlias={lab.machine(name)['id'].lower()}"),
            *("-o", "ConnectTimeout=10", f"{user}@{lab.machine(name)['address']}", *command),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def restored(lab):
    """What a test does to sshd's configuration and its units is undone after it."""
    touched = []
    yield touched.append
    for name in touched:
        lab.shell(
            name,
            "rm -f /etc/ssh/sshd_config.d/*.conf; systemctl unmask ssh.service; systemctl disable --now ssh.socket",
        )
        lab.shell(
            name, "systemctl daemon-reload; systemctl enable ssh.service; systemctl reset-failed; systemctl restart ssh"
        )


def test_a_rehearsal_changes_nothing(lab):
    lab.clear_journal()
    playbook = lab.state_dir / "rehearsal.json"
    playbook.write_text(json.dumps(PLAYBOOK))
    given = {"chosen": "web01:web02", "file": str(lab.state_dir / "told.json"), "arc_sshd_bootstrap": "always"}
    done = ansible(lab, "ansible-playbook", str(playbook), "--check", "-e", json.dumps(given))
    assert "2 created" in done.stdout
    assert [line for line in lab.journal() if line["kind"] == "arm" and line["method"] not in ("GET", "POST")] == []
    assert lab.shell("web01", "command -v sshd", check=False).returncode != 0


def test_an_installation_killed_half_way_is_ended_by_the_next_run(lab):
    running = subprocess.Popen(
        [
            *("ansible-playbook", "-i", lab.env["ARCLAB_INVENTORY"], str(lab.state_dir / "rehearsal.json"), "-e"),
            json.dumps({"chosen": "web01", "file": str(lab.state_dir / "x.json"), "arc_sshd_bootstrap": "always"}),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(lab),
        cwd=lab.state_dir,
    )
    # While the package is being unpacked or set up, everything that works on it dies at once.
    lab.shell(
        "web01",
        # In brackets, or it would kill this shell as well.
        "until pgrep -x dpkg >/dev/null && [ -e /usr/sbin/sshd -o -e /usr/sbin/sshd.dpkg-new ]; do sleep 0.01; done; "
        "pkill -9 -f run-command-handle[r]; pkill -9 -x apt-get; pkill -9 -x dpkg; true",
        timeout=60,
    )
    output, _nothing = running.communicate(timeout=120)
    assert running.returncode == 2 and "web01: the script" in output
    status = lab.shell("web01", "dpkg-query -W -f '${Status}' openssh-server", check=False).stdout
    assert status != "install ok installed"

    ran, _output = play(lab, "web01")
    assert ran["web01"]["json"]["changed"] is True and ran["web01"]["json"]["problem"] is None
    assert shown(lab, "web01", "dpkg-query -W -f '${Status}' openssh-server") == "install ok installed"
    assert shown(lab, "web01", "dpkg --audit") == ""


def test_machines_with_nothing_but_an_agent_get_a_server_a_user_and_a_key(lab):
    wanted = {"arc_sshd_user": "deploy", "arc_sshd_user_create": True, "arc_sshd_user_sudo": True}
    ran, _output = play(lab, "web01", "web02", **wanted)
    for name in ("web01", "web02"):
        told = ran[name]["json"]
        assert ran[name]["action"] == "create" and told["problem"] is None
        assert told["port"] == [22] and told["listeners"] and told["version"].startswith("OpenSSH_")
        assert set(told["host_keys"]) == host_keys(lab, name) == known(lab, name)
        assert shown(lab, name, "systemctl is-enabled ssh; systemctl is-active ssh").split() == ["enabled", "active"]
        done = ssh(lab, name, "deploy", "sudo", "-n", "id", "-u")
        assert done.stdout.strip() == "0", done.stderr
    assert os.stat(lab.env["ARCLAB_KNOWN_HOSTS"]).st_mode & 0o777 == 0o600

    again, _output = play(lab, "web01", "web02", **wanted)
    for name in ("web01", "web02"):
        assert again[name]["json"]["changed"] is False and again[name]["action"] == "none"
        assert again[name]["noted"]["action"] == "none" and again[name]["json"]["host_keys"]


@BARE
def test_files_are_the_users_own_and_nobody_elses(lab, name):
    key = pathlib.Path(f"{lab.env['ARCLAB_KEY']}.pub").read_text().strip()
    assert shown(lab, name, "stat -c '%U:%G %a' ~deploy/.ssh ~deploy/.ssh/authorized_keys").splitlines() == [
        "deploy:deploy 700",
        "deploy:deploy 600",
    ]
    assert shown(lab, name, "cat ~deploy/.ssh/authorized_keys") == key
    assert shown(lab, name, "stat -c '%U %a' /etc/sudoers.d/arcfleet-deploy") == "root 440"
    assert shown(lab, name, "cat /etc/sudoers.d/arcfleet-deploy") == "deploy ALL=(ALL:ALL) NOPASSWD: ALL"
    lab.shell(name, "visudo -c")
    # No password fits, and the account is not locked either.
    assert shown(lab, name, "getent shadow deploy").split(":")[1] == "*"
    assert shown(lab, name, "ls -A ~deploy/.ssh; ls -A /etc/sudoers.d | grep -v README").split() == [
        "authorized_keys",
        "arcfleet-deploy",
    ]


@BOTH
def test_a_key_is_added_beside_those_of_others(lab, name):
    # Without an end of its last line, with wrong modes, and with what a killed run may have left.
    lab.shell(
        name,
        "useradd -m -s /bin/sh app; install -d -o app -g app -m 755 ~app/.ssh; cd ~app/.ssh; "
        f"printf '# mine\\nfrom=\"10.0.0.1\" %s' '{KEY}' > authorized_keys; touch authorized_keys.arcfleet.abcdef authorized_keys.backup; "
        "chown app:app *; chmod 664 authorized_keys",
    )
    other = KEY.replace("ILdK", "IXXX")
    told = script(lab, name, USER="app", KEY=f"{KEY}\n{other}")
    assert told["changed"] is True
    assert shown(lab, name, "cat ~app/.ssh/authorized_keys") == f'# mine\nfrom="10.0.0.1" {KEY}\n{other}'
    assert shown(lab, name, "stat -c '%U:%G %a' ~app/.ssh/authorized_keys ~app/.ssh").splitlines() == [
        "app:app 600",
        "app:app 700",
    ]
    assert shown(lab, name, "ls ~app/.ssh").split() == ["authorized_keys", "authorized_keys.backup"]
    assert script(lab, name, USER="app", KEY=f"{KEY}\n{other}")["changed"] is False


def test_a_link_in_a_home_leads_nobody_into_files_of_root(lab):
    lab.shell(
        "db01",
        "useradd -m evil; install -d -m 700 -o evil -g evil ~evil/.ssh; ln -s /etc/shadow ~evil/.ssh/authorized_keys",
    )
    before = shown(lab, "db01", "sha256sum /etc/shadow; stat -c '%U %a' /etc/shadow")
    assert "could not be written" in script(lab, "db01", USER="evil", KEY=KEY)["problem"]
    assert shown(lab, "db01", "sha256sum /etc/shadow; stat -c '%U %a' /etc/shadow") == before


@BOTH
def test_a_server_that_is_stopped_is_started_and_one_that_runs_is_left_alone(lab, name):
    lab.shell(name, "systemctl disable --now ssh; rm -rf /run/sshd")
    assert script(lab, name)["changed"] is True
    assert shown(lab, name, "systemctl is-enabled ssh; systemctl is-active ssh").split() == ["enabled", "active"]
    before = shown(lab, name, "systemctl show -p MainPID,ActiveEnterTimestamp ssh; find /etc/ssh | sort")
    told = script(lab, name)
    assert told["changed"] is False and told["port"] == [22]
    assert shown(lab, name, "systemctl show -p MainPID,ActiveEnterTimestamp ssh; find /etc/ssh | sort") == before


@BOTH
def test_where_systemd_listens_it_goes_on_doing_so(lab, name, restored):
    restored(name)
    lab.shell(name, "systemctl disable --now ssh.service; systemctl enable ssh.socket")
    told = script(lab, name)
    assert (told["changed"], told["port"], told["problem"]) == (True, [22], None)
    assert shown(lab, name, "systemctl is-active ssh.socket; systemctl is-enabled ssh.service || :").split() == [
        "active",
        "disabled",
    ]
    told = script(lab, name)
    assert (told["changed"], told["port"], told["problem"]) == (False, [22], None) and told["host_keys"]


@BOTH
def test_a_masked_unit_is_somebodys_wish(lab, name, restored):
    restored(name)
    lab.shell(name, "systemctl mask --now ssh.service")
    told = script(lab, name)
    assert told["problem"].startswith("ssh.service is masked, so somebody does not want it to run.")
    assert told["changed"] is False and shown(lab, name, "systemctl is-enabled ssh.service || :") == "masked"


def test_what_cannot_be_is_told_in_a_sentence_and_stops_nobody_else(lab, restored):
    restored("db01")
    restored("db02")
    # What a machine says is not a template.
    lab.shell("db01", "echo '{{7*6}} \"yes\"' > /etc/ssh/sshd_config.d/10-foreign.conf; systemctl stop ssh")
    lab.shell("db02", "systemctl mask --now ssh.service")
    ran, output = play(lab, "db01", "db02", "web02", rc=2)
    broken = ran["db01"]["failure"]["message"]
    assert broken.startswith("db01: sshd does not accept its own configuration, so it was not started: ")
    assert "10-foreign.conf" in broken and "line 1" in broken and "{{7*6}}" in broken
    assert "{{7*6}}" in output and "42" not in broken
    assert "db02: ssh.service is masked" in output
    assert "failure" not in ran["web02"] and "web02 " in output
    assert shown(lab, "db01", "systemctl is-active ssh || :") == "inactive"


@pytest.mark.parametrize(
    ("configuration", "variables", "problem"),
    [
        ("PermitRootLogin no", {}, "sshd is configured to keep root out (PermitRootLogin no)."),
        ("PermitRootLogin no", {"USER": "app"}, None),
        ("PubkeyAuthentication no", {}, "sshd is configured to accept no keys of root (PubkeyAuthentication no)."),
        (
            "AuthorizedKeysFile none",
            {},
            "sshd is configured to look for no file with keys of root (AuthorizedKeysFile).",
        ),
        ("AuthorizedKeysFile /etc/ssh/keys/%u", {"USER": "app"}, None),
        ("ListenAddress ADDRESS:2200", {}, "sshd listens on ADDRESS:2200 only, and Azure Arc connects to localhost."),
        ("ListenAddress 127.0.0.1:2200", {}, None),
        ("", {"USER": "nobody-here"}, "There is no user nobody-here. Create it, or let it be created."),
        ("", {"KEY": "AAAA"}, "Line 1 of ARCFLEET_KEY is not a public key."),
    ],
)
def test_a_server_that_would_not_let_the_key_in(lab, restored, configuration, variables, problem):
    restored("db01")
    address = lab.machine("db01")["address"]
    configuration, problem = (text and text.replace("ADDRESS", address) for text in (configuration, problem))
    lab.shell(
        "db01",
        ["sh", "-c", "cat > /etc/ssh/sshd_config.d/10-foreign.conf; systemctl restart ssh"],
        stdin=f"{configuration}\n",
    )
    told = script(lab, "db01", **{"KEY": KEY, **variables})
    assert told["problem"] is None if problem is None else told["problem"].startswith(problem), told
    if "2200" in configuration:
        assert told["port"] == [2200]
    if "keys/%u" in configuration:
        assert shown(lab, "db01", "stat -c '%U %a' /etc/ssh/keys/app; cat /etc/ssh/keys/app") == f"root 644\n{KEY}"


def test_values_with_blanks_and_line_breaks_pass_as_base_64(lab):
    encoded = {
        key: f"base64:{base64.b64encode(value.encode()).decode()}"
        for key, value in (("USER", "app"), ("KEY", f"{KEY}\r\n\r\n"))
    }
    assert script(lab, "db02", **encoded)["problem"] is None
    assert "\r" not in shown(lab, "db02", "cat ~app/.ssh/authorized_keys")


def test_host_keys_that_somebody_removed_are_not_made_again(lab, restored):
    restored("db02")
    lab.shell("db02", "rm /etc/ssh/ssh_host_ecdsa_key*; systemctl restart ssh")
    told = script(lab, "db02")
    assert told["changed"] is False and sorted(key.split()[0] for key in told["host_keys"]) == [
        "ssh-ed25519",
        "ssh-rsa",
    ]
    # What is proved counts, and not what lies beside it.
    lab.shell(
        "db02",
        "cp /etc/ssh/ssh_host_ed25519_key.pub /tmp/real; ssh-keygen -q -t ed25519 -N '' -f /tmp/other; cp /tmp/other.pub /etc/ssh/ssh_host_ed25519_key.pub",
    )
    assert shown(lab, "db02", "cut -d' ' -f1,2 /tmp/real") in script(lab, "db02")["host_keys"]
    lab.shell("db02", "rm /etc/ssh/ssh_host_*; systemctl stop ssh")
    told = script(lab, "db02")
    assert told["changed"] is True and len(told["host_keys"]) == 3


def test_a_changed_host_key_is_refused_until_it_is_to_replace_the_old_one(lab):
    # db02 has new ones since the test above.
    before = known(lab, "db02")
    ran, output = play(lab, "db02", "db01", rc=2)
    assert ran["db02"]["noted"]["failure"]["code"] == "HostKeyChanged" and "replace" in output
    assert known(lab, "db02") == before and not before & host_keys(lab, "db02")
    assert "failure" not in ran["db01"]["noted"]
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in ssh(lab, "db02", "root", "true").stderr

    ran, _output = play(lab, "db02", arc_sshd_changed_host_keys="replace")
    assert ran["db02"]["noted"]["action"] == "update"
    assert known(lab, "db02") == host_keys(lab, "db02")
    assert ssh(lab, "db02", "root", "hostname").stdout.strip() == "db02"


def test_a_run_killed_on_the_controller_leaves_nothing_behind_for_long(lab):
    lab.clear_journal()
    running = subprocess.Popen(
        [
            *("ansible-playbook", "-i", lab.env["ARCLAB_INVENTORY"], str(lab.state_dir / "rehearsal.json"), "-e"),
            json.dumps({"chosen": "db01", "file": str(lab.state_dir / "x.json"), "arc_sshd_bootstrap": "always"}),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(lab),
        cwd=lab.state_dir,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (begun := [line for line in lab.journal(method="PUT") if "runCommands" in line["path"]]):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    below = descendants(running.pid)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    path = begun[0]["path"].lower()
    # The module is in a session of its own, and stops by itself when nobody reads its answer; or the next run tidies up.
    ran, _output = play(lab, "db01")
    assert ran["db01"]["json"]["problem"] is None
    gone = {line["path"].lower() for line in lab.journal(method="DELETE") if "runCommands" in line["path"]}
    put = {line["path"].lower() for line in lab.journal(method="PUT") if "runCommands" in line["path"]}
    assert path in put and put == gone
    for pid in below:
        # ansible-core's worker waits for a parent that is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_machine_whose_agent_is_away_is_named(lab):
    lab.machine("db02", "stop")
    try:
        ran, output = play(lab, "db02", "db01", rc=2)
        assert ran["db02"]["failure"]["code"] == "MachineUnavailable" and "db02: cannot run the script" in output
        assert "failure" not in ran["db01"]
    finally:
        lab.machine("db02", "start")
    assert module(lab, "arc_machine_info", machines=[lab.machine("db02")["id"]])["machines"]
