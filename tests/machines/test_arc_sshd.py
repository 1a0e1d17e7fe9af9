# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the role bring sshd to what was asked for, and nothing but that, and back again?

What counts is what sshd and systemd do. The machines are those that people have: with and without a server, with the
server in a socket of systemd, without an Include, with Entra login, with lines of others.
"""

from __future__ import annotations

import pytest
from on_sshd import (
    DROP_IN,
    ENTRA,
    ENTRA_BLOCK,
    Logins,
    allow,
    differences,
    each,
    effective,
    inside,
    key,
    leftovers,
    listeners,
    look,
    make_socket,
    outside,
    port_lines,
    role,
    run,
    tell,
    write,
)

READY = ("web01", "web02", "top01", "sock01", "sock02")
BARE = ("bare01", "bare02")
MAIN = "/etc/ssh/sshd_config"
FOREIGN = "/etc/ssh/sshd_config.d/50-foreign.conf"
SETTINGS = {"ClientAliveInterval": 77, "X11Forwarding": False, "AcceptEnv": ["LANG", "COLORTERM"]}


@pytest.fixture(scope="module")
def lab(machines):
    found = machines(
        {"name": "web01"},
        {"name": "web02", "suite": "trixie"},
        {"name": "bare01", "image": "bare"},
        {"name": "bare02", "image": "bare", "suite": "trixie"},
        {"name": "top01"},
        {"name": "sock01"},
        {"name": "sock02", "suite": "trixie"},
        listener_lag=0,
    )
    allow(found)
    for name in ("sock01", "sock02"):
        make_socket(found, name)
    # An administrator's file: no Include, a mode and a group of its own, and the block of Entra login.
    found.shell(
        "top01", f"sed -i '/^Include/d' {MAIN}; rm -r /etc/ssh/sshd_config.d; chown root:adm {MAIN}; chmod 640 {MAIN}"
    )
    text = found.shell("top01", ["cat", MAIN]).stdout
    write(found, "top01", MAIN, f"Port 22\nPrintMotd no\n{text}\n{ENTRA_BLOCK}", "640")
    found.shell(
        "top01",
        "printf '#!/bin/sh\\n' >/usr/sbin/aad_certhandler; chmod 755 /usr/sbin/aad_certhandler; systemctl reload ssh",
    )
    return found


@pytest.fixture(scope="module")
def before(lab):
    """What is there before the first test."""
    return each((*READY, *BARE), lambda name: look(lab, name))


@pytest.fixture(scope="module")
def logins(lab):
    return Logins(lab)


@pytest.fixture(scope="module")
def hosts(lab):
    return {name: inside(lab, name) for name in BARE}


@pytest.fixture(scope="module")
def predicted(lab, before, hosts):
    """The run in check mode."""
    return run(lab, (*READY, *BARE), [role(**WANTED)], "--check", "--diff", vars_of=hosts)


@pytest.fixture(scope="module")
def done(lab, predicted, hosts):
    """The run that all tests after it look at."""
    return run(lab, (*READY, *BARE), [role(**WANTED, arc_sshd_authorized_keys=[key(lab)])], vars_of=hosts)


WANTED = {"arc_sshd_profile": "hardened", "arc_sshd_settings": SETTINGS}


def test_check_mode_predicts_and_changes_nothing(lab, before, predicted):
    for name in (*READY, *BARE):
        assert predicted.recap[name]["changed"] > 0, predicted.output
        assert differences(before[name], look(lab, name)) == {}
    for name in BARE:
        assert lab.shell(name, "command -v sshd", check=False).returncode != 0
        assert lab.shell(name, "find /var/lib/apt/lists -type f").stdout == ""
        assert predicted.changed(name) == ["Predict that it is installed"]
    for name in READY:
        assert leftovers(lab, name) == []
        (result,) = predicted.results(name, "Change sshd's configuration, with")
        assert "ClientAliveInterval 77" in "".join(one["after"] for one in result["diff"])


def test_what_was_asked_for_counts(lab, logins, before, predicted, done):
    for name in (*READY, *BARE):
        found = effective(lab, name)
        assert found["clientaliveinterval"] == ["77"], tell(lab, name)
        assert found["x11forwarding"] == ["no"]
        assert found["maxstartups"] == ["100:30:300"]
        assert found["passwordauthentication"] == ["no"]
        assert found["allowtcpforwarding"] == ["yes"]
        assert {"LANG", "COLORTERM"} <= set(found["acceptenv"])
        assert effective(lab, name, ENTRA)["clientaliveinterval"] == ["77"]
        assert ("persourcepenaltyexemptlist" in found) == (lab.machine(name)["suite"] == "trixie")
        assert leftovers(lab, name) == []
    for name in READY:
        # What was predicted is what was done.
        assert predicted.changed(name) == [task for task in done.changed(name) if task != "Authorize the keys"]
        assert logins.possible(name), tell(lab, name)


def test_a_server_was_brought_to_machines_without_one(lab, logins, done):
    for name in BARE:
        assert lab.shell(name, "systemctl is-enabled ssh").stdout.strip() == "enabled"
        with open(lab.env["ARCLAB_KNOWN_HOSTS"], "a", encoding="utf-8") as file:
            file.write(f"{lab.machine(name)['id'].lower()} {lab.machine(name)['host_key']}\n")
        assert logins.possible(name), tell(lab, name)


def test_only_our_file_came(lab, before, done):
    for name in ("web01", "web02", "sock01", "sock02"):
        changes = differences(before[name], look(lab, name))
        # The folder's entry stays the same, because modes and owners are compared.
        assert list(changes) == [DROP_IN]
        assert changes[DROP_IN][1][:3] == ["0o100644", 0, 0]


def test_without_an_include_our_block_comes_first_and_the_rest_stays(lab, before, done):
    changes = differences(before["top01"], look(lab, "top01"))
    assert list(changes) == [MAIN]
    assert changes[MAIN][0][:3] == changes[MAIN][1][:3]
    text = lab.shell("top01", ["cat", MAIN]).stdout
    assert text.startswith("# BEGIN arcfleet.ssh\n")
    rest = text.partition("# END arcfleet.ssh\n")[2]
    assert rest.startswith("Port 22\nPrintMotd no\n") and rest.endswith(ENTRA_BLOCK)
    assert port_lines(lab, "top01") == ["Port 22"]
    assert effective(lab, "top01", ENTRA)["authorizedkeyscommand"] == ["/usr/sbin/aad_certhandler %u %k"]


def test_sockets_stay_sockets(lab, done):
    for name in ("sock01", "sock02"):
        assert lab.shell(name, "systemctl is-active ssh.socket").stdout.strip() == "active"
        assert lab.shell(name, "systemctl is-enabled ssh.service", check=False).stdout.strip() == "disabled"


def test_the_second_run_changes_nothing(lab, hosts, done):
    there = each((*READY, *BARE), lambda name: look(lab, name))
    # The server that was installed has been there the second time, so its machines can be reached like all others.
    again = run(lab, (*READY, *BARE), [role(**WANTED, arc_sshd_authorized_keys=[key(lab)])])
    for name in (*READY, *BARE):
        assert again.recap[name]["changed"] == 0, again.changed(name)
        assert differences(there[name], look(lab, name)) == {}


def test_a_user_gets_keys_and_becomes_root(lab, logins, before):
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvcmVpZ25mb3JlaWduZm9yZWlnbmZvcmVpZ25mb3Jl someone else"
    wanted = role(
        **WANTED, arc_sshd_user="automation", arc_sshd_user_create=True, arc_sshd_user_sudo=True,
        arc_sshd_authorized_keys=[key(lab), key(lab)],
    )  # fmt: skip
    names = ("web01", "web02")
    predicted = run(lab, names, [wanted], "--check")
    for name in names:
        assert {"Make the user", "Let the user become root"} <= set(predicted.changed(name))
        assert lab.shell(name, "id automation", check=False).returncode != 0
    run(lab, names, [wanted])
    for name in names:
        assert logins.ssh(name, "id -un; sudo -n id -un", user="automation").stdout.split() == ["automation", "root"]
        home = lab.shell(name, "stat -c '%U %a' ~automation/.ssh ~automation/.ssh/authorized_keys").stdout
        assert home.split("\n")[:2] == ["automation 700", "automation 600"]
        assert (
            lab.shell(name, "stat -c '%U %G %a' /etc/sudoers.d/arcfleet-automation").stdout.strip() == "root root 440"
        )
        assert lab.shell(name, "cat ~automation/.ssh/authorized_keys").stdout.splitlines() == [key(lab)]
        lab.shell(name, ["sh", "-c", "cat >> ~automation/.ssh/authorized_keys"], stdin=f"{other}\n")
    again = run(lab, names, [wanted])
    for name in names:
        assert again.recap[name]["changed"] == 0, again.changed(name)
        assert lab.shell(name, "cat ~automation/.ssh/authorized_keys").stdout.splitlines() == [key(lab), other]


def test_loopback_is_refused_to_whoever_comes_from_elsewhere(lab, done):
    names = ("web01", "web02")
    there = each(names, lambda name: look(lab, name))
    refused = run(
        lab,
        names,
        [role(**WANTED, arc_sshd_listen="loopback")],
        rc=2,
        vars_of={name: outside(lab, name) for name in names},
    )
    for name in names:
        assert "does not come through Azure Arc" in refused.failed(name)
        assert differences(there[name], look(lab, name)) == {}


def test_loopback_lets_in_through_azure_arc_only(lab, logins, done):
    names = READY
    for name in ("web01", "web02"):
        write(lab, name, FOREIGN, "ListenAddress 0.0.0.0\n", "600")
    wanted = [role(**WANTED, arc_sshd_listen="loopback")]
    run(lab, names, wanted)
    for name in names:
        assert listeners(lab, name) == ["127.0.0.1:22", "[::1]:22"], tell(lab, name)
        assert logins.possible(name)
        assert leftovers(lab, name) == []
    again = run(lab, names, wanted)
    assert [again.recap[name]["changed"] for name in names] == [0] * len(names)
    # And back, with other people's line as it was.
    run(lab, names, [role(**WANTED)])
    for name in names:
        assert not [one for one in listeners(lab, name) if one.startswith("127.")], tell(lab, name)
        assert logins.possible(name)
    for name in ("web01", "web02"):
        assert lab.shell(name, f"cat {FOREIGN}; stat -c %a {FOREIGN}").stdout == "ListenAddress 0.0.0.0\n600\n"
        lab.shell(name, f"rm {FOREIGN}; systemctl reload ssh")


def test_what_keeps_users_out_is_found(lab, done):
    path = "/etc/ssh/sshd_config.d/osconfig_remediation.conf"
    lines = [
        "AllowUsers root",
        "AllowGroups root sudo",
        "DenyGroups nogroup",
        "DenyUsers nobody",
        "Match Address 127.0.0.1",
        "ClientAliveInterval 5",
    ]
    names = ("web01", "web02")
    for name in names:
        write(lab, name, path, "\n".join([*lines, ""]))
    try:
        what_to_do = {"web01": {"arc_sshd_findings": "report"}, "web02": {"arc_sshd_findings": "fail"}}
        found = run(lab, names, [role(**WANTED)], rc=2, vars_of=what_to_do)
        (said,) = found.results("web01", "Report what may keep users out")
        for number, line in enumerate(lines[:5], 1):
            there = f"{path} line {number}: {line}".lower()
            assert [one for one in said["msg"] if one.lower().startswith(there)], (there, said["msg"])
        assert "logins through Azure Arc get clientaliveinterval 5 instead of 77" in "".join(said["msg"])
        assert "AllowUsers root".lower() in found.failed("web02").lower()
        assert found.recap["web01"]["failures"] == 0
    finally:
        for name in names:
            lab.shell(name, f"rm {path}")


def test_a_match_block_that_shadows_a_setting_is_found(lab, done):
    write(lab, "web02", FOREIGN, "Match User root\n    X11Forwarding yes\n")
    try:
        reported = run(lab, ["web02"], [role(**WANTED)])
        (said,) = reported.results("web02", "Report what may keep users out")
        assert said["msg"] == [f"{FOREIGN} line 2: logins through Azure Arc get x11forwarding yes instead of no."]
    finally:
        lab.shell("web02", f"rm {FOREIGN}")


def test_absent_puts_everything_back(lab, logins, before, done):
    names = (*READY, *BARE)
    predicted = run(lab, names, [role(arc_sshd_state="absent")], "--check")
    removed = run(lab, names, [role(arc_sshd_state="absent")])
    for name in names:
        assert predicted.changed(name) == removed.changed(name) == ["Change sshd's configuration, with a way back"]
        assert leftovers(lab, name) == []
        assert logins.possible(name), tell(lab, name)
    for name in READY:
        assert differences(before[name], look(lab, name)) == {}
    for name in BARE:
        assert lab.shell(name, f"ls {DROP_IN}", check=False).returncode != 0
        assert lab.shell(name, "dpkg --verify openssh-server").stdout == ""
    again = run(lab, names, [role(arc_sshd_state="absent")])
    assert [again.recap[name]["changed"] for name in names] == [0] * len(names)
