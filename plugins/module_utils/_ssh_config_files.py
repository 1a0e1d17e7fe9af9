# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do ssh's files become what they shall be?

One file is ours alone and replaced as a whole; in the user's own configuration we keep one block, which includes it. Ours is written first
and removed last, so that ssh never looks for one that is not there. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._claims import Claims, default_path
from ._errors import ArcError, InputError
from ._files import read_text, replace_text, settled
from ._ids import MachineId
from ._names import unique_names
from ._ssh_config import PORT, Entry, changes, entry, is_ours, parse, with_include, without_include

# What ssh puts in the place of %C, and appends while it makes a socket; how long a socket's name may be (sun_path, the shortest).
_SOCKET_NAME = 40 + 17
_LONGEST_SOCKET = 103


@dataclass
class Written:
    """What was done, or would be. `before` and `after` are what is said of the machines that differ."""

    path: str
    counts: dict[str, int]
    changed: bool
    included: bool
    before: dict[str, Sequence[str]] = field(default_factory=dict)
    after: dict[str, Sequence[str]] = field(default_factory=dict)


def entries(machines: Sequence[Mapping[str, Any]]) -> tuple[list[Entry], list[str]]:
    """The machines of the option, each under a name of its own, and the names that several would have had.

    Raises InputError for an id that is none, a machine that is named twice, and what cannot stand in ssh's configuration.
    """
    parsed = [MachineId.parse(one["id"]) for one in machines]
    twice = [key for key, count in Counter(machine.key for machine in parsed).items() if count > 1]
    if twice:
        raise InputError(f"These machines are named more than once: {', '.join(twice)}.")
    names, shared, _refused = unique_names(
        [(machine, one.get("host") or machine.name) for machine, one in zip(parsed, machines)]
    )
    found = [
        entry(
            [name],
            machine,
            one["ssh_args"],
            port=one.get("port") or PORT,
            user=one.get("user"),
            private_key_file=one.get("private_key_file"),
        )
        for name, machine, one in zip(names, parsed, machines)
    ]
    return found, shared


def shared_at(path: str, control_persist: str) -> str | None:
    """Where connections are shared: beside the file, which is in a directory of the user's own; `None` for not at all.

    Raises InputError for a time that is none, and for a directory whose name is too long for sockets.
    """
    if control_persist.lower() in ("no", "false", "0"):
        return None
    if not re.fullmatch(r"yes|(\d+[smhdwSMHDW]?)+", control_persist):
        raise InputError(f"control_persist {control_persist!r} is neither a time nor no.", hint="Write 10m, 2h or no.")
    directory = os.path.dirname(os.path.abspath(os.path.expanduser(path)))
    shared = os.path.join(directory, "arc-%C")
    if len(os.fsencode(shared)) - len("%C") + _SOCKET_NAME > _LONGEST_SOCKET:
        raise InputError(
            f"{directory} is too long a name for the sockets of shared connections.",
            hint="Name a file in another directory with path, or share none with control_persist: no.",
        )
    return shared


def write(path: str, text: str | None, config: str | None, *, check_mode: bool) -> Written:
    """Bring the file at `path` to `text`, `None`: there shall be none; and our block in `config` to what that needs.

    `config` is the user's configuration, `None` to leave it alone. Raises InputError for a file that is not ours, ArcError where
    something cannot be written.
    """
    file, main = settled(path), settled(config) if config else None
    claims = None if check_mode else Claims(default_path())
    try:
        with claims.hold(f"ssh_config {file}", time.sleep) if claims else contextlib.nullcontext():
            return _write(file, text, main, check_mode=check_mode)
    except OSError as exc:
        raise ArcError(
            f"{exc.filename or file} cannot be written: {exc.strerror or exc}.",
            hint="Check the owner, the permissions and the space of its directory.",
        ) from exc
    finally:
        if claims:
            claims.close()


def _write(file: str, text: str | None, main: str | None, *, check_mode: bool) -> Written:
    there = read_text(file)
    if there and not is_ours(there):
        raise InputError(
            f"{file} was not written by arcfleet.ssh.", hint="Name another file with path, or take this one away."
        )
    users = read_text(main) if main else None
    wanted = None
    if main:
        wanted = with_include(users or "", file) if text is not None else without_include(users or "")
    includes = main is not None and (users or "") != wanted
    if not check_mode:
        if text is not None and text != there:
            _put(file, text)
        if includes and main is not None:
            # An empty configuration says as much as none, and we may have made it.
            _put(main, wanted or None)
        if text is None and there is not None:
            _put(file, None)
    before, after = parse(there or ""), parse(text or "")
    differing = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return Written(
        path=file,
        counts=changes(before, after),
        changed=text != there or includes,
        included=main is not None and text is not None,
        before=_of(before, differing),
        after=_of(after, differing),
    )


def _put(file: str, text: str | None) -> None:
    if text is None:
        os.unlink(file)
    else:
        replace_text(file, text)


def _of(said: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, Any]:
    """What is said of these, for a diff; what is said of all machines has no name."""
    return {name or "all machines": list(said[name]) for name in names if name in said}
