# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a machine become the right host, whatever its owner wrote into its names and tags?"""

from __future__ import annotations

import json
import re
import shlex

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._names import alias
from ansible_collections.arcfleet.ssh.plugins.module_utils._ssh_config import entry, render
from ansible_collections.arcfleet.ssh.plugins.plugin_utils._hosts import (
    GROUPINGS,
    Certificate,
    HostVars,
    Relay,
    grouping,
    host_vars,
    machine_of,
)

SUB = "11111111-2222-3333-4444-555555555555"
HOSTILE = (
    "$(touch x)",
    "`id`",
    'a"b',
    "a'b",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "a%pb",
    "a\nb",
    "-oProxyCommand=x",
    "a b",
    "a;b",
)


def machine(name: str = "web01", group: str = "arc-prod", sub: str = SUB) -> MachineId:
    return MachineId.build(sub, group, name)


def raw(name: str = "web01", **more: object) -> dict[str, object]:
    properties = {
        "status": "Connected",
        "lastStatusChange": "2026-11-01T10:00:00Z",
        "agentVersion": "1.50.03012.123",
        "osType": "Linux",
        "osName": "linux",
        "osSku": "Debian 12",
        "machineFqdn": f"{name}.example.org",
        "vmId": "0f2a",
        "agentConfiguration": {"configMode": "full", "incomingConnectionsPorts": ["22"]},
    }
    return {
        "id": f"/subscriptions/{SUB}/resourceGroups/arc-prod/providers/microsoft.hybridcompute/Machines/{name}",
        "location": "westeurope",
        "tags": {"env": "prod"},
        "properties": properties,
        "resources": [
            {
                "name": "AADSSHLogin",
                "properties": {
                    "publisher": "Microsoft.Azure.ActiveDirectory",
                    "type": "AADSSHLoginForLinux",
                    "typeHandlerVersion": "1.0.2",
                    "provisioningState": "Succeeded",
                    "enableAutomaticUpgrade": True,
                },
            }
        ],
        **more,
    }


def variables(**more: object) -> HostVars:
    return host_vars(raw(**more))


def test_a_whole_record_gives_every_variable() -> None:
    found = variables()
    assert found == {
        "arc_resource_id": str(machine()),
        "arc_name": "web01",
        "arc_resource_group": "arc-prod",
        "arc_subscription_id": SUB,
        "arc_location": "westeurope",
        "arc_status": "Connected",
        "arc_last_status_change": "2026-11-01T10:00:00Z",
        "arc_agent_version": "1.50.03012.123",
        "arc_os_type": "linux",
        "arc_os_name": "linux",
        "arc_os_sku": "Debian 12",
        "arc_fqdn": "web01.example.org",
        "arc_vm_id": "0f2a",
        "arc_kind": None,
        "arc_tags": {"env": "prod"},
        "arc_agent_config": {"configMode": "full", "incomingConnectionsPorts": ["22"]},
        "arc_extensions": [
            {
                "name": "AADSSHLogin",
                "publisher": "Microsoft.Azure.ActiveDirectory",
                "type": "AADSSHLoginForLinux",
                "version": "1.0.2",
                "provisioning_state": "Succeeded",
                "automatic_upgrade": True,
            }
        ],
    }
    assert set(found) == set(HostVars.__annotations__)


@pytest.mark.parametrize(
    "broken",
    [
        {"properties": None, "tags": None, "location": None, "resources": None},
        {"properties": [], "tags": ["x"], "location": 5, "kind": {}, "resources": "none"},
        {"properties": {"status": {}, "osType": 3, "agentConfiguration": "x", "machineFqdn": ""}, "tags": {"a": None}},
        {"resources": [None, {}, {"properties": 4}, {"name": 1, "properties": {"enableAutomaticUpgrade": "yes"}}]},
    ],
)
def test_a_half_made_record_still_gives_all_variables(broken: dict[str, object]) -> None:
    found = variables(**broken)
    assert set(found) == set(HostVars.__annotations__)
    assert json.loads(json.dumps(found)) == found
    assert all(isinstance(value, str) for value in found["arc_tags"].values())


def test_groups_are_called_after_entry_and_value() -> None:
    tell = grouping([*GROUPINGS, "tag:env", "tag:Cost Center", "tag:none"])
    found = variables(tags={"env": "Prod-1", "Cost Center": ""}, kind="HCI")
    assert tell(found) == [
        "os_type_linux",
        "os_name_linux",
        "location_westeurope",
        "resource_group_arc_prod",
        f"subscription_{SUB.replace('-', '_')}",
        "status_connected",
        "kind_hci",
        "agent_version_1_50",
        "tag_env_prod_1",
        "tag_cost_center",
    ]


def test_a_machine_without_the_property_is_in_no_group_of_it() -> None:
    assert grouping([*GROUPINGS, "tag:env"])(variables(properties={}, location=None, tags={})) == [
        "resource_group_arc_prod",
        f"subscription_{SUB.replace('-', '_')}",
    ]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_tag_gives_a_plain_group_name(value: str) -> None:
    (name,) = grouping(["tag:x"])(variables(tags={"x": value}))
    assert name.isidentifier()


@pytest.mark.parametrize("entry", ["os", "tag:", "tag", "os_type:x", ""])
def test_an_unknown_grouping_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match="groups_by"):
        grouping([entry])


def relay(**more: object) -> Relay:
    return Relay(**{"python": "/usr/bin/python3", "helper": "/c/_relay", "auth": {}, **more})  # type: ignore[arg-type]


def options(found: dict[str, object]) -> dict[str, str]:
    """The `-o` options as ssh gets them: Ansible splits the variable as a POSIX shell does."""
    words = shlex.split(str(found["ansible_ssh_common_args"]))
    assert words[::2] == ["-o"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def argv(found: dict[str, object]) -> list[str]:
    """The helper's arguments: ssh replaces its tokens, then a shell reads the command."""
    command = re.sub("%(.)", lambda token: {"p": "22", "%": "%"}[token[1]], options(found)["ProxyCommand"])
    return shlex.split(command)


def test_ssh_reaches_the_machine_through_the_helper() -> None:
    found = relay(user="ops", port=2222, private_key_file="~/.ssh/k").variables(machine("Web01"), "linux")
    assert found.pop("ansible_ssh_common_args")
    assert found == {
        "ansible_host": alias(machine("Web01")),
        "ansible_port": 2222,
        "ansible_user": "ops",
        "ansible_ssh_private_key_file": "~/.ssh/k",
        "ansible_ssh_timeout": 200,
        "ansible_ssh_retries": 1,
        "ansible_ssh_host_key_checking": True,
    }


def test_the_helper_gets_machine_port_and_login_but_no_token_is_misread() -> None:
    made = relay(python="/opt/my py/bin/100%", auth={"tenant": "t", "x509_certificate_path": "/k/a b'c.pem"})
    found = options(made.variables(machine(group="rg(1)"), "linux"))
    assert found["HostKeyAlias"] == machine(group="rg(1)").key
    assert argv(made.variables(machine(group="rg(1)"), "linux")) == [
        "/opt/my py/bin/100%",
        "/c/_relay",
        "--tenant",
        "t",
        "--x509-certificate-path",
        "/k/a b'c.pem",
        "--resource-id",
        str(machine(group="rg(1)")),
        "--port",
        "22",
        "--once",
    ]


def test_the_helper_is_told_of_microsofts_proxy() -> None:
    made = relay(auth={"tenant": "t"}, proxy_binary="/my bin/100%", proxy_digest="sha256:ab")
    assert argv(made.variables(machine(), "linux"))[2:8] == [
        "--tenant",
        "t",
        "--proxy-binary",
        "/my bin/100%",
        "--proxy-digest",
        "sha256:ab",
    ]
    # People who use plain ssh get the same.
    arguments = made.variables(machine(), "linux")["ansible_ssh_common_args"]
    written = render([entry(["web01"], machine(), arguments)], control_path=None, control_persist="no")
    assert " --proxy-binary '/my bin/100%%' --proxy-digest sha256:ab " in written


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_in_a_login_option_reaches_the_shell(value: str) -> None:
    assert argv(relay(auth={"tenant": value}).variables(machine(), None))[3] == value


def test_a_known_hosts_file_is_one_word_of_ssh_config() -> None:
    found = options(relay(known_hosts_file="/a b/100%").variables(machine(), None))
    assert found["UserKnownHostsFile"] == '"/a b/100%%"'
    assert options(relay(known_hosts_file="/a/b").variables(machine(), None))["UserKnownHostsFile"] == "/a/b"


def test_windows_is_spoken_to_in_powershell_and_absent_options_set_nothing() -> None:
    found = relay().variables(machine(), "windows")
    assert found["ansible_shell_type"] == "powershell"
    assert "ansible_user" not in found
    assert "ansible_ssh_private_key_file" not in found
    assert "UserKnownHostsFile" not in options(found)
    assert "ansible_shell_type" not in relay().variables(machine(), "linux")


def words(found: dict[str, object]) -> list[str]:
    return shlex.split(str(found["ansible_ssh_common_args"]))[1::2]


CERTIFICATE = Certificate("o'brien@contoso.example", "/c d/100%", "entra-" + "0" * 24)


def test_linux_is_logged_in_to_by_certificate_and_windows_is_not() -> None:
    made = relay(user="ops", private_key_file="~/.ssh/k", certificate=CERTIFICATE)
    for os_type in ("linux", None):
        found = made.variables(machine(), os_type)
        assert found["ansible_user"] == "o'brien@contoso.example"
        assert "ansible_ssh_private_key_file" not in found
        assert found["ansible_remote_tmp"] == "$HOME/.ansible/tmp"
        assert argv(found)[-2:] == ["--certificate", CERTIFICATE.name]
        told = [word for word in words(found) if word.startswith(("IdentityFile", "CertificateFile"))]
        assert told == [
            f'CertificateFile="/c d/100%%/{CERTIFICATE.name}-a-cert.pub"',
            f'IdentityFile="/c d/100%%/{CERTIFICATE.name}-a"',
            f'CertificateFile="/c d/100%%/{CERTIFICATE.name}-b-cert.pub"',
            f'IdentityFile="/c d/100%%/{CERTIFICATE.name}-b"',
        ]
        assert {"ProxyUseFdpass=yes", "IdentitiesOnly=yes"} <= set(words(found))
    windows = made.variables(machine(), "windows")
    assert (windows["ansible_user"], windows["ansible_ssh_private_key_file"]) == ("ops", "~/.ssh/k")
    assert "--certificate" not in argv(windows)
    assert not [word for word in words(windows) if word.startswith(("Identit", "CertificateFile", "ProxyUseFdpass"))]


def test_the_agent_s_keys_are_the_only_ones() -> None:
    assert {"IdentityFile=none", "IdentitiesOnly=no"} <= set(words(relay(agent=True).variables(machine(), "linux")))
    assert not [word for word in words(relay().variables(machine(), "linux")) if word.startswith("Identit")]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["group", "name"])
def test_an_id_that_holds_more_than_an_id_is_no_machine(text: str, place: str) -> None:
    parts = {"group": "g", "name": "n", place: f"x{text}y"}
    path = "/subscriptions/{0}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}"
    with pytest.raises(InputError):
        host_vars({"id": path.format(SUB, **parts)})


@pytest.mark.parametrize("record", [{}, {"id": None}, {"id": 5}, {"id": ["/subscriptions"]}])
def test_a_record_without_an_id_is_no_machine(record: dict[str, object]) -> None:
    with pytest.raises(InputError):
        host_vars(record)


def test_the_name_is_the_id_s_whatever_the_record_says() -> None:
    found = host_vars({**raw(), "name": "$(id) %h"})
    assert found["arc_name"] == "web01"
    assert machine_of(found) == machine()
    assert str(machine_of(found)) == found["arc_resource_id"]


def test_ten_thousand_hosts_share_the_names_of_their_variables() -> None:
    # A name made anew for each host would cost 10 MB for 10,000 of them.
    one, other = variables(), variables()
    assert all(mine is yours for mine, yours in zip(one, other, strict=True))
