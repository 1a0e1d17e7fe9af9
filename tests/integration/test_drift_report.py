# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the report of what modules really found what its schema says?"""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

import jsonschema
import pytest

from on_lab import module

pytestmark = pytest.mark.one_core
SCHEMA = json.loads(pathlib.Path(__file__).parents[2].joinpath("docs", "drift-report.schema.json").read_text("utf-8"))


def strict(schema: Any) -> Any:
    """The schema without its leave for further properties, so that it has to describe all there are."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(part) for name, part in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("required"), list) else closed


def valid(path):
    """The report at `path`, which fits the schema."""
    report = json.loads(path.read_text())
    for schema in (SCHEMA, strict(SCHEMA)):
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(report)
    return report


def found(lab, name, **options):
    """The result of a module that looks or mends, as a registered variable holds it."""
    done = module(lab, name, max_fail_percentage=100, **options)
    return {key: done[key] for key in ("machines", "subscriptions", "failed", "msg") if key in done}


def test_reports_of_a_fleet_fit_the_schema(lab, tmp_path):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    path, history = tmp_path / "drift.json", tmp_path / "history"
    by_status = sorted(lab.machines(), key=lambda machine: machine["status"] == "Disconnected")
    *ids, away = (machine["id"] for machine in by_status)
    lost = {"id": f"{ids[0]}-gone", "host": "gone"}
    extension = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux", "unavailable": "skip"}
    looked = found(lab, "arc_ssh_service_config", check=True, machines=[*ids[:3], lost])
    extensions = found(lab, "arc_extension", check=True, machines=[ids[1], away], **extension)
    module(
        lab,
        "arc_drift_report",
        path=str(path),
        history=str(history),
        begun=time.time(),
        mode="repair",
        findings={
            "service_configuration": [found(lab, "arc_ssh_service_config", machines=ids[:1])],
            "login": [{"failed": True, "msg": "No login."}],
        },
        looked={"service_configuration": [looked], "extension": [extensions]},
        deferred={ids[2]: "It is outside its maintenance window."},
        held_back="Too many machines would change.",
        unchanged={ids[3].lower(): {"name": "db01", "host": None, "verified": "2026-11-21T08:00:00+00:00"}},
        reading={"mode": "ledger", "read": 5},
        runner="nightly",
    )
    report = valid(path)
    assert report["summary"] == {"total": 6, "in_order": 1, "drifted": 2, "repaired": 1, "failed": 1, "skipped": 1}
    assert report["machines"][ids[2].lower()]["held_back"] == "It is outside its maintenance window."
    steps = [step for entry in report["machines"].values() for step in entry["drift"]]
    assert {(step["resource"], step["repaired"]) for step in steps} == {
        ("service_configuration", True),
        ("endpoint", True),
        ("service_configuration", False),
        ("endpoint", False),
        ("extension", False),
    }
    (kept,) = history.iterdir()
    assert set(report["machines"]) - set(valid(kept)["machines"]) == {ids[3].lower()}
