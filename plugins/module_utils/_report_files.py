# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do reports get to their places, and how are earlier ones kept?

Each is written wholly or not at all. Reports of the history carry a number, which orders them whatever the clock did, and a run claims its number
with a file of its own, so that two runs at once write two reports. Only what was written here is ever deleted. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ._drift import FORMAT, VERSION
from ._errors import ArcError
from ._files import read_text, replace_text
from ._reports._trend import Point, Unreadable, parse

_KEPT = re.compile(r"drift-(\d{6,})-\d{8}T\d{6}Z\.json")
_CLAIM = re.compile(r"\.drift-(\d{6,})\.claim")

# No report of the history is larger, unless each of 100,000 machines failed.
_LARGEST = 100 * 1024 * 1024


def write(path: str, text: str, *, public: bool = False) -> None:
    """Write a report to `path`. It keeps the mode it has and is its owner's alone at first; a `public` one may be read by everybody.

    Raises ArcError where it cannot be written.
    """
    place = os.path.abspath(path)
    try:
        # A directory that is missing is a slip of the pen, or a volume that is not mounted.
        os.stat(os.path.dirname(place))
        replace_text(place, text)
        if public:
            os.chmod(place, 0o644)
    except OSError as exc:
        raise ArcError(
            f"The drift report cannot be written to {path}: {exc.strerror}. What was there before is untouched.",
            hint="Make room, or name a place that can be written to.",
        ) from exc


def unfinished(path: str, last: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """The report with which a run began its repair and then did not come to its end, and why it is not believed where it is not.

    `last` is the last report that was kept, if any: a run that has one of its own has come to its end.
    """
    try:
        found = _report(path)
    except (OSError, ValueError) as exc:
        return None, f"{path} is not what a run that was stopped left behind, and is passed over: {exc}"
    ended = None
    with contextlib.suppress(OSError, ValueError):
        ended = _report(last) if found and last else None
    return (None if ended and found and ended["begun"] == found["begun"] else found), None


def _report(path: str) -> dict[str, Any] | None:
    """A report of this version, `None` where there is none. Raises OSError, and ValueError for anything else."""
    text = read_text(path)
    if text is None:
        return None
    found = json.loads(text)
    if not isinstance(found, dict) or (found.get("format"), found.get("version")) != (FORMAT, VERSION):
        raise ValueError("it is another file")
    try:
        whole = all(
            {"name", "host"} <= set(entry) and all(step["resource"] for step in entry["drift"])
            for kind in ("machines", "subscriptions")
            for entry in found[kind].values()
        )
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole or not isinstance(found.get("begun"), str):
        raise ValueError("it is damaged")
    return found


class History:
    """The reports of earlier runs, in a directory of their own; foreign files in it stay as they are."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.warnings: list[str] = []

    def last(self) -> str | None:
        """The newest report, `None` where there is none."""
        with contextlib.suppress(OSError):
            return os.path.join(self.directory, self._names()[-1]) if self._names() else None
        return None

    def trend(self, most: int) -> list[Point]:
        """The points of the last `most` reports, the oldest first. Those that cannot be read are left out and named in `warnings`."""
        try:
            names = self._names()
        except FileNotFoundError:
            return []
        except OSError as exc:
            self._warn(f"The history {self.directory} cannot be read: {exc.strerror}. The trend is left out.")
            return []
        return [found for found in map(self._point, names[-most:]) if found is not None]

    def add(self, text: str, now: datetime, keep: int) -> str:
        """Add a report, then delete those of this collection's that are older than the last `keep`. The path of the new one.

        Raises ArcError where it cannot be added; nothing is deleted then.
        """
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.directory, 0o700)
            with self._claimed() as number:
                path = self._path(f"drift-{number:06}-{now:%Y%m%dT%H%M%SZ}.json")
                replace_text(path, text)
        except OSError as exc:
            raise ArcError(
                f"The drift report cannot be added to the history {self.directory}: {exc.strerror}. The reports in it are untouched.",
                hint="Make room, or name a directory that can be written to.",
            ) from exc
        self._prune(keep, os.path.basename(path))
        return path

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[int]:
        """A number that no report has and no other run takes meanwhile."""
        number = 0
        while True:
            number = max(number, self._highest()) + 1
            claim = self._path(f".drift-{number:06}.claim")
            try:
                os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                continue
            try:
                # Another run may have had this number, and be done with it.
                if self._highest() < number:
                    yield number
                    return
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(claim)

    def _highest(self) -> int:
        return max((_number(name) for name in self._names()), default=0)

    def _names(self) -> list[str]:
        """The names of the reports, the oldest run first."""
        names = [name for name in os.listdir(self.directory) if _KEPT.fullmatch(name)]
        return sorted(names, key=lambda name: (_number(name), name))

    def _prune(self, keep: int, newest: str) -> None:
        """Delete the oldest reports; `newest` stays, even where another run took a higher number and was faster."""
        try:
            names = self._names()
            for name in names[:-keep]:
                if name != newest and self._point(name) is not None:
                    os.unlink(self._path(name))
            self._drop_claims(min(map(_number, names[-keep:]), default=0))
        except FileNotFoundError:
            # Another run is at it as well; the next one does what is left.
            return
        except OSError as exc:
            self._warn(f"Old reports cannot be deleted from the history {self.directory}: {exc.strerror}.")

    def _drop_claims(self, oldest: int) -> None:
        """Delete the claims of runs that were killed while they wrote."""
        for name in os.listdir(self.directory):
            claim = _CLAIM.fullmatch(name)
            if claim and int(claim[1]) < oldest:
                os.unlink(self._path(name))

    def _point(self, name: str) -> Point | None:
        path = self._path(name)
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise Unreadable("is no report")
            with open(path, encoding="utf-8") as handle:
                return parse(handle.read())
        except FileNotFoundError:
            # Another run deleted it, because it was too old.
            return None
        except Unreadable as exc:
            self._warn(f"{path} {exc}. It is left alone, and left out of the trend.")
        except UnicodeDecodeError:
            self._warn(f"{path} is no text. It is left alone, and left out of the trend.")
        except OSError as exc:
            self._warn(f"{path} cannot be read: {exc.strerror}. It is left alone, and left out of the trend.")
        return None

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _number(name: str) -> int:
    found = _KEPT.fullmatch(name)
    return int(found[1]) if found else 0
