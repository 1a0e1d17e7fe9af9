# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the trend take what reports say, and nothing else?"""

from __future__ import annotations

import json

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._trend import Unreadable, parse, point, remembered


def test_what_the_history_keeps_has_the_same_point_and_all_that_is_to_be_told(reports):
    report = reports.mixed()
    kept = remembered(report)
    assert parse(json.dumps(kept)) == point(report)
    assert {found["name"] for found in kept["machines"].values()} == {"web02", "web03", "db01", "app1"}
    assert len(report["machines"]) == 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "other"}, "is no drift report"),
        ({"version": 2}, "is of version 2, not 1"),
        ({"summary": None}, "is no whole drift report"),
        ({"summary": {"total": 1}}, "is no whole drift report"),
        (
            {"summary": {**dict.fromkeys(("total", "in_order", "drifted", "repaired", "failed"), 0), "skipped": "<b>"}},
            "no whole",
        ),
        ({"summary": dict.fromkeys(("total", "in_order", "drifted", "repaired", "failed", "skipped"), -1)}, "no whole"),
        ({"begun": 5}, "no whole"),
        ({"drift_left": "no"}, "no whole"),
    ],
)
def test_what_is_no_report_is_refused_with_the_reason(reports, change, why):
    with pytest.raises(Unreadable, match=why):
        parse(json.dumps({**reports.made(), **change}))


@pytest.mark.parametrize("text", ["", '{"format"', "[" * 100_000, "[]", "null", "9" * 5000])
def test_a_broken_text_is_refused(text):
    with pytest.raises(Unreadable):
        parse(text)
