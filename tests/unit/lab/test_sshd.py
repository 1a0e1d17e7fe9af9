# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a machine's sshd stay inside its directory, and do host keys stay the same?"""

from __future__ import annotations

from pathlib import Path

import pytest

from arclab.sshd import HostKeys, client_key, configuration, openssh_public


def config(directory: Path = Path("/d"), version: tuple[int, int] = (9, 2)) -> list[str]:
    text = configuration(directory, port=2200, user="me", name="web01", machine_id="/subscriptions/1", version=version)
    return text.splitlines()


def test_the_configuration_names_nothing_outside_its_directory() -> None:
    lines = config()
    assert not any(line.lower().startswith("include") or "/etc" in line for line in lines)
    assert {"Port 2200", "ListenAddress 127.0.0.1", "UsePAM no", 'AllowUsers "me"'} <= set(lines)
    environment = next(line for line in lines if line.startswith("SetEnv "))
    assert '"ARCLAB_MACHINE=web01" "ARCLAB_RESOURCE_ID=/subscriptions/1" "HOME=/d/home" "PATH=/usr' in environment


def test_percent_signs_of_a_path_are_no_tokens() -> None:
    lines = config(Path("/a%u b"))
    assert 'AuthorizedKeysFile "/a%%u b/authorized_keys"' in lines
    assert 'HostKey "/a%u b/ssh_host_ed25519_key"' in lines


@pytest.mark.parametrize(("version", "expected"), [((9, 7), False), ((9, 8), True), ((10, 0), True)])
def test_penalties_are_off_where_sshd_knows_them(version: tuple[int, int], expected: bool) -> None:
    assert ("PerSourcePenalties no" in config(version=version)) is expected


def test_host_keys_depend_on_the_lab_and_the_machine_alone(tmp_path: Path) -> None:
    one, other = HostKeys(tmp_path / "one"), HostKeys(tmp_path / "other")
    key = openssh_public(one.private("/m/A"))
    assert key == openssh_public(HostKeys(tmp_path / "one").private("/m/a"))
    assert len({key, openssh_public(one.private("/m/b")), openssh_public(other.private("/m/a"))}) == 3


def test_the_client_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = client_key(tmp_path)
    first = path.read_text()
    assert client_key(tmp_path).read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")
