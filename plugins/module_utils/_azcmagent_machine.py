# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does this machine run `azcmagent`, and through which connection was it asked to?

The edge of `_azcmagent`: starts the program, reads which SSH session this process belongs to, and lets what ends that session happen
after the session was told. Runs on the managed machine, so it needs the standard library only. Private to arcfleet.ssh.
"""

from __future__ import annotations

import glob
import os
import platform
import signal
import subprocess
import syslog
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ._azcmagent import (
    AgentError,
    Change,
    arc_port,
    failure,
    parse_facts,
    parse_settings,
    parse_value,
    same,
    spelled,
)

if TYPE_CHECKING:
    from ._azcmagent import Setting, Settings

    Runner = Callable[[Sequence[str]], tuple[int, str, str]]

PROGRAM = "/opt/azcmagent/bin/azcmagent"
# Errors go to stdout without the second flag. Old agents may know neither, so there is always an attempt without them.
PLAIN = ("--no-color", "--log-stderr")
TIMEOUT = 120
# Seconds between the answer to the controller and what ends its connection.
CUT_DELAY = 10


def run_program(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a program; its exit status and what it printed on stdout and stderr."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise AgentError(
            f"{platform.node()}: there is no {command[0]}.",
            hint="Connect the machine to Azure Arc first, or give the path of azcmagent.",
        ) from None
    except subprocess.TimeoutExpired:
        raise AgentError(
            f"{platform.node()}: `azcmagent {' '.join(command[1:])}` did not end within {TIMEOUT} s.",
            hint="Restart the agent's service himds (systemctl restart himdsd).",
        ) from None
    except OSError as exc:
        raise AgentError(
            f"{platform.node()}: {command[0]} cannot be run: {exc.strerror}.", hint="Run the task with become: true."
        ) from None
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


class Azcmagent:
    """The agent's command. All methods raise AgentError."""

    def __init__(self, path: str = PROGRAM, run: Runner = run_program) -> None:
        self._path = path
        self._run = run

    def settings(self) -> Settings:
        """All settings, from JSON where the agent has it."""
        settings: Settings = {}
        for words in (("config", "list", "-j", *PLAIN), ("config", "list")):
            status, out, err = self._run([self._path, *words])
            settings = parse_settings(out) if status == 0 else {}
            if settings:
                return settings
        if status:
            raise failure(platform.node(), ("config", "list"), status, out + err)
        raise AgentError(
            f"{platform.node()}: `azcmagent config list` printed no settings.",
            hint="Update the agent, or report this with what the command prints.",
        )

    def value(self, name: str) -> Setting:
        """One setting that the list lacks; the agent says if it does not know it."""
        words = ("config", "get", name)
        status, out, err = self._run([self._path, *words])
        if status:
            raise failure(platform.node(), words, status, out + err)
        return parse_value(name, out)

    def facts(self) -> dict[str, str | None]:
        """What the agent tells about itself; see `parse_facts`."""
        for words in (("show", "-j", *PLAIN), ("show", "-j"), ("show",)):
            status, out, err = self._run([self._path, *words])
            facts = parse_facts(out) if status == 0 else {}
            if facts.get("version"):
                return facts
        if status:
            raise failure(platform.node(), ("show",), status, out + err)
        return facts

    def change(self, words: Sequence[str]) -> None:
        """Run one command of a change."""
        status, out, err = self._run([self._path, *words])
        if status:
            raise failure(platform.node(), words, status, out + err)

    def check(self, changes: Iterable[Change]) -> Settings:
        """Read the settings again; raises AgentError if one is not as it was set."""
        settings = self.settings()
        for change in changes:
            found = settings.get(change.name)
            if found is None:
                found = settings[change.name] = self.value(change.name)
            if not same(change.name, found, change.after):
                raise AgentError(
                    f"{platform.node()}: azcmagent took {change.name} = {spelled(change.after)!r}, but it is {spelled(found)!r} afterwards.",
                    hint="Give the value as `azcmagent config info` describes it.",
                )
        return settings

    def change_later(self, changes: Sequence[Change], delay: float = CUT_DELAY) -> None:
        """Make changes in a process of its own, `delay` seconds from now, when nobody waits for an answer any more.

        It outlives the SSH session. What fails is told to syslog, because there is nobody else to tell.
        """
        if os.fork():
            os.wait()
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        # Other descriptors would keep Ansible waiting for the end of this process.
        os.closerange(3, 256)
        syslog.openlog("arcfleet.ssh", syslog.LOG_PID)
        try:
            time.sleep(delay)
            for change in changes:
                for words in change.commands:
                    self.change(words)
                syslog.syslog(f"{change.name} is now {spelled(change.after)}")
        except BaseException as exc:  # noqa: BLE001
            syslog.syslog(syslog.LOG_ERR, f"settings of the Arc agent were not changed: {exc}")
        os._exit(0)


# ---- the session


def ssh_connection(proc: str = "/proc") -> str | None:
    """SSH_CONNECTION of the session that this process belongs to; `None` if it belongs to none.

    sudo and its like take the variable away, so the processes above this one are asked as well, which root can do. Other ways to become
    root, such as run0, leave nothing above this one either: then any session that can have come through Arc is taken for ours.
    """
    found = next((one["SSH_CONNECTION"] for one in _environments_above(proc) if "SSH_CONNECTION" in one), None)
    if found is not None:
        return found
    everybody = (
        _environment(path).get("SSH_CONNECTION") for path in glob.glob(os.path.join(proc, "[0-9]*", "environ"))
    )
    return next((one for one in everybody if arc_port(one) is not None), None)


def detached(environment: Mapping[str, str]) -> bool:
    """Does this process belong to an asynchronous task? Its session may have no process now that could be asked."""
    return "ANSIBLE_ASYNC_DIR" in environment


def _environments_above(proc: str) -> Iterator[Mapping[str, str]]:
    """The environments with which this process and those above it were started."""
    pid = os.getpid()
    while pid > 1:
        yield _environment(os.path.join(proc, str(pid), "environ"))
        pid = parent_of(os.path.join(proc, str(pid), "stat"))


def _environment(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            entries: list[str] = file.read().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def parent_of(path: str) -> int:
    """The parent of the process whose /proc/PID/stat is at `path`; 0 if it is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            # The second field, the program's name in brackets, may hold blanks and brackets itself.
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
