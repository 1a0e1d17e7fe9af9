# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the package of Entra login one that apt and dpkg take, with the block that Microsoft's has, and what does its failure say?"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from arclab import aad_certhandler, aadsshlogin, debian_package


def unpacked(package: bytes, folder: Path) -> Path:
    """What ar(5) and tar find in a package."""
    stream = io.BytesIO(package)
    assert stream.read(8) == b"!<arch>\n"
    while header := stream.read(60):
        name, size, end = header[:16].decode().rstrip(), int(header[48:58]), header[58:]
        content = stream.read(size)
        stream.read(size % 2)
        assert end == b"`\n"
        if name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                tar.extractall(folder / name.removesuffix(".tar.gz"), filter="fully_trusted")
        else:
            (folder / name).write_bytes(content)
    return folder


def test_a_package_is_what_deb_says(tmp_path: Path) -> None:
    package = debian_package.build(
        {"Package": "a", "Version": "1"}, {"postinst": "#!/bin/sh\n"}, {"usr/sbin/a": (0o755, "x\n")}
    )
    assert package == debian_package.build(
        {"Package": "a", "Version": "1"}, {"postinst": "#!/bin/sh\n"}, {"usr/sbin/a": (0o755, "x\n")}
    )
    found = unpacked(package, tmp_path)
    assert (found / "debian-binary").read_text() == "2.0\n"
    assert (found / "control/control").read_text() == "Package: a\nVersion: 1\n"
    assert (found / "control/postinst").stat().st_mode & 0o777 == 0o755
    assert (found / "data/usr/sbin/a").read_text() == "x\n"


def test_the_index_describes_the_package() -> None:
    files = aadsshlogin.repository()
    [(path, (_mode, package))] = [one for one in files.items() if one[0].endswith(".deb")]
    index = files[f"{aadsshlogin.REPOSITORY}/Packages"][1].decode()
    fields = dict(line.split(": ", 1) for line in index.splitlines())
    assert fields["Filename"] == f"./{path.rpartition('/')[2]}"
    assert fields["SHA256"] == hashlib.sha256(package).hexdigest() and fields["Size"] == str(len(package))
    assert fields["Package"] == "aadsshlogin" and "openssh-server" in fields["Depends"]


def test_the_tree_and_the_scripts_are_those_of_the_contract(tmp_path: Path) -> None:
    [package] = [one[1] for path, one in aadsshlogin.repository().items() if path.endswith(".deb")]
    found = unpacked(package, tmp_path)
    assert (found / "data/etc/sudoers.d/aad_admins").read_text() == "%aad_admins ALL=(ALL) NOPASSWD:ALL\n"
    assert (found / "data/usr/sbin/aad_certhandler").read_text().startswith("#!/usr/bin/python3 -I\n")
    postinst = (found / "control/postinst").read_text()
    assert aadsshlogin.BLOCK in postinst and ">>/etc/ssh/sshd_config" in postinst
    for script in ("postinst", "prerm"):
        subprocess.run(["sh", "-n", found / "control" / script], check=True)


@pytest.mark.parametrize("script", [aadsshlogin.INSTALL, aadsshlogin.REMOVE])
def test_the_handler_of_the_extension_is_shell(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("status", "complaint", "expected"),
    [
        (23, "apt says\nDetected obsolete packages.\n", "Non-zero exit code: 23. Detected obsolete packages."),
        (64, "'noexec' flag set", "Extension returned non-zero exit code for Install: 64. 'noexec' flag set"),
    ],
)
def test_a_failure_names_the_code_and_the_last_line(status: int, complaint: str, expected: str) -> None:
    assert aadsshlogin.reason(status, complaint) == expected


def test_the_handler_knows_the_names_that_the_block_matches() -> None:
    [patterns] = re.findall(r"^Match User (\S+)", aadsshlogin.BLOCK)
    for name in ("anna@contoso.example", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"):
        assert aad_certhandler.NAMES.fullmatch(name)
        assert any(re.fullmatch(one.replace("?", ".").replace("*", ".*"), name) for one in patterns.split(","))
    assert not aad_certhandler.NAMES.fullmatch("root")
