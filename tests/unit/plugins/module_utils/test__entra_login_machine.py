# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the repository tried as the machine would use it, and is a command refused that sshd would refuse?"""

from __future__ import annotations

import http.server
import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _entra_login_machine as machine


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers everything with 404, as a repository may for its first page, and refuses to be a proxy."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.send_response(403, "Blocked by policy")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_any_answer_means_that_it_can_be_reached(server: str) -> None:
    assert machine.unreachable(server) is None


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert machine.unreachable(f"http://127.0.0.1:{unused.getsockname()[1]}") == "Connection refused"


def test_what_a_proxy_says_is_told(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "403 Blocked by policy" in str(machine.unreachable("https://packages.example", server))
    monkeypatch.setenv("https_proxy", server)
    assert "403 Blocked by policy" in str(machine.unreachable("https://packages.example"))


def test_a_folder_of_the_machine(tmp_path: pathlib.Path) -> None:
    assert machine.unreachable(f"file:{tmp_path}") is None
    assert machine.unreachable(f"file://{tmp_path}") is None
    assert machine.unreachable(f"file:{tmp_path}/x") == f"there is no {tmp_path}/x"


def test_what_is_no_address() -> None:
    assert "unknown url type" in str(machine.unreachable("packages.example"))


@pytest.mark.parametrize(
    ("repository", "source", "expected"),
    [
        ("https://m", "deb [arch=amd64] https://m/repos/x x main\n", True),
        ("https://m/", "URIs: http://m/debian\n", True),
        ("https://m", "# deb https://m/repos/x x main\n", False),
        ("file:/opt/x", "deb [trusted=yes] file:/opt/x ./\n", True),
        ("https://m", "baseurl=https://other/\n", False),
    ],
)
def test_repositories_that_are_set_up(repository: str, source: str, expected: bool) -> None:
    assert machine.configured(repository, ["", source]) is expected


def test_commands_that_sshd_would_not_run(tmp_path: pathlib.Path) -> None:
    assert machine.unsafe("/usr/bin/env") is None
    assert machine.unsafe(str(tmp_path / "none")) == f"{tmp_path / 'none'} cannot be found: No such file or directory"
    plain = tmp_path / "plain"
    plain.touch(mode=0o644)
    assert machine.unsafe(str(plain)) == f"{plain} cannot be executed"
    # /tmp, or wherever temporary files are, is not only root's.
    plain.chmod(0o777)
    assert "can be changed by others than root" in str(machine.unsafe(str(plain)))
