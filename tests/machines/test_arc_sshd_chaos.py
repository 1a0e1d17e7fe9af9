# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does arc_sshd lock anybody out, whatever goes wrong in the middle of it?

What a way back takes to fire is waited for once, for all machines that need it: they are brought into trouble together.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import ansible
import pytest
from on_sshd import (
    DROP_IN,
    PYTHON,
    STATE,
    UNIT,
    Logins,
    allow,
    azure_port,
    differences,
    each,
    effective,
    leftovers,
    look,
    port_lines,
    ports,
    role,
    run,
    tell,
    until,
    write,
)

import on_lab

HERE = pathlib.Path(__file__).resolve().parent
PLUGINS = HERE.parents[1] / "plugins"
# All tests share these: each machine needs several of the 128 instances of inotify that Linux gives a user.
NAMES = [f"m{number:02}" for number in range(1, 10)]
# Killed after so many steps: the first is the first that changes something, the eighth the last one but one.
KILLED = dict(zip(NAMES[:8], range(1, 9), strict=True))
DURING = "m09"
STEPS, MORE_STEPS, FULL, FAULTS, DEAD, LOST, LOST_FOR_A_WHILE, BOOTED, TWICE = NAMES
TRIXIE = (MORE_STEPS, DEAD, LOST_FOR_A_WHILE)
# With ARCFLEET_STEPS=some, as in `make test`, one step in eight is tried; `make test-machines` tries each.
SOME = os.environ.get("ARCFLEET_STEPS") == "some"
EVERY = 8 if SOME else 1
if SOME:
    KILLED = {name: KILLED[name] for name in (NAMES[1], NAMES[4], NAMES[7])}
WAY_BACK = 30
# What a machine may take beyond that: the timer is exact to a second, and sshd has to be told.
SLACK = 10
MAIN = "/etc/ssh/sshd_config"
FOREIGN = "/etc/ssh/sshd_config.d/50-foreign.conf"
WANTED = {"ClientAliveInterval": 77}


@pytest.fixture(scope="module")
def lab(machines):
    found = machines(
        *({"name": name, "suite": "trixie" if name in TRIXIE else "bookworm"} for name in NAMES), listener_lag=0
    )
    allow(found)
    for name in (STEPS, MORE_STEPS, FULL, DURING):
        # Other people's lines that have to make way, and come back.
        write(found, name, FOREIGN, "Port 22\nPrintMotd no\n", "600")
        found.shell(name, "systemctl reload ssh")
    return found


@pytest.fixture(scope="module")
def logins(lab):
    return Logins(lab)


@pytest.fixture(scope="module")
def pool():
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        yield threads


# ---- what never lands


@pytest.mark.parametrize(
    ("prepare", "undo", "settings", "expected"),
    [
        ("true", "true", {"NoSuchOption": "yes"}, ["Bad configuration option: NoSuchOption", "Nothing was changed"]),
        ("true", "true", {"MaxAuthTries": "many"}, ["sshd does not accept the new settings", "Nothing was changed"]),
        (
            f"echo 'Oops yes' >{FOREIGN}", f"rm {FOREIGN}", WANTED,
            ["does not accept the configuration that is there already", FOREIGN, "line 1", "Nothing was changed"],
        ),
        (
            f"echo Port 22 >>{MAIN}; chattr +i {MAIN}", f"chattr -i {MAIN}; sed -i '$d' {MAIN}", None,
            [MAIN, "Operation not permitted", "chattr", "nothing was changed"],
        ),
        (
            "chattr +i /etc/ssh/sshd_config.d", "chattr -i /etc/ssh/sshd_config.d", WANTED,
            ["/etc/ssh/sshd_config.d", "Operation not permitted", "chattr"],
        ),
        (
            "chattr +i /etc/ssh", "chattr -i /etc/ssh", WANTED, None,
        ),
    ],
    ids=["unknown option", "bad value", "broken foreign drop-in", "immutable sshd_config", "immutable folder", "immutable parent"],
)  # fmt: skip
def test_what_cannot_land_changes_nothing_and_says_why(lab, logins, prepare, undo, settings, expected):
    lab.shell(FAULTS, prepare)
    there = look(lab, FAULTS)
    wanted = role(arc_sshd_settings=settings) if settings else role(arc_sshd_port=2222)
    try:
        done = run(lab, [FAULTS], [wanted], rc=2 if expected else 0)
        if expected:
            said = done.failed(FAULTS)
            assert [one for one in expected if one not in said] == [], said
            assert differences(there, look(lab, FAULTS)) == {}
        assert leftovers(lab, FAULTS) == [], tell(lab, FAULTS)
        assert logins.possible(FAULTS)
    finally:
        lab.shell(FAULTS, undo)
    if not expected:
        run(lab, [FAULTS], [role(arc_sshd_state="absent")])
    assert lab.shell(FAULTS, "sshd -t; systemctl is-active ssh").stdout == "active\n"


# ---- the module, killed and starved


def steps(lab, name, what, first=1, every=1):
    """Run steps.py on a machine; what it told."""
    top = pathlib.Path(f"/proc/{lab.machine(name)['pid']}/root")
    if not (top / "opt/steps").exists():
        source = pathlib.Path(ansible.__file__).parent
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / "module_utils", top / "opt/steps/ansible/module_utils", ignore=unwanted)
        (top / "opt/steps/ansible/__init__.py").touch()
        shutil.copy(source / "release.py", top / "opt/steps/ansible")
        for folder in ("modules", "module_utils"):
            shutil.copytree(
                PLUGINS / folder, top / "opt/steps/ansible_collections/arcfleet/ssh/plugins" / folder, ignore=unwanted
            )
        shutil.copy(HERE / "steps.py", top / "opt/steps")
        shutil.copy(lab.env["ARCLAB_KEY"], top / "root/step_key")
        (top / "root/step_key").chmod(0o600)
    command = [PYTHON, "/opt/steps/steps.py", "/opt/steps", what, str(first), str(every)]
    done = lab.shell(name, command, timeout=400)
    told = json.loads(done.stdout)
    assert [(one["number"], one.get("step"), one["faults"]) for one in told if one["faults"]] == []
    return told


def test_the_module_killed_before_any_of_its_steps_leaves_old_or_new(lab, logins, pool):
    first = pool.submit(lambda: steps(lab, STEPS, "applied", 1, 2 * EVERY))
    second = pool.submit(
        lambda: [
            steps(lab, MORE_STEPS, "applied", 2, 2 * EVERY),
            steps(lab, MORE_STEPS, "confirmed", 1, min(EVERY, 2)),
            steps(lab, MORE_STEPS, "applied over a pending change", 1, 4 * EVERY),
        ]
    )
    applied = [*first.result(), *second.result()[0]]
    # Before, while and after it was pending.
    assert {one["pending"] for one in applied} == {True, False} and len(applied) > 20 / EVERY
    assert {one["end"] for one in applied} == {"old"}
    assert {one["end"] for one in second.result()[1]} == {"old", "new"}
    # The attempt that follows a lost connection at once is refused by the helper.
    logins.until_possible((STEPS, MORE_STEPS), 30)


def test_the_way_back_killed_before_any_of_its_steps_still_leads_back(lab, logins, pool):
    done = [
        pool.submit(steps, lab, STEPS, "the way back", 1, EVERY),
        pool.submit(steps, lab, MORE_STEPS, "reverted", 1, EVERY),
    ]
    for one in done:
        assert {step["end"] for step in one.result()} == {"old"}
    # The attempt that follows a lost connection at once is refused by the helper.
    logins.until_possible((STEPS, MORE_STEPS), 30)


@pytest.mark.parametrize("folder", ["/var/lib/arcfleet", "/etc/ssh", "/etc/systemd/system"])
def test_a_full_disk_stops_the_change_at_any_write_and_says_so(lab, logins, folder):
    told = steps(lab, FULL, folder, 0)
    # It was too small at first, and large enough in the end.
    assert [one["failed"] for one in told] == [True] * (len(told) - 1) + [False] and len(told) > 1
    # sshd has just been reloaded.
    logins.until_possible([FULL], 60)


# ---- sshd, the relay, the machine, another run


def test_a_killed_sshd_is_started_again(lab, logins):
    # systemd would start it by itself, so it is told not to.
    lab.shell(
        DEAD,
        "mkdir -p /run/systemd/system/ssh.service.d; cd /run/systemd/system/ssh.service.d; "
        "printf '[Service]\\nRestart=no\\n' >no.conf; systemctl daemon-reload",
    )
    lab.shell(
        DEAD,
        f"systemd-run --quiet sh -c 'until [ -e {DROP_IN} ]; do sleep 0.02; done; systemctl kill --kill-whom=main --signal=KILL ssh'",
    )
    done = run(lab, [DEAD], [role(arc_sshd_settings=WANTED)])
    assert done.recap[DEAD]["changed"] == 1
    journal = lab.shell(DEAD, "journalctl --unit ssh --no-pager").stdout
    assert "status=9/KILL" in journal, journal
    assert logins.possible(DEAD) and leftovers(lab, DEAD) == []
    assert effective(lab, DEAD)["clientaliveinterval"] == ["77"]


@pytest.mark.takes_minutes
def test_the_relay_lost_and_the_machine_restarted_before_the_change_was_proven(lab, logins, pool):
    there = each((LOST, LOST_FOR_A_WHILE, BOOTED), lambda name: look(lab, name))

    def lose(name, seconds):
        lab.shell(
            name,
            f"systemd-run --quiet sh -c 'until [ -e {STATE}/saved/landed ]; do sleep 0.05; done; sleep 0.5; "
            f"systemctl stop himdsd; sleep {seconds}; systemctl start himdsd'",
        )

    # For longer than the way back takes, and for less.
    lose(LOST, 60)
    lose(LOST_FOR_A_WHILE, 8)
    for_good = pool.submit(run, lab, [LOST], [role(arc_sshd_settings=WANTED, arc_sshd_way_back=WAY_BACK)], rc=None)
    for_a_while = pool.submit(
        run, lab, [LOST_FOR_A_WHILE], [role(arc_sshd_settings=WANTED, arc_sshd_way_back=90)], rc=None
    )
    # A machine that restarts meanwhile.
    task = {"arcfleet.ssh.arc_sshd_config": {"settings": WANTED, "way_back": 30}}
    run(lab, [BOOTED], [task])
    lab.machine(BOOTED, "stop")
    lab.machine(BOOTED, "start")
    assert effective(lab, BOOTED)["clientaliveinterval"] == ["77"], "it went back before it was restarted"
    assert lab.shell(BOOTED, f"systemctl is-active {UNIT}.timer").stdout.strip() == "active"
    assert logins.until_possible([BOOTED], 20)

    done = for_good.result()
    assert done.rc != 0
    said = done.failed(LOST)
    # Who waits long enough hears that it happened, and everybody else that it will.
    told = (
        "puts the configuration from before back by itself",
        "was rolled back at",
        "it is not sent a second time by itself",
    )
    assert any(sentence in said for sentence in told), said
    for name in (LOST, BOOTED):

        def gone_back(name: str = name) -> bool:
            return not differences(there[name], look(lab, name))

        until(gone_back, f"{name} does not go back", WAY_BACK + SLACK)
    logins.until_possible([LOST, BOOTED], 60)

    kept = for_a_while.result()
    assert kept.rc == 0, kept.failed(LOST_FOR_A_WHILE)
    assert effective(lab, LOST_FOR_A_WHILE)["clientaliveinterval"] == ["77"] and leftovers(lab, LOST_FOR_A_WHILE) == []
    again = run(lab, (LOST, BOOTED), [role(arc_sshd_settings=WANTED)])
    for name in (LOST, BOOTED):
        # It is told once: to the run that lost its connection, if that waited long enough.
        told = json.dumps(again.results(name, "Change sshd's configuration, with"))
        assert "was rolled back at" in (told + said if name == LOST else told)
        assert leftovers(lab, name) == [] and logins.possible(name)


@pytest.mark.takes_minutes
def test_two_runs_at_once_end_as_one_of_them(lab, logins, pool):
    values = (70, 71)
    there = [
        pool.submit(
            run,
            lab,
            [TWICE],
            [role(arc_sshd_settings={"ClientAliveInterval": value}, arc_sshd_way_back=WAY_BACK)],
            rc=None,
        )
        for value in values
    ]
    done = [one.result() for one in there]
    for one in done:
        if one.rc:
            said = one.failed(TWICE)
            assert "older than the change" in said or "rolled back" in said or "another run" in said, said
    until(
        lambda: not [one for one in leftovers(lab, TWICE) if "rolled_back" not in one and "over" not in one],
        tell(lab, TWICE),
        WAY_BACK + SLACK,
    )
    assert logins.possible(TWICE)
    assert effective(lab, TWICE)["clientaliveinterval"][0] in ("70", "71", "0")
    run(lab, [TWICE], [role(arc_sshd_settings=WANTED)])
    assert leftovers(lab, TWICE) == [] and effective(lab, TWICE)["clientaliveinterval"] == ["77"]


# ---- the run, killed


def killed(lab, name, after, notes):
    """A run of a port change, killed after so many steps; its exit status."""
    play = lab.state_dir / f"killed-{name}.json"
    task = role(arc_sshd_port=2222, arc_sshd_way_back=WAY_BACK)
    play.write_text(json.dumps([{"hosts": name, "gather_facts": False, "tasks": [task]}]))
    return subprocess.Popen(
        ["ansible-playbook", "-i", lab.env["ARCLAB_INVENTORY"], str(play)],
        env=on_lab.environment(
            lab,
            ANSIBLE_CALLBACK_PLUGINS=str(HERE / "plugins/callback"), ANSIBLE_CALLBACKS_ENABLED="killed_run",
            ANSIBLE_PYTHON_INTERPRETER=PYTHON, KILLED_RUN_AFTER=str(after), KILLED_RUN_NOTES=str(notes),
        ),
        cwd=lab.state_dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.takes_minutes
def test_a_port_change_killed_between_any_two_steps_locks_nobody_out(lab, logins, tmp_path):
    def kill(name):
        notes = tmp_path / name
        process = killed(lab, name, KILLED.get(name, 99), notes)
        if name == DURING:
            # Azure changed over, and the answer never arrived.
            until(lambda: azure_port(lab, name) == 2222, "Azure does not change over", 60)
            os.killpg(process.pid, signal.SIGKILL)
        said, _nothing = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, said[-3000:]
        assert logins.possible(name), f"{name}: {notes.read_text()}"
        return time.monotonic()

    with lab.faulty(
        kind="arm", method="PUT", machine=DURING, path="serviceConfigurations", delay_ms=8000, when="after"
    ):
        ended = each((*KILLED, DURING), kill, at_once=3)
    done = {name: (tmp_path / name).read_text().splitlines() for name in KILLED}
    # The next step would have been the last one.
    assert done[NAMES[7]][-1].endswith("Open a new connection"), done[NAMES[7]]
    assert sum("Keep the change" in step for step in done[NAMES[7]]) == 1
    azure = {name: azure_port(lab, name) for name in (*KILLED, DURING)}
    assert set(azure.values()) == {22, 2222}

    # Nobody does anything, until the time is over.
    for name in (*KILLED, DURING):
        remaining = ended[name] + WAY_BACK + SLACK - time.monotonic()
        until(
            lambda name=name: (
                not [one for one in leftovers(lab, name) if "rolled_back" not in one and "over" not in one]
            ),
            tell(lab, name),
            max(1, remaining),
        )
        assert azure_port(lab, name) in ports(lab, name)
    assert each(azure, logins.possible) == dict.fromkeys(azure, True)
    rolled_back = {name for name in azure if "rolled_back" in " ".join(leftovers(lab, name))}
    # Those that were killed before a new connection confirmed what had landed.
    landed = {name for name in KILLED if done[name][-1].endswith(("with a way back", "Open a new connection"))}
    assert rolled_back == landed, (rolled_back, done)

    # One run more ends it, and tells what was rolled back.
    here = {name: {"ansible_port": azure[name]} for name in azure}
    again = run(lab, azure, [role(arc_sshd_port=2222)], vars_of=here)
    for name in rolled_back:
        assert "was rolled back at" in json.dumps(again.results(name, "Change sshd's configuration, with")), name
    last = run(lab, azure, [role(arc_sshd_port=2222)], vars_of={name: {"ansible_port": 2222} for name in azure})
    for name in azure:
        assert last.recap[name]["changed"] == 0, (name, last.changed(name))
        assert ports(lab, name) == [2222] and effective(lab, name)["port"] == ["2222"]
        assert port_lines(lab, name) == ["Port 2222"]
        assert leftovers(lab, name) == []
    assert each(azure, logins.possible) == dict.fromkeys(azure, True)
