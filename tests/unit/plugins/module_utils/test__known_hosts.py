# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does known_hosts get the lines that it lacks, keep those of others, and refuse what contradicts it?"""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._known_hosts import (
    host,
    known_hosts_file,
    merge,
    ssh_options,
)

WEB, DB = "/subscriptions/1/machines/web01", "/subscriptions/1/machines/db01"
ED, ED2, RSA = (
    f"{kind} {'AAAA' + letter * 60}" for kind, letter in (("ssh-ed25519", "a"), ("ssh-ed25519", "b"), ("ssh-rsa", "c"))
)


def merged(text, *hosts, replace=False):
    return merge(text, [host(name, name.rsplit("/", 1)[-1], keys) for name, keys in hosts], replace=replace, path="/kh")


def test_a_new_host_gets_its_lines_and_the_second_time_nothing_changes():
    first = merged("", (WEB, [ED, f"{RSA} root@web01"]))
    assert first.text == f"{WEB} {ED}\n{WEB} {RSA}\n"
    assert first.plans[WEB].action == "create" and first.plans[WEB].after == {"host_keys": [ED, RSA]}
    second = merged(first.text, (WEB, [ED, RSA]))
    assert second.text == first.text and second.plans[WEB].action == "none"


def test_foreign_lines_stay_byte_for_byte():
    others = f"# mine\n\n  other,10.0.0.1   {ED2} comment here\n@cert-authority *.x {RSA}\nrubbish\n{DB}\t{ED}"
    done = merged(others, (WEB, [ED]))
    assert done.text == f"{others}\n{WEB} {ED}\n"


def test_another_kind_of_key_is_added():
    done = merged(f"{WEB} {RSA}\n", (WEB, [ED, RSA]))
    assert done.text == f"{WEB} {RSA}\n{WEB} {ED}\n" and done.plans[WEB].action == "update"


def test_a_kind_that_the_host_no_longer_tells_stays():
    done = merged(f"{WEB} {RSA}\n{WEB} {ED}\n", (WEB, [ED]))
    assert done.plans[WEB].action == "none"


def test_a_changed_key_is_refused_and_stops_nobody_else():
    text = f"# first\n{WEB} {ED}\n"
    done = merged(text, (WEB, [ED2]), (DB, [RSA]))
    assert done.text == f"{text}{DB} {RSA}\n" and set(done.plans) == {DB}
    refusal = done.refused[WEB]
    assert (
        refusal.code == "HostKeyChanged"
        and "web01: its ssh-ed25519 host key is not the one that line 2 of /kh" in str(refusal)
    )


def test_one_of_two_keys_of_a_kind_is_enough():
    assert merged(f"{WEB} {ED}\n{WEB} {ED2}\n", (WEB, [ED2])).plans[WEB].action == "none"


def test_replacing_takes_all_old_keys_and_leaves_others_theirs():
    text = f"{WEB} {ED}\n{WEB},alias {RSA} comment\nother {ED}\n"
    done = merged(text, (WEB, [ED2]), replace=True)
    assert done.text == f"alias {RSA} comment\nother {ED}\n{WEB} {ED2}\n"
    assert done.plans[WEB].before == {"host_keys": [ED, RSA]} and done.plans[WEB].after == {"host_keys": [ED2]}


def test_replacing_changes_nothing_where_nothing_contradicts():
    text = f"{WEB} {RSA}\n{WEB} {ED}\n"
    assert merged(text, (WEB, [ED]), replace=True).text == text


def test_a_revoked_key_is_refused_even_when_replacing():
    done = merged(f"@revoked * {ED}\n", (WEB, [ED]), replace=True)
    assert done.refused[WEB].code == "HostKeyRevoked" and not done.plans


def test_names_are_the_same_in_every_case():
    text = f"Web01,x {ED}\nWEB01 {RSA}\n"
    assert merged(text, ("wEB01", [ED, RSA])).plans["web01"].action == "none"
    assert merged(text, ("Web01", [ED2])).refused["web01"].code == "HostKeyChanged"
    assert merged(text, ("Web01", [ED2]), replace=True).text == f"x {ED}\nweb01 {ED2}\n"


def hashed(tmp_path, text):
    """The text as OpenSSH hashes its names."""
    file = tmp_path / "known_hosts"
    file.write_text(text)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert WEB not in file.read_text() and file.read_text().startswith("|1|")
    return file.read_text()


def real_keys(tmp_path, *kinds):
    keys = []
    for kind in kinds:
        file = tmp_path / f"{kind}{len(keys)}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file)], check=True)
        keys.append(" ".join(file.with_suffix(".pub").read_text().split()[:2]))
    return keys


def test_hashed_names_are_recognised(tmp_path):
    one, two = real_keys(tmp_path, "ed25519", "ed25519")
    text = hashed(tmp_path, f"{WEB} {one}\n{DB} {two}\n")
    assert merged(text, (WEB, [one])).plans[WEB].action == "none"
    assert merged(text, (WEB, [two])).refused[WEB].code == "HostKeyChanged"
    done = merged(text, (WEB, [two]), replace=True)
    assert done.text == f"{text.splitlines()[1]}\n{WEB} {two}\n"


def test_ssh_finds_what_was_written(tmp_path):
    keys = real_keys(tmp_path, "ed25519", "ecdsa")
    file = tmp_path / "known_hosts"
    file.write_text(merged("", (WEB, keys)).text)
    found = subprocess.run(["ssh-keygen", "-F", WEB, "-f", str(file)], capture_output=True, text=True, check=True)
    assert all(key in found.stdout for key in keys)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("a b", [ED]),
        ("a,b", [ED]),
        ("*", [ED]),
        ("!a", [ED]),
        ("|1|x", [ED]),
        ("#a", [ED]),
        ("@a", [ED]),
        ("", [ED]),
        (WEB, []),
        (WEB, ["ssh-ed25519"]),
        (WEB, ["nonsense AAAA"]),
        (WEB, [f"ssh-ed25519 AAAA\n* {ED}"]),
    ],
)
def test_what_cannot_stand_in_the_file(name, keys):
    with pytest.raises(InputError):
        host(name, "web01", keys)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("", {}),
        ("-o A=1 -o 'B=two words' -oC=3 -o a=late -v", {"a": "1", "b": "two words", "c": "3"}),
        ("-o 'UserKnownHostsFile \"/a b\" /c' -o x", {"userknownhostsfile": '"/a b" /c'}),
    ],
)
def test_ssh_options(arguments, options):
    assert ssh_options(arguments) == options


def test_arguments_that_are_broken():
    with pytest.raises(InputError, match="cannot be read"):
        ssh_options("-o 'A")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("/a", "/a"),
        ("/a /b", "/a"),
        ('"/a b" /c', "/a b"),
        ('"/a\\"b"', '/a"b'),
        ("/100%%", "/100%"),
        ("~/x", "/root-of-tests/x"),
        ("%d/x", "/root-of-tests/x"),
        ("${HOME}/x", "/root-of-tests/x"),
        ("/${A}${B}", "/one%d"),
        ("none", None),
        ("/dev/null", None),
    ],
)
def test_the_file(monkeypatch, value, path):
    monkeypatch.setenv("HOME", "/root-of-tests")
    assert known_hosts_file(value, {"HOME": "/root-of-tests", "A": "one", "B": "%d"}) == path


def test_a_file_that_depends_on_the_connection():
    with pytest.raises(InputError, match="depends on the connection"):
        known_hosts_file("~/.ssh/known_hosts.d/%k", {})
    with pytest.raises(InputError, match="the variable NOWHERE, which is not set"):
        known_hosts_file("${NOWHERE}/known_hosts", {})


def test_the_inventory_and_this_agree():
    from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
    from ansible_collections.arcfleet.ssh.plugins.plugin_utils._hosts import Relay

    machine = MachineId("11111111-2222-3333-4444-555555555555", "Rg", "Web01")
    relay = Relay(python="/py", helper="/h", auth={}, known_hosts_file='/with blank/100%/"kh"')
    options = ssh_options(relay.variables(machine, "linux")["ansible_ssh_common_args"])
    assert options["hostkeyalias"] == machine.key
    assert known_hosts_file(options["userknownhostsfile"], {}) == '/with blank/100%/"kh"'
