# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the attempt after a lost connection refused, once, and nobody else's?"""

from __future__ import annotations

import pathlib

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._repetition import AT_ONCE, Note, sentence

MACHINE = "/subscriptions/S/resourceGroups/g/providers/Microsoft.HybridCompute/machines/web01"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_next_attempt_finds_the_note_and_the_one_after_does_not(tmp_path: pathlib.Path) -> None:
    cache, clock = Cache(str(tmp_path / "relay")), Clock()
    Note(cache, "lost", MACHINE, clock).leave()
    assert not Note(cache, "lost", MACHINE.replace("web01", "web02"), clock).taken_within(AT_ONCE)
    assert not Note(cache, "other", MACHINE, clock).taken_within(AT_ONCE)
    # Azure's ids know no case.
    assert Note(cache, "lost", MACHINE.upper(), clock).taken_within(AT_ONCE)
    assert not Note(cache, "lost", MACHINE, clock).taken_within(AT_ONCE)


def test_what_was_long_ago_or_is_to_come_or_is_no_note_does_not_count(tmp_path: pathlib.Path) -> None:
    cache, clock = Cache(str(tmp_path / "relay")), Clock()
    note = Note(cache, "lost", MACHINE, clock)
    for step in (AT_ONCE + 1, -1):
        note.leave()
        clock.now += step
        assert not note.taken_within(AT_ONCE)
    note.leave()
    (file,) = pathlib.Path(cache.directory).glob("lost-*.json")
    file.write_text('{"happened_on": "now"}', encoding="utf-8")
    assert not note.taken_within(AT_ONCE)


def test_the_sentence_names_the_machine_and_fits_into_what_ssh_prints() -> None:
    text = " ".join(sentence("web01"))
    assert text.startswith("web01: ")
    assert len(text) < 400
