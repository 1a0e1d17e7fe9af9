# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a run command, what stands in its way, and what came of it?

`Microsoft.HybridCompute/machines/runCommands`, 2025-01-13. It is a resource whose creation runs a script on the machine, as root or
LocalSystem. Its provisioning state only says that the script was started or has ended; how it ended is told by `instanceView`, with
the last 4 KB of what it wrote. On Linux, named parameters are environment variables and nameless ones arguments; on Windows they are
arguments of the script (`-name value`). Names have at most 36 characters on Linux. Source: "Run scripts on Arc-enabled servers by
using Run command" and the API's description. Private to arcfleet.ssh.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._errors import ArcError, InputError
from .._ids import MachineId, same
from ._base import Raw, properties, provisioning_state
from ._machine import API_VERSION, obstacle_to_extensions, version

# The first agent with run commands ("What's new with Azure Connected Machine agent").
AGENT = (1, 33)

# Azure keeps so many bytes of what a script writes, counted from the end.
KEPT = 4096

PREFIX = "arcfleet-"

# The agent's extension that runs the scripts, by operating system, as allow lists and block lists name it.
_HANDLERS = {
    "linux": "Microsoft.CPlat.Core/RunCommandHandlerLinux",
    "windows": "Microsoft.CPlat.Core/RunCommandHandlerWindows",
}

# The leftovers of others are theirs for so many seconds after their end: somebody may still be reading.
_READING = 3600.0

_ENDED = frozenset(("succeeded", "failed", "timedout", "canceled"))
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RunCommand:
    """One script, run once on one machine.

    `origin` is the run's controller and `token` what no other run has: hexadecimal digits, 8 and 16 of them. The options are those of
    the module.
    """

    api_version = API_VERSION
    slug = "run_command"
    noun = "run command"

    def __init__(self, machine: MachineId, options: Mapping[str, Any], origin: str, token: str) -> None:
        self.machine = machine
        self.options = options
        self.name = f"{PREFIX}{origin}-{token}"
        self.collection = f"{machine}/runCommands"
        self.path = f"{self.collection}/{self.name}"

    def state(self) -> Mapping[str, Any]:
        """What of it is shown: names, and never a value that may be a secret."""
        return {
            "source": "script" if self.options.get("script") else "script_uri",
            "parameters": sorted({**(self.options.get("parameters") or {}), **self._protected}),
            "arguments": len(self.options.get("arguments") or ()),
            "run_as_user": self.options.get("run_as_user"),
            "timeout": self.options["timeout"],
        }

    def body(self, machine: Raw) -> Mapping[str, Any]:
        """The body of the PUT; `machine` is the machine's record."""
        options = self.options
        source = {"script": options["script"]} if options.get("script") else {"scriptUri": options["script_uri"]}
        wanted: dict[str, Any] = {
            "source": source,
            "asyncExecution": False,
            "timeoutInSeconds": options["timeout"],
        }
        parameters = _named(options.get("parameters") or {})
        parameters += [{"name": "", "value": text} for text in options.get("arguments") or ()]
        if parameters:
            wanted["parameters"] = parameters
        if self._protected:
            wanted["protectedParameters"] = _named(self._protected)
        if options.get("run_as_user"):
            wanted["runAsUser"] = options["run_as_user"]
        if options.get("run_as_password"):
            wanted["runAsPassword"] = options["run_as_password"]
        return {"location": machine.get("location"), "properties": wanted}

    @property
    def _protected(self) -> Mapping[str, Any]:
        return self.options.get("protected_parameters") or {}


def check(owner: str, options: Mapping[str, Any]) -> None:
    """Raises InputError for options that cannot be; `owner` is the machine's name. No sentence holds a value."""
    if bool(options.get("script")) == bool(options.get("script_uri")):
        raise InputError(f"{owner}: give either script or script_uri, and not an empty one.")
    if options["timeout"] < 1:
        raise InputError(f"{owner}: timeout is {options['timeout']}; it is a number of seconds, at least 1.")
    if options.get("run_as_password") and not options.get("run_as_user"):
        raise InputError(f"{owner}: run_as_password says nothing without run_as_user.")
    given: set[str] = set()
    for option in ("parameters", "protected_parameters"):
        for name, value in (options.get(option) or {}).items():
            if not _PARAMETER.fullmatch(name):
                raise InputError(
                    f"{owner}: {option} has the name {name!r}, which no variable can have.",
                    hint="Names are made of letters, digits and underscores; what has no name belongs to arguments.",
                )
            if isinstance(value, (Mapping, list, tuple)):
                raise InputError(
                    f"{owner}: {option}.{name} is not a text.", hint="Pass structured data as to_json makes it."
                )
            if name in given:
                raise InputError(f"{owner}: both parameters and protected_parameters set {name}.")
            given.add(name)


def _named(given: Mapping[str, Any]) -> list[dict[str, str]]:
    """Parameters as Azure takes them; one that is `None` is not given."""
    return [{"name": name, "value": _text(value)} for name, value in given.items() if value is not None]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def obstacle(machine: Raw) -> str | None:
    """Why the machine's agent would not run a script now, as a clause; `None` when it would."""
    known = properties(machine)
    found = version(known.get("agentVersion"))
    if found and found[:2] < AGENT:
        return f"its agent {known.get('agentVersion')} knows no run commands; upgrade it to 1.33 or later"
    config = known.get("agentConfiguration")
    return obstacle_to_extensions(machine) or _barred(config if isinstance(config, Mapping) else {}, known)


def _barred(config: Mapping[str, Any], known: Mapping[str, Any]) -> str | None:
    """Whether the agent's lists of extensions keep out the one that runs scripts."""
    handler = _HANDLERS["windows" if "windows" in str(known.get("osType") or known.get("osName")).lower() else "linux"]
    allowed, blocked = (_extensions(config.get(name)) for name in ("extensionsAllowList", "extensionsBlockList"))
    remedy = f"`azcmagent config set extensions.{{}} {handler} --{{}}` on the machine changes that"
    if any(same(name, handler) for name in blocked):
        return f"its agent blocks the extension {handler} ({remedy.format('blocklist', 'remove')})"
    if allowed and not any(same(name, handler) for name in allowed):
        return f"its agent does not allow the extension {handler} ({remedy.format('allowlist', 'add')})"
    return None


def _extensions(given: Any) -> Sequence[str]:
    entries = given if isinstance(given, list) else []
    return [
        f"{entry.get('publisher')}/{entry.get('type')}" if isinstance(entry, Mapping) else str(entry)
        for entry in entries
    ]


@dataclass(frozen=True)
class Result:
    """How a script ended. `state` is Azure's word in lower case; `exit_code` is `None` where there was none."""

    state: str
    exit_code: int | None
    output: str
    error: str
    message: str
    started: str | None
    ended: str | None

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded" and not self.exit_code

    def details(self) -> dict[str, Any]:
        """What the module's result shows of it."""
        return {
            "execution_state": self.state,
            "exit_code": self.exit_code,
            "output": self.output,
            "output_truncated": _is_cut(self.output),
            "error": self.error,
            "error_truncated": _is_cut(self.error),
            "started": self.started,
            "ended": self.ended,
        }

    def failure(self, owner: str, timeout: float) -> ArcError:
        """Why the script did not succeed, in one sentence."""
        last = _last_line(self.error) or _last_line(self.output) or " ".join(self.message.split())
        told = f": {last[:300]}" if last else ""
        if self.state == "timedout":
            return ArcError(
                f"{owner}: the script did not end within {timeout:g} s, and was stopped{told}.",
                code="ScriptTimedOut",
                hint="Raise timeout, or look at what the script waits for.",
            )
        if self.state == "canceled":
            return ArcError(f"{owner}: the script was stopped from elsewhere{told}.", code="ScriptCanceled")
        how = f"failed with exit code {self.exit_code}" if self.exit_code is not None else "could not be run"
        return ArcError(
            f"{owner}: the script {how}{told}.",
            code="ScriptFailed",
            hint="The last 4 KB of what it wrote are in `output` and `error`.",
        )


def result(raw: Raw) -> Result | None:
    """How the script of this record ended; `None` while nobody knows."""
    view = properties(raw).get("instanceView")
    view = view if isinstance(view, Mapping) else {}
    state = str(view.get("executionState") or "").lower()
    if state not in _ENDED and provisioning_state(raw) in ("failed", "canceled"):
        # The platform gave up before the script could tell anything.
        state = provisioning_state(raw)
    if state not in _ENDED:
        return None
    code = view.get("exitCode")
    return Result(
        state=state,
        exit_code=code if isinstance(code, int) else None,
        output=str(view.get("output") or ""),
        error=str(view.get("error") or ""),
        message=str(view.get("executionMessage") or ""),
        started=view.get("startTime"),
        ended=view.get("endTime"),
    )


def json_of(owner: str, ended: Result) -> dict[str, Any]:
    """The JSON object that is the last line of the output. Raises ArcError where it is something else."""
    last = _last_line(ended.output)
    try:
        found = json.loads(last)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    cut = " Azure keeps the last 4 KB only, and the line was cut." if _is_cut(ended.output) else ""
    raise ArcError(
        f"{owner}: the last line that the script wrote is not a JSON object.{cut}",
        code="ResultNotJson",
        hint="The script has to end with one line of JSON; see `output`.",
    )


def is_leftover(raw: Raw, origin: str, now: float) -> bool:
    """Whether a run that is no more has left this record behind; `now` in unix seconds.

    What this controller began is nobody's any more, because its runs do not touch a machine at the same time. What others began is
    theirs for an hour after its end. A script that runs is left alone.
    """
    name = str(raw.get("name") or "")
    if not name.startswith(PREFIX) or provisioning_state(raw) == "deleting":
        return False
    ended = result(raw)
    if ended is None:
        return False
    return name.startswith(f"{PREFIX}{origin}-") or _age(ended.ended, now) > _READING


def _age(moment: str | None, now: float) -> float:
    """Seconds since `moment`, a date as ARM writes it; 0 where there is none that can be read."""
    # Python before 3.11 reads neither Z nor fractions of seven digits.
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?$", moment or "")
    if not found:
        return 0.0
    zone = "+00:00" if found[2] in (None, "Z") else found[2]
    return now - datetime.datetime.fromisoformat(found[1] + zone).timestamp()


def _last_line(text: str) -> str:
    # Not splitlines(), which ends lines at characters that a JSON string may hold.
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")


def _is_cut(text: str) -> bool:
    # The first character of what is left may have been cut in two.
    return len(text.encode("utf-8", "replace")) >= KEPT - 4
