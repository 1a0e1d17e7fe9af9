# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does AWX's API answer to the modules of awx.awx?

As much of it as they use: lists that are filtered by the fields in the query, objects that are created and changed, and the credentials of job
templates, which are associated. Every request needs the token. Written from what the modules ask.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "the-token-of-this-test"


class Awx:
    """The objects by kind, and which requests changed something."""

    def __init__(self, **existing: list[dict[str, Any]]) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.associated: dict[str, list[int]] = {}
        self.writes: list[tuple[str, str]] = []
        self.url = ""
        self._ids = itertools.count(1)
        for kind, those in existing.items():
            for one in those:
                self.create(kind, one)

    def create(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        made = {"id": number, "url": f"/api/v2/{kind}/{number}/", "type": kind, "summary_fields": {}, **fields}
        if kind == "projects":
            made["scm_revision"] = "0" * 40
        self.objects.setdefault(kind, []).append(made)
        return made

    def named(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.objects[kind] if one["name"] == name]
        return found

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """The status and the body of the answer to one request."""
        parts = path.strip("/").split("/")[2:]
        if method != "GET":
            self.writes.append((method, path))
        if len(parts) == 1:
            kind = "job_templates" if parts[0] == "unified_job_templates" else parts[0]
            if method == "POST":
                return 201, self.create(kind, body)
            return 200, _page([one for one in self.objects.get(kind, []) if _matches(one, query)])
        (found,) = [one for one in self.objects[parts[0]] if one["id"] == int(parts[1])]
        if len(parts) == 2:
            found.update(body if method == "PATCH" else {})
            return 200, found
        those = self.associated.setdefault(path, [])
        if method == "GET":
            return 200, _page([{"id": number} for number in those])
        if body.get("disassociate"):
            those.remove(body["id"])
        else:
            those.append(body["id"])
        return 204, None


def _matches(one: dict[str, Any], query: dict[str, str]) -> bool:
    return all(str(one.get(name)) == value for name, value in query.items())


def _page(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": len(found), "next": None, "results": found}


@contextlib.contextmanager
def served(awx: Awx) -> Iterator[Awx]:
    """Answers on the loopback interface for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                status, content = awx.answer(self.command, url.path, dict(parse_qsl(url.query)), body)
            else:
                status, content = 401, {"detail": "Authentication credentials were not provided."}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if content is not None:
                self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST = do_PATCH = _reply

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: the test's output is the test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    awx.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield awx
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
