# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the journal keep everything but secrets?"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from arclab.journal import REDACTED, Journal, redact, repeated_writes


def test_secrets_are_replaced_however_deep() -> None:
    body = {
        "client_secret": "hunter2",
        "properties": {"protectedSettings": {"a": "hunter2"}, "settings": {"a": 1}, "runAsPassword": "hunter2"},
        "list": [{"relay": {"accessKey": "hunter2", "serviceConfigurationToken": "hunter2", "expiresOn": 1}}],
        "client_assertion": "hunter2",
    }
    shown = redact(body)
    assert "hunter2" not in json.dumps(shown)
    assert shown["properties"]["settings"] == {"a": 1}
    assert shown["list"][0]["relay"]["expiresOn"] == 1
    assert shown["client_secret"] == REDACTED


def test_lines_are_numbered_filtered_and_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, clock=lambda: 5.0)
    journal.write({"kind": "arm", "method": "GET", "path": "/a/b", "status": 200})
    journal.write(
        {"kind": "entra", "method": "POST", "path": "/t/token", "status": 401, "request_body": {"secret": "x"}}
    )
    journal.flush()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["seq"], line["time"]) for line in lines] == [(1, 5.0), (2, 5.0)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["seq"] for line in journal.read(kind="entra")] == [2]
    assert [line["seq"] for line in journal.read(path="^/A")] == [1]
    assert [line["seq"] for line in journal.read(status=401)] == [2]
    assert [line["seq"] for line in journal.read(since=1)] == [2]
    journal.clear()
    assert journal.read() == []
    assert path.read_text() == ""


def write(method: str = "PUT", body: Any = None, path: str = "/web01", *, done: bool = True) -> dict[str, Any]:
    return {"method": method, "path": path, "resource_id": path.lower(), "request_body": body, "carried_out": done}


@pytest.mark.parametrize(
    ("lines", "repeated"),
    [
        pytest.param([write(), write()], ["PUT /web01"], id="the same twice"),
        pytest.param([write(), write(path="/WEB01")], ["PUT /WEB01"], id="the same resource in other letters"),
        pytest.param([write(done=False), write()], [], id="the first was refused or never arrived"),
        pytest.param([write(), write(path="/web02")], [], id="another resource"),
        pytest.param([write(body={"port": 22}), write(body={"port": 23})], [], id="another body"),
        pytest.param([write(), write("DELETE"), write()], [], id="undone in between"),
        pytest.param([write("DELETE"), write("DELETE")], ["DELETE /web01"], id="deleted twice"),
        pytest.param([write("GET"), write("GET"), write("POST"), write("POST")], [], id="no writes"),
        pytest.param([{"method": "PUT", "path": "/x"}], [], id="not of ARM"),
    ],
)
def test_repeated_writes_are_those_that_changed_nothing(lines: list[dict[str, Any]], repeated: list[str]) -> None:
    assert repeated_writes(lines) == repeated
