# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a drift report say to Prometheus?

Pure. A file for the textfile collector of node_exporter, in Prometheus' text format 0.0.4. All series are gauges: the file says what the last run
found, and remembers no sum. No machine is named, so that a fleet of any size has the same few series. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._drift import STATUSES, differences, kinds
from ._common import duration, fit, moment


def render(reported: Mapping[str, Any]) -> str:
    """The metrics of one report. The report's `runner`, where there is one, is a label of every series."""
    summary, reading = reported["summary"], reported["reading"] or {}
    repaired = sum(1 for step in differences(reported) if step["repaired"])
    families: list[tuple[str, str, Iterable[tuple[Mapping[str, str], float]]]] = [
        ("machines", "Machines by what the last run found.", [({"status": name}, summary[name]) for name in STATUSES]),
        (
            "drift",
            "Differences that the last run found, mended or not, by resource and by what mends them.",
            [
                ({"resource": resource, "action": action}, count)
                for (resource, action), count in kinds(reported).items()
            ],
        ),
        ("drift_left", "Whether anything is not what it shall be.", [({}, reported["drift_left"])]),
        ("repaired", "Differences that the last run mended.", [({}, repaired)]),
        ("problems", "Failures of the last run that belong to no machine.", [({}, len(reported["problems"]))]),
        ("held_back", "Whether the last run held repairs back.", [({}, reported["held_back"] is not None)]),
        ("run_timestamp_seconds", "When the last run ended, since 1970.", [({}, moment(reported["ended"]))]),
        ("run_duration_seconds", "How long the last run took.", [({}, duration(reported))]),
    ]
    if reading.get("requests") is not None:
        families.append(("requests", "Requests that the last run sent to Azure.", [({}, reading["requests"])]))
    runner = {} if reported["runner"] is None else {"runner": reported["runner"]}
    lines = []
    for name, told, samples in families:
        lines += [f"# HELP arcfleet_{name} {told}", f"# TYPE arcfleet_{name} gauge"]
        lines += [f"arcfleet_{name}{_labels({**runner, **labels})} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(value: str) -> str:
    return fit(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
