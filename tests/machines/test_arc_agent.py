# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the role set the agents of real machines, old and new, and does it never cut the connection that it uses unasked?"""

from __future__ import annotations

import json
import time

import pytest

from on_lab import ansible, module

AZCMAGENT = "/opt/azcmagent/bin/azcmagent"
NAMES = ("web01", "new01", "old01")
ALLOWED = "extensions.allowlist"
TASK = "Work"


@pytest.fixture(scope="module")
def lab(machines):
    """Agents from before JSON lists, from between, and of today; the last on another Debian."""
    found = machines(
        {"name": "web01"},
        {"name": "new01", "suite": "trixie", "agent_version": "1.67.03300.1"},
        {"name": "old01", "agent_version": "1.33.02399.4"},
        listener_lag=0,
    )
    result = module(found, "arc_ssh_service_config", machines=[machine["id"] for machine in found.machines()])
    assert not result.get("failed"), result
    hosts = {
        name: {
            "ansible_host": found.machine(name)["address"],
            "ansible_user": "root",
            "ansible_ssh_private_key_file": found.env["ARCLAB_KEY"],
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        }
        for name in NAMES
    }
    # The same machines, without the relay.
    (found.state_dir / "direct.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    return found


@pytest.fixture(autouse=True)
def fresh(lab):
    """Every test begins with the agent as it is installed."""
    for name in NAMES:
        for words in ("config.mode full", "incomingconnections.enabled true"):
            lab.shell(name, f"{AZCMAGENT} config set {words}")
        for word in ("incomingconnections.ports", ALLOWED, "proxy.url"):
            lab.shell(name, f"{AZCMAGENT} config clear {word}")


def reached(lab, name, seconds=1):
    """Is the machine there through the relay?"""
    result = module(lab, "arc_relay_credential", machines=[lab.machine(name)["id"]], wait=True, wait_timeout=seconds)
    return not result.get("failed")


def settings(lab, name):
    """What the agent has, in its own words."""
    return json.loads(lab.shell(name, "cat /var/opt/azcmagent/localconfig.json").stdout)


def run(lab, hosts, tasks, *arguments, direct=False, rc=0, env=None):
    """Run tasks on hosts. What each host's task `Work` answered, the recap by host, and all output."""
    play = {"hosts": hosts, "gather_facts": False, "tasks": tasks}
    (lab.state_dir / "site.json").write_text(json.dumps([play]))
    more = ("-i", str(lab.state_dir / "direct.json"), "--limit", ",".join(NAMES)) if direct else ()
    done = ansible(
        lab,
        "ansible-playbook",
        *more,
        "site.json",
        *arguments,
        env={
            # sudo, although the login is root's already: it takes SSH_CONNECTION away.
            "ANSIBLE_BECOME_ALLOW_SAME_USER": "true",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            **(env or {}),
        },
        rc=rc,
    )
    told = json.loads(done.stdout[done.stdout.index("{") :])
    work = [task["hosts"] for task in told["plays"][0]["tasks"] if TASK in task["task"]["name"]]
    return (work[0] if work else {}), told["stats"], done.stdout + done.stderr


def config(**options):
    """The module as a task."""
    return {"name": TASK, "arcfleet.ssh.arc_agent_config": options, "become": True}


def role(**variables):
    """The role as a task."""
    return {"ansible.builtin.import_role": {"name": "arcfleet.ssh.arc_agent"}, "become": True, "vars": variables}


def test_the_role_opens_closed_agents_and_finds_nothing_to_do_afterwards(lab):
    for name in NAMES:
        lab.shell(name, f"{AZCMAGENT} config set incomingconnections.enabled false")
        lab.shell(name, f"{AZCMAGENT} config set incomingconnections.ports 6516")
    tasks = [role(arc_agent_add={ALLOWED: ["a/b"]})]

    _work, predicted, _output = run(lab, "all", tasks, "--check", "--diff", direct=True)
    assert [predicted[name]["changed"] for name in NAMES] == [1, 1, 1]
    assert all(settings(lab, name)["incomingconnections.enabled"] is False for name in NAMES)

    _work, done, output = run(lab, "all", tasks, "--diff", direct=True)
    assert [done[name]["changed"] for name in NAMES] == [1, 1, 1]
    for name in NAMES:
        found = settings(lab, name)
        assert found["incomingconnections.enabled"] is True
        assert found["incomingconnections.ports"] == ["6516", "22"]
        assert found[ALLOWED] == ["a/b"]
    assert "old01: 1.33.02399.4" in output
    assert "new01: 1.67" not in output

    # Through the relay, which is open again, and with the same result.
    assert all(reached(lab, name, 10) for name in NAMES)
    _work, again, _output = run(lab, "all", tasks)
    assert [(again[name]["changed"], again[name]["unreachable"]) for name in NAMES] == [(0, 0)] * 3


def test_lists_are_changed_in_parts_and_as_a_whole(lab):
    for options, expected in (
        ({"add": {ALLOWED: ["a/b", "c/d"]}}, ["a/b", "c/d"]),
        ({"add": {ALLOWED: ["C/D", "e/f"]}, "remove": {ALLOWED: ["a/b"]}}, ["c/d", "e/f"]),
        ({"properties": {ALLOWED: ["x/y", "e/f"]}}, ["x/y", "e/f"]),
        ({"properties": {ALLOWED: []}}, []),
    ):
        work, _recap, output = run(lab, "all", [config(**options), config(**options)])
        for name in NAMES:
            assert work[name]["changed"], output
            assert work[name]["after"][ALLOWED] == expected
            assert settings(lab, name)[ALLOWED] == expected
        assert output.count('"changed": true') == 3, output


@pytest.mark.parametrize(
    ("properties", "more"),
    [
        ({"incomingconnections.enabled": False}, {}),
        ({"config.mode": "monitor"}, {}),
        ({"incomingconnections.ports": [6516]}, {}),
        ({"incomingconnections.enabled": False}, {"async": 30, "poll": 1}),
    ],
)
def test_the_connection_in_use_is_not_cut_unasked(lab, properties, more):
    before = {name: settings(lab, name) for name in NAMES}
    wanted = {**properties, "proxy.url": "http://proxy:3128"}
    work, recap, output = run(lab, "all", [{**config(properties=wanted), **more}], rc=2)
    for name in NAMES:
        assert recap[name]["failures"] == 1, output
        assert f"{name}: {next(iter(properties))} would end the connection" in work[name]["msg"]
        assert settings(lab, name) == before[name]
        assert reached(lab, name)


def test_check_mode_does_not_cut_either(lab):
    tasks = [config(properties={"config.mode": "monitor"}, cut_connection=True)]
    work, _recap, _output = run(lab, "web01", tasks, "--check")
    assert work["web01"]["cutting"] == ["config.mode"]
    time.sleep(0.5)
    assert settings(lab, "web01")["config.mode"] == "full"


def test_told_twice_the_task_ends_well_and_the_connection_ends_then(lab):
    properties = {"incomingconnections.enabled": False, "config.mode": "monitor", "proxy.url": "http://proxy:3128"}
    work, recap, output = run(lab, "web01,new01", [config(properties=properties, cut_connection=True)])
    ended = time.monotonic()
    for name in ("web01", "new01"):
        assert (recap[name]["changed"], recap[name]["unreachable"]) == (1, 0), output
        assert work[name]["cutting"] == ["incomingconnections.enabled", "config.mode"]
        assert settings(lab, name)["proxy.url"] == "http://proxy:3128"
    for name in ("web01", "new01"):
        while settings(lab, name)["config.mode"] == "full" and time.monotonic() < ended + 20:
            time.sleep(0.2)
        assert settings(lab, name)["incomingconnections.enabled"] is False
        assert settings(lab, name)["config.mode"] == "monitor"
        assert not reached(lab, name)


def test_from_elsewhere_nothing_has_to_be_told_twice(lab):
    work, _recap, _output = run(lab, "web01", [config(properties={"incomingconnections.enabled": False})], direct=True)
    assert (work["web01"]["changed"], work["web01"]["cutting"]) == (True, [])
    assert settings(lab, "web01")["incomingconnections.enabled"] is False


def test_a_stopped_himds_is_named_with_its_remedy(lab):
    lab.shell("web01", "systemctl stop himdsd")
    try:
        work, _recap, _output = run(lab, "web01", [config(properties={"config.mode": "full"})], direct=True, rc=2)
    finally:
        lab.shell("web01", "systemctl start himdsd")
    assert "systemctl restart himdsd" in work["web01"]["msg"]
    assert work["web01"]["failure"]["code"] == "AZCM0070"


def test_without_root_nothing_is_changed_and_become_is_named(lab):
    task = {**config(properties={"proxy.url": "http://proxy:3128"}), "become_user": "nobody"}
    for arguments in ((), ("--check",)):
        work, _recap, _output = run(lab, "web01", [task], *arguments, rc=2, env={"ANSIBLE_PIPELINING": "1"})
        assert "become: true" in work["web01"]["msg"]
    assert settings(lab, "web01")["proxy.url"] == ""


def test_agents_that_cannot_serve_ssh_fail_or_warn(lab):
    lab.machine("old01", agent_version="1.30.02297.0")
    try:
        work, _recap, _output = run(lab, "old01", [config()], direct=True, rc=2)
        assert work["old01"]["failure"]["code"] == "AgentTooOld"
        work, _recap, _output = run(lab, "old01", [config(old_agent="warn")], direct=True)
        assert "1.31" in json.dumps(work["old01"]["warnings"])
    finally:
        lab.machine("old01", agent_version="1.33.02399.4")


def test_what_is_not_there_is_named(lab):
    work, _recap, _output = run(lab, "web01", [config(path="/opt/none/azcmagent")], rc=2)
    assert "there is no /opt/none/azcmagent" in work["web01"]["msg"]
    work, _recap, _output = run(lab, "web01", [config(properties={"no.such": 1})], "--check", rc=2)
    assert "no.such" in work["web01"]["msg"] and "update the agent" in work["web01"]["msg"]
