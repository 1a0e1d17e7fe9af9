# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does `ansible-inventory` list a whole fleet from the lab, the same from both sources, and only by reading?"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.plugin_utils._hosts import Relay
from arclab.client import Lab

BIN = pathlib.Path(sys.executable).parent
FLEET = 14


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    options = {"machines": FLEET, "subscriptions": 2, "windows": 2, "stopped": 1, "old_agents": 1, "page_size": 3}
    with Lab.up(tmp_path_factory.mktemp("lab") / "state", **options) as started:
        yield started


def plain(value: dict[str, Any]) -> Any:
    """Ansible's JSON marks texts that are no templates; that ours are marked so is what the unit tests look at."""
    return value.get("__ansible_unsafe", value)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command wrote to stderr, without the line breaks that older versions of Ansible put in."""
    return " ".join(done.stderr.split())


class Site:
    """A directory with an inventory file, and Ansible's commands run on it."""

    def __init__(self, lab: Lab, directory: pathlib.Path) -> None:
        self.lab = lab
        self.file = directory / "arc.yml"
        self.env = {
            **os.environ,
            **lab.env,
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
            "ANSIBLE_NOCOLOR": "true",
        }
        # The lab's default scope is one of its subscriptions; most tests are about all.
        self.subscription = self.env.pop("AZURE_SUBSCRIPTION_ID")

    def run(self, **options: Any) -> subprocess.CompletedProcess[str]:
        self.file.write_text(yaml.safe_dump({"plugin": "arcfleet.ssh.arc_machines", **options}))
        command = [str(BIN / "ansible-inventory"), "-i", str(self.file), "--list"]
        return subprocess.run(command, env=self.env, text=True, capture_output=True, timeout=120, check=False)

    def list(self, **options: Any) -> dict[str, Any]:
        done = self.run(**options)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout, object_hook=plain)
        return found

    def hosts(self, **options: Any) -> dict[str, dict[str, Any]]:
        hosts: dict[str, dict[str, Any]] = self.list(**options)["_meta"]["hostvars"]
        return hosts


@pytest.fixture
def site(lab: Lab, tmp_path: pathlib.Path) -> Site:
    return Site(lab, tmp_path)


def test_both_sources_give_the_whole_fleet_alike(site: Site) -> None:
    graph, arm = site.hosts(), site.hosts(source="arm")
    assert len(graph) == FLEET
    assert {entry["arc_subscription_id"] for entry in graph.values()} != {site.subscription}
    for entry in (*graph.values(), *arm.values()):
        entry.pop("arc_extensions", None)
    assert graph == arm


def test_the_subscription_of_the_environment_is_the_default_scope(site: Site) -> None:
    site.env["AZURE_SUBSCRIPTION_ID"] = site.subscription
    assert {entry["arc_subscription_id"] for entry in site.hosts().values()} == {site.subscription}


@pytest.mark.one_core
def test_extensions_are_listed(site: Site) -> None:
    for entry in site.hosts().values():
        for extension in entry["arc_extensions"]:
            assert extension["publisher"] and extension["type"] and extension["name"]
    # A null is not in the output of ansible-inventory's JSON for lack of an answer, but the variable is there.
    assert {entry["arc_extensions"] for entry in site.hosts(extensions=False).values()} == {None}


@pytest.mark.one_core
@pytest.mark.parametrize(
    ("filters", "some"),
    [
        ({"status": "connected"}, True),
        ({"status": ["Disconnected"]}, True),
        ({"os_type": "windows"}, True),
        ({"locations": ["West Europe", "northeurope"]}, True),
        ({"kinds": [""]}, True),
        ({"tags": {"environment": None}}, True),
        ({"tags": {"environment": ["prod", "x'y\\\"z"]}}, True),
        ({"tags": {"no'such\\tag": "') or true //"}}, False),
    ],
)
def test_filters_mean_the_same_to_both_sources(site: Site, filters: dict[str, Any], some: bool) -> None:
    found = set(site.hosts(filters=filters))
    assert found == set(site.hosts(filters=filters, source="arm"))
    assert bool(found) is some
    assert len(found) <= FLEET


def test_a_condition_of_one_s_own(site: Site) -> None:
    found = site.hosts(filters={"where": "name startswith 'web' // and a comment"})
    assert found
    assert all(name.startswith("web") for name in found)
    done = site.run(filters={"where": "no such thing"})
    assert done.returncode != 0
    assert "Cannot list the Arc machines" in said(done)
    assert "Traceback" not in done.stderr


def test_native_groups_and_relay_variables(site: Site) -> None:
    found = site.list(connection="relay", ssh_user="ops", groups_by=["os_type", "status", "resource_group"])
    assert len(found["os_type_windows"]["hosts"]) == 2
    assert len(found["status_disconnected"]["hosts"]) == 1
    hosts = found["_meta"]["hostvars"]
    aliases = {entry["ansible_host"] for entry in hosts.values()}
    assert len(aliases) == FLEET
    for name, entry in hosts.items():
        assert f"HostKeyAlias={entry['arc_resource_id'].lower()}" in entry["ansible_ssh_common_args"], name
        assert ("ansible_shell_type" in entry) == (entry["arc_os_type"] == "windows")
    assert site.env["AZURE_SECRET"] not in json.dumps(found)


@pytest.mark.one_core
def test_it_only_reads(site: Site) -> None:
    site.lab.clear_journal()
    site.hosts(connection="relay")
    site.hosts(source="arm", connection="relay")
    requests = [entry for entry in site.lab.journal() if entry["kind"] in ("arm", "graph")]
    assert requests
    for entry in requests:
        assert entry["method"] == "GET" or "microsoft.resourcegraph" in entry["path"].lower(), entry
        assert entry["status"] == 200


def test_a_cache_hit_makes_no_request_at_all(site: Site, tmp_path: pathlib.Path) -> None:
    cached = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "cache"),
        "compose": {"short": "arc_name[:3]"},
        "groups_by": ["os_type"],
    }
    first = site.list(**cached)
    site.lab.clear_journal()
    assert site.list(**cached) == first
    assert site.lab.journal() == []


@pytest.mark.one_core
def test_a_subscription_that_may_not_be_read_fails_by_its_id(site: Site) -> None:
    all_of_them = sorted({entry["arc_subscription_id"] for entry in site.hosts().values()})
    action = ["Microsoft.HybridCompute/machines/read", "Microsoft.HybridCompute/machines/extensions/read"]
    scope = f"/subscriptions/{all_of_them[0]}"
    reader = site.lab.principal("reader", actions=[*action, "Microsoft.Resources/subscriptions/read"], scope=scope)
    site.env.update(site.lab.env_of(reader))
    del site.env["AZURE_SUBSCRIPTION_ID"]
    for source in ("resource_graph", "arm"):
        done = site.run(subscriptions=all_of_them, source=source)
        assert done.returncode != 0
        assert all_of_them[1] in said(done)
        assert "Traceback" not in done.stderr
        left = site.hosts(subscriptions=all_of_them, source=source, unreadable_subscriptions="skip")
        assert {entry["arc_subscription_id"] for entry in left.values()} == {all_of_them[0]}


@pytest.mark.one_core
@pytest.mark.parametrize("effect", [{"status": 403, "code": "AuthorizationFailed", "message": "no"}, {"garbage": True}])
def test_azure_failing_in_the_middle_is_no_short_list(site: Site, effect: dict[str, Any]) -> None:
    for source, rule in (
        ("arm", {"method": "GET", "skip": 2}),
        ("resource_graph", {"kind": "graph"}),
    ):
        with site.lab.faulty(**rule, **effect):
            done = site.run(source=source)
        assert done.returncode != 0
        assert "Cannot list the Arc machines of" in said(done)
        assert "Traceback" not in done.stderr


@pytest.mark.one_core
def test_throttling_is_waited_for(site: Site) -> None:
    with site.lab.faulty(kind="graph", times=2, status=429, code="RateLimiting", headers={"Retry-After": "1"}):
        assert len(site.hosts()) == FLEET


def allow_ssh(site: Site, machine: str) -> None:
    """What the playbook `enable` does in Azure."""
    script = (
        "import sys\n"
        "from ansible_collections.arcfleet.ssh.plugins.module_utils._arm import Arm\n"
        "from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions, TokenSource\n"
        "arm = Arm(TokenSource(AuthOptions.from_params({})))\n"
        "endpoint = sys.argv[1] + '/providers/Microsoft.HybridConnectivity/endpoints/default'\n"
        "arm.put(endpoint, '2023-03-15', {'properties': {'type': 'default'}}, doing='endpoint')\n"
        "body = {'properties': {'serviceName': 'SSH', 'port': 22}}\n"
        "arm.put(endpoint + '/serviceConfigurations/SSH', '2023-03-15', body, doing='service')\n"
    )
    path = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    subprocess.run(
        [sys.executable, "-c", script, machine], env={**site.env, "PYTHONPATH": path}, timeout=60, check=True
    )


def test_ping_through_the_relay_needs_nothing_but_the_inventory(site: Site) -> None:
    login = {
        "connection": "relay",
        "ssh_user": site.env["ARCLAB_USER"],
        "ssh_private_key_file": site.env["ARCLAB_KEY"],
        "ssh_known_hosts_file": site.env["ARCLAB_KNOWN_HOSTS"],
    }
    machine = site.hosts(**login)["web01"]["arc_resource_id"]
    allow_ssh(site, machine)
    command = [str(BIN / "ansible"), "-i", str(site.file), "web01", "-m", "ansible.builtin.ping", "-vvvv"]
    done = subprocess.run(command, env=site.env, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"ping": "pong"' in done.stdout
    assert site.env["AZURE_SECRET"] not in done.stdout + done.stderr


def test_ssh_itself_reads_the_arguments_as_meant(tmp_path: pathlib.Path) -> None:
    """A helper under an awkward path, a login option of hostile text: what arrives through ssh and its shell?"""
    helper = tmp_path / 'it\'s $(100%h) "here".py'
    told = tmp_path / "told.json"
    helper.write_text(f"import json, sys\njson.dump(sys.argv[1:], open({str(told)!r}, 'w'))\n")
    tenant = "`id` $(id) %p ' \" \\ !x\n{{ 1 }}"
    known_hosts = tmp_path / "known hosts %h"
    machine = MachineId.build("11111111-2222-3333-4444-555555555555", "Rg(1)", "Web_01")
    relay = Relay(python=sys.executable, helper=str(helper), auth={"tenant": tenant}, known_hosts_file=str(known_hosts))
    variables = relay.variables(machine, "linux")
    arguments = ["ssh", "-F", "none", "-p", "2222", *shlex.split(variables["ansible_ssh_common_args"])]
    subprocess.run([*arguments, variables["ansible_host"], "true"], timeout=30, capture_output=True, check=False)
    given = ["--tenant", tenant, "--resource-id", str(machine), "--port", "2222", "--once"]
    assert json.loads(told.read_text()) == given
    effective = subprocess.run(
        [*arguments, "-G", variables["ansible_host"]], timeout=30, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"hostkeyalias {machine.key}" in effective
    assert f"hostname {variables['ansible_host']}" in effective


def test_hostile_tags_and_shared_names_stay_harmless(tmp_path: pathlib.Path) -> None:
    evil = {
        "template": "{{ lookup('ansible.builtin.pipe', 'echo pwn' ~ 'ed') }}",
        "shell": "$(touch pwned) `id`; '\"\\ %h\nnext",
    }
    fleet = tmp_path / "fleet.json"
    fleet.write_text(
        json.dumps(
            [
                {"name": "same", "resource_group": "a", "tags": evil},
                {"name": "Same", "resource_group": "b"},
                {"name": "one", "resource_group": "a"},
            ]
        )
    )
    with Lab.up(tmp_path / "state", fleet=str(fleet)) as lab:
        site = Site(lab, tmp_path)
        done = site.run(groups_by=["tag:template", "tag:shell"])
        assert "These names stand for several machines" in said(done)
        found = site.list(groups_by=["tag:template", "tag:shell"])
        assert set(found["_meta"]["hostvars"]) == {"same.a", "Same.b", "one"}
        assert found["_meta"]["hostvars"]["same.a"]["arc_tags"] == evil
        assert all(name.isidentifier() for name in set(found) - {"_meta"})
        command = [str(BIN / "ansible"), "-i", str(site.file), "same.a", "-c", "local", "-m", "ansible.builtin.debug"]
        shown = subprocess.run(
            [*command, "-a", "msg={{ arc_tags.template }}"],
            env=site.env,
            text=True,
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        assert "pwned" not in shown
        assert "lookup(" in shown


def pages_read(lab: Lab) -> list[dict[str, Any]]:
    """The requests to Resource Graph since the journal was cleared, in the order of their ends."""
    return lab.journal(kind="graph")


def overlap(entries: Sequence[Mapping[str, Any]]) -> int:
    """How many requests were under way at once, at most; the journal holds the end of each and how long it took."""
    begins = [(entry["time"] - entry["duration_ms"] / 1000, 1) for entry in entries]
    ends = [(entry["time"], -1) for entry in entries]
    under_way = most = 0
    for _moment, step in sorted(begins + ends):
        under_way += step
        most = max(most, under_way)
    return most


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """2,300 machines in 3 subscriptions, of which the first 1,100 have an extension each."""
    directory = tmp_path_factory.mktemp("big")
    extension = {"publisher": "Microsoft.Azure.Monitor", "type": "AzureMonitorLinuxAgent"}
    machines = [
        {"name": f"srv{number:04d}", "subscription": 1 + number % 3, "extensions": [extension] * (number < 1100)}
        for number in range(2300)
    ]
    (directory / "fleet.json").write_text(json.dumps(machines))
    with Lab.up(
        directory / "state", fleet=str(directory / "fleet.json"), subscriptions=3, page_size=200, check_specs=False
    ) as lab:
        yield lab


@pytest.mark.one_core
def test_requests_are_pages_and_pages_are_read_side_by_side(big: Lab, tmp_path: pathlib.Path) -> None:
    site = Site(big, tmp_path)
    big.clear_journal()
    with big.faulty(kind="graph", skip=2, delay_ms=1000):
        found = site.hosts()
    assert len(found) == 2300
    assert sum(len(host["arc_extensions"]) for host in found.values()) == 1100
    read = pages_read(big)
    places = [entry["request_body"]["options"].get("$skip") for entry in read]
    assert sorted(place or 0 for place in places) == [0, 0, 1000, 1000, 2000]
    assert overlap([entry for entry, place in zip(read, places, strict=True) if place]) == 3
    # Besides pages: which subscriptions there are.
    assert [entry["path"] for entry in big.journal(kind="arm")] == ["/subscriptions"]


@pytest.mark.one_core
def test_arm_s_lists_of_many_subscriptions_are_read_side_by_side(big: Lab, tmp_path: pathlib.Path) -> None:
    site = Site(big, tmp_path)
    big.clear_journal()
    with big.faulty(kind="arm", path="machines", times=3, delay_ms=1000):
        assert len(site.hosts(source="arm")) == 2300
    lists = big.journal(kind="arm", path="microsoft.hybridcompute/machines")
    assert len({entry["path"].split("/")[2] for entry in lists}) == 3
    assert overlap(lists) == 3


@pytest.mark.one_core
@pytest.mark.parametrize(
    "effect",
    [
        {"status": 403, "code": "AuthorizationFailed", "message": "no"},
        {"status": 400, "code": "BadRequest", "message": "no"},
        {"garbage": True},
    ],
)
def test_a_later_page_that_fails_is_no_short_list(big: Lab, tmp_path: pathlib.Path, effect: dict[str, Any]) -> None:
    site = Site(big, tmp_path)
    with big.faulty(kind="graph", skip=3, **effect):
        done = site.run()
    assert done.returncode != 0
    assert "Cannot list the Arc machines of" in said(done)
    assert not json.loads(done.stdout or "{}").get("_meta", {}).get("hostvars")
    assert "Traceback" not in done.stderr


@pytest.mark.one_core
def test_a_cache_hit_of_a_big_fleet_makes_no_request(big: Lab, tmp_path: pathlib.Path) -> None:
    site = Site(big, tmp_path)
    cached = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "cache"),
        "groups_by": ["location"],
        "connection": "relay",
    }
    first = site.list(**cached)
    big.clear_journal()
    assert site.list(**cached) == first
    command = [str(BIN / "ansible"), "-i", str(site.file), "all", "--list-hosts"]
    done = subprocess.run(command, env=site.env, text=True, capture_output=True, timeout=120, check=True)
    assert "hosts (2300)" in done.stdout
    assert big.journal() == []


KNOWN = """
import json, sys
from ansible_collections.arcfleet.ssh.plugins.module_utils import _graph
from ansible_collections.arcfleet.ssh.plugins.module_utils._arm import Arm
from ansible_collections.arcfleet.ssh.plugins.module_utils._auth import AuthOptions, TokenSource
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
ids = [MachineId.parse(text) for text in json.load(sys.stdin)]
print(json.dumps(_graph.machines(Arm(TokenSource(AuthOptions.from_params({}))), ids, extensions=True)))
"""


@pytest.mark.one_core
@pytest.mark.parametrize("count", [3, 1900])
def test_what_resource_graph_knows_of_some_machines_or_of_most(big: Lab, count: int) -> None:
    ids = [machine["id"] for machine in sorted(big.machines(), key=lambda machine: machine["name"])][:count]
    gone = ids[0].replace("srv0000", "gone")
    big.clear_journal()
    done = subprocess.run(
        [sys.executable, "-c", KNOWN],
        input=json.dumps([*(text.upper() for text in ids), gone]),
        env={**os.environ, **big.env, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {text.lower() for text in ids}
    for key, record in found.items():
        assert record["id"].lower() == key
        assert record["properties"]["status"] == "Connected"
        assert record["properties"]["agentConfiguration"]["configMode"] == "full"
        kinds = [extension["properties"]["type"] for extension in record["resources"]]
        assert kinds == (["AzureMonitorLinuxAgent"] if key[-7:] < "srv1100" else [])
    # One query for machines and one for extensions by id; all pages of the place beyond.
    assert len(pages_read(big)) == (2 if count == 3 else 5)


@pytest.mark.one_core
def test_hundreds_of_subscriptions_take_few_requests(tmp_path: pathlib.Path) -> None:
    with Lab.up(tmp_path / "state", machines=300, subscriptions=300, check_specs=False) as lab:
        site = Site(lab, tmp_path)
        lab.clear_journal()
        found = site.hosts()
        assert len(found) == len({host["arc_subscription_id"] for host in found.values()}) == 300
        asked = [entry["request_body"]["subscriptions"] for entry in pages_read(lab)]
        assert sorted(len(subscriptions) for subscriptions in asked) == [50, 50, 250, 250]
        assert set(site.hosts(source="arm")) == set(found)
