# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests run a module's real `main()`, and Ansible itself, on a lab?"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import requests

from arclab.client import Lab

COLLECTIONS = pathlib.Path(sys.prefix, "collections")
BIN = pathlib.Path(sys.prefix, "bin")


def environment(lab: Lab, **more: str) -> dict[str, str]:
    """The environment of a process that uses the lab, and nothing of whoever runs the tests."""
    home = lab.state_dir / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    config = home / "ansible.cfg"
    config.touch()
    kept = {key: os.environ[key] for key in ("LANG", "LC_ALL", "TMPDIR") if key in os.environ}
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "PYTHONPATH": str(COLLECTIONS),
        **lab.env,
        **more,
    }


def module(
    lab: Lab,
    name: str,
    *,
    check: bool = False,
    env: dict[str, str] | None = None,
    **params: Any,
) -> dict[str, Any]:
    """Run the module's real `main()` in a process of its own, as Ansible would, and return its result."""
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-c", _RUN_MODULE, f"ansible_collections.arcfleet.ssh.plugins.modules.{name}"],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        env=environment(lab, **(env or {})),
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    result.pop("invocation", None)
    return result


_RUN_MODULE = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    importlib.import_module(sys.argv[1]).main()
"""


def ansible(
    lab: Lab, *command: str, env: dict[str, str] | None = None, rc: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs on the lab's inventory."""
    program, *arguments = command
    done = subprocess.run(
        [program, "-i", lab.env["ARCLAB_INVENTORY"], *arguments],
        capture_output=True,
        text=True,
        env=environment(lab, **(env or {})),
        cwd=lab.state_dir,
        timeout=300,
        check=False,
    )
    if rc is not None:
        assert done.returncode == rc, done.stdout + done.stderr
    return done


HELPER = pathlib.Path(__file__).parents[2] / "plugins" / "module_utils" / "_relay" / "_start.py"


def start_ssh(
    lab: Lab,
    machine: dict[str, Any],
    *command: str,
    program: pathlib.Path = HELPER,
    helper: Sequence[str] = (),
    options: Sequence[str] = (),
    within: Sequence[str] = (),
    stdin: Any = subprocess.PIPE,
    stdout: Any = subprocess.PIPE,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """ssh to a machine of the lab, knowing nothing but its resource id and its host key.

    `helper` are options of the relay helper, which is `program`, `options` those of ssh; `within` is a command that runs another one elsewhere.
    """
    settings = {
        "ProxyCommand": " ".join(
            [sys.executable, str(program), "--resource-id", machine["id"], "--port", "%p", *helper]
        ),
        "HostKeyAlias": machine["id"].lower(),
        "UserKnownHostsFile": lab.env["ARCLAB_KNOWN_HOSTS"],
        "StrictHostKeyChecking": "yes",
        "IdentityFile": lab.env["ARCLAB_KEY"],
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
    }
    arguments = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    return subprocess.Popen(
        [*within, "ssh", "-F", "none", *arguments, *options, "-l", lab.env["ARCLAB_USER"], machine["name"], *command],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(lab, **(env or {})),
    )


class Arm:
    """ARM as the lab's owner sees it, without a line of the collection."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = lab.env["REQUESTS_CA_BUNDLE"]
        answer = self.session.post(
            f"{lab.url}/{lab.env['AZURE_TENANT']}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": lab.env["AZURE_CLIENT_ID"],
                "client_secret": lab.env["AZURE_SECRET"],
                "scope": f"{lab.url}/.default",
            },
        )
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def ask(self, method: str, path: str, version: str, body: Any = None) -> Any:
        """The answer's JSON; anything but success fails the test."""
        answer = self.session.request(method, f"{self.lab.url}{path}?api-version={version}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = path.read_text(errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(path.parent.name))
    found: list[int] = []
    left = [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found
