# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does only that program of Microsoft's take over that the user means, and nobody else can change?"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _handover
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache

GOOD = "sshProxy_linux_amd64_1_3_026973"


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(str(tmp_path / "relay"))


def binary(folder: pathlib.Path, name: str = GOOD, content: bytes = b"#!/bin/sh\nexit 7\n", mode: int = 0o755) -> str:
    file = folder / name
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], None),
        ([GOOD, "sshProxy_linux_arm64_1_4_000001", "sshProxy_darwin_amd64_1_4_000001", "LICENSE.txt"], GOOD),
        # By number, not by text.
        (
            ["sshProxy_linux_amd64_1_3_99999", "sshProxy_linux_amd64_1_10_000001", GOOD],
            "sshProxy_linux_amd64_1_10_000001",
        ),
        ([f"{GOOD}.tmp", f".{GOOD}", "sshProxy_linux_amd64"], None),
    ],
)
def test_the_newest_for_this_computer_is_found(names: list[str], found: str | None) -> None:
    assert _handover.newest(names, "linux", "amd64") == found


def test_processors_are_called_as_az_ssh_does() -> None:
    names = {name: _handover.kind_of_processor(name) for name in ("x86_64", "aarch64", "arm64", "i686", "i386")}
    assert names == {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i686": "386", "i386": "386"}


def test_find_looks_where_az_ssh_puts_it(cache: Cache, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"web01: there is no SSH proxy of Microsoft for .* in ~/.clientsshproxy"):
        _handover.program("find", None, "web01", cache)
    folder = tmp_path / ".clientsshproxy"
    folder.mkdir()
    kind = f"{sys.platform}_{_handover.kind_of_processor(os.uname().machine)}"
    binary(folder, f"sshProxy_{kind}_1_3_026031")
    newest = binary(folder, f"sshProxy_{kind}_1_3_026973")
    assert _handover.program("find", None, "web01", cache) == newest
    assert _handover.program(f"~/.clientsshproxy/{os.path.basename(newest)}", None, "web01", cache) == newest


@pytest.mark.parametrize(
    ("name", "pinned", "said"),
    [
        ("sshProxy_linux_amd64_1_3_017634", False, "is too old: version 1.3.017634, and 1.3.022941 is needed"),
        ("sshProxy_linux_amd64_1_3_017634", True, "is too old"),
        ("sshProxy_linux_amd64_1_3_022941", False, None),
        ("sshProxy_linux_amd64_2_0_000001", False, None),
        ("sshproxy", False, "does not tell which version"),
        ("sshproxy", True, None),
    ],
)
def test_old_versions_are_refused(
    cache: Cache, tmp_path: pathlib.Path, name: str, pinned: bool, said: str | None
) -> None:
    file = binary(tmp_path, name)
    digest = digest_of(pathlib.Path(file).read_bytes()) if pinned else None
    if said is None:
        assert _handover.program(file, digest, "web01", cache)
        return
    with pytest.raises(InputError, match=said) as refused:
        _handover.program(file, digest, "web01", cache)
    assert refused.value.message.startswith(f"web01: {file}" if "old" in said else "web01: the name of")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_may_change_is_refused(cache: Cache, tmp_path: pathlib.Path, mode: int) -> None:
    file = binary(tmp_path, mode=mode)
    for digest in (None, digest_of(pathlib.Path(file).read_bytes())):
        with pytest.raises(InputError, match=f"others may change it .mode {mode:04o}.") as refused:
            _handover.program(file, digest, "web01", cache)
        assert "chmod go-w" in str(refused.value)


@pytest.mark.parametrize("shared", ["file", "link"])
def test_what_others_may_replace_is_refused(cache: Cache, tmp_path: pathlib.Path, shared: str) -> None:
    places = {name: tmp_path / name for name in ("file", "link")}
    for place in places.values():
        place.mkdir()
    link = places["link"] / GOOD
    link.symlink_to(binary(places["file"]))
    assert _handover.program(str(link), None, "web01", cache) == str(link)
    places[shared].chmod(0o777)
    with pytest.raises(InputError, match="others may put another file in its place"):
        _handover.program(str(link), None, "web01", cache)
    # As in /tmp, where only owners replace their files.
    places[shared].chmod(0o1777)
    assert _handover.program(str(link), None, "web01", cache) == str(link)


@pytest.mark.parametrize("kind", ["missing", "plain", "directory", "pipe"])
def test_what_is_no_program_is_refused(cache: Cache, tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / GOOD
    if kind == "plain":
        binary(tmp_path, mode=0o644)
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match="cannot be run"):
        _handover.program(str(path), None, "web01", cache)


def test_what_runs_is_what_was_compared(cache: Cache, tmp_path: pathlib.Path) -> None:
    content = b"#!/bin/sh\nexit 7\n" + bytes(400_000)
    file = binary(tmp_path, content=content)
    chosen = _handover.program(file, digest_of(content).upper().replace("SHA256", "sha256"), "web01", cache)
    # Whoever changes the file now is too late.
    pathlib.Path(file).write_bytes(b"#!/bin/sh\nexit 1\n")
    assert pathlib.Path(chosen).read_bytes() == content
    assert os.path.dirname(chosen) == cache.directory
    assert os.stat(chosen).st_mode & 0o777 == 0o700
    assert os.spawnv(os.P_WAIT, chosen, [chosen]) == 7
    with pytest.raises(InputError, match="is not run: its digest is sha256:[0-9a-f]{64}, which is not"):
        _handover.program(file, digest_of(content), "web01", cache)


def test_a_copy_that_was_touched_is_made_again(cache: Cache, tmp_path: pathlib.Path) -> None:
    content = b"#!/bin/sh\nexit 7\n"
    file, digest = binary(tmp_path, content=content), digest_of(content)
    chosen = pathlib.Path(_handover.program(file, digest, "web01", cache))
    first = chosen.stat().st_ino
    assert pathlib.Path(_handover.program(file, digest, "web01", cache)).stat().st_ino == first
    for damage in (b"#!/bin/sh\nexit 1\n", content + b"\n", b""):
        chosen.write_bytes(damage)
        _handover.program(file, digest, "web01", cache)
        assert chosen.read_bytes() == content
    chosen.chmod(0o777)
    _handover.program(file, digest, "web01", cache)
    assert chosen.stat().st_mode & 0o777 == 0o700
