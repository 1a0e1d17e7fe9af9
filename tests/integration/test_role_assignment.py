# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the modules give, take and tell roles in the lab, as they predict, and is a refusal told in a sentence?"""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._arm import Arm
from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions, TokenSource
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError
from arclab.client import Lab
from on_lab import module

ADMIN = "Virtual Machine Administrator Login"
USER = "Virtual Machine User Login"
LOCAL = "Virtual Machine Local User Login"
GUIDS = {
    ADMIN: "1c0163c0-47e6-4577-8991-ea5c82e286e4",
    USER: "fb879df8-f326-4884-b1cf-06f3ad86be52",
    LOCAL: "602da2ba-a5c2-41da-b01d-5360126ab525",
}
ROOT = "/providers/Microsoft.Management/managementGroups/arc"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    found = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=6)
    # The lab's own principal owns the subscriptions, but nothing above them.
    found.env = found.env_of(found.principal("chief", roles=["Owner"], scope=ROOT))
    yield found
    found.down()


@pytest.fixture(autouse=True)
def clear(lab):
    yield
    lab.clear_faults()


def requests(lab, *methods):
    return [entry for entry in lab.journal(kind="arm") if not methods or entry["method"] in methods]


def writes(lab):
    return requests(lab, "PUT", "DELETE", "POST")


def person(lab, name, **more):
    return lab.principal(name, scope=lab.machines()[0]["id"], **more)["object_id"]


def machine(lab, number=0):
    return lab.machines()[number]["id"]


def subscription(lab):
    return "/".join(machine(lab).split("/")[:3])


def group(lab):
    return "/".join(machine(lab).split("/")[:5])


def scopes(lab):
    return {"management group": ROOT, "machine": machine(lab)}


def put(lab, scope, principal_id, role, name=None, **properties):
    """An assignment that somebody else makes; its GUID."""
    name = name or str(uuid.uuid4())
    body = {
        "roleDefinitionId": f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{GUIDS[role]}",
        "principalId": principal_id,
        **properties,
    }
    path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"
    with mock.patch.dict(os.environ, lab.env):
        arm = Arm(TokenSource(AuthOptions.from_params({"auth_source": "auto"})))
        arm.put(path, "2022-04-01", {"properties": body}, doing="put")
        arm.close()
    return name


def only(result):
    assert len(result["assignments"]) == 1, result
    return next(iter(result["assignments"].values()))


def litany(lab, **params):
    """Check mode, the real run, and a second run; returns the result of the real run."""
    lab.clear_journal()
    predicted = module(lab, "arc_role_assignment", check=True, **params)
    assert not predicted.get("failed"), predicted
    assert writes(lab) == []
    lab.clear_journal()
    done = module(lab, "arc_role_assignment", **params)
    assert not done.get("failed") and done["changed"], done
    for entry in writes(lab):
        assert any(read["path"].lower() == entry["path"].lower() for read in requests(lab, "GET")), entry["path"]
    for key in ("changed", "summary", "assignments", "failures", "diff"):
        assert predicted[key] == done[key], key
    lab.clear_journal()
    again = module(lab, "arc_role_assignment", **params)
    assert not again.get("failed") and not again["changed"] and writes(lab) == [], again
    return done


@pytest.mark.parametrize("where", ["management group", "machine"])
def test_a_role_is_given_and_taken(lab, where):
    somebody, scope = person(lab, f"somebody at {where}"), scopes(lab)[where]
    params = {"role": USER, "principal_id": somebody, "scope": scope}
    done = litany(lab, **params)
    entry = only(done)
    assert entry["action"] == "create" and entry["after"]["role"] == USER and entry["after"]["scope"] == scope
    assert done["diff"]["before"] == {next(iter(done["assignments"])): {"role_assignment": None}}
    assert bool(done.get("warnings")) is (where == "machine")
    # The steady state is one request, and so is one that says it otherwise.
    lab.clear_journal()
    again = module(
        lab, "arc_role_assignment", role=GUIDS[USER].upper(), principal_id=somebody.upper(), scope=scope.upper()
    )
    assert not again["changed"] and len(requests(lab)) == 1, again
    assert only(litany(lab, **params, state="absent"))["action"] == "delete"


@pytest.mark.one_core
def test_the_prediction_of_a_place_that_is_not_there_holds(lab):
    somebody, gone = person(lab, "somebody"), machine(lab) + "-gone"
    for params in ({"check": True}, {}):
        done = module(lab, "arc_role_assignment", role=USER, principal_id=somebody, scope=gone, **params)
        assert done["failed"] and only(done)["failure"]["status"] == 404, done
        assert "web01-gone" in done["msg"]
    done = module(lab, "arc_role_assignment", role=USER, principal_id=somebody, scope=gone, state="absent")
    assert not done.get("failed") and not done["changed"]


@pytest.mark.one_core
def test_what_somebody_else_made_under_another_guid_is_the_same(lab):
    somebody = person(lab, "else")
    name = put(lab, group(lab), somebody, USER)
    params = {"role": USER, "principal_id": somebody, "scope": group(lab)}
    done = module(lab, "arc_role_assignment", **params)
    assert not done["changed"] and only(done)["after"]["id"].endswith(name)
    done = litany(lab, **params, description="why")
    assert only(done)["action"] == "update" and only(done)["after"]["id"].endswith(name)
    assert only(module(lab, "arc_role_assignment", **params, state="absent"))["before"]["id"].endswith(name)


@pytest.mark.one_core
def test_one_that_is_made_while_we_work_is_unchanged(lab):
    """The list was read before somebody else made it: Azure answers 409 and names it."""
    somebody = person(lab, "meanwhile")
    params = {"role": USER, "principal_id": somebody, "scope": group(lab)}
    lab.clear_journal()
    late = lab.faulty(method="GET", path="/roleassignments/", delay_ms=1500, times=1)
    with late, ThreadPoolExecutor(1) as pool:
        job = pool.submit(module, lab, "arc_role_assignment", **params)
        deadline = time.monotonic() + 60
        while not requests(lab, "GET") and time.monotonic() < deadline:
            time.sleep(0.05)
        name = put(lab, group(lab), somebody, USER)
        done = job.result()
    assert [entry["status"] for entry in requests(lab, "PUT")] == [201, 409]
    assert not done.get("failed") and not done["changed"] and only(done)["after"]["id"].endswith(name), done


@pytest.mark.one_core
def test_description_and_condition_change_in_place(lab):
    params = {"role": LOCAL, "principal_id": person(lab, "described"), "scope": group(lab)}
    litany(lab, **params, description="one", condition="@Resource[a:b] StringEquals 'c'")
    lab.clear_journal()
    entry = only(litany(lab, **params, description="two"))
    assert entry["action"] == "update" and entry["after"]["condition"] == "@Resource[a:b] StringEquals 'c'"
    assert not requests(lab, "DELETE")
    entry = only(litany(lab, **params, condition="", description=""))
    assert (entry["after"]["condition"], entry["after"]["description"]) == (None, None)
    module(lab, "arc_role_assignment", **params, state="absent")


@pytest.mark.one_core
def test_what_comes_from_above_is_told_and_does_not_count(lab):
    params = {"role": ADMIN, "principal_id": person(lab, "above")}
    module(lab, "arc_role_assignment", **params, management_group="arc")
    done = module(lab, "arc_role_assignment", **params, scope=group(lab))
    assert only(done)["action"] == "create" and only(done)["inherited_from"] == [ROOT]
    done = module(lab, "arc_role_assignment", **params, scope=group(lab), state="absent")
    assert done["changed"] and ROOT in str(done["warnings"])
    module(lab, "arc_role_assignment", **params, management_group="arc", state="absent")


def test_many_in_one_task_are_read_with_one_request_for_each_scope(lab):
    people = [person(lab, f"many {number}") for number in range(4)]
    fleet = [{"role": role, "principal_id": one} for one in people for role in (ADMIN, USER)]
    done = litany(lab, scope=group(lab), assignments=fleet)
    assert done["summary"]["created"] == 8 and len(requests(lab)) == 1
    done = module(lab, "arc_role_assignment", scope=group(lab), assignments=fleet, state="absent")
    assert done["summary"]["deleted"] == 8


@pytest.mark.one_core
def test_many_machines_are_read_with_the_subscription_and_counted(lab):
    somebody = person(lab, "per machine")
    first = subscription(lab)
    fleet = [{"scope": one["id"]} for one in lab.machines() if one["id"].startswith(first)]
    assert len(fleet) >= 4
    entries = [{**entry, "role": USER, "principal_id": somebody} for entry in fleet]
    litany(lab, assignments=entries)
    assert len(requests(lab)) == 2, "at and above the subscription, and below it"
    again = module(lab, "arc_role_assignment", assignments=entries)
    assert (
        len(again["warnings"]) == 1
        and "4,000" in str(again["warnings"])
        and "of which are taken" in str(again["warnings"])
    )
    module(lab, "arc_role_assignment", assignments=entries, state="absent")


@pytest.mark.one_core
def test_who_may_not_read_the_subscription_reads_the_machines(lab):
    reader = lab.principal("reader of machines", roles=["User Access Administrator"], scope=group(lab))
    somebody = person(lab, "with a reader")
    entries = [
        {"role": USER, "principal_id": somebody, "scope": one["id"]}
        for one in lab.machines()
        if one["id"].startswith(group(lab) + "/")
    ]
    done = module(lab, "arc_role_assignment", assignments=entries, env=lab.env_of(reader))
    assert not done.get("failed") and done["summary"]["created"] == len(entries), done
    module(lab, "arc_role_assignment", assignments=entries, state="absent")


@pytest.mark.one_core
def test_a_custom_role_is_found_by_its_name(lab):
    holder = lab.principal(
        "custom role's holder", data_actions=["Microsoft.HybridCompute/machines/login/action"], scope=subscription(lab)
    )
    name = f"custom role's holder {holder['object_id'][:8]}"
    somebody = person(lab, "custom")
    done = litany(lab, role=name.upper(), principal_id=somebody, scope=subscription(lab))
    assert only(done)["after"]["role"] == name
    for role in ("No Such Role", str(uuid.uuid4())):
        done = module(lab, "arc_role_assignment", check=True, role=role, principal_id=somebody, scope=subscription(lab))
        assert done["failed"] and f"there is no role {role}" in done["msg"], done


@pytest.mark.one_core
def test_refusals_say_what_to_do(lab):
    nobody = str(uuid.uuid4())
    params = {"role": USER, "principal_id": nobody, "scope": group(lab)}
    done = module(lab, "arc_role_assignment", **params)
    assert done["failed"] and only(done)["failure"]["code"] == "PrincipalNotFound" and "principal_type" in done["msg"]
    done = module(lab, "arc_role_assignment", **params, principal_type="Group")
    assert done["changed"] and only(done)["after"]["principal_type"] == "Group"
    module(lab, "arc_role_assignment", **params, state="absent")
    done = module(
        lab, "arc_role_assignment", **{**params, "principal_id": person(lab, "typed")}, principal_type="Group"
    )
    assert only(done)["failure"]["code"] == "UnmatchedPrincipalType" and "principal_type" in done["msg"]
    lab.ask("/setting", role_assignment_limit=1)
    done = module(lab, "arc_role_assignment", **{**params, "principal_id": person(lab, "one too many")})
    lab.ask("/setting", role_assignment_limit=4000)
    assert only(done)["failure"]["code"] == "RoleAssignmentLimitExceeded" and "management group" in done["msg"]
    contributor = lab.principal("contributor", roles=["Contributor"], scope=group(lab))
    done = module(
        lab,
        "arc_role_assignment",
        **{**params, "principal_id": nobody},
        principal_type="User",
        env=lab.env_of(contributor),
    )
    assert "User Access Administrator" in done["msg"] and "roleAssignments/write" in done["msg"]


@pytest.mark.one_core
def test_a_fresh_principal_of_known_type_is_tried_again(lab):
    params = {
        "role": USER,
        "principal_id": person(lab, "fresh"),
        "scope": group(lab),
        "principal_type": "ServicePrincipal",
    }
    fault = {
        "method": "PUT",
        "path": "/roleassignments/",
        "status": 400,
        "code": "PrincipalNotFound",
        "message": "Not yet.",
    }
    with lab.faulty(**fault, times=1):
        done = module(lab, "arc_role_assignment", **params)
    assert done["changed"] and not done.get("failed"), done
    module(lab, "arc_role_assignment", **params, state="absent")
    with lab.faulty(**fault):
        done = module(lab, "arc_role_assignment", **params, wait_timeout=0)
    assert done["failed"] and only(done)["failure"]["code"] == "PrincipalNotFound"


@pytest.mark.one_core
def test_what_cannot_be_is_refused_before_any_request(lab):
    lab.clear_journal()
    twice = [{"role": role, "principal_id": str(uuid.UUID(int=1))} for role in (USER, GUIDS[USER])]
    for params, told in (
        ({"role": USER, "principal_id": "alice@example.com", "scope": ROOT}, "object id"),
        ({"scope": ROOT, "assignments": twice}, "more than once"),
    ):
        done = module(lab, "arc_role_assignment", **params)
        assert done["failed"] and told in done["msg"], done
    assert requests(lab) == []


@pytest.mark.one_core
def test_the_lab_takes_no_assignment_that_azure_would_not(lab):
    first, second = person(lab, "strict one"), person(lab, "strict two")
    name = put(lab, group(lab), first, USER)
    for refused in (
        {"scope": group(lab), "principal_id": second, "role": USER, "name": name},
        {"scope": group(lab), "principal_id": first, "role": ADMIN, "name": name},
        {"scope": subscription(lab), "principal_id": first, "role": USER, "name": name},
    ):
        with pytest.raises(ArmError, match="RoleAssignmentUpdateNotPermitted"):
            put(lab, **refused)
    with pytest.raises(ArmError, match="RoleAssignmentExists") as twice:
        put(lab, group(lab), first, USER)
    assert name.replace("-", "") in str(twice.value)
    with pytest.raises(ArmError, match="conditionVersion"):
        put(lab, machine(lab), first, USER, condition="@Resource[a:b] StringEquals 'c'")
    assert not [
        line
        for line in access(module(lab, "arc_access_info", machines=[machine(lab)]))[machine(lab).lower()]
        if line["condition"]
    ]


def access(result, kind="machines"):
    return {key: entry["access"] for key, entry in result[kind].items()}


def test_the_audit_tells_who_can_log_in_where(lab):
    admin, user, local = (person(lab, f"audited {what}") for what in ("admin", "user", "local"))
    custom = lab.principal(
        "audited custom",
        data_actions=["Microsoft.HybridCompute/machines/log*/action"],
        scope=subscription(lab),
    )["object_id"]
    module(lab, "arc_role_assignment", role=ADMIN, principal_id=admin, management_group="arc")
    module(lab, "arc_role_assignment", role=USER, principal_id=user, scope=group(lab))
    module(lab, "arc_role_assignment", role=LOCAL, principal_id=local, scope=machine(lab))
    fleet = [one["id"] for one in lab.machines()]
    lab.clear_journal()
    done = module(lab, "arc_access_info", machines=fleet)
    assert not done.get("failed") and not done["changed"], done
    subscriptions = {one.split("/")[2] for one in fleet}
    assert len(requests(lab)) == 2 * len(subscriptions) + 1, "two for each subscription, and one for the roles"
    found = access(done)
    assert set(found) == {one.lower() for one in fleet}
    mine = {line["principal_id"]: line for line in found[machine(lab).lower()]}
    assert (mine[admin]["as"], mine[admin]["scope"], mine[admin]["scope_kind"]) == ("admin", ROOT, "management_group")
    assert (mine[user]["as"], mine[user]["role"], mine[user]["relay"]) == ("user", USER, True)
    assert (mine[local]["as"], mine[local]["inherited"], mine[local]["scope_kind"]) == ("local", False, "machine")
    assert (mine[custom]["as"], mine[custom]["relay"]) == ("admin", False)
    elsewhere = next(one for one in fleet if not one.startswith(group(lab) + "/"))
    others = {line["principal_id"] for line in found[elsewhere.lower()]}
    assert admin in others and not {user, local} & others
    owners = [line for line in found[machine(lab).lower()] if line["role"] == "Owner"]
    assert owners and all(line["as"] == "local" for line in owners), (
        "an owner reaches the port, but Entra login lets no owner in"
    )
    done = module(lab, "arc_access_info", scopes=[subscription(lab), ROOT])
    lines = {line["principal_id"]: line for line in access(done, "scopes")[subscription(lab)]}
    assert {admin, user, local, custom} <= set(lines) and lines[admin]["inherited"] and not lines[local]["inherited"]
    assert admin in {line["principal_id"] for line in access(done, "scopes")[ROOT.lower()]}


@pytest.mark.one_core
def test_the_audit_of_one_resource_group_needs_no_right_on_the_subscription(lab):
    reader = lab.principal("auditor", roles=["Reader"], scope=group(lab))
    inside = [one["id"] for one in lab.machines() if one["id"].startswith(group(lab) + "/")]
    outside = next(one["id"] for one in lab.machines() if not one["id"].startswith(group(lab) + "/"))
    done = module(lab, "arc_access_info", machines=[*inside, outside], env=lab.env_of(reader))
    assert done["failed"] and list(done["failures"]) == [outside.lower()], done
    assert "roleAssignments/read" in done["msg"]
    assert any(line["as"] == "local" for line in done["machines"][inside[0].lower()]["access"])
