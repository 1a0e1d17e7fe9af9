# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would a Windows machine answer to the role's tasks?

There is no Windows machine here. This stands for one: the modules of ansible.windows that the role uses, those of this collection that it
uses on the controller, and the ssh program, all of them on one JSON file that says how the machine is. What the modules answer follows
their documentation; what sshd does follows sshd_config(5). Runs as a module, as ssh, and in the tests.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from typing import Any

STATE = "ARC_WINDOWS_MACHINE"

# The options that each module has. A task that uses another one fails, as it would on the real module.
OPTIONS = {
    "win_powershell": "script path remote_src parameters error_action depth creates removes chdir executable arguments sensitive_parameters",
    "win_service": "name state start_mode display_name description path username password dependencies force_dependent_services",
    "win_copy": "content src dest backup decrypt force local_follow remote_src",
    "win_regedit": "path name data type state delete_key hive",
    "arc_ssh_service_config": "machines state service_name register_provider concurrency max_fail_percentage",
    "arc_relay_credential": "machines wait wait_timeout wait_settle concurrency max_fail_percentage",
    "arc_extension": "machines publisher type auto_upgrade_minor_version source unavailable max_fail_percentage state",
}
CAPABILITY_CONFIG = (
    "#Port 22\r\nSubsystem\tsftp\tsftp-server.exe\r\nMatch Group administrators\r\n       AuthorizedKeysFile x\r\n"
)


def machine(**changes: Any) -> dict[str, Any]:
    """A Windows Server on which OpenSSH runs as its capability leaves it, reached through Azure Arc on port 22."""
    return {
        "installed": True,
        "running": True,
        "start_mode": "Auto",
        "version": "9.5.5.1",
        "config": CAPABILITY_CONFIG,
        "saved": None,
        "listening": [22],
        "keys": None,
        "keys_marked": False,
        "exposed": [],
        "firewall": True,
        "shell": r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe",
        "through_loopback": True,
        # What Azure relays to, and how the machine misbehaves.
        "azure_port": 22,
        "blocked_ports": [],
        "silent_after_change": False,
        "refuses": None,
        # Reachable by other ways than sshd, such as a console.
        "always_reachable": False,
        "journal": [],
        **changes,
    }


def ports_of(config: str) -> list[int]:
    """The ports on which sshd listens by this configuration."""
    return [int(port) for port in re.findall(r"(?mi)^[ \t]*Port[ \t]+(\d+)", config)] or [22]


def way_back(state: dict[str, Any]) -> None:
    """What the scheduled task does when its time has come."""
    if state["saved"] is not None:
        state.update(config=state["saved"], saved=None, listening=ports_of(state["saved"]), silent_after_change=False)


class Fault(Exception):
    """A module fails."""


def win_powershell(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    if args["path"] != "bootstrap.ps1":
        raise Fault(f"no such script: {args['path']}")
    parameters = args["parameters"]
    action = parameters["Action"]
    changed = False
    result: dict[str, Any] = {}
    if action == "look":
        result = look(state)
    elif action == "install" and not state["installed"]:
        changed = True
        if not check:
            state.update(installed=True, start_mode="Manual")
    elif action == "protect" and state["exposed"]:
        changed = True
        if not check:
            state["exposed"] = []
    elif action == "firewall" and state["firewall"]:
        changed = True
        if not check:
            state["firewall"] = False
    elif action == "change":
        changed = True
        if not check:
            change(state, parameters)
    elif action == "confirm" and not check:
        state["saved"] = None
    if changed and not check or action == "confirm":
        state["journal"].append(f"{action} {' '.join(map(str, parameters.get('Ports', [])))}".strip())
    return {"changed": changed, "result": result}


def look(state: dict[str, Any]) -> dict[str, Any]:
    there = state["installed"]
    return {
        "installed": there,
        "running": state["running"],
        "start_mode": state["start_mode"] if there else "",
        "version": state["version"] if there else "",
        "path": r"C:\Windows\System32\OpenSSH\sshd.exe" if there else "",
        "config": state["config"] if there else None,
        "config_problem": None,
        "authorized_keys": state["keys"],
        "keys_marked": state["keys_marked"],
        "keys_path": r"C:\ProgramData\ssh\administrators_authorized_keys",
        "effective": [],
        "listeners": [{"address": "0.0.0.0", "port": port} for port in state["listening"]],
        "host_keys": ["ssh-ed25519 AAAA"],
        "exposed": state["exposed"],
        "firewall": state["firewall"],
        "pending": state["saved"] is not None,
        "through_loopback": state["through_loopback"],
    }


def change(state: dict[str, Any], parameters: dict[str, Any]) -> None:
    if "-Action revert" not in parameters["Program"]:
        raise Fault("the way back has no program")
    if int(parameters["WayBack"]) < 30:
        raise Fault("the way back is too short")
    text = parameters["Text"]
    if state["refuses"] and state["refuses"] in text:
        raise Fault(
            f"sshd refuses the new configuration: Bad configuration option: {state['refuses']} Nothing was changed."
        )
    if parameters["Block"].strip() and parameters["Block"].strip() not in text.replace("\r\n", "\n"):
        raise Fault("the block is not in the text")
    if sorted(ports_of(text)) != sorted(parameters["Ports"]):
        raise Fault(f"sshd would listen on {ports_of(text)}")
    if state["saved"] is None:
        state["saved"] = state["config"]
    state.update(config=text, listening=ports_of(text))
    if state["silent_after_change"]:
        state["listening"] = []


def win_service(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    if not state["installed"]:
        raise Fault("Cannot find service 'sshd'")
    wanted = {"running": args["state"] == "started", "start_mode": {"auto": "Auto"}[args["start_mode"]]}
    changed = any(state[key] != value for key, value in wanted.items())
    if changed and not check:
        if not state["running"] and state["exposed"]:
            raise Fault("Failed to start service 'sshd'")
        state.update(wanted, config=state["config"] or CAPABILITY_CONFIG)
        state["listening"] = ports_of(state["config"])
        state["journal"].append("service")
    return {"changed": changed}


def win_copy(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    if not args["dest"].endswith(r"\administrators_authorized_keys"):
        raise Fault(f"unexpected file {args['dest']}")
    changed = args["content"] != state["keys"] or state["keys_marked"]
    if changed and not check:
        state.update(keys=args["content"], keys_marked=False, exposed=[args["dest"]])
        state["journal"].append("keys")
    return {"changed": changed}


def win_regedit(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    changed = args["data"] != state["shell"]
    if changed and not check:
        state["shell"] = args["data"]
        state["journal"].append("shell")
    return {"changed": changed}


def arc_ssh_service_config(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    port = args["machines"][0]["port"]
    if not isinstance(port, int):
        raise Fault("the port is no number")
    changed = port != state["azure_port"]
    if changed and not check:
        state["azure_port"] = port
        state["journal"].append(f"azure {port}")
    return {"changed": changed}


def arc_relay_credential(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    if state["azure_port"] not in state["listening"]:
        raise Fault("503 connection to localhost")
    return {"changed": True}


def arc_extension(state: dict[str, Any], args: dict[str, Any], check: bool) -> dict[str, Any]:
    failed = {one["id"].lower(): one for one in args["machines"] if one["host"] in state.get("extension_fails", [])}
    state["journal"] += [f"extension {one['host']}" for one in args["machines"]]
    failures = {key: {"failure": {"message": "The extension failed.", "hint": "Look at its log."}} for key in failed}
    return {"changed": True, "failures": failures}


def run_module(name: str, arguments: bytes) -> None:
    """Be the module of this name, given its arguments as JSON."""
    given = json.loads(arguments)
    check = given.get("_ansible_check_mode", False)
    args = {key: value for key, value in given.items() if not key.startswith("_ansible_")}
    place = pathlib.Path(os.environ[STATE])
    state = json.loads(place.read_text(encoding="utf-8"))
    try:
        unknown = set(args) - set(OPTIONS[name].split())
        if unknown:
            raise Fault(f"Unsupported parameters for {name}: {', '.join(sorted(unknown))}")
        answer = globals()[name](state, args, check)
    except Fault as fault:
        answer = {"failed": True, "msg": str(fault)}
    place.write_text(json.dumps(state), encoding="utf-8")
    sys.stdout.write(json.dumps(answer))


def run_ssh(arguments: list[str]) -> None:
    """Be the ssh program: run the command here, unless nothing would answer on the port. A connection that is open stays open."""
    state = json.loads(pathlib.Path(os.environ[STATE]).read_text(encoding="utf-8"))
    port = int(next((word.split("=")[1] for word in arguments if word.startswith("Port=")), "22"))
    connection = pathlib.Path(f"{os.environ[STATE]}.connection-{port}")
    if "-O" in arguments:
        there = connection.exists()
        if arguments[arguments.index("-O") + 1] == "stop":
            connection.unlink(missing_ok=True)
        raise SystemExit(0 if there else 255)
    reached = (
        connection.exists()
        or port == state["azure_port"]
        and port in state["listening"]
        and port not in state["blocked_ports"]
    )
    if not reached and not state["always_reachable"]:
        sys.stderr.write(f"kex_exchange_identification: nothing answers on port {port}\n")
        raise SystemExit(255)
    connection.touch()
    os.execv("/bin/sh", ["sh", "-c", arguments[-1]])


if __name__ == "__main__":
    run_ssh(sys.argv[2:])
