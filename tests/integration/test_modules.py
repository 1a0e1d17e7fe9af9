# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the modules, through their real `main()`, do in the lab what they predict, once, and say so?"""

from __future__ import annotations

import json
import re

import pytest

from on_lab import module

READS = ("GET",)
AADSSH = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}


def ids(lab):
    return [machine["id"] for machine in lab.machines()]


def arm_requests(lab):
    """What ARM was asked, without logins and metadata."""
    return [entry for entry in lab.journal() if entry["kind"] == "arm"]


def writes(lab):
    return [entry for entry in arm_requests(lab) if entry["method"] not in READS]


def assert_read_before_written(lab):
    """A PUT or DELETE never comes without a GET of the same resource in the same run."""
    seen = set()
    for entry in arm_requests(lab):
        if entry["method"] == "GET":
            seen.add(entry["path"].lower())
        elif entry["method"] in ("PUT", "DELETE"):
            assert entry["path"].lower() in seen, entry["path"]


def litany(lab, name, **params):
    """Check mode, the real run, and a second run; returns the result of the real run."""
    lab.clear_journal()
    predicted = module(lab, name, check=True, **params)
    assert not predicted.get("failed"), predicted
    assert writes(lab) == []
    lab.clear_journal()
    done = module(lab, name, **params)
    assert not done.get("failed"), done
    assert_read_before_written(lab)
    assert done["changed"] and writes(lab)
    for entry in done["machines"].values():
        # When credentials will end is Azure's to say, so no prediction holds it.
        assert entry.pop("credentials", {}).get("expires_on") or name != "arc_relay_credential"
    for key in ("changed", "summary", "machines", "failures", "diff"):
        assert predicted.get(key) == done.get(key), key
    lab.clear_journal()
    again = module(lab, name, **params)
    assert not again.get("failed") and not again["changed"], again
    assert writes(lab) == []
    return done


def test_endpoint_life(start):
    lab = start(machines=3)
    done = litany(lab, "arc_connectivity_endpoint", machines=ids(lab))
    assert done["summary"]["created"] == 3
    assert all(entry["before"] is None and entry["after"] == {"type": "default"} for entry in done["machines"].values())
    done = litany(lab, "arc_connectivity_endpoint", machines=ids(lab), state="absent")
    assert done["summary"]["deleted"] == 3


def test_service_configuration_life(start):
    lab = start(machines=3)
    fleet = ids(lab)
    done = litany(lab, "arc_ssh_service_config", machines=fleet)
    assert done["summary"] == {
        "total": 3,
        "created": 3,
        "updated": 0,
        "deleted": 0,
        "unchanged": 0,
        "skipped": 0,
        "failed": 0,
    }
    entry = done["machines"][fleet[0].lower()]
    assert entry["after"] == {"service_name": "SSH", "port": 22} and entry["endpoint"]["action"] == "create"
    assert done["diff"]["before"][fleet[0].lower()] == {"endpoint": None, "service_configuration": None}
    done = litany(lab, "arc_ssh_service_config", machines=[fleet[0], {"id": fleet[1], "port": 2222}])
    assert done["summary"]["updated"] == 1 and done["machines"][fleet[1].lower()]["before"]["port"] == 22
    litany(lab, "arc_ssh_service_config", machines=fleet[:1], service_name="WAC")
    done = litany(lab, "arc_ssh_service_config", machines=fleet, state="absent")
    assert done["machines"][fleet[0].lower()]["endpoint"]["action"] == "none", "Windows Admin Center still uses it"
    assert done["machines"][fleet[1].lower()]["endpoint"]["action"] == "delete"
    litany(lab, "arc_ssh_service_config", machines=fleet[:1], service_name="WAC", state="absent")


def test_a_port_that_is_accepted_stays_for_one_read(start):
    lab = start(machines=3)
    web01, web02, web03 = ids(lab)
    module(lab, "arc_ssh_service_config", machines=[web01, web02], port=2222)
    fleet = [{"id": web01, "accepted_ports": [2022, 2222]}, web02, {"id": web03, "accepted_ports": ["2222"]}]
    done = litany(lab, "arc_ssh_service_config", machines=fleet)
    assert {key.rsplit("/", 1)[1]: (entry["action"], entry["after"]["port"]) for key, entry in done["machines"].items()} == {
        "web01": ("none", 2222),
        "web02": ("update", 22),
        "db01": ("create", 22),
    }  # fmt: skip
    lab.clear_journal()
    again = module(lab, "arc_ssh_service_config", machines=[web01, web02, web03], accepted_ports=[2222])
    assert not again["changed"] and [entry["method"] for entry in arm_requests(lab)] == ["GET"] * 3


def test_the_steady_state_costs_one_read_a_machine(start):
    lab = start(machines=4)
    module(lab, "arc_ssh_service_config", machines=ids(lab))
    lab.clear_journal()
    module(lab, "arc_ssh_service_config", machines=ids(lab))
    assert [entry["method"] for entry in arm_requests(lab)] == ["GET"] * 4


def test_first_enablement_costs_two_writes_a_machine(start):
    lab = start(machines=4)
    lab.clear_journal()
    module(lab, "arc_ssh_service_config", machines=ids(lab))
    methods = [entry["method"] for entry in arm_requests(lab)]
    assert (methods.count("PUT"), methods.count("GET"), len(methods)) == (8, 8, 16)


OTHER_STYLES = [pytest.param(style, marks=pytest.mark.one_core) for style in ("location", "body")]


@pytest.mark.parametrize("style", ["async", *OTHER_STYLES])
def test_extension_life(start, style):
    lab = start(machines=2, operation_seconds=0.2, lro_style=style)
    fleet = ids(lab)
    protected = {"protected_settings": {"key": "hunter2-protected"}}
    done = litany(lab, "arc_extension", machines=fleet, **AADSSH, type_handler_version="1.0", **protected)
    assert done["summary"]["created"] == 2
    done = litany(
        lab, "arc_extension", machines=fleet, **AADSSH, settings={"a": {"b": [1]}}, force_update_tag="2", **protected
    )
    assert done["summary"]["updated"] == 2
    assert "hunter2" not in json.dumps(done)
    done = litany(lab, "arc_extension", machines=fleet, **AADSSH, state="absent")
    assert done["summary"]["deleted"] == 2


def test_extension_on_a_machine_that_is_away(lab):
    away = next(machine["id"] for machine in lab.machines() if machine["status"] == "Disconnected")
    for check in (True, False):
        result = module(lab, "arc_extension", machines=[away], check=check, **AADSSH)
        assert result["failed"] and re.search(
            r"cannot create the extension .*: its agent is Disconnected since", result["msg"]
        )
        result = module(lab, "arc_extension", machines=[away], unavailable="skip", check=check, **AADSSH)
        assert result["machines"][away.lower()]["action"] == "skip" and not result["changed"]


def test_hcrp409_is_waited_for(start):
    lab = start(machines=1, operation_seconds=0.2)
    message = (
        "An extension of type AADSSHLoginForLinux is still processing. Only one instance of an extension may be in progress "
        "at a time for the same resource. Please retry after sometime."
    )
    lab.fault(kind="arm", method="PUT", path="/extensions/", status=409, code="HCRP409", message=message, times=1)
    done = module(lab, "arc_extension", machines=ids(lab), **AADSSH)
    assert not done.get("failed") and done["summary"]["created"] == 1, done


def test_provider_life(start):
    lab = start(machines=1, unregistered=True, registration_seconds=0.5)
    predicted = module(lab, "arc_resource_provider", check=True)
    lab.clear_journal()
    done = module(lab, "arc_resource_provider")
    assert not done.get("failed"), done
    assert done["subscriptions"] == predicted["subscriptions"] and done["summary"]["updated"] == 1
    assert [entry["action"] for entry in writes(lab)] == ["Microsoft.HybridConnectivity/register/action"]
    lab.clear_journal()
    assert module(lab, "arc_resource_provider")["changed"] is False
    assert writes(lab) == []


def test_nothing_registers_the_provider_by_itself(start):
    lab = start(machines=1, unregistered=True)
    result = module(lab, "arc_ssh_service_config", machines=ids(lab))
    failure = next(iter(result["failures"].values()))["failure"]
    assert result["failed"] and failure["code"] == "MissingSubscriptionRegistration"
    assert "web01" in failure["message"] and "arc_resource_provider" in failure["hint"]
    assert writes(lab) == []


def test_info(lab):
    fleet = lab.machines()
    module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in fleet[1:]])
    result = module(
        lab, "arc_machine_info", machines=[machine["id"] for machine in fleet], gather=["connectivity", "extensions"]
    )
    assert not result.get("failed"), result
    by_name = {entry["name"]: entry for entry in result["machines"].values()}
    assert by_name[fleet[0]["name"]]["obstacles"] == [
        f"{fleet[0]['name']}: it has no connectivity endpoint; run arcfleet.ssh.enable."
    ]
    for machine in fleet[1:]:
        told = " ".join(by_name[machine["name"]]["obstacles"])
        assert ("is Disconnected since" in told) == (machine["status"] == "Disconnected")
        assert ("too old for SSH" in told) == machine["agent_version"].startswith("1.30")
        assert by_name[machine["name"]]["services"] == {"SSH": 22}
    assert not result["changed"] and "before" not in next(iter(result["machines"].values()))


def test_relay_credential_life(start):
    lab = start(machines=2)
    fleet = ids(lab)
    module(lab, "arc_ssh_service_config", machines=fleet)
    done = litany(lab, "arc_relay_credential", machines=fleet)
    assert done["summary"]["created"] == 2
    forced = module(lab, "arc_relay_credential", machines=fleet[:1], force=True)
    assert forced["summary"]["updated"] == 1


def test_relay_credentials_say_why_there_are_none(start):
    lab = start(machines=2)
    fleet = ids(lab)
    module(lab, "arc_connectivity_endpoint", machines=fleet[:1])
    result = module(lab, "arc_relay_credential", machines=fleet)
    told = {key: entry["failure"] for key, entry in result["failures"].items()}
    assert (
        told[fleet[0].lower()]["status"] == 412
        and "service configuration for SSH is missing" in told[fleet[0].lower()]["hint"]
    )
    assert told[fleet[1].lower()]["status"] == 404 and "arcfleet.ssh.enable" in told[fleet[1].lower()]["hint"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machines": []}, "machines is empty"),
        ({"machines": ["web01"]}, "is not the resource id of an Arc machine"),
        ({"port": 0}, "0 is not a port"),
        ({"port": 65536}, "65536 is not a port"),
        ({"port": "http"}, "port"),
        ({"accepted_ports": [22, 65536]}, "65536 is not a port"),
        ({"prot": 22}, "Unsupported parameters"),
        ({"service_name": "RDP"}, "value of service_name must be one of"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"max_fail_percentage": 101}, "max_fail_percentage is 101"),
        ({"resource_group": "arc-prod"}, "mutually exclusive"),
        ({"cloud_environment": "AzureMoon"}, "cloud_environment 'AzureMoon'"),
        ({"auth_source": "credential_file"}, "cannot be read"),
    ],
)
def test_bad_input_is_told_before_any_request(lab, change, said):
    lab.clear_journal()
    result = module(lab, "arc_ssh_service_config", **{"machines": ids(lab), **change})
    assert result["failed"] and said in result["msg"], result
    assert lab.journal() == []


def test_duplicates_and_overrides_are_told_before_any_request(lab):
    first = ids(lab)[0]
    lab.clear_journal()
    for machines, said in (
        ([first, first.upper().replace("/SUBSCRIPTIONS/", "/subscriptions/")], "more than once"),
        ([{"id": first, "port": "ssh"}], "port"),
        ([{"id": first, "state": "absent"}], "state cannot be set for one machine"),
        ([first.replace("HybridCompute/machines", "Compute/virtualMachines")], "Azure VM"),
    ):
        result = module(lab, "arc_ssh_service_config", machines=machines)
        assert result["failed"] and said in result["msg"], result
    assert lab.journal() == []
