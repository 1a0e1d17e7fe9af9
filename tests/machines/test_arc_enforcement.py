# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the scheduled job, installed by the role on a machine with systemd, do its work unattended, and is seen when it does not?

The machine is the controller and the fleet: it reaches the lab's ARM at the address that everybody uses, through a forwarder. Ansible and what it needs
are installed on it from wheels that are packed from this virtual environment, so there is no network but loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest
from packaging.requirements import Requirement

from on_lab import Arm, ansible

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "ctl01"
UNIT = "arcfleet-enforcement"
STATE = "/var/lib/arcfleet-enforcement/state"
ETC = "/etc/arcfleet-enforcement"
VERSION = "2024-12-01"
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
SUITE = SUITES.get(sys.version_info[:2])
PACKAGES = ("ansible-core", "azure-identity", "azure-mgmt-resource", "cryptography", "msal", "requests", "websockets")
ENSUREPIP = """\
import pathlib, sys, sysconfig, zipfile
for wheel in pathlib.Path("/opt/arclab/wheels").glob("pip-*.whl"):
    zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
    pathlib.Path(sys.prefix, "bin/pip").touch()
"""

pytestmark = [
    pytest.mark.one_core,
    pytest.mark.skipif(SUITE is None, reason="The packages of this Python run on neither Debian 12 nor Debian 13."),
]


def wheels(archive, *names):
    """Wheels of what is installed here, with all that it needs, as files of an archive."""
    found, left = {}, list(names)
    while left:
        distribution = importlib.metadata.distribution(left.pop())
        name = re.sub(r"[-_.]+", "_", distribution.metadata["Name"]).lower()
        if name not in found:
            found[name] = distribution
            needed = map(Requirement, distribution.requires or [])
            left += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for name, distribution in found.items():
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as wheel:
            for file in distribution.files:
                path = pathlib.Path(distribution.locate_file(file))
                if ".." not in file.parts and file.suffix != ".pyc" and path.is_file():
                    wheel.write(path, str(file))
        tag = re.search(r"^Tag: (.*)$", distribution.read_text("WHEEL"), re.MULTILINE)[1]
        add(archive, f"opt/arclab/wheels/{name}-{distribution.version}-{tag}.whl", content.getvalue())


def add(archive, path, content):
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def equip(lab):
    """Put on the machine what a package index, Galaxy and Debian's python3-venv would give it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        wheels(archive, "pip", *PACKAGES)
        add(archive, f"usr/lib/python3.{sys.version_info[1]}/ensurepip/__init__.py", b"")
        add(archive, f"usr/lib/python3.{sys.version_info[1]}/ensurepip/__main__.py", ENSUREPIP.encode())
        for folder in ("meta", "plugins", "roles", "playbooks", "README.md", "LICENSE"):
            archive.add(
                ROOT / folder,
                f"opt/arclab/ssh/{folder}",
                filter=lambda entry: entry if "__pycache__" not in entry.name else None,
            )
        described = re.sub(r"(?ms)^dependencies:\n(  .*?\n)+", "dependencies: {}\n", (ROOT / "galaxy.yml").read_text())
        add(archive, "opt/arclab/ssh/galaxy.yml", described.encode())
    pid = lab.machine(NAME)["pid"]
    subprocess.run(
        ["nsenter", "--target", str(pid), "--all", "--", "tar", "-x", "-C", "/"], input=content.getvalue(), check=True
    )


def forward(lab):
    """Let the machine reach the lab's ARM, at the same address; the listening socket, whose end ends it."""
    port = int(lab.url.rpartition(":")[2])
    made = []

    def enter():
        with open(f"/proc/{lab.machine(NAME)['pid']}/ns/net", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server(("127.0.0.1", port)))

    # A thread can be in another network than its process.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        # The other direction goes on, and a thread that waits for it is woken by nothing but the end of what it reads.
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve():
        while True:
            try:
                near, _address = made[0].accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return made[0]


def role(lab, *arguments, rc=0, **variables):
    """Run the role on the machine; what Ansible printed, and how many tasks changed something."""
    settings = {
        "arc_enforcement_requirements": list(PACKAGES),
        "arc_enforcement_collections": [{"name": "/opt/arclab/ssh", "type": "dir"}],
        "arc_enforcement_inventory": {"plugin": "arcfleet.ssh.arc_machines", "connection": "relay"},
        "arc_enforcement_environment": {
            name: lab.env[name]
            for name in (
                "AZURE_CLIENT_ID",
                "AZURE_SECRET",
                "AZURE_TENANT",
                "AZURE_SUBSCRIPTION_ID",
                "AZURE_CLOUD_ENVIRONMENT",
            )
        },
        "arc_enforcement_credentials": [
            {
                "name": "ca.pem",
                "variable": "REQUESTS_CA_BUNDLE",
                "content": pathlib.Path(lab.env["REQUESTS_CA_BUNDLE"]).read_text(),
            }
        ],
        "arc_enforcement_mode": "repair",
        "arc_enforcement_max_change_percent": 100,
        "arc_enforcement_randomized_delay": 0,
        # Others use the processors too.
        "arc_enforcement_nice": 0,
        "arc_enforcement_on_failure": "arclab-told.service",
        **variables,
    }
    host = {
        "ansible_host": lab.machine(NAME)["address"],
        "ansible_user": "root",
        "ansible_ssh_private_key_file": lab.env["ARCLAB_KEY"],
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (lab.state_dir / "controller.json").write_text(json.dumps({"all": {"hosts": {NAME: host}}}))
    play = {
        "hosts": NAME,
        "gather_facts": False,
        "environment": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/arclab/wheels", "PIP_NO_COMPILE": "1"},
        "vars": settings,
        "roles": ["arcfleet.ssh.arc_enforcement"],
    }
    (lab.state_dir / "role.json").write_text(json.dumps([play]))
    # The file's inventory only: that of the lab says nothing of how to get to a controller.
    done = ansible(
        lab,
        "ansible-playbook",
        "-i",
        "controller.json",
        "role.json",
        *arguments,
        env={"ANSIBLE_PIPELINING": "1"},
        rc=rc,
    )
    return done.stdout + done.stderr, int(re.search(r"changed=(\d+)", done.stdout)[1])


@pytest.fixture(scope="module")
def lab(machines):
    found = machines({"name": NAME, "suite": SUITE}, listener_lag=0)
    equip(found)
    forwarder = forward(found)
    found.shell(
        NAME,
        "printf '[Service]\\nType=oneshot\\nExecStart=/bin/touch /root/told\\n' >/etc/systemd/system/arclab-told.service",
    )
    output, _changed = role(found, "--diff", "-vv")
    (found.state_dir / "output.txt").write_text(output)
    yield found
    forwarder.close()


def shown(lab, unit=f"{UNIT}.service"):
    """What systemd knows of a unit."""
    return dict(
        line.split("=", 1) for line in lab.shell(NAME, f"systemctl show {unit}").stdout.splitlines() if "=" in line
    )


def run(lab):
    """Start the job, wait for its end; what systemd knows of it then."""
    lab.shell(NAME, f"systemctl start {UNIT}.service", check=False, timeout=90)
    return shown(lab)


def report(lab):
    return json.loads(lab.shell(NAME, f"cat {STATE}/drift.json").stdout)


def configuration(lab):
    """ARM's path of the machine's service configuration."""
    return f"{lab.machine(NAME)['id']}/providers/Microsoft.HybridConnectivity/endpoints/default/serviceConfigurations"


def is_enabled(lab):
    found = Arm(lab).session.get(f"{lab.url}{configuration(lab)}/SSH?api-version={VERSION}")
    return found.status_code == 200


def test_a_missed_run_is_made_up_for_by_the_timer_and_repairs_drift(lab):
    assert not is_enabled(lab)
    lab.shell(
        NAME,
        f"systemctl stop {UNIT}.timer && touch -d '2 hours ago' /var/lib/systemd/timers/stamp-{UNIT}.timer && systemctl start {UNIT}.timer",
    )
    # The run is at work, or already over; this waits for it, and does not begin another one.
    found = run(lab)
    journal = lab.shell(NAME, f"journalctl --no-pager -o cat -u {UNIT}.service").stdout
    assert (found["Result"], found["ExecMainStatus"]) == ("success", "0"), journal
    assert journal.count("Starting ") == 1, journal
    assert is_enabled(lab)
    told = report(lab)
    assert (told["mode"], told["drift_left"], told["summary"]["repaired"]) == ("repair", False, 1)
    assert {"drift.html", "drift.xml", "drift.prom", "history", "ledger.json"} <= set(
        lab.shell(NAME, f"ls {STATE}").stdout.split()
    )


def test_drift_that_is_left_is_seen(lab):
    Arm(lab).session.delete(f"{lab.url}{configuration(lab)}/SSH?api-version={VERSION}")
    lab.shell(NAME, f"rm -f {STATE}/ledger.json; sed -i s/repair/report/ {ETC}/vars.yml; rm -f /root/told")
    found = run(lab)
    status = lab.shell(NAME, f"systemctl status --no-pager {UNIT}.service", check=False).stdout
    assert (found["ActiveState"], found["ExecMainStatus"]) == ("failed", "10"), status
    assert "Drift is left." in status
    assert report(lab)["drift_left"] and not is_enabled(lab)
    # The unit that was to be told.
    lab.shell(NAME, "until [ -e /root/told ]; do sleep 0.05; done", timeout=10)


def test_a_run_leaves_while_another_one_is_at_work(lab):
    holder = subprocess.Popen(
        ["nsenter", "--target", str(lab.machine(NAME)["pid"]), "--all", "--", "flock", f"{STATE}/.running", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        while lab.shell(NAME, f"flock --nonblock {STATE}/.running true", check=False).returncode == 0:
            pass
        found = run(lab)
    finally:
        holder.communicate()
    assert (found["Result"], found["ExecMainStatus"]) == ("success", "75")


def test_secrets_are_where_only_root_reads_them(lab):
    secret = lab.env["AZURE_SECRET"]
    assert secret not in (lab.state_dir / "output.txt").read_text()
    assert (
        secret
        not in lab.shell(
            NAME, f"systemctl cat {UNIT}.service; systemctl show {UNIT}.service; journalctl --no-pager"
        ).stdout
    )
    kept = lab.shell(
        NAME, f"grep -rlsF -e '{secret}' /etc /opt/arcfleet-enforcement /var/lib /run /tmp", check=False
    ).stdout.split()
    assert kept == [f"{ETC}/environment"]
    as_job = "setpriv --reuid arcfleet --regid arcfleet --clear-groups"
    for file in ("environment", "credentials/ca.pem"):
        assert lab.shell(NAME, f"{as_job} cat {ETC}/{file}", check=False).returncode
    assert lab.shell(NAME, f"setpriv --reuid nobody --clear-groups ls {ETC} {STATE}", check=False).stdout == ""


def test_the_service_may_do_little(lab):
    lab.shell(NAME, f"systemd-analyze verify {UNIT}.service {UNIT}.timer")
    assert lab.shell(NAME, f"systemd-analyze security --threshold=15 {UNIT}.service").returncode == 0


def test_a_failure_is_seen_and_is_told_from_drift(lab):
    # An inventory that cannot be read would have no hosts, and nothing would be wrong with them.
    lab.shell(NAME, f"sed -i 's/^AZURE_SECRET=.*/AZURE_SECRET=wrong/' {ETC}/environment")
    before = report(lab)
    found = run(lab)
    status = lab.shell(NAME, f"systemctl status --no-pager {UNIT}.service", check=False).stdout
    assert found["ActiveState"] == "failed" and found["ExecMainStatus"] not in ("0", "10"), status
    assert "The run failed with status" in status
    assert report(lab) == before


@pytest.mark.skipif(
    os.environ.get("ARCFLEET_STEPS") == "some", reason="`make test-machines` lets cron run the job too."
)
def test_cron_runs_the_same_job(lab):
    stamp = "stat -c %i /opt/arcfleet-enforcement/venv/arcfleet-enforcement"
    before = lab.shell(NAME, stamp).stdout
    role(lab, arc_enforcement_scheduler="cron")
    # What was installed once is not installed again.
    assert lab.shell(NAME, stamp).stdout == before
    assert shown(lab)["LoadState"] == shown(lab, f"{UNIT}.timer")["LoadState"] == "not-found"
    schedule, command = lab.shell(NAME, f"tail -n 1 /etc/cron.d/{UNIT}").stdout.strip().split(" arcfleet ")
    assert schedule == "0 * * * *"
    lab.shell(
        NAME,
        [
            "env",
            "-i",
            "PATH=/usr/bin:/bin",
            "setpriv",
            "--reuid=arcfleet",
            "--regid=arcfleet",
            "--clear-groups",
            command,
        ],
        timeout=90,
    )
    assert (report(lab)["mode"], report(lab)["drift_left"]) == ("repair", False)
    assert is_enabled(lab)
