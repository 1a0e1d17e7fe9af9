# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does ssh read of each machine what the inventory says of it, and of no machine what is another's?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_config import (
    BEGIN,
    END,
    Entry,
    changes,
    entry,
    is_ours,
    parse,
    render,
    with_include,
    without_include,
)

SUB = "11111111-2222-3333-4444-555555555555"


def machine(name: str = "web01", group: str = "rg") -> MachineId:
    return MachineId.build(SUB, group, name)


def args(one: MachineId, more: str = "") -> str:
    identifier = f"'\"'\"'{one}'\"'\"'" if "(" in str(one) else str(one)
    return (
        f"-o 'ProxyCommand=/usr/bin/python3 /c/_start.py --resource-id {identifier} --port %p --once' "
        f"-o HostKeyAlias={one.key}{more}"
    )


def made(name: str = "web01", group: str = "rg", more: str = "", **options: object) -> Entry:
    one = machine(name, group)
    return entry([name], one, args(one, more), **options)  # type: ignore[arg-type]


def text(*entries: Entry, control_path: str | None = "/h/.ssh/arcfleet-%C") -> str:
    return render(entries, control_path=control_path, control_persist="10m")


def test_what_all_have_is_said_once_and_for_machines_that_are_not_listed() -> None:
    lines = text(made("web01"), made("web02")).splitlines()
    proxy = "  ProxyCommand /usr/bin/python3 /c/_start.py --resource-id '%h' --port %p"
    assert lines[1:] == [
        "Host web01",
        f"  HostName {machine('web01')}",
        "Host web02",
        f"  HostName {machine('web02')}",
        "Match host /subscriptions/*/machines/*",
        proxy,
        "Match host /subscriptions/*/machines/*",
        "  ConnectTimeout 200",
        "  ServerAliveInterval 30",
        "  UpdateHostKeys yes",
        "  ControlMaster auto",
        "  ControlPath /h/.ssh/arcfleet-%C",
        "  ControlPersist 10m",
    ]


def test_an_id_that_a_shell_would_misread_is_in_quotation_marks() -> None:
    assert made(group="rg(1)").options == made().options


def test_another_port_needs_the_name_of_the_host_key() -> None:
    assert made(port=2222).lines == (f"HostName {machine()}", "Port 2222", f"HostKeyAlias {machine().key}")


def test_machines_that_differ_are_told_apart_and_get_nothing_of_the_others() -> None:
    win = made("win01", user="Administrator")
    linux = [made(name, more=" -o CertificateFile=/c/a-cert.pub -o IdentityFile=/c/a", user="app") for name in "abc"]
    lines = text(win, *linux, control_path=None).splitlines()
    start = lines.index("Match originalhost win01")
    assert lines[start + 1].strip() == "User Administrator"
    rest = lines.index("Match host /subscriptions/*/machines/* originalhost *,!win01")
    assert "  CertificateFile /c/a-cert.pub" in lines[rest:]
    assert not [line for line in lines[start:rest] if "CertificateFile" in line]
    assert not [line for line in lines if "Control" in line]


@pytest.mark.parametrize(
    ("ssh_args", "said"),
    [
        ("-o 'ProxyCommand=x", "open quotation mark"),
        ("-F none", "'-F' among its arguments"),
        ("-v", "'-v' among"),
        ("-o", "'-o' among"),
        ("-o HostKeyAlias=x", "hold no ProxyCommand"),
        ("", "hold no ProxyCommand"),
        ("-o 'ProxyCommand=a\nHost *'", "among its arguments"),
    ],
)
def test_what_has_no_place_in_a_configuration_is_refused(ssh_args: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        entry(["web01"], machine(), ssh_args)
    assert "web01" in caught.value.message


@pytest.mark.parametrize("user", ["", "a\nb", 'a"b'])
def test_a_user_that_would_be_more_than_a_user_is_refused(user: str) -> None:
    with pytest.raises(InputError, match="cannot stand"):
        made(user=user)


def test_names_of_users_and_files_are_one_word() -> None:
    found = made(user="o'brien@contoso.example", private_key_file="/h/my keys/100%")
    assert found.options[:2] == (("User", '"o\'brien@contoso.example"'), ("IdentityFile", '"/h/my keys/100%%"'))


@pytest.mark.parametrize("name", ["a b", "*", "!a", "a,b", "-oX", "", "a@b", "a\nHost *"])
def test_a_name_that_is_a_pattern_or_more_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be a name"):
        entry([name], machine(), args(machine()))


def test_no_two_machines_have_a_name() -> None:
    with pytest.raises(InputError, match="two machines"):
        text(made("web01"), made("WEB01", "other"))


def test_a_file_tells_what_has_changed() -> None:
    before = parse(text(made("a"), made("b"), made("c")))
    after = parse(text(made("a"), made("b", port=2222), made("d")))
    assert changes(before, after) == {"created": 1, "updated": 1, "deleted": 1, "unchanged": 1}
    assert before["a"] == [f"HostName {machine('a')}"]
    assert is_ours(text(made()))
    assert not is_ours("Host *\n")


def test_the_include_is_at_the_top_and_there_once() -> None:
    users = "Host *\n  User me\n"
    once = with_include(users, "/h/my ssh/arcfleet.conf")
    assert once == f'{BEGIN}\nInclude "/h/my ssh/arcfleet.conf"\n{END}\n{users}'
    assert with_include(once, "/h/my ssh/arcfleet.conf") == once
    assert without_include(once) == users
    assert without_include(users) == users
    assert without_include(with_include("", "/x")) == ""


def test_half_a_block_is_refused() -> None:
    with pytest.raises(InputError, match="without"):
        without_include(f"{BEGIN}\nInclude /x\nHost *\n")
