# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lines of known_hosts let ssh recognise these machines?

Pure: text and keys in, text and plans out. A key that ssh knows already is left alone, and one that contradicts it is refused: that is
what the file is for. Formats: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"; ssh_config(5) for the options. Private to arcfleet.ssh.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ._errors import ArcError, InputError
from ._plan import Plan, plan

_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]{1,60} [A-Za-z0-9+/]{40,}={0,3}")
# What is neither a pattern nor a list nor a hash nor a marker.
_NAME = re.compile(r"[^\s,*?!|#@\"][^\s,*?!|\"]*")
_HASHED = re.compile(r"\|1\|([^|]+)\|([^|]+)")


@dataclass(frozen=True)
class Host:
    """A machine as ssh looks for it, in lower case. `keys` are `type base64`, `owner` is its name for sentences."""

    name: str
    owner: str
    keys: tuple[str, ...]


@dataclass
class Merged:
    """The new text; for each host name its plan, or why it was refused."""

    text: str
    plans: dict[str, Plan] = field(default_factory=dict)
    refused: dict[str, ArcError] = field(default_factory=dict)


@dataclass
class _Line:
    """One line of the file. `hosts` is empty for what is not about hosts; `text` is `None` once it is gone."""

    text: str | None
    number: int
    marker: str = ""
    hosts: tuple[str, ...] = ()
    key: str = ""
    rest: str = ""


def host(name: str, owner: str, keys: Iterable[str]) -> Host:
    """A host with its keys, which come without comments. Raises InputError for what cannot be in the file."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{owner}: {name!r} cannot be a name in known_hosts.")
    given = tuple(dict.fromkeys(" ".join(key.split()[:2]) for key in keys))
    if not given:
        raise InputError(f"{owner}: there are no host keys to note.")
    if not all(_KEY.fullmatch(key) for key in given):
        raise InputError(f"{owner}: one of its host keys is not a public key of OpenSSH.")
    # OpenSSH looks names up in lower case.
    return Host(name.lower(), owner, given)


def merge(text: str, hosts: Sequence[Host], *, replace: bool, path: str) -> Merged:
    """The text of a known_hosts file with these hosts in it.

    `replace` lets new keys take the place of those that they contradict. `path` is for sentences.
    """
    # Not splitlines(), which ends lines in places where ssh does not.
    texts = text.split("\n")
    lines = [_parsed(line, number) for number, line in enumerate(texts if texts[-1] else texts[:-1], 1)]
    known = _index(lines, {one.name for one in hosts})
    revoked = {line.key for line in lines if line.marker == "@revoked"}
    merged = Merged(text)
    added: list[str] = []
    for one in hosts:
        mine = known.get(one.name, [])
        refusal = _refusal(one, mine, revoked, replace, path)
        if refusal is not None:
            merged.refused[one.name] = refusal
            continue
        before = [line.key for line in mine]
        kept = before
        if _contradicted(one, mine):
            for line in mine:
                _take_out(line, one.name)
            kept = []
        new = [key for key in one.keys if key not in kept]
        added += [f"{one.name} {key}" for key in new]
        merged.plans[one.name] = plan(_state(before), _state([*kept, *new]))
    if any(one.changed for one in merged.plans.values()):
        left = [line.text for line in lines if line.text is not None]
        merged.text = "".join(f"{line}\n" for line in [*left, *added])
    return merged


def _state(keys: Sequence[str]) -> Mapping[str, list[str]] | None:
    return {"host_keys": sorted(set(keys))} if keys else None


def _parsed(text: str, number: int) -> _Line:
    words = text.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return _Line(text, number)
    return _Line(text, number, marker, tuple(words[0].split(",")), f"{words[1]} {words[2]}", " ".join(words[1:]))


def _index(lines: Sequence[_Line], names: set[str]) -> dict[str, list[_Line]]:
    """The lines of each name. Lines with a marker say nothing about a host's own key."""
    found: dict[str, list[_Line]] = {}
    for line in lines:
        for pattern in line.hosts if not line.marker else ():
            hashed = _HASHED.fullmatch(pattern)
            matching = (
                [name for name in names if _is_hash_of(hashed[1], hashed[2], name)]
                if hashed
                else names & {pattern.lower()}
            )
            for name in matching:
                found.setdefault(name, []).append(line)
    return found


def _is_hash_of(salt: str, digest: str, name: str) -> bool:
    try:
        key, wanted = base64.b64decode(salt), base64.b64decode(digest)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(key, name.encode(), hashlib.sha1).digest(), wanted)


def _contradicted(one: Host, mine: Sequence[_Line]) -> list[_Line]:
    """The lines whose key is of a type of which the host has another key now, and not this one as well."""
    kinds = {key.split()[0] for key in one.keys}
    agreeing = {line.key.split()[0] for line in mine if line.key in one.keys}
    return [line for line in mine if line.key.split()[0] in kinds - agreeing]


def _refusal(one: Host, mine: Sequence[_Line], revoked: set[str], replace: bool, path: str) -> ArcError | None:
    bad = next((key for key in one.keys if key in revoked), None)
    if bad is not None:
        return ArcError(
            f"{one.owner}: its {bad.split()[0]} host key is revoked in {path}.",
            code="HostKeyRevoked",
            hint="Make new host keys on the machine (`ssh-keygen -A` after removing the old ones).",
        )
    contradicted = _contradicted(one, mine)
    if not contradicted or replace:
        return None
    line = contradicted[0]
    return ArcError(
        f"{one.owner}: its {line.key.split()[0]} host key is not the one that line {line.number} of {path} has.",
        code="HostKeyChanged",
        hint="If the machine was installed anew, let the new keys replace the old ones (changed_keys: replace). If not, find out why its keys changed.",
    )


def _take_out(line: _Line, name: str) -> None:
    """Remove the host from a line, and the line where nobody else is on it."""
    others = [one for one in line.hosts if one.lower() != name and not _hides(one, name)]
    line.hosts = tuple(others)
    line.text = f"{','.join(others)} {line.rest}" if others else None


def _hides(pattern: str, name: str) -> bool:
    hashed = _HASHED.fullmatch(pattern)
    return bool(hashed and _is_hash_of(hashed[1], hashed[2], name))


def ssh_options(arguments: str) -> dict[str, str]:
    """The options (names in lower case) that ssh gets by `-o` in these arguments; the first value of each counts."""
    try:
        words = shlex.split(arguments)
    except ValueError as exc:
        raise InputError(f"The arguments of ssh cannot be read: {exc}.") from exc
    found: dict[str, str] = {}
    for index, word in enumerate(words):
        if word == "-o" and index + 1 < len(words):
            given = words[index + 1]
        elif word.startswith("-o") and len(word) > 2:
            given = word[2:]
        else:
            continue
        parts = re.match(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)", given, re.DOTALL)
        if parts:
            found.setdefault(parts[1].lower(), parts[2].strip())
    return found


def known_hosts_file(value: str, environment: Mapping[str, str]) -> str | None:
    """The file that ssh adds hosts to, by the value of UserKnownHostsFile; `None` where it keeps none."""
    quoted = re.match(r'"((?:[^"\\]|\\.)*)"', value)
    word = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else (value.split() or [""])[0]
    if re.search(r"%[A-Za-z]", word.replace("%%", "").replace("%d", "")):
        raise InputError(f"UserKnownHostsFile {value} depends on the connection.", hint="Set path to a file.")
    unset = [name for name in re.findall(r"\$\{(\w+)\}", word) if name not in environment]
    if unset:
        raise InputError(f"UserKnownHostsFile {value} needs the variable {unset[0]}, which is not set here.")
    path = re.sub(r"%([%d])", lambda token: "%" if token[1] == "%" else os.path.expanduser("~"), word)
    path = re.sub(r"\$\{(\w+)\}", lambda token: environment[token[1]], path)
    return None if path.lower() in ("", "none", os.devnull) else os.path.expanduser(path)
