# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does it cost to enable a fleet, by itself and beside what users have today?

The playbook `arcfleet.ssh.enable` with its tag `control_plane`: new machines, a fleet where all is right already
(steady), and one where 1 % of the service configurations were deleted (drift). Each run has a process, a lab and full
token buckets of its own; the lab's journal proves that the work was done. Whatever a target is judged by contains the
start of Ansible and the inventory.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arm
import peers
from harness import Broken, Line, Sample, Section, Settings, alternating, measure, median

import on_lab
from arclab.client import Lab

LATENCY_MS = 20.0
# Seconds between the beginnings of runs that go side by side.
STAGGER = 9.0
KINDS = ("new", "steady", "drift")
PUBLISHER, EXTENSION = "Microsoft.Azure.ActiveDirectory", "AADSSHLoginForLinux"
ENABLE = ("ansible-playbook", "arcfleet.ssh.enable", "--tags", "control_plane")


@dataclass(frozen=True)
class Run:
    """One run of a playbook: what it used, and what it asked of Azure."""

    sample: Sample
    requests: arm.Requests


@dataclass(frozen=True)
class Sizes:
    """How many machines each part has."""

    free: Sequence[int]
    fleet: int
    few: int

    @classmethod
    def of(cls, settings: Settings) -> Sizes:
        if settings.quick:
            return cls(free=(6,), fleet=6, few=2)
        return cls(free=(200, 1000, 10_000), fleet=200, few=20)


def sections(settings: Settings) -> Iterator[Section]:
    sizes = Sizes.of(settings)
    yield free(settings, sizes)
    yield from beside(settings, sizes)


# ---- ours


INVENTORY = """\
plugin: arcfleet.ssh.arc_machines
connection: relay
ssh_user: ansible
groups_by: [os_type, status, resource_group]
"""


def inventory(lab: Lab) -> str:
    """An inventory file as the README shows it; groups by template, which the lab's own has, are measured by themselves."""
    path = lab.state_dir / "bench.arc.yml"
    path.write_text(INVENTORY, "utf-8")
    return str(path)


def enable(lab: Lab, *more: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a run on a lab."""
    program, *arguments = ENABLE
    command = [program, "-i", inventory(lab), *arguments, *more]
    return command, on_lab.environment(lab)


def measured(lab: Lab, command: Sequence[str], env: Mapping[str, str], *, sample_every: float = 0.0) -> Run:
    """Run a command on a lab, and count what it asked."""
    lab.clear_journal()
    sample = measure(command, env=env, cwd=lab.state_dir, sample_every=sample_every)
    return Run(sample, arm.count(lab.journal()))


def check(kind: str, requests: arm.Requests, machines: int, drifted: int) -> None:
    """Raise Broken unless the run did what it is measured for."""
    wanted = {"new": machines, "steady": 0, "drift": drifted}[kind]
    written = requests.done("serviceConfigurations/write")
    if written != wanted:
        raise Broken(
            f"{written} service configurations were written and {wanted} should have been ({kind}): {requests}"
        )
    if kind != "new" and (seen := requests.done("serviceConfigurations/read")) < machines - drifted:
        raise Broken(f"only {seen} of {machines} service configurations were read ({kind}): {requests}")


def enablement(settings: Settings, machines: int, *, throttle: bool, sample_every: float = 0.0) -> dict[str, list[Run]]:
    """Every kind of run, `settings.runs` times. A lab starts for each one: its token buckets are full then.

    Throttled runs wait nearly all the time and disturb each other as little, so they run side by side; only not their starts.
    """

    def all_kinds(number: int) -> dict[str, Run]:
        time.sleep(STAGGER * number if throttle else 0)
        place = settings.scratch / f"fleet{number}"
        found = {}
        for kind in KINDS:
            with Lab.up(place, machines=machines, latency_ms=LATENCY_MS, throttle=throttle, check_specs=False) as lab:
                drifted = [machine["id"] for machine in lab.machines()[:: min(100, machines)]]
                if kind == "drift":
                    arm.withdraw(lab, drifted)
                found[kind] = measured(lab, *enable(lab), sample_every=sample_every)
                check(kind, found[kind].requests, machines, len(drifted) if kind == "drift" else 0)
        shutil.rmtree(place)
        return found

    with ThreadPoolExecutor(settings.runs if throttle else 1) as pool:
        runs = list(pool.map(all_kinds, range(settings.runs)))
    return {kind: [run[kind] for run in runs] for kind in KINDS}


def figure(runs: Sequence[Run], name: str) -> float:
    return median([run.sample for run in runs], name)


# ---- what it costs


def free(settings: Settings, sizes: Sizes) -> Section:
    """Wall time, CPU, memory and requests where nothing is throttled."""
    lines: list[Line] = []
    for machines in sizes.free:
        for kind, runs in enablement(settings, machines, throttle=False, sample_every=0.5).items():
            lines += cost(machines, kind, runs, judged=machines >= 1000)
    return Section(
        "Enable, without token buckets",
        lines,
        [
            f"""\
{LATENCY_MS:g} ms of latency. CPU per machine is that of the whole run, start of Ansible and inventory included, divided by the machines; it
is judged at 1,000 machines and more, where the start does not count for most of it. "All processes" is the largest sampled sum of PSS."""
        ],
    )


def cost(machines: int, kind: str, runs: Sequence[Run], *, judged: bool) -> Iterator[Line]:
    name = f"{machines:,} machines, {kind}"
    wall, cpu = figure(runs, "wall"), figure(runs, "cpu") / machines * 1000
    yield _limited(f"{name}: wall", wall, "s", 30.0 if (machines, kind) == (1000, "new") else None)
    most_cpu = {"new": 12.0, "steady": 4.0}.get(kind) if judged else None
    yield _limited(f"{name}: CPU per machine", cpu, "ms", most_cpu)
    most = 150 + 0.02 * machines if machines >= 10_000 else None
    yield _limited(f"{name}: peak memory", figure(runs, "peak_mb"), "MB", most)
    yield _limited(f"{name}: peak memory, all processes", figure(runs, "tree_mb"), "MB", None)
    requests = runs[-1].requests
    reads, writes = (requests.operations[operation] / machines for operation in ("reads", "writes"))
    told = f"{reads:.2f} reads and {writes:.2f} writes per machine, {requests.queries} Resource Graph"
    if kind == "new":
        yield Line(f"{name}: requests", told, target="2 writes", met=requests.operations["writes"] == 2 * machines)
    elif kind == "steady":
        # A handful of questions is for the whole run: the subscription, its resource providers.
        few = requests.operations["reads"] <= machines + 10
        met = few and not requests.operations["writes"]
        yield Line(f"{name}: requests", told, target="1 read, no write", met=met)
    else:
        yield Line(f"{name}: requests", told)


def _limited(name: str, value: float, unit: str, most: float | None) -> Line:
    """A figure that a target limits by itself, or that has none."""
    ours = f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    if most is None:
        return Line(name, ours)
    return Line(name, ours, target=f"≤ {most:g} {unit}", met=value <= most)


# ---- beside what users have today


def beside(settings: Settings, sizes: Sizes) -> Iterator[Section]:
    """azure.azcollection and azure-cli on the same machines."""
    with _lab(settings.scratch / "steady", sizes.fleet) as lab:
        check("new", measured(lab, *enable(lab)).requests, sizes.fleet, 0)
        yield _peer("Enabled fleet, beside azure_rm_arcssh", lambda: arcssh_steady(settings, sizes, lab))
        yield _peer(
            "Installed extension, beside azure_rm_arcmachineextensions", lambda: extensions(settings, sizes, lab)
        )
        yield _peer("Enabled fleet, beside az rest", lambda: az_steady(settings, sizes, lab))
    yield _peer("New machines, beside az rest", lambda: new_by_az(settings, sizes))
    last = _peer("New machines, beside azure_rm_arcssh", lambda: new_by_arcssh(settings, sizes))
    notes = [
        f"""\
Beside other tools: {sizes.fleet} machines, {LATENCY_MS:g} ms of latency, no token buckets. Peers: {peers.versions()}. They learn about the
lab by azure-cli's variable ARM_CLOUD_METADATA_URL; Microsoft's proxy is a stand-in file.""",
        """\
"Per further machine" is the difference between a run with many and one with few machines: what each machine costs beside the start. Peers
that take seconds per machine run with a few machines; what is said about more is scaled from their cost per further machine, which leaves
their start out.""",
    ]
    yield Section(last.title, last.lines, notes)


def _peer(title: str, compare: Callable[[], list[Line]]) -> Section:
    """A comparison, or why there is none."""
    try:
        return Section(title, compare())
    except peers.Missing as reason:
        return Section(title, [Line("not measured", "", str(reason))])


def _lab(place: Path, machines: int) -> Lab:
    return Lab.up(place, machines=machines, latency_ms=LATENCY_MS, check_specs=False, operation_seconds=0.2)


def slope(settings: Settings, many: Sequence[Sample], few: Sequence[Sample], name: str, machines: int) -> float:
    """What one further machine costs. Raises Broken if that drowned in noise, as it may in a quick run."""
    found = (median(many, name) - median(few, name)) / machines
    if settings.quick:
        return max(found, 0.001)
    if found <= 0:
        raise Broken(f"{machines} machines more cost nothing ({name}): too few for this machine's noise.")
    return found


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def less(name: str, ours: float, theirs: float, times: float | None, more: str = "") -> Line:
    """A line whose target is to cost `times` less."""
    ratio = ours / theirs
    if times is None:
        return Line(name, _ms(ours), f"{_ms(theirs)}{more}", ratio)
    return Line(name, _ms(ours), f"{_ms(theirs)}{more}", ratio, f"≤ {1 / times:g}", ratio <= 1 / times)


def arcssh_steady(settings: Settings, sizes: Sizes, lab: Lab) -> list[Line]:
    """All machines are enabled: ours reads each service configuration, theirs also asks for credentials."""
    names = sorted(machine["name"] for machine in lab.machines())
    few = ",".join(names[: sizes.few])

    def ours(*more: str) -> Sample:
        run = measured(lab, *enable(lab, *more))
        check("steady", run.requests, sizes.few if more else sizes.fleet, 0)
        return run.sample

    def theirs(machines: int) -> Sample:
        run = measured(lab, *peers.azure_rm_arcssh(settings, lab, machines))
        if (done := run.requests.done("listCredentials/action")) != machines:
            raise Broken(f"azure_rm_arcssh asked for credentials of {done} of {machines} machines.")
        return run.sample

    all_ours, few_ours, all_theirs, few_theirs = alternating(
        settings.runs,
        ours,
        lambda: ours("-e", json.dumps({"arc_targets": few})),
        lambda: theirs(sizes.fleet),
        lambda: theirs(sizes.few),
    )
    further = sizes.fleet - sizes.few
    title = f"{sizes.fleet} machines"
    return [
        less(f"{title}: wall", median(all_ours, "wall"), median(all_theirs, "wall"), None),
        less(f"{title}: CPU", median(all_ours, "cpu"), median(all_theirs, "cpu"), None),
        less(
            f"{title}: CPU per further machine",
            slope(settings, all_ours, few_ours, "cpu", further),
            slope(settings, all_theirs, few_theirs, "cpu", further),
            4,
        ),
    ]


def extensions(settings: Settings, sizes: Sizes, lab: Lab) -> list[Line]:
    """The extension is there already: nothing has to be written."""
    playbook = lab.state_dir / "extension.yml"
    playbook.write_text(json.dumps([_extension_play()]), "utf-8")
    command = ["ansible-playbook", "-i", inventory(lab), str(playbook)]
    env = on_lab.environment(lab)
    measured(lab, command, env)
    installed = "microsoft.hybridcompute/machines/extensions/write"

    def unchanged(command: Sequence[str], env: Mapping[str, str]) -> Sample:
        run = measured(lab, command, env)
        if written := run.requests.succeeded[installed]:
            raise Broken(f"{written} extensions were written that were right already.")
        return run.sample

    few, some = (1, 2) if settings.quick else (2, 8)
    loops = {n: peers.azure_rm_arcmachineextensions(settings, lab, n, PUBLISHER, EXTENSION) for n in (few, some)}
    ours, few_theirs, some_theirs = alternating(
        settings.runs,
        lambda: unchanged(command, env),
        lambda: unchanged(*loops[few]),
        lambda: unchanged(*loops[some]),
    )
    title = f"arc_extension on {sizes.fleet} machines, beside a loop over {some}"
    return [
        less(
            f"{title}: {name} per machine",
            median(ours, figure) / sizes.fleet,
            slope(settings, some_theirs, few_theirs, figure, some - few),
            times,
        )
        for name, figure, times in (("wall", "wall", None), ("CPU", "cpu", 100))
    ]


def _extension_play() -> dict[str, Any]:
    return {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "arcfleet.ssh.arc_extension": {
                    "machines": "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}",
                    "publisher": PUBLISHER,
                    "type": EXTENSION,
                },
                "delegate_to": "localhost",
                "run_once": True,
                "vars": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                },
            }
        ],
    }


def az_steady(settings: Settings, sizes: Sizes, lab: Lab) -> list[Line]:
    """One GET for each machine, by a process for each machine."""
    few = [machine["id"] for machine in lab.machines()[: 2 if settings.quick else 10]]
    loop = peers.az_rest(settings, lab, [("get", arm.service_configuration(machine), None) for machine in few])

    def mine() -> Sample:
        run = measured(lab, *enable(lab))
        check("steady", run.requests, sizes.fleet, 0)
        return run.sample

    def theirs() -> Sample:
        run = measured(lab, *loop)
        if (seen := run.requests.done("serviceConfigurations/read")) != len(few):
            raise Broken(f"az read {seen} of {len(few)} service configurations.")
        return run.sample

    ours, az = alternating(settings.runs, mine, theirs)
    title = f"{sizes.fleet} machines, beside a loop over {len(few)}"
    return [
        less(f"{title}: {name} per machine", median(ours, figure) / sizes.fleet, median(az, figure) / len(few), None)
        for name, figure in (("wall", "wall"), ("CPU", "cpu"))
    ]


def new_by_az(settings: Settings, sizes: Sizes) -> list[Line]:
    """Machines that nobody enabled yet: two PUTs for each, by a process for each PUT."""
    few = 2 if settings.quick else 5

    def az(lab: Lab) -> Run:
        puts: list[tuple[str, str, str | None]] = []
        for machine in lab.machines():
            puts.append(("put", arm.endpoint(machine["id"]), '{"properties": {"type": "default"}}'))
            body = '{"properties": {"serviceName": "SSH", "port": 22}}'
            puts.append(("put", arm.service_configuration(machine["id"]), body))
        return measured(lab, *peers.az_rest(settings, lab, puts))

    ours, theirs = alternating(
        settings.runs,
        lambda: fresh(settings, sizes.fleet, lambda lab: measured(lab, *enable(lab))),
        lambda: fresh(settings, few, az),
    )
    title = f"{sizes.fleet} machines, beside a loop over {few}"
    return [
        less(f"{title}: {name} per machine", median(ours, figure) / sizes.fleet, median(theirs, figure) / few, None)
        for name, figure in (("wall", "wall"), ("CPU", "cpu"))
    ]


def new_by_arcssh(settings: Settings, sizes: Sizes) -> list[Line]:
    """Machines that nobody enabled yet. azure_rm_arcssh sleeps 16 s for each of them, so it gets one and three."""
    if settings.quick:
        raise peers.Missing("it sleeps 16 s for each new machine, too long for a quick run")
    one, three = 1, 3

    def theirs(machines: int) -> Sample:
        return fresh(settings, machines, lambda lab: measured(lab, *peers.azure_rm_arcssh(settings, lab, machines)))

    ours, loop_one, loop_three = alternating(
        settings.runs,
        lambda: fresh(settings, sizes.fleet, lambda lab: measured(lab, *enable(lab))),
        lambda: theirs(one),
        lambda: theirs(three),
    )
    further = three - one
    wall = slope(settings, loop_three, loop_one, "wall", further)
    scaled = f" ({sizes.fleet} machines: {wall * sizes.fleet / 60:.0f} min)"
    title = f"{sizes.fleet} machines, beside a loop over {three}"
    return [
        less(f"{title}: wall per machine", median(ours, "wall") / sizes.fleet, wall, 100, scaled),
        less(
            f"{title}: CPU per machine",
            median(ours, "cpu") / sizes.fleet,
            slope(settings, loop_three, loop_one, "cpu", further),
            None,
        ),
    ]


def fresh(settings: Settings, machines: int, run: Callable[[Lab], Run]) -> Sample:
    """A run on a lab of its own, whose machines are all enabled by it."""
    place = settings.scratch / "new"
    with _lab(place, machines) as lab:
        found = run(lab)
    shutil.rmtree(place)
    check("new", found.requests, machines, 0)
    return found.sample
