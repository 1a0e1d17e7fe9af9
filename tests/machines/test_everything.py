# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does all that people do over SSH work through the relay too, byte by byte, and does it outlive a relay that is lost?

Ansible's own features with the inventory's variables; ssh, scp, sftp, rsync and git with the arguments that the inventory gives
Ansible. One machine is in a resource group whose name has to be quoted wherever a shell, ssh or rsync reads it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from on_sshd import allow, each, run, until

from arclab.client import Lab
from on_lab import ansible, environment

NAMES = ("web01", "db01")
PASSWORD = "let me in"
# What one frame to the relay can hold, what ssh packs into one packet, what no buffer is a multiple of, and any others.
SIZES = (0, 1, 32_759, 32_760, 32_761, 32_768, 65_537, 1_000_003, *random.sample(range(2, 32_000), 2))
LARGE = 100_000_000
needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed on this computer.")
Make = Callable[..., Lab]


@dataclasses.dataclass(frozen=True)
class Way:
    """How programs that use OpenSSH get to a machine: by what the inventory tells Ansible, and by no open connection."""

    lab: Lab
    host: str
    port: str
    options: list[str]

    def ssh(self, *words: str) -> list[str]:
        """The command line of ssh."""
        return ["ssh", *self.options, "-p", self.port, f"root@{self.host}", *words]

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(self.lab, **more))

    def run(self, *command: str, data: bytes = b"", **more: str) -> bytes:
        """Run a program; what it says on standard output."""
        with self.start(*command, **more) as process:
            out, said = process.communicate(data, timeout=120)
        assert process.returncode == 0, (command, out[-2000:], said[-2000:])
        return out


@pytest.fixture(scope="module")
def lab(machines: Make) -> Lab:
    """A machine of each suite; on both, deploy may become others with a password."""
    found = machines(
        {"name": "web01", "suite": "bookworm", "resource_group": "arc-(west)"},
        {"name": "db01", "suite": "trixie"},
        listener_lag=0,
    )
    allow(found)
    commands = (
        f"useradd -m -s /bin/bash deploy && echo 'deploy:{PASSWORD}' | chpasswd && cp -r /root/.ssh /home/deploy/ && "
        "chown -R deploy: /home/deploy && echo 'deploy ALL=(ALL) ALL' >/etc/sudoers.d/deploy && "
        # sudo asks for it, and nothing answers there.
        'echo "127.0.1.1 $(hostname)" >>/etc/hosts'
    )
    each(NAMES, lambda name: found.shell(name, commands))
    return found


def plain(value: Any) -> str:
    """A variable of a host; what comes from Azure is marked, so that Ansible does not take it for a template."""
    return str(value["__ansible_unsafe"] if isinstance(value, dict) else value)


@pytest.fixture(scope="module")
def ways(lab: Lab) -> dict[str, Way]:
    """The way to each machine."""
    listed = ansible(lab, "ansible-inventory", "--list").stdout
    hosts = json.loads(listed[listed.index("{") :])["_meta"]["hostvars"]
    common = ["-F", "none", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "IdentitiesOnly=yes"]

    def way(name: str) -> Way:
        host, port, arguments = (plain(hosts[name][f"ansible_{what}"]) for what in ("host", "port", "ssh_common_args"))
        # As arc_ssh_config does: a person who connects again means it.
        mine = shlex.split(arguments.replace(" --once", ""))
        return Way(lab, host, port, [*common, "-i", lab.env["ARCLAB_KEY"], *mine])

    return {name: way(name) for name in NAMES}


@pytest.fixture
def pool() -> Iterator[concurrent.futures.Executor]:
    with concurrent.futures.ThreadPoolExecutor(4) as made:
        yield made


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sum_of(lab: Lab, name: str, path: str) -> str:
    """The checksum of a file on a machine."""
    return lab.shell(name, ["sha256sum", path]).stdout.split()[0]


def large_file(folder: pathlib.Path, size: int) -> pathlib.Path:
    path = folder / "large"
    # What compresses would pass in fewer bytes than it has.
    path.write_bytes(os.urandom(size))
    return path


def contents(folder: pathlib.Path) -> dict[str, str]:
    """The checksum of each file below a folder."""
    return {str(path.relative_to(folder)): digest(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def some_files(folder: pathlib.Path) -> dict[str, str]:
    """Make files of all sizes; their checksums."""
    folder.mkdir()
    for size in SIZES:
        (folder / f"of {size}").write_bytes(os.urandom(size))
    (folder / "b\u00e4r").write_bytes(bytes(range(256)) * 3)
    return contents(folder)


# ---- Ansible


def test_ansibles_features_with_and_without_pipelining(lab: Lab, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('#!/bin/sh\nprintf "%s of %s \\303\\251\\n" "$1" "$(id -un)"\n')
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 300)
    builtin = "ansible.builtin."
    as_root = {"become": True}
    tasks: list[dict[str, Any]] = [
        {"name": "who", f"{builtin}shell": "id -un; echo $SUDO_USER; tr '\\0' ' ' </proc/$PPID/cmdline", **as_root},
        {
            "name": "other",
            f"{builtin}command": "id -un",
            "become": True,
            "become_user": "deploy",
            "vars": {"ansible_user": "root"},
        },
        {"name": "script", f"{builtin}script": f"{script} 'the words'", **as_root},
        {"name": "raw", f"{builtin}raw": "id -un; head -c 3 /dev/zero | tr '\\0' x", **as_root},
        {"name": "copy", f"{builtin}copy": {"src": str(secret), "dest": "/root/se cret", "mode": "0600"}, **as_root},
        {"name": "fetch", f"{builtin}fetch": {"src": "/root/se cret", "dest": f"{tmp_path}/got/"}, **as_root},
        {"name": "first", f"{builtin}raw": "echo $SSH_CONNECTION"},
        {"name": "second", f"{builtin}raw": "echo $SSH_CONNECTION"},
        {f"{builtin}meta": "reset_connection"},
        {"name": "third", f"{builtin}raw": "echo $SSH_CONNECTION"},
    ]
    account = {"ansible_user": "deploy", "ansible_become_password": PASSWORD}
    pipelining = {"web01": True, "db01": False}
    done = run(
        lab, NAMES, tasks, vars_of={name: {**account, "ansible_pipelining": on} for name, on in pipelining.items()}
    )

    def out(name: str, task: str) -> list[str]:
        (result,) = done.results(name, task)
        # On a terminal, which script and raw have, sudo ends the line of the password.
        words: list[str] = result["stdout"].split()
        return words

    for name, on in pipelining.items():
        became, came_from, *command = out(name, "who")
        assert (became, came_from) == ("root", "deploy")
        assert any("AnsiballZ" in word for word in command) is not on, "how the module came is what pipelining decides"
        assert out(name, "other") == ["deploy"]
        assert out(name, "script") == ["the", "words", "of", "root", "\u00e9"]
        assert out(name, "raw") == ["root", "xxx"]
        assert lab.shell(name, "stat -c '%U %a' '/root/se cret'").stdout == "root 600\n"
        assert (tmp_path / "got" / name / "root" / "se cret").read_bytes() == secret.read_bytes()
        first, second, third = (out(name, task) for task in ("first", "second", "third"))
        assert first == second, "one connection serves several tasks"
        assert third != first, "which reset_connection ends"
        assert done.recap[name]["failures"] == done.recap[name]["unreachable"] == 0


def test_large_files_are_copied_and_fetched_exactly(lab: Lab, tmp_path: pathlib.Path) -> None:
    sent = large_file(tmp_path, LARGE)
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.meta": "reset_connection"},
        {"ansible.builtin.copy": {"src": str(sent), "dest": "/root/large", "mode": "0600"}},
        {"ansible.builtin.fetch": {"src": "/root/large", "dest": f"{tmp_path}/back", "flat": True}},
    ]
    # Ansible has ssh compress, as the connection of an earlier test does, which takes long where there is nothing to gain.
    run(lab, ["web01"], tasks, env={"ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s"})
    wanted = digest(sent.read_bytes())
    assert sum_of(lab, "web01", "/root/large") == wanted
    assert digest((tmp_path / "back").read_bytes()) == wanted
    lab.shell("web01", "rm /root/large")


def test_a_task_whose_connection_is_lost_is_not_run_twice(lab: Lab, pool: concurrent.futures.Executor) -> None:
    command = "echo started >>/root/runs; sleep 6; echo ended >>/root/runs"
    running = pool.submit(ansible, lab, "ansible", "db01", "-m", "ansible.builtin.shell", "-a", command, rc=None)
    until(lambda: lab.shell("db01", "cat /root/runs", check=False).stdout, "the task does not start", 30)
    lab.machine("db01", "drop")
    done = running.result()
    assert done.returncode == 4, done.stdout
    assert "db01: the connection was lost while a task may have been running" in " ".join(done.stdout.split())
    # The next one is none the worse for it.
    ansible(lab, "ansible", "db01", "-m", "ansible.builtin.ping")
    assert lab.shell("db01", "cat /root/runs").stdout.count("started") == 1


def test_a_job_outlives_the_connection_that_started_it(lab: Lab, pool: concurrent.futures.Executor) -> None:
    # Whoever started the job has gone when it makes the file.
    command = "sleep 1; echo started >>/root/jobs; sleep 1.5; echo $((6*7))"
    tasks = [{"name": "job", "ansible.builtin.shell": command, "async": 60, "poll": 1}]
    running = pool.submit(run, lab, ["web01"], tasks)
    until(lambda: lab.shell("web01", "test -e /root/jobs", check=False).returncode == 0, "no job was started", 60)
    lab.machine("web01", "drop")
    (result,) = running.result().results("web01", "job")
    assert (result["rc"], result["stdout"]) == (0, "42")
    assert lab.shell("web01", "cat /root/jobs").stdout == "started\n"


def test_ansible_waits_for_a_machine_that_is_off_and_reboots_one(lab: Lab, pool: concurrent.futures.Executor) -> None:
    before = lab.machine("web01")["pid"]
    lab.shell("web01", "touch /run/before")
    lab.machine("db01", "stop")
    lab.clear_journal()
    # The kernel is the lab's, so a machine of it is known to have been started anew by its first process; it has no logind.
    how = {"boot_time_command": "cut -d ' ' -f 22 /proc/1/stat", "reboot_command": "systemctl reboot"}
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.wait_for_connection": {"timeout": 120}, "when": "inventory_hostname == 'db01'"},
        {
            "name": "reboot",
            "ansible.builtin.reboot": {**how, "reboot_timeout": 120},
            "when": "inventory_hostname == 'web01'",
        },
        {"name": "up", "ansible.builtin.command": "hostname"},
    ]
    running = pool.submit(run, lab, NAMES, tasks, env={"ANSIBLE_STRATEGY": "free"})
    until(lambda: [line for line in lab.journal(kind="relay") if line.get("status") == 404], "nobody asks for db01", 60)
    lab.machine("db01", "start")
    done = running.result()
    assert done.results("web01", "reboot")[0]["rebooted"] is True
    assert lab.machine("web01")["pid"] != before
    assert lab.shell("web01", "test -e /run/before", check=False).returncode == 1
    assert [done.results(name, "up")[0]["stdout"] for name in NAMES] == list(NAMES)


# ---- other programs


def test_what_ssh_carries_is_exact_both_ways(ways: dict[str, Way], pool: concurrent.futures.Executor) -> None:
    def differs(number: int) -> bool:
        way = ways[NAMES[number % len(NAMES)]]
        data = os.urandom(SIZES[number])
        return way.run(*way.ssh("cat"), data=data) != data

    numbers = range(len(SIZES))
    assert [SIZES[number] for number, found in zip(numbers, pool.map(differs, numbers), strict=True) if found] == []


def test_either_side_may_end_first(lab: Lab, ways: dict[str, Way]) -> None:
    way = ways["web01"]
    sent, answer = os.urandom(1_000_003), os.urandom(3_000_001)
    way.run(*way.ssh("cat >/root/answer"), data=answer)
    # The machine answers when it has seen our end.
    out = way.run(*way.ssh("sha256sum | cut -c -64; cat /root/answer"), data=sent)
    assert out == digest(sent).encode() + b"\n" + answer
    # The machine has nothing more to say, and listens on.
    with way.start(*way.ssh("echo ready; exec >&-; sha256sum >/root/late")) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(sent)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0
    assert lab.shell("web01", "cut -c -64 /root/late").stdout.strip() == digest(sent)


@pytest.mark.parametrize("name", NAMES)
def test_scp_and_sftp_copy_what_there_is(ways: dict[str, Way], name: str, tmp_path: pathlib.Path) -> None:
    way = ways[name]
    files = some_files(tmp_path / "sent")
    way.run("scp", "-q", "-r", *way.options, "-P", way.port, f"{tmp_path}/sent", f"root@{way.host}:/root/by-scp")
    # The old protocol is what appliances have.
    way.run("scp", "-O", "-q", "-r", *way.options, "-P", way.port, f"root@{way.host}:/root/by-scp", f"{tmp_path}/back")
    assert contents(tmp_path / "back") == files
    batch = f"put -R {tmp_path}/sent /root/by-sftp\nget -R /root/by-sftp {tmp_path}/again\n"
    way.run("sftp", "-b", "-", *way.options, "-P", way.port, f"root@{way.host}", data=batch.encode())
    assert contents(tmp_path / "again") == files


def test_git_pushes_and_clones(lab: Lab, ways: dict[str, Way], tmp_path: pathlib.Path) -> None:
    way = ways["web01"]
    lab.shell("web01", "git init --quiet --bare --initial-branch=main /root/it.git")
    files = some_files(tmp_path / "work")
    git = {
        "GIT_SSH_COMMAND": shlex.join(["ssh", *way.options]),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "deploy@contoso.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    url = f"ssh://root@{way.host}:{way.port}/root/it.git"
    at = ("git", "-C", str(tmp_path / "work"))
    way.run(*at, "init", "--quiet", "--initial-branch=main", **git)
    way.run(*at, "add", ".", **git)
    way.run(*at, "commit", "--quiet", "-m", "All of it", **git)
    way.run(*at, "push", "--quiet", url, "main", **git)
    way.run("git", "clone", "--quiet", url, str(tmp_path / "clone"), **git)
    way.run("git", "-C", str(tmp_path / "clone"), "fsck", "--full", **git)
    shutil.rmtree(tmp_path / "clone" / ".git")
    assert contents(tmp_path / "clone") == files


@needs_rsync
def test_synchronize_makes_both_sides_equal(lab: Lab, tmp_path: pathlib.Path) -> None:
    files = some_files(tmp_path / "sent")
    # Without these two, the module neither uses the helper nor verifies host keys.
    common = {"use_ssh_args": True, "verify_host": True, "delete": True}

    def synchronize(**how: Any) -> dict[str, Any]:
        return {"name": f"synchronize {how['mode']}", "ansible.posix.synchronize": {**common, **how}}

    push = synchronize(mode="push", src=f"{tmp_path}/sent/", dest="/root/tree/")
    pull = synchronize(mode="pull", src="/root/tree/", dest=f"{tmp_path}/" + "{{ inventory_hostname }}/")
    done = run(lab, NAMES, [push, push, pull])
    for name in NAMES:
        assert [one["changed"] for one in done.results(name, "push")] == [True, False]
        assert contents(tmp_path / name) == files


# `make test` makes do with less than the gigabyte that `make test-machines` copies.
LARGE, PACE = (40_000_000, 6) if os.environ.get("ARCFLEET_STEPS") == "some" else (1_000_000_000, 100)


@needs_rsync
@pytest.mark.parametrize(("name", "direction"), [("web01", "up"), ("db01", "down")])
def test_rsync_goes_on_where_the_relay_was_lost(
    lab: Lab, ways: dict[str, Way], name: str, direction: str, tmp_path: pathlib.Path
) -> None:
    way = ways[name]
    mine = large_file(tmp_path, LARGE)
    wanted = digest(mine.read_bytes())
    theirs = f"root@{way.host}:/root/{direction}"
    if direction == "down":
        lab.shell(name, f"head -c {LARGE} /dev/urandom >/root/{direction}")
        wanted = sum_of(lab, name, f"/root/{direction}")
        mine = tmp_path / "mine"
    rsync = (
        "rsync", "--partial", "--stats", "--no-human-readable", "-e",
        shlex.join(["ssh", *way.options, "-p", way.port]), *((str(mine), theirs) if direction == "up" else (theirs, str(mine))),
    )  # fmt: skip

    def there() -> int:
        """How much has arrived; rsync gives a file its name at the end."""
        if direction == "down":
            return max((path.stat().st_size for path in tmp_path.glob(".mine.*")), default=0)
        return int(lab.shell(name, f"cat $(find /root -name '.{direction}.*') </dev/null | wc -c").stdout)

    with way.start(*rsync, f"--bwlimit={PACE}m") as process:
        until(lambda: there() > LARGE // 8, "nothing arrives", 30)
        lab.machine(name, "drop")
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode
    assert f"arcfleet.ssh: {name}: the relay" in said
    out = way.run(*rsync).decode()
    numbers = {key: int(number) for key, number in re.findall(r"(Matched|Literal) data: (\d+)", out)}
    assert numbers["Matched"] >= LARGE // 10, "what had arrived was not sent again"
    assert sum(numbers.values()) == LARGE
    assert (sum_of(lab, name, f"/root/{direction}") if direction == "up" else digest(mine.read_bytes())) == wanted


def test_programs_that_renew_credentials_at_once_make_one_request(
    lab: Lab, ways: dict[str, Way], tmp_path: pathlib.Path
) -> None:
    way = ways["db01"]
    way.run(*way.ssh("true"))
    cached = pathlib.Path(lab.env["XDG_CACHE_HOME"], "arcfleet", "relay")
    ended = 0
    for path in cached.glob("*.json"):
        content = json.loads(path.read_text())
        if lab.machine("db01")["id"].lower() in content.get("subject", []):
            content["relay"]["expiresOn"] = int(time.time()) - 1
            path.write_text(json.dumps(content))
            ended += 1
    assert ended == 1
    lab.clear_journal()
    started = [
        way.start(*way.ssh("true")),
        way.start(
            "scp", "-q", *way.options, "-P", way.port, f"root@{way.host}:/etc/hostname", str(tmp_path / "by-scp")
        ),
        way.start("sftp", "-q", "-b", "/dev/null", *way.options, "-P", way.port, f"root@{way.host}"),
    ]
    assert [process.communicate(timeout=60)[1] for process in started] == [b"", b"", b""]
    assert [process.returncode for process in started] == [0, 0, 0]
    asked = [line["path"] for line in lab.journal() if str(line.get("path")).endswith("/listCredentials")]
    assert len(asked) == 1, asked
