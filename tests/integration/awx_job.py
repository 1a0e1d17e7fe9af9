# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What do AWX and Ansible Automation Platform hand to ansible-runner, for the inventory and for each job of a sliced run?

Read in AWX's sources (24.6): the inventory is `ansible-inventory --list --export`, kept in a database; a job's is a script that prints what is kept of
its own hosts, `hosts[number - 1 :: count]` of all in the order of their names, and of all groups. The key of the machine credential goes to an
ssh-agent, its user is `-u`, and ANSIBLE_HOST_KEY_CHECKING is False. Imitated without containers: each job has a home directory of its own instead.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from arclab.client import Lab
from on_lab import environment

# What the credential type "Microsoft Azure Resource Manager" injects for a service principal; fields left empty are empty texts.
AZURE = ("AZURE_SUBSCRIPTION_ID", "AZURE_CLIENT_ID", "AZURE_TENANT", "AZURE_SECRET", "AZURE_CLOUD_ENVIRONMENT")
# What AWX sets for every job.
ANSIBLE = {"ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True"}


def container(lab: Lab, home: pathlib.Path, **more: str) -> dict[str, str]:
    """The environment in an execution environment, with the credential that the lab's owner made in AWX."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    inside = environment(lab)
    kept = {name: value for name, value in inside.items() if not name.startswith(("AZURE_", "ARCLAB_", "XDG_"))}
    return {**kept, "HOME": str(home), "ANSIBLE_HOME": str(home / ".ansible"), **ANSIBLE, **azure(lab), **more}


def azure(lab: Lab) -> dict[str, str]:
    return {name: lab.env[name] for name in AZURE}


def synchronized(lab: Lab, folder: pathlib.Path, arc_yml: str, **more: str) -> dict[str, Any]:
    """The inventory after a synchronization of its source, as AWX keeps it."""
    folder.mkdir()
    source, output = folder / "arc.yml", folder / "output.json"
    source.write_text(arc_yml, "utf-8")
    command = ["ansible-inventory", "--list", "--export", "-i", source, "--output", output, "--playbook-dir", folder]
    env = container(lab, folder / "home", **more)
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(output.read_text("utf-8"))
    return found


def sliced(inventory: Mapping[str, Any], number: int, count: int, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory of job `number` of `count`; `variables` are those of AWX's inventory."""
    kept = inventory["_meta"]["hostvars"]
    hosts = sorted(kept)[number - 1 :: count]
    groups = {name: group for name, group in inventory.items() if name not in ("_meta", "all", "ungrouped")}
    members = {name: [host for host in group.get("hosts", []) if host in hosts] for name, group in groups.items()}
    grouped = {host for those in members.values() for host in those}
    return {
        "all": {
            "hosts": [host for host in hosts if host not in grouped],
            "children": list(groups),
            "vars": dict(variables),
        },
        **{name: {**groups[name], "hosts": those} for name, those in members.items() if those},
        "_meta": {"hostvars": {host: {**kept[host], "remote_tower_enabled": "true"} for host in hosts}},
    }


class Job:
    """One job: a private data directory, and ansible-runner at work on it. The report of `enforce` would be `drift.json` there."""

    def __init__(self, lab: Lab, folder: pathlib.Path, inventory: Mapping[str, Any], play: str, *args: str) -> None:
        self.report = folder / "drift.json"
        project, script = folder / "project", folder / "inventory" / "hosts"
        for directory in (project, script.parent, folder / "env"):
            directory.mkdir(parents=True)
        (project / "site.yml").write_text(play, "utf-8")
        script.write_text(f"#! /usr/bin/env python3\nprint({json.dumps(inventory)!r})\n", "utf-8")
        script.chmod(0o700)
        (folder / "env" / "cmdline").write_text(f"-u {lab.env['ARCLAB_USER']} {' '.join(args)}", "utf-8")
        (folder / "env" / "extravars").write_text(json.dumps({"arc_enforcement_report": str(self.report)}), "utf-8")
        key = folder / "env" / "ssh_key"
        key.touch(0o600)
        key.write_text(pathlib.Path(lab.env["ARCLAB_KEY"]).read_text("utf-8"), "utf-8")
        # AWX's is /runner/cp: the name of a socket has little room.
        self._sockets = tempfile.TemporaryDirectory(prefix="cp-")
        self._process = subprocess.Popen(
            ["ansible-runner", "run", folder, "--playbook", "site.yml", "--ident", "job"],
            env=container(lab, folder / "home", ANSIBLE_SSH_CONTROL_PATH_DIR=self._sockets.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Exit status and output, when it has ended."""
        try:
            output, dummy = self._process.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._sockets.cleanup()
        return self._process.returncode, output
