# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does AWX get what docs/awx.md promises: an image that has everything, credentials that log in, and objects that are made once?"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import yaml
from awx_api import TOKEN, Awx, served
from awx_job import azure, container, synchronized
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from arclab.client import Lab
from on_lab import BIN, COLLECTIONS

# It is other programs' doing and ours, on any ansible-core.
pytestmark = pytest.mark.one_core

ROOT = pathlib.Path(__file__).parents[2]
INTROSPECT = (BIN / "ansible-builder", "introspect", COLLECTIONS)
ARC_YML = "plugin: arcfleet.ssh.arc_machines\nconnection: relay\nssh_auth: agent\n"
needs_builder = pytest.mark.skipif(
    not (BIN / "ansible-builder").exists(), reason="ansible-builder is missing: `make setup-all` installs it"
)
needs_awx = pytest.mark.skipif(
    not (COLLECTIONS / "ansible_collections/awx/awx").exists(), reason="awx.awx is missing: `make setup-all` brings it"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=2) as started:
        yield started


def run(*command: str | pathlib.Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- the image


@needs_builder
def test_builder_sees_all_that_the_collection_needs() -> None:
    found = re.findall(r"^- '(.*?)  # from collection arcfleet.ssh'$", run(*INTROSPECT), re.MULTILINE)
    listed = (ROOT / "meta" / "ee-requirements.txt").read_text("utf-8").splitlines()
    system = ["openssh-client [platform:dpkg]", "openssh-clients [platform:rpm]"]
    assert found == [line for line in listed if not line.startswith("#")] + system


@needs_builder
def test_builder_takes_the_definition_of_the_documentation(tmp_path: pathlib.Path) -> None:
    text = (ROOT / "docs" / "awx.md").read_text("utf-8")
    (definition,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "version: 3" in block]
    file, context = tmp_path / "execution-environment.yml", tmp_path / "context"
    file.write_text(definition, "utf-8")
    run(BIN / "ansible-builder", "create", "--file", file, "--context", context)
    wanted = yaml.safe_load((context / "_build" / "requirements.yml").read_text("utf-8"))
    assert wanted["collections"] == [{"name": "arcfleet.ssh"}]
    assert "RUN $PYCMD -m compileall" in (context / "Containerfile").read_text("utf-8")


# ---- the credentials


def info(lab: Lab, home: pathlib.Path, env: dict[str, str]) -> str:
    """What a module tells of the machines, in a container with these variables of Azure and no others."""
    clean = {name: value for name, value in container(lab, home).items() if not name.startswith("AZURE_")}
    arguments = json.dumps({"machines": [machine["id"] for machine in lab.machines()]})
    # Nothing but the implicit localhost, which runs modules with the Python of the execution environment.
    clean.pop("ANSIBLE_INVENTORY_UNPARSED_FAILED")
    return run(
        BIN / "ansible", "localhost", "-m", "arcfleet.ssh.arc_machine_info", "-a", arguments, env={**clean, **env}
    )


def test_the_azure_credential_of_awx_works_as_it_is(lab: Lab, tmp_path: pathlib.Path) -> None:
    # The subscription may be left empty in the credential.
    found = synchronized(lab, tmp_path / "source", ARC_YML, AZURE_SUBSCRIPTION_ID="")
    assert set(found["_meta"]["hostvars"]) == {machine["name"] for machine in lab.machines()}
    assert lab.env["AZURE_SECRET"] not in str(found)
    assert "Connected" in info(lab, tmp_path / "home", azure(lab))


def test_the_type_of_credentials_for_workload_identity_logs_in(lab: Lab, tmp_path: pathlib.Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    trusted = {"issuer": "https://cluster.example", "subject": "system:serviceaccount:awx:jobs", "public_key": public}
    principal = lab.principal("awx-jobs", roles=["Reader"], federated=[trusted])
    claims = {"iss": trusted["issuer"], "sub": trusted["subject"], "aud": "api://AzureADTokenExchange"}
    token = tmp_path / "token"
    token.write_text(jwt.encode({**claims, "exp": int(time.time()) + 600}, key, "RS256"), "utf-8")
    # As a person fills it in, with the subscription left empty; AWX renders the injectors in such an environment.
    given = {"client": principal["client_id"], "tenant": principal["tenant"], "token_file": str(token)}
    given["cloud_environment"] = lab.env["AZURE_CLOUD_ENVIRONMENT"]
    assert set(given) - {"cloud_environment"} == set(credential_type("inputs")["required"])
    jinja = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    injected = credential_type("injectors")["env"].items()
    env = {name: jinja.from_string(template).render(given) for name, template in injected}
    assert env["AZURE_SUBSCRIPTION_ID"] == ""
    assert "Connected" in info(lab, tmp_path / "home", env)


def credential_type(part: str) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        """Reads Ansible's tag for texts that are no templates."""

    Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]
    text = (ROOT / "roles" / "arc_controller" / "vars" / "main.yml").read_text("utf-8")
    found: dict[str, Any] = yaml.load(text, Loader)[f"__arc_controller_credential_{part}"]
    return found


# ---- project, inventory, job templates, schedule

CONTROLLER_YML = """
arc_controller_scm_url: https://git.example/arc.git
arc_controller_azure_credential: Azure
arc_controller_machine_credential: Key
arc_controller_image: registry.example/arcfleet-ee:1
arc_controller_credential_type: Azure workload identity
arc_controller_slices: 4
arc_controller_schedule: repair
arc_controller_notifications: [Chat]
arc_controller_extra_vars:
  arc_enforcement_report: !unsafe /var/lib/arcfleet/drift-{{ awx_job_id }}.json
"""


@needs_awx
def test_the_playbook_makes_everything_once(tmp_path: pathlib.Path) -> None:
    variables, twice = tmp_path / "controller.yml", tmp_path / "twice.yml"
    variables.write_text(CONTROLLER_YML, "utf-8")
    twice.write_text(2 * "- import_playbook: arcfleet.ssh.controller_setup\n", "utf-8")
    awx = Awx(organizations=[{"name": "Default"}], credentials=[{"name": "Azure"}, {"name": "Key"}])
    awx.create("notification_templates", {"name": "Chat"})
    with served(awx):
        env = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_PIPELINING": "1",
            "CONTROLLER_HOST": awx.url,
            "CONTROLLER_OAUTH_TOKEN": TOKEN,
        }
        output = run(BIN / "ansible-playbook", twice, "-e", f"@{variables}", env=env)
    # What the second one did would count as well.
    assert re.search(r"changed=7 .*failed=0", output), output
    assert not [path for method, path in awx.writes if method == "PATCH"] and TOKEN not in output
    kinds = {kind: len(those) for kind, those in awx.objects.items()}
    assert (kinds["job_templates"], kinds["schedules"], kinds["projects"], kinds["inventory_sources"]) == (3, 2, 1, 1)
    check(awx)


def check(awx: Awx) -> None:
    """Everything is as docs/awx.md says."""
    (inventory,), (source,), (image,) = (
        awx.objects[kind] for kind in ("inventories", "inventory_sources", "execution_environments")
    )
    assert json.loads(inventory["variables"]) == {"ansible_ssh_host_key_checking": True}
    credentials = {awx.named("credentials", name)["id"] for name in ("Azure", "Key")}
    assert source["credential"] in credentials and source["overwrite"] and source["update_on_launch"]
    for template in awx.objects["job_templates"]:
        # The inventory names paths in the image.
        assert template["execution_environment"] == source["execution_environment"] == image["id"]
        assert set(awx.associated[f"{template['url']}credentials/"]) == credentials
        assert len(awx.associated[f"{template['url']}notification_templates_error/"]) == 1
        assert template["job_slice_count"] == 4
    report, repair = (awx.named("job_templates", f"Azure Arc: {what} drift") for what in ("report", "repair"))
    path = "/var/lib/arcfleet/drift-{{ awx_job_id }}.json"
    assert json.loads(report["extra_vars"]) == {"arc_enforcement_mode": "report", "arc_enforcement_report": path}
    assert {(one["unified_job_template"], one["enabled"]) for one in awx.objects["schedules"]} == {
        (report["id"], False),
        (repair["id"], True),
    }
    (made,) = awx.objects["credential_types"]
    assert made["injectors"] == credential_type("injectors") and made["inputs"] == credential_type("inputs")
