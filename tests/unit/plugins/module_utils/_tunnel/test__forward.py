# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is -L read as ssh reads it?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._forward import (
    Forward,
    address_and_port,
    is_loopback,
    parse,
)


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("5432:db.internal:5432", Forward("db.internal:5432", 5432)),
        ("0:localhost:http", Forward("localhost:80", 0)),
        ("0.0.0.0:8080:web:80", Forward("web:80", 8080, "0.0.0.0")),
        ("*:8080:web:80", Forward("web:80", 8080, "*")),
        (":8080:web:80", Forward("web:80", 8080, "")),
        ("[::1]:8080:[2001:db8::1]:80", Forward("[2001:db8::1]:80", 8080, "::1")),
        ("8080:[2001:db8::1]:80", Forward("[2001:db8::1]:80", 8080)),
        ("/run/db.sock:db:5432", Forward("db:5432", path="/run/db.sock")),
        ("./db.sock:[::1]:5432", Forward("[::1]:5432", path="./db.sock")),
        ("5432:/run/postgresql/.s.PGSQL.5432", Forward("/run/postgresql/.s.PGSQL.5432", 5432)),
        ("localhost:5432:/run/db.sock", Forward("/run/db.sock", 5432, "localhost")),
        ("[::1]:5432:/run/db.sock", Forward("/run/db.sock", 5432, "::1")),
        ("/tmp/here:/run/there", Forward("/run/there", path="/tmp/here")),
        ("/tmp/here:[/run/a:b]", Forward("[/run/a:b]", path="/tmp/here")),
    ],
)
def test_all_forms_of_ssh_are_known(text: str, forward: Forward) -> None:
    assert parse(text) == forward


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5432",
        "5432:db",
        "5432:db:",
        "5432::5432",
        "70000:db:5432",
        "5432:db:0",
        "5432:db:70000",
        "-1:db:5432",
        "1:2:3:4:5",
        "::1:5432:db:5432",
        "[::1:5432:db:5432",
        "5432:[db]x:5432",
        "no-such-service:db:5432",
        "5432:db:5432\n",
        "/run/db.sock:1:db:5432",
        "\u0665:db:5432",
    ],
)
def test_all_else_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(InputError, match="5432:db.internal:5432"):
        parse(text)


def test_who_can_connect() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST")))
    assert not any(map(is_loopback, ("", "*", "0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0", "ops.example.com")))


def test_addresses_are_shown_as_they_are_typed() -> None:
    assert [address_and_port(address, 80) for address in ("127.0.0.1", "::1", "", "*")] == [
        "127.0.0.1:80",
        "[::1]:80",
        "*:80",
        "*:80",
    ]
