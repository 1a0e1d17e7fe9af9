# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a machine called among all others?

Pure. Machines of the same name never share one here: Ansible would merge them into one host, and ssh would take the keys and the
connection of one for those of the other. Private to arcfleet.ssh.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from ._ids import MachineId

# Ansible takes the first two as group names, the others as the controller itself.
_RESERVED = frozenset(("all", "ungrouped", "localhost", "127.0.0.1", "::1"))
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,252}")
_RESOURCE_ID = re.compile(r"/subscriptions/[-\w./()]+")


def unique_names(
    wanted: Sequence[tuple[MachineId, str | None]], taken: Iterable[str] = ()
) -> tuple[list[str], list[str], int]:
    """Host names, in the order of `wanted`, so that no two machines merge and none replaces a host that Ansible knows.

    `wanted` holds each machine and the name it should have; `taken` are names it must not have, such as groups'.
    Case does not make names differ, as it does not in Azure. Returns the names, those wanted names that had to become
    longer, and how many wanted names could not be host names, so that the machine's own name took their place.
    """
    levels = [0] * len(wanted)
    bases, refused = [], 0
    for machine, name in wanted:
        usable = name is not None and (_HOST_NAME.fullmatch(name) or _RESOURCE_ID.fullmatch(name))
        refused += not usable
        bases.append(name if usable and name is not None else _plain(machine))
    reserved = _RESERVED.union(name.lower() for name in taken)
    shared: set[str] = set()
    while True:
        names = [_lengthened(bases[index], levels[index], machine) for index, (machine, _name) in enumerate(wanted)]
        holders: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            holders.setdefault(name.lower(), []).append(index)
        longer = [
            index
            for name, indexes in holders.items()
            if len(indexes) > 1 or name in reserved
            for index in indexes
            if levels[index] < 3
        ]
        if not longer:
            return names, sorted(shared), refused
        for index in longer:
            if not levels[index]:
                shared.add(bases[index])
            levels[index] += 1


def _plain(machine: MachineId) -> str:
    """The machine's own name; one that begins with '-' would be an option to ssh, so it gets another beginning."""
    return machine.name if _HOST_NAME.fullmatch(machine.name) else alias(machine)


def _lengthened(base: str, level: int, machine: MachineId) -> str:
    """`base` made more particular: by resource group, then by subscription, then by what no other machine has."""
    if level == 3:
        return f"{base}.{_fingerprint(machine)}"
    parts = (base, re.sub(r"[^A-Za-z0-9_.-]", "_", machine.resource_group), machine.subscription_id)
    return ".".join(parts[: level + 1])


def _fingerprint(machine: MachineId) -> str:
    return hashlib.sha256(machine.key.encode()).hexdigest()[:10]


def alias(machine: MachineId) -> str:
    """A name that no other machine in Azure has, short and harmless.

    Ansible names ssh's control socket after host, port and user alone: with a name that two machines share, commands
    would reach the wrong one.
    """
    name = re.sub(r"[^a-z0-9-]+", "-", machine.name.lower())[:20].strip("-")
    return f"{name or 'machine'}-{_fingerprint(machine)}"
