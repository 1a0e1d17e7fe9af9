# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does each machine go into its own file, and is a file replaced as a whole?"""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import machine_targets
from ansible_collections.arcfleet.ssh.plugins.module_utils._known_hosts_files import note

ID = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/Rg/providers/Microsoft.HybridCompute/machines/{}"
KEY, OTHER = (f"ssh-ed25519 AAAA{letter * 60}" for letter in "ab")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


def noted(*machines, path=None, replace=False, check_mode=False):
    entries = [{"id": ID.format(name), "host_keys": [key], "ssh_args": args} for name, key, args in machines]
    targets = machine_targets({"machines": entries}, ("host_keys", "ssh_args"))
    outcomes = note(targets, path=path, replace=replace, check_mode=check_mode)
    return [outcomes[target.key] for target in targets]


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_without_arguments_it_is_the_usual_file_and_private(home):
    [outcome] = noted(("Web01", KEY, None))
    file = home / ".ssh" / "known_hosts"
    assert file.read_text() == f"{ID.format('Web01').lower()} {KEY}\n"
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert outcome.action == "create" and outcome.details["path"] == str(file)
    assert os.listdir(file.parent) == ["known_hosts"]


def test_arguments_name_file_and_machine(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    noted(
        ("web01", KEY, f"-o UserKnownHostsFile={one}"),
        ("web02", KEY, f"-o HostKeyAlias=second -o UserKnownHostsFile={two}"),
    )
    assert one.read_text() == f"{ID.format('web01').lower()} {KEY}\n" and two.read_text() == f"second {KEY}\n"


def test_one_path_for_all(tmp_path):
    noted(("web01", KEY, f"-o UserKnownHostsFile={tmp_path / 'one'}"), path=str(tmp_path / "all"))
    assert (tmp_path / "all").exists() and not (tmp_path / "one").exists()


def test_where_ssh_keeps_none():
    [outcome] = noted(("web01", KEY, "-o UserKnownHostsFile=/dev/null"))
    assert outcome.action == "skip" and "UserKnownHostsFile" in outcome.skip_reason


def test_check_mode_writes_nothing(home, tmp_path):
    [outcome] = noted(("web01", KEY, None), check_mode=True)
    assert outcome.action == "create" and not home.exists() and not (tmp_path / "cache").exists()


def test_mode_and_link_stay(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("# mine\n")
    file.chmod(0o644)
    link.symlink_to(file)
    noted(("web01", KEY, None), path=str(link))
    assert link.is_symlink() and mode(file) == 0o644 and file.read_text().startswith("# mine\n")


def test_bytes_that_are_no_text_stay(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"# \xff\r\n")
    noted(("web01", KEY, None), path=str(file))
    assert file.read_bytes().startswith(b"# \xff\r\n")


def test_one_bad_machine_stops_no_other(home):
    bad, broken, good = noted(
        ("web01", "nonsense", None), ("web02", KEY, "-o 'UserKnownHostsFile=/a"), ("web03", KEY, None)
    )
    assert "not a public key" in bad.failure["message"] and "cannot be read" in broken.failure["message"]
    assert good.failure is None and good.changed


def test_two_machines_of_one_name():
    first, second = noted(("web01", KEY, "-o HostKeyAlias=x"), ("web02", OTHER, "-o HostKeyAlias=X"))
    assert first.changed and "web01 has the same name" in second.failure["message"]


def test_a_changed_key(home):
    noted(("web01", KEY, None))
    [refused] = noted(("web01", OTHER, None))
    assert refused.failure["code"] == "HostKeyChanged" and KEY in (home / ".ssh" / "known_hosts").read_text()
    [replaced] = noted(("web01", OTHER, None), replace=True)
    assert replaced.action == "update" and KEY not in (home / ".ssh" / "known_hosts").read_text()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    bad, good = noted(("web01", KEY, f"-o UserKnownHostsFile={tmp_path}/file/below"), ("web02", KEY, None))
    assert "the host keys cannot be noted: Not a directory." in bad.failure["message"] and not bad.changed
    assert good.failure is None and good.changed
