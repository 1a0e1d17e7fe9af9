# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there always a certificate to log in with, obtained once, whose key ssh finds?"""

from __future__ import annotations

import os
import pathlib
import stat
import threading
import time

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import AuthError
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _certificates as kept
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_certificate import Issued

NAME = kept.name_of("me|AzureCloud")


class Entra:
    """Issues numbered certificates that live for `life` seconds."""

    def __init__(self, life: int = 3600) -> None:
        self.now = 1_000_000.0
        self.life = life
        self.count = 0
        self.principal = "app"

    def obtain(self) -> Issued:
        self.count += 1
        key, line = b"key %d" % self.count, b"certificate %d\n" % self.count
        return Issued(key, line, self.principal, int(self.now) + self.life)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def entra() -> Entra:
    return Entra()


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(str(tmp_path / "relay"))


def ensure(cache: Cache, entra: Entra, subject: str = "me") -> kept.State:
    return kept.ensure(cache, NAME, subject, entra.obtain, entra.clock)


def places(cache: Cache) -> dict[str, tuple[bytes, bytes]]:
    """Key and certificate in each place, as ssh would find them."""
    directory = pathlib.Path(cache.directory)
    return {
        place: ((directory / f"{NAME}-{place}").read_bytes(), (directory / f"{NAME}-{place}-cert.pub").read_bytes())
        for place in kept.PLACES
    }


def pair(number: int) -> tuple[bytes, bytes]:
    return b"key %d" % number, b"certificate %d\n" % number


def test_the_first_certificate_is_in_both_places_and_private(cache: Cache, entra: Entra) -> None:
    before = os.umask(0)
    try:
        assert ensure(cache, entra).principal == "app"
    finally:
        os.umask(before)
    assert places(cache) == {"a": pair(1), "b": pair(1)}
    assert {stat.S_IMODE(file.stat().st_mode) for file in pathlib.Path(cache.directory).iterdir()} == {0o600}


def test_a_good_certificate_is_kept_and_found_without_a_login(cache: Cache, entra: Entra) -> None:
    assert kept.current(cache, NAME, entra.clock) is None
    ensure(cache, entra)
    entra.now += 2990
    ensure(cache, entra)
    found = kept.current(cache, NAME, entra.clock)
    assert entra.count == 1
    assert found is not None
    assert found.offer == len(b"certificate 1\n") * 3 // 4


def test_it_is_renewed_with_its_key_before_it_ends_and_the_pair_in_use_stays(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    entra.now += 3001
    assert kept.current(cache, NAME, entra.clock) is None
    ensure(cache, entra)
    assert sorted(places(cache).values()) == [pair(1), pair(2)]
    second = next(place for place, content in places(cache).items() if content == pair(2))
    entra.now += 3001
    ensure(cache, entra)
    # ssh may have read the second certificate just now: its key is still there.
    assert places(cache)[second] == pair(2)
    assert sorted(places(cache).values()) == [pair(2), pair(3)]


def test_one_that_has_ended_is_offered_no_more(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    entra.now += 3001
    ensure(cache, entra)
    entra.now += 700
    assert kept.current(cache, NAME, entra.clock) is None
    ensure(cache, entra)
    assert places(cache) == {"a": pair(2), "b": pair(2)}
    assert entra.count == 2


def test_after_a_long_time_both_are_new(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    entra.now += 10_000
    ensure(cache, entra)
    assert places(cache) == {"a": pair(2), "b": pair(2)}


@pytest.mark.parametrize("ending", ["", "-cert.pub"])
@pytest.mark.parametrize("harm", ["replaced", "removed", "opened", "cut"])
def test_a_file_that_somebody_touched_is_put_right(cache: Cache, entra: Entra, harm: str, ending: str) -> None:
    ensure(cache, entra)
    for place in kept.PLACES:
        file = pathlib.Path(cache.directory, f"{NAME}-{place}{ending}")
        if harm == "replaced":
            file.write_bytes(b"another key")
        elif harm == "removed":
            file.unlink()
        elif harm == "opened":
            file.chmod(0o644)
        else:
            os.truncate(file, 3)
    ensure(cache, entra)
    assert entra.count == 2
    assert places(cache) == {"a": pair(2), "b": pair(2)}
    assert {stat.S_IMODE(file.stat().st_mode) for file in pathlib.Path(cache.directory).iterdir()} == {0o600}


def test_a_public_half_of_another_key_goes(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    stale = pathlib.Path(cache.directory, f"{NAME}-b.pub")
    stale.write_bytes(b"ssh-rsa AAAA")
    ensure(cache, entra)
    assert not stale.exists()
    assert entra.count == 1


def test_one_touched_place_is_filled_from_the_other(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    pathlib.Path(cache.directory, f"{NAME}-a").write_bytes(b"x")
    ensure(cache, entra)
    assert (entra.count, places(cache)) == (1, {"a": pair(1), "b": pair(1)})


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"version": 1}', '{"version": 1, "subject": "me", "pairs": [{"place": 1}]}']
)
def test_a_damaged_note_is_no_note(cache: Cache, entra: Entra, text: str) -> None:
    ensure(cache, entra)
    pathlib.Path(cache.directory, f"{NAME}.json").write_text(text, encoding="utf-8")
    ensure(cache, entra)
    assert entra.count == 2


def test_another_login_gets_another_certificate(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    entra.principal = "other"
    assert ensure(cache, entra, "other").principal == "other"
    assert places(cache) == {"a": pair(2), "b": pair(2)}


def test_a_refusal_does_not_matter_while_the_old_one_is_good(cache: Cache, entra: Entra) -> None:
    ensure(cache, entra)
    entra.now += 3100
    asked = []
    refusal = AuthError("AADSTS7000112: disabled.")

    def refuse() -> Issued:
        asked.append(entra.now)
        raise refusal

    for seconds in (0, 1, 10, 25):
        entra.now += seconds
        assert kept.ensure(cache, NAME, "me", refuse, entra.clock).principal == "app"
    # Not each of many connections asks again.
    assert asked == [1_003_100.0, 1_003_136.0]
    entra.now += 500
    with pytest.raises(AuthError, match="7000112"):
        kept.ensure(cache, NAME, "me", refuse, entra.clock)


def test_short_lives_are_renewed_in_time(cache: Cache) -> None:
    entra = Entra(life=20)
    for _turn in range(20):
        state = ensure(cache, entra)
        assert state.pairs[0].valid_before - entra.now > 4
        entra.now += 4
    assert entra.count == 5


def test_five_hundred_connections_ask_once(cache: Cache, entra: Entra) -> None:
    def slow() -> Issued:
        time.sleep(0.05)
        return entra.obtain()

    threads = [
        threading.Thread(target=kept.ensure, args=(cache, NAME, "me", slow, entra.clock)) for _index in range(500)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entra.count == 1


def test_ssh_is_told_both_places_and_to_wait() -> None:
    options = kept.ssh_options("/c", "entra-x")
    assert [value for name, value in options if name == "IdentityFile"] == ["/c/entra-x-a", "/c/entra-x-b"]
    assert [value for name, value in options if name == "CertificateFile"] == [
        "/c/entra-x-a-cert.pub",
        "/c/entra-x-b-cert.pub",
    ]
    assert dict(options)["ProxyUseFdpass"] == "yes"
    assert dict(options)["IdentitiesOnly"] == "yes"


def test_a_name_tells_nothing_and_is_what_the_helper_takes() -> None:
    assert kept.NAME.fullmatch(kept.name_of("tenant|client|secret"))
    assert "tenant" not in kept.name_of("tenant|client|secret")
    assert kept.name_of("a") != kept.name_of("b")
