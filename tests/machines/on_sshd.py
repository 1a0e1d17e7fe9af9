# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests run the role arc_sshd on machines, and see what is left of it and who still comes in?

Who comes in is tried with ssh itself through the connection helper, without any connection that Ansible left open.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import pathlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from arclab.client import Lab, LabFailed
from on_lab import Arm, ansible, environment, module

PYTHON = "/usr/bin/python3"
DROP_IN = "/etc/ssh/sshd_config.d/00-arcfleet.conf"
STATE = "/var/lib/arcfleet/sshd"
UNIT = "arcfleet-sshd-way-back"
CONNECTIVITY = "2023-03-15"
ENTRA = "user=someone@contoso.com,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"

# What the extension for Entra login appends.
ENTRA_BLOCK = """\
Match User *@*,????????-????-????-????-????????????    # Added by aadsshlogin installer
    AuthenticationMethods publickey
    PubkeyAuthentication yes
    AuthorizedKeysCommand /usr/sbin/aad_certhandler %u %k
    AuthorizedKeysCommandUser root
"""

# Every file that a change may touch, as it is: type, mode, owner, links, sum.
_LOOK = """
import hashlib, json, os
found = {}
for top in ("/etc/ssh", "/etc/systemd/system"):
    for folder, folders, files in os.walk(top):
        for name in [".", *files]:
            path = os.path.normpath(os.path.join(folder, name))
            about = os.lstat(path)
            text = None
            if name != "." and not os.path.islink(path):
                with open(path, "rb") as file:
                    text = hashlib.sha256(file.read()).hexdigest()
                text = [text, about.st_nlink]
            found[path] = [oct(about.st_mode), about.st_uid, about.st_gid, text]
print(json.dumps(found))
"""
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run of Ansible did: each task's name with every host's result, the recap by host, and all it said."""

    tasks: Sequence[tuple[str, Mapping[str, Any]]]
    recap: Mapping[str, Mapping[str, int]]
    output: str
    rc: int

    def results(self, host: str, task: str) -> list[dict[str, Any]]:
        """The results of the tasks with this in their names that were not skipped."""
        return [
            hosts[host]
            for name, hosts in self.tasks
            if task in name and host in hosts and not hosts[host].get("skipped")
        ]

    def changed(self, host: str) -> list[str]:
        """The tasks that changed something, or would."""
        return [name.rpartition(" : ")[2] for name, hosts in self.tasks if hosts.get(host, {}).get("changed")]

    def failed(self, host: str) -> str:
        """The message of the last task that failed."""
        found = [hosts[host] for _name, hosts in self.tasks if host in hosts and _lost(hosts[host])]
        assert found, self.output[-4000:]
        return str(found[-1].get("msg"))


def _lost(result: Mapping[str, Any]) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def role(**variables: Any) -> dict[str, Any]:
    """The role as a task, with a way back that a busy machine does not take by mistake."""
    return {
        "ansible.builtin.include_role": {"name": "arcfleet.ssh.arc_sshd"},
        "vars": {"arc_sshd_way_back": 120, "arc_sshd_port_timeout": 20, **variables},
    }


def run(
    lab: Lab,
    hosts: Iterable[str],
    tasks: Sequence[Mapping[str, Any]],
    *arguments: str,
    vars_of: Mapping[str, Mapping[str, Any]] | None = None,
    rc: int | None = 0,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run tasks on hosts; `vars_of` are variables of hosts, which count more than the inventory's."""
    files = lab.state_dir / f"run{next(_numbers)}"
    files.mkdir()
    (files / "play.json").write_text(json.dumps([{"hosts": ",".join(hosts), "gather_facts": False, "tasks": tasks}]))
    (files / "hosts.json").write_text(json.dumps({"all": {"hosts": vars_of or {}}}))
    done = ansible(
        lab, "ansible-playbook", "-i", str(files / "hosts.json"), str(files / "play.json"), "--forks=20", *arguments,
        env={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_PYTHON_INTERPRETER": PYTHON, **(env or {})},
        rc=None,
    )  # fmt: skip
    output = done.stdout + done.stderr
    told = json.loads(done.stdout[done.stdout.index("{\n") :]) if "{\n" in done.stdout else {"plays": [], "stats": {}}
    found = [(task["task"]["name"], task["hosts"]) for play in told["plays"] for task in play["tasks"]]
    if rc is not None and done.returncode != rc:
        lost = [(name, host, one.get("msg")) for name, hosts in found for host, one in hosts.items() if _lost(one)]
        raise AssertionError(f"status {done.returncode} instead of {rc}: {lost or output[-6000:]}")
    return Run(found, told["stats"], output, done.returncode)


def inside(lab: Lab, name: str) -> dict[str, str]:
    """Variables with which Ansible works in a machine without SSH, as its owner with a keyboard would."""
    enter = lab.state_dir / "enter"
    if not enter.exists():
        enter.write_text(
            "#!/bin/sh\npid=${1#/proc/}; pid=${pid%%/*}; shift\n"
            'exec env -i PATH="$PATH" HOME=/root USER=root LANG=C.UTF-8 nsenter --target "$pid" --all -- "$@"\n'
        )
        enter.chmod(0o755)
    return {
        "ansible_connection": "community.general.chroot",
        "ansible_chroot_exe": str(enter),
        "ansible_host": f"/proc/{lab.machine(name)['pid']}/root",
    }


def outside(lab: Lab, name: str) -> dict[str, str]:
    """Variables with which Ansible comes from the network instead of through Azure Arc."""
    return {
        "ansible_host": lab.machine(name)["address"],
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPath=none",
    }


# ---- who comes in


def azure_port(lab: Lab, name: str) -> int:
    """The port that Azure lets through to a machine."""
    path = (
        f"{lab.machine(name)['id']}/providers/Microsoft.HybridConnectivity/endpoints/default/serviceConfigurations/SSH"
    )
    return int(Arm(lab).ask("GET", path, CONNECTIVITY)["properties"]["port"])


class Logins:
    """New logins through the relay, each by a process of ssh that knows of no other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        done = ansible(lab, "ansible-inventory", "--list")
        self._hosts = json.loads(done.stdout[done.stdout.index("{") :])["_meta"]["hostvars"]

    def ssh(
        self, name: str, command: str = "true", *, user: str = "root", port: int | None = None, timeout: float = 20
    ) -> subprocess.CompletedProcess[str]:
        """Run a command by way of a new login at the port that Azure lets through."""
        host = self._hosts[name]
        port = azure_port(self.lab, name) if port is None else port
        argv = [
            "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "StrictHostKeyChecking=yes",
            "-o", f"ConnectTimeout={int(timeout)}", "-o", "IdentitiesOnly=yes",
            "-i", self.lab.env["ARCLAB_KEY"], *shlex.split(_plain(host["ansible_ssh_common_args"])),
            "-p", str(port), f"{user}@{_plain(host['ansible_host'])}", command,
        ]  # fmt: skip
        try:
            return subprocess.run(
                argv, env=environment(self.lab), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            return subprocess.CompletedProcess(argv, 255, "", f"no login within {timeout} s: {exc.stderr!r}")

    def possible(self, name: str, **how: Any) -> bool:
        """Does a new login succeed, on the machine that was meant?"""
        return self.ssh(name, "hostname", **how).stdout.strip() == name

    def until_possible(self, names: Iterable[str], seconds: float) -> dict[str, float]:
        """Wait until new logins to all of these succeed; the seconds that each took. Fails after `seconds`."""
        started = time.monotonic()

        def wait(name: str) -> float:
            while not self.possible(name):
                assert time.monotonic() - started < seconds, f"{name}: {self.ssh(name).stderr}{tell(self.lab, name)}"
                time.sleep(0.5)
            return time.monotonic() - started

        return each(names, wait)


def _plain(value: Any) -> str:
    # What comes from Azure is marked, so that Ansible does not take it for a template.
    return str(value["__ansible_unsafe"] if isinstance(value, dict) else value)


def each(names: Iterable[str], work: Callable[[str], Any], at_once: int = 8) -> dict[str, Any]:
    """Do the same for several machines at once; the results by name."""
    names = list(names)
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


# ---- what is there


def allow(lab: Lab) -> None:
    """Let Azure allow SSH to all machines, on the usual port."""
    result = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in lab.machines()])
    assert not result.get("failed"), result


def make_socket(lab: Lab, name: str) -> None:
    """Let systemd listen for sshd."""
    lab.shell(name, "systemctl disable --now ssh.service && systemctl enable --now ssh.socket")


def look(lab: Lab, name: str) -> dict[str, Any]:
    """Every file and folder that a change of sshd may touch, with mode, owner and content."""
    found: dict[str, Any] = json.loads(lab.shell(name, [PYTHON, "-c", _LOOK]).stdout)
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two looks, by path."""
    paths = sorted(set(before) | set(after))
    return {path: (before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)}


def leftovers(lab: Lab, name: str) -> list[str]:
    """What a change has to take away again: files, units, timers."""
    found = lab.shell(
        name,
        f"find /etc /var/lib/arcfleet /run/systemd \\( -name '.arcfleet-*' -o -name '{UNIT}*' \\) -print; "
        f"find {STATE} -mindepth 1 ! -name lock -print; systemctl list-units --all --no-legend --plain '{UNIT}*'",
        check=False,
    ).stdout  # fmt: skip
    return sorted(line.strip() for line in found.splitlines())


def effective(lab: Lab, name: str, login: str | None = None) -> dict[str, list[str]]:
    """What counts, by sshd itself."""
    found: dict[str, list[str]] = {}
    for line in lab.shell(name, f"/usr/sbin/sshd -T {f'-C {login}' if login else ''}").stdout.splitlines():
        keyword, _blank, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def listeners(lab: Lab, name: str) -> list[str]:
    """Where sshd, or systemd for it, listens."""
    lines = lab.shell(name, "ss --no-header --listening --tcp --numeric --processes").stdout.splitlines()
    # systemd is all that listens besides, where it does so for sshd.
    return sorted(line.split()[3] for line in lines if '"sshd"' in line or '"systemd"' in line)


def ports(lab: Lab, name: str) -> list[int]:
    """The ports of that."""
    return sorted({int(one.rpartition(":")[2]) for one in listeners(lab, name)})


def port_lines(lab: Lab, name: str) -> list[str]:
    """Every line of Port that counts, wherever it is."""
    done = lab.shell(
        name, "grep -rhiE '^[[:space:]]*Port[[:space:]=]' /etc/ssh/sshd_config /etc/ssh/sshd_config.d", check=False
    )
    return done.stdout.splitlines()


def write(lab: Lab, name: str, path: str, text: str, mode: str = "644") -> None:
    """Write a file."""
    lab.shell(name, ["sh", "-c", f"cat > {path} && chmod {mode} {path}"], stdin=text)


def until(true: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    """Wait until `true()` is, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def key(lab: Lab) -> str:
    """The public key of the lab."""
    return pathlib.Path(lab.env["ARCLAB_KEY"] + ".pub").read_text().strip()


def tell(lab: Lab, name: str) -> str:
    """What a person would look at when a machine is not as it should be."""
    with_commands = (
        "ls -la /etc/ssh /etc/ssh/sshd_config.d; ls -laR /var/lib/arcfleet; journalctl --no-pager -n 60; ss -ltnp; "
        "systemctl --no-pager --all list-units 'ssh*' 'arcfleet*'"
    )
    try:
        return lab.shell(name, with_commands, check=False).stdout
    except LabFailed as exc:
        return str(exc)
