# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where does the fleet differ from what it shall be, and what of that is mended?

Pure: the results of this collection's modules in, one report out. Its shape is a contract with whoever reads it by program; it
changes only together with `VERSION`. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FORMAT, VERSION = "arcfleet.ssh/drift-report", 1

REPORT, REPAIR = "report", "repair"
IN_ORDER, DRIFTED, REPAIRED, FAILED, SKIPPED = "in_order", "drifted", "repaired", "failed", "skipped"
STATUSES = (IN_ORDER, DRIFTED, REPAIRED, FAILED, SKIPPED)

_KINDS = ("machines", "subscriptions")
_NOTHING = ("none", "skip")
_NOT_STEPS = frozenset(("name", "host", "action", "changed", "before", "after", "skip_reason", "failure"))


def report(findings: Mapping[str, Iterable[Mapping[str, Any]]], *, mode: str, begun: str, ended: str) -> dict[str, Any]:
    """The report of one run.

    `findings`: for each kind of resource that was looked at, the results of the modules that looked, in check mode for the mode
    `report`, for real for `repair`. Times are ISO 8601 texts. A machine that several results name has one entry with all its drift.
    """
    entries: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
    problems = []
    for resource, results in findings.items():
        for result in results:
            if result.get("failed") and not any(kind in result for kind in _KINDS):
                problems.append(str(result.get("msg") or "A module failed without a word."))
            for kind in _KINDS:
                for key, found in (result.get(kind) or {}).items():
                    asked = resource if kind == "machines" else "resource_provider"
                    _add(entries[kind].setdefault(key, _entry(found)), asked, found, mode)
    everything = [entry for kind in _KINDS for entry in entries[kind].values()]
    for entry in everything:
        entry["status"] = _status(entry)
    machines = list(entries["machines"].values())
    return {
        "format": FORMAT,
        "version": VERSION,
        "mode": mode,
        "begun": begun,
        "ended": ended,
        "summary": {
            "total": len(machines),
            **{status: sum(entry["status"] == status for entry in machines) for status in STATUSES},
        },
        "drift_left": bool(problems) or any(entry["status"] in (DRIFTED, FAILED) for entry in everything),
        "problems": problems,
        **entries,
    }


def _entry(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": found.get("name"),
        "host": found.get("host"),
        "status": IN_ORDER,
        "drift": [],
        "failure": None,
        "skip_reason": None,
    }


def _add(entry: dict[str, Any], resource: str, found: Mapping[str, Any], mode: str) -> None:
    steps = {name: step for name, step in found.items() if name not in _NOT_STEPS and _is_step(step)}
    if "before" in found:
        # `action` of an entry is that of what stands around the resource, when the resource itself is in order. A resource whose
        # last write failed differs from nothing, and is written again all the same.
        around = any(step["action"] not in _NOTHING for step in steps.values())
        in_order = around and found["before"] == found["after"]
        action = "none" if in_order else found["action"]
        steps[resource] = {"action": action, "before": found["before"], "after": found["after"]}
    for name, step in steps.items():
        if step["action"] not in _NOTHING:
            entry["drift"].append(
                {
                    "resource": name,
                    "action": step["action"],
                    "before": step["before"],
                    "after": step["after"],
                    "repaired": mode == REPAIR,
                }
            )
    entry["failure"] = entry["failure"] or found.get("failure")
    entry["skip_reason"] = entry["skip_reason"] or found.get("skip_reason")


def _is_step(value: Any) -> bool:
    return isinstance(value, Mapping) and {"action", "before", "after"} <= set(value)


def _status(entry: Mapping[str, Any]) -> str:
    if entry["failure"] is not None:
        return FAILED
    if any(not step["repaired"] for step in entry["drift"]):
        return DRIFTED
    if entry["drift"]:
        return REPAIRED
    return SKIPPED if entry["skip_reason"] else IN_ORDER


def left(reported: Mapping[str, Any]) -> dict[str, str]:
    """For each machine that is not what it shall be, by its inventory name or id, what is the matter, in sentences."""
    return {
        str(entry["host"] or key): " ".join(_sentences(entry))
        for key, entry in reported["machines"].items()
        if entry["status"] in (DRIFTED, FAILED)
    }


def _sentences(entry: Mapping[str, Any]) -> list[str]:
    told = [
        f"{entry['name']}: {step['resource'].replace('_', ' ')} {_difference(step)}."
        for step in entry["drift"]
        if not step["repaired"]
    ]
    failure = entry["failure"]
    if failure:
        told += [str(failure[part]) for part in ("message", "hint") if failure.get(part)]
    return told


def _difference(step: Mapping[str, Any]) -> str:
    if step["action"] == "create":
        return "is missing"
    if step["action"] == "delete":
        return "should not be there"
    before, after = step["before"] or {}, step["after"] or {}
    differing = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"has {name} {before.get(name)!r} instead of {after[name]!r}" for name in differing) or "failed"
