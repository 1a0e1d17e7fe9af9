# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does sshd move to another port under the connection that moves it, with Azure, and back when nobody comes in there?"""

from __future__ import annotations

import pytest
from on_sshd import (
    DROP_IN,
    Logins,
    allow,
    azure_port,
    differences,
    each,
    effective,
    leftovers,
    look,
    make_socket,
    port_lines,
    ports,
    role,
    run,
    tell,
    write,
)

from arclab.client import Lab

MAIN = "/etc/ssh/sshd_config"
FOREIGN = "/etc/ssh/sshd_config.d/50-foreign.conf"
AZCMAGENT = "/opt/azcmagent/bin/azcmagent"
# Debian as it is, sockets of systemd, other people's lines: in the main file without an Include, in files of their own.
MOVED = ("web01", "web02", "sock01", "sock02", "top01", "other01")
REFUSED = {"agent01": "the agent refuses the port", "azure01": "Azure refuses it", "taken01": "another program has it"}
MOVE = role(arc_sshd_port=2222)


@pytest.fixture(scope="module")
def lab(machines) -> Lab:
    found = machines(
        {"name": "web01"},
        {"name": "web02", "suite": "trixie"},
        {"name": "sock01"},
        {"name": "sock02", "suite": "trixie"},
        {"name": "top01"},
        {"name": "other01", "suite": "trixie"},
        *({"name": name} for name in REFUSED),
        listener_lag=0,
    )
    allow(found)
    for name in ("sock01", "sock02"):
        make_socket(found, name)
    found.shell(
        "top01", f"sed -i -e '/^Include/d' -e '1i Port 22' {MAIN}; rm -r /etc/ssh/sshd_config.d; systemctl reload ssh"
    )
    write(found, "other01", FOREIGN, "# ours\nPort 22\nListenAddress 0.0.0.0\n", "600")
    found.shell("other01", "systemctl reload ssh")
    return found


@pytest.fixture(scope="module")
def logins(lab):
    return Logins(lab)


@pytest.fixture(scope="module")
def before(lab):
    return each((*MOVED, *REFUSED), lambda name: look(lab, name))


@pytest.fixture(scope="module")
def moved(lab, before, logins):
    return run(lab, MOVED, [MOVE])


def at(port, names=MOVED):
    """Variables that say on which port these machines are reached."""
    return {name: {"ansible_port": port} for name in names}


def test_check_mode_moves_nothing(lab, logins, before):
    predicted = run(lab, MOVED, [MOVE], "--check", "--diff")
    for name in MOVED:
        assert predicted.recap[name]["changed"] > 0
        assert differences(before[name], look(lab, name)) == {}
        assert azure_port(lab, name) == 22 and ports(lab, name) == [22]


def test_sshd_and_azure_move_together_and_one_port_is_left(lab, logins, before, moved):
    for name in MOVED:
        assert azure_port(lab, name) == 2222
        assert ports(lab, name) == [2222], tell(lab, name)
        assert effective(lab, name)["port"] == ["2222"]
        assert port_lines(lab, name) == ["Port 2222"]
        assert leftovers(lab, name) == []
        assert logins.possible(name)
    for name in ("sock01", "sock02"):
        assert lab.shell(name, "systemctl is-active ssh.socket").stdout.strip() == "active"
    assert effective(lab, "other01")["listenaddress"] == ["0.0.0.0:2222"]
    text = lab.shell("other01", ["cat", FOREIGN]).stdout
    assert text == "# ours\n#arcfleet.ssh# Port 22\nListenAddress 0.0.0.0\n"
    for name in MOVED:
        for path, (was, now) in differences(before[name], look(lab, name)).items():
            # What was there keeps its mode and owner.
            assert was is None or was[:3] == now[:3], path


def test_the_second_run_finds_nothing_to_do(lab, moved):
    there = each(MOVED, lambda name: look(lab, name))
    again = run(lab, MOVED, [MOVE], vars_of=at(2222))
    for name in MOVED:
        assert again.recap[name]["changed"] == 0, again.changed(name)
        assert differences(there[name], look(lab, name)) == {}


@pytest.mark.takes_minutes
def test_a_run_with_the_old_port_changes_nothing_and_names_the_port(lab, moved):
    there = look(lab, "web01")
    late = run(lab, ["web01"], [MOVE], rc=None)
    assert late.rc != 0 and "port" in late.failed("web01").lower()
    assert differences(there, look(lab, "web01")) == {} and azure_port(lab, "web01") == 2222


def test_it_survives_a_restart_of_the_machine(lab, logins, moved):
    names = ("web01", "sock02")
    for name in names:
        lab.machine(name, "stop")
        lab.machine(name, "start")
    logins.until_possible(names, 30)
    for name in names:
        assert ports(lab, name) == [2222], tell(lab, name)


@pytest.mark.takes_minutes
def test_absent_moves_back_and_leaves_nothing(lab, logins, before, moved):
    removed = run(lab, MOVED, [role(arc_sshd_state="absent")], vars_of=at(2222))
    for name in MOVED:
        assert removed.recap[name]["changed"] > 0
        assert azure_port(lab, name) == 22
        assert ports(lab, name) == [22], tell(lab, name)
        assert differences(before[name], look(lab, name)) == {}
        assert leftovers(lab, name) == []
        assert logins.possible(name)


@pytest.mark.takes_minutes
def test_what_does_not_work_is_rolled_back_and_said(lab, logins, before):
    lab.shell("agent01", f"{AZCMAGENT} config set incomingconnections.ports 22")
    lab.shell(
        "taken01",
        """systemd-run --quiet python3 -c 'import socket\ns = socket.create_server(("", 2222))\nwhile True: s.accept()[0].close()'""",
    )
    rule = {
        "kind": "arm",
        "method": "PUT",
        "machine": "azure01",
        "path": "serviceConfigurations",
        "status": 403,
        "code": "AuthorizationFailed",
    }
    with lab.faulty(**rule, times=1):
        done = run(lab, REFUSED, [role(arc_sshd_port=2222, arc_sshd_way_back=60)], rc=2)
    for name in REFUSED:
        said = done.failed(name)
        assert "2222" in said and ("rolled back" in said or "othing was changed" in said), said
        assert azure_port(lab, name) == 22
        assert ports(lab, name) in ([22], [22, 2222] if name == "taken01" else [22]), tell(lab, name)
        assert leftovers(lab, name) == []
        assert effective(lab, name)["port"] == ["22"]
        assert "Port 2222" not in port_lines(lab, name)
        assert logins.possible(name)
    # The next run works when the reason is gone.
    lab.shell("agent01", f"{AZCMAGENT} config clear incomingconnections.ports")
    run(lab, ["agent01"], [MOVE])
    assert (
        ports(lab, "agent01") == [2222] and port_lines(lab, "agent01") == ["Port 2222"] and logins.possible("agent01")
    )
    run(lab, ["agent01"], [role(arc_sshd_state="absent")], vars_of=at(2222, ["agent01"]))
    for name in REFUSED:
        assert lab.shell(name, f"ls {DROP_IN}", check=False).returncode != 0 or name != "agent01"
    assert differences(before["agent01"], look(lab, "agent01")) == {}
