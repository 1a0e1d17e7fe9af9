# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files have to say what, so that sshd does what was asked for, and what in them keeps users out?

Pure: reads the texts of a configuration, plans the texts that it shall have, and judges what sshd says of both. What counts (sshd_config(5)):
of most keywords the first value, of Port and ListenAddress all of them, and a Match block only where nothing before it matched. So our lines
come first, and other people's lines of Port and ListenAddress are put out of force while ours count, behind a mark that says so. Whoever
comes through Azure Arc comes from 127.0.0.1. Runs on the managed machine, so it needs the standard library only. Private to arcfleet.ssh.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._errors import ArcError, InputError

FOLDER = "/etc/ssh"
DROP_IN = "00-arcfleet.conf"
BEGIN, END = "# BEGIN arcfleet.ssh", "# END arcfleet.ssh"
ASIDE = "#arcfleet.ssh# "
NOTE = "# Kept by the role arcfleet.ssh.arc_sshd, which replaces whatever is changed here."
# Belongs to the distribution, and is replaced by its updates.
VENDOR = "/usr/"

LOOPBACK = ("127.0.0.1", "::1")
# What a login through the relay looks like to sshd.
RELAYED = "host=localhost,addr=127.0.0.1,laddr=127.0.0.1"
# Matches the block that the extension for Entra ID appends, which names users by their addresses.
ENTRA_USER = "someone@example.org"
ENTRA_COMMAND = "aad_certhandler"

# All lines count, not only the first one.
CUMULATIVE = frozenset(
    "acceptenv allowgroups allowusers denygroups denyusers hostcertificate hostkey listenaddress port subsystem".split()
)
WITH_COMMAS = frozenset(
    """casignaturealgorithms ciphers hostbasedacceptedalgorithms hostkeyalgorithms kexalgorithms macs persourcepenaltyexemptlist
    pubkeyacceptedalgorithms pubkeyacceptedkeytypes""".split()
)
ELSEWHERE = {
    "port": "Use `ports` for it.",
    "listenaddress": "Use `listen` for it.",
    "match": "What comes after it would belong to it. Put it into a file of your own in sshd_config.d.",
    "include": "Put a file of your own into sshd_config.d.",
}
# Names by which `sshd -T` does not know them, in one version or another.
ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "kbdinteractiveauthentication": "challengeresponseauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "pubkeyacceptedalgorithms": "pubkeyacceptedkeytypes",
    "hostbasedacceptedkeytypes": "hostbasedacceptedalgorithms",
    "dsaauthentication": "pubkeyauthentication",
}
GATES = {
    "allowusers": "Only users whom it names can log in, through Azure Arc too.",
    "allowgroups": "Only members of these groups can log in, and the first login of an Entra user fails, who is a member of nothing yet.",
    "denyusers": "Users whom it names cannot log in, through Azure Arc neither.",
    "denygroups": "Members of these groups cannot log in, and it makes the first login of an Entra user fail.",
}

_LINE = re.compile(r"^[ \t]*([A-Za-z][A-Za-z0-9]*)(?:[ \t]*=[ \t]*|[ \t]+)(.*?)[ \t\r]*$")
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_BLOCK = re.compile(rf"(?ms)^{re.escape(BEGIN)}$.*?^{re.escape(END)}$\n?")
_ASIDE = re.compile(rf"(?m)^{re.escape(ASIDE)}")
_AT = re.compile(r"(\S+?)(?:: | )line (\d+)")


class SshdError(ArcError):
    """sshd's configuration is not, or cannot be made, what was asked for."""


@dataclass(frozen=True)
class Configuration:
    """Texts of a configuration: `files` by path, and `included`, the paths that the argument of an Include stands for, in order."""

    main: str
    files: Mapping[str, str]
    included: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Directive:
    """One line that counts; `match` holds the criteria of the block that it is in, `None` outside of any."""

    path: str
    line: int
    keyword: str
    value: str
    match: str | None

    def __str__(self) -> str:
        return f"{self.path} line {self.line}"


@dataclass(frozen=True)
class Wanted:
    """What sshd shall do. `lines` are keyword and value, one a line; no `ports` means that they are left alone."""

    lines: tuple[tuple[str, str], ...] = ()
    ports: tuple[int, ...] = ()
    loopback: bool = False


def lines_for(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The lines of settings, sorted by keyword. Raises InputError for what cannot be set like this.

    A truth value is yes or no, `None` leaves the keyword alone. A list is one line for each item where sshd adds lines up, separated by
    commas where sshd_config(5) has commas, and otherwise by blanks.
    """
    lines: list[tuple[str, str]] = []
    for keyword, value in sorted(settings.items(), key=lambda item: item[0].lower()):
        if not re.match(r"^[A-Za-z][A-Za-z0-9]*$", keyword):
            raise InputError(f"{keyword!r} is not a keyword of sshd_config.")
        if keyword.lower() in ELSEWHERE:
            raise InputError(f"{keyword} cannot be one of the settings. {ELSEWHERE[keyword.lower()]}")
        if value is None:
            continue
        items = [_word(keyword, item) for item in (value if isinstance(value, (list, tuple)) else [value])]
        if not items:
            raise InputError(
                f"{keyword} has an empty list for its value. Leave it out, or say none where sshd_config(5) has that."
            )
        if keyword.lower() in CUMULATIVE:
            lines += [(keyword, item) for item in items]
        else:
            lines.append((keyword, ("," if keyword.lower() in WITH_COMMAS else " ").join(items)))
    return tuple(lines)


def _word(keyword: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value).strip()
    if isinstance(value, (dict, list, tuple)) or not text or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise InputError(f"The value of {keyword} has to be one line of text.")
    return text


# ---- reading


def words(value: str) -> list[str]:
    """The arguments of a directive, without quotes and without a comment after them."""
    found: list[str] = []
    for quoted, plain in _WORD.findall(value):
        if plain.startswith("#"):
            break
        found.append(plain or quoted)
    return found


def split_line(text: str) -> tuple[str, str] | None:
    """Keyword in lower case and value of a line; `None` if the line says nothing."""
    found = _LINE.match(text)
    return (found.group(1).lower(), found.group(2)) if found else None


def patterns(value: str) -> list[str]:
    """What an Include names, as absolute patterns."""
    return [posixpath.join(FOLDER, word) for word in words(value)]


def directives(configuration: Configuration) -> list[Directive]:
    """Every line that says something, in the order in which sshd reads them."""
    return list(_directives(configuration, configuration.main, None, 0))


def _directives(configuration: Configuration, path: str, match: str | None, depth: int) -> Iterator[Directive]:
    # A Match ends with the file that it is in.
    for number, text in enumerate(configuration.files.get(path, "").split("\n"), 1):
        said = split_line(text)
        if said is None:
            continue
        keyword, value = said
        if keyword == "match":
            match = value
        yield Directive(path, number, keyword, value, match)
        if keyword == "include" and depth < 16:
            for pattern in patterns(value):
                for included in configuration.included.get(pattern, ()):
                    yield from _directives(configuration, included, match, depth + 1)


def without_us(configuration: Configuration) -> Configuration:
    """The configuration as it would be if we had never been there. Our own file is empty in it."""
    files = {
        path: "" if posixpath.basename(path) == DROP_IN else _ASIDE.sub("", _BLOCK.sub("", text))
        for path, text in configuration.files.items()
    }
    return Configuration(configuration.main, files, configuration.included)


def place(configuration: Configuration) -> str | None:
    """The path of our own file, if sshd reads it before anything else; `None` if our lines have to be in the main file.

    `configuration` is one without us.
    """
    for text in configuration.files.get(configuration.main, "").split("\n"):
        said = split_line(text)
        if said is None:
            continue
        if said[0] == "include":
            for pattern in patterns(said[1]):
                own = posixpath.join(posixpath.dirname(pattern), DROP_IN)
                if fnmatch.fnmatchcase(own, pattern) and posixpath.dirname(own) == posixpath.join(
                    FOLDER, "sshd_config.d"
                ):
                    return own
        return None
    return None


# ---- planning


def plan(configuration: Configuration, wanted: Wanted) -> dict[str, str | None]:
    """The texts that differ from what is there, by path; `None` for a file that goes away. Raises SshdError for what cannot be done."""
    foreign = without_us(configuration)
    said = directives(foreign)
    aside = _aside(said, wanted)
    lines = [*(_own_lines(said, wanted)), *(f"{keyword} {value}" for keyword, value in wanted.lines)]
    texts: dict[str, str | None] = dict(foreign.files)
    for path in {one.path for one in said if one.keyword in aside}:
        texts[path] = _put_aside(foreign.files[path], aside)
    own = place(foreign)
    for path in texts:
        if posixpath.basename(path) == DROP_IN:
            texts[path] = None
    if lines and own is not None:
        texts[own] = "\n".join([NOTE, *lines, ""])
    elif lines:
        texts[foreign.main] = "\n".join([BEGIN, NOTE, *lines, END, texts[foreign.main] or ""])
    changed = {path: text for path, text in texts.items() if text != configuration.files.get(path)}
    for path in changed:
        if path.startswith(VENDOR):
            raise SshdError(
                f"{path} would have to be changed, which belongs to the distribution.",
                hint=f"Copy it to {FOLDER}/sshd_config first.",
            )
    return changed


def foreign_ports(said: Iterable[Directive]) -> list[int]:
    """The ports that other people's lines say, or what sshd takes without any."""
    found = [int(word) for one in said if one.keyword == "port" for word in words(one.value)[:1] if word.isdigit()]
    return sorted(set(found)) or [22]


def _aside(said: Sequence[Directive], wanted: Wanted) -> frozenset[str]:
    """The keywords of which only our lines may count."""
    found = set()
    if wanted.ports and foreign_ports(said) != sorted(wanted.ports):
        found.add("port")
    if wanted.loopback:
        found.add("listenaddress")
    else:
        for one in said:
            address = (words(one.value) or [""])[0] if one.keyword == "listenaddress" else ""
            port = address_port(address)
            if wanted.ports and port is not None and port not in wanted.ports:
                raise SshdError(
                    f"{one}: ListenAddress {address} has a port of its own, which Port cannot change.",
                    hint="Take the port out of that line.",
                )
    return frozenset(found)


def address_port(address: str) -> int | None:
    """The port in an argument of ListenAddress: host:port, [address]:port; `None` without one."""
    found = re.match(r"^(?:\[[^\]]*\]|[^:\[\]]*):(\d+)$", address)
    return int(found.group(1)) if found else None


def _own_lines(said: Sequence[Directive], wanted: Wanted) -> list[str]:
    lines = [f"Port {port}" for port in wanted.ports] if "port" in _aside(said, wanted) else []
    return lines + [f"ListenAddress {address}" for address in LOOPBACK if wanted.loopback]


def _put_aside(text: str, keywords: frozenset[str]) -> str:
    return "\n".join(ASIDE + line if (split_line(line) or ("",))[0] in keywords else line for line in text.split("\n"))


def candidate(
    configuration: Configuration, changes: Mapping[str, str | None], folder: str
) -> tuple[dict[str, str], dict[str, str]]:
    """A whole configuration of its own in `folder`: its texts by path, and the real path of each. The main file is the first.

    Includes name the copies one by one, because a file that does not exist yet matches no pattern, and one that shall go still does.
    """
    files = {**configuration.files, **changes}
    present = [path for path in files if files[path] is not None]
    copies = {path: posixpath.join(folder, f"{number}.conf") for number, path in enumerate(present)}
    texts: dict[str, str] = {}
    for path in sorted(present, key=lambda one: one != configuration.main):
        lines = []
        for line in (files[path] or "").split("\n"):
            said = split_line(line)
            if said is not None and said[0] == "include":
                named = [
                    copies[one]
                    for pattern in patterns(said[1])
                    for one in sorted({*configuration.included.get(pattern, ()), *_matching(changes, pattern)})
                    if one in copies
                ]
                line = f"Include {' '.join(named)}" if named else f"#{line}"
            lines.append(line)
        texts[copies[path]] = "\n".join(lines)
    return texts, {copy: path for path, copy in copies.items()}


def _matching(paths: Iterable[str], pattern: str) -> list[str]:
    return [
        path
        for path in paths
        if posixpath.dirname(path) == posixpath.dirname(pattern) and fnmatch.fnmatchcase(path, pattern)
    ]


def real(message: str, copies: Mapping[str, str]) -> str:
    """A message of sshd with the real paths in it."""
    for copy in sorted(copies, key=len, reverse=True):
        message = message.replace(copy, copies[copy])
    return message


def where(message: str) -> str | None:
    """The path that a message of sshd names together with a line."""
    found = _AT.search(message)
    return found.group(1) if found else None


# ---- what sshd says


def parse_effective(output: str) -> dict[str, list[str]]:
    """What `sshd -T` printed: the values of each keyword, in its order."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        keyword, _blank, value = line.partition(" ")
        if keyword:
            found.setdefault(keyword.lower(), []).append(value.strip())
    return found


def canonical(keyword: str, effective: Mapping[str, object]) -> str | None:
    """The name by which `sshd -T` knows a keyword; `None` if it does not print it."""
    lower = keyword.lower()
    return next((name for name in (lower, ALIASES.get(lower, "")) if name in effective), None)


def managed(wanted: Wanted, effective: Mapping[str, object]) -> list[str]:
    """The keywords, as `sshd -T` calls them, whose values are ours to say."""
    names = {canonical(keyword, effective) for keyword, _value in wanted.lines}
    if wanted.ports:
        names.add("port")
    if wanted.loopback:
        names.add("listenaddress")
    return sorted(name for name in names if name is not None)


def holds(keyword: str, asked: Sequence[str], found: Sequence[str]) -> bool:
    """Whether what sshd would do is what was asked for; both as `sshd -T` prints them."""
    if keyword in CUMULATIVE and keyword not in ("port", "listenaddress"):
        return set(asked) <= set(found)
    return sorted(asked) == sorted(found)


def ports_of(effective: Mapping[str, Sequence[str]]) -> list[int]:
    """The ports on which sshd listens by its configuration. The addresses say more than Port, because they may name others."""
    addresses = [address_port(one) for one in effective.get("listenaddress", ())]
    ports = {port for port in addresses if port is not None} or {int(one) for one in effective.get("port", ())}
    return sorted(ports)


def opposing(said: Iterable[Directive], keyword: str) -> Directive | None:
    """The first line of other people's that says something of a keyword, by any of its names."""
    names = {keyword, ALIASES.get(keyword, keyword)}
    return next((one for one in said if one.keyword in names), None)


def findings(
    said: Sequence[Directive],
    asked: Mapping[str, Sequence[str]],
    relayed: Mapping[str, Sequence[str]],
    entra: Mapping[str, Sequence[str]],
    version: tuple[int, int] | None,
) -> list[str]:
    """What in other people's lines keeps users out who come through Azure Arc, one sentence each.

    `said` are their lines, `asked` the values that are ours, `relayed` what counts for a login through the relay, `entra` for one of an Entra user.
    """
    found = [f"{one}: {one.keyword} {one.value}. {GATES[one.keyword]}" for one in said if one.keyword in GATES]
    for one in said:
        criteria = words(one.value.lower())
        if one.keyword == "match" and {"address", "host"} & set(criteria[::2]):
            found.append(
                f"{one}: Match {one.value}. Everybody who comes through Azure Arc has the address 127.0.0.1 there."
            )
    for keyword, values in asked.items():
        if keyword not in CUMULATIVE and keyword in relayed and not holds(keyword, values, relayed[keyword]):
            block = next((one for one in said if one.match is not None and opposing([one], keyword)), None)
            found.append(
                f"{block or 'A Match block'}: logins through Azure Arc get {keyword} {' '.join(relayed[keyword])} instead of {' '.join(values)}."
            )
    if relayed.get("pubkeyauthentication") == ["no"]:
        found.append("PubkeyAuthentication is no, so no key and no Entra certificate can log in.")
    if relayed.get("allowtcpforwarding") in (["no"], ["remote"]):
        found.append("AllowTcpForwarding is off, so RDP and other ports cannot be reached through SSH.")
    if version is not None and version >= (9, 8) and not _exempt(relayed):
        found.append(
            "PerSourcePenalties counts for 127.0.0.1, which all users of Azure Arc share, so one who fails to log in locks out the others. "
            "Set PerSourcePenaltyExemptList to 127.0.0.0/8,::1/128."
        )
    addresses = relayed.get("listenaddress", ())
    if addresses and not any(one.startswith(("0.0.0.0:", "127.", "[::]:", "[::1]:")) for one in addresses):
        found.append(f"sshd listens on {', '.join(addresses)} only, and the agent of Azure Arc connects to localhost.")
    return found + _entra_findings(said, entra)


def _exempt(effective: Mapping[str, Sequence[str]]) -> bool:
    penalties = " ".join(effective.get("persourcepenalties", ("no",)))
    return penalties.split(" ", maxsplit=1)[0] == "no" or "127.0.0." in " ".join(
        effective.get("persourcepenaltyexemptlist", ())
    )


def _entra_findings(said: Sequence[Directive], entra: Mapping[str, Sequence[str]]) -> list[str]:
    installed = next(
        (one for one in said if one.keyword == "authorizedkeyscommand" and ENTRA_COMMAND in one.value), None
    )
    if installed is None:
        return []
    found = []
    if not any(ENTRA_COMMAND in one for one in entra.get("authorizedkeyscommand", ())):
        found.append(
            f"{installed}: an earlier Match block says something else of AuthorizedKeysCommand, so Entra users cannot log in."
        )
    algorithms = " ".join(entra.get("pubkeyacceptedalgorithms", entra.get("pubkeyacceptedkeytypes", ())))
    if algorithms and "rsa-sha2-" not in ",".join(one for one in algorithms.split(",") if "cert" in one):
        found.append(
            "PubkeyAcceptedAlgorithms has no rsa-sha2-512-cert-v01@openssh.com and no rsa-sha2-256-cert-v01@openssh.com, which Entra users log in with."
        )
    return found


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor of what `sshd -V` or ssh says; `None` if it says something else."""
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


# ---- sockets of systemd


def socket_listens(text: str) -> list[str]:
    """What a socket unit listens on, by `systemctl cat`, which shows the unit and what is dropped in, in order."""
    found: list[str] = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if name.strip() == "ListenStream" and equals:
            found = [*found, value.strip()] if value.strip() else []
    return found


def socket_ports(listens: Iterable[str]) -> list[int]:
    """The ports among what a socket listens on."""
    return sorted({int(port) for port in (one.rpartition(":")[2] for one in listens) if port.isdigit()})


def socket_text(listens: Sequence[str], wanted: Wanted) -> str | None:
    """What we have to drop into the socket's unit; `None` if it listens there anyway. `listens` is what others say."""
    ports = sorted(wanted.ports) or socket_ports(listens)
    if not wanted.loopback and ports == socket_ports(listens):
        return None
    addresses = [
        f"{prefix}{port}" for port in ports for prefix in (("127.0.0.1:", "[::1]:") if wanted.loopback else ("",))
    ]
    return "\n".join([NOTE, "[Socket]", "ListenStream=", *(f"ListenStream={one}" for one in addresses), ""])
