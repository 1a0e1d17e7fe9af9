# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where does the ledger rest between two runs, and may it be believed?

A file that is missing is an empty ledger; one that is not what was written here is an empty one with a warning. Two runs that amend the same file do
so one after the other. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ._drift import IN_ORDER, REPAIRED, report
from ._errors import InputError
from ._files import read_text, replace_text, settled
from ._ledger import Doubt, Ledger, amended, parse, render


def load(path: str, cloud: str) -> tuple[Ledger, str | None]:
    """The ledger, and why it was not believed where it was not."""
    file = settled(path)
    try:
        text = read_text(file)
        return (Ledger() if text is None else parse(text, cloud)), None
    except Doubt as exc:
        return Ledger(), f"The ledger {path} was not believed: {exc}. Every machine is read."
    except OSError as exc:
        return Ledger(), f"The ledger {path} cannot be read: {exc.strerror}. Every machine is read."


def note(params: Mapping[str, Any], *, write: bool) -> tuple[int, int]:
    """Note what a run has found; how many machines it found in order, and how many are known to be. `params` are those of the module arc_ledger.

    Raises InputError for what is not what other modules returned, and where the ledger cannot be written.
    """
    look = params["look"]
    try:
        found = report(params["findings"], mode=params["mode"], begun="", ended="", looked=params["looked"])
        # What belongs to no machine may have kept any of them from being looked at.
        in_order = () if found["problems"] else (IN_ORDER, REPAIRED)
        statuses = {key: entry["status"] for key, entry in found["machines"].items()}
        verified = {key: look["desired"][key] for key, status in statuses.items() if status in in_order}
        change = partial(
            amended,
            now=datetime.fromisoformat(look["at"]),
            verified=verified,
            disproved={*look["written"], *statuses},
            visited=params["visited"],
            subscriptions=look["logs"],
            full_every=timedelta(seconds=look["full_every"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise InputError(f"look or findings is not what other modules of this collection returned: {exc!r}.") from exc
    after = amend(params["path"], look["cloud"], change) if write else change(load(params["path"], look["cloud"])[0])
    return len(verified), len(after.machines)


def amend(path: str, cloud: str, change: Callable[[Ledger], Ledger]) -> Ledger:
    """Replace the ledger by what `change` makes of it, wholly or not at all. Raises InputError where it cannot be written."""
    file = settled(path)
    try:
        with _alone(file):
            after = change(load(path, cloud)[0])
            replace_text(file, render(after, cloud))
    except OSError as exc:
        raise InputError(
            f"The ledger cannot be written to {path}: {exc.strerror}. What was there before is untouched.",
            hint="The next run reads again what this one has verified. Make room, or name another place.",
        ) from exc
    return after


@contextlib.contextmanager
def _alone(file: str) -> Iterator[None]:
    directory = os.path.dirname(file)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(directory, f".{os.path.basename(file)}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
