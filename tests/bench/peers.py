# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do the tools that users have today run on a lab?

azure.azcollection with its own pinned requirements, and azure-cli: each in a virtual environment of its own under
.cache/bench, because they do not go together and because nothing of them may get into ours. Nothing of theirs is
changed: both learn about the lab through azure-cli-core's variable ARM_CLOUD_METADATA_URL, which is the only way since
azcollection resolves a URL in `cloud_environment` among the known clouds only (azure_rm_common.py,
`_get_cloud_from_metadata_endpoint`). Microsoft's closed proxy is a stand-in file: azure_rm_arcssh only looks whether it
is there. The collection comes out of the newest community package; the wheel itself needs a newer Python than 3.11.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import community
from harness import Broken, Settings

from arclab.client import Lab

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"
COMMUNITY_PACKAGE = "ansible==14.5.0"
NEEDS_PYTHON = "3.12"
AZURE_CLI = "azure-cli==2.91.0"
INSTALL_TIMEOUT = 1200.0
_COLLECTION = Path("ansible_collections", "azure", "azcollection")
# azure.azcollection's plugin_utils/constants.py and connectivity_utils.py.
_PROXY = "sshProxy_linux_{}_1_3_026973"

_INVENTORY = """\
plugin: azure.azcollection.azure_rm
auth_source: env
include_vm_resource_groups: []
include_arc_resource_groups: ["*"]
plain_host_names: true
"""


class Missing(Broken):
    """A peer cannot be made to run here; the message says why."""


# ---- installation


def azcollection(settings: Settings) -> Path:
    """The folder of programs of azcollection's virtual environment."""
    core = f"ansible-core=={importlib.metadata.version('ansible-core')}"
    place = CACHE / "azcollection"
    requirements = CACHE / "collections" / _COLLECTION / "requirements.txt"

    def install() -> None:
        _unpack_collection()
        _pip(place, "install", core, "-r", str(requirements))
        _run([str(place / "bin" / "python"), "-m", "compileall", "-q", str(CACHE / "collections")])

    return _ready(settings, place, [core, COMMUNITY_PACKAGE, platform.python_version()], install)


def azure_cli(settings: Settings) -> Path:
    """The folder of programs of azure-cli's virtual environment."""
    place = CACHE / "azure-cli"
    return _ready(settings, place, [AZURE_CLI, platform.python_version()], lambda: _pip(place, "install", AZURE_CLI))


def _ready(settings: Settings, place: Path, wanted: Sequence[str], install: Callable[[], None]) -> Path:
    """A virtual environment that holds what is wanted; its stamp is written last."""
    stamp = place / "installed.json"
    if stamp.exists() and json.loads(stamp.read_text("utf-8")) == list(wanted):
        return place / "bin"
    if settings.quick:
        raise Missing(f"{place.name} is not installed, and a quick run installs nothing")
    venv.create(place, clear=True, with_pip=True, symlinks=True)
    install()
    stamp.write_text(json.dumps(list(wanted)), "utf-8")
    return place / "bin"


def _unpack_collection() -> None:
    """Only the collection out of the community package of 500 MB."""
    try:
        community.unpack(COMMUNITY_PACKAGE, NEEDS_PYTHON, ["azure.azcollection"], CACHE / "collections")
    except community.Unavailable as exc:
        raise Missing(str(exc)) from exc


def _pip(place: Path, *arguments: str) -> None:
    flags = ["--quiet", "--no-input", "--disable-pip-version-check"]
    _run([str(place / "bin" / "python"), "-m", "pip", arguments[0], *flags, *arguments[1:]])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise Missing(f"`{' '.join(command[1:4])}` took longer than {INSTALL_TIMEOUT:g} s") from exc
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise Missing(f"`{' '.join(command[1:4])} … {command[-1]}` failed")


def versions() -> str:
    """What the peers are, for the notes of a table."""
    manifest = CACHE / "collections" / _COLLECTION / "MANIFEST.json"
    found = json.loads(manifest.read_text("utf-8"))["collection_info"]["version"] if manifest.exists() else "absent"
    return (
        f"azure.azcollection {found} (of the community package {COMMUNITY_PACKAGE.replace('==', ' ')}) with its own "
        f"requirements.txt, on the same Python and ansible-core as ours; {AZURE_CLI.replace('==', ' ')}"
    )


# ---- running


def environment(lab: Lab, programs: Path) -> dict[str, str]:
    """The variables of a peer's process on a lab; its home is in the lab's state directory."""
    home = lab.state_dir / f"home-{programs.parent.name}"
    home.mkdir(mode=0o700, exist_ok=True)
    config = home / "ansible.cfg"
    config.touch()
    return {
        **{key: os.environ[key] for key in ("LANG", "LC_ALL", "TMPDIR") if key in os.environ},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_HOME": str(home / ".ansible"),
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_COLLECTIONS_PATH": str(CACHE / "collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "AZURE_CONFIG_DIR": str(home / ".azure"),
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "AZURE_CORE_CHECK_FOR_UPDATES": "false",
        # Two names for one thing: Entra is not asked which clouds exist, so that nothing leaves this machine.
        "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        "AZURE_DISABLE_INSTANCE_DISCOVERY": "true",
        **lab.env,
        "ARM_CLOUD_METADATA_URL": f"{lab.url}/metadata/endpoints?api-version=2019-05-01",
    }


def azure_rm_inventory(settings: Settings, lab: Lab) -> tuple[list[str], dict[str, str]]:
    """azcollection's listing of the lab's Arc machines: command and environment. Raises Missing."""
    programs = azcollection(settings)
    return (
        [str(programs / "ansible-inventory"), "-i", str(_inventory(lab)), "--list"],
        environment(lab, programs),
    )


def _inventory(lab: Lab) -> Path:
    path = lab.state_dir / "peer.azure_rm.yml"
    path.write_text(_INVENTORY, "utf-8")
    return path


def azure_rm_arcssh(settings: Settings, lab: Lab, machines: int) -> tuple[list[str], dict[str, str]]:
    """azcollection's documented loop over the first machines, with one ssh configuration for each of them."""
    folder = lab.state_dir / "peer-arcssh"
    proxy = folder / "proxy"
    proxy.mkdir(mode=0o700, parents=True, exist_ok=True)
    architecture = "arm64" if platform.machine() in ("arm64", "aarch64") else "amd64"
    stand_in = proxy / _PROXY.format(architecture)
    stand_in.write_text("#!/bin/sh\nexit 1\n", "utf-8")
    stand_in.chmod(0o700)
    task = {
        "azure.azcollection.azure_rm_arcssh": {
            "inventory_hostname": "{{ item }}",
            "ansible_host": "{{ hostvars[item].resource_group }}-{{ item }}",
            "local_user": lab.env["ARCLAB_USER"],
            "port": 22,
            "resource_group": "{{ hostvars[item].resource_group }}",
            "resource_type": "{{ hostvars[item].resource_type }}",
            "private_key_file": lab.env["ARCLAB_KEY"],
            "ssh_config_file": f"{folder}/{{{{ item }}}}/ssh_config",
            "ssh_relay_file": f"{folder}/{{{{ item }}}}/relay_info",
            "ssh_proxy_folder": str(proxy),
        }
    }
    return _loop(settings, lab, "arcssh", task, machines)


def azure_rm_arcmachineextensions(
    settings: Settings, lab: Lab, machines: int, publisher: str, extension: str
) -> tuple[list[str], dict[str, str]]:
    """azcollection's module in a loop over the first machines."""
    task = {
        "azure.azcollection.azure_rm_arcmachineextensions": {
            "name": extension,
            "machine_name": "{{ item }}",
            "resource_group": "{{ hostvars[item].resource_group }}",
            "location": "{{ hostvars[item].location }}",
            "properties": {"publisher": publisher, "type": extension},
        }
    }
    return _loop(settings, lab, "extensions", task, machines)


def _loop(
    settings: Settings, lab: Lab, name: str, task: Mapping[str, object], machines: int
) -> tuple[list[str], dict[str, str]]:
    """A play on localhost with one looped task; JSON is YAML."""
    programs = azcollection(settings)
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [{**task, "loop": f"{{{{ (groups.all | sort)[:{machines}] }}}}"}],
    }
    path = lab.state_dir / f"peer-{name}-{machines}.yml"
    path.write_text(json.dumps([play]), "utf-8")
    return (
        [str(programs / "ansible-playbook"), "-i", str(_inventory(lab)), str(path)],
        environment(lab, programs),
    )


def az_rest(
    settings: Settings, lab: Lab, requests: Sequence[tuple[str, str, str | None]]
) -> tuple[list[str], dict[str, str]]:
    """`az rest` for one request (method, path with query, body) after the other, as a shell script; logged in already."""
    programs = azure_cli(settings)
    env = environment(lab, programs)
    az = str(programs / "az")
    login = [az, "login", "--service-principal", "--username", env["AZURE_CLIENT_ID"], "--tenant", env["AZURE_TENANT"]]
    # The argument after an @ is the name of a file: the secret stays out of the command line.
    secret = lab.state_dir / "az-secret"
    secret.touch(0o600)
    secret.write_text(env["AZURE_SECRET"], "utf-8")
    done = subprocess.run(
        [*login, "--password", f"@{secret}", "--output", "none"], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"az cannot log in to the lab: {done.stderr.strip()[-300:]}")
    lines = ["set -e"]
    for method, path, body in requests:
        extra = f" --body '{body}'" if body else ""
        lines.append(f"'{az}' rest --method {method} --url '{path}'{extra} --output none")
    script = lab.state_dir / "az.sh"
    script.write_text("\n".join(lines) + "\n", "utf-8")
    return ["sh", str(script)], env
