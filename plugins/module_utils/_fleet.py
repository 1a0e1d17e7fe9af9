# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does one invocation serve a whole fleet?

The targets are checked before any request, worked on concurrently, each on its own, and reported together: what failed on one
machine stops no other, what succeeded stays and is told. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ._errors import ArcError, InputError, redact
from ._ids import MachineId, subscription
from ._plan import CREATE, DELETE, NONE, SKIP, UPDATE
from ._reconcile import Outcome

_COUNTED = {CREATE: "created", UPDATE: "updated", DELETE: "deleted", NONE: "unchanged", SKIP: "skipped"}

# So many failures are quoted in the message of a task; all of them stand in `failures`.
_QUOTED = 3


@dataclass(frozen=True)
class Target:
    """One machine or subscription of the run, with the options that hold for it; `host` is the machine's inventory name."""

    key: str
    name: str
    options: Mapping[str, Any]
    machine: MachineId | None = None
    host: str | None = None


def machine_of(target: Target) -> MachineId:
    """The machine of a target; InputError for a target that is a subscription."""
    if target.machine is None:
        raise InputError(f"{target.name} is not a machine.")
    return target.machine


def machine_targets(
    params: Mapping[str, Any], overrides: Sequence[str] = (), *, machine_option: str = "name"
) -> list[Target]:
    """The machines named by `machines`, or by `machine_option`, `resource_group` and `subscription_id`.

    An entry of `machines` is an id, or a dict of `id`, `host` and any of `overrides`. Raises InputError for an empty fleet, for ids
    that are no machine's, for duplicates and for overrides that are not known.
    """
    if params.get("machines") is None:
        return [_single(params, machine_option)]
    entries = params["machines"]
    if not entries:
        raise InputError(
            "machines is empty: there is nothing to work on.",
            hint="Check the pattern or the inventory that the list is made from.",
        )
    targets: dict[str, Target] = {}
    for entry in entries:
        target = _target(entry, params, overrides)
        if target.key in targets:
            raise InputError(
                f"machines names {target.machine} more than once.", hint="Ids are compared without regard to case."
            )
        targets[target.key] = target
    return list(targets.values())


def _single(params: Mapping[str, Any], machine_option: str) -> Target:
    missing = [option for option in (machine_option, "resource_group", "subscription_id") if not params.get(option)]
    if missing:
        raise InputError(
            f"There is nothing to work on: machines is not set, and neither is {' and '.join(missing)}.",
            hint=f"Give machines, or {machine_option}, resource_group and subscription_id.",
        )
    machine = MachineId.build(params["subscription_id"], params["resource_group"], params[machine_option])
    return Target(machine.key, machine.name, params, machine)


def _target(entry: Any, params: Mapping[str, Any], overrides: Sequence[str]) -> Target:
    if isinstance(entry, str):
        machine = MachineId.parse(entry)
        return Target(machine.key, machine.name, params, machine)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise InputError(f"machines holds {entry!r}, which is neither a resource id nor a dict with the key id.")
    machine = MachineId.parse(entry["id"])
    own = {key: value for key, value in entry.items() if key not in ("id", "host")}
    unknown = sorted(set(own) - set(overrides))
    if unknown:
        allowed = (
            f"may be given per machine: {', '.join(overrides)}" if overrides else "can be given per machine by nothing"
        )
        raise InputError(f"{machine.name}: {', '.join(unknown)} cannot be set for one machine; only these {allowed}.")
    return Target(machine.key, machine.name, {**params, **own}, machine, entry.get("host"))


def subscription_targets(params: Mapping[str, Any]) -> list[Target]:
    """The subscriptions named by `subscriptions`, else `subscription_id`. Raises InputError as `machine_targets` does."""
    given = params.get("subscriptions")
    if given is None:
        given = [params["subscription_id"]] if params.get("subscription_id") else None
    if given is None:
        raise InputError("There is nothing to work on: neither subscriptions nor subscription_id is set.")
    if not given:
        raise InputError("subscriptions is empty: there is nothing to work on.")
    keys = [subscription(text).lower() for text in given]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise InputError(f"subscriptions names {twice} more than once.")
    return [Target(key, key, params) for key in keys]


def work_on(
    targets: Sequence[Target], work: Callable[[Target, Outcome], None], *, concurrency: int
) -> dict[str, Outcome]:
    """Do `work` for each target, at most `concurrency` at once; a failure is noted in the target's own outcome."""
    outcomes = {target.key: Outcome() for target in targets}

    def one(target: Target) -> None:
        outcome = outcomes[target.key]
        try:
            work(target, outcome)
        except ArcError as exc:
            outcome.failure = exc.failure()
        except Exception as exc:  # noqa: BLE001
            # A fault of ours on one machine must not take the results of all others with it.
            outcome.failure = ArcError(
                f"{target.name}: unexpected {type(exc).__name__}: {redact(str(exc))}",
                code="InternalError",
                hint="Please report this with the version of arcfleet.ssh.",
            ).failure()

    with ThreadPoolExecutor(max_workers=max(1, min(concurrency, len(targets)))) as executor:
        for _done in executor.map(one, targets):
            pass
    return outcomes


def report(targets: Iterable[Target], outcomes: Mapping[str, Outcome], *, kind: str) -> dict[str, Any]:
    """The result of the run; `kind` ("machines" or "subscriptions") names the part that is keyed by id."""
    entries = {target.key: _entry(target, outcomes[target.key]) for target in targets}
    summary = dict.fromkeys(("total", *_COUNTED.values(), "failed"), 0)
    for entry in entries.values():
        summary["total"] += 1
        summary["failed" if "failure" in entry else _COUNTED[entry["action"]]] += 1
    differing = {key: outcomes[key] for key in entries if outcomes[key].changed}
    return {
        "changed": bool(differing),
        "summary": summary,
        kind: entries,
        "failures": {key: entry for key, entry in entries.items() if "failure" in entry},
        "diff": {
            side: {key: _side(outcome, side) for key, outcome in differing.items()} for side in ("before", "after")
        },
    }


def _entry(target: Target, outcome: Outcome) -> dict[str, Any]:
    asked = outcome.plan
    entry: dict[str, Any] = {
        "name": target.name,
        **({"host": target.host} if target.host else {}),
        "action": outcome.action,
        "changed": outcome.changed,
    }
    if outcome.asked:
        entry.update(before=_plain(asked.before), after=_plain(asked.after))
    for slug, step in outcome.steps.items():
        if slug != outcome.asked:
            entry[slug] = {"action": step.action, "before": _plain(step.before), "after": _plain(step.after)}
    entry.update(outcome.details)
    if outcome.skip_reason is not None:
        entry["skip_reason"] = outcome.skip_reason
    if outcome.failure is not None:
        entry["failure"] = dict(outcome.failure)
    return entry


def _side(outcome: Outcome, side: str) -> dict[str, Any]:
    return {slug: _plain(getattr(step, side)) for slug, step in outcome.steps.items() if step.changed}


def _plain(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if state is None else dict(state)


def verdict(result: Mapping[str, Any], *, kind: str, max_fail_percentage: float) -> str | None:
    """Why the task fails, in one sentence; `None` when it does not."""
    failed, total = result["summary"]["failed"], result["summary"]["total"]
    if not failed or failed * 100 <= max_fail_percentage * total:
        return None
    told = [_told(entry["failure"]) for entry in result["failures"].values()]
    if total == 1:
        return told[0]
    more = f" And {failed - _QUOTED} more, all of which are in `failures`." if failed > _QUOTED else ""
    return f"{failed} of {total} {kind} failed. {' '.join(told[:_QUOTED])}{more}"


def told(result: Mapping[str, Any]) -> str:
    """What became of the run, in one line: "200 created, 3 failed, throttled 2 times"."""
    counts = [f"{count} {what}" for what, count in result["summary"].items() if count and what != "total"]
    throttled = result["pacing"]["throttled"]
    return ", ".join([*counts, *([f"throttled {throttled} times"] if throttled else [])])


def _told(failure: Mapping[str, Any]) -> str:
    return f"{failure['message']} {failure['hint']}" if failure.get("hint") else str(failure["message"])
