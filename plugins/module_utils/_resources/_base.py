# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be known of a kind of ARM resource so that it can be reconciled?

A kind is pure: where it lies, what of it is compared and shown (`state`), what is wanted, and the request that gets there.
Reading, check mode, waiting and errors are the same for all kinds and live in `_reconcile`. Private to arcfleet.ssh.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._ids import MachineId
from .._plan import DELETE, Plan, State

Raw = Mapping[str, Any]

# How the end of a write is seen: at once, by ARM's long-running operation, or by reading until the state is the wanted one.
SYNCHRONOUS, OPERATION, STATE = "synchronous", "operation", "state"

_BUSY = frozenset(("accepted", "creating", "updating", "deleting", "running", "inprogress"))
_BROKEN = frozenset(("failed", "canceled"))


@dataclass(frozen=True)
class Request:
    """One write: `method` is PUT, POST or DELETE."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None


class Resource(ABC):
    """The base of all kinds. Attributes without a value are each kind's own; those with one are the common case."""

    api_version: str
    slug: str
    noun: str
    path: str
    present: bool
    machine: MachineId | None = None
    ends: str = SYNCHRONOUS
    # Whether writing needs the machine's agent.
    needs_agent: bool = False
    # ARM error codes that say "not now": the write is tried again until the time-out.
    not_now: frozenset[str] = frozenset()
    # The list in which the resource may stand under another name than `path` says.
    collection: str | None = None
    # What has to be there first, and goes afterwards when nothing in its `children` is left.
    parent: Resource | None = None
    children: str | None = None

    @property
    def owner(self) -> str:
        """Whose resource it is, for sentences: by default the machine's name."""
        return self.machine.name if self.machine else ""

    @abstractmethod
    def state(self, raw: Raw) -> State:
        """What of the API's record is compared and shown; never a secret."""

    @abstractmethod
    def wanted(self, raw: Raw | None) -> State:
        """The desired state, in the terms of `state`; `raw` fills in what the user left open."""

    def body(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Mapping[str, Any]:
        """The body of the PUT that reaches `plan.after`; `machine` is the machine's record where `needs_agent`.

        Kinds that are written by an action instead of a PUT have none.
        """
        return {}

    def request(self, plan: Plan, raw: Raw | None, machine: Raw | None) -> Request:
        """The write that carries out `plan`."""
        if plan.action == DELETE:
            return Request("DELETE", self.path)
        return Request("PUT", self.path, self.body(plan, raw, machine))

    def doing(self, plan: Plan) -> str:
        """The beginning of a sentence about this write failing."""
        return f"{self.owner}: cannot {plan.action} the {self.noun}"

    def matches(self, raw: Raw) -> bool:
        """Whether a record of `collection`, or the one found at `path`, is this resource."""
        return True

    def complaint(self, raw: Raw) -> str | None:
        """Why a resource that needs no change does not work all the same; `None` when it does."""
        return None

    def broken(self, raw: Raw) -> bool:
        """Whether the last write failed, so that the record must not be taken for the truth."""
        return provisioning_state(raw) in _BROKEN

    def busy(self, raw: Raw) -> bool:
        """Whether an earlier write, possibly somebody else's, is still under way."""
        return provisioning_state(raw) in _BUSY


def properties(raw: Raw) -> Mapping[str, Any]:
    """`properties` of a record, empty where a half-made record has none."""
    found = raw.get("properties")
    return found if isinstance(found, Mapping) else {}


def provisioning_state(raw: Raw) -> str:
    """`properties.provisioningState` in lower case; the empty string where there is none."""
    return str(properties(raw).get("provisioningState") or "").lower()
