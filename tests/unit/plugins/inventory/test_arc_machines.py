# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does an inventory file become the hosts, groups and variables it describes, through Ansible's own inventory manager?

ARM is a scripted stand-in: what it is asked is counted, so that the cache can be proved to ask for nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pathlib
import warnings as warnings_module
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, inventory_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

ARM_MODULE = "ansible_collections.arcfleet.ssh.plugins.module_utils._arm"
SUB = "11111111-2222-3333-4444-555555555555"
EVIL = "{{ 'pw' ~ 'ned' }}"


def row(name: str, group: str = "arc-prod", **more: Any) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{SUB}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}",
        "kind": "",
        "location": "westeurope",
        "tags": {"env": "prod"},
        "status": "Connected",
        "agentVersion": "1.50.1.1",
        "osType": "linux",
        **more,
    }


class ScriptedArm:
    """Answers like Resource Graph from `rows`, like ARM from `lists`; remembers what it was asked."""

    rows: list[dict[str, Any]] = []
    extensions: list[dict[str, Any]] = []
    made: int = 0
    asked: list[str] = []
    refusals: list[Exception] = []

    def __init__(self, credential: Any, *, connections: int = 32) -> None:
        type(self).made += 1

    def post(self, path: str, api_version: str, body: Any = None, *, query: Any = None, doing: str) -> dict[str, Any]:
        self.asked.append(body["query"])
        for refusal in self.refusals:
            raise refusal
        data = self.extensions if "/machines/extensions'" in body["query"] else self.rows
        return {"data": data, "count": len(data), "totalRecords": len(data), "resultTruncated": "false"}

    def pages(self, path: str, api_version: str, *, query: Any = None, doing: str) -> Iterator[dict[str, Any]]:
        self.asked.append(path)
        if path == "/subscriptions":
            yield {"subscriptionId": SUB, "displayName": "S", "state": "Enabled"}
        else:
            known = ("id", "kind", "location", "tags")
            yield from ({**{k: r[k] for k in known}, "properties": {"osType": r["osType"]}} for r in self.rows)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def arm(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedArm]:
    class Arm(ScriptedArm):
        rows = [row("web01"), row("db01", osType="windows", tags={})]
        asked: list[str] = []

    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AZURE_SECRET", "s3cr3t")
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    monkeypatch.delenv("AZURE_CLOUD_ENVIRONMENT", raising=False)
    monkeypatch.setattr(importlib.import_module(ARM_MODULE), "Arm", Arm)
    return Arm


@pytest.fixture(scope="session", autouse=True)
def _collections() -> None:
    with warnings_module.catch_warnings():
        warnings_module.simplefilter("ignore")  # conftest has installed the finder
        init_plugin_loader()


class Site:
    """An inventory file and what Ansible makes of it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.file = directory / "arc.yml"
        self.loader = DataLoader()

    def write(self, **options: Any) -> None:
        self.file.write_text(yaml.safe_dump({"plugin": "arcfleet.ssh.arc_machines", **options}))

    def manager(self, **options: Any) -> InventoryManager:
        """The inventory, as every Ansible command gets it."""
        self.write(**options)
        return InventoryManager(loader=self.loader, sources=[str(self.file)])

    def parse(self, *, refresh: bool = False, **options: Any) -> InventoryData:
        """The plugin alone, whose errors the manager would turn into warnings."""
        self.write(**options)
        data = InventoryData()
        plugin = inventory_loader.get("arcfleet.ssh.arc_machines")
        plugin.parse(data, self.loader, str(self.file), cache=not refresh)
        with contextlib.suppress(AttributeError):  # without `cache: true` there is none
            plugin.update_cache_if_changed()
        return data


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr("ansible.utils.display.Display.warning", lambda self, msg, *a, **k: found.append(msg))
    return found


def groups_of(data: InventoryData, host: str) -> set[str]:
    return {group.name for group in data.hosts[host].get_groups()} - {"all"}


@pytest.mark.parametrize("name", ["arc.yml", "x.arc.yaml", "arc_machines.yml", "my-arc_machines.yaml"])
def test_files_are_known_by_their_names(name: str, tmp_path: pathlib.Path) -> None:
    plugin = inventory_loader.get("arcfleet.ssh.arc_machines")
    (tmp_path / name).write_text("plugin: arcfleet.ssh.arc_machines")
    assert plugin.verify_file(str(tmp_path / name)) is True


@pytest.mark.parametrize("name", ["azure_rm.yml", "arc.json", "arc.yml.bak", "hosts"])
def test_other_files_are_declined_without_an_error(name: str, tmp_path: pathlib.Path) -> None:
    plugin = inventory_loader.get("arcfleet.ssh.arc_machines")
    (tmp_path / name).write_text("x")
    assert plugin.verify_file(str(tmp_path / name)) is False
    assert plugin.verify_file(str(tmp_path / "missing" / "arc.yml")) is False


def test_the_smallest_file_lists_everything(site: Site) -> None:
    data = site.manager()
    assert sorted(data.hosts) == ["db01", "web01"]
    found = data.get_host("web01").vars
    assert found["arc_status"] == "Connected"
    assert found["arc_extensions"] == []
    assert "ansible_host" not in found


def test_the_same_from_arm(site: Site, arm: type[ScriptedArm]) -> None:
    data = site.parse(source="arm", filters={"os_type": "linux"}, groups_by=["os_type"])
    assert list(data.hosts) == ["web01"]
    assert arm.asked[-1] == f"/subscriptions/{SUB}/providers/Microsoft.HybridCompute/machines"


def test_native_groups(site: Site) -> None:
    data = site.parse(groups_by=["os_type", "tag:env", "resource_group", "agent_version"])
    assert groups_of(data, "web01") == {
        "os_type_linux",
        "tag_env_prod",
        "resource_group_arc_prod",
        "agent_version_1_50",
    }
    assert groups_of(data, "db01") == {"os_type_windows", "resource_group_arc_prod", "agent_version_1_50"}


def test_constructed_groups_and_variables(site: Site) -> None:
    data = site.parse(
        compose={"env": "arc_tags.env | default('none')"},
        groups={"old": "arc_agent_version is version('1.60', '<')", "prod": "env == 'prod'"},
        keyed_groups=[{"key": "arc_os_type", "prefix": "os"}, {"key": "env", "prefix": "env"}],
        strict=True,
    )
    assert data.hosts["db01"].vars["env"] == "none"
    assert groups_of(data, "web01") == {"old", "prod", "os_linux", "env_prod"}
    assert groups_of(data, "db01") == {"old", "os_windows", "env_none"}


def test_strict_tells_what_is_wrong_with_a_template(site: Site) -> None:
    with pytest.raises(AnsibleError, match="web01|db01"):
        site.parse(compose={"x": "no_such_variable + 1"}, strict=True)
    assert "x" not in site.parse(compose={"x": "no_such_variable + 1"}, strict=False).hosts["web01"].vars


def test_relay_variables(site: Site) -> None:
    data = site.manager(
        connection="relay", ssh_user="ops", ssh_known_hosts_file="/k/h", tenant="contoso.example", profile=""
    )
    found = data.get_host("web01").vars
    assert found["ansible_user"] == "ops"
    assert "--tenant contoso.example" in found["ansible_ssh_common_args"]
    assert "--profile" not in found["ansible_ssh_common_args"]
    assert "plugins/module_utils/_relay/_start.py" in found["ansible_ssh_common_args"]
    assert "s3cr3t" not in json.dumps(found)
    assert data.get_host("db01").vars["ansible_shell_type"] == "powershell"


@pytest.mark.parametrize(("given", "binary"), [("find", "find"), ("~/p", os.path.expanduser("~/p"))])
def test_connections_can_be_handed_over_to_microsofts_proxy(site: Site, given: str, binary: str) -> None:
    digest = "sha256:" + "0" * 64
    found = site.parse(connection="relay", proxy_binary=given, proxy_digest=digest).get_host("web01").vars
    assert f"--proxy-binary {binary} --proxy-digest {digest} " in found["ansible_ssh_common_args"]


@pytest.mark.parametrize("secret", [{"secret": "abc"}, {"oidc_token": "abc"}])
def test_a_file_that_holds_a_secret_cannot_ask_for_the_relay(site: Site, secret: Mapping[str, str]) -> None:
    with pytest.raises(AnsibleParserError, match="AZURE_SECRET") as caught:
        site.parse(connection="relay", client_id="x", tenant="x", **secret)
    assert "abc" not in str(caught.value)
    assert sorted(site.parse(client_id="x", tenant="x", **secret).hosts) == ["db01", "web01"]


def test_the_user_s_templates_work_and_azure_s_do_not(site: Site, arm: type[ScriptedArm]) -> None:
    arm.rows = [row("web01", tags={"a": EVIL, EVIL: "b"}, location=EVIL, machineFqdn=EVIL, osName=EVIL)]
    arm.extensions = [{"id": arm.rows[0]["id"] + "/extensions/x", "name": EVIL, "publisher": EVIL}]
    manager = site.manager(
        connection="relay",
        ssh_user="{{ arc_os_type }}-ops",
        groups_by=["tag:a", "location", "os_name"],
        compose={"again": "arc_tags.a", "glued": "'x' ~ arc_location"},
        keyed_groups=[{"key": "arc_location"}],
        hostname="{{ arc_name }}",
    )
    host = manager.get_host("web01")
    available = VariableManager(loader=site.loader, inventory=manager).get_vars(host=host)
    templar = Templar(loader=site.loader, variables=available)
    for name in ("arc_tags", "arc_location", "arc_fqdn", "arc_os_name", "arc_extensions", "again", "glued"):
        assert "pwned" not in str(templar.template(available[name])), name
    assert templar.template(available["again"]) == EVIL
    assert templar.template(available["glued"]) == f"x{EVIL}"
    assert templar.template(available["ansible_user"]) == "linux-ops"
    assert all(name.isidentifier() for name in manager.groups)


def test_options_of_the_login_and_the_scope_may_be_templates(
    site: Site, arm: type[ScriptedArm], monkeypatch: Any
) -> None:
    monkeypatch.setenv("MY_GROUP", "from-env")
    site.parse(resource_groups=["{{ lookup('ansible.builtin.env', 'MY_GROUP') }}"], tenant="{{ 'a' ~ 'b' }}")
    assert "('from-env')" in arm.asked[1]
    with pytest.raises(AnsibleParserError, match="tenant"):
        site.parse(tenant="{{ no_such_variable }}")


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("name", ["db01", "web01"]),
        ("fqdn", ["db01", "web01.example.org"]),
        ("vm_id", ["0f", "web01"]),
        ("{{ arc_tags.env | default('other') }}-{{ arc_name }}", ["other-db01", "prod-web01"]),
        ("{{ arc_tags.env }}", ["db01", "prod"]),
        ("{{ '$(reboot)' }}", ["db01", "web01"]),
    ],
)
def test_hostnames(site: Site, arm: type[ScriptedArm], hostname: str, expected: list[str]) -> None:
    arm.rows = [row("web01", machineFqdn="web01.example.org"), row("db01", tags={}, vmId="0f")]
    assert sorted(site.parse(hostname=hostname).hosts) == expected


def test_a_hostname_that_fails_is_an_error_when_strict(site: Site) -> None:
    with pytest.raises(AnsibleParserError, match="hostname"):
        site.parse(hostname="{{ arc_tags.env }}", strict=True)


def test_machines_of_one_name_stay_apart(site: Site, arm: type[ScriptedArm], warnings: list[str]) -> None:
    arm.rows = [row("web01", "a"), row("web01", "b"), row("db01", "a"), row("localhost", "a")]
    assert sorted(site.parse().hosts) == ["db01", "localhost.a", "web01.a", "web01.b"]
    assert len(warnings) == 1
    assert "web01" in warnings[0]


CACHE = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_timeout": 60}


def test_the_cache_asks_azure_for_nothing_and_gives_the_same(site: Site, arm: type[ScriptedArm], tmp_path: Any) -> None:
    options = {
        **CACHE,
        "cache_connection": str(tmp_path / "cache"),
        "compose": {"env": "arc_tags.env"},
        "groups_by": ["os_type"],
    }
    # A cloud that would have to be asked who it is, if anybody were to log in.
    options["cloud_environment"] = "https://127.0.0.1:9"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin_module(), "TokenSource", lambda login: None)
        first = site.parse(**options)
    made, asked = arm.made, len(arm.asked)
    second = site.parse(**options)
    assert (arm.made, len(arm.asked)) == (made, asked)
    assert {n: h.vars for n, h in first.hosts.items()} == {n: h.vars for n, h in second.hosts.items()}
    assert groups_of(second, "web01") == {"os_type_linux"}


def test_the_cache_is_used_for_the_same_question_only(site: Site, arm: type[ScriptedArm], tmp_path: Any) -> None:
    cached = {**CACHE, "cache_connection": str(tmp_path / "cache")}
    site.parse(**cached)
    for options in (
        {"filters": {"status": "Expired"}},
        {"source": "arm"},
        {"subscriptions": [SUB]},
        {"extensions": False},
        {"client_id": "y", "tenant": "x", "secret": "z"},
    ):
        asked = len(arm.asked)
        site.parse(**cached, **options)
        assert len(arm.asked) > asked, options
    asked = len(arm.asked)
    # What changes only the presentation needs no new list.
    site.parse(**cached, groups_by=["os_type"], hostname="fqdn", connection="relay")
    assert len(arm.asked) == asked
    site.parse(refresh=True, **cached)
    assert len(arm.asked) > asked


def plugin_module() -> Any:
    return importlib.import_module(type(inventory_loader.get("arcfleet.ssh.arc_machines")).__module__)


def test_the_cache_holds_one_text_that_gives_back_what_was_put_in() -> None:
    value = {"hosts": [{"arc_tags": {"é\u2028": "{{ x }}"}, "arc_kind": None, "arc_extensions": []}], "warnings": ["w"]}
    text = plugin_module().packed(value)
    assert isinstance(text, str) and text.isascii()
    assert plugin_module().unpacked(text) == value


@pytest.mark.parametrize(
    "entry", [None, "x", {}, {"packed": None}, {"packed": "x"}, {"packed": "eJw="}, {"packed": "é"}]
)
def test_an_entry_that_cannot_be_read_is_no_entry(site: Site, arm: type[ScriptedArm], entry: Any) -> None:
    site.write(cache=True, cache_plugin="ansible.builtin.memory")
    plugin = inventory_loader.get("arcfleet.ssh.arc_machines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plugin), "_key", lambda *_args: "key")
        patch.setattr(type(plugin), "load_cache_plugin", lambda self: setattr(self, "_cache", {"key": entry}))
        data = InventoryData()
        plugin.parse(data, site.loader, str(site.file), cache=True)
    assert set(data.hosts) == {"web01", "db01"}


@pytest.mark.parametrize(
    ("enabled", "options", "paused"),
    [
        (True, {}, True),
        (False, {}, True),
        (True, {"hostname": "{{ arc_name }}"}, False),
        (True, {"compose": {"x": "arc_name"}}, False),
    ],
)
def test_the_garbage_collector_rests_without_templates_and_is_left_as_it_was(
    site: Site, arm: type[ScriptedArm], enabled: bool, options: dict[str, Any], paused: bool
) -> None:
    seen: list[bool] = []
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(InventoryData, "add_host", lambda *_args: seen.append(gc.isenabled()) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                site.parse(**options)
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert seen == [not paused]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups_by": ["os"]}, "groups_by"),
        ({"hostname": "hostname"}, "hostname"),
        ({"source": "arm", "filters": {"where": "true"}}, "filters.where"),
        ({"source": "arm", "management_groups": ["m"]}, "management_groups"),
        ({"source": "csv"}, "source"),
        ({"connection": "direct"}, "connection"),
        ({"auth_source": "magic"}, "auth_source"),
        ({"connection": "relay", "proxy_binary": "find", "proxy_digest": "sha256:0"}, "64 hexadecimal digits"),
        ({"connection": "relay", "proxy_digest": "sha256:" + "0" * 64}, "needs proxy_binary"),
        ({"auth_source": "credential_file", "profile": "no such"}, "credential file|no profile"),
    ],
)
def test_wrong_options_are_told_before_azure_is_asked(
    site: Site, arm: type[ScriptedArm], options: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(AnsibleError, match=words):
        site.parse(**options)
    assert arm.asked == []


def test_an_error_of_azure_is_one_sentence_and_leaves_nothing_behind(site: Site, arm: type[ScriptedArm]) -> None:
    errors = importlib.import_module("ansible_collections.arcfleet.ssh.plugins.module_utils._errors")
    arm.refusals = [
        errors.ArmError("Cannot list: Azure answers 403.", code="AuthorizationFailed", status=403, hint="Ask.")
    ]
    with pytest.raises(AnsibleParserError) as caught:
        site.parse()
    assert str(caught.value) == "Cannot list: Azure answers 403. Ask."
    assert site.manager().hosts == {}


def test_missing_python_packages_are_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module(ARM_MODULE), "MISSING", ImportError("No module named 'azure.core'"))
    with pytest.raises(AnsibleParserError, match="pip install azure-identity azure-mgmt-core requests"):
        site.parse()
