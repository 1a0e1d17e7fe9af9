# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What survives the end of the lab's process?

One sqlite file of `(kind, key) -> JSON`. Reads come from memory; writes are collected and go to the file in one
transaction per batch, so that thousands of requests per second do not wait for the disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Store:
    """`kind` groups values that are loaded together; a value of `None` deletes."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS state (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key))"
        )
        self._pending: dict[tuple[str, str], Any] = {}

    def load(self, kind: str) -> Iterator[tuple[str, Any]]:
        for key, value in self._database.execute("SELECT key, value FROM state WHERE kind = ?", (kind,)):
            yield key, json.loads(value)

    def save(self, kind: str, key: str, value: Any) -> None:
        """`value` is read when the batch is written: what changes until then is saved changed."""
        self._pending[kind, key] = value

    def delete(self, kind: str, key: str) -> None:
        self._pending[kind, key] = None

    def flush(self) -> None:
        """Write what is pending."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        gone = [place for place, value in pending.items() if value is None]
        kept = [(*place, json.dumps(value)) for place, value in pending.items() if value is not None]
        self._database.execute("BEGIN")
        self._database.executemany("DELETE FROM state WHERE kind = ? AND key = ?", gone)
        self._database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", kept)
        self._database.execute("COMMIT")

    def close(self) -> None:
        self.flush()
        self._database.close()
