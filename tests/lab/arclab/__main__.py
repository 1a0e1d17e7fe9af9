# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done with a lab from the command line?

`python -m arclab --help` says it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .client import LabFailed, control, running_pid, start, stop
from .options import Options


def default_state_dir() -> Path:
    """`ARCLAB_STATE_DIR`, else a directory of the user's own."""
    if given := os.environ.get("ARCLAB_STATE_DIR"):
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base, "arclab")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arclab", description="A stand-in for Azure, its relay and a fleet of Arc machines."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--state-dir", type=Path, default=default_state_dir(), metavar="D", help="default: %(default)s")
    _add_up(commands.add_parser("up", parents=[where], help="start a lab, or go on with a stopped one"))
    down = commands.add_parser("down", parents=[where], help="stop the lab and every process it started")
    down.add_argument("--purge", action="store_true", help="remove its state directory too")
    status = commands.add_parser("status", parents=[where], help="machines, ports and processes")
    status.add_argument("--json", action="store_true")
    commands.add_parser("serve", parents=[where], help="the daemon itself, in the foreground")
    journal = commands.add_parser("journal", parents=[where], help="what was asked and answered")
    journal.add_argument("--json", action="store_true", help="one JSON object per line")
    journal.add_argument("--clear", action="store_true")
    journal.add_argument(
        "filter", nargs="*", metavar="NAME=VALUE", help="kind, method, path, status, machine, action, since …"
    )
    _add_fault(commands, where)
    machine = commands.add_parser("machine", parents=[where], help="do something to a machine")
    machine.add_argument("name")
    machine.add_argument("action", choices=["stop", "start", "sshd-stop", "sshd-start", "drop", "set"])
    machine.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    principal = commands.add_parser("principal", parents=[where], help="make a service principal")
    principal.add_argument("name")
    principal.add_argument(
        "--action", action="append", default=[], help="an action of its custom role; may be repeated"
    )
    principal.add_argument("--data-action", action="append", default=[])
    principal.add_argument("--role", action="append", default=[], help="an existing role by name or GUID")
    principal.add_argument("--scope", help="default: the first subscription")
    principal.add_argument("--user", action="store_true", help="a user; NAME is what they sign in with")
    setting = commands.add_parser("setting", parents=[where], help="change what can be changed in a running lab")
    setting.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="certificate_seconds, role_delay …")
    advance = commands.add_parser("advance", parents=[where], help="move the lab's clock ahead")
    advance.add_argument("seconds", type=float)
    drift = commands.add_parser("drift", parents=[where], help="change a resource as a colleague in the portal would")
    drift.add_argument("path", help="the resource's id")
    drift.add_argument("body", nargs="?", type=json.loads, help="JSON to write; without it the resource is deleted")
    drift.add_argument("--silent", action="store_true", help="no event in the activity log tells of it")
    return parser


def _add_up(up: argparse.ArgumentParser) -> None:
    default = Options()
    up.add_argument("--machines", type=int, default=default.machines, metavar="N")
    up.add_argument(
        "--backend",
        choices=["sshd", "podman"],
        default=default.backend,
        help="what a Linux machine is: an sshd of its own on this computer, or (root only) a machine of its own",
    )
    up.add_argument(
        "--image",
        choices=["bare", "ready"],
        default=default.image,
        help="of machines of their own: without or with an SSH server",
    )
    up.add_argument("--suite", choices=["bookworm", "trixie", "both"], default=default.suite, help="their Debian")
    up.add_argument("--port", type=int, default=default.port, help="default: that of last time, else a free one")
    up.add_argument("--latency-ms", type=float, default=default.latency_ms, metavar="MS", help="added to every request")
    up.add_argument("--throttle", action="store_true", help="enforce ARM's and Resource Graph's limits")
    up.add_argument("--listener-lag", type=float, default=default.listener_lag, metavar="S")
    up.add_argument("--relay-profile", choices=["plain", "live"], default=default.relay_profile)
    up.add_argument("--subscriptions", type=int, default=default.subscriptions, metavar="K")
    up.add_argument(
        "--stopped", type=int, default=default.stopped, metavar="N", help="so many machines are Disconnected"
    )
    up.add_argument(
        "--old-agents", type=int, default=default.old_agents, metavar="N", help="so many agents are of 1.30"
    )
    up.add_argument("--windows", type=int, default=default.windows, metavar="N", help="so many machines run Windows")
    up.add_argument("--page-size", type=int, default=default.page_size, metavar="N")
    up.add_argument("--token-lifetime", type=float, default=default.token_lifetime, metavar="S")
    up.add_argument("--credential-lifetime", type=float, metavar="S", help="caps what listCredentials gives")
    up.add_argument(
        "--certificate-seconds",
        type=float,
        default=default.certificate_seconds,
        metavar="S",
        help="of SSH certificates",
    )
    up.add_argument(
        "--role-delay",
        type=float,
        default=default.role_delay,
        metavar="S",
        help="what a change of role assignments takes to reach the machines' logins",
    )
    up.add_argument("--idle-timeout", type=float, default=default.idle_timeout, metavar="S", help="of the relay")
    up.add_argument("--operation-seconds", type=float, default=default.operation_seconds, metavar="S")
    up.add_argument("--lro-style", choices=["async", "location", "body"], default=default.lro_style)
    up.add_argument("--unregistered", action="store_true", help="Microsoft.HybridConnectivity is not registered")
    up.add_argument("--registration-seconds", type=float, default=default.registration_seconds, metavar="S")
    up.add_argument(
        "--activity-delay",
        type=float,
        default=default.activity_delay,
        metavar="S",
        help="what an event of the activity log takes to be readable; default: 3 to 20 minutes",
    )
    up.add_argument("--activity-page-size", type=int, default=default.activity_page_size, metavar="N")
    up.add_argument("--fleet", metavar="FILE", help="a JSON list of machines instead of --machines")
    up.add_argument(
        "--no-check-specs",
        dest="check_specs",
        action="store_false",
        help="do not compare answers with Azure's descriptions",
    )


def _add_fault(commands: Any, where: argparse.ArgumentParser) -> None:
    fault = commands.add_parser("fault", help="what goes wrong on purpose")
    actions = fault.add_subparsers(dest="fault_command", required=True)
    add = actions.add_parser(
        "add", parents=[where], help="KEY=VALUE …: kind, method, path, machine, times, skip, status, reset …"
    )
    add.add_argument("settings", nargs="+", metavar="KEY=VALUE")
    actions.add_parser("list", parents=[where])
    clear = actions.add_parser("clear", parents=[where])
    clear.add_argument("id", nargs="?", type=int)


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` arguments; values that are JSON are taken as such."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise LabFailed(f"{pair!r} is not of the form KEY=VALUE.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _up(arguments: argparse.Namespace) -> None:
    names = {one.name for one in dataclasses.fields(Options)}
    chosen = {name: value for name, value in vars(arguments).items() if name in names}
    if chosen["fleet"] is not None:
        chosen["fleet"] = str(Path(chosen["fleet"]).resolve())
    status = start(arguments.state_dir, Options(**chosen))
    print(
        f"arclab runs at {status['url']} (pid {status['pid']}): {status['machines']} machines, {status['connected']} "
        "connected."
    )
    print(f"Use it: . {status['state_dir']}/env.sh")


def _down(arguments: argparse.Namespace) -> None:
    was_running = stop(arguments.state_dir, purge=arguments.purge)
    print("stopped" if was_running else f"no lab runs in {arguments.state_dir}")


def _status(arguments: argparse.Namespace) -> None:
    state_dir = arguments.state_dir.resolve()
    if running_pid(state_dir) is None:
        raise LabFailed(f"No lab runs in {state_dir}.")
    status, machines = control(state_dir, "/status"), control(state_dir, "/machines")
    if arguments.json:
        print(json.dumps({**status, "machines": machines}, indent=2))
        return
    print(f"{status['url']}  pid {status['pid']}  {status['state_dir']}")
    print(f"{status['machines']} machines, {status['connections']} hybrid connections, {status['faults']} faults")
    for machine in machines:
        place = machine["address"] or f"sshd port {machine['real_port'] or '-'}"
        print(
            f"{machine['name']:<16} {machine['status']:<14} agent {machine['agent_version']:<14} {place}  "
            f"{machine['id']}"
        )


def _journal(arguments: argparse.Namespace) -> None:
    lines = control(arguments.state_dir.resolve(), "/journal", _settings(arguments.filter))
    for line in lines:
        if arguments.json:
            print(json.dumps(line))
        else:
            what = line.get("method") or ""
            note = line.get("error_code") or line.get("text") or ""
            print(
                f"{line['seq']:>6} {line['kind']:<8} {line.get('status') or '-':>4} {what:<6} {line.get('path')} {note}"
            )
    if arguments.clear:
        control(arguments.state_dir.resolve(), "/journal/clear")


def _fault(arguments: argparse.Namespace) -> None:
    state_dir = arguments.state_dir.resolve()
    if arguments.fault_command == "add":
        print(control(state_dir, "/fault/add", _settings(arguments.settings)))
    elif arguments.fault_command == "list":
        for rule in control(state_dir, "/fault/list"):
            print(json.dumps({name: value for name, value in rule.items() if value not in (None, False, {}, 0.0)}))
    else:
        print(control(state_dir, "/fault/clear", {} if arguments.id is None else {"id": arguments.id}), "cleared")


def _machine(arguments: argparse.Namespace) -> None:
    asked = {"name": arguments.name, "action": arguments.action, "settings": _settings(arguments.settings)}
    print(json.dumps(control(arguments.state_dir.resolve(), "/machine", asked), indent=2))


def _principal(arguments: argparse.Namespace) -> None:
    asked = {
        "name": arguments.name,
        "actions": arguments.action,
        "data_actions": arguments.data_action,
        "roles": arguments.role,
        "scope": arguments.scope,
        "type": "User" if arguments.user else "ServicePrincipal",
    }
    made = control(arguments.state_dir.resolve(), "/principal", asked)
    print(
        f"user {made['upn']}" if arguments.user else f"client id {made['client_id']}; its secret is in {made['file']}"
    )


def _setting(arguments: argparse.Namespace) -> None:
    control(arguments.state_dir.resolve(), "/setting", _settings(arguments.settings))


def _advance(arguments: argparse.Namespace) -> None:
    now = control(arguments.state_dir.resolve(), "/advance", {"seconds": arguments.seconds})
    print(f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}")


def _drift(arguments: argparse.Namespace) -> None:
    asked = {"path": arguments.path, "body": arguments.body, "logged": not arguments.silent}
    print(json.dumps(control(arguments.state_dir.resolve(), "/drift", asked), indent=2))


def _serve(arguments: argparse.Namespace) -> None:
    from .daemon import serve

    serve(arguments.state_dir.resolve())


_COMMANDS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "serve": _serve,
    "journal": _journal,
    "fault": _fault,
    "machine": _machine,
    "principal": _principal,
    "setting": _setting,
    "advance": _advance,
    "drift": _drift,
}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        _COMMANDS[arguments.command](arguments)
    except BrokenPipeError:
        sys.stderr.close()
    except LabFailed as exc:
        print(f"arclab: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
