# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do hosts become a YAML inventory that means exactly what was written into it?

Hosts stand one on a line, with their variables as JSON, which YAML (1.2, 1.1 nearly) reads as well: so what differs is found without
reading YAML again, and 10,000 hosts take a fraction of what an emitter takes. What the two languages disagree on is written the way that
YAML has it. Names and tags come from other people's machines: a text in which Ansible would look for a template is marked as data.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ._claims import Claims, default_path
from ._errors import ArcError, InputError
from ._files import read_text, replace_text, settled
from ._ssh_config import changes

TITLE = "# Written by arcfleet.ssh.arc_static_inventory; what is changed here is lost at its next run."

# Ansible's YAML inventory takes these only.
SUFFIXES = (".yml", ".yaml")

# Ansible takes more for a range (`web[01:10]`) or a port (`web01:22`); whoever reads the file shall see names.
_HOST = re.compile(r"[^\s\[\]{}:,!&*?|<>=#%@`\"'\\]+")
_GROUP = re.compile(r"[^\W\d]\w*")
# Every host is in these without being named there.
_IMPLIED = ("all", "ungrouped")

# The variables of Ansible's plugins that hold secrets end so, and people call their own alike; `arc_auth` may hold one.
_SECRET = re.compile(
    r"(.*_)?(pass|passwd|password|passphrase|secret|token|private_key|api_key|access_key)|(ansible_)?vault_.*|arc_auth",
    re.IGNORECASE,
)

_TEMPLATE = re.compile(r"\{[{%#]")
# What YAML does not take as it is, or takes for the end of a line (5.1, 5.4).
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# A longer key has to be announced (7.4.2).
_LONGEST_KEY = 1000
_EXPONENT = re.compile(r"(-?\d+)(\.\d+)?e([+-])(\d+)")
_WORDS: Mapping[Any, str] = {None: "null", True: "true", False: "false"}
_QUOTE = re.compile(r'["\\]')


def render(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Iterable[str]]) -> str:
    """The inventory of these hosts, in this order, and of those of the groups that any of them is in.

    Raises InputError for a name that cannot be one in an inventory, and for a variable that holds a secret by its name.
    """
    _refuse(hosts)
    lines = [TITLE, "all:", "  hosts:" if hosts else "  hosts: {}"]
    lines += [f"    {_text(name)}: {_value(variables, name)}" for name, variables in hosts.items()]
    members = {
        group: [name for name in dict.fromkeys(named) if name in hosts]
        for group, named in sorted(groups.items())
        if group not in _IMPLIED
    }
    _refuse_groups(group for group, named in members.items() if named)
    if any(members.values()):
        lines.append("  children:")
        for group, named in members.items():
            if named:
                lines += [f"    {group}:", "      hosts:", *(f"        {_text(name)}:" for name in named)]
    return "\n".join([*lines, ""])


def _refuse(hosts: Mapping[str, Mapping[str, Any]]) -> None:
    wrong = [name for name in hosts if not _HOST.fullmatch(name) or _UNPRINTABLE.search(name)]
    if wrong:
        raise InputError(f"{_some(wrong)} cannot be a host's name in an inventory.")
    names = set(chain.from_iterable(hosts.values()))
    secret = sorted(name for name in names if _SECRET.fullmatch(name))
    if secret:
        owner = next(host for host, variables in hosts.items() if secret[0] in variables)
        raise InputError(
            f"{', '.join(secret)}: such variables hold secrets, and an inventory is no place for them (as that of {owner}).",
            hint="Leave them out here, and give them to Ansible from a vault.",
        )


def _refuse_groups(groups: Iterable[str]) -> None:
    wrong = [name for name in groups if not _GROUP.fullmatch(name)]
    if wrong:
        raise InputError(
            f"{_some(wrong)} cannot be a group's name in an inventory.", hint="It has letters, digits and underscores."
        )


def _some(names: Collection[str]) -> str:
    shown = [repr(name) for name in names][:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _value(value: Any, owner: str) -> str:
    """A value in flow style, on one line."""
    if isinstance(value, str):
        return f"!unsafe {_text(value, owner)}" if _TEMPLATE.search(value) else _text(value, owner)
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(_pair(str(name), one, owner) for name, one in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(one, owner) for one in value)}]"
    raise InputError(f"{owner}: {type(value).__name__} is nothing that an inventory can hold.")


def _pair(name: str, value: Any, owner: str) -> str:
    key = _text(name, owner)
    return f"{'? ' if len(key) > _LONGEST_KEY else ''}{key}: {_value(value, owner)}"


def _text(value: str, owner: str = "") -> str:
    """A text between quotation marks."""
    if value.isascii() and value.isprintable() and not _QUOTE.search(value):
        return f'"{value}"'
    if _SURROGATE.search(value):
        raise InputError(f"{owner}: a variable holds bytes that are no text in UTF-8.")
    if value.isascii():
        # The escapes of JSON for these are among those of YAML.
        return json.dumps(value).replace("\x7f", "\\x7f")
    quoted = _QUOTE.sub(r"\\\g<0>", value)
    return _UNPRINTABLE.sub(_escaped, f'"{quoted}"')


def _escaped(found: re.Match[str]) -> str:
    return f"\\U{ord(found[0]):08x}"


def _number(value: float) -> str:
    """A number that YAML 1.1 takes for one: with a point, also before an exponent."""
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    return _EXPONENT.sub(lambda found: f"{found[1]}{found[2] or '.0'}e{found[3]}{found[4]}", text)


def parse(text: str) -> dict[str, list[str]]:
    """What the file says of each host: its variables, and its groups. `text` is ours, or empty."""
    said: dict[str, list[str]] = {}
    for name, statement in _statements(text):
        said.setdefault(name, []).append(statement)
    return said


def _statements(text: str) -> Iterator[tuple[str, str]]:
    group = ""
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip(" "))
        name, _colon, rest = line.strip().partition(":")
        if depth == 8:
            yield name.strip('"'), f"in {group}"
        elif depth == 4 and rest:
            yield name.strip('"'), rest.strip()
        elif depth == 4:
            group = name


@dataclass
class Written:
    """What was done, or would be. `before` and `after` are what is said of the hosts that differ."""

    path: str
    counts: dict[str, int]
    changed: bool
    before: dict[str, list[str]]
    after: dict[str, list[str]]


def write(path: str, text: str | None, *, check_mode: bool) -> Written:
    """Bring the file at `path` to `text`, `None`: there shall be none.

    Raises InputError for a file that is not ours or that no inventory can be in, ArcError where it cannot be written.
    """
    if not path.endswith(SUFFIXES):
        raise InputError(f"{path}: Ansible reads an inventory of this kind from {' and '.join(SUFFIXES)} files only.")
    file = settled(path)
    claims = None if check_mode else Claims(default_path())
    try:
        with claims.hold(f"static_inventory {file}", time.sleep) if claims else contextlib.nullcontext():
            there = read_text(file)
            if there and not there.startswith(TITLE):
                raise InputError(
                    f"{file} was not written by arcfleet.ssh.",
                    hint="Name another file with path, or take this one away.",
                )
            if not check_mode and text != there:
                _put(file, text)
    except OSError as exc:
        raise ArcError(
            f"{exc.filename or file} cannot be written: {exc.strerror or exc}.",
            hint="Check the owner, the permissions and the space of its directory.",
        ) from exc
    finally:
        if claims:
            claims.close()
    before, after = parse(there or ""), parse(text or "")
    differing = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return Written(
        path=file,
        counts=changes(before, after),
        changed=text != there,
        before={name: before[name] for name in differing if name in before},
        after={name: after[name] for name in differing if name in after},
    )


def _put(file: str, text: str | None) -> None:
    if text is None:
        os.unlink(file)
    else:
        replace_text(file, text)
