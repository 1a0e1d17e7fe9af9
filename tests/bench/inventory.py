# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does an inventory of a fleet cost, beside the least that Ansible itself takes for the same hosts?

`ansible-inventory --list` and `ansible all --list-hosts`, with requests to Azure (cold) and without (warm cache), beside
a throw-away plugin that has the same hosts, groups and variables in memory, a static file of them, Ansible's own
`keyed_groups` in place of our `groups_by`, and azure_rm. Every run's requests are counted in the lab's journal and have
to be as many as there are pages; every side's result is compared with ours.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arm
import peers
import yaml
from harness import Broken, Line, Sample, Section, Settings, alternating, measure, median

import on_lab
from arclab.client import Lab

# At this size and above the target counts; below, the start of Ansible and of Azure's libraries is most of the time.
JUDGED = 10_000
TARGET = 1.3
PAGE = 1000
EXTENSIONS = 2
GROUPS_BY = ("os_type", "location", "resource_group", "status", "tag:env")
# The same groups by Ansible's own means.
KEYED_GROUPS = (
    {"key": "arc_os_type", "prefix": "os_type"},
    {"key": "arc_location", "prefix": "location"},
    {"key": "arc_resource_group", "prefix": "resource_group"},
    {"key": "arc_status | lower", "prefix": "status"},
    {"key": "arc_tags.env", "prefix": "tag_env"},
)
# As little as a plugin can do, with the fastest way to set variables that there is, and with the documented one.
FASTEST = "inventory.hosts[name].vars.update(variables)"
DOCUMENTED = "[inventory.set_variable(name, key, value) for key, value in variables.items()]"
IN_MEMORY = '''
DOCUMENTATION = r"""
name: NAME
short_description: Hosts out of a pickle
description: Hosts out of a pickle.
options:
  plugin: {description: This plugin., required: true}
  path: {description: The pickle., type: path, required: true}
"""

import pickle

from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):
    NAME = "NAME"

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        with open(self.get_option("path"), "rb") as file:
            groups, hosts = pickle.load(file)
        for group in groups:
            inventory.add_group(group)
        for name, variables in hosts.items():
            inventory.add_host(name)
            SET_VARIABLES
        for group, members in groups.items():
            for name in members:
                inventory.add_child(group, name)
'''


@dataclass(frozen=True)
class Contents:
    """What is in an inventory: hosts of each group, variables of each host."""

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, text: str) -> Contents:
        """From the output of `ansible-inventory --list`, in which a mark of Ansible's says what is no template."""
        found = json.loads(text, object_hook=lambda value: value.get("__ansible_unsafe", value))
        hosts = found.pop("_meta")["hostvars"]
        groups = {name: sorted(group["hosts"]) for name, group in found.items() if "hosts" in group}
        return cls(dict(sorted(groups.items())), hosts)


def sections(settings: Settings) -> Iterator[Section]:
    for machines in (30,) if settings.quick else (1000, 10_000):
        place = settings.scratch / f"inventory-{machines}"
        place.mkdir(mode=0o700)
        fleet = place / "fleet.json"
        fleet.write_text(json.dumps(list(plans(machines))), "utf-8")
        with Lab.up(place / "lab", fleet=str(fleet), check_specs=False) as lab:
            yield Fleet(settings, lab, place, machines).section()


def plans(machines: int) -> Iterator[dict[str, Any]]:
    """A fleet as people have: 20 resource groups, 3 regions, a quarter Windows, 2 extensions each."""
    for number in range(machines):
        windows = number % 4 == 3
        login = ("Microsoft.Azure.OpenSSH", "WindowsOpenSSH")
        if not windows:
            login = ("Microsoft.Azure.ActiveDirectory", "AADSSHLoginForLinux")
        monitor = ("Microsoft.Azure.Monitor", f"AzureMonitor{'Windows' if windows else 'Linux'}Agent")
        yield {
            "name": f"srv{number:05d}",
            "resource_group": f"arc-{number % 20:02d}",
            "location": ("westeurope", "northeurope", "eastus")[number % 3],
            "os_type": "windows" if windows else "linux",
            "tags": {"env": ("prod", "test", "dev")[number % 3], "owner": f"team{number % 30}"},
            "extensions": [{"publisher": publisher, "type": kind} for publisher, kind in (login, monitor)],
        }


class Fleet:
    """The inventories of one lab, and their comparison."""

    def __init__(self, settings: Settings, lab: Lab, place: Path, machines: int) -> None:
        self.settings = settings
        self.lab = lab
        self.place = place
        self.machines = machines
        self.pages = math.ceil(machines / PAGE) + math.ceil(EXTENSIONS * machines / PAGE)
        plugins = place / "plugins"
        plugins.mkdir()
        for name, way in (("in_memory", FASTEST), ("in_memory_documented", DOCUMENTED)):
            plugin = IN_MEMORY.replace("NAME", name).replace("SET_VARIABLES", way)
            (plugins / f"{name}.py").write_text(plugin, "utf-8")
        more = {
            "ANSIBLE_INVENTORY_PLUGINS": str(plugins),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
        }
        self.env = on_lab.environment(lab, **more)
        grouped = {"groups_by": list(GROUPS_BY)}
        cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_timeout": 86400}
        cached["cache_connection"] = str(place / "cache")
        self.cold = self._ours("cold", **grouped)
        self.warm = self._ours("warm", **grouped, **cached)
        self.keyed = self._ours("keyed", keyed_groups=list(KEYED_GROUPS), **cached)
        self.arm = self._ours("list", **grouped, source="arm")

    def _ours(self, name: str, **options: Any) -> Path:
        login = {"connection": "relay", "ssh_user": "ops", "ssh_private_key_file": "~/.ssh/fleet"}
        return self._file(f"{name}.arc.yml", {"plugin": "arcfleet.ssh.arc_machines", **login, **options})

    def _file(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.place / name
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(content, file, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
        return path

    def section(self) -> Section:
        contents = self.contents(self.cold, self.pages)
        if len(contents.hosts) != self.machines or any(
            len(host["arc_extensions"]) != EXTENSIONS for host in contents.hosts.values()
        ):
            raise Broken(f"The inventory has {len(contents.hosts)} of {self.machines} machines, or lacks extensions.")
        memory, documented = self.in_memory(contents, "in_memory"), self.in_memory(contents, "in_memory_documented")
        # The first run fills the cache.
        self.same(contents, self.contents(self.warm, self.pages), "a cold cache")
        self.same(contents, self.contents(self.warm, 0), "a warm cache")
        self.same(contents, self.contents(memory, 0), "the plugin in memory")
        lines = [
            Line(
                f"{self.machines:,} machines, requests to Resource Graph",
                f"{self.pages}, checked in every run",
                f"{self.pages} pages of {PAGE:,} machines or extensions",
                1.0,
                "1",
                True,
            ),
            *self.beside(memory, "--list", self.listing),
            *self.beside(memory, "--list-hosts", self.names),
            self.once("`--list`, beside in memory with `set_variable`: wall", self.warm, documented, contents),
            *self.static(contents),
            *self.templates(contents),
            *self.azure_rm(),
        ]
        return Section(
            f"Inventory of {self.machines:,} machines",
            lines,
            NOTES if self.machines >= JUDGED or self.settings.quick else (),
        )

    # ---- runs

    def listing(self, path: Path, requests: int, *, keep: bool = False) -> Sample:
        command = ["ansible-inventory", "-i", str(path), "--list"]
        return self.run(command, self.env, lambda asked: asked.queries == requests, keep=keep)

    def names(self, path: Path, requests: int) -> Sample:
        command = ["ansible", "all", "-i", str(path), "--list-hosts"]
        sample = self.run(command, self.env, lambda asked: asked.queries == requests, keep=True)
        if f"hosts ({self.machines})" not in sample.stdout:
            raise Broken(f"`ansible --list-hosts` shows not {self.machines} hosts: {sample.stdout[:100]!r}")
        return sample

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        right: Callable[[arm.Requests], bool],
        *,
        keep: bool = False,
    ) -> Sample:
        """A run that asked Azure for what it should."""
        self.lab.clear_journal()
        sample = measure(command, env=env, cwd=self.place, keep_stdout=keep)
        asked = arm.count(self.lab.journal())
        if not right(asked):
            raise Broken(f"`{command[0]}` on {self.machines} machines made {asked}, {self.pages} pages exist.")
        return sample

    def contents(self, path: Path, requests: int) -> Contents:
        return Contents.of(self.listing(path, requests, keep=True).stdout)

    def same(self, ours: Contents, other: Contents, name: str) -> None:
        if ours.groups != other.groups:
            raise Broken(f"The groups of {name} differ: {sorted(ours.groups)}, {sorted(other.groups)}")
        for host, variables in ours.hosts.items():
            if other.hosts.get(host) != variables:
                raise Broken(f"{host} of {name} differs: {variables}, {other.hosts.get(host)}")

    # ---- comparisons

    def beside(self, memory: Path, name: str, run: Callable[[Path, int], Sample]) -> Iterator[Line]:
        """Cold and warm beside the plugin in memory."""
        cold, warm, least = alternating(
            self.settings.runs,
            lambda: run(self.cold, self.pages),
            lambda: run(self.warm, 0),
            lambda: run(memory, 0),
        )
        for title, samples, figure in (("warm cache", warm, "wall"), ("cold", cold, "cpu")):
            ratio = median(samples, figure) / median(least, figure)
            shown = {"wall": "wall", "cpu": "CPU"}[figure]
            beside = f"in memory: {told(least)}"
            # Of a cold run, Azure decides how long it takes.
            name_of_line = f"`{name}`, {title}: {shown}"
            if self.machines < JUDGED:
                yield Line(name_of_line, told(samples), beside, ratio)
            else:
                yield Line(name_of_line, told(samples), beside, ratio, f"≤ {TARGET:g}", ratio <= TARGET)

    def static(self, contents: Contents) -> Iterator[Line]:
        """A file that needs no plugin of anybody's. It takes about a minute for 10,000 hosts."""
        groups = {
            group: {"hosts": dict.fromkeys(members)} for group, members in contents.groups.items() if group != "all"
        }
        path = self._file("static.yml", {"all": {"hosts": dict(contents.hosts), "children": groups}})
        yield self.once("`--list`, beside a static YAML file: wall", self.warm, path, contents)

    def templates(self, contents: Contents) -> Iterator[Line]:
        """Ansible's own way to groups."""
        # This run fills the cache.
        self.listing(self.keyed, self.pages)
        yield self.once("`--list`, `groups_by` beside `keyed_groups`: wall", self.warm, self.keyed, contents)

    def once(self, title: str, ours: Path, other: Path, contents: Contents) -> Line:
        """Both without requests; several times where that takes seconds."""
        runs = self.settings.runs if self.machines < JUDGED else 1
        mine, theirs = alternating(
            runs, lambda: self.listing(ours, 0, keep=True), lambda: self.listing(other, 0, keep=True)
        )
        self.same(contents, Contents.of(theirs[0].stdout), other.name)
        return Line(title, f"warm cache: {told(mine)}", told(theirs), median(mine, "wall") / median(theirs, "wall"))

    def azure_rm(self) -> Iterator[Line]:
        """What users have today. It reads ARM's lists page after page, as `source: arm` does for one subscription."""
        title = "`--list`, cold, beside azure_rm"
        try:
            command, env = peers.azure_rm_inventory(self.settings, self.lab)
        except peers.Missing as reason:
            yield Line(title, "", f"not measured: {reason}")
            return
        runs = self.settings.runs if self.machines < JUDGED else 1

        def listed(asked: arm.Requests) -> bool:
            return asked.operations["reads"] > 0 and not asked.queries

        def theirs() -> Sample:
            sample = self.run(command, env, listed, keep=True)
            if len(found := Contents.of(sample.stdout).hosts) != self.machines:
                raise Broken(f"azure_rm lists {len(found)} of {self.machines} machines.")
            return sample

        graph, lists, peer = alternating(
            runs,
            lambda: self.listing(self.cold, self.pages),
            lambda: self.run(["ansible-inventory", "-i", str(self.arm), "--list"], self.env, listed),
            theirs,
        )
        for name, samples in (("Resource Graph", graph), ("`source: arm`", lists)):
            for figure, shown in (("wall", "wall"), ("cpu", "CPU")):
                ratio = median(samples, figure) / median(peer, figure)
                yield Line(f"{title}, {name}: {shown}", told(samples), told(peer), ratio)

    def in_memory(self, contents: Contents, plugin: str) -> Path:
        groups = {group: members for group, members in contents.groups.items() if group != "all"}
        data = self.place / "hosts.pickle"
        data.write_bytes(pickle.dumps((groups, contents.hosts)))
        return self._file(f"{plugin}.yml", {"plugin": plugin, "path": str(data)})


def told(samples: Sequence[Sample]) -> str:
    """The medians of all three figures."""
    wall, cpu, peak = (median(samples, figure) for figure in ("wall", "cpu", "peak_mb"))
    return f"{wall:.2f} s wall, {cpu:.2f} s CPU, {peak:.0f} MB"


NOTES = (
    """\
All sides give the same hosts, groups and variables (21 to 25 of them, extensions and connection included), which is checked; azure_rm
gives its own, fewer ones.""",
    """\
The wall time of a cold run is that of the stand-in for Azure, which shares the machine's cores and takes longer for a page than Azure
does; so cold runs are compared by the CPU time that Ansible itself takes.""",
    """\
The plugin in memory loads a pickle and updates each host's dictionary of variables, the fastest way there is; `set_variable` is the
documented one.""",
    """\
A cold run takes CPU time that memory does not: it imports Azure's libraries, logs in, and takes all pages through TLS and JSON. Beside
`--list`, which spends most of its time on printing, that is little; beside `--list-hosts` it is not.""",
)
