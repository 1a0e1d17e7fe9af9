# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does `azcmagent` say, and which of its commands bring the agent's settings to what they shall be?

Pure: parses the outputs of old and new agents, compares settings by meaning, plans commands, and turns exit statuses into sentences.
Properties, commands and exit statuses: Microsoft's documentation of the Connected Machine agent (azcmagent CLI reference, "Troubleshoot
Azure Connected Machine agent connection issues"). Which letters the keys of the JSON outputs have is documented nowhere, so case means
nothing here, and whatever is missing is `None`. Runs on the managed machine, so it needs the standard library only.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from ._errors import ArcError, InputError

if TYPE_CHECKING:
    # A list is a tuple of texts: order and letter case mean nothing in any of the agent's lists.
    Setting = Union[bool, int, str, tuple[str, ...]]
    Settings = dict[str, Setting]

ENABLED, PORTS, MODE = "incomingconnections.enabled", "incomingconnections.ports", "config.mode"
FULL, MONITOR = "full", "monitor"

# Where the output leaves it open what a value is: an empty list may look like an empty text.
KINDS: Mapping[str, type] = {
    ENABLED: bool,
    PORTS: tuple,
    "connection.type": str,
    "proxy.url": str,
    "proxy.bypass": tuple,
    "extensions.enabled": bool,
    "extensions.allowlist": tuple,
    "extensions.blocklist": tuple,
    "guestconfiguration.enabled": bool,
    MODE: str,
}
CHOICES: Mapping[str, tuple[str, ...]] = {MODE: (FULL, MONITOR)}
# A port that no list lets in: what is not known to be let in is cut.
UNKNOWN_PORT = 0
FROZEN_BY_MONITOR = ("extensions.allowlist", "extensions.blocklist")

# Below the first, SSH over Arc is not supported; the second mended the relay address that the agent uses for SSH (release notes).
VERSION_NEEDED, VERSION_ADVISED = (1, 31), (1, 62)

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LINE = re.compile(r"^\s*([a-z]\w*(?:\.\w+)+)(?:\s+\(preview\))?\s*:[ \t]*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_PREVIEW = re.compile(r"\s*\(preview\)\s*$", re.IGNORECASE)

# Our name for a fact of `azcmagent show`: its key in the JSON output, and its label in the text output, both in lower case.
FACTS: Mapping[str, tuple[str, str]] = {
    "name": ("resourcename", "resource name"),
    "resource_group": ("resourcegroup", "resource group name"),
    "subscription_id": ("subscriptionid", "subscription id"),
    "tenant_id": ("tenantid", "tenant id"),
    "location": ("location", "location"),
    "resource_id": ("resourceid", "resource id"),
    "status": ("status", "agent status"),
    "version": ("agentversion", "agent version"),
    "last_heartbeat": ("lastheartbeat", "agent last heartbeat"),
}


# ---- outputs


def parse_settings(output: str) -> Settings:
    """The settings that `azcmagent config list` printed, as JSON or as text; empty if it printed none."""
    document = _json_in(output)
    entries = _LINE.findall(_COLOUR.sub("", output)) if document is None else _entries(document)
    settings: Settings = {}
    for key, value in entries:
        name = property_name(key)
        settings[name] = _setting(name, value)
    return settings


def parse_value(name: str, output: str) -> Setting:
    """The value that `azcmagent config get` printed."""
    return _setting(name, _COLOUR.sub("", output).strip())


def parse_facts(output: str) -> dict[str, str | None]:
    """What `azcmagent show` told about the agent, with the keys of `FACTS`."""
    document = _json_in(output)
    told: dict[str, Any] = {}
    if isinstance(document, Mapping):
        told = _lowered(document)
    elif document is None:
        for line in _COLOUR.sub("", output).splitlines():
            label, colon, value = line.partition(":")
            if colon:
                told.setdefault(label.strip().lower(), value.strip())
    return {fact: next((str(told[key]) for key in keys if told.get(key)), None) for fact, keys in FACTS.items()}


def property_name(text: str) -> str:
    """A property as the agent names it: in lower case, without its "(preview)"."""
    return _PREVIEW.sub("", str(text)).strip().lower()


def _json_in(output: str) -> Any:
    """The JSON document in an output, which lines of the agent's log may precede; `None` if there is none."""
    found = re.search(r"^[ \t]*[\[{]", output, re.MULTILINE)
    if found is None:
        return None
    try:
        return json.JSONDecoder().raw_decode(output[found.start() :].lstrip())[0]
    except ValueError:
        return None


def _lowered(document: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).lower(): value for key, value in document.items()}


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    rows = _lowered(document).get("localsettings", document) if isinstance(document, Mapping) else document
    if isinstance(rows, Mapping):
        yield from ((str(key), value) for key, value in rows.items())
        return
    for row in rows if isinstance(rows, list) else ():
        entry = _lowered(row) if isinstance(row, Mapping) else {}
        if "key" in entry:
            yield str(entry["key"]), entry.get("value")


def _setting(name: str, value: Any) -> Setting:
    """A value of an output, whatever its form, as what it means."""
    kind = KINDS.get(name)
    if isinstance(value, (list, tuple)):
        return tuple(str(item).strip() for item in value)
    if isinstance(value, (bool, int)) and kind is not tuple:
        return value
    text = "" if value is None else str(value).strip()
    if kind is tuple or (kind is None and text.startswith("[") and text.endswith("]")):
        # Old agents separate by blanks, as Go prints lists.
        return tuple(item.strip("\"'") for item in re.split(r"[,\s]+", text.strip("[]")) if item)
    if kind is not str:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if text.isdigit():
            return int(text)
    return text


def same(name: str, one: Setting, other: Setting) -> bool:
    """Do two values of a property mean the same?"""
    return bool(_meaning(name, one) == _meaning(name, other))


def _meaning(name: str, value: Setting) -> Any:
    if isinstance(value, tuple):
        return frozenset(item.lower() for item in value)
    if name == "proxy.url":
        return str(value).rstrip("/")
    if name == "connection.type":
        # Some agents call the direct connection so, others call it the default.
        return {"default": "direct"}.get(str(value).lower(), str(value).lower())
    return value.lower() if name in CHOICES and isinstance(value, str) else value


# ---- the plan


@dataclass(frozen=True)
class Change:
    """One property that is not as it shall be; `commands` are the words after `azcmagent` that change it."""

    name: str
    before: Setting
    after: Setting
    commands: tuple[tuple[str, ...], ...]

    @property
    def rank(self) -> int:
        """What goes first: monitor mode freezes other settings, and what ends remote connections comes last."""
        if self.name == MODE:
            return 0 if self.after == FULL else 5
        if self.name == ENABLED:
            return 1 if self.after else 4
        return {PORTS: 3, "proxy.url": 2, "proxy.bypass": 2, "connection.type": 2}.get(self.name, 1)


def asked_names(*asked: Mapping[str, Any]) -> list[str]:
    """All properties that are asked for, each once."""
    return list(dict.fromkeys(property_name(name) for names in asked for name in names))


def plan(
    current: Settings,
    properties: Mapping[str, Any],
    add: Mapping[str, Sequence[Any]],
    remove: Mapping[str, Sequence[Any]],
    let_in: int | None = None,
) -> list[Change]:
    """The changes from `current` to what is asked for, in the order in which they are to be made.

    `properties` replaces values; `add` and `remove` change lists. Every property has to be in `current`. The port `let_in` is added to
    `incomingconnections.ports` where that lacks it afterwards; an empty list lets in every port and stays empty. Raises InputError for
    what cannot be meant, before anything is changed.
    """
    wanted, more, less = _by_name(properties), _by_name(add), _by_name(remove)
    after = {name: _asked(name, value, current[name]) for name, value in wanted.items()}
    for name in dict.fromkeys([*more, *less]):
        if name in wanted:
            raise InputError(f"{name} is given as a whole in properties and in parts in add or remove.")
        after[name] = _edited(name, current[name], _items(name, more.get(name)), _items(name, less.get(name)))
    ports = after.get(PORTS, current.get(PORTS, ()))
    if let_in is not None and isinstance(ports, tuple) and not allows(ports, let_in):
        after[PORTS] = (*ports, str(let_in))
    changes = [
        Change(name, current[name], value, _commands(name, current[name], value, whole=name in wanted))
        for name, value in after.items()
        if not same(name, current[name], value)
    ]
    if current.get(MODE) == MONITOR and after.get(MODE, MONITOR) == MONITOR:
        for change in changes:
            if change.name in FROZEN_BY_MONITOR:
                raise InputError(
                    f"{change.name} cannot be changed while the agent is in monitor mode.",
                    hint=f"Set {MODE} to {FULL} as well; somebody chose monitor mode to have no such changes.",
                )
    return sorted(changes, key=lambda change: change.rank)


def allows(ports: Setting, port: int) -> bool:
    """Does this value of `incomingconnections.ports` let a port in?"""
    return not isinstance(ports, tuple) or not ports or str(port) in ports


def cuts(changes: Iterable[Change], port: int | None) -> list[Change]:
    """Those changes after which nobody can connect through Arc to `port`; `None` is no port in particular."""
    return [
        change
        for change in changes
        if (change.name == ENABLED and change.after is False)
        or (change.name == MODE and change.after == MONITOR)
        or (
            change.name == PORTS and port is not None and allows(change.before, port) and not allows(change.after, port)
        )
    ]


def settled(current: Settings, changes: Iterable[Change]) -> Settings:
    """The settings when the changes are made."""
    return {**current, **{change.name: change.after for change in changes}}


def shown(settings: Settings) -> dict[str, Any]:
    """Settings for a result."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _by_name(asked: Mapping[str, Any]) -> dict[str, Any]:
    found = {property_name(name): value for name, value in asked.items()}
    if len(found) != len(asked):
        raise InputError("A property is named twice, in different letters.")
    return found


def _edited(name: str, before: Setting, more: tuple[str, ...], less: tuple[str, ...]) -> Setting:
    if before == "":
        before = ()
    if not isinstance(before, tuple):
        raise InputError(f"{name} is no list: add and remove do not apply.", hint="Give its value in properties.")
    if _within(more, less):
        raise InputError(f"{name}: {', '.join(_within(more, less))} cannot be added and removed at once.")
    return _without(before, less) + _without(more, before)


def _commands(name: str, before: Setting, after: Setting, *, whole: bool) -> tuple[tuple[str, ...], ...]:
    """What changes one property; a list in parts unless it is given as a `whole`, so that nobody else's change is lost."""
    if after in ("", ()):
        return (("config", "clear", name),)
    if whole or not isinstance(before, tuple) or not isinstance(after, tuple):
        return (("config", "set", name, spelled(after)),)
    # Adding first: an emptied list of ports would let in all for a moment, and one without ours would shut us out.
    parts = ((_without(after, before), "--add"), (_without(before, after), "--remove"))
    return tuple(("config", "set", name, ",".join(items), flag) for items, flag in parts if items)


def _within(items: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    known = {item.lower() for item in others}
    return tuple(item for item in items if item.lower() in known)


def _without(items: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    known = {item.lower() for item in others}
    return tuple(item for item in items if item.lower() not in known)


def _asked(name: str, value: Any, current: Setting) -> Setting:
    """A value from the user as what it means, of the kind that the property has."""
    kind = KINDS.get(name) or (type(value) if current == "" else type(current))
    if kind in (tuple, list) or isinstance(value, (list, tuple)):
        if kind not in (tuple, list):
            raise InputError(f"{name} cannot be a list: it is {spelled(current)!r} now.")
        return _items(name, value)
    if isinstance(value, Mapping):
        raise InputError(f"{name} cannot be a dictionary.")
    text = _harmless(name, "" if value is None else str(value))
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no"):
            raise InputError(f"{name} is true or false, not {text!r}.")
        return text.lower() in ("true", "yes")
    if kind is int:
        if not text.isdigit():
            raise InputError(f"{name} is a number, not {text!r}.")
        return int(text)
    if name in CHOICES:
        text = text.lower()
        if text not in CHOICES[name]:
            raise InputError(f"{name} is {' or '.join(CHOICES[name])}, not {text!r}.")
    return text


def _items(name: str, value: Any) -> tuple[str, ...]:
    """The items of a list from the user, each once; one text may hold several, as the agent's command line does."""
    given = value if isinstance(value, (list, tuple)) else [value]
    texts = [text for item in given if item is not None for text in str(item).split(",")]
    items = tuple(dict.fromkeys(_harmless(name, text.strip()) for text in texts if text.strip()))
    for item in items:
        if name == PORTS and not (item.isdigit() and 0 < int(item) < 65536):
            raise InputError(f"{name} holds ports, and {item!r} is none.")
    return items


def _harmless(name: str, text: str) -> str:
    if text.startswith("-") or not text.isprintable():
        raise InputError(f"{name} cannot be {text!r}: azcmagent would take it for something else.")
    return text


def spelled(value: Setting) -> str:
    """A value as the agent's command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


# ---- the decision


@dataclass(frozen=True)
class Decision:
    """What is to be done: `changes` at once, and `cutting` when nobody needs the connection any more."""

    changes: tuple[Change, ...]
    cutting: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def all(self) -> tuple[Change, ...]:
        """All changes, in their order."""
        return self.changes + self.cutting


def decide(
    current: Settings,
    properties: Mapping[str, Any],
    add: Mapping[str, Sequence[Any]],
    remove: Mapping[str, Sequence[Any]],
    *,
    machine: str,
    here: int | None,
    ssh_port: int | None,
    add_port: bool,
    cut_connection: bool,
) -> Decision:
    """The plan, and what it means for SSH.

    `here` is the port of the connection through Arc over which this is asked (`UNKNOWN_PORT` if it is not known), `None` if there is no
    such connection. Raises AgentError for changes that would end it, unless `cut_connection`.
    """
    port = ssh_port or here or None
    changes = planned = plan(current, properties, add, remove)
    warnings = []
    if add_port:
        changes = plan(current, properties, add, remove, let_in=port)
    if changes != planned:
        warnings.append(
            f"{PORTS} lacked the port {port} of SSH, which was added: a list that is not empty may refuse all others."
        )
    elif port and not allows(settled(current, changes).get(PORTS, ()), port):
        warnings.append(f"{PORTS} lacks the port {port} of SSH, so the agent may refuse SSH over Azure Arc.")
    cutting = [] if here is None else cuts(changes, here)
    if cutting and not cut_connection:
        raise AgentError(
            f"{machine}: {' and '.join(change.name for change in cutting)} would end the connection over which this task runs, and "
            f"could not be undone over Azure Arc. Nothing was changed.",
            code="WouldCutConnection",
            hint="If that is what you want, set cut_connection to true.",
        )
    return Decision(tuple(one for one in changes if one not in cutting), tuple(cutting), tuple(warnings))


# ---- the connection


def arc_port(ssh_connection: str | None) -> int | None:
    """The local port of an SSH session that can have come through Arc; `None` if it came from elsewhere.

    `ssh_connection` is sshd's SSH_CONNECTION: client address and port, server address and port. The agent connects from loopback.
    """
    parts = (ssh_connection or "").split()
    if len(parts) != 4 or not parts[3].isdigit():
        return None
    try:
        client = ipaddress.ip_address(parts[0].partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(client, "ipv4_mapped", None)
    return int(parts[3]) if (mapped or client).is_loopback else None


# ---- versions


def version_of(text: str | None) -> tuple[int, int] | None:
    """Major and minor version of an agent such as 1.62.03456.789; `None` if that cannot be told."""
    found = re.search(r"(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else None


def too_old(version: str | None) -> str | None:
    """Why this agent cannot serve SSH over Arc; `None` if it can, or if its version is not known."""
    known = version_of(version)
    if known is None or known >= VERSION_NEEDED:
        return None
    return f"The agent's version {version} is too old for SSH over Azure Arc, which needs 1.31 or later."


def advice(version: str | None) -> str | None:
    """Why this agent should be updated; `None` if nothing is known against it."""
    known = version_of(version)
    if known is None or known >= VERSION_ADVISED:
        return None
    return (
        f"The agent's version {version} should be updated: 1.62 mended the relay address that SSH uses, and only versions of the last "
        f"twelve months are supported."
    )


# ---- failures

_HIMDS = (
    "The agent's service himds does not answer: restart it (systemctl restart himdsd; on Windows: Restart-Service himds) and look into its "
    "log, himds.log. Over SSH through Arc do that detached, such as with systemd-run, because the connection ends with it."
)
_NEWER = "Check its spelling, or update the agent; `azcmagent config info` lists what this version knows."
_LOG = "Look into the agent's log, azcmagent.log (Linux: /var/opt/azcmagent/log)."

# Exit status -> what it means, and the remedy. The number of the message, AZCMnnnn, is the same.
MEANINGS: Mapping[int, tuple[str, str | None]] = {
    1: ("it failed", _LOG),
    2: ("it met an internal error", _LOG),
    3: ("this agent does not support that", "Update the agent."),
    4: ("the Azure Arc proxy does not run", "Start it: systemctl restart arcproxyd."),
    5: ("it cannot write its log", "Check that /var/opt/azcmagent/log can be written and that its disk is not full."),
    6: ("it could not be initialised", _LOG),
    11: ("it was interrupted", "Run again."),
    12: ("it has no valid access token", _LOG),
    16: ("a parameter is missing", _NEWER),
    18: ("it needs root", "Run the task with become: true."),
    19: ("a configuration file was not found", _LOG),
    20: ("it does not know the region", None),
    23: ("the property or its value is not known to this agent", _NEWER),
    26: ("it met a network error", "Check the way from the machine to Azure with `azcmagent check`."),
    27: (
        "that conflicts with other settings",
        "In monitor mode, config.mode has to be set to full first; see `azcmagent config list` for the rest.",
    ),
    41: ("it got no access token", _LOG),
    61: ("it cannot talk to the agent's service", _HIMDS),
    64: ("it cannot reach the agent's service", _HIMDS),
    65: ("it got no metadata from the agent's service", _HIMDS),
    66: ("it got no status from the agent's service", _HIMDS),
    69: (
        "the local configuration could not be updated",
        _HIMDS + " A full disk or a file that cannot be written does the same.",
    ),
    70: ("the local configuration could not be read", _HIMDS),
    101: ("a command that it ran failed", _LOG),
}


class AgentError(ArcError):
    """`azcmagent` failed; `code` is the AZCM number of its message."""


def failure(machine: str, words: Sequence[str], status: int, output: str) -> AgentError:
    """The failure of a command as a sentence; `output` is all that it printed."""
    text = " ".join(_COLOUR.sub("", output).split())
    printed = re.search(r"AZCM0*(\d+)\b:?\s*(.*)", text)
    number = int(printed[1]) if printed and status in (1, 255) else status
    said = (printed[2] if printed else text)[-400:].strip(" .")
    meaning, hint = MEANINGS.get(number, ("it failed", _LOG))
    told = f": {said}" if said else ""
    return AgentError(
        f"{machine}: `azcmagent {' '.join(words)}` ended with status {number}, {meaning}{told}.",
        code=f"AZCM{number:04}",
        hint=hint,
    )


def secrets_in(values: Iterable[Any]) -> list[str]:
    """The passwords of proxy addresses among these values."""
    return [found for value in values for found in re.findall(r"//[^/@\s:]*:([^/@\s]+)@", str(value))]
