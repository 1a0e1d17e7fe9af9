# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does one resource get from what it is to what it shall be?

Read, plan, apply, wait: the one place that knows check mode. Nothing is written that was not read in the same run, nothing is
written that is right already, nothing is written again before it was read again, and what a write would meet (no such machine, an
agent that is away) is met in check mode too, so that the prediction holds. Private to arcfleet.ssh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._arm import Arm
from ._claims import Claims
from ._errors import ArcError, ArmError, Interrupted, OperationTimeout, Unavailable
from ._ids import MachineId
from ._pacing import Pace
from ._plan import CREATE, NONE, SKIP, Plan, plan
from ._resources import _machine
from ._resources._base import OPERATION, STATE, Raw, Resource

# Seconds between looks at something that another run or Azure itself is changing; it doubles up to the second number.
_LOOK, _LOOK_AT_MOST = 2.0, 30.0

_UNREGISTERED = "MissingSubscriptionRegistration"

# How often a write is begun whose fate stays unknown.
_WRITES = 5


@dataclass
class Outcome:
    """What was done for one target: a plan for each resource touched, `asked` being the slug of what was asked for."""

    asked: str = ""
    steps: dict[str, Plan] = field(default_factory=dict)
    skip_reason: str | None = None
    failure: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan for what was asked for."""
        return self.steps.get(self.asked, Plan(NONE, None, None))

    @property
    def action(self) -> str:
        """What was done, or would be: of what was asked for, else of what stands around it."""
        if self.skip_reason is not None:
            return SKIP
        others = (step.action for step in self.steps.values())
        return self.plan.action if self.plan.changed else next((action for action in others if action != NONE), NONE)

    @property
    def changed(self) -> bool:
        return any(step.changed for step in self.steps.values())


@dataclass(frozen=True)
class Run:
    """How this run works: on which ARM of which cloud, whether only to predict, whether and how long (seconds) to wait.

    `pace` is also the pace of `arm`: waiting anywhere in the run ends when the run is stopped. `claims` keep other runs away.
    `register` registers the resource provider in a subscription that lacks it.
    """

    arm: Arm
    pace: Pace = field(default_factory=Pace)
    claims: Claims | None = None
    cloud_environment: str = "AzureCloud"
    check_mode: bool = False
    wait: bool = True
    wait_timeout: float = 600.0
    skip_unavailable: bool = False
    register: Callable[[Run, str], None] | None = None


def reconcile(run: Run, resource: Resource, outcome: Outcome) -> None:
    """Bring `resource` to what it shall be; each step is noted in `outcome` as soon as it is done."""
    outcome.asked = resource.slug
    if run.claims is None or run.check_mode:
        _reconcile(run, resource, outcome)
        return
    with run.claims.hold(resource.machine.key if resource.machine else resource.path.lower(), run.pace.sleep):
        _reconcile(run, resource, outcome)


def _reconcile(run: Run, resource: Resource, outcome: Outcome) -> None:
    if resource.parent is None:
        _carry_out(run, resource, _read(run, resource, outcome), outcome)
    elif resource.present:
        _with_parent_first(run, resource, resource.parent, outcome)
    else:
        _with_parent_last(run, resource, resource.parent, outcome)


def _with_parent_first(run: Run, resource: Resource, parent: Resource, outcome: Outcome) -> None:
    raw = _read(run, resource, outcome)
    if raw is None:
        _carry_out(run, parent, _read(run, parent, outcome), outcome)
    _carry_out(run, resource, raw, outcome)


def _with_parent_last(run: Run, resource: Resource, parent: Resource, outcome: Outcome) -> None:
    above = _read(run, parent, outcome)
    if above is None:
        outcome.steps[resource.slug] = plan(None, None)
        return
    _carry_out(run, resource, _read(run, resource, outcome), outcome)
    listed = run.arm.pages(
        parent.children or "", parent.api_version, doing=f"{parent.owner}: cannot list what uses the {parent.noun}"
    )
    others = [
        str(child.get("name"))
        for child in listed
        if not resource.path.lower().endswith(f"/{child.get('name')}".lower())
    ]
    if not others:
        _carry_out(run, parent, above, outcome)
    else:
        kept = parent.state(above)
        outcome.steps[parent.slug] = plan(kept, kept)


def _read(run: Run, resource: Resource, outcome: Outcome) -> Raw | None:
    doing = f"{resource.owner}: cannot read the {resource.noun}"
    try:
        raw: Raw | None = run.arm.get(resource.path, resource.api_version, doing=doing)
    except ArmError as exc:
        if exc.code != _UNREGISTERED or resource.machine is None:
            raise
        raw = _unregistered(run, resource, resource.machine, outcome, doing, exc)
    if resource.collection and (raw is None or not resource.matches(raw)):
        raw = _find(run, resource, resource.collection, raw, doing)
    if raw is not None and resource.busy(raw) and run.wait and not run.check_mode:
        raw = _settled(run, resource, doing)
    return raw


def _unregistered(
    run: Run, resource: Resource, machine: MachineId, outcome: Outcome, doing: str, refusal: ArmError
) -> Raw | None:
    """The resource, where the subscription turned out to lack the provider's registration."""
    if not resource.present:
        # What no provider is registered for cannot be there.
        return None
    if run.register is not None:
        run.register(run, machine.subscription_id)
    elif run.check_mode:
        outcome.warnings.append(f"{refusal.message} The prediction assumes that it is registered first.")
    else:
        raise refusal
    if run.check_mode:
        return None
    deadline, pause = time.monotonic() + run.wait_timeout, _LOOK
    while True:
        try:
            return run.arm.get(resource.path, resource.api_version, doing=doing)
        except ArmError as exc:
            if exc.code != _UNREGISTERED:
                raise
            # All of Azure's front doors know of a registration only after some seconds.
            pause = _pause(run, deadline, pause, exc.message, exc)


def _find(run: Run, resource: Resource, collection: str, namesake: Raw | None, doing: str) -> Raw | None:
    """The resource under another name than the one asked for."""
    for listed in run.arm.pages(collection, resource.api_version, doing=doing):
        if resource.matches(listed):
            resource.path = f"{collection}/{listed['name']}"
            return run.arm.get(resource.path, resource.api_version, doing=doing)
    if namesake is not None and resource.present:
        raise ArmError(
            f"{resource.owner}: cannot create the {resource.noun}: its name belongs to another one already.",
            code="NameTaken",
            status=409,
            hint="Set name to another one.",
        )
    return None


def _settled(run: Run, resource: Resource, doing: str) -> Raw | None:
    """The resource once nothing is under way any more."""
    deadline, pause = time.monotonic() + run.wait_timeout, _LOOK
    while True:
        raw = run.arm.get(resource.path, resource.api_version, doing=doing)
        if raw is None or not resource.busy(raw):
            return raw
        pause = _pause(run, deadline, pause, f"{resource.owner}: the {resource.noun} is still being changed in Azure")


def _carry_out(run: Run, resource: Resource, raw: Raw | None, outcome: Outcome) -> None:
    step = _plan(resource, raw)
    if step.changed:
        machine = _able(run, resource, step, outcome)
        if outcome.skip_reason is not None:
            return
        if run.check_mode:
            _predict(run, resource, step, outcome)
        else:
            _apply(run, resource, step, raw, machine)
    complaint = resource.complaint(raw) if raw is not None and resource.present and not step.changed else None
    if complaint:
        raise ArmError(
            f"{resource.owner}: the {resource.noun} is there but failed: {complaint}",
            code="FailedState",
            hint="Mend the cause on the machine and run again with repair: true.",
        )
    outcome.steps[resource.slug] = step


def _able(run: Run, resource: Resource, step: Plan, outcome: Outcome) -> Raw | None:
    """The machine's record where its agent has to take part; `outcome` or an error says when the agent cannot."""
    if not resource.needs_agent or resource.machine is None:
        return None
    machine = read_machine(run, resource.machine)
    obstacle = _machine.obstacle_to_extensions(machine)
    if obstacle and run.skip_unavailable:
        outcome.skip_reason = obstacle
    elif obstacle:
        raise Unavailable(
            f"{resource.doing(step)}: {obstacle}.",
            code="MachineUnavailable",
            hint="Set unavailable: skip to leave such machines out.",
        )
    return machine


def read_machine(run: Run, machine: MachineId) -> Raw:
    """The machine's record; an ArmError with the code MachineNotFound where there is none."""
    raw = run.arm.get(str(machine), _machine.API_VERSION, doing=f"{machine.name}: cannot read the machine")
    if raw is None:
        raise ArmError(
            f"{machine.name}: there is no such Arc machine in resource group {machine.resource_group} of subscription "
            f"{machine.subscription_id}.",
            code="MachineNotFound",
            status=404,
            hint="Check the machine's id, or connect the machine to Azure Arc first.",
        )
    return raw


def _predict(run: Run, resource: Resource, step: Plan, outcome: Outcome) -> None:
    """Meet what the write would meet first: a machine that is not there."""
    if step.action == CREATE and resource.machine and not resource.needs_agent and not outcome.changed:
        read_machine(run, resource.machine)


def _apply(run: Run, resource: Resource, step: Plan, raw: Raw | None, machine: Raw | None) -> None:
    doing = resource.doing(step)
    answer = _written(run, resource, step, raw, machine, doing)
    if resource.ends == STATE and run.wait:
        answer = _reached(run, resource, step, doing)
    if step.after is not None and run.wait and answer and not _agrees(resource, answer):
        raise ArmError(
            f"{doing}: Azure accepted the change, but answers {dict(resource.state(answer))} instead of {dict(step.after)}.",
            code="NotAsAsked",
            hint="Another tool or an Azure Policy assignment may manage this resource.",
        )


def _written(run: Run, resource: Resource, step: Plan, raw: Raw | None, machine: Raw | None, doing: str) -> Raw:
    """Azure's answer to the write that carries out `step`; begun again after a look, where its fate is unknown or it came too early."""
    deadline, pause, begun = time.monotonic() + run.wait_timeout, _LOOK, 0
    while True:
        request = resource.request(step, raw, machine)
        begun += 1
        try:
            return _write(run, resource, request.method, request.path, request.body, doing)
        except ArcError as exc:
            if exc.uncertain and begun < _WRITES:
                run.pace.sleep(max(exc.retry_after or 0.0, min(2.0 ** (begun - 1), _LOOK_AT_MOST)))
            elif isinstance(exc, ArmError) and exc.code in resource.not_now and run.wait:
                pause = _pause(run, deadline, pause, exc.message, exc)
            else:
                if exc.status == 404 and resource.machine:
                    read_machine(run, resource.machine)
                raise
            raw = _looked_at_again(run, resource, exc, doing)
        step = _plan(resource, raw)
        if not step.changed:
            return raw or {}


def _looked_at_again(run: Run, resource: Resource, doubt: ArcError, doing: str) -> Raw | None:
    """The resource after a write that may have been carried out, or somebody else's. Raises what went wrong with it in Azure."""
    raw: Raw | None = run.arm.get(resource.path, resource.api_version, doing=doing)
    if raw is not None and resource.busy(raw):
        raw = _settled(run, resource, doing)
    complaint = resource.complaint(raw) if raw is not None and resource.present else None
    if complaint:
        raise ArmError(f"{doing}: {complaint}", code="FailedState", hint=doubt.hint)
    return raw


def _write(
    run: Run, resource: Resource, method: str, path: str, body: Mapping[str, Any] | None, doing: str
) -> Mapping[str, Any]:
    version, arm = resource.api_version, run.arm
    waits = resource.ends == OPERATION and run.wait
    if method == "POST":
        return arm.post(path, version, body, doing=doing)
    if method == "DELETE":
        if waits:
            arm.delete_and_wait(path, version, doing=doing, timeout=run.wait_timeout)
        else:
            arm.delete(path, version, doing=doing)
        return {}
    if waits:
        return arm.put_and_wait(path, version, body or {}, doing=doing, timeout=run.wait_timeout)
    if resource.ends == OPERATION:
        arm.put_and_leave(path, version, body or {}, doing=doing)
        return {}
    return arm.put(path, version, body or {}, doing=doing)


def _reached(run: Run, resource: Resource, step: Plan, doing: str) -> Raw:
    """The resource once its state is the wanted one, which Azure works towards by itself."""
    deadline, pause = time.monotonic() + run.wait_timeout, _LOOK
    while True:
        raw = run.arm.get(resource.path, resource.api_version, doing=doing) or {}
        if resource.state(raw) == step.after:
            return raw
        pause = _pause(run, deadline, pause, f"{doing}: it did not happen within {run.wait_timeout:g} s")


def _plan(resource: Resource, raw: Raw | None) -> Plan:
    current = resource.state(raw) if raw is not None else None
    desired = resource.wanted(raw) if resource.present else None
    return plan(current, desired, broken=raw is not None and resource.broken(raw))


def _agrees(resource: Resource, answer: Raw) -> bool:
    """Whether the resource as Azure answers it needs no further change."""
    return not plan(resource.state(answer), resource.wanted(answer)).changed


def _pause(run: Run, deadline: float, pause: float, otherwise: str, cause: ArmError | None = None) -> float:
    """Sleep `pause` seconds and return the next pause; past `deadline`, raise."""
    left = deadline - time.monotonic()
    if left <= 0:
        if cause is not None:
            raise cause
        raise OperationTimeout(f"{otherwise}.", hint="Run again later, or raise wait_timeout.")
    try:
        run.pace.sleep(min(pause, left))
    except Interrupted as exc:
        raise Interrupted(f"{otherwise}; {exc.message}", hint=exc.hint) from exc
    return min(pause * 2, _LOOK_AT_MOST)
