# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a fleet waited for once, are its facts read in pages, and does everybody go on who can?"""

from __future__ import annotations

import json
import pathlib
import re
from collections import Counter

import pytest

from on_lab import ansible, module

# It is our own code's doing on any ansible-core.
pytestmark = pytest.mark.one_core

AADSSH = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
PLACE = "/providers/Microsoft.HybridConnectivity/endpoints/default"


def ids(lab):
    return [machine["id"] for machine in lab.machines()]


def enable(lab):
    result = module(lab, "arc_ssh_service_config", machines=ids(lab))
    assert not result.get("failed"), result


def wait(lab, machines=None, **options):
    return module(lab, "arc_relay_credential", machines=machines or ids(lab), wait=True, **options)


def upgrades(lab):
    """What the relay answered to dials: (machine, status), in order."""
    dials = [entry for entry in lab.journal(kind="relay") if entry.get("action") == "connect"]
    return [((entry["machine_id"] or "").rpartition("/")[2], entry["status"]) for entry in dials]


def requests(lab):
    """Requests to ARM and Resource Graph, without logins and metadata, by kind and method."""
    return Counter((entry["kind"], entry["method"]) for entry in lab.journal() if entry["kind"] in ("arm", "graph"))


def make_older(lab, seconds):
    """Let the credentials in the cache have been fetched earlier: only then others are worth a request."""
    for file in pathlib.Path(lab.env["XDG_CACHE_HOME"], "arcfleet", "relay").glob("*.json"):
        content = json.loads(file.read_text())
        if "relay" in content:
            file.write_text(json.dumps({**content, "obtained_on": content["obtained_on"] - seconds}))


def by_name(result):
    return {entry["name"]: entry for entry in result["machines"].values()}


def test_a_fleet_of_three_hundred_is_waited_for_once(start):
    lab = start(machines=300, listener_lag=1, check_specs=False)
    enable(lab)
    lab.clear_journal()
    done = wait(lab)
    assert not done.get("failed"), done["msg"]
    assert all(entry["listening"] and entry["waited"] >= 0 for entry in done["machines"].values())
    reached = [machine for machine, status in upgrades(lab) if status == 101]
    assert len(reached) == len(set(reached)) == 300, "whoever has answered is not dialled again"
    assert requests(lab) == {("arm", "POST"): 300}

    lab.clear_journal()
    assert wait(lab)["summary"]["unchanged"] == 300
    assert requests(lab) == {} and Counter(status for _machine, status in upgrades(lab)) == {101: 300}


def test_nobody_waits_for_those_that_do_not_come(start):
    lab = start(machines=4)
    enable(lab)
    lab.machine("web01", "sshd-stop")
    lab.machine("web02", "stop")
    lab.clear_journal()
    done = wait(lab, wait_timeout=4, max_fail_percentage=100)
    told = by_name(done)
    assert [name for name, entry in told.items() if entry["listening"]] == [
        name for name in told if name not in ("web01", "web02")
    ]
    assert set(done["failures"]) == {entry["id"].lower() for entry in (lab.machine("web01"), lab.machine("web02"))}
    down, away = told["web01"]["failure"], told["web02"]["failure"]
    assert down["code"] == "SshdDown" and "nothing listens on port 22" in down["message"]
    assert away["code"] == "NotListening" and "not connected to the relay" in away["message"]
    assert told["web02"]["waited"] >= 4 > max(entry["waited"] for name, entry in told.items() if name != "web02")
    dialled = Counter(machine for machine, _status in upgrades(lab))
    assert dialled.pop("web02") >= 3 and set(dialled.values()) == {1}
    assert requests(lab) == {("arm", "POST"): 4}, "credentials that were fetched just now are not fetched again"


def test_settled_means_that_the_rest_is_for_later(start):
    lab = start(machines=3)
    enable(lab)
    lab.machine("web01", "stop")
    done = wait(lab, wait_settle=8, wait_timeout=600, max_fail_percentage=100)
    assert {name: entry["listening"] for name, entry in by_name(done).items()} == {
        entry["name"]: entry["name"] != "web01" for entry in lab.machines()
    }
    assert by_name(done)["web01"]["failure"]["code"] == "NotListening"


def test_check_mode_dials_nobody(start):
    lab = start(machines=2)
    enable(lab)
    lab.clear_journal()
    predicted = wait(lab, check=True)
    assert predicted["summary"]["created"] == 2 and upgrades(lab) == [] and requests(lab) == {}
    assert all("listening" not in entry for entry in predicted["machines"].values())
    assert wait(lab)["diff"] == predicted["diff"]


def test_each_machine_has_its_own_port(start):
    lab = start(machines=2)
    first, second = lab.machines()
    for machine, port in ((first, 22), (second, 2222)):
        module(lab, "arc_ssh_service_config", machines=[{"id": machine["id"], "port": port}])
    done = wait(
        lab, [first["id"], {"id": second["id"], "port": 2222, "host": "two"}], wait_timeout=0, max_fail_percentage=100
    )
    told = by_name(done)
    assert told[first["name"]]["listening"] and not told[second["name"]]["listening"]
    assert told[second["name"]]["host"] == "two"
    assert "nothing listens on port 2222" in told[second["name"]]["failure"]["message"]
    for machines, said in (([first["id"]], "0 is not a port"), ([{"id": first["id"], "port": 65536}], "65536")):
        assert said in wait(lab, machines, port=0)["msg"]
    assert "wait_timeout is -1" in wait(lab, wait_timeout=-1)["msg"]


def test_credentials_of_an_endpoint_that_is_gone_are_renewed_once(start):
    lab = start(machines=2, listener_lag=1)
    enable(lab)
    assert not wait(lab).get("failed")
    module(lab, "arc_ssh_service_config", machines=ids(lab), state="absent")
    enable(lab)
    make_older(lab, 60)
    lab.clear_journal()
    done = wait(lab)
    assert not done.get("failed") and done["summary"]["updated"] == 2, done
    assert requests(lab) == {("arm", "POST"): 2}


def test_what_cannot_be_had_is_told_for_each_machine(start):
    lab = start(machines=2)
    module(lab, "arc_ssh_service_config", machines=ids(lab)[:1])
    done = wait(lab, max_fail_percentage=100)
    told = by_name(done)
    first, second = (machine["name"] for machine in lab.machines())
    assert told[first]["listening"] and "listening" not in told[second]
    assert "arcfleet.ssh.enable" in told[second]["failure"]["hint"]


def test_the_first_connections_need_no_request_of_their_own(start):
    lab = start(machines=3)
    enable(lab)
    wait(lab)
    ansible(lab, "ansible-inventory", "--list")
    lab.clear_journal()
    ansible(lab, "ansible-inventory", "--list")
    listing = Counter(entry["kind"] for entry in lab.journal())
    lab.clear_journal()
    ansible(lab, "ansible", "all", "-m", "ansible.builtin.raw", "-a", "true")
    asked = Counter(entry["kind"] for entry in lab.journal())
    assert asked.pop("relay") >= 3 and asked == listing
    assert not [entry for entry in lab.journal() if "listCredentials" in str(entry.get("path"))]


# --- what Azure knows -------------------------------------------------------------------------------------------------


def test_the_facts_of_a_fleet_come_in_pages(start):
    lab = start(machines=300, stopped=3, old_agents=2, check_specs=False)
    lab.clear_journal()
    known = module(lab, "arc_machine_info", machines=ids(lab), source="resource_graph")
    pages = requests(lab)
    assert pages.pop(("graph", "POST")) == 2, "as many as 250 machines at once"
    assert pages == {("arm", "GET"): 5}, "machines in whose way Resource Graph sees something are looked at again"
    single = module(lab, "arc_machine_info", machines=ids(lab))
    for key, entry in single["machines"].items():
        source = "arm" if entry["obstacles"] else "resource_graph"
        # Lists, single answers and Resource Graph spell ids each in their own way.
        for told in (entry, known["machines"][key]):
            told["resource_id"] = told["resource_id"].lower()
            told["resource_group"] = told["resource_group"].lower()
        assert known["machines"][key] == {**entry, "source": source}


def test_what_resource_graph_refuses_is_read_from_arm(start):
    lab = start(machines=2)
    lab.fault(kind="graph", status=400, code="BadRequest", message="Please provide below info when asking for support.")
    known = module(lab, "arc_machine_info", machines=ids(lab), source="resource_graph")
    assert not known.get("failed") and {entry["source"] for entry in known["machines"].values()} == {"arm"}
    assert any("read from ARM instead" in str(warning) for warning in known["warnings"])


def test_extensions_in_the_steady_state_cost_pages_only(start):
    lab = start(machines=300, operation_seconds=0.1, check_specs=False)
    fleet, wanted = ids(lab), {**AADSSH, "settings": {"a": {"b": [1]}}, "source": "resource_graph"}
    module(lab, "arc_extension", machines=fleet, **wanted)
    lab.clear_journal()
    for check in (True, False):
        lab.clear_journal()
        again = module(lab, "arc_extension", machines=fleet, check=check, **wanted)
        assert again["summary"]["unchanged"] == 300 and not again["changed"], again["summary"]
        assert requests(lab) == {("graph", "POST"): 4}
    assert again["machines"] == module(lab, "arc_extension", machines=fleet, **{**wanted, "source": "arm"})["machines"]

    changed = {**wanted, "settings": {"a": {"b": [2]}}}
    module(lab, "arc_extension", machines=fleet[:3], **changed)
    lab.clear_journal()
    predicted = module(lab, "arc_extension", machines=fleet[:10], check=True, **changed)
    asked = requests(lab)
    assert asked == {("graph", "POST"): 2, ("arm", "GET"): 14}, "the extension and the machine of each that differs"
    done = module(lab, "arc_extension", machines=fleet[:10], **changed)
    assert done["summary"]["updated"] == 7 and done["machines"] == predicted["machines"]


def test_no_write_comes_from_resource_graph_alone(start):
    lab = start(machines=2, operation_seconds=0.1)
    wanted = {**AADSSH, "source": "resource_graph"}
    # Resource Graph knows nothing of it, as is usual in the first minutes.
    lab.fault(kind="graph", status=403, code="AccessDenied", message="Access denied.")
    module(lab, "arc_extension", machines=ids(lab), **AADSSH)
    lab.clear_journal()
    again = module(lab, "arc_extension", machines=ids(lab), **wanted)
    assert again["summary"]["unchanged"] == 2
    assert {method for kind, method in requests(lab) if kind == "arm"} == {"GET"}
    lab.clear_faults()
    gone = module(lab, "arc_extension", machines=ids(lab), state="absent", **wanted)
    assert gone["summary"]["deleted"] == 2
    lab.clear_journal()
    assert module(lab, "arc_extension", machines=ids(lab), state="absent", **wanted)["summary"]["unchanged"] == 2
    assert ("graph", "POST") not in requests(lab), "absence is never taken from Resource Graph, so it is not asked"


# --- the role ---------------------------------------------------------------------------------------------------------


def test_machines_that_are_up_go_on_before_those_that_are_late(start):
    lab = start(machines=3)
    late = lab.machine("web02")["id"]
    # The relay does not let anybody through to it for as many dials as fill the first waiting and some of the second.
    lab.fault(kind="relay", machine="web02", status=404, message="There are no listeners connected.", times=7)
    # The bootstrap would wait for it as well, and take the dials.
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane,verify")
    assert "3 of 3 machines are ready for SSH." in done.stdout, done.stdout
    first, _title, second = done.stdout.partition(
        "TASK [arcfleet.ssh.arc_connectivity : Wait for the machines that were"
    )
    assert "skipping: [web02]" in first.partition("Open an SSH connection]")[2]
    assert re.search(r"Open an SSH connection to those that have\].*ok: \[web02\]", second, re.DOTALL), second
    order = upgrades(lab)
    assert order.index((late.lower().rpartition("/")[2], 101)) > len(order) - 4, "the others did not wait for it"


def test_what_does_not_answer_is_named_and_fails(start):
    lab = start(machines=4, stopped=1)
    lab.fault(kind="relay", machine="web02", status=404, message="There are no listeners connected for the endpoint.")
    lab.machine("web01", "sshd-stop")
    patience = ("-e", "arc_connectivity_verify_timeout=12")
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane,verify", *patience, rc=2)
    assert "1 of 4 machines are ready for SSH." in done.stdout
    assert re.search("not ready: web01: nothing listens on port 22 of the machine", done.stdout)
    assert re.search("not ready: web02: the machine's agent is not connected to the relay", done.stdout)
    assert len(re.findall("not ready: ", done.stdout)) == 3
    assert re.findall(r"^(\S+) +: .* failed=[1-9]", done.stdout, re.MULTILINE) == ["web01", "web02"]


def test_verification_of_a_fleet_that_is_ready_reads_pages_only(start):
    lab = start(machines=5)
    enable(lab)
    wait(lab)
    lab.clear_journal()
    done = ansible(lab, "ansible-playbook", "arcfleet.ssh.enable", "--tags", "verify")
    assert "5 of 5 machines are ready for SSH." in done.stdout
    assert not [entry for entry in lab.journal(kind="arm") if "/machines" in entry["path"]]
    statuses = Counter(status for _machine, status in upgrades(lab))
    assert statuses == {101: 10}, "each is dialled once to see that it listens, and connected to once"
