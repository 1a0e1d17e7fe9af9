# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of running a script on this machine?

A run command is a resource that is made, read and deleted again within one run, whatever happens in between. Its name is drawn by
the run, so that looking at it tells whether a request of unknown fate was carried out. What killed runs have left behind is removed
on the way. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ._arm import Arm
from ._auth import AuthOptions, TokenSource
from ._claims import default_path
from ._errors import ArcError, ArmError, Interrupted, OperationTimeout, Unavailable
from ._fleet import Target, machine_of
from ._plan import CREATE, NONE, Plan
from ._reconcile import Outcome, Run, read_machine
from ._resources._base import Raw
from ._resources._run_command import Result, RunCommand, check, is_leftover, json_of, obstacle, result

# Seconds that Azure and the agent may take besides the script itself.
_ON_THE_WAY = 300.0

# Seconds between looks at a script that runs; they double up to the second number.
_LOOK, _LOOK_AT_MOST = 2.0, 30.0

# ARM error codes that say "not now": the agent handles one thing at a time.
NOT_NOW = frozenset(("HCRP409", "AnotherOperationInProgress", "Conflict"))

# How often a request is made whose fate stays unknown.
_WRITES = 5


class Execution:
    """The work of one run of the module, with one script for all machines."""

    def __init__(self) -> None:
        self._origin = origin()
        self._farewell = Farewell()

    def check(self, target: Target) -> None:
        """Raises InputError for options that cannot be."""
        check(target.name, target.options)

    def work(self, run: Run, target: Target, outcome: Outcome) -> None:
        """Run the script on the machine, and note in `outcome` how it ended. Raises ArcError where it did not end well."""
        machine = machine_of(target)
        command = RunCommand(machine, target.options, self._origin, secrets.token_hex(8))
        outcome.asked = command.slug
        record = self._able(run, command, outcome)
        if outcome.skip_reason is not None:
            return
        if run.check_mode:
            outcome.steps[command.slug] = Plan(CREATE, None, command.state())
            return
        with _claim(run, command):
            self._remove_leftovers(run, command, outcome)
            ended = self._execute(run, command, record, outcome)
        _note(command, ended, outcome)

    def _able(self, run: Run, command: RunCommand, outcome: Outcome) -> Raw:
        """The machine's record; `outcome` or an error says when its agent cannot run a script."""
        machine = read_machine(run, command.machine)
        why = obstacle(machine)
        if why and run.skip_unavailable:
            outcome.skip_reason = why
        elif why:
            raise Unavailable(
                f"{command.machine.name}: cannot run the script: {why}.",
                code="MachineUnavailable",
                hint="Set unavailable: skip to leave such machines out.",
            )
        return machine

    def _remove_leftovers(self, run: Run, command: RunCommand, outcome: Outcome) -> None:
        doing = f"{command.machine.name}: cannot list the run commands"
        now = time.time()
        for listed in list(run.arm.pages(command.collection, command.api_version, doing=doing)):
            if is_leftover(listed, self._origin, now):
                name = listed["name"]
                doing = f"{command.machine.name}: cannot delete the run command {name}"
                with _told(outcome, f"{command.machine.name}: an earlier run has left a run command behind"):
                    run.arm.delete(f"{command.collection}/{name}", command.api_version, doing=doing)

    def _execute(self, run: Run, command: RunCommand, machine: Raw, outcome: Outcome) -> Result:
        timeout = float(command.options["timeout"])
        deadline = time.monotonic() + timeout + _ON_THE_WAY
        made = True
        try:
            return _ended(run, command, _begun(run, command, machine, deadline), deadline)
        except Interrupted as exc:
            # Deleting the run command stops the script.
            raise Interrupted(f"{command.machine.name}: the script was stopped: {exc.message}", hint=exc.hint) from exc
        except ArmError as exc:
            made = exc.status != 403
            raise
        finally:
            # Who may not make one may not delete one, and a warning about that would be about nothing.
            if made:
                with _told(outcome, f"{command.machine.name}: the run command {command.name} could not be deleted"):
                    self._delete(run, command)

    def _delete(self, run: Run, command: RunCommand) -> None:
        """Delete the run command, even where the run was told to begin nothing new: this ends something."""
        doing = f"{command.machine.name}: cannot delete the run command"
        arm = run.arm
        if run.pace.stopped:
            arm = self._farewell.arm(command.options)
        try:
            arm.delete(command.path, command.api_version, doing=doing)
        except Interrupted:
            self._farewell.arm(command.options).delete(command.path, command.api_version, doing=doing)


def _claim(run: Run, command: RunCommand) -> contextlib.AbstractContextManager[None]:
    if run.claims is None:
        return contextlib.nullcontext()
    # Not the machine itself: scripts may take long, and nothing else in Azure has to wait for them.
    return run.claims.hold(f"{command.machine.key}/runcommands", run.pace.sleep)


class Farewell:
    """A way to Azure with a pace of its own, for what has to be tidied up when the run was stopped. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arm: Arm | None = None

    def arm(self, params: Mapping[str, Any]) -> Arm:
        """ARM, logged in by the module's options."""
        with self._lock:
            if self._arm is None:
                self._arm = Arm(TokenSource(AuthOptions.from_params(params)))
            return self._arm


def origin() -> str:
    """The controller and user that this run belongs to, as 8 hexadecimal digits: those whose runs heed each other's claims."""
    boot = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
        boot = handle.read().strip()
    known = "\n".join((boot, socket.gethostname(), str(os.getuid()), default_path()))
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _begun(run: Run, command: RunCommand, machine: Raw, deadline: float) -> Raw:
    """The record once Azure has carried out the request; made again only where a look shows that it did not arrive."""
    doing = f"{command.machine.name}: cannot run the script"
    body, pause, unknown = command.body(machine), _LOOK, 0
    while True:
        left = max(1.0, deadline - time.monotonic())
        try:
            return run.arm.put_and_wait(command.path, command.api_version, body, doing=doing, timeout=left)
        except OperationTimeout:
            raise _too_late(command) from None
        except ArcError as exc:
            unknown += exc.uncertain
            failed = isinstance(exc, ArmError) and (exc.status or 0) < 400
            not_now = isinstance(exc, ArmError) and exc.code in NOT_NOW and left > pause
            if not (failed or not_now or (exc.uncertain and unknown < _WRITES)):
                raise
            if not_now or not failed:
                run.pace.sleep(max(exc.retry_after or 0.0, pause))
                pause = min(pause * 2, _LOOK_AT_MOST)
            raw = run.arm.get(command.path, command.api_version, doing=doing)
            if raw is not None and _is_ours(raw, exc, failed=failed):
                return raw
            if failed and not not_now:
                raise


def _is_ours(raw: Raw, doubt: ArcError, *, failed: bool) -> bool:
    """Whether this record tells what becomes of the script, though the request ended with `doubt`.

    Nobody else has its name, so what is there is what was asked for. `failed`: the operation was begun and failed in Azure.
    """
    told = result(raw)
    if told is None:
        # A script that may be running must not be started once more.
        return not failed
    # Else it is Azure that gave up, and not the machine that tells how the script ended.
    return doubt.uncertain or told.exit_code is not None or told.state == "timedout"


def _ended(run: Run, command: RunCommand, raw: Raw, deadline: float) -> Result:
    """How the script ended; provisioning may be over before that is known."""
    pause = _LOOK
    while True:
        found = result(raw)
        if found is not None:
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise _too_late(command)
        run.pace.sleep(min(pause, left))
        pause = min(pause * 2, _LOOK_AT_MOST)
        doing = f"{command.machine.name}: cannot read how the script ended"
        answer = run.arm.get(command.path, command.api_version, doing=doing)
        if answer is None:
            raise ArcError(
                f"{doing}: somebody has deleted the run command.",
                code="RunCommandGone",
                hint="Whatever deletes run commands on this machine stops scripts that still run.",
            )
        raw = answer


def _too_late(command: RunCommand) -> OperationTimeout:
    return OperationTimeout(
        f"{command.machine.name}: the machine did not say how the script ended within {command.options['timeout']} s and five "
        "minutes more, so it was stopped.",
        hint="Look whether the machine's agent is still connected, or raise timeout.",
    )


def _note(command: RunCommand, ended: Result, outcome: Outcome) -> None:
    """Tell how the script ended, and whether it changed anything by its own word where it has one."""
    owner = command.machine.name
    outcome.details.update(ended.details())
    changed, problem = True, None
    if command.options["result"] == "json" and (ended.succeeded or ended.state == "failed"):
        try:
            told = json_of(owner, ended)
        except ArcError:
            if ended.succeeded:
                outcome.steps[command.slug] = Plan(CREATE, None, command.state())
                raise
        else:
            outcome.details["json"] = told
            changed, problem = bool(told.get("changed", True)), told.get("problem")
    # A run command is gone when it is read here: what is shown as made is the run of the script.
    outcome.steps[command.slug] = Plan(CREATE, None, command.state()) if changed else Plan(NONE, None, None)
    if problem:
        raise ArcError(f"{owner}: {' '.join(str(problem).split())[:500]}", code="ScriptFailed")
    if not ended.succeeded:
        raise ended.failure(owner, float(command.options["timeout"]))


@contextlib.contextmanager
def _told(outcome: Outcome, what: str) -> Iterator[None]:
    """What goes wrong with tidying up is a warning: the script's own fate counts."""
    try:
        yield
    except ArcError as exc:
        outcome.warnings.append(f"{what}: {exc.message} The next run on this machine removes it.")
