# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines does a run of enforcement have to look at?

Reads the ledger and, for each subscription that it speaks of, the activity log since the ledger's last look. A log that cannot be read costs nothing
but requests: every machine of its subscription is looked at then. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from ._activity_log import events, machine_of_event
from ._errors import ArcError, ArmError, AuthError, ConnectionFailed, InputError, Interrupted
from ._fleet import Target, machine_of
from ._graph import THREADS, together
from ._ids import MachineId
from ._ledger import DOUBTED, SKEW, Ledger, digest, due_for_visit, log_since, reason_to_read
from ._ledger_files import load
from ._module import ArcModule
from ._reconcile import Outcome, Run

# The version of Microsoft.Resources in which a subscription is asked for, only to hear the time.
_SUBSCRIPTION = "2022-12-01"

# Longer than this nobody waits for a drift that the activity log does not show, and the log itself is kept for 90 days.
_LONGEST = timedelta(days=30)


class LookModule(ArcModule):
    """A module whose machines may have anything as their desired state."""

    common: Mapping[str, Any] = {"machines": {"type": "list", "elements": "dict", "required": True}}

    def _targets(self) -> list[Target]:
        targets: dict[str, Target] = {}
        for entry in self.params["machines"]:
            if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
                raise InputError(f"machines holds {entry!r}, which is not a dict with the key id.")
            machine = MachineId.parse(entry["id"])
            if machine.key in targets:
                raise InputError(f"machines names {machine} more than once.")
            desired = {key: value for key, value in entry.items() if key not in ("id", "host")}
            targets[machine.key] = Target(machine.key, machine.name, desired, machine, entry.get("host"))
        if not targets:
            raise InputError("machines is empty: there is nothing to look at.")
        return list(targets.values())


class Look:
    """What one run looks at, and why. `params` are the module's."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self._full_every = timedelta(seconds=params["full_every"])
        self._ledger = Ledger()
        self._trouble: list[str] = []
        self._now = datetime.min.replace(tzinfo=timezone.utc)
        self._cloud = ""
        self._logs: dict[str, bool] = {}
        self._written: dict[str, datetime] = {}
        self._desired: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._judged: dict[str, dict[str, Any]] = {}

    def check(self, target: Target) -> None:
        """Raises InputError for options that cannot be."""
        if not timedelta(0) <= self._full_every <= _LONGEST:
            raise InputError(f"full_every is {self._params['full_every']} s; it lies between 0 and 30 days.")
        if self._params["visit_share"] < 1:
            raise InputError(f"visit_share is {self._params['visit_share']}; it is at least 1.")
        self._desired[target.key] = digest({"kinds": self._params["kinds"], **target.options})
        self._hosts[target.key] = target.host or target.key

    def read(self, run: Run, targets: Sequence[Target]) -> None:
        """Read the ledger and the logs, before any machine is judged."""
        self._cloud = run.arm.address
        self._ledger, trouble = load(self._params["path"], self._cloud)
        self._trouble += [trouble] if trouble else []
        subscriptions = dict.fromkeys(machine_of(target).subscription_id.lower() for target in targets)
        self._now = _azure_time(run, next(iter(subscriptions)))
        logs = together([partial(self._log, run, key) for key in subscriptions], THREADS)
        self._logs = dict(zip(subscriptions, logs))

    def _log(self, run: Run, subscription: str) -> bool:
        """Read one subscription's log; whether what the ledger says of it may be believed."""
        since = log_since(self._ledger, subscription, now=self._now, full_every=self._full_every)
        if since is None:
            return False
        try:
            found = list(events(run.arm, subscription, since, self._now + SKEW))
        except (AuthError, Interrupted):
            raise
        except ArcError as exc:
            self._trouble.append(f"{exc.message} Every machine of the subscription is read.")
            return False
        for event in found:
            machine = machine_of_event(event.resource_id)
            if machine is None:
                if event.operation.lower().endswith("/unregister/action"):
                    self._trouble.append(
                        f"Subscription {subscription}: a resource provider was unregistered. Every machine of it is read."
                    )
                    return False
                continue
            self._written[machine] = max(event.timestamp, self._written.get(machine, event.timestamp))
        return True

    def judge(self, target: Target, outcome: Outcome) -> None:
        """Note in `outcome` whether the machine has to be read, and why."""
        outcome.warnings += self._trouble
        known = self._ledger.machines.get(target.key)
        reason: str | None = DOUBTED
        if known is None or self._logs[machine_of(target).subscription_id.lower()]:
            reason = reason_to_read(
                self._ledger,
                target.key,
                self._desired[target.key],
                now=self._now,
                full_every=self._full_every,
                written=self._written.get(target.key),
            )
        verified = known.verified.isoformat(timespec="seconds") if known and reason is None else None
        outcome.details.update(read=reason is not None, reason=reason, verified=verified)
        self._judged[target.key] = {"name": target.name, "host": target.host, "verified": verified, "reason": reason}

    def result(self) -> dict[str, Any]:
        """What the module returns beside its machines."""
        judged = {key: self._judged[key] for key in self._desired if key in self._judged}
        return {
            "path": self._params["path"],
            "read_hosts": [self._hosts[key] for key, found in judged.items() if found["reason"]],
            "reasons": dict(Counter(found["reason"] for found in judged.values() if found["reason"])),
            "unchanged": {
                key: {part: found[part] for part in ("name", "host", "verified")}
                for key, found in judged.items()
                if not found["reason"]
            },
            "visit_hosts": [
                self._hosts[key]
                for key in due_for_visit(self._ledger, self._desired, now=self._now, every=self._params["visit_share"])
            ],
            "look": {
                "at": self._now.isoformat(timespec="seconds"),
                "cloud": self._cloud,
                "full_every": self._params["full_every"],
                "logs": self._logs,
                "written": sorted(self._written),
                "desired": self._desired,
            },
        }


def _azure_time(run: Run, subscription: str) -> datetime:
    """Azure's time, before anything that is read from now on. A refusal tells it as well."""
    with contextlib.suppress(ArmError):
        run.arm.get(f"/subscriptions/{subscription}", _SUBSCRIPTION, doing="cannot read the subscription")
    if run.arm.azure_time is None:
        raise ConnectionFailed(
            "Azure answers without telling its time.", hint="A proxy that answers in its place is the usual cause."
        )
    return run.arm.azure_time
