# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which SSH certificate does a connection log in with, and who renews it?

Each connection looks before ssh does: a certificate that ends soon is replaced, with its key, by whoever finds it so first; the others
wait for that one. ssh reads the certificate when it begins and the key only when it signs, so a pair must not change between the two:
there are two places, and it is always the one of the older pair that a new one goes to. Nothing that takes long is imported while the
certificate is good. Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import os
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .._ssh_certificate import Issued
    from ._cache import Cache

PLACES = ("a", "b")
NAME = re.compile(r"entra-[0-9a-f]{24}")

# A certificate is renewed this many seconds before it ends, or a quarter of a shorter life.
MARGIN = 600

# Seconds during which nobody asks Entra ID again after a refusal, while what is there is still good.
PAUSE = 30

_VERSION = 1


def name_of(identity: str) -> str:
    """What the files of this identity's certificate are called."""
    return f"entra-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"


def key_file(name: str, place: str) -> str:
    """The private key in a place; its certificate's file has the ending `-cert.pub`, as ssh-keygen has it."""
    return f"{name}-{place}"


def ssh_options(directory: str, name: str) -> list[tuple[str, str]]:
    """What ssh has to be told to use this certificate and nothing else; option and value, unquoted."""
    options = [("IdentitiesOnly", "yes"), ("PreferredAuthentications", "publickey"), ("ProxyUseFdpass", "yes")]
    for place in PLACES:
        path = os.path.join(directory, key_file(name, place))
        options += [("CertificateFile", f"{path}-cert.pub"), ("IdentityFile", path)]
    return options


class Pair:
    """A certificate in one of the places. Times are unix seconds; `marks` are the digests of its two files."""

    __slots__ = ("marks", "obtained_on", "place", "valid_before")

    def __init__(self, place: str, obtained_on: int, valid_before: int, marks: tuple[str, str]) -> None:
        self.place = place
        self.obtained_on = obtained_on
        self.valid_before = valid_before
        self.marks = marks

    def lasts(self, now: float) -> bool:
        """Whether it is good for as long as a login may take, and then some."""
        return self.valid_before - now > min(MARGIN, (self.valid_before - self.obtained_on) / 4)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class State:
    """What is known of a certificate: whose it is, whom it names, in which places it lies (newest first), its size in bytes, and when
    Entra ID refused a new one last."""

    __slots__ = ("offer", "pairs", "principal", "refused_on", "subject")

    def __init__(
        self,
        subject: str,
        principal: str = "",
        pairs: list[Pair] | None = None,
        offer: int = 0,
        refused_on: float = 0.0,
    ) -> None:
        self.subject = subject
        self.principal = principal
        self.pairs = pairs or []
        self.offer = offer
        self.refused_on = refused_on

    def is_good(self, now: float) -> bool:
        """Whether the newest lasts."""
        return bool(self.pairs) and self.pairs[0].lasts(now)

    def is_settled(self, now: float) -> bool:
        """Whether there is nothing to do either in a place that holds one that has ended, which ssh could offer first."""
        return (
            self.is_good(now) and len(self.pairs) == len(PLACES) and all(pair.valid_before > now for pair in self.pairs)
        )


def load(cache: Cache, name: str) -> State | None:
    """What the cache holds, pairs whose files were touched by somebody else left out; `None` for nothing."""
    content = cache.read(f"{name}.json")
    if content is None or content.get("version") != _VERSION:
        return None
    try:
        pairs = [
            Pair(
                str(one["place"]), int(one["obtained_on"]), int(one["valid_before"]), (one["marks"][0], one["marks"][1])
            )
            for one in content["pairs"]
            if one["place"] in PLACES
        ]
        whole = [pair for pair in pairs if _marks(cache, name, pair.place) == pair.marks]
        return State(
            str(content["subject"]),
            str(content["principal"]),
            whole,
            int(content["offer"]),
            float(content["refused_on"]),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def current(cache: Cache, name: str, clock: Callable[[], float] = time.time) -> State | None:
    """The certificate, if nothing is to be done for it, whoever is logged in now."""
    state = load(cache, name)
    return state if state is not None and state.is_settled(clock()) else None


def _marks(cache: Cache, name: str, place: str) -> tuple[str, str] | None:
    """The digests of a place's files; `None` unless both are there and private, and nothing beside them that ssh would rather read."""
    file = key_file(name, place)
    key, certificate = cache.read_bytes(file), cache.read_bytes(f"{file}-cert.pub")
    if key is None or certificate is None or os.path.lexists(os.path.join(cache.directory, f"{file}.pub")):
        return None
    return hashlib.sha256(key).hexdigest(), hashlib.sha256(certificate).hexdigest()


def ensure(
    cache: Cache, name: str, subject: str, obtain: Callable[[], Issued], clock: Callable[[], float] = time.time
) -> State:
    """A certificate of this login that lasts.

    `subject` names the login; another one's certificate does not count. `obtain` asks Entra ID, and is called by one of many
    processes. While the old one is still good, a refusal is not the connection's. Raises what `obtain` raises, when nothing is good.
    """
    state = load(cache, name)
    if state is not None and state.subject == subject and state.is_settled(clock()):
        return state
    with cache.lock(name):
        state = load(cache, name)
        if state is None or state.subject != subject:
            state = State(subject)
        now = clock()
        if not state.is_good(now):
            state = _renewed(cache, name, state, obtain, now)
        _fill(cache, name, state, now)
        _note(cache, name, state)
        return state


def _renewed(cache: Cache, name: str, state: State, obtain: Callable[[], Issued], now: float) -> State:
    still_good = bool(state.pairs) and state.pairs[0].valid_before > now
    if still_good and now - state.refused_on < PAUSE:
        return state
    try:
        issued = obtain()
    except Exception:
        if not still_good:
            raise
        state.refused_on = now
        return state
    used = [pair.place for pair in state.pairs]
    place = next((place for place in PLACES if place not in used), used[-1] if used else PLACES[0])
    marks = _put(cache, name, place, issued.private_key, issued.certificate)
    newest = Pair(place, int(now), issued.valid_before, marks)
    kept = [pair for pair in state.pairs if pair.place != place]
    # The blob is base64 in its file.
    return State(state.subject, issued.principal, [newest, *kept], len(issued.certificate) * 3 // 4)


def _fill(cache: Cache, name: str, state: State, now: float) -> None:
    """The newest pair also where one has ended or is missing: ssh complains of files that are not there."""
    newest = state.pairs[0]
    good = [pair for pair in state.pairs if pair.valid_before > now]
    for place in PLACES:
        if place in [pair.place for pair in good]:
            continue
        source = key_file(name, newest.place)
        key, certificate = cache.read_bytes(source), cache.read_bytes(f"{source}-cert.pub")
        if key is not None and certificate is not None:
            marks = _put(cache, name, place, key, certificate)
            good.append(Pair(place, newest.obtained_on, newest.valid_before, marks))
    state.pairs = good


def _put(cache: Cache, name: str, place: str, key: bytes, certificate: bytes) -> tuple[str, str]:
    # Where there is a public half, ssh takes that for the key's, whatever the key is.
    cache.remove(f"{key_file(name, place)}.pub")
    cache.write_bytes(key_file(name, place), key)
    cache.write_bytes(f"{key_file(name, place)}-cert.pub", certificate)
    return hashlib.sha256(key).hexdigest(), hashlib.sha256(certificate).hexdigest()


def _note(cache: Cache, name: str, state: State) -> None:
    content: Mapping[str, Any] = {
        "version": _VERSION,
        "subject": state.subject,
        "principal": state.principal,
        "offer": state.offer,
        "refused_on": state.refused_on,
        "pairs": [pair.to_json() for pair in state.pairs],
    }
    cache.write(f"{name}.json", content)
