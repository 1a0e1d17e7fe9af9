# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests does a reconcile make, in which order, and does check mode predict them?"""

from __future__ import annotations

import contextlib
import copy

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _reconcile
from ansible_collections.arcfleet.ssh.plugins.module_utils._claims import Claims
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import (
    ArcError,
    ArmError,
    Interrupted,
    OperationTimeout,
    Unavailable,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._pacing import Pace
from ansible_collections.arcfleet.ssh.plugins.module_utils._reconcile import Outcome, reconcile
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._endpoint import Endpoint
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._extension import Extension
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._provider import Provider
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._service_configuration import ServiceConfiguration

SUB = "11111111-2222-3333-4444-555555555555"
WEB01 = MachineId(SUB, "rg", "web01")
ENDPOINT = f"{WEB01}/providers/Microsoft.HybridConnectivity/endpoints/default"
SSH, WAC = (f"{ENDPOINT}/serviceConfigurations/{name}" for name in ("SSH", "WAC"))
LOGIN = f"{WEB01}/extensions/AADSSHLoginForLinux"
PROVIDER = f"/subscriptions/{SUB}/providers/Microsoft.HybridConnectivity"

CONNECTED = {"id": str(WEB01), "location": "westeurope", "properties": {"status": "Connected"}}
AADSSH = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}


def endpoint(kind="default", state="Succeeded"):
    return {"name": "default", "properties": {"type": kind, "provisioningState": state}}


def service(port=22, name="SSH", state="Succeeded"):
    return {"name": name, "properties": {"serviceName": name, "port": port, "provisioningState": state}}


def extension(name="AADSSHLoginForLinux", version="1.0.2", state="Succeeded", **more):
    properties = {**AADSSH, "typeHandlerVersion": version, "provisioningState": state, **more}
    return {"name": name, "location": "westeurope", "properties": properties}


SLEPT: list[float] = []


def Run(**options):
    """A run in which nobody really sleeps."""
    return _reconcile.Run(pace=Pace(clock=lambda: sum(SLEPT), pause=SLEPT.append), **options)


class World:
    """ARM as a dict; keeps a list of what was asked."""

    def __init__(self, resources):
        self.resources = copy.deepcopy(resources)
        self.asked = []
        self.faults = {}

    def _ask(self, method, path):
        self.asked.append(f"{method} {path.split('/')[-1]}")
        fault = self.faults.get(self.asked[-1])
        if fault:
            error = fault.pop(0)
            if error is not None:
                raise error

    def get(self, path, version, *, query=None, doing):
        self._ask("GET", path)
        found = self.resources.get(path)
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found

    def pages(self, path, version, *, query=None, doing):
        self._ask("LIST", path)
        return iter([found for key, found in self.resources.items() if key.rsplit("/", 1)[0] == path])

    def put(self, path, version, body, *, doing):
        self._ask("PUT", path)
        self.resources[path] = {"name": path.split("/")[-1], **body}
        return self.resources[path]

    def put_and_wait(self, path, version, body, *, doing, timeout):
        return self.put(path, version, body, doing=doing)

    def put_and_leave(self, path, version, body, *, doing):
        self.put(path, version, body, doing=doing)

    def post(self, path, version, body=None, *, query=None, doing):
        self._ask("POST", path)
        return {}

    def delete(self, path, version, *, doing):
        self._ask("DELETE", path)
        self.resources.pop(path, None)

    def delete_and_wait(self, path, version, *, doing, timeout):
        self.delete(path, version, doing=doing)

    @property
    def writes(self):
        return [asked for asked in self.asked if not asked.startswith(("GET", "LIST"))]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes only by sleeping."""
    SLEPT.clear()
    monkeypatch.setattr(_reconcile.time, "monotonic", lambda: sum(SLEPT))


def run_both(resources, describe, **options):
    """The check run and the real run on the same world: their outcomes must be equal, and the check run must not write."""
    outcomes = []
    for check_mode in (True, False):
        world = World(resources)
        outcome = Outcome()
        reconcile(Run(arm=world, check_mode=check_mode, **options), describe(), outcome)
        outcomes.append(outcome)
        if check_mode:
            assert world.writes == []
    assert outcomes[0].steps == outcomes[1].steps
    assert outcomes[0].skip_reason == outcomes[1].skip_reason
    return world, outcomes[1]


@pytest.mark.parametrize(
    ("resources", "options", "asked", "action"),
    [
        ({SSH: service()}, {}, ["GET SSH"], "none"),
        ({SSH: service("22")}, {}, ["GET SSH"], "none"),
        ({SSH: service(2222)}, {"accepted_ports": [2022, 2222]}, ["GET SSH"], "none"),
        ({SSH: service(2223), ENDPOINT: endpoint()}, {"accepted_ports": [2222]}, ["GET SSH", "PUT SSH"], "update"),
        ({SSH: service(2222), ENDPOINT: endpoint()}, {}, ["GET SSH", "PUT SSH"], "update"),
        ({SSH: service(state="Failed"), ENDPOINT: endpoint()}, {}, ["GET SSH", "PUT SSH"], "update"),
        ({ENDPOINT: endpoint()}, {}, ["GET SSH", "GET default", "PUT SSH"], "create"),
        ({}, {}, ["GET SSH", "GET default", "PUT default", "PUT SSH"], "create"),
        ({}, {"manage_endpoint": False}, ["GET SSH", "PUT SSH"], "create"),
        ({ENDPOINT: endpoint("custom")}, {}, ["GET SSH", "GET default", "PUT default", "PUT SSH"], "create"),
        ({}, {"present": False}, ["GET default"], "none"),
        (
            {SSH: service(), ENDPOINT: endpoint()},
            {"present": False},
            ["GET default", "GET SSH", "DELETE SSH", "LIST serviceConfigurations", "DELETE default"],
            "delete",
        ),
        (
            {SSH: service(), WAC: service(6516, "WAC"), ENDPOINT: endpoint()},
            {"present": False},
            ["GET default", "GET SSH", "DELETE SSH", "LIST serviceConfigurations"],
            "delete",
        ),
        (
            {WAC: service(6516, "WAC"), ENDPOINT: endpoint()},
            {"present": False},
            ["GET default", "GET SSH", "LIST serviceConfigurations"],
            "none",
        ),
        (
            {ENDPOINT: endpoint()},
            {"present": False},
            ["GET default", "GET SSH", "LIST serviceConfigurations", "DELETE default"],
            "delete",
        ),
        (
            {SSH: service(), ENDPOINT: endpoint()},
            {"present": False, "manage_endpoint": False},
            ["GET SSH", "DELETE SSH"],
            "delete",
        ),
        ({}, {"present": False, "manage_endpoint": False}, ["GET SSH"], "none"),
    ],
)
def test_service_configuration(resources, options, asked, action):
    world, outcome = run_both({str(WEB01): CONNECTED, **resources}, lambda: ServiceConfiguration(WEB01, **options))
    assert world.asked == asked
    assert outcome.action == action
    again = Outcome()
    world.asked.clear()
    reconcile(Run(arm=world), ServiceConfiguration(WEB01, **options), again)
    assert world.writes == [] and not again.changed


@pytest.mark.parametrize(
    ("resources", "present", "asked", "action"),
    [
        ({ENDPOINT: endpoint()}, True, ["GET default"], "none"),
        ({}, True, ["GET default", "PUT default"], "create"),
        ({ENDPOINT: endpoint(state="Failed")}, True, ["GET default", "PUT default"], "update"),
        ({ENDPOINT: endpoint()}, False, ["GET default", "DELETE default"], "delete"),
        ({}, False, ["GET default"], "none"),
    ],
)
def test_endpoint(resources, present, asked, action):
    world, outcome = run_both({str(WEB01): CONNECTED, **resources}, lambda: Endpoint(WEB01, present=present))
    assert (world.asked, outcome.action) == (asked, action)


def failure_of(resources, describe, **options):
    found = []
    for check_mode in (True, False):
        world = World(resources)
        if not check_mode:
            world.faults["PUT default"] = [ArmError("x", code="ParentResourceNotFound", status=404)]
        with pytest.raises(ArcError) as caught:
            reconcile(Run(arm=world, check_mode=check_mode, **options), describe(), Outcome())
        found.append(caught.value.failure())
    assert found[0] == found[1]
    return found[0]


def test_a_machine_that_is_not_there_fails_alike_in_check_mode():
    failure = failure_of({}, lambda: ServiceConfiguration(WEB01))
    assert failure["code"] == "MachineNotFound"
    assert "web01: there is no such Arc machine in resource group rg" in failure["message"]


def test_check_mode_assumes_the_registration_that_the_run_makes_first():
    world = World({str(WEB01): CONNECTED})
    unregistered = ArmError("web01: cannot read.", code="MissingSubscriptionRegistration", status=409)
    world.faults = {"GET SSH": [unregistered, unregistered], "GET default": [unregistered]}
    outcome = Outcome()
    reconcile(Run(arm=world, check_mode=True), ServiceConfiguration(WEB01), outcome)
    assert outcome.action == "create" and "assumes" in outcome.warnings[0]
    with pytest.raises(ArmError):
        reconcile(Run(arm=world), ServiceConfiguration(WEB01), Outcome())


UNREGISTERED = ArmError("web01: cannot read.", code="MissingSubscriptionRegistration", status=409)


def test_a_missing_registration_is_made_on_the_way_and_waited_for():
    world, registered = World({str(WEB01): CONNECTED}), []
    world.faults = {"GET SSH": [UNREGISTERED, UNREGISTERED, None]}
    run = Run(arm=world, register=lambda run, subscription: registered.append((subscription, list(world.asked))))
    outcome = Outcome()
    reconcile(run, ServiceConfiguration(WEB01), outcome)
    assert registered == [(SUB, ["GET SSH"])]
    assert world.asked[1:3] == ["GET SSH", "GET SSH"] and SLEPT == [2]
    assert world.writes == ["PUT default", "PUT SSH"] and outcome.action == "create"


def test_a_registration_that_would_be_made_is_predicted():
    world, registered = World({str(WEB01): CONNECTED}), []
    world.faults = {"GET SSH": [UNREGISTERED], "GET default": [UNREGISTERED]}
    run = Run(arm=world, check_mode=True, register=lambda run, subscription: registered.append(subscription))
    outcome = Outcome()
    reconcile(run, ServiceConfiguration(WEB01), outcome)
    assert set(registered) == {SUB} and outcome.action == "create" and outcome.warnings == []


def test_what_no_provider_is_registered_for_is_absent():
    for check_mode in (True, False):
        world, outcome = World({}), Outcome()
        world.faults = {"GET default": [UNREGISTERED]}
        reconcile(Run(arm=world, check_mode=check_mode), ServiceConfiguration(WEB01, present=False), outcome)
        assert outcome.action == "none" and world.asked == ["GET default"]


def test_somebody_elses_change_is_waited_for():
    states = [service(state="Updating"), service(state="Updating"), service()]
    world = World({SSH: states})
    reconcile(Run(arm=world), ServiceConfiguration(WEB01), Outcome())
    assert world.asked == ["GET SSH", "GET SSH", "GET SSH"]
    with pytest.raises(OperationTimeout):
        reconcile(
            Run(arm=World({SSH: service(state="Updating")}), wait_timeout=5), ServiceConfiguration(WEB01), Outcome()
        )


def test_an_answer_that_is_not_what_was_asked_is_an_error():
    world = World({ENDPOINT: endpoint()})
    world.put = lambda path, version, body, *, doing: service(23)
    with pytest.raises(ArmError) as caught:
        reconcile(Run(arm=world), ServiceConfiguration(WEB01), Outcome())
    assert caught.value.code == "NotAsAsked"


@pytest.mark.parametrize(
    ("raw", "options", "action", "after"),
    [
        (None, {}, "create", {"type_handler_version": None}),
        (extension(), {}, "none", None),
        (extension(), {"type_handler_version": "1.0"}, "none", None),
        (extension(version="1.10.3"), {"type_handler_version": "1.1"}, "update", {"type_handler_version": "1.1"}),
        (extension(enableAutomaticUpgrade=True), {"type_handler_version": "9.9"}, "none", None),
        (extension(settings={"a": 1}), {"settings": {"a": 2}}, "update", {"settings": {"a": 2}}),
        (extension(settings={"a": 1}), {}, "none", None),
        (extension(settings=None), {"settings": {}}, "none", None),
        (extension(), {"protected_settings": {"key": "hunter2"}}, "none", None),
        (extension(forceUpdateTag="1"), {"force_update_tag": "2"}, "update", {"force_update_tag": "2"}),
        (extension(), {"enable_automatic_upgrade": True}, "update", {"enable_automatic_upgrade": True}),
        (extension(state="Failed"), {"repair": True}, "update", {"type": "AADSSHLoginForLinux"}),
    ],
)
def test_extension(raw, options, action, after):
    resources = {str(WEB01): CONNECTED, **({LOGIN: raw} if raw else {})}
    _world, outcome = run_both(resources, lambda: Extension(WEB01, {**AADSSH, **options}))
    assert outcome.action == action
    assert (after or {}).items() <= (outcome.plan.after or {}).items()
    assert "hunter2" not in str(outcome)


def test_protected_settings_go_with_a_write_and_location_is_the_machines():
    world, _outcome = run_both(
        {str(WEB01): CONNECTED}, lambda: Extension(WEB01, {**AADSSH, "protected_settings": {"key": "hunter2"}})
    )
    written = world.resources[LOGIN]
    assert written["location"] == "westeurope"
    assert written["properties"]["protectedSettings"] == {"key": "hunter2"}
    assert "forceUpdateTag" not in written["properties"]


def test_an_extension_is_found_under_another_name():
    other = f"{WEB01}/extensions/AADSSHLogin"
    resources = {str(WEB01): CONNECTED, other: extension("AADSSHLogin")}
    world, outcome = run_both(resources, lambda: Extension(WEB01, AADSSH))
    assert outcome.action == "none" and outcome.plan.after["name"] == "AADSSHLogin"
    world, outcome = run_both(resources, lambda: Extension(WEB01, AADSSH, present=False))
    assert world.asked == [
        "GET AADSSHLoginForLinux",
        "LIST extensions",
        "GET AADSSHLogin",
        "GET web01",
        "DELETE AADSSHLogin",
    ]


def test_a_name_that_belongs_to_another_extension_is_not_overwritten():
    resources = {str(WEB01): CONNECTED, LOGIN: extension(publisher="Somebody")}
    with pytest.raises(ArmError) as caught:
        reconcile(Run(arm=World(resources)), Extension(WEB01, AADSSH), Outcome())
    assert caught.value.code == "NameTaken"
    world, outcome = run_both(resources, lambda: Extension(WEB01, AADSSH, present=False))
    assert outcome.action == "none" and world.writes == []


def test_a_failed_extension_is_told_with_its_own_words():
    view = {"status": {"message": "exit code 64:\n noexec"}}
    with pytest.raises(ArmError) as caught:
        reconcile(
            Run(arm=World({LOGIN: extension(state="Failed", instanceView=view)})), Extension(WEB01, AADSSH), Outcome()
        )
    assert "is there but failed: exit code 64: noexec" in caught.value.message


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"status": "Disconnected", "lastStatusChange": "2026-11-01"}, "its agent is Disconnected since 2026-11-01"),
        ({"status": "Expired"}, "its agent is Expired"),
        ({"status": "Connected", "agentConfiguration": {"configMode": "monitor"}}, "monitor mode"),
        ({"status": "Connected", "agentConfiguration": {"extensionsEnabled": "false"}}, "extension manager is off"),
    ],
)
def test_an_agent_that_cannot_act(properties, reason):
    machine = {**CONNECTED, "properties": properties}
    for check_mode in (True, False):
        world = World({str(WEB01): machine})
        with pytest.raises(Unavailable) as caught:
            reconcile(Run(arm=world, check_mode=check_mode), Extension(WEB01, AADSSH), Outcome())
        assert reason in caught.value.message and world.writes == []
    world, outcome = run_both({str(WEB01): machine}, lambda: Extension(WEB01, AADSSH), skip_unavailable=True)
    assert outcome.action == "skip" and reason in outcome.skip_reason and world.writes == []
    world, outcome = run_both({str(WEB01): machine, LOGIN: extension()}, lambda: Extension(WEB01, AADSSH))
    assert outcome.action == "none"


def test_not_now_is_tried_again_until_the_time_is_over():
    busy = ArmError("web01: busy.", code="HCRP409", status=409)
    world = World({str(WEB01): CONNECTED})
    world.faults["PUT AADSSHLoginForLinux"] = [busy, busy, None]
    reconcile(Run(arm=world), Extension(WEB01, AADSSH), Outcome())
    assert world.writes == ["PUT AADSSHLoginForLinux"] * 3
    assert sum(SLEPT) == 2 + 4
    world.faults["PUT AADSSHLoginForLinux"] = [busy] * 50
    world.resources.pop(LOGIN)
    with pytest.raises(ArmError) as caught:
        reconcile(Run(arm=world, wait_timeout=60), Extension(WEB01, AADSSH), Outcome())
    assert caught.value is busy


def test_a_provider_is_registered_and_waited_for():
    states = [{"registrationState": state} for state in ("NotRegistered", "Registering", "Registering", "Registered")]
    world = World({PROVIDER: states})
    outcome = Outcome()
    reconcile(Run(arm=world), Provider(SUB, namespace="Microsoft.HybridConnectivity"), outcome)
    assert world.writes == ["POST register"]
    assert outcome.action == "update" and outcome.plan.after["registered"] is True


def test_a_registration_under_way_is_not_asked_for_again():
    world = World({PROVIDER: [{"registrationState": "Registering"}, {"registrationState": "Registered"}]})
    outcome = Outcome()
    reconcile(Run(arm=world), Provider(SUB, namespace="Microsoft.HybridConnectivity"), outcome)
    assert world.writes == [] and outcome.action == "none"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_cannot_be(port):
    with pytest.raises(ArcError) as caught:
        ServiceConfiguration(WEB01, port=port)
    assert "web01" in str(caught.value) and "1 to 65535" in str(caught.value)


def doubt(after=None, retry_after=None):
    """A write that fails without anybody knowing its fate."""
    error = ArmError("web01: cannot allow SSH: Azure answers 500.", code="500", status=500)
    error.uncertain, error.retry_after = True, retry_after
    return error


class Forgetful(World):
    """Carries writes out, and fails all the same: as many times as `lost` says for a kind of write."""

    def __init__(self, resources, lost):
        super().__init__(resources)
        self.lost = lost

    def put(self, path, version, body, *, doing):
        answer = super().put(path, version, body, doing=doing)
        if self.lost:
            self.lost -= 1
            raise doubt()
        return answer


def test_a_write_that_was_carried_out_in_spite_of_its_failure_is_not_repeated():
    world, outcome = Forgetful({ENDPOINT: endpoint()}, 1), Outcome()
    reconcile(Run(arm=world), ServiceConfiguration(WEB01), outcome)
    assert world.asked == ["GET SSH", "GET default", "PUT SSH", "GET SSH"]
    assert outcome.action == "create" and outcome.plan.after["port"] == 22


def test_a_write_that_was_not_carried_out_is_begun_again_after_a_read():
    world = World({ENDPOINT: endpoint()})
    world.faults = {"PUT SSH": [doubt(retry_after=17), doubt()]}
    reconcile(Run(arm=world), ServiceConfiguration(WEB01), Outcome())
    assert world.asked[2:] == ["PUT SSH", "GET SSH", "PUT SSH", "GET SSH", "PUT SSH"]
    assert SLEPT == [17, 2]


def test_a_write_whose_fate_stays_unknown_fails_in_the_end():
    world = World({ENDPOINT: endpoint()})
    world.faults = {"PUT SSH": [doubt() for _time in range(9)]}
    with pytest.raises(ArmError) as caught:
        reconcile(Run(arm=world), ServiceConfiguration(WEB01), Outcome())
    assert caught.value.status == 500 and world.writes == ["PUT SSH"] * 5


def test_a_delete_of_unknown_fate_is_looked_after():
    world = World({ENDPOINT: endpoint(), SSH: service()})
    world.faults = {"DELETE SSH": [doubt()]}
    reconcile(Run(arm=world), ServiceConfiguration(WEB01, present=False), Outcome())
    assert world.writes == ["DELETE SSH", "DELETE SSH", "DELETE default"]
    assert SSH not in world.resources and ENDPOINT not in world.resources


def test_an_operation_that_went_wrong_unseen_is_told_and_not_repeated():
    class Failing(World):
        def put(self, path, version, body, *, doing):
            super().put(path, version, body, doing=doing)
            self.resources[path]["properties"]["provisioningState"] = "Failed"
            raise doubt()

    world = Failing({str(WEB01): CONNECTED})
    with pytest.raises(ArmError) as caught:
        reconcile(Run(arm=world), Extension(WEB01, AADSSH), Outcome())
    assert caught.value.code == "FailedState" and len(world.writes) == 1


def test_waiting_ends_when_the_run_is_stopped():
    world = World({SSH: service(state="Updating")})
    run = Run(arm=world)
    world.faults = {"GET SSH": [None, None]}
    run.pace.stop()
    with pytest.raises(Interrupted) as caught:
        reconcile(run, ServiceConfiguration(WEB01), Outcome())
    assert caught.value.message.startswith("web01: the service configuration for SSH is still being changed")


def test_a_machine_is_claimed_from_the_read_to_the_end_and_not_in_check_mode(tmp_path):
    claims, held = Claims(str(tmp_path / "claims")), []

    @contextlib.contextmanager
    def hold(key, sleep):
        held.append(key)
        assert world.asked == []
        yield
        held.append(len(world.asked))

    claims.hold = hold
    world = World({ENDPOINT: endpoint()})
    reconcile(Run(arm=world, claims=claims), ServiceConfiguration(WEB01), Outcome())
    assert held == [WEB01.key, 3]
    world = World({str(WEB01): CONNECTED})
    reconcile(Run(arm=world, claims=claims, check_mode=True), ServiceConfiguration(WEB01), Outcome())
    assert len(held) == 2
