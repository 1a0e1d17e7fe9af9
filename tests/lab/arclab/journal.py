# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was asked of the lab, and what did it answer?

One JSON line per request in a file of mode 0600, and the newest in memory for the control API. Secrets never get in:
whatever a key says is secret is replaced before the line exists.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

KEPT = 100_000
REDACTED = "(redacted)"
_SECRETS = frozenset(
    name.lower()
    for name in (
        "access_token accessToken refresh_token id_token token client_secret clientSecret secret password assertion "
        "client_assertion accessKey serviceConfigurationToken protectedSettings protectedParameters runAsPassword "
        "req_cnf "
        "sb-hc-token sb-hc-statusDescription authorization privateKey"
    ).split()
)


def redact(value: Any) -> Any:
    """`value` with everything secret replaced, however deep."""
    if isinstance(value, dict):
        return {
            key: REDACTED if str(key).lower() in _SECRETS and inner is not None else redact(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [redact(inner) for inner in value]
    return value


def repeated_writes(lines: Iterable[dict[str, Any]]) -> list[str]:
    """The writes that were carried out although the same write had been, with nothing else in between: "PUT path".

    A write counts by the journal's field `carried_out`, whatever the client was told: its answer may have been lost on the way.
    """
    last: dict[str, tuple[str, Any]] = {}
    repeated = []
    for line in lines:
        if line.get("carried_out") and line["method"] in ("PUT", "PATCH", "DELETE"):
            write = (line["method"], line["request_body"])
            if last.get(line["resource_id"]) == write:
                repeated.append(f"{line['method']} {line['path']}")
            last[line["resource_id"]] = write
    return repeated


class Journal:
    """`journal.jsonl` of a state directory."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lines: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._unwritten: list[dict[str, Any]] = []
        self._sequence = itertools.count(1)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    def write(self, line: dict[str, Any]) -> dict[str, Any]:
        """Add a line; `seq` and `time` are given here, secrets are taken out here."""
        entry = {"seq": next(self._sequence), "time": round(self._clock(), 6), **redact(line)}
        self._lines.append(entry)
        self._unwritten.append(entry)
        return entry

    def flush(self) -> None:
        if not self._unwritten:
            return
        lines, self._unwritten = self._unwritten, []
        with self._path.open("a") as file:
            file.writelines(json.dumps(line, default=str) + "\n" for line in lines)

    def clear(self) -> None:
        self._lines.clear()
        self._unwritten.clear()
        self._path.open("w").close()

    def read(self, **wanted: Any) -> list[dict[str, Any]]:
        """The lines that match: `path`, `resource_id` and `action` as regular expressions, `since` a `seq`, others by
        value."""
        return [line for line in self._lines if _wanted(line, wanted)]


def _wanted(line: dict[str, Any], wanted: dict[str, Any]) -> bool:
    for name, value in wanted.items():
        if name == "since":
            if line["seq"] <= int(value):
                return False
        elif name in ("path", "resource_id", "action"):
            if not re.search(str(value), str(line.get(name) or ""), re.IGNORECASE):
                return False
        elif str(line.get(name)).lower() != str(value).lower():
            return False
    return True
