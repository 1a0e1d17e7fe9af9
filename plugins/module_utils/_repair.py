# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the machines that drifted may be repaired now, and which of them first?

Pure. A repair that nobody watches must not do more than somebody expected: what a machine's own mode or its maintenance windows forbid waits, a run
that would change too much of the fleet changes nothing, nothing is ever deleted, and the canaries go first. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._drift import DRIFTED, REPAIR, REPORT, report
from ._errors import InputError
from ._ids import MachineId
from ._plan import DELETE
from ._windows import Window, windows_of

Findings = Mapping[str, Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Decision:
    """What is repaired. `canaries` and `rest` are ids in lower case with what the machine is called; `deferred` says why not, by id; `held_back` why
    nothing (more) is repaired at all."""

    canaries: Mapping[str, str]
    rest: Mapping[str, str]
    deferred: Mapping[str, str]
    held_back: str | None


def decide(
    machines: Iterable[Mapping[str, Any]],
    looked: Findings,
    canary: Findings,
    *,
    now: datetime,
    percent: float,
    always: int,
    confirmed: bool,
) -> Decision:
    """What may be repaired now.

    `machines`: the fleet, each with `id` and perhaps `host`, `mode`, `windows`, `canary`. `looked`: what modules found in check mode. `canary`: what the
    repair of the canaries came to, empty before it. A change of more than `percent` of the fleet needs to be `confirmed`, unless it is of no more than
    `always` machines. Raises InputError for ids and windows that cannot be.
    """
    fleet = {MachineId.parse(str(entry.get("id"))).key: entry for entry in machines}
    windows = {key: _windows(entry) for key, entry in fleet.items()}
    found = report(looked, mode=REPORT, begun="", ended="")["machines"]
    drifted = {key: entry for key, entry in found.items() if entry["status"] == DRIFTED}
    why = {key: _obstacle(fleet.get(key, {}), windows.get(key, []), entry, now) for key, entry in drifted.items()}
    deferred = {key: reason for key, reason in why.items() if reason}
    able = {key: str(drifted[key]["host"] or key) for key, reason in why.items() if not reason}
    limit = max(always, int(len(fleet) * percent / 100))
    if len(able) > limit and not confirmed:
        held_back = (
            f"{len(able)} of {len(fleet)} machines would be changed, and more than {limit} are not without confirmation. "
            "See the report; if that is right, run once with arc_enforcement_confirmed=true."
        )
        return Decision({}, {}, {**deferred, **dict.fromkeys(able, "too many machines would be changed")}, held_back)
    canaries = {key: host for key, host in able.items() if fleet.get(key, {}).get("canary")}
    rest = {key: host for key, host in able.items() if key not in canaries}
    failed = _failed(canary)
    if failed and rest:
        held_back = f"The repair of {len(failed)} of {len(canaries)} canaries failed, so no other machine was repaired. {failed[0]}"
        return Decision(canaries, {}, {**deferred, **dict.fromkeys(rest, "the canaries failed")}, held_back)
    return Decision(canaries, rest, deferred, None)


def _windows(machine: Mapping[str, Any]) -> list[Window]:
    """Its windows, of every machine, drifted or not: a slip of the pen is not to wait for the first drift."""
    try:
        return windows_of(machine.get("windows") or ())
    except InputError as exc:
        raise InputError(f"{machine.get('host') or machine['id']}: {exc.message}", hint=exc.hint) from exc


def _obstacle(
    machine: Mapping[str, Any], windows: Sequence[Window], entry: Mapping[str, Any], now: datetime
) -> str | None:
    """Why this machine is not repaired now."""
    if any(step["action"] == DELETE for step in entry["drift"]):
        return "something would be deleted, which enforcement never does"
    if machine.get("mode") == REPORT:
        return "its arc_enforcement_host_mode is report"
    if windows and not any(window.holds(now) for window in windows):
        return f"it is outside of its maintenance windows ({'; '.join(window.text for window in windows)})"
    return None


def _failed(findings: Findings) -> list[str]:
    """What went wrong with a repair, a sentence for each machine and for whatever belongs to none."""
    made = report(findings, mode=REPAIR, begun="", ended="")
    return [
        *made["problems"],
        *(entry["failure"]["message"] for entry in made["machines"].values() if entry["failure"]),
    ]
