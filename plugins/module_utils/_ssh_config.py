# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does ssh reach a whole fleet from one file?

Pure: machines in, the text of ssh_config(5) out. A machine is a name and its resource id, which becomes the HostName, so that all else is
said once for all of them, and for any other machine whose id somebody types. First value wins in such a file, IdentityFile and
CertificateFile add up; machines that differ are told apart by name. Private to arcfleet.ssh.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ._errors import InputError
from ._ids import MachineId

BEGIN, END = "# BEGIN arcfleet.ssh", "# END arcfleet.ssh"
TITLE = "# Written by arcfleet.ssh.arc_ssh_config; what is changed here is lost at its next run."

# Any machine: HostName is the resource id, in lower case when ssh compares it.
EVERY_MACHINE = "/subscriptions/*/machines/*"
PORT = 22

# Seconds, as the inventory has them: the helper's own patience, and time to log in.
_CONNECT_TIMEOUT = 200
# No `@`: what is before one would be the user.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,252}|/subscriptions/[-\w./()]+")
_OPTION = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+)([^\n\r\0]+)")
# Stands for the machine's id while its arguments are read; nobody types it.
_ID = "\x1f"
_LINE_BREAKS = re.compile(r"[\n\r\0]")


@dataclass(frozen=True)
class Entry:
    """A machine: its names, the first of which is the one it goes by, and what ssh is told of it besides."""

    names: tuple[str, ...]
    machine: MachineId
    port: int
    options: tuple[tuple[str, str], ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """What stands below its name."""
        # Without a port of its own, ssh knows the host key by the host's name, which is the same.
        ported = (f"Port {self.port}", f"HostKeyAlias {self.machine.key}") if self.port != PORT else ()
        return (f"HostName {self.machine}", *ported)


def entry(
    names: Sequence[str],
    machine: MachineId,
    ssh_args: str,
    *,
    port: int = PORT,
    user: str | None = None,
    private_key_file: str | None = None,
) -> Entry:
    """A machine, from what Ansible's inventory says of it.

    `ssh_args` are the arguments of ssh, options of the form `-o Name=Value` with a ProxyCommand among them. Raises InputError for
    what cannot stand in ssh's configuration.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"{machine.name}: {name!r} cannot be a name in ssh's configuration.")
    options = [] if user is None else [("User", word(user, machine.name))]
    if private_key_file is not None:
        options.append(("IdentityFile", file_word(private_key_file)))
    options += [(name, value) for name, value in _options(ssh_args, machine) if name.lower() != "hostkeyalias"]
    if not any(name.lower() == "proxycommand" for name, _value in options):
        raise InputError(
            f"{machine.name}: its arguments of ssh hold no ProxyCommand.",
            hint="Take them from the inventory arcfleet.ssh.arc_machines with connection: relay.",
        )
    return Entry(tuple(dict.fromkeys(names)), machine, port, tuple(options))


def _options(ssh_args: str, machine: MachineId) -> Iterable[tuple[str, str]]:
    # Reading such a text costs half a millisecond, and those of a fleet differ in the id alone.
    text = ssh_args.replace(str(machine), _ID).replace(machine.key, _ID)
    try:
        options = _read(text)
    except ValueError as exc:
        raise InputError(f"{machine.name}: {exc}", hint="Write its arguments of ssh as `-o Name=Value`.") from exc
    for name, value in options:
        if name.lower() == "proxycommand":
            # ssh puts the HostName there, which is the resource id.
            # People who connect again mean it, unlike Ansible.
            yield name, value.replace(f"'{_ID}'", _ID).replace(_ID, "'%h'").replace(" --once", "")
        else:
            yield name, value.replace(_ID, machine.key)


@functools.lru_cache(maxsize=64)
def _read(text: str) -> tuple[tuple[str, str], ...]:
    """The options in arguments of ssh. Raises ValueError with a sentence."""
    try:
        rest = iter(shlex.split(text))
    except ValueError as exc:
        raise ValueError("its arguments of ssh have an open quotation mark.") from exc
    found = []
    for given in rest:
        option = next(rest, "") if given == "-o" else given[2:] if given.startswith("-o") else ""
        parts = _OPTION.fullmatch(option)
        if not parts:
            raise ValueError(f"{given!r} among its arguments of ssh has no place in a configuration.")
        found.append((parts[1], parts[2]))
    return tuple(found)


def word(value: str, owner: str) -> str:
    """A value as one word. Raises InputError for one that cannot be."""
    if _LINE_BREAKS.search(value) or '"' in value or not value:
        raise InputError(f"{owner}: {value!r} cannot stand in ssh's configuration.")
    return f'"{value}"' if re.search(r"[\s#=']", value) else value


def file_word(path: str) -> str:
    """A file name as a word of ssh_config, where blanks separate files and `%` begins a token."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"\s", path) else escaped


def render(entries: Sequence[Entry], *, control_path: str | None, control_persist: str) -> str:
    """The file for these machines. `control_path` is where connections are shared, `None` for not at all.

    Raises InputError for a name that two machines have.
    """
    _refuse_twins(entries)
    classes: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for one in entries:
        classes.setdefault(one.options, []).append(one)
    # The largest one stands for machines that are not listed, too.
    groups = sorted(classes.items(), key=lambda item: len(item[1]))
    lines = [TITLE]
    for one in entries:
        lines += [f"Host {' '.join(one.names)}", *(f"  {line}" for line in one.lines)]
    others: list[str] = []
    for options, members in groups[:-1]:
        names = [name for member in members for name in member.names]
        others += names
        lines += [f"Match originalhost {','.join(names)}", *(f"  {name} {value}" for name, value in options)]
    if groups:
        apart = f" originalhost *,{','.join(f'!{name}' for name in others)}" if others else ""
        lines += [f"Match host {EVERY_MACHINE}{apart}", *(f"  {name} {value}" for name, value in groups[-1][0])]
        lines += [f"Match host {EVERY_MACHINE}", *_sharing(control_path, control_persist)]
    return "".join(f"{line}\n" for line in lines)


def _sharing(control_path: str | None, control_persist: str) -> list[str]:
    """What suits a relay: it takes its time to connect, and connections are dear.

    `UpdateHostKeys` notes, over a connection that is verified, the machine's other keys and new ones; ssh does so by itself only where no file for
    known hosts is named (ssh_config(5)).
    """
    shared = (
        [
            "  ControlMaster auto",
            f"  ControlPath {file_word(control_path).replace('%%C', '%C')}",
            f"  ControlPersist {control_persist}",
        ]
        if control_path is not None
        else []
    )
    return [f"  ConnectTimeout {_CONNECT_TIMEOUT}", "  ServerAliveInterval 30", "  UpdateHostKeys yes", *shared]


def _refuse_twins(entries: Sequence[Entry]) -> None:
    holders: dict[str, Entry] = {}
    for one in entries:
        for name in one.names:
            other = holders.setdefault(name.lower(), one)
            if other is not one:
                raise InputError(
                    f"{name} would be the name of two machines, {other.machine} and {one.machine}.",
                    hint="Give one of them another name, or leave the names to this module.",
                )


def parse(text: str) -> dict[str, list[str]]:
    """What a file of ours says of each machine, by its first name; what it says of all stands under ''."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("Host "):
            names = line.split()[1:]
            current = found.setdefault(names[0], [])
            current += [f"Host {name}" for name in names[1:]]
        elif line.startswith("Match "):
            current = found.setdefault("", [])
            current.append(line)
        elif line.startswith("  "):
            current.append(line.strip())
    return found


def is_ours(text: str) -> bool:
    """Whether `render` made this file."""
    return text.startswith(TITLE)


# ---- the file that includes it


def with_include(text: str, path: str) -> str:
    """The user's configuration with our block at its top: further down it could be inside of somebody's Host."""
    block = f"{BEGIN}\nInclude {file_word(path)}\n{END}\n"
    return block + without_include(text)


def without_include(text: str) -> str:
    """The user's configuration without our block. Raises InputError for one that has no end."""
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if line.strip() == BEGIN]
    if not starts:
        return text
    first = starts[0]
    last = next((number for number in range(first, len(lines)) if lines[number].strip() == END), None)
    if last is None:
        raise InputError(
            f"ssh's configuration has a line {BEGIN!r} without {END!r}.", hint="Remove what is left of the block."
        )
    return without_include("\n".join([*lines[:first], *lines[last + 1 :]]))


def changes(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many machines come, change, go and stay."""
    names = [name for name in {**before, **after} if name]
    kinds = [_kind(before.get(name), after.get(name)) for name in names]
    return {kind: kinds.count(kind) for kind in ("created", "updated", "deleted", "unchanged")}


def _kind(before: Sequence[str] | None, after: Sequence[str] | None) -> str:
    if before is None:
        return "created"
    if after is None:
        return "deleted"
    return "unchanged" if list(before) == list(after) else "updated"
