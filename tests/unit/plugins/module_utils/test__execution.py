# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests does running a script make, and is the run command deleted whatever happens?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _execution
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import (
    ArcError,
    ArmError,
    ConnectionFailed,
    Interrupted,
    OperationTimeout,
    Unavailable,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._execution import Execution, origin
from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import Target
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._pacing import Pace
from ansible_collections.arcfleet.ssh.plugins.module_utils._reconcile import Outcome, Run

WEB01 = MachineId("11111111-2222-3333-4444-555555555555", "rg", "web01")
OPTIONS = {"script": "exit 0", "timeout": 600, "result": "text"}
MACHINE = {"location": "westeurope", "properties": {"status": "Connected", "agentVersion": "1.48.0.1"}}
LATER = ArmError("web01: busy.", code="HCRP409", status=409)


class World:
    """ARM for one machine: `views` are what the looks at the run command show, one after the other."""

    def __init__(self, *views, machine=None, listed=()):
        self.views, self.machine, self.listed = list(views), machine or MACHINE, listed
        self.asked, self.faults, self.bodies = [], {}, []

    def _ask(self, method, path):
        kind = "machine" if path == str(WEB01) else "list" if path.endswith("runCommands") else "command"
        if kind == "command" and path.rsplit("/", 1)[1] in [one["name"] for one in self.listed]:
            kind = "leftover"
        self.asked.append(f"{method} {kind}")
        faults = self.faults.get(self.asked[-1])
        if faults and (fault := faults.pop(0)) is not None:
            raise fault
        return kind

    def get(self, path, version, *, query=None, doing):
        if self._ask("GET", path) == "machine":
            return self.machine
        return self._view()

    def _view(self):
        return self.views.pop(0) if len(self.views) > 1 else self.views[0]

    def pages(self, path, version, *, query=None, doing):
        self._ask("GET", path)
        return iter(self.listed)

    def put_and_wait(self, path, version, body, *, doing, timeout):
        self.bodies.append(body)
        self._ask("PUT", path)
        return self._view()

    def delete(self, path, version, *, doing):
        self._ask("DELETE", path)


def view(state="Succeeded", provisioning="Succeeded", **more):
    seen = {"executionState": state, "exitCode": 0, **more}
    return {"properties": {"provisioningState": provisioning, "instanceView": seen}}


def uncertain():
    fault = ConnectionFailed("web01: cannot run the script: no answer.")
    fault.uncertain = True
    return fault


SLEPT: list[float] = []


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes only by sleeping."""
    SLEPT.clear()
    monkeypatch.setattr(_execution.time, "monotonic", lambda: sum(SLEPT))


def execute(world, *, outcome=None, pace=None, check_mode=False, skip=False, **options):
    outcome = Outcome() if outcome is None else outcome
    pace = pace or Pace(clock=lambda: sum(SLEPT), pause=SLEPT.append)
    run = Run(arm=world, pace=pace, check_mode=check_mode, skip_unavailable=skip)
    Execution().work(run, Target(WEB01.key, "web01", {**OPTIONS, **options}, WEB01), outcome)
    return outcome


USUAL = ["GET machine", "GET list", "PUT command", "DELETE command"]


def test_the_usual_run():
    world = World(view(output="done\n"))
    outcome = execute(world)
    assert world.asked == USUAL and outcome.action == "create" and outcome.changed
    assert outcome.details["output"] == "done\n" and outcome.details["execution_state"] == "succeeded"


def test_every_run_has_a_name_of_its_own(monkeypatch):
    names = set()
    world = World(view())
    monkeypatch.setattr(world, "delete", lambda path, version, *, doing: names.add(path.rsplit("/", 1)[1]))
    for _time in range(3):
        execute(world)
    assert len(names) == 3 and all(name.startswith(f"arcfleet-{origin()}-") and len(name) <= 36 for name in names)


def test_check_mode_only_looks_whether_the_agent_can():
    world = World(view())
    outcome = execute(world, check_mode=True)
    assert world.asked == ["GET machine"] and outcome.action == "create"


@pytest.mark.parametrize("check_mode", [True, False])
def test_an_agent_that_cannot(check_mode):
    old = {**MACHINE, "properties": {"status": "Connected", "agentVersion": "1.30.0.1"}}
    world = World(view(), machine=old)
    with pytest.raises(Unavailable, match=r"web01: cannot run the script: its agent 1\.30\.0\.1 knows no run commands"):
        execute(world, check_mode=check_mode)
    outcome = execute(world, check_mode=check_mode, skip=True)
    assert outcome.action == "skip" and not outcome.changed and world.asked == ["GET machine"] * 2


def test_provisioning_may_be_over_before_the_script():
    world = World(view("Pending"), view("Running"), view("Succeeded"))
    execute(world)
    assert world.asked == [*USUAL[:3], "GET command", "GET command", "DELETE command"] and SLEPT == [2, 4]


def test_a_script_whose_end_nobody_tells():
    world = World(view("Running"))
    with pytest.raises(OperationTimeout, match="did not say how the script ended within 60 s"):
        execute(world, timeout=60)
    assert sum(SLEPT) == pytest.approx(360) and world.asked[-1] == "DELETE command"


def test_the_poller_gives_up():
    world = World(view())
    world.faults["PUT command"] = [OperationTimeout("web01: the operation did not end.")]
    with pytest.raises(OperationTimeout, match="did not say how the script ended"):
        execute(world)
    assert world.asked[-1] == "DELETE command"


def test_a_request_that_arrived_is_not_made_again():
    world = World(view("Running"), view())
    world.faults["PUT command"] = [uncertain()]
    execute(world)
    assert world.asked == [*USUAL[:3], "GET command", "GET command", "DELETE command"]


def test_a_request_that_did_not_arrive_is_made_again_and_the_same():
    world = World(None, view())
    world.faults["PUT command"] = [uncertain()]
    execute(world)
    assert world.asked == [*USUAL[:3], "GET command", "PUT command", "DELETE command"]
    assert world.bodies[0] == world.bodies[1]


def test_a_request_that_never_arrives():
    world = World(None)
    world.faults["PUT command"] = [uncertain() for _time in range(9)]
    with pytest.raises(ConnectionFailed):
        execute(world)
    assert world.asked.count("PUT command") == 5 and world.asked[-1] == "DELETE command"


def test_an_agent_that_is_busy():
    world = World(None, None, view())
    world.faults["PUT command"] = [LATER, LATER]
    execute(world)
    assert world.asked.count("PUT command") == 3 and SLEPT == [2, 4]


def test_a_refusal_is_told_at_once():
    world = World(view())
    world.faults["PUT command"] = [ArmError("web01: no.", code="AuthorizationFailed", status=403)]
    with pytest.raises(ArmError, match=r"web01: no\."):
        execute(world)
    # There is nothing to delete, and no right to.
    assert world.asked == USUAL[:3]


def test_what_is_there_after_all_is_not_started_once_more():
    # Nothing to be seen after the first request, which arrived late: the second one meets it.
    world = World(None, view("Running", "Creating"), view())
    world.faults["PUT command"] = [uncertain(), LATER]
    execute(world)
    assert world.asked.count("PUT command") == 2 and world.asked[-3:] == [
        "GET command",
        "GET command",
        "DELETE command",
    ]
    # The same, and the script has ended meanwhile.
    world = World(None, view())
    world.faults["PUT command"] = [uncertain(), LATER]
    execute(world)
    assert world.asked.count("PUT command") == 2
    # Azure gave up on it because the agent was busy: it never ran.
    world = World(view("Pending", "Failed", exitCode=None), view())
    world.faults["PUT command"] = [ArmError("web01: busy.", code="HCRP409", status=200)]
    execute(world)
    assert world.asked.count("PUT command") == 2 and SLEPT[-1] == 2


def test_a_script_that_took_too_long_says_so_even_where_the_operation_failed_by_it():
    world = World(view("TimedOut", "Failed", exitCode=None, output="begun\n"))
    world.faults["PUT command"] = [ArmError("web01: X.", code="X", status=200)]
    outcome = Outcome()
    with pytest.raises(ArcError, match="did not end within 600 s, and was stopped: begun"):
        execute(world, outcome=outcome)
    assert outcome.details["output"] == "begun\n"


def test_a_failed_operation_tells_what_the_script_said():
    world = World(view("Failed", "Failed", exitCode=4, error="no space\n"))
    world.faults["PUT command"] = [ArmError("web01: VMExtensionHandlerNonTransientError.", code="X", status=200)]
    outcome = Outcome()
    with pytest.raises(ArcError, match="exit code 4: no space"):
        execute(world, outcome=outcome)
    assert outcome.details["exit_code"] == 4 and outcome.changed and world.asked[-1] == "DELETE command"
    world = World(view("Failed", "Failed", exitCode=None))
    world.faults["PUT command"] = [ArmError("web01: the handler is broken.", code="X", status=200)]
    with pytest.raises(ArmError, match="handler is broken"):
        execute(world)


def test_somebody_deletes_the_run_command():
    with pytest.raises(ArcError, match="somebody has deleted"):
        execute(World(view("Running"), None))


@pytest.mark.parametrize(
    ("output", "exit_code", "changed", "problem"),
    [
        ('{"changed":false}', 0, False, None),
        ('{"changed":true}', 0, True, None),
        ("{}", 0, True, None),
        ('{"changed":false,"problem":"no network"}', 1, False, "web01: no network"),
        ('{"changed":true,"problem":"half done"}', 0, True, "web01: half done"),
        ('{"changed":false}', 2, False, "exit code 2"),
        ("text", 0, True, "not a JSON object"),
        ("text", 1, True, "exit code 1: text"),
    ],
)
def test_what_the_json_says(output, exit_code, changed, problem):
    world = World(view("Failed" if exit_code else "Succeeded", exitCode=exit_code, output=output))
    outcome = Outcome()
    if problem is None:
        execute(world, outcome=outcome, result="json")
    else:
        with pytest.raises(ArcError, match=problem):
            execute(world, outcome=outcome, result="json")
    assert outcome.changed is changed and outcome.details["output"] == output
    assert ("json" in outcome.details) is output.startswith("{")


def left(name, state="Succeeded"):
    return {"name": name, **view(state)}


def test_leftovers_are_removed_first():
    world = World(view(), listed=[left(f"arcfleet-{origin()}-1"), left("customers")])
    execute(world)
    assert world.asked == ["GET machine", "GET list", "DELETE leftover", "PUT command", "DELETE command"]


def test_what_cannot_be_tidied_up_is_a_warning():
    world = World(view(), listed=[left(f"arcfleet-{origin()}-1")])
    world.faults = {
        "DELETE leftover": [ArmError("web01: cannot delete.", code="ScopeLocked", status=409)],
        "DELETE command": [ArmError("web01: cannot delete.", code="ScopeLocked", status=409)],
    }
    outcome = execute(world)
    assert len(outcome.warnings) == 2 and outcome.changed
    assert "an earlier run has left" in outcome.warnings[0] and "could not be deleted" in outcome.warnings[1]


def test_an_interrupted_run_deletes_its_run_command(monkeypatch):
    pace = Pace(clock=lambda: sum(SLEPT), pause=lambda seconds: pace.stop())
    world, farewell = World(view("Running")), World(view())
    monkeypatch.setattr(_execution.Farewell, "arm", lambda self, params: farewell)
    with pytest.raises(Interrupted, match="the script was stopped"):
        execute(world, pace=pace)
    assert "DELETE command" not in world.asked and farewell.asked == ["DELETE command"]


def test_an_interruption_while_deleting(monkeypatch):
    world, farewell = World(view()), World(view())
    world.faults["DELETE command"] = [Interrupted("web01: the run was interrupted.")]
    monkeypatch.setattr(_execution.Farewell, "arm", lambda self, params: farewell)
    assert not execute(world).warnings and farewell.asked == ["DELETE command"]
