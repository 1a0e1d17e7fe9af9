# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How is a file of the user's replaced, wholly or not at all?

For files that ssh reads. A link stays a link; one in a directory that others may write to is somebody's trap, and so is a file there.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile

from ._errors import InputError


def settled(path: str) -> str:
    """The file that `path` means, links followed. Raises InputError where somebody else could put another in its place."""
    given = os.path.abspath(os.path.expanduser(path))
    real = os.path.realpath(given)
    for directory in (os.path.dirname(given), os.path.dirname(real)):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(directory)
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (0, os.geteuid()):
                raise InputError(
                    f"{path}: others may write to the directory {directory}.",
                    hint="Name a file in a directory of your own, with mode 0700 or 0755.",
                )
    return real


def read_text(file: str) -> str | None:
    """The text of a file, to the byte; `None` where there is none."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape", newline="\n") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def replace_text(file: str, text: str) -> None:
    """Replace the file; it keeps its mode and owner, and a new one is its owner's alone. Raises OSError, the old one is there then."""
    directory, name = os.path.split(file)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=f".{name.lstrip('.')}.", dir=directory)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            with contextlib.suppress(FileNotFoundError):
                before = os.stat(file)
                os.fchmod(descriptor, before.st_mode & 0o7777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fsync(descriptor)
        os.replace(part, file)
    except BaseException:
        os.unlink(part)
        raise
