# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a machine read whenever the ledger leaves a doubt, and only then?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _ledger
from ansible_collections.arcfleet.ssh.plugins.module_utils._ledger import (
    Doubt,
    Entry,
    Ledger,
    amended,
    digest,
    parse,
    render,
)

CLOUD = "https://management.azure.com"
SUB = "11111111-2222-3333-4444-555555555555"
OTHER = "22222222-2222-3333-4444-555555555555"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def machine(name, subscription=SUB):
    return f"/subscriptions/{subscription}/resourcegroups/rg/providers/microsoft.hybridcompute/machines/{name}"


WEB01, WEB02, DB01 = machine("web01"), machine("web02"), machine("db01", OTHER)
WANTED = digest({"port": 22})
LEDGER = Ledger({WEB01: Entry(WANTED, NOW - HOUR)}, {WEB01: NOW - DAY}, {SUB: NOW - HOUR})


def reason(ledger=LEDGER, key=WEB01, desired=WANTED, now=NOW, full_every=DAY, written=None):
    return _ledger.reason_to_read(ledger, key, desired, now=now, full_every=full_every, written=written)


def test_a_machine_that_was_in_order_is_not_read():
    assert reason() is None


@pytest.mark.parametrize(
    ("why", "doubt"),
    [
        (_ledger.NEVER, {"key": WEB02}),
        (_ledger.WANTED, {"desired": digest({"port": 2222})}),
        (_ledger.AHEAD, {"now": NOW - 2 * HOUR}),
        (_ledger.OLD, {"full_every": HOUR}),
        (_ledger.OLD, {"full_every": timedelta(0)}),
        (_ledger.WRITTEN, {"written": NOW - timedelta(minutes=10)}),
        (_ledger.WRITTEN, {"written": NOW - HOUR - timedelta(seconds=30)}),
    ],
)
def test_every_doubt_has_the_machine_read(why, doubt):
    assert reason(**doubt) == why


def test_what_was_written_before_the_machine_was_read_is_no_news():
    assert reason(written=NOW - HOUR - timedelta(minutes=5)) is None


def test_the_digest_does_not_depend_on_the_order_of_keys_and_tells_values_apart():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    assert digest({"port": 22}) != digest({"port": "22"})


def test_the_log_is_read_again_from_before_the_last_look_on():
    # Events become readable up to twenty minutes late.
    since = _ledger.log_since(LEDGER, SUB, now=NOW, full_every=DAY)
    assert NOW - HOUR - since >= timedelta(minutes=20)


@pytest.mark.parametrize("moment", [NOW + HOUR, NOW - DAY])
def test_a_log_that_says_nothing_of_use_is_not_read(moment):
    ledger = Ledger(LEDGER.machines, {}, {SUB: moment})
    assert _ledger.log_since(ledger, SUB, now=NOW, full_every=DAY) is None
    assert _ledger.log_since(Ledger(), SUB, now=NOW, full_every=DAY) is None


def test_what_was_written_is_read_again_as_it_was():
    assert parse(render(LEDGER, CLOUD), CLOUD) == LEDGER


def altered(**changes):
    return json.dumps({**json.loads(render(LEDGER, CLOUD)), **changes})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not whole"),
        (render(LEDGER, CLOUD)[:-40], "not whole"),
        ("[]", "something else"),
        ('{"format": "arcfleet.ssh/drift-report", "version": 1}', "something else"),
        (altered(version=2), "version 2"),
        (altered(machines={WEB02: [WANTED, "2026-11-21T11:00:00+00:00"]}), "by hand or damaged"),
        (altered(logs={}), "by hand or damaged"),
        (altered(sha256=None), "by hand or damaged"),
    ],
)
def test_a_ledger_that_is_not_ours_as_we_wrote_it_is_not_believed(text, why):
    with pytest.raises(Doubt, match=why):
        parse(text, CLOUD)


def test_another_clouds_ledger_is_not_believed_even_where_it_is_whole():
    with pytest.raises(Doubt, match="another cloud"):
        parse(render(LEDGER, "https://management.usgovcloudapi.net"), CLOUD)


def test_a_whole_ledger_with_times_that_are_none_is_not_believed(monkeypatch):
    monkeypatch.setattr(_ledger, "_text", lambda moment: "yesterday")
    text = render(LEDGER, CLOUD)
    with pytest.raises(Doubt, match="not what this collection writes"):
        parse(text, CLOUD)


def after(ledger=LEDGER, **more):
    given = {"verified": {}, "disproved": (), "visited": (), "subscriptions": {SUB: True}, "full_every": DAY}
    return amended(ledger, now=NOW, **{**given, **more})


def test_a_run_notes_what_it_verified_and_strikes_out_what_it_disproved():
    found = after(verified={WEB02: WANTED}, disproved=[WEB01])
    assert found.machines == {WEB02: Entry(WANTED, NOW)} and found.logs == {SUB: NOW}


def test_what_was_written_to_and_verified_since_is_known():
    assert after(verified={WEB01: WANTED}, disproved=[WEB01]).machines == {WEB01: Entry(WANTED, NOW)}


def test_a_limited_run_leaves_the_others_as_they_are():
    ledger = Ledger({**LEDGER.machines, DB01: Entry(WANTED, NOW - HOUR)}, {}, {SUB: NOW - HOUR, OTHER: NOW - HOUR})
    found = after(ledger)
    assert found.machines == ledger.machines
    assert found.logs == {SUB: NOW, OTHER: NOW - HOUR}, "the other subscription's log has not been read any further"


def test_nothing_of_a_subscription_is_known_any_more_whose_log_was_not_read_unless_this_run_verified_it():
    ledger = Ledger({**LEDGER.machines, DB01: Entry(WANTED, NOW - HOUR)}, {}, {SUB: NOW - HOUR})
    found = after(ledger, verified={WEB02: WANTED}, subscriptions={SUB: False})
    assert set(found.machines) == {WEB02, DB01}


def test_two_first_runs_at_once_keep_what_each_of_them_verified():
    first = amended(
        Ledger(),
        now=NOW,
        verified={WEB01: WANTED},
        disproved=(),
        visited=(),
        subscriptions={SUB: False},
        full_every=DAY,
    )
    second = after(first, verified={WEB02: WANTED}, subscriptions={SUB: False})
    assert set(second.machines) == {WEB01, WEB02}


def test_machines_that_are_gone_leave_the_ledger_in_time():
    ledger = Ledger(
        {WEB01: Entry(WANTED, NOW - 5 * DAY), WEB02: Entry(WANTED, NOW - 2 * DAY)}, {WEB01: NOW - 100 * DAY}, {}
    )
    found = after(ledger)
    assert set(found.machines) == {WEB02} and found.visits == {}


def test_the_machines_that_were_not_visited_for_longest_are_due():
    ledger = Ledger({}, {"a": NOW - DAY, "b": NOW - 2 * DAY, "c": NOW - HOUR, "e": NOW + DAY}, {})
    due = _ledger.due_for_visit(ledger, ["a", "b", "c", "d", "e"], now=NOW, every=2)
    assert due == ["d", "e", "b"], "never, or so the clock says, comes first"
    assert _ledger.due_for_visit(ledger, ["a"], now=NOW, every=24) == ["a"]
    assert _ledger.due_for_visit(ledger, [], now=NOW, every=24) == []


def test_every_machine_is_visited_once_in_a_round_even_where_some_never_come_in_order():
    ledger, keys, seen = Ledger(), [f"m{number:02}" for number in range(24)], []
    for hour in range(8):
        due = _ledger.due_for_visit(ledger, keys, now=NOW + hour * HOUR, every=8)
        seen += due
        ledger = amended(
            ledger, now=NOW + hour * HOUR, verified={}, disproved=due, visited=due, subscriptions={}, full_every=DAY
        )
    assert sorted(seen) == keys
