# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the helper see that sshd refused a certificate, and only then?"""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._refusal import RECENT, Login, Requests

OFFER = 1300
MACHINE = "/subscriptions/S/resourceGroups/g/providers/Microsoft.HybridCompute/machines/web01"


def packet(kind: int, size: int) -> bytes:
    """An unencrypted packet (RFC 4253, 6): length, length of padding, type, and the rest."""
    body = bytes([4, kind]) + bytes(size - 2)
    return len(body).to_bytes(4, "big") + body


IDENTIFICATION = b"SSH-2.0-OpenSSH_9.2p1\r\n"
KEX_INIT, KEX_REPLY, NEW_KEYS = packet(20, 1532), packet(30, 1200), packet(21, 12)
# After that: service request, "none", and what matters.
SMALL = [bytes(48), bytes(112)]
OFFERED, SIGNED = bytes(OFFER + 190), bytes(OFFER + 600)


def requests(*sent: bytes) -> Requests:
    found = Requests(OFFER)
    for piece in sent:
        if not found.see(memoryview(piece)):
            break
    return found


def test_a_certificate_that_is_offered_and_not_signed_was_refused() -> None:
    assert requests(IDENTIFICATION, KEX_INIT, KEX_REPLY, NEW_KEYS, *SMALL, OFFERED).refused
    assert requests(IDENTIFICATION, KEX_INIT, KEX_REPLY, NEW_KEYS + SMALL[0], SMALL[1], OFFERED, OFFERED).refused
    # The pieces of what is not encrypted do not matter.
    opening = IDENTIFICATION + KEX_INIT + KEX_REPLY + NEW_KEYS
    assert requests(*(opening[at : at + 7] for at in range(0, len(opening), 7)), *SMALL, OFFERED).refused


def test_one_that_is_signed_was_taken() -> None:
    opening = (IDENTIFICATION, KEX_INIT, KEX_REPLY, NEW_KEYS, *SMALL)
    assert not requests(*opening, OFFERED, SIGNED).refused
    assert not requests(*opening, OFFERED, OFFERED, SIGNED, bytes(90), bytes(40)).refused
    # Nothing more is looked at then.
    found = requests(*opening, OFFERED, SIGNED)
    assert not found.refused


def test_a_key_exchange_that_fails_is_no_refusal() -> None:
    assert not requests(IDENTIFICATION, KEX_INIT, KEX_REPLY).refused
    assert not requests(IDENTIFICATION, KEX_INIT).refused
    assert not requests().refused
    assert not requests(IDENTIFICATION, KEX_INIT, KEX_REPLY, NEW_KEYS, *SMALL).refused


@pytest.mark.parametrize(
    "nonsense", [b"\n" * 70000, b"\xff" * 70000, bytes(70000), b"x\n\xff\xff\xff\xff\xff\xff" * 9000]
)
def test_what_is_not_ssh_is_looked_at_for_a_while_only(nonsense: bytes) -> None:
    found = Requests(OFFER)
    seen = [found.see(memoryview(nonsense[at : at + 1000])) for at in range(0, len(nonsense), 1000)]
    assert not found.refused
    assert not seen[-1]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def login(directory: pathlib.Path, clock: Clock, machine: str = MACHINE, *, refused: bool = False) -> Login:
    found = Login(Cache(str(directory)), "entra-x", "app", OFFER, "web01", machine, clock)
    found.requests.refused = refused
    return found


def test_the_next_attempt_knows_and_the_one_after_tries_again(tmp_path: pathlib.Path, clock: Clock) -> None:
    place = tmp_path / "relay"
    assert not login(place, clock).follows_refusal()
    assert login(place, clock, refused=True).was_refused(clean=True)
    assert not login(place, clock, MACHINE.replace("web01", "web02")).follows_refusal()
    # Azure's ids know no case.
    assert login(place, clock, MACHINE.upper()).follows_refusal()
    assert not login(place, clock).follows_refusal()


def test_a_refusal_of_long_ago_and_one_by_a_broken_connection_do_not_count(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    place = tmp_path / "relay"
    assert not login(place, clock, refused=True).was_refused(clean=False)
    assert not login(place, clock).follows_refusal()
    assert login(place, clock, refused=True).was_refused(clean=True)
    clock.now += RECENT + 1
    assert not login(place, clock).follows_refusal()
    assert not login(place, clock, refused=False).was_refused(clean=True)


def test_the_sentence_names_machine_principal_and_roles_and_fits_into_what_ssh_prints(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    text = " ".join(login(tmp_path / "relay", clock).refusal())
    for part in (
        "web01",
        "app",
        "Virtual Machine Administrator Login",
        "Virtual Machine User Login",
        "arc_entra_login",
    ):
        assert part in text
    assert len(text) < 400
