# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where does the fleet differ from what it shall be, and what of that is mended?

Pure: the results of this collection's modules in, one report out. Its shape is a contract with whoever reads it by program; it
changes for a reader only together with `VERSION`. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from ._errors import InputError

FORMAT, VERSION = "arcfleet.ssh/drift-report", 1

REPORT, REPAIR = "report", "repair"
IN_ORDER, DRIFTED, REPAIRED, FAILED, SKIPPED = "in_order", "drifted", "repaired", "failed", "skipped"
STATUSES = (IN_ORDER, DRIFTED, REPAIRED, FAILED, SKIPPED)

_KINDS = ("machines", "subscriptions")
_NOTHING = ("none", "skip")
_NOT_STEPS = frozenset(("name", "host", "action", "changed", "before", "after", "skip_reason", "failure"))


def report(
    findings: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    mode: str,
    begun: str,
    ended: str,
    looked: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
    unchanged: Mapping[str, Mapping[str, Any]] | None = None,
    held_back: str | None = None,
    deferred: Mapping[str, str] | None = None,
    reading: Mapping[str, Any] | None = None,
    runner: str | None = None,
    unfinished: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of one run.

    `findings`: for each kind of resource that was looked at, the results of the modules that looked, in check mode for the mode
    `report`, for real for `repair`. Times are ISO 8601 texts. A machine that several results name has one entry with all its drift.
    `looked`: the same from check mode before a repair; what `findings` says of a resource of a machine takes its place.
    `unchanged`: by id, machines that nobody read because nothing was written to them since they were `verified`.
    `held_back`: why this run repaired nothing (more) at all; `deferred`: by id, why this machine was left alone. `reading`: how the
    machines to read were chosen, and at what cost. `runner`: a name for what ran. `unfinished`: the report with which an earlier run
    that did not come to its end began its repair; what it repaired is in no other report.
    Raises InputError for a machine in `unchanged` without a time.
    """
    reasons = {key.lower(): reason for key, reason in (deferred or {}).items()}
    entries: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
    problems = []
    for resource, result, is_repair in _results(findings, looked or {}, mode):
        if result.get("failed") and not any(kind in result for kind in _KINDS):
            problems.append(str(result.get("msg") or "A module failed without a word."))
        for kind in _KINDS:
            for key, found in (result.get(kind) or {}).items():
                asked = resource if kind == "machines" else "resource_provider"
                repaired = is_repair and key.lower() not in reasons
                _add(entries[kind].setdefault(key, _entry(found)), asked, found, repaired)
    for kind in _KINDS:
        _recall(entries[kind], (unfinished or {}).get(kind, {}))
        for key, entry in entries[kind].items():
            entry["status"] = _status(entry)
            entry["verified"] = begun if entry["status"] == IN_ORDER else None
            entry["held_back"] = reasons.get(key.lower()) if entry["status"] == DRIFTED else None
    for key, known in (unchanged or {}).items():
        entries["machines"].setdefault(key.lower(), _unchanged(key, known))
    everything = [entry for kind in _KINDS for entry in entries[kind].values()]
    machines = list(entries["machines"].values())
    return {
        "format": FORMAT,
        "version": VERSION,
        "mode": mode,
        "begun": begun,
        "ended": ended,
        "runner": runner,
        "reading": dict(reading) if reading else None,
        "held_back": held_back,
        "summary": {
            "total": len(machines),
            **{status: sum(entry["status"] == status for entry in machines) for status in STATUSES},
        },
        "drift_left": bool(problems) or any(entry["status"] in (DRIFTED, FAILED) for entry in everything),
        "problems": problems,
        **entries,
    }


def _results(
    findings: Mapping[str, Iterable[Mapping[str, Any]]],
    looked: Mapping[str, Iterable[Mapping[str, Any]]],
    mode: str,
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Each result with the kind of resource that it is about, and whether what differs in it was mended."""
    made = {resource: list(results) for resource, results in findings.items()}
    for resource, results in looked.items():
        after = {
            key: found for result in made.get(resource, ()) for kind in _KINDS for key, found in _items(result, kind)
        }
        for result in results:
            rest = {kind: {key: _left(found, after.get(key)) for key, found in _items(result, kind)} for kind in _KINDS}
            kept = {kind: {key: found for key, found in rest[kind].items() if found is not None} for kind in _KINDS}
            yield resource, {**result, **{kind: kept[kind] for kind in _KINDS if result.get(kind)}}, False
    for resource, results in made.items():
        for result in results:
            yield resource, result, mode == REPAIR


def _items(result: Mapping[str, Any], kind: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return (result.get(kind) or {}).items()


def _left(found: Mapping[str, Any], after: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a look has found and the repair `after` it has not mended, if anything."""
    if after is None:
        return found
    if not after.get("failure"):
        return None
    mended = {name for name, step in after.items() if _is_step(step) and step["action"] not in _NOTHING}
    return {name: part for name, part in found.items() if name not in mended and name not in ("failure", "skip_reason")}


def _recall(entries: Mapping[str, dict[str, Any]], unfinished: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what a run was about to repair that did not come to its end: what is in order now, it has repaired."""
    for key, before in _pending(unfinished):
        entry = entries.get(key)
        if entry and _is_settled(entry):
            drifted = {step["resource"] for step in entry["drift"]}
            entry["drift"] += [
                {**step, "repaired": True} for step in before["drift"] if step["resource"] not in drifted
            ]


def unsettled(reported: Mapping[str, Any], unfinished: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """What of an unfinished run `reported` could not tell, because it did not see the machine: by kind and id."""
    found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
    for kind in _KINDS:
        for key, before in _pending(unfinished[kind]):
            entry = reported[kind].get(key)
            if entry is None or not _is_settled(entry):
                told = {step["resource"] for step in entry["drift"] if step["repaired"]} if entry else ()
                drift = [step for step in before["drift"] if step["resource"] not in told]
                found[kind][key] = {**before, "drift": drift}
    return found


def _pending(unfinished: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((key, before) for key, before in unfinished.items() if before["drift"] and not before.get("held_back"))


def _is_settled(entry: Mapping[str, Any]) -> bool:
    return entry["failure"] is None and entry["skip_reason"] is None


def _entry(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": found.get("name"),
        "host": found.get("host"),
        "status": IN_ORDER,
        "drift": [],
        "failure": None,
        "skip_reason": None,
        "verified": None,
        "held_back": None,
    }


def _unchanged(key: str, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        zone = datetime.fromisoformat(known["verified"]).tzinfo
    except (KeyError, TypeError, ValueError):
        zone = None
    if zone is None:
        raise InputError(f"unchanged says of {key} no time, in ISO 8601 with its zone, at which it was verified.")
    return {**_entry(known), "verified": known["verified"]}


def _add(entry: dict[str, Any], resource: str, found: Mapping[str, Any], repaired: bool) -> None:
    steps = {name: step for name, step in found.items() if name not in _NOT_STEPS and _is_step(step)}
    if "before" in found:
        # `action` of an entry is that of what stands around the resource, when the resource itself is in order. A resource whose
        # last write failed differs from nothing, and is written again all the same.
        around = any(step["action"] not in _NOTHING for step in steps.values())
        in_order = around and found["before"] == found["after"]
        action = "none" if in_order else found["action"]
        steps[resource] = {"action": action, "before": found["before"], "after": found["after"]}
    for name, step in steps.items():
        told = {"resource": name, **{part: step[part] for part in ("action", "before", "after")}, "repaired": repaired}
        # Told twice, a difference is still one.
        if step["action"] not in _NOTHING and told not in entry["drift"]:
            entry["drift"].append(told)
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


def kinds(reported: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """How many differences of each kind there are: by resource and action, the most frequent first."""
    counted = Counter((step["resource"], step["action"]) for step in differences(reported))
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def differences(reported: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every difference of the report, mended or not."""
    for kind in _KINDS:
        for entry in reported[kind].values():
            yield from entry["drift"]


def left(reported: Mapping[str, Any]) -> dict[str, str]:
    """For each machine that is not what it shall be, by its inventory name or id, what is the matter, in sentences."""
    return {
        str(entry["host"] or key): " ".join(sentences(entry))
        for key, entry in reported["machines"].items()
        if entry["status"] in (DRIFTED, FAILED)
    }


def sentences(entry: Mapping[str, Any]) -> list[str]:
    """What is the matter with one machine or subscription that drifted or failed."""
    told = [
        f"{entry['name']}: {step['resource'].replace('_', ' ')} {difference(step)}."
        for step in entry["drift"]
        if not step["repaired"]
    ]
    if entry["held_back"]:
        told.append(f"Not repaired: {entry['held_back']}")
    failure = entry["failure"]
    if failure:
        told += [str(failure[part]) for part in ("message", "hint") if failure.get(part)]
    return told


def difference(step: Mapping[str, Any]) -> str:
    """What one difference consists in, as the rest of a sentence about the resource."""
    if step["action"] == "create":
        return "is missing"
    if step["action"] == "delete":
        return "should not be there"
    before, after = step["before"] or {}, step["after"] or {}
    differing = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"has {name} {before.get(name)!r} instead of {after[name]!r}" for name in differing) or "failed"
