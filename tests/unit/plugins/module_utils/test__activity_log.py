# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is every write of the activity log told once, and everything that cannot be understood an error?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _activity_log
from ansible_collections.arcfleet.ssh.plugins.module_utils._activity_log import UnreadableLog, events, machine_of_event

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
MACHINE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/Prod/providers/Microsoft.HybridCompute/machines/Web01"
ENDPOINT = f"{MACHINE}/providers/Microsoft.HybridConnectivity/endpoints/default"
SINCE = datetime(2026, 11, 21, 10, 0, 0, 250000, tzinfo=UTC)
UNTIL = datetime(2026, 11, 21, 13, 0, tzinfo=timezone(timedelta(hours=1)))


class Arm:
    """An ARM that answers with one list of events for each provider."""

    def __init__(self, connectivity=(), compute=()):
        self.answers = {"Microsoft.HybridConnectivity": connectivity, "Microsoft.HybridCompute": compute}
        self.asked = []

    def pages(self, path, api_version, *, query, doing):
        self.asked.append((path, api_version, query))
        return iter(self.answers[query["$filter"].split("'")[-2]])


def event(**more):
    return {
        "eventDataId": "e1",
        "eventTimestamp": "2026-11-21T11:22:33.1234567Z",
        "operationName": {"value": "Microsoft.HybridConnectivity/endpoints/write", "localizedValue": "Update endpoint"},
        "resourceId": ENDPOINT,
        "status": {"value": "Succeeded", "localizedValue": "Succeeded"},
        **more,
    }


def named(operation):
    return {"operationName": {"value": operation, "localizedValue": "whatever"}}


def read(arm):
    return list(events(arm, SUBSCRIPTION, SINCE, UNTIL))


def test_two_requests_in_the_one_form_that_is_allowed():
    arm = Arm()
    assert read(arm) == []
    for (path, version, query), provider in zip(arm.asked, ("HybridConnectivity", "HybridCompute"), strict=True):
        assert path == f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Insights/eventtypes/management/values"
        assert version == "2015-04-01"
        assert query["$filter"] == (
            "eventTimestamp ge '2026-11-21T10:00:00.250000Z' and eventTimestamp le '2026-11-21T12:00:00.000000Z' "
            f"and resourceProvider eq 'Microsoft.{provider}'"
        )
        assert query["$select"].split(",") == [
            "eventDataId",
            "eventTimestamp",
            "operationName",
            "resourceId",
            "status",
        ]
    assert len(arm.asked) == 2


def test_an_event_is_told_as_it_is():
    (told,) = read(Arm([event()]))
    assert (told.event_id, told.resource_id, told.status) == ("e1", ENDPOINT, "Succeeded")
    assert told.operation == "Microsoft.HybridConnectivity/endpoints/write"
    assert told.timestamp == datetime(2026, 11, 21, 11, 22, 33, 123457, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-21T11:22:33Z", 0),
        ("2026-11-21T11:22:33.5Z", 500000),
        ("2026-11-21T11:22:33.0000001Z", 1),
        ("2026-11-21T11:22:33.1234560Z", 123456),
        ("2026-11-21T11:22:33.9999999Z", 1000000),
    ],
)
def test_a_time_is_never_told_earlier_than_it_was(text, microseconds):
    (told,) = read(Arm([event(eventTimestamp=text)]))
    assert told.timestamp == datetime(2026, 11, 21, 11, 22, 33, tzinfo=UTC) + timedelta(microseconds=microseconds)


def test_only_writes_deletions_and_unregistering_count_and_each_event_once():
    connectivity = [
        event(eventDataId="1", **named("Microsoft.HybridConnectivity/endpoints/listCredentials/action")),
        event(eventDataId="2", **named("MICROSOFT.HYBRIDCONNECTIVITY/ENDPOINTS/DELETE")),
        event(eventDataId="3", status={"value": "Failed"}),
        event(eventDataId="4", **named("Microsoft.HybridConnectivity/register/action")),
        event(
            eventDataId="5",
            resourceId=f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.HybridConnectivity",
            **named("Microsoft.HybridConnectivity/unregister/action"),
        ),
        event(eventDataId="3", status={"value": "Failed"}),
    ]
    compute = [
        event(eventDataId="2"),
        event(
            eventDataId="6",
            resourceId=f"{MACHINE}/extensions/X",
            **named("Microsoft.HybridCompute/machines/extensions/write"),
        ),
    ]
    assert [told.event_id for told in read(Arm(connectivity, compute))] == ["2", "3", "5", "6"]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        event(operationName=None),
        event(operationName={"localizedValue": "Update"}),
        event(eventDataId=None),
        event(eventDataId=""),
        event(status=None),
        event(resourceId=None),
        event(resourceId=7),
        event(resourceId="Web01"),
        event(resourceId=f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.HybridConnectivity/endpoints/default"),
        event(resourceId=SUBSCRIPTION, **named("Microsoft.HybridCompute/machines/extensions/delete")),
        event(eventTimestamp=None),
        event(eventTimestamp="2026-11-21T11:22:33.12345678Z"),
        event(eventTimestamp="2026-11-21T11:22:33+01:00"),
        event(eventTimestamp="2026-13-21T11:22:33Z"),
        event(eventTimestamp="11/21/2026 11:22:33"),
    ],
)
def test_what_cannot_be_understood_is_an_error_that_names_the_log(broken):
    with pytest.raises(UnreadableLog, match=f"activity log of subscription {SUBSCRIPTION}"):
        read(Arm([], [event(eventDataId="fine"), broken]))


def test_what_writes_nothing_may_look_as_it_likes():
    assert read(Arm([{"operationName": "Microsoft.HybridConnectivity/endpoints/listCredentials/action"}])) == []


@pytest.mark.parametrize(
    "resource_id",
    [
        (
            "/subscriptions/{s}/resourceGroups/G/providers/Microsoft.AzureStackHCI/virtualMachines/V"
            "/providers/Microsoft.HybridConnectivity/endpoints/default"
        ),
        "{machine}/providers/microsoft.hybridconnectivity/ENDPOINTS/default/serviceconfigurations/SSH",
    ],
)
def test_endpoints_of_whatever_kind_of_machine_are_understood(resource_id):
    (told,) = read(Arm([event(resourceId=resource_id.format(s=SUBSCRIPTION, machine=MACHINE))]))
    assert (machine_of_event(told.resource_id) is None) == ("AzureStackHCI" in resource_id)


@pytest.mark.parametrize(
    "below",
    [
        "",
        "/",
        "/extensions/AADSSHLoginForLinux",
        "/providers/Microsoft.HybridConnectivity/endpoints/default/serviceConfigurations/SSH",
        "/providers/Microsoft.Authorization/roleAssignments/1",
    ],
)
def test_whatever_hangs_on_a_machine_belongs_to_it(below):
    assert machine_of_event(MACHINE.upper() + below) == MACHINE.lower()


@pytest.mark.parametrize(
    "resource_id",
    [
        "",
        "/",
        f"/subscriptions/{SUBSCRIPTION}",
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.HybridConnectivity",
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.HybridCompute/licenses/l",
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.HybridCompute/machines",
        "/subscriptions/nobody/resourceGroups/g/providers/Microsoft.HybridCompute/machines/m",
    ],
)
def test_what_belongs_to_no_machine_has_none(resource_id):
    assert machine_of_event(resource_id) is None


def test_all_that_is_asked_for_can_be_selected():
    assert set(_activity_log._SELECT.split(",")) == set(event())
