# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are local ports and sockets ours alone, and is it told why one cannot be had?"""

from __future__ import annotations

import errno
import pathlib
import socket
import tempfile
from collections.abc import Iterator

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._forward import Forward
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._listening import at_port, listen, refusal


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """pytest's own directories have names too long for sockets."""
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


def test_a_free_port_is_found_and_said() -> None:
    listening = listen(Forward("db:5432"), "127.0.0.1")
    try:
        assert listening.name == f"127.0.0.1:{listening.port}"
        with socket.create_connection(("127.0.0.1", listening.port), 5):
            pass
    finally:
        listening.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listening.port), 5)


def test_a_name_is_the_same_port_at_all_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_options: both)
    listening = at_port("localhost", 0)
    places = [one.getsockname() for one in listening.sockets]
    listening.close()
    assert places == [("127.0.0.1", listening.port), ("127.0.0.2", listening.port)]


def test_a_port_that_is_taken_is_left_alone_and_told() -> None:
    first = at_port("127.0.0.1", 0)
    try:
        with pytest.raises(
            InputError, match=f"127.0.0.1:{first.port} is taken by another program. Choose another port"
        ):
            at_port("127.0.0.1", first.port)
    finally:
        first.close()


@pytest.mark.parametrize(
    ("number", "port", "sentence"),
    [
        (errno.EACCES, 80, "127.0.0.1:80 is for the superuser, .* such as 8080"),
        (errno.EADDRNOTAVAIL, 8080, "127.0.0.1 is no address of this computer"),
        (errno.ENOBUFS, 8080, "127.0.0.1:8080: no room"),
    ],
)
def test_the_remedy_fits_the_reason(number: int, port: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        raise refusal(OSError(number, "no room"), "127.0.0.1", port)


def test_an_address_of_somebody_else_is_refused() -> None:
    with pytest.raises(InputError, match="is no address of this computer"):
        at_port("192.0.2.1", 0)
    with pytest.raises(InputError, match="is no address of this computer"):
        at_port("256.0.0.1", 0)


def test_a_socket_is_its_owner_s_and_goes_again(folder: pathlib.Path) -> None:
    path = folder / "db.sock"
    listening = listen(Forward("db:5432", path=str(path)), "127.0.0.1")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="is there already"):
        listen(Forward("db:5432", path=str(path)), "127.0.0.1")
    listening.close()
    assert not path.exists()


def test_what_a_killed_tunnel_left_is_replaced_but_no_file(folder: pathlib.Path) -> None:
    path = folder / "db.sock"
    left = listen(Forward("db:5432", path=str(path)), "127.0.0.1")
    for one in left.sockets:
        one.close()
    listen(Forward("db:5432", path=str(path)), "127.0.0.1").close()
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="is there already"):
        listen(Forward("db:5432", path=str(path)), "127.0.0.1")
    assert path.read_text(encoding="utf-8") == "precious"
    with pytest.raises(InputError, match="too long for a socket"):
        listen(Forward("db:5432", path=str(folder / ("x" * 120))), "127.0.0.1")
