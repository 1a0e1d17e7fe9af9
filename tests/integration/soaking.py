# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a fleet fare in which something drifts every day, and that only a scheduled job looks after?

Two runs of the playbook `arcfleet.ssh.enforce` a day on a lab whose clock goes ahead. Before the first one, somebody changes things in the portal, things
vanish that no log tells of, machines come and go; the second one is a full read. During them Azure throttles, breaks answers and revokes tokens, and
on some days the controller is killed. What was done to the fleet is kept beside what the reports tell of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arclab.client import Lab
from on_lab import Arm, ansible, descendants, environment

HALF_A_DAY = 12 * 3600.0

# A little less than a day, so that every second run reads everything.
FULL_EVERY = 23 * 3600

CONNECTIVITY = "providers/Microsoft.HybridConnectivity/endpoints/default"
SERVICE_CONFIGURATION = f"{CONNECTIVITY}/serviceConfigurations/SSH"
EXTENSION = "extensions/AADSSHLogin"
# What people do in the portal.
KINDS = ("port", "removed", "closed", "extension removed", "extension failed")

AADSSH = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}

# What Azure does to a run, besides: each strikes a small part of the requests.
TROUBLE: tuple[Mapping[str, Any], ...] = (
    {"probability": 0.04, "status": 429, "headers": {"Retry-After": "1"}},
    {"probability": 0.02, "status": 503},
    {"probability": 0.02, "status": 500, "when": "after", "method": "PUT"},
    {"probability": 0.01, "reset": True},
)


@dataclass
class Day:
    """What happened on one day: changes that the log tells of and such that it does not, machines that came and went; of both runs the machines read,
    the machines repaired, the requests made, and how many runs were killed or left something for the next one."""

    number: int
    told: int = 0
    silent: int = 0
    came: int = 0
    went: int = 0
    read: list[int] = field(default_factory=list)
    repaired: int = 0
    requests: list[int] = field(default_factory=list)
    killed: int = 0
    unfinished: int = 0


class Soak:
    """A fleet of `machines`, from its first day on; everything random comes from `seed`."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.days: list[Day] = []
        self.directory = lab.state_dir / "enforcement"
        # (machine, resource) -> how often it has been made to differ.
        self.drifted: Counter[tuple[str, str]] = Counter()
        self._random = random.Random(seed)
        self._came = 0
        for name in self._names():
            self._is_new(name)

    # ---- what happens to the fleet

    def live(self, day: Day) -> None:
        """One day: drift, a run that goes by the ledger, and a full read."""
        self.days.append(day)
        if day.number > 1:
            self._let_things_happen(day)
        self.lab.advance(HALF_A_DAY)
        self._trouble()
        if day.number % 3 == 2:
            self._killed_run(day)
        self._runs(day, confirmed=day.number == 1)
        self.lab.advance(HALF_A_DAY)
        self._trouble()
        self._runs(day)

    def _let_things_happen(self, day: Day) -> None:
        names = self._random.sample(self._names(), 8)
        for name in names[: self._random.randint(1, 3)]:
            self._portal(name)
            day.told += 1
        self.lab.drift(f"{self._id(names[4])}/{SERVICE_CONFIGURATION}", logged=False)
        self.drifted[names[4], "service_configuration"] += 1
        day.silent += 1
        if self._random.random() < 0.6:
            self._came += 1
            name = f"new{self._came:02}"
            self.lab.onboard(name)
            self._is_new(name)
            day.came += 1
        if self._random.random() < 0.3:
            gone = names[5]
            self.lab.drift(self._id(gone))
            self.drifted = Counter({key: count for key, count in self.drifted.items() if key[0] != gone})
            day.went += 1

    def _is_new(self, name: str) -> None:
        for resource in ("endpoint", "service_configuration", "extension"):
            self.drifted[name, resource] += 1

    def _portal(self, name: str) -> None:
        """Somebody changes something by hand."""
        machine = self._id(name)
        kind = self._random.choice(KINDS)
        if kind == "port":
            self.lab.drift(f"{machine}/{SERVICE_CONFIGURATION}", {"properties": {"serviceName": "SSH", "port": 2222}})
        elif kind == "removed":
            self.lab.drift(f"{machine}/{SERVICE_CONFIGURATION}")
        elif kind == "closed":
            self.lab.drift(f"{machine}/{CONNECTIVITY}")
            self.drifted[name, "endpoint"] += 1
        elif kind == "extension removed":
            self.lab.drift(f"{machine}/{EXTENSION}")
        else:
            # Installed anew by somebody, and it did not work.
            body = {"location": self.lab.machine(name)["location"], "properties": AADSSH}
            fails = {"code": "VMExtensionProvisioningError", "message": "Enable failed: exit code: 1"}
            self.lab.drift(f"{machine}/{EXTENSION}", body, fails=fails)
        self.drifted[name, "extension" if kind.startswith("extension") else "service_configuration"] += 1

    def _trouble(self) -> None:
        for number, rule in enumerate(TROUBLE):
            self.lab.fault(
                kind="arm", path="/providers/Microsoft.Hybrid", seed=self._random.randrange(2**31) + number, **rule
            )

    # ---- what looks after it

    def _arguments(self, confirmed: bool) -> list[str]:
        variables = {
            "arc_enforcement_directory": str(self.directory),
            "arc_enforcement_mode": "repair",
            "arc_enforcement_full_every": FULL_EVERY,
            "arc_enforcement_history_keep": 10_000,
            "arc_enforcement_confirmed": confirmed,
            "arc_entra": True,
        }
        return ["arcfleet.ssh.enforce", "-e", json.dumps(variables)]

    def _runs(self, day: Day, *, confirmed: bool = False) -> None:
        """Run until nothing is left, as a schedule would: what Azure's trouble kept from being done, the next run does."""
        for attempt in range(4):
            done = ansible(self.lab, "ansible-playbook", *self._arguments(confirmed), rc=None)
            report = json.loads((self.directory / "drift.json").read_text())
            day.requests.append(report["reading"]["requests"])
            day.read.append(report["reading"]["read"])
            day.repaired += report["summary"]["repaired"]
            if done.returncode == 0:
                self.lab.clear_faults()
                return
            day.unfinished += 1
            if attempt == 1:
                self.lab.clear_faults()
        raise AssertionError(f"day {day.number}: drift is left after four runs:\n{done.stdout[-4000:]}")

    def _killed_run(self, day: Day) -> None:
        """A run whose controller loses its power in the middle of the repair."""
        seen = len(self._written())
        run = subprocess.Popen(
            ["ansible-playbook", "-i", self.lab.env["ARCLAB_INVENTORY"], *self._arguments(False)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(self.lab),
            cwd=self.lab.state_dir,
        )
        while run.poll() is None and len(self._written()) == seen:
            time.sleep(0.02)
        for pid in [run.pid, *descendants(run.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()
        day.killed += 1

    def _written(self) -> list[dict[str, Any]]:
        return [entry for entry in self.lab.journal(kind="arm") if entry["method"] in ("PUT", "PATCH", "DELETE")]

    # ---- what can be told at the end

    def told(self) -> Counter[tuple[str, str]]:
        """(machine, resource) -> how often a report of the history tells that it was repaired; of machines that are still there."""
        there, told = set(self._names()), Counter[tuple[str, str]]()
        for path in sorted((self.directory / "history").glob("drift-*.json")):
            for machine in json.loads(path.read_text())["machines"].values():
                for step in machine["drift"]:
                    if step["repaired"] and machine["name"] in there:
                        told[machine["name"], step["resource"]] += 1
        return told

    def needless(self) -> list[str]:
        """The writes to resources that were right already, by the lab's own order of what was carried out."""
        right: set[str] = set()
        needless = []
        for line in self.lab.journal():
            path = str(line.get("path", "")).lower()
            if line["kind"] == "drift":
                right -= {known for known in right if known == path or known.startswith(f"{path}/")}
            elif line["kind"] == "arm" and line.get("carried_out") and line["method"] in ("PUT", "PATCH", "DELETE"):
                needless += [f"{line['method']} {path}"] if path in right or line["method"] == "DELETE" else []
                right.add(path)
        return needless

    def wrong(self) -> list[str]:
        """The resources that are not as they shall be, as the subscription's owner reads them."""
        arm, wrong = Arm(self.lab), []
        for machine in self.lab.machines():
            for path, version in ((SERVICE_CONFIGURATION, "2023-03-15"), (EXTENSION, "2025-01-13")):
                answer = arm.session.get(f"{self.lab.url}{machine['id']}/{path}?api-version={version}")
                told = answer.json().get("properties", {}) if answer.ok else {}
                if told.get("provisioningState") != "Succeeded" or told.get("port", 22) != 22:
                    wrong.append(f"{machine['name']} {path}: {answer.status_code} {told}")
        return wrong

    def _names(self) -> list[str]:
        return [machine["name"] for machine in self.lab.machines()]

    def _id(self, name: str) -> str:
        return str(self.lab.machine(name)["id"])
