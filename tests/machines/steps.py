# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a machine like after arc_sshd_config was killed at any of its steps there?

    python3 steps.py FOLDER WHAT FIRST EVERY       prints JSON: one entry a step, `faults` names what was wrong

Runs on a machine as root, with the collection and Ansible's module_utils in FOLDER. WHAT is one of SEQUENCES: for
N = FIRST, FIRST + EVERY, ... the real module runs in a process that kills itself (kill -9) when it is about to change
something for the N-th time (opens a file for writing, renames, removes, makes, links, starts systemctl or a shell). Then
everything that is promised is tried, the way back is taken, and the module runs again. Or WHAT is a folder, whose file
system has room for N pages.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

STATE = "/var/lib/arcfleet/sshd"
UNIT = "arcfleet-sshd-way-back"
TIMER = f"/etc/systemd/system/{UNIT}.timer"
WANTS = f"/etc/systemd/system/timers.target.wants/{UNIT}.timer"
# Modes and times are set on drafts only, before the rename that counts.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
LOOKS = {"is-active", "show", "cat"}

# What is done before, and what is killed; the last is done undisturbed afterwards, with which everything has to be new.
NEW = {"settings": {"ClientAliveInterval": 77}, "ports": [22, 2222], "way_back": 600}
OTHER = {"settings": {"ClientAliveInterval": 55}, "ports": [22, 2223], "way_back": 600}
CONFIRMED = {"state": "confirmed"}
SEQUENCES = {
    "applied": ([], NEW),
    "applied over a pending change": ([OTHER], NEW),
    "confirmed": ([NEW], CONFIRMED),
    "reverted": ([NEW], {"state": "reverted"}),
    "the way back": ([NEW], None),
}
# A run that changes something costs a second: it follows on some steps, and one that has nothing to do on the others.
WHOLE = 6


def changes(event, arguments):
    """Is this a step that changes the machine?"""
    if event == "open":
        path, _mode, flags = arguments
        writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and isinstance(path, str) and path.startswith(("/etc/", "/var/lib/arcfleet"))
    if event == "subprocess.Popen":
        words = arguments[1]
        return words[0].endswith(("systemctl", "/sh")) and words[1] not in LOOKS
    return event in CHANGES and str(arguments[0]).startswith(("/etc/", "/var/lib/arcfleet"))


def module(options, number=None):
    """Run the module in a process of its own, killed at this step. The result, `None` if it was killed; and the step."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.dup2(writer, 1)
        count = 0

        def hook(event, arguments):
            nonlocal count
            if changes(event, arguments):
                count += 1
                if count == number:
                    os.write(2, f"{event} {arguments[:2]}".encode())
                    os.kill(os.getpid(), signal.SIGKILL)

        os.dup2(os.open("/run/step", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.addaudithook(hook)
        try:
            with patched({**options, "_ansible_tmpdir": "/root/.ansible/tmp"}):
                sshd_config.main()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    _pid, status = os.waitpid(pid, 0)
    with open("/run/step") as file:
        step = file.read()
    if os.WIFSIGNALED(status):
        return None, step
    return json.loads(said), None


def script(number):
    """Run the way back, killed before its command of this number; whether it came to that."""
    run("bash", "-c", "echo >/run/step")
    trap = rf"""case $BASH_COMMAND in
        mv*|rm*|systemctl*|date*|cat*\>\>*)
            [ $((++step)) = {number} ] && echo "$BASH_COMMAND" >/run/step && kill -9 $$ ;;
    esac"""
    done = run("bash", "-c", f"step=0; set -T; trap '{trap}' DEBUG; . {STATE}/way-back")
    with open("/run/step") as file:
        return done.returncode == -signal.SIGKILL, file.read().strip()


def files():
    """All that a change may touch of sshd's, by path."""
    found = {}
    for folder, _folders, names in os.walk("/etc/ssh"):
        for name in names:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            with open(path, "rb") as file:
                found[path] = (about.st_mode, about.st_uid, about.st_gid, hashlib.sha256(file.read()).hexdigest())
    return found


def leftovers():
    """What has to be gone at the end."""
    found = [path for path in files() if ".arcfleet-" in path]
    found += (
        [name for name in os.listdir(STATE) if name not in ("lock", "rolled_back")] if os.path.exists(STATE) else []
    )
    for top in ("/etc/systemd/system", "/run/systemd"):
        for folder, _folders, names in os.walk(top):
            found += [os.path.join(folder, name) for name in names if "arcfleet" in name]
    return found


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def logs_in():
    done = run(
        "ssh", "-F", "none", "-i", "/root/step_key", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ConnectTimeout=5", "root@127.0.0.1", "true",
    )  # fmt: skip
    return done.returncode == 0


def soon(true):
    """sshd does not listen while it reads its configuration anew, which it does by starting itself again."""
    deadline = time.monotonic() + 3
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def judge(number, before, options, old, new):
    """Kill the module at this step of its work, and try everything that is promised for that."""
    for one in before:
        result, _step = module(one)
        assert not result.get("failed"), result
    if options is None:
        killed, step = script(number)
    else:
        result, step = module(options, number)
        killed = result is None
    if not killed:
        put_back()
        return None
    faults = []

    def held(true, what):
        if not true:
            faults.append(what)

    pending = os.path.isdir(f"{STATE}/saved")
    checked = run("/usr/sbin/sshd", "-t")
    held(checked.returncode == 0, f"sshd -t: {checked.stderr.strip()}")
    held(soon(logs_in), "nobody can log in")
    if pending:
        held(run("systemctl", "is-active", "--quiet", f"{UNIT}.timer").returncode == 0, "pending, and no timer runs")
        held(os.path.islink(WANTS) and os.path.exists(TIMER), "pending, and no timer would start after a reboot")
    else:
        held(sshd_files() in (old, new), f"not pending, and {differing(old)}")
    # What the timer starts.
    if os.path.exists(TIMER) and os.path.exists(f"{STATE}/way-back"):
        done = run("/bin/sh", f"{STATE}/way-back")
        held(done.returncode == 0, f"the way back: {done.stderr}")
    now = sshd_files()
    held(now == old or (not pending and now == new), f"after the way back: {differing(old)}")
    held(not os.path.isdir(f"{STATE}/saved"), "still pending after the way back")
    held(soon(logs_in), "nobody can log in after the way back")
    end = "old" if now == old else "new" if now == new else "neither"
    # And the next run, which mostly has nothing to do.
    whole = number % WHOLE == 0
    goal, wanted = (NEW, new) if whole or now == new else ({**NEW, "settings": {}, "ports": []}, old)
    result, _step = module(goal)
    held(not result.get("failed"), f"the next run: {result.get('msg')}")
    held(not pending or "rolled back" in str(result.get("rolled_back")), "the next run does not tell of it")
    if whole:
        result, _step = module(CONFIRMED)
        held(not result.get("failed"), f"the next confirmation: {result.get('msg')}")
    held(files() == wanted, f"after the next run: {differing(wanted)}")
    held(leftovers() == [], f"left behind: {leftovers()}")
    put_back()
    return {"number": number, "step": step, "pending": pending, "end": end, "faults": faults}


def sshd_files():
    """What sshd reads, without what only the way back knows."""
    return {path: about for path, about in files().items() if ".arcfleet-" not in path}


def full(folder, pages, old):
    """Run the module with this much room, in pages, in the file system of a folder."""
    os.makedirs(folder, exist_ok=True)
    kept = f"/root/kept{folder}"
    if not os.path.exists(kept):
        shutil.copytree(folder, kept, symlinks=True)
    paths = [os.path.join(at, name) for at, _folders, names in os.walk(kept) for name in names]
    used = sum((os.path.getsize(path) + 4095) // 4096 for path in paths if not os.path.islink(path))
    assert run("mount", "-t", "tmpfs", "-o", f"nr_blocks={used + pages + 1},mode=755", "none", folder).returncode == 0
    assert run("cp", "-a", f"{kept}/.", folder).returncode == 0
    faults = []
    result, _step = module(NEW)
    said = result.get("msg", "")
    failed = bool(result.get("failed"))
    if failed:
        if sshd_files() != old:
            faults.append(differing(old))
        if leftovers():
            faults.append(f"left behind: {leftovers()}")
        if "No space left on device" not in said or not (
            "nothing was changed" in said.lower() or "rolled back" in said
        ):
            faults.append(f"not told: {said}")
    if run("/usr/sbin/sshd", "-t").returncode or not soon(logs_in):
        faults.append("nobody can log in")
    result, _step = module({"state": "reverted"})
    if result.get("failed") or sshd_files() != old:
        faults.append(f"not back: {result.get('msg')} {differing(old)}")
    assert run("umount", folder).returncode == 0
    run("systemctl", "daemon-reload")
    put_back()
    return {"number": pages, "failed": failed, "said": said, "faults": faults}


def differing(wanted):
    found = sshd_files()
    return "different: " + ", ".join(sorted(path for path in {*found, *wanted} if found.get(path) != wanted.get(path)))


def put_back():
    """As it was before everything, for the next step."""
    for path in files():
        kept = path.replace("/etc/ssh", "/root/ssh")
        if not os.path.exists(kept):
            os.unlink(path)
        elif pathlib.Path(kept).read_bytes() != pathlib.Path(path).read_bytes():
            shutil.copy2(kept, path)
    shutil.rmtree(STATE, ignore_errors=True)
    run("systemctl", "reload", "ssh")


def main():
    sequence, first, every = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    os.makedirs("/root/.ansible/tmp", exist_ok=True)
    if not os.path.exists("/root/ssh"):
        shutil.copytree("/etc/ssh", "/root/ssh")
    old = files()
    for one in (NEW, CONFIRMED):
        result, _step = module(one)
        assert not result.get("failed"), result
    new = files()
    put_back()
    told = []
    number = first
    if sequence.startswith("/"):
        while not told or told[-1]["failed"]:
            told.append(full(sequence, number, old))
            number += every
    else:
        before, options = SEQUENCES[sequence]
        while (found := judge(number, before, options, old, new)) is not None:
            told.append(found)
            number += every
    print(json.dumps(told))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    patched = importlib.import_module("ansible.module_utils.testing").patch_module_args
    sshd_config = importlib.import_module("ansible_collections.arcfleet.ssh.plugins.modules.arc_sshd_config")
    main()
