# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a drift report say to a pipeline?

Pure. JUnit's XML as Jenkins, GitLab and Azure DevOps read it: one suite for the run, one case for each machine and subscription, and one for each
problem that belongs to neither. Order and names of elements are those that the schemas of Ant and of Jenkins' xUnit plugin agree on. Private to arcfleet.ssh.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from .._drift import DRIFTED, FAILED, REPAIRED, SKIPPED, sentences
from .._errors import InputError
from .._ids import MachineId
from ._common import duration, fit, sides

_SUITE = "arcfleet.ssh.drift"


def render(reported: Mapping[str, Any]) -> str:
    """The report as JUnit XML."""
    cases = [
        *(_machine(key, entry) for key, entry in sorted(reported["machines"].items())),
        *(_case("subscriptions", entry["name"] or key, key, entry) for key, entry in reported["subscriptions"].items()),
        *(_problem(number, text) for number, text in enumerate(reported["problems"], 1)),
    ]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
    }
    took = f"{duration(reported):.3f}"
    top = ET.Element("testsuites", {"name": "arcfleet.ssh", **counts, "time": took})
    suite = ET.SubElement(
        top,
        "testsuite",
        {
            "name": _SUITE,
            **counts,
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            "time": took,
            # The schemas know no zone; the times of a report are UTC.
            "timestamp": reported["begun"].partition("+")[0],
            "hostname": fit(reported["runner"] or "localhost"),
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(reported):
        ET.SubElement(properties, "property", {"name": name, "value": fit(value)})
    suite.extend(cases)
    for element in (*top.iter("testcase"), suite, properties):
        element.tail = "\n"
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"


def _properties(reported: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = [("mode", reported["mode"]), ("drift_left", str(reported["drift_left"]).lower())]
    told += [(name, str(count)) for name, count in reported["summary"].items()]
    told += [
        (f"reading.{name}", str(value)) for name, value in (reported["reading"] or {}).items() if value is not None
    ]
    return [*told, ("held_back", reported["held_back"])] if reported["held_back"] else told


def _machine(key: str, entry: Mapping[str, Any]) -> ET.Element:
    try:
        machine = MachineId.parse(key)
    except InputError:
        return _case("machines", entry["name"] or key, key, entry)
    return _case(f"{machine.subscription_id}.{machine.resource_group}", entry["name"] or machine.name, key, entry)


def _case(group: str, name: str, key: str, entry: Mapping[str, Any]) -> ET.Element:
    case = ET.Element("testcase", {"classname": fit(group), "name": fit(name), "time": "0"})
    status, failure = entry["status"], entry["failure"] or {}
    if status == SKIPPED:
        ET.SubElement(case, "skipped", {"message": fit(str(entry["skip_reason"]))})
    elif status in (FAILED, DRIFTED):
        tag, kind = ("error", str(failure.get("code"))) if status == FAILED else ("failure", "drift")
        told = ET.SubElement(case, tag, {"type": fit(kind), "message": fit(" ".join(sentences(entry)))})
        told.text = fit("\n".join([key, *_drift(entry)]))
    elif status == REPAIRED:
        ET.SubElement(case, "system-out").text = fit("\n".join([key, *_drift(entry)]))
    return case


def _drift(entry: Mapping[str, Any]) -> list[str]:
    told = []
    for step in entry["drift"]:
        before, after = sides(step)
        ended = "repaired" if step["repaired"] else "left"
        told.append(f"{step['resource']} {step['action']} ({ended}): {before} -> {after}")
    return told


def _problem(number: int, text: str) -> ET.Element:
    case = ET.Element("testcase", {"classname": "run", "name": f"problem {number}", "time": "0"})
    ET.SubElement(case, "error", {"type": "problem", "message": fit(text)}).text = fit(text)
    return case
