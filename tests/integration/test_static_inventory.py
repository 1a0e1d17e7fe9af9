# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does Ansible know from a static inventory what it knew from Azure, and is nothing in there ever run?"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from on_lab import ansible, environment, module

NASTY = {
    "plain": "yes",
    "zeros": "0123",
    "quotes": 'it\'s "so" \\n',
    "lines": "one\ntwo\r\n\u2028\x85",
    "expression": "{{ lookup('pipe', 'touch /nowhere/x') }}",
    "statement": "{% for x in y %}",
    "tag": "!!python/object/apply:os.system ['true']",
    "unicode": "\u00fcml\u00e4ut \U0001f600",
    "numbers": [1, 1e-7, 2**70, True, None],
    "{{ 1 + 1 }}": "a key",
    "yes": {"~": {"!!python/name:os.system": "deep"}},
}


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "inventory"
    folder.mkdir(mode=0o700)
    return folder / "arc.yml"


def on(inventory, lab, *command):
    """The output of one of Ansible's programs on this inventory alone."""
    program, *arguments = command
    done = subprocess.run(
        [program, "-i", str(inventory), *arguments],
        capture_output=True,
        text=True,
        env=environment(lab),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return done.stdout


def told(value):
    """The values without the mark that ansible-inventory puts on data."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe", {name: told(one) for name, one in value.items()})
    return [told(one) for one in value] if isinstance(value, list) else value


def test_ansible_uses_exactly_what_was_written_and_runs_none_of_it(lab, path, tmp_path):
    hosts = {"web01": {"nasty": NASTY, "arc_fqdn": None}, "db01": {}}
    arguments = {"path": str(path), "hosts": hosts, "groups": {"web": ["web01"], "all": ["web01", "db01"]}}
    predicted = module(lab, "arc_static_inventory", check=True, **arguments)
    assert not path.exists()
    done = module(lab, "arc_static_inventory", **arguments)
    assert predicted.items() <= done.items()
    assert (done["summary"]["created"], done["mode"]) == (2, "0600")
    assert not module(lab, "arc_static_inventory", **arguments)["changed"]

    listed = json.loads(on(path, lab, "ansible-inventory", "--list"))
    assert listed["_meta"]["hostvars"]["web01"]["arc_fqdn"] is None
    assert listed["web"]["hosts"] == ["web01"]
    # What a task makes of it, which is where a template would be run.
    used = tmp_path / "used.json"
    python = ("-e", f"ansible_python_interpreter={sys.executable}")
    copy = json.dumps({"dest": str(used), "content": "{{ nasty | to_json }}"})
    on(path, lab, "ansible", "web01", *python, "-c", "local", "-m", "ansible.builtin.copy", "-a", copy)
    assert json.loads(used.read_text(encoding="utf-8")) == NASTY

    assert module(lab, "arc_static_inventory", path=str(path), state="absent")["summary"]["deleted"] == 2
    assert not path.exists()
    refused = module(
        lab, "arc_static_inventory", path=str(path), hosts={"web01": {"ansible_become_password": "hunter2"}}
    )
    assert refused["failed"]
    assert "ansible_become_password" in refused["msg"]
    assert "hunter2" not in json.dumps(refused["diff"] if "diff" in refused else refused["msg"])


@pytest.mark.one_core
def test_the_playbook_writes_what_the_inventory_of_azure_says(lab, path):
    options = {
        "arc_connection_path": str(path.parent / "arcfleet.conf"),
        "arc_connection_config": str(path.parent / "config"),
        "arc_connection_control_persist": "no",
        "arc_connection_inventory": str(path),
    }
    command = ("ansible-playbook", "arcfleet.ssh.connect", "-e", json.dumps(options))
    assert "changed=2" in ansible(lab, *command).stdout
    dynamic = json.loads(ansible(lab, "ansible-inventory", "--list").stdout)
    static = json.loads(on(path, lab, "ansible-inventory", "--list"))
    assert static["_meta"]["hostvars"] == told(dynamic["_meta"]["hostvars"])
    for group, content in dynamic.items():
        if content.get("hosts") and group not in ("_meta", "all", "ungrouped"):
            assert static[group]["hosts"] == content["hosts"]
