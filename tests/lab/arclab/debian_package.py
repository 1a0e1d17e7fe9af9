# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a Debian package, and the index of a repository that offers it?

deb(5): an ar archive of the format's version, the control files and the tree, both as gzipped tars. Made here so that a lab needs
no packaging tools; the same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping

# Path below the root: mode and text.
Files = Mapping[str, tuple[int, str]]


def _tar(files: Files) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, (mode, text) in files.items():
            entry = tarfile.TarInfo(f"./{path}")
            entry.mode, entry.size = mode, len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(stream.getvalue(), mtime=0)


def build(control: Mapping[str, str], scripts: Mapping[str, str], files: Files) -> bytes:
    """The package: `control` are its fields, `scripts` those of its maintainer (postinst, prerm, ...)."""
    fields = "".join(f"{name}: {value}\n" for name, value in control.items())
    about = {"control": (0o644, fields), **{name: (0o755, text) for name, text in scripts.items()}}
    members = (("debian-binary", b"2.0\n"), ("control.tar.gz", _tar(about)), ("data.tar.gz", _tar(files)))
    archive = b"!<arch>\n"
    for name, content in members:
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        archive += content + b"\n" * (len(content) % 2)
    return archive


def index(control: Mapping[str, str], filename: str, package: bytes) -> str:
    """The file `Packages` of a repository in a folder that holds this package alone."""
    fields = "".join(f"{name}: {value}\n" for name, value in control.items() if name != "Description")
    digest = hashlib.sha256(package).hexdigest()
    about = f"Filename: ./{filename}\nSize: {len(package)}\nSHA256: {digest}\n"
    return f"{fields}{about}Description: {control['Description']}\n"
