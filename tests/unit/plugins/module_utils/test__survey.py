# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is Resource Graph believed only where being late does no harm?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _survey
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, ArmError, Interrupted
from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import machine_targets
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._reconcile import Outcome, Run
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._extension import Extension
from ansible_collections.arcfleet.ssh.plugins.module_utils._survey import Listing, as_wanted, survey

WEB01 = MachineId("11111111-2222-3333-4444-555555555555", "rg", "web01")
AADSSH = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}


def record(status="Connected", version="1.50.0", **more):
    return {"id": str(WEB01), "name": "web01", "properties": {"status": status, "agentVersion": version}, **more}


def extension(state="Succeeded", **more):
    return {
        "name": "other-name",
        "properties": {**AADSSH, "typeHandlerVersion": "1.0.3", "provisioningState": state, **more},
    }


class Arm:
    """ARM, which knows one machine; keeps what it was asked."""

    def __init__(self, machine):
        self.machine = machine
        self.asked = []

    def get(self, path, version, *, doing):
        self.asked.append(path)
        return self.machine

    def pages(self, path, version, *, doing):
        self.asked.append(path)
        return iter([extension()])


def look(arm, listed, gather=()):
    (target,) = machine_targets({"machines": [str(WEB01)], "gather": list(gather), "source": "resource_graph"})
    outcome = Outcome()
    survey(Run(arm=arm), target, outcome, listed)
    return outcome.details


def test_a_machine_that_is_shown_without_an_obstacle_costs_no_request():
    arm = Arm(record())
    details = look(arm, record(resources=[extension()]), ["extensions"])
    assert arm.asked == [] and details["obstacles"] == [] and details["source"] == "resource_graph"
    assert [entry["version"] for entry in details["extensions"]] == ["1.0.3"]


@pytest.mark.parametrize("listed", [None, record("Disconnected"), record(version="1.30.1")])
def test_an_obstacle_is_looked_at_again(listed):
    arm = Arm(record())
    details = look(arm, listed)
    assert arm.asked == [str(WEB01)] and details["obstacles"] == [] and details["source"] == "arm"
    assert details["status"] == "Connected" and details["agent_version"] == "1.50.0"
    assert "is Disconnected" in look(Arm(record("Disconnected")), listed)["obstacles"][0]


def test_extensions_of_a_machine_that_is_not_shown_are_listed_by_arm():
    arm = Arm(record())
    assert len(look(arm, None, ["extensions"])["extensions"]) == 1
    assert arm.asked == [str(WEB01), f"{WEB01}/extensions"]


@pytest.mark.parametrize(
    ("listed", "options", "believed"),
    [
        ([extension()], {}, True),
        ([extension()], {"type_handler_version": "1.0"}, True),
        ([extension(settings={"a": 1})], {"settings": {"a": 1}}, True),
        ([extension(settings={"a": 1})], {"settings": {"a": 2}}, False),
        ([extension()], {"settings": {"a": 1}}, False),
        ([extension()], {"type_handler_version": "1.1"}, False),
        ([extension()], {"force_update_tag": "2"}, False),
        ([extension("Failed")], {}, False),
        ([extension("Updating")], {}, False),
        ([extension(type="AADLoginForWindows")], {}, False),
        ([], {}, False),
    ],
)
def test_an_extension_is_believed_to_be_there_exactly_as_wanted_only(listed, options, believed):
    step = as_wanted(Extension(WEB01, {**AADSSH, **options}), record(resources=listed))
    assert (step is not None) == believed
    if step is not None:
        assert not step.changed and step.before == step.after and step.before["name"] == "other-name"


def test_absence_is_never_believed():
    gone = Extension(WEB01, AADSSH, present=False)
    assert as_wanted(gone, record(resources=[])) is None
    assert as_wanted(gone, record(resources=[extension()])) is None
    assert as_wanted(Extension(WEB01, AADSSH), None) is None


def read(monkeypatch, source, answer):
    def machines(arm, wanted, *, extensions):
        if isinstance(answer, Exception):
            raise answer
        return {machine.key: answer for machine in wanted}

    monkeypatch.setattr(_survey._graph, "machines", machines)
    targets = machine_targets({"machines": [str(WEB01)], "source": source})
    listing, outcome = Listing(), Outcome()
    listing.read(Run(arm=None), targets, extensions=True)
    return listing.of(targets[0], outcome), outcome.warnings


def test_the_listing_is_read_where_it_is_asked_for(monkeypatch):
    assert read(monkeypatch, "resource_graph", {"id": "x"}) == ({"id": "x"}, [])
    assert read(monkeypatch, "arm", AssertionError("not asked for")) == (None, [])


@pytest.mark.parametrize(
    "error", [ArcError("It is too long."), ArmError("It is too long.", status=400, code="BadRequest")]
)
def test_what_resource_graph_refuses_arm_can_answer(monkeypatch, error):
    known, warnings = read(monkeypatch, "resource_graph", error)
    assert known is None and warnings == ["It is too long. Every machine was read from ARM instead."]


def test_an_interrupted_run_goes_no_other_way(monkeypatch):
    with pytest.raises(Interrupted):
        read(monkeypatch, "resource_graph", Interrupted("stopped."))
