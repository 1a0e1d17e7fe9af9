# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do texts and differences come out as a reader can trust them?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._common import duration, fit, sides, state


@pytest.mark.parametrize("bad", ["\x00", "\x0b", "\x1b", "\x85", "\u202e", "\u2066", "\ud800", "\uffff"])
def test_characters_that_break_or_deceive_are_replaced(bad):
    assert fit(f"a{bad}b") == "a\ufffdb"


def test_all_other_characters_stay():
    assert fit("na\u00efve\t\u65e5\u672c\n\U0001f600") == "na\u00efve\t\u65e5\u672c\n\U0001f600"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, {"port": 22}, ("nothing", "port: 22")),
        ({"port": 22}, None, ("port: 22", "nothing")),
        ({"port": 22, "same": 1}, {"port": 23, "same": 1}, ("port: 22", "port: 23")),
        ({"a": [1]}, {"b": "x"}, ("a: [1], b: null", "a: null, b: x")),
        ({"port": 22}, {"port": 22}, ("port: 22", "port: 22")),
    ],
)
def test_an_update_shows_what_differs(before, after, told):
    assert sides({"before": before, "after": after}) == told


def test_a_state_is_one_line():
    assert state({"settings": {"b": 1, "a": None}, "name": "x\ny"}) == 'name: x\ny, settings: {"a": null, "b": 1}'
    assert (state("text"), state(True)) == ("text", "true")


def test_a_clock_that_was_set_back_makes_no_negative_time(reports):
    assert duration(reports.made()) == 9
    assert duration(reports.made(ended="2026-11-21T07:00:00+00:00")) == 0
