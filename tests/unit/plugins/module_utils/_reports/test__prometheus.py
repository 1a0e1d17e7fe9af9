# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does Prometheus read what a report says to it?"""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._prometheus import render


def samples(text):
    """What Prometheus' own parser reads: name and labels -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation, family.name
        for sample in family.samples:
            # The textfile collector refuses both.
            assert sample.timestamp is None
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def test_the_series_of_a_run(reports):
    reading = {"mode": "ledger", "reason": None, "read": 4, "requests": 17}
    assert samples(render(reports.mixed(reading=reading))) == {
        ("arcfleet_machines", ("status", "in_order")): 1,
        ("arcfleet_machines", ("status", "drifted")): 1,
        ("arcfleet_machines", ("status", "repaired")): 1,
        ("arcfleet_machines", ("status", "failed")): 1,
        ("arcfleet_machines", ("status", "skipped")): 1,
        ("arcfleet_drift", ("action", "create"), ("resource", "service_configuration")): 1,
        ("arcfleet_drift", ("action", "update"), ("resource", "resource_provider")): 1,
        ("arcfleet_drift", ("action", "update"), ("resource", "service_configuration")): 1,
        ("arcfleet_drift_left",): 1,
        ("arcfleet_repaired",): 2,
        ("arcfleet_problems",): 1,
        ("arcfleet_held_back",): 0,
        ("arcfleet_run_timestamp_seconds",): 1795248009,
        ("arcfleet_run_duration_seconds",): 9,
        ("arcfleet_requests",): 17,
    }


def test_a_fleet_of_any_size_has_the_same_few_series_and_no_machine_is_named(reports):
    few, many = (render(reports.made(*(reports.failed(f"web{n}") for n in range(size)))) for size in (1, 500))
    assert len(few.splitlines()) == len(many.splitlines()) and "web" not in many
    assert samples(many)["arcfleet_machines", ("status", "failed")] == 500


@pytest.mark.parametrize("runner", ['back\\slash "quoted"\nnew line', "plain", "\\n", "{},= #"])
def test_labels_come_back_as_they_were(reports, runner):
    found = samples(render(reports.mixed(runner=runner)))
    assert all(("runner", runner) in key for key in found)


def test_a_run_that_held_its_repairs_back_says_so(reports):
    drifted = {"machines": {reports.machine("web01"): reports.entry("web01", "create", None, reports.SSH)}}
    looked = {"service_configuration": [drifted]}
    found = samples(render(reports.made(looked=looked, mode="repair", held_back="Too many.")))
    assert (found["arcfleet_held_back",], found["arcfleet_repaired",], found["arcfleet_drift_left",]) == (1, 0, 1)


def test_every_line_is_one_of_the_text_format(reports):
    text = render(reports.mixed(runner='a"b'))
    label = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
    line = re.compile(rf"# (?:HELP|TYPE) arcfleet_[a-z_]+ .+|arcfleet_[a-z_]+(?:\{{{label}(?:,{label})*\}})? [0-9.]+")
    assert text.endswith("\n") and all(line.fullmatch(one) for one in text.splitlines())
    heads = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(heads) == len(set(heads))
