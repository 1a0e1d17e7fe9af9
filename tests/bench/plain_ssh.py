# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a large fleet cost people who use plain ssh?

The configuration that arcfleet.ssh.arc_ssh_config writes for ten thousand machines, beside one that a person could write
for as many; and a hundred helpers that start at once with nothing in their cache, beside the same with all in it.
`python tests/bench plain_ssh` runs this alone.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness import Broken, Line, Sample, Section, Settings, alternating, measure, median

from arclab.client import Lab
from on_lab import COLLECTIONS, HELPER, environment, module

LATENCY_MS = 20.0
# The targets: seconds to write the file, ssh's own time for a name, and milliseconds of CPU per cold start.
WRITTEN, LOOKED_UP, COLD = 2.0, 1.2, 60.0
# How often ssh looks up a name in one sample: once takes a few hundredths of a second.
LOOK_UPS = 10

_RUN_MODULE = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.arcfleet.ssh.plugins.modules import arc_ssh_config
with open(sys.argv[1]) as file, patch_module_args(json.load(file)):
    arc_ssh_config.main()
"""

# Starts all commands of a list at once, and lets each of them go when sshd's banner has come out of it.
_TOGETHER = """
import json, os, subprocess, sys
pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
running = [subprocess.Popen(command, **pipe) for command in json.load(open(sys.argv[1]))]
banners = [os.read(one.stdout.fileno(), 7) for one in running]
for one in running:
    one.stdin.close()
for one in running:
    one.stdout.read()
failed = sum(one.wait() != 0 for one in running) or sum(banner != b"SSH-2.0" for banner in banners)
raise SystemExit(f"{failed} of {len(running)} helpers failed" if failed else 0)
"""


def sections(settings: Settings) -> Iterator[Section]:
    """The configuration first, then the cold start."""
    yield configuration(settings, 100 if settings.quick else 10_000)
    helpers = 4 if settings.quick else 100
    place = settings.scratch / "cold"
    with Lab.up(place, machines=helpers, latency_ms=LATENCY_MS, check_specs=False) as lab:
        yield _ColdStart(lab, settings).section()
        lab.down(purge=True)


# --- the configuration ------------------------------------------------------------------------------------------------


def configuration(settings: Settings, count: int) -> Section:
    """Writing it, writing it again, and what ssh makes of it."""
    place = settings.scratch / "ssh"
    place.mkdir(mode=0o700)
    env = {**os.environ, "HOME": str(place), "PYTHONPATH": str(COLLECTIONS), "XDG_STATE_HOME": str(place / "state")}
    file, asked = place / "arcfleet.conf", place / "asked.json"
    asked.write_text(json.dumps(_asked(file, place / "config", count)), "utf-8")
    write = [sys.executable, "-c", _RUN_MODULE, str(asked)]
    plain, shortest, theirs = (place / f"{name}.conf" for name in ("plain", "shortest", "theirs"))
    copy = [sys.executable, "-c", f"open({str(theirs)!r}, 'w').write(open({str(file)!r}).read())"]

    def new() -> Sample:
        file.unlink(missing_ok=True)
        return measure(write, env=env, cwd=place)

    new()
    first, beside = alternating(settings.runs, new, lambda: measure(copy, env=env, cwd=place))
    (again,) = alternating(settings.runs, lambda: measure(write, env=env, cwd=place))
    plain.write_text(_plain(count, "  User ops\n  IdentityFile ~/.ssh/fleet\n"), "utf-8")
    shortest.write_text(_plain(count, ""), "utf-8")
    lines = [
        Line(
            "written: wall",
            f"{median(first, 'wall'):.2f} s",
            f"{median(beside, 'wall'):.2f} s",
            median(first, "wall") / median(beside, "wall"),
            f"< {WRITTEN:g} s",
            median(first, "wall") < WRITTEN,
        ),
        Line("nothing to change: wall", f"{median(again, 'wall'):.2f} s"),
        Line("written: peak memory", f"{median(first, 'peak_mb'):.0f} MB"),
        Line("size", f"{file.stat().st_size / 1e6:.2f} MB", f"{plain.stat().st_size / 1e6:.2f} MB"),
    ]
    for which, name in (("first", _name(0)), ("last", _name(count - 1))):
        lines.append(_look_up(settings, f"of the {which} name", name, (file, plain), env, LOOKED_UP))
    lines.append(_look_up(settings, "of the last name, beside the shortest", _name(count - 1), (file, shortest), env))
    return Section(
        f"The ssh configuration of {count:,} machines",
        lines,
        [
            "Written by the module's own process; Ansible around it is not counted. Beside: a Python that writes the same text.",
            "`ssh -G` beside: as many machines, each with Host, HostName, User and IdentityFile; the shortest has Host and HostName only.",
            "A resource id is five times as long as a host's name, and ssh reads the whole file.",
        ],
    )


def _name(number: int) -> str:
    return f"srv{number:05d}"


def _asked(file: Path, config: Path, count: int) -> dict[str, Any]:
    """What Ansible would hand to the module for a fleet of this size."""
    sys.path.append(str(COLLECTIONS))
    plugins = "ansible_collections.arcfleet.ssh.plugins"
    machine_id: Any = importlib.import_module(f"{plugins}.module_utils._ids").MachineId
    relay: Any = importlib.import_module(f"{plugins}.plugin_utils._hosts").Relay(
        python=sys.executable, helper=str(HELPER), auth={}, user="ops"
    )
    machines = []
    for number in range(count):
        subscription = f"{number % 5:08d}-0000-4000-8000-000000000000"
        machine = machine_id(subscription, f"arc-{number % 20:02d}", _name(number))
        arguments = relay.variables(machine, "linux")["ansible_ssh_common_args"]
        machines.append({"id": str(machine), "ssh_args": arguments, "port": 22, "user": "ops"})
    return {"machines": machines, "path": str(file), "config": str(config), "control_persist": "no"}


def _plain(count: int, more: str) -> str:
    hosts = (f"Host {_name(number)}\n  HostName {_name(number)}.servers.example.com\n{more}" for number in range(count))
    return "".join(hosts) + "Host *\n  ProxyCommand connect %h %p\n"


def _look_up(
    settings: Settings,
    what: str,
    name: str,
    sides: tuple[Path, Path],
    env: dict[str, str],
    target: float | None = None,
) -> Line:
    """ssh's own time for a name in either file."""

    def times(file: Path) -> Callable[[], Sample]:
        command = shlex.join(["ssh", "-F", str(file), "-G", name])
        words = ["sh", "-ec", f"for n in {' '.join(['x'] * LOOK_UPS)}; do {command} > /dev/null; done"]
        return lambda: measure(words, env=env)

    ours, theirs = (median(found, "wall") for found in alternating(max(5, settings.runs), *map(times, sides)))
    return Line(
        f"`ssh -G` {what}: wall",
        f"{ours / LOOK_UPS * 1000:.1f} ms",
        f"{theirs / LOOK_UPS * 1000:.1f} ms",
        ours / theirs,
        f"≤ {target:g}" if target else "",
        ours / theirs <= target if target else None,
    )


# --- the cold start ---------------------------------------------------------------------------------------------------


class _ColdStart:
    def __init__(self, lab: Lab, settings: Settings) -> None:
        self.lab = lab
        self.settings = settings
        self.env = environment(lab, NO_PROXY="*")
        self.cache = Path(self.env["XDG_CACHE_HOME"]) / "arcfleet"
        self.machines = lab.machines()
        enabled = module(lab, "arc_ssh_service_config", machines=[machine["id"] for machine in self.machines])
        if enabled.get("failed"):
            raise Broken(f"the machines could not be enabled: {enabled.get('msg')}")
        self.commands = settings.scratch / "helpers.json"
        helpers = [[sys.executable, str(HELPER), "--resource-id", one["id"], "--port", "22"] for one in self.machines]
        self.commands.write_text(json.dumps(helpers), "utf-8")

    def section(self) -> Section:
        # The first time, the machines' sshd are started.
        self.together()
        count = len(self.machines)
        warm, cold = alternating(self.settings.runs, self.together, self.cold)
        logins, credentials = self.requests()
        more = (median(cold, "cpu") - median(warm, "cpu")) / count * 1000
        return Section(
            f"{count} helpers that start at once, nothing in the cache beside all in it",
            [
                Line(
                    "CPU per helper",
                    f"{median(cold, 'cpu') / count * 1000:.0f} ms",
                    f"{median(warm, 'cpu') / count * 1000:.0f} ms",
                    median(cold, "cpu") / median(warm, "cpu"),
                ),
                Line("CPU per helper for the cold start", f"{more:.0f} ms", "", None, f"≤ {COLD:g} ms", more <= COLD),
                Line(
                    "until the last has sshd's banner and is gone",
                    f"{median(cold, 'wall'):.1f} s",
                    f"{median(warm, 'wall'):.1f} s",
                ),
                Line("requests for a token", f"{logins}", "", None, "1", logins == 1),
                Line("requests for credentials", f"{credentials}", "", None, f"≤ {count}", credentials <= count),
            ],
            [f"{LATENCY_MS:g} ms of latency. The one login of all is part of the CPU."],
        )

    def together(self) -> Sample:
        return measure([sys.executable, "-I", "-S", "-c", _TOGETHER, str(self.commands)], env=self.env, timeout=120)

    def cold(self) -> Sample:
        shutil.rmtree(self.cache)
        self.lab.clear_journal()
        return self.together()

    def requests(self) -> tuple[int, int]:
        """For a token and for credentials, in the last cold start."""
        paths = [str(entry.get("path")) for entry in self.lab.journal()]
        token, credentials = "/oauth2/v2.0/token", "/listCredentials"
        return sum(path.endswith(token) for path in paths), sum(path.endswith(credentials) for path in paths)
