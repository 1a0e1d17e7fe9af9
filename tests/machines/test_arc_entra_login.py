# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the role bring Entra login to machines, name what keeps Entra users out, and live together with arc_sshd?

web01 has its settings of sshd in files of their own, new01 all in one file; new01 is a Debian that is not supported.
"""

from __future__ import annotations

import pytest
from on_sshd import DROP_IN, ENTRA_BLOCK, allow, differences, each, effective, look, role, run, write

from on_lab import module

NAMES = ("web01", "new01")
MAIN = "/etc/ssh/sshd_config"
FOREIGN = "/etc/ssh/sshd_config.d/50-hardening.conf"
REPOSITORY = "/opt/arclab/packages.microsoft.com"
PRESENT = "Bring the extension to the state present"
PACKAGES = "Change the packages of Debian and Ubuntu"
CONFIGURED = "Change sshd's configuration, with a way back"
ASSIGN = "Assign the roles that let people log in"
EXTENSION = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
TOLD = "Tell what keeps Entra users out"
GUID = "user=7d1ac9a2-6f3c-4b3e-9f0e-0d1a52d4a0d5,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
# A package that Microsoft does not support any more, and a file system from which nothing can be executed.
OBSTACLES = f"""
mkdir -p /root/old/DEBIAN
printf 'Package: aadlogin\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' >/root/old/DEBIAN/control
dpkg-deb --build /root/old /root/old.deb && dpkg --install /root/old.deb
mount --bind /var/lib /var/lib && mount -o remount,bind,noexec /var/lib
mv {REPOSITORY} {REPOSITORY}.away
"""
MIRROR = f"""
root=/opt/mirror/repos/microsoft-debian-trixie-prod
mkdir -p $root/dists/trixie/main/binary-amd64 /opt/mirror/keys
cp {REPOSITORY}/*.deb $root && cp {REPOSITORY}/Packages $root/dists/trixie/main/binary-amd64
echo x >/opt/mirror/keys/microsoft.asc
printf 'Acquire::AllowInsecureRepositories "true"; APT::Get::AllowUnauthenticated "true";\\n' >/etc/apt/apt.conf.d/99unsigned
"""


@pytest.fixture(scope="module")
def lab(machines):
    found = machines({"name": "web01"}, {"name": "new01", "suite": "trixie"}, listener_lag=0)
    allow(found)
    found.shell("new01", f"sed -i '/^Include/d' {MAIN} && systemctl reload ssh")
    return found


@pytest.fixture(scope="module")
def before(lab):
    """What is there before the first test."""
    return each(NAMES, lambda name: look(lab, name))


def entra(validate=False, **variables):
    """The role as a task, on machines that are not supported too."""
    return {
        "ansible.builtin.include_role": {"name": "arcfleet.ssh.arc_entra_login", "rolespec_validate": validate},
        "vars": {
            "arc_entra_login_repository": f"file:{REPOSITORY}",
            "arc_entra_login_ignore": ["UnsupportedDistribution"],
            **variables,
        },
    }


def sshd(**variables):
    """The role arc_sshd as a task."""
    return role(arc_sshd_profile="hardened", arc_sshd_settings={"ClientAliveInterval": 77}, **variables)


def asks_entra(lab, name):
    """Does sshd ask Entra, for users as for service principals, and for nobody else?"""
    command = {"authorizedkeyscommand": ["/usr/sbin/aad_certhandler %u %k"], "pubkeyauthentication": ["yes"]}
    for login in (GUID, GUID.replace("7d1ac9a2-6f3c-4b3e-9f0e-0d1a52d4a0d5", "a.b@contoso.com")):
        found = effective(lab, name, login)
        if any(found[key] != value for key, value in command.items()):
            return False
    return effective(lab, name).get("authorizedkeyscommand", ["none"]) == ["none"]


def play(lab, hosts, tasks, *arguments, **more):
    """As `run`, with fewer steps for each task: there are many tasks here."""
    return run(lab, hosts, tasks, *arguments, env={"ANSIBLE_PIPELINING": "1"}, **more)


def remove_extension(lab, *names):
    """Take the extension from machines, whoever brought it; whether it was on any."""
    ids = [lab.machine(name)["id"] for name in names]
    return module(lab, "arc_extension", machines=ids, state="absent", **EXTENSION)["changed"]


def changes(done):
    """The tasks that changed anything, or would, on any host."""
    return [
        name.rpartition(" : ")[2] for name, hosts in done.tasks if any(one.get("changed") for one in hosts.values())
    ]


def both_count(lab):
    """Does sshd do what both roles are for?"""
    for name in NAMES:
        assert asks_entra(lab, name)
        assert effective(lab, name)["clientaliveinterval"] == ["77"]


def test_what_cannot_work_is_refused_before_anything_is_installed(lab, before):
    lab.shell("web01", OBSTACLES)
    try:
        done = play(lab, NAMES, [entra(validate=True, arc_entra_login_ignore=[])], rc=2)
    finally:
        lab.shell("web01", f"umount /var/lib; dpkg --purge aadlogin; mv {REPOSITORY}.away {REPOSITORY}")
    said = done.failed("web01")
    for words in ("web01: ", "obsolete package aadlogin", "/var/lib is mounted noexec", f"there is no {REPOSITORY}"):
        assert words in said
    assert "Debian GNU/Linux 13 (trixie) is not among the distributions" in done.failed("new01")
    assert lab.journal(kind="arm", method="PUT", path="/extensions/") == []
    for name in NAMES:
        assert differences(before[name], look(lab, name)) == {}


def test_check_mode_predicts_and_the_second_run_changes_nothing(lab, before):
    windows = {"win01": {"arc_os_type": "windows"}}
    everybody = (*NAMES, "win01")
    someone = lab.principal("Anna.Admin@arclab.onmicrosoft.example", type="User")
    assignment = {
        "role": "Virtual Machine Administrator Login",
        "principal_id": someone["object_id"],
        "principal_type": "User",
        "scope": lab.machine("web01")["id"].partition("/providers/")[0],
    }
    tasks = [entra(arc_entra_login_assignments=[assignment])]
    predicted = play(lab, everybody, tasks, "--check", "--diff", vars_of=windows)
    assert changes(predicted) == [PRESENT, ASSIGN], predicted.output
    for name in NAMES:
        assert differences(before[name], look(lab, name)) == {}

    done = play(lab, everybody, tasks, vars_of=windows)
    assert "nothing is done on win01" in done.output
    assert changes(done) == [PRESENT, ASSIGN], done.output
    assert all(asks_entra(lab, name) for name in NAMES)

    again = play(lab, everybody, tasks, "--diff", vars_of=windows)
    assert changes(again) == [], again.output
    assert not again.results("web01", "Look again")


@pytest.mark.takes_minutes
def test_neither_role_undoes_the_other_in_either_order(lab, before):
    # arc_sshd came second.
    done = play(lab, NAMES, [sshd(), entra(), sshd()])
    for name in NAMES:
        assert [one["changed"] for one in done.results(name, CONFIGURED)] == [True, False]
    assert PRESENT not in changes(done), done.output
    both_count(lab)

    # arc_sshd came first.
    done = play(lab, NAMES, [entra(arc_entra_login_state="absent"), entra(), sshd(), entra()])
    assert changes(done) == ["Bring the extension to the state absent", PRESENT], done.output
    both_count(lab)
    for name in NAMES:
        assert lab.shell(name, ["cat", MAIN]).stdout.endswith(ENTRA_BLOCK)
    assert lab.shell("web01", ["cat", DROP_IN]).stdout
    assert lab.shell("new01", ["cat", MAIN]).stdout.startswith("# BEGIN arcfleet.ssh\n")

    # And each goes alone: the role itself says when Entra users cannot log in any more.
    play(lab, NAMES, [sshd(arc_sshd_state="absent"), entra(), entra(arc_entra_login_state="absent")])
    for name in NAMES:
        assert differences(before[name], look(lab, name)) == {}


def test_a_line_that_keeps_entra_users_out_is_named(lab):
    remove_extension(lab, *NAMES)
    drop_in = "# Hardening\nMatch Address 127.0.0.0/8 User *,!root\n  AuthenticationMethods publickey,password\n"
    write(lab, "web01", FOREIGN, drop_in)
    lab.shell(
        "new01", f"sed -i '1i AllowGroups root' {MAIN} && echo 'Match User *,!root\nPubkeyAuthentication no' >>{MAIN}"
    )
    line = len(lab.shell("new01", ["cat", MAIN]).stdout.splitlines())
    try:
        done = play(lab, NAMES, [entra()], rc=2)
    finally:
        lab.shell("web01", f"rm {FOREIGN}")
        lab.shell("new01", f"sed -i '1d; /^Match User .*root$/,+1d' {MAIN}")
        each(NAMES, lambda name: lab.shell(name, "systemctl reload ssh"))
    web01, new01 = (done.results(name, TOLD)[0]["msg"] for name in NAMES)
    assert f"web01: {FOREIGN} line 3: AuthenticationMethods publickey,password counts for" in web01
    assert f"new01: {MAIN} line {line}: PubkeyAuthentication no counts for" in new01
    assert f"{MAIN} line 1: allowgroups root." in new01


def test_what_failed_is_repaired_only_when_asked(lab):
    # As a tool leaves it that writes the whole file.
    lab.shell("web01", f"sed -i '/^Match User/,$d' {MAIN} && systemctl reload ssh")
    assert remove_extension(lab, "new01")
    lab.shell("new01", f"mv {REPOSITORY} {REPOSITORY}.away")
    try:
        done = play(lab, NAMES, [entra(arc_entra_login_repository="")], rc=2)
    finally:
        lab.shell("new01", f"mv {REPOSITORY}.away {REPOSITORY}")
    assert "No line of sshd's configuration asks aad_certhandler" in done.failed("web01")
    assert "arc_entra_login_repair=true" in done.failed("web01")
    assert "exit code: 20" in done.failed("new01")

    done = play(lab, NAMES, [entra(arc_entra_login_repair=True), entra()])
    assert changes(done) == [PRESENT], done.output
    assert all(asks_entra(lab, name) for name in NAMES)


def test_packages_do_without_the_extension(lab, before):
    assert remove_extension(lab, *NAMES)
    lab.shell("web01", f"echo 'deb [trusted=yes] file:{REPOSITORY} ./' >/etc/apt/sources.list.d/mirror.list")
    # Microsoft's folders, but for the signatures, which this machine does without.
    lab.shell("new01", MIRROR)
    lab.clear_journal()
    packages = {"arc_entra_login_source": "packages"}
    vars_of = {"new01": {"arc_entra_login_repository": "file:/opt/mirror"}}
    task = entra(**packages)
    del task["vars"]["arc_entra_login_repository"]
    vars_of["web01"] = {"arc_entra_login_repository": f"file:{REPOSITORY}"}
    predicted = play(lab, NAMES, [task], "--check", vars_of=vars_of)
    assert all(predicted.changed(name) == ["Predict what becomes of the packages"] for name in NAMES)

    done = play(lab, NAMES, [task, task, entra(arc_entra_login_state="absent", **packages)], vars_of=vars_of)
    for name in NAMES:
        looks = done.results(name, "Look again")
        assert [(one["installed"], one["findings"] == []) for one in looks] == [(True, True), (False, False)]
    assert changes(done)[-2:] == [PACKAGES, PACKAGES], done.output
    assert lab.shell("new01", ["cat", "/etc/apt/sources.list.d/microsoft-prod.list"]).stdout == (
        "deb [signed-by=/etc/apt/keyrings/microsoft-prod.asc] file:/opt/mirror/repos/microsoft-debian-trixie-prod trixie main\n"
    )
    assert lab.journal(kind="arm", path="/extensions") == []
    for name in NAMES:
        assert differences(before[name], look(lab, name)) == {}
