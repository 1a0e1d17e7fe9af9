# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the role do the right things in the right order on a Windows machine?

Ansible itself runs the role; what it meets is windows_machine.py instead of the modules of ansible.windows, of this collection's modules
for Azure, and of the ssh program. So this tests the order, the conditions and the texts, and not PowerShell.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import windows_machine
import yaml
from windows_machine import machine, way_back

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "arc_sshd"
MODEL = pathlib.Path(windows_machine.__file__)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJWGz1w3m2n3ijCvdqOBqpeEo6z6zzicRakVMQ6npTmI fleet"
MACHINE_ID = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/win01"
VARIABLES = {
    "arc_sshd_settings": {},
    "arc_sshd_profile": "none",
    "arc_sshd_listen": "any",
    "arc_sshd_way_back": 30,
    "arc_sshd_authorized_keys": [],
    "arc_sshd_findings": "report",
    "arc_sshd_windows_install": "capability",
    "arc_sshd_windows_source": "",
    "arc_sshd_windows_shell": "powershell",
    "arc_sshd_windows_firewall": "left",
}
# What waits for a connection that will not come does not wait for long.
IMPATIENT = ("-e", "__arc_sshd_windows_patience=1")
BLOCK = "# BEGIN arcfleet.ssh\r\n# Kept by the role arcfleet.ssh.arc_sshd, which replaces whatever is changed here.\r\n"


def _collections(place: pathlib.Path) -> pathlib.Path:
    """A folder of collections in which only the role and the filters are real."""
    windows = place / "ansible_collections" / "ansible" / "windows" / "plugins" / "modules"
    ours = place / "ansible_collections" / "arcfleet" / "ssh"
    for name in windows_machine.OPTIONS:
        modules = ours / "plugins" / "modules" if name.startswith("arc_") else windows
        modules.mkdir(parents=True, exist_ok=True)
        (modules / f"{name}.py").write_text(
            # With its arguments in its text a module needs one ssh, and with a file for them it needs six.
            "#!/usr/bin/python\n# <<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>\nimport sys\n"
            f"sys.path.insert(0, {str(MODEL.parent)!r})\nimport windows_machine\n"
            f'windows_machine.run_module({name!r}, "<<INCLUDE_ANSIBLE_MODULE_COMPLEX_ARGS>>")\n',
            encoding="utf-8",
        )
    (ours / "roles").symlink_to(ROOT / "roles")
    (ours / "plugins" / "filter").symlink_to(ROOT / "plugins" / "filter")
    (ours / "plugins" / "module_utils").symlink_to(ROOT / "plugins" / "module_utils")
    (ours / "meta").symlink_to(ROOT / "meta")
    return place


class Site:
    """One Windows machine and the controller that manages it."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place = place
        self.file = place / "machine.json"
        self.collections = _collections(place / "collections")
        self.ssh = place / "ssh"
        self.ssh.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {MODEL} ssh "$@"\n', encoding="utf-8")
        self.ssh.chmod(0o755)
        (place / "ansible.cfg").touch()

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.file.read_text(encoding="utf-8"))

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(value), encoding="utf-8")

    def run(self, *arguments: str, tasks_from: str = "windows", **variables: Any) -> tuple[dict[str, int], str]:
        """Run the role on the machine. The numbers of the recap, and the output."""
        host = {
            "ansible_connection": "ssh",
            "ansible_port": 22,
            "ansible_ssh_executable": str(self.ssh),
            "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s",
            "ansible_ssh_transfer_method": "piped",
            "ansible_pipelining": True,
            "ansible_python_interpreter": sys.executable,
            # There is no SYSTEM here.
            "ansible_become": False,
            "arc_os_type": "windows",
            "arc_resource_id": MACHINE_ID,
            **VARIABLES,
            **variables,
        }
        (self.place / "inventory.json").write_text(json.dumps({"all": {"hosts": {"win01": host}}}), encoding="utf-8")
        task = {"ansible.builtin.include_role": {"name": "arcfleet.ssh.arc_sshd", "tasks_from": tasks_from}}
        (self.place / "site.yml").write_text(
            json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]), encoding="utf-8"
        )
        for connection in self.place.glob("machine.json.connection-*"):
            connection.unlink()
        done = subprocess.run(
            # The shell here is sh, whatever the role makes of it.
            ["ansible-playbook", "-i", "inventory.json", "site.yml", "-e", "ansible_shell_type=sh", *arguments],
            cwd=self.place,
            env={
                "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.place),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": str(self.place / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "False",
                windows_machine.STATE: str(self.file),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        recap = [line for line in output.splitlines() if line.startswith("win01 ")]
        assert recap, output
        numbers = {name: int(value) for name, value in (word.split("=") for word in recap[-1].split(":")[1].split())}
        return numbers, output


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site(tmp_path)


def test_a_machine_without_openssh_is_predicted_then_made_then_left_alone(site: Site) -> None:
    virgin = machine(
        installed=False,
        running=False,
        listening=[],
        config="",
        shell="",
        firewall=None,
        always_reachable=True,
        start_mode="",
    )
    site.state = virgin
    predicted, output = site.run("--check", arc_sshd_authorized_keys=[KEY])
    assert (predicted["changed"], predicted["failed"]) == (1, 0), output
    assert site.state == virgin

    made, output = site.run(arc_sshd_authorized_keys=[KEY])
    assert made["failed"] == 0, output
    state = site.state
    assert state["journal"] == ["install", "service", "keys", "protect", "shell", "change 22", "confirm"]
    assert state["keys"] == f"{KEY}\n"
    assert (
        state["config"] == f"{BLOCK}MaxStartups 100:30:300\r\n# END arcfleet.ssh\r\n{windows_machine.CAPABILITY_CONFIG}"
    )

    again, output = site.run(arc_sshd_authorized_keys=[KEY])
    assert (again["changed"], again["failed"]) == (0, 0), output
    assert site.state == state


@pytest.mark.one_core
def test_an_openssh_that_is_installed_and_stopped_gets_protected_before_it_is_started(site: Site) -> None:
    site.state = machine(
        running=False, start_mode="Disabled", listening=[], exposed=[r"C:\ProgramData\ssh\logs"], always_reachable=True
    )
    numbers, output = site.run(arc_sshd_windows_install="none")
    assert numbers["failed"] == 0, output
    assert site.state["journal"][:2] == ["protect", "service"]
    assert site.state["listening"] == [22]


@pytest.mark.one_core
def test_a_missing_server_that_shall_not_be_installed_fails_with_the_remedy(site: Site) -> None:
    site.state = machine(installed=False, listening=[], always_reachable=True)
    numbers, output = site.run(arc_sshd_windows_install="none")
    assert numbers["failed"] == 1
    assert "windows_extension" in output
    assert site.state["journal"] == []


@pytest.mark.one_core
def test_check_mode_predicts_a_change_of_the_configuration_and_makes_none(site: Site) -> None:
    site.state = before = machine()
    numbers, output = site.run("--check", arc_sshd_settings={"LoginGraceTime": 30}, arc_sshd_port=2222)
    assert numbers["failed"] == 0, output
    assert numbers["changed"] == 2, output  # sshd_config and Azure's port
    assert site.state == before


@pytest.mark.one_core
def test_a_setting_that_sshd_refuses_changes_nothing(site: Site) -> None:
    site.state = before = machine(refuses="Nonsense")
    numbers, output = site.run(arc_sshd_settings={"Nonsense": "yes"})
    assert numbers["failed"] == 1
    assert "Nothing was changed" in output
    assert site.state == before


@pytest.mark.one_core
def test_options_that_would_break_the_block_are_refused(site: Site) -> None:
    site.state = before = machine()
    numbers, output = site.run(
        arc_sshd_settings={"Match": "x", "include": "x", "Port": 1, "ListenAddress": "x", "LogLevel": "INFO"}
    )
    assert numbers["failed"] == 1
    assert "arc_sshd_settings has Match, include, Port, ListenAddress, which" in output
    assert site.state == before


@pytest.mark.one_core
def test_a_change_that_silences_sshd_is_not_confirmed_and_goes_back_by_itself(site: Site) -> None:
    site.state = before = machine(silent_after_change=True)
    numbers, output = site.run(*IMPATIENT, arc_sshd_settings={"MaxAuthTries": 6})
    assert numbers["failed"] == 1, output
    assert "puts the configuration from before back by itself, 30 seconds after the change" in output
    state = site.state
    assert state["saved"] == before["config"]
    assert "confirm" not in state["journal"]

    way_back(state)
    site.state = state
    numbers, output = site.run(arc_sshd_settings={"MaxAuthTries": 6})
    assert numbers["failed"] == 0, output
    assert "MaxAuthTries 6" in site.state["config"]
    assert site.state["saved"] is None


@pytest.mark.one_core
def test_a_run_killed_before_it_confirmed_is_confirmed_by_the_next_one(site: Site) -> None:
    site.state = machine()
    site.run()
    state = site.state
    site.state = {**state, "saved": windows_machine.CAPABILITY_CONFIG, "journal": []}
    numbers, output = site.run()
    assert (numbers["changed"], numbers["failed"]) == (0, 0), output
    assert site.state["journal"] == ["confirm"]
    assert site.state["saved"] is None


def test_a_port_changes_in_the_safe_order_and_other_port_lines_do_not_stay(site: Site) -> None:
    config = "Port 22\r\nListenAddress 0.0.0.0\r\n"
    site.state = machine(config=config)
    numbers, output = site.run(arc_sshd_port=2222)
    assert numbers["failed"] == 0, output
    state = site.state
    assert state["journal"] == ["change 2222 22", "confirm", "azure 2222", "change 2222", "confirm"]
    assert state["listening"] == [2222]
    assert state["config"].endswith("#arcfleet.ssh# Port 22\r\nListenAddress 0.0.0.0\r\n")

    again, output = site.run(arc_sshd_port=2222, ansible_port=2222)
    assert (again["changed"], again["failed"]) == (0, 0), output

    # The inventory was not changed yet: the old port is dead, and Azure does not lead to it either.
    back, output = site.run(arc_sshd_port=22, ansible_port=2222)
    assert back["failed"] == 0, output
    assert site.state["listening"] == [22]
    assert site.state["config"].endswith(f"# END arcfleet.ssh\r\n{config}")
    assert site.state["config"].count("Port ") == 1


@pytest.mark.one_core
def test_a_port_that_cannot_be_reached_is_taken_back_in_azure_and_the_old_one_stays(site: Site) -> None:
    site.state = machine(blocked_ports=[2222])
    numbers, output = site.run(*IMPATIENT, arc_sshd_port=2222)
    assert numbers["failed"] == 1, output
    assert "Azure relays to port 22 again" in output
    state = site.state
    assert state["journal"] == ["change 2222 22", "confirm", "azure 2222", "azure 22"]
    assert sorted(state["listening"]) == [22, 2222]

    numbers, output = site.run()
    assert numbers["failed"] == 0, output
    assert site.state["listening"] == [22]


@pytest.mark.one_core
def test_a_port_change_killed_halfway_is_ended_by_the_next_run(site: Site) -> None:
    site.state = machine()
    site.run(arc_sshd_port=2222)
    done = site.state
    # Killed after Azure changed over: the old port is still open beside the new one.
    halfway = done["config"].replace("Port 2222\r\n", "Port 2222\r\nPort 22\r\n")
    site.state = {**done, "config": halfway, "listening": [2222, 22], "journal": []}
    numbers, output = site.run(arc_sshd_port=2222, ansible_port=2222)
    assert numbers["failed"] == 0, output
    assert site.state["journal"] == ["change 2222", "confirm"]
    assert site.state["config"] == done["config"]


@pytest.mark.one_core
def test_what_we_set_goes_and_the_connection_goes_back_to_the_port_of_others(site: Site) -> None:
    config = "Port 22\r\nListenAddress 0.0.0.0\r\n"
    site.state = {**machine(config=config), "journal": []}
    site.run(arc_sshd_port=2222, arc_sshd_profile="hardened", arc_sshd_authorized_keys=[KEY])
    keys = site.state["keys"]
    numbers, output = site.run(arc_sshd_state="absent", arc_sshd_port=2222, ansible_port=2222)
    assert numbers["failed"] == 0, output
    assert (site.state["config"], site.state["listening"], site.state["keys"]) == (config, [22], keys)
    assert site.state["journal"][-4:] == ["confirm", "azure 22", "change 22", "confirm"]

    again, output = site.run(arc_sshd_state="absent", arc_sshd_port=2222)
    assert (again["changed"], again["failed"]) == (0, 0), output


@pytest.mark.one_core
def test_a_configuration_that_is_not_in_force_is_put_in_force(site: Site) -> None:
    site.state = machine()
    site.run()
    state = site.state
    site.state = {**state, "listening": [2200], "journal": [], "always_reachable": True}
    numbers, output = site.run()
    assert numbers["failed"] == 0, output
    assert site.state["journal"] == ["change 22", "confirm"]
    assert site.state["config"] == state["config"]


@pytest.mark.one_core
def test_a_connection_from_elsewhere_does_not_cut_itself(site: Site) -> None:
    site.state = machine(through_loopback=False)
    numbers, output = site.run(arc_sshd_windows_firewall="disabled", arc_sshd_listen="loopback")
    assert numbers["failed"] == 1
    assert "arc_sshd_windows_firewall: disabled and arc_sshd_listen: loopback would cut it" in output.replace("\n", " ")
    assert site.state["firewall"] is True
    assert site.state["journal"] == []


@pytest.mark.one_core
def test_over_the_relay_everybody_else_is_shut_out_and_let_in_again(site: Site) -> None:
    config = f"ListenAddress 10.0.0.4\r\n{windows_machine.CAPABILITY_CONFIG}"
    site.state = machine(config=config)
    numbers, output = site.run(arc_sshd_windows_firewall="disabled", arc_sshd_listen="loopback")
    assert numbers["failed"] == 0, output
    assert site.state["firewall"] is False
    assert "ListenAddress 127.0.0.1\r\nListenAddress ::1\r\n" in site.state["config"]
    assert "\r\n#arcfleet.ssh# ListenAddress 10.0.0.4\r\n" in site.state["config"]

    numbers, output = site.run()
    assert numbers["failed"] == 0, output
    assert site.state["config"].endswith(f"# END arcfleet.ssh\r\n{config}")


@pytest.mark.one_core
def test_a_key_file_in_utf_16_is_mended_and_keys_are_added_once(site: Site) -> None:
    other = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ someone"
    site.state = machine(keys=f"\ufeff{other}\r\n", keys_marked=True)
    numbers, output = site.run(arc_sshd_authorized_keys=[KEY, f"{other} else"])
    assert numbers["failed"] == 0, output
    assert site.state["keys"] == f"{other}\n{KEY}\n"
    assert site.state["exposed"] == []


@pytest.mark.one_core
def test_what_is_no_key_is_refused(site: Site) -> None:
    site.state = before = machine()
    numbers, output = site.run(arc_sshd_authorized_keys=["~/.ssh/id_ed25519.pub"])
    assert numbers["failed"] == 1
    assert "has to be one public key" in output
    assert site.state == before


@pytest.mark.one_core
def test_lines_that_keep_users_out_are_reported_or_fail(site: Site) -> None:
    shipped = 'AllowGroups administrators "openssh users"\r\n'
    site.state = machine(config=f"{shipped}DenyUsers fleet\r\nMatch User x\r\n  AllowUsers y\r\n")
    numbers, output = site.run(arc_sshd_findings="fail")
    assert numbers["failed"] == 1
    assert "sshd_config says DenyUsers fleet." in output
    site.state = machine(config=shipped)
    numbers, output = site.run(arc_sshd_findings="fail")
    assert numbers["failed"] == 0, output


@pytest.mark.one_core
def test_another_connection_than_ssh_does_not_take_its_port_for_sshds(site: Site) -> None:
    site.state = machine()
    numbers, output = site.run(ansible_connection="local", ansible_port=5986, arc_sshd_port=5986)
    assert numbers["failed"] == 0, output
    assert "Port 5986" not in site.state["config"]


def test_the_extension_is_installed_once_for_windows_machines_only(site: Site) -> None:
    site.state = machine(extension_fails=["win01"])
    numbers, output = site.run(tasks_from="windows_extension")
    assert site.state["journal"] == ["extension win01"]
    assert numbers["failed"] == 1
    assert "The extension failed. Look at its log." in output
    site.state = machine()
    numbers, output = site.run(tasks_from="windows_extension", arc_os_type="linux")
    assert numbers["failed"] == 0, output
    assert site.state["journal"] == []


@pytest.mark.one_core
@pytest.mark.parametrize("shell", ["cmd", "keep"])
def test_the_shell_of_sessions_is_a_choice(site: Site, shell: str) -> None:
    site.state = before = machine()
    numbers, output = site.run(arc_sshd_windows_shell=shell)
    assert numbers["failed"] == 0, output
    assert site.state["shell"] == {"cmd": r"C:\Windows\System32\cmd.exe", "keep": before["shell"]}[shell]


def test_the_profile_hardens_and_leaves_forwarding_and_own_settings_win(site: Site) -> None:
    site.state = machine(version="9.8.1.0")
    numbers, output = site.run(
        arc_sshd_profile="hardened", arc_sshd_settings={"MaxAuthTries": 8, "AllowGroups": ["a", "b"]}
    )
    assert numbers["failed"] == 0, output
    block = site.state["config"].split("# END")[0].splitlines()[2:]
    assert block == [
        "AllowAgentForwarding no",
        "AllowGroups a",
        "AllowGroups b",
        "AllowTcpForwarding yes",
        "LoginGraceTime 60",
        "MaxAuthTries 8",
        "MaxStartups 100:30:300",
        "PermitEmptyPasswords no",
        "PerSourcePenaltyExemptList 127.0.0.0/8,::1/128",
    ]


@pytest.mark.one_core
def test_the_role_describes_every_variable_that_windows_reads() -> None:
    sources = [*ROLE.glob("tasks/windows*.yml"), *ROLE.glob("templates/windows*.j2"), ROLE / "vars" / "windows.yml"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in sources)
    # Facts that the tasks set for other roles, and what they register, are no options.
    own = set(re.findall(r"register: (\w+)", text)) | set(re.findall(r"^ +(arc_sshd_\w+): \"\{\{", text, re.MULTILINE))
    read = set(re.findall(r"(?<![\w.])arc_sshd_\w+", text)) - own
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    described = {name for entry in specs.values() for name in entry.get("options", {})}
    assert read <= described
    assert set(VARIABLES) <= described
