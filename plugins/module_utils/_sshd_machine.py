# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is this machine's sshd like, and how does it take another configuration without anybody being locked out?

The edge of `_sshd`: reads files, asks sshd and systemd, and makes changes in the order that `_sshd_way_back` makes safe. Runs on the
managed machine, so it needs the standard library only. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import _sshd
from ._azcmagent import arc_port
from ._azcmagent_machine import parent_of, ssh_connection
from ._sshd import Configuration, SshdError, Wanted
from ._sshd_way_back import WayBack, land, systemctl, told

PROGRAM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
MAIN = f"{_sshd.FOLDER}/sshd_config"
VENDOR_MAIN = "/usr/etc/ssh/sshd_config"
GENERATORS = (
    "/usr/lib/systemd/system-generators/sshd-socket-generator",
    "/lib/systemd/system-generators/sshd-socket-generator",
)
SOCKET_DROP_IN = "zz-arcfleet.conf"
# How long sshd may take to listen, in seconds: a busy machine needs several.
PATIENCE = 20.0

if TYPE_CHECKING:
    # Python 3.8, which machines may have, cannot evaluate this.
    Effective = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Found:
    """What was seen: the configuration, what counts of it, and the unit that serves it (`ssh.service`, `sshd.socket`, ...)."""

    configuration: Configuration
    unit: str
    active: bool
    effective: Effective | None
    version: tuple[int, int] | None
    version_text: str
    socket: str | None = None
    listens: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What has to change on the disk, and what sshd will do then."""

    changes: Mapping[str, str | None]
    # Values of the keywords that are ours, as sshd prints them: what was asked for.
    asked: Effective = field(default_factory=dict)
    effective: Effective = field(default_factory=dict)
    findings: Sequence[str] = ()
    ports: Sequence[int] = ()


class Sshd:
    """The OpenSSH server of this machine. All methods raise SshdError."""

    def __init__(self, scratch: str, login_user: str = "root") -> None:
        self._scratch = scratch
        self._login = login_user
        self._name = platform.node()
        self._program = shutil.which("sshd", path=PROGRAM_PATH) or ""
        if not self._program:
            raise SshdError(
                f"{self._name}: there is no OpenSSH server.",
                code="NoServer",
                hint="Install it first; the role arcfleet.ssh.arc_sshd does.",
            )

    # ---- looking

    def look(self) -> Found:
        """What is there."""
        configuration = self.read()
        unit, active, socket = self._unit()
        status, output, _said = self._run("-T")
        version = self._version()
        found = Found(
            configuration,
            unit,
            active,
            None if status else _sshd.parse_effective(output),
            _sshd.parse_version(version),
            version,
            socket=socket,
        )
        return replace(found, listens=self._listens(socket)) if socket else found

    def read(self) -> Configuration:
        """All files that sshd reads, by their real paths."""
        main = os.path.realpath(MAIN if os.path.exists(MAIN) else VENDOR_MAIN)
        files: dict[str, str] = {}
        included: dict[str, list[str]] = {}
        left = [main]
        while left:
            path = left.pop()
            if path in files:
                continue
            files[path] = self._text(path)
            for line in files[path].split("\n"):
                said = _sshd.split_line(line)
                if said is None or said[0] != "include":
                    continue
                for pattern in _sshd.patterns(said[1]):
                    included[pattern] = [os.path.realpath(one) for one in sorted(glob.glob(pattern))]
                    left += included[pattern]
        return Configuration(main, files, included)

    def _text(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                return file.read()
        except FileNotFoundError:
            raise SshdError(f"{self._name}: there is no {path}.", hint="Reinstall the OpenSSH server.") from None
        except OSError as exc:
            raise SshdError(
                f"{self._name}: {path} cannot be read: {exc.strerror}.", hint="Run the task with become: true."
            ) from exc

    def _unit(self) -> tuple[str, bool, str | None]:
        """The unit that makes sshd listen, whether it is active, and its name if it is a socket."""
        for socket in ("ssh.socket", "sshd.socket"):
            if systemctl("is-active", "--quiet", socket).returncode == 0:
                return socket, True, socket
        for service in ("ssh.service", "sshd.service"):
            if systemctl("show", "--property=LoadState", "--value", service).stdout.strip() == "loaded":
                return service, systemctl("is-active", "--quiet", service).returncode == 0, None
        raise SshdError(
            f"{self._name}: systemd knows no service of the OpenSSH server (ssh.service, sshd.service).",
            hint="This needs systemd and a server that was installed from the distribution's package.",
        )

    def _listens(self, socket: str) -> list[str]:
        shown = systemctl("show", "--property=Listen", socket).stdout
        return re.findall(r"(\S+) \(Stream\)", shown)

    def _version(self) -> str:
        # Servers before 9.2 have no -V, and tell their version while they say so.
        _status, output, said = self._run("-V")
        found = re.search(r"OpenSSH_[^\s,]+", said + output)
        return found.group(0) if found else ""

    def host_keys(self, effective: Effective) -> list[str]:
        """The public host keys, type and key."""
        found = []
        for path in effective.get("hostkey", ()):
            with contextlib.suppress(OSError), open(f"{path}.pub", encoding="utf-8") as file:
                found.append(" ".join(file.readline().split()[:2]))
        return found

    def _run(self, *arguments: str) -> tuple[int, str, str]:
        """Run sshd: its exit status, what it printed, and what it said about that."""
        command = [self._program, *arguments]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
                cwd="/",
                env={"PATH": PROGRAM_PATH, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise SshdError(f"{self._name}: {' '.join(command)} cannot be run: {exc}.") from exc
        said = done.stderr.decode(errors="replace")
        missing = re.search(r"Missing privilege separation directory: (/\S+)", said)
        if done.returncode and missing and not os.path.exists(missing.group(1)):
            # Made when the service starts, and gone where systemd listens for it.
            os.mkdir(missing.group(1), 0o755)
            return self._run(*arguments)
        return done.returncode, done.stdout.decode(errors="replace"), said

    # ---- planning

    def plan(self, found: Found, wanted: Wanted | None) -> Plan:
        """What has to change, with the word of sshd that it will accept that and do what was asked for. Changes nothing.

        With `None` everything stays, and what is there is judged.
        """
        changes = {} if wanted is None else _sshd.plan(found.configuration, wanted)
        with tempfile.TemporaryDirectory(prefix="sshd-", dir=self._scratch) as folder:
            plan = self._judged(found, wanted or Wanted(), changes, folder)
        if found.socket is None:
            return plan
        if wanted is None:
            return replace(plan, ports=_sshd.socket_ports(found.listens))
        return self._with_socket(found.socket, wanted, plan)

    def _judged(self, found: Found, wanted: Wanted, changes: Mapping[str, str | None], folder: str) -> Plan:
        texts, copies = _sshd.candidate(found.configuration, changes, folder)
        for path, text in texts.items():
            _put(path, text)
        main = next(iter(texts))
        status, _output, said = self._run("-t", "-f", main)
        if status:
            raise self._rejected(found, _sshd.real(said, copies))
        effective = self._effective(main)
        keys = [word for path in effective.get("hostkey", ()) for word in ("-h", path)]
        alone = os.path.join(folder, "alone")
        _put(alone, "".join(f"{line}\n" for line in _alone(wanted, _sshd.ports_of(effective))))
        bare = _sshd.parse_effective(self._checked("-T", "-f", alone, *keys))
        asked = {name: bare[name] for name in _sshd.managed(wanted, bare)}
        foreign = _sshd.directives(_sshd.without_us(found.configuration))
        for name, values in asked.items():
            if not _sshd.holds(name, values, effective.get(name, ())):
                opposing = _sshd.opposing(foreign, name)
                raise SshdError(
                    f"{self._name}: {opposing or found.configuration.main} would keep {name} at "
                    f"{' '.join(effective.get(name, ())) or 'nothing'}; {' '.join(values)} was asked for. Nothing was changed.",
                    hint="Take that line away, or leave the setting out.",
                )
        port = (wanted.ports or tuple(_sshd.ports_of(effective)) or (22,))[0]
        relayed = self._effective(main, f"user={self._login},{_sshd.RELAYED},lport={port}")
        entra = self._effective(main, f"user={_sshd.ENTRA_USER},{_sshd.RELAYED},lport={port}")
        settings = {name: values for name, values in asked.items() if name not in ("port", "listenaddress")}
        return Plan(
            changes,
            asked,
            effective,
            _sshd.findings(foreign, settings, relayed, entra, found.version),
            _sshd.ports_of(effective),
        )

    def _checked(self, *arguments: str) -> str:
        status, output, said = self._run(*arguments)
        if status:
            raise SshdError(
                f"{self._name}: sshd cannot tell what it would do: {_last_line(said)}. Nothing was changed."
            )
        return output

    def _effective(self, main: str, login: str | None = None) -> dict[str, list[str]]:
        return _sshd.parse_effective(self._checked("-T", "-f", main, *(("-C", login) if login else ())))

    def _rejected(self, found: Found, said: str) -> SshdError:
        """Whose fault it is that sshd does not accept the candidate: ours, if it accepts the configuration without us."""
        with tempfile.TemporaryDirectory(prefix="sshd-", dir=self._scratch) as folder:
            texts, copies = _sshd.candidate(found.configuration, _sshd.plan(found.configuration, Wanted()), folder)
            for path, text in texts.items():
                _put(path, text)
            status, _output, without_us = self._run("-t", "-f", next(iter(texts)))
        if status:
            return SshdError(
                f"{self._name}: sshd does not accept the configuration that is there already: {_last_line(_sshd.real(without_us, copies))}. "
                "It would not start again with it. Nothing was changed.",
                code="BrokenConfiguration",
                hint="Mend or remove that line first.",
            )
        return SshdError(
            f"{self._name}: sshd does not accept the new settings: {_last_line(said)}. Nothing was changed.",
            code="RejectedSettings",
            hint="Correct the settings that were asked for (sshd_config(5) of this machine's version lists what it knows).",
        )

    def _with_socket(self, socket: str, wanted: Wanted, plan: Plan) -> Plan:
        """The plan of a machine on which systemd listens. Where a generator reads sshd's configuration, there is nothing else to change."""
        if any(os.path.exists(one) for one in GENERATORS):
            return plan
        own = f"/etc/systemd/system/{socket}.d/{SOCKET_DROP_IN}"
        shown = systemctl("cat", socket).stdout
        # Each file is shown below a comment with its path.
        others = "".join(part for part in re.split(r"(?m)^(?=# /)", shown) if not part.startswith(f"# {own}\n"))
        listens = _sshd.socket_listens(others)
        text = _sshd.socket_text(listens, wanted)
        try:
            with open(own, encoding="utf-8") as file:
                current: str | None = file.read()
        except FileNotFoundError:
            current = None
        changes = plan.changes if text == current else {**plan.changes, own: text}
        return replace(plan, changes=changes, ports=sorted(wanted.ports) or _sshd.socket_ports(listens))

    # ---- changing

    def apply(self, way_back: WayBack, found: Found, plan: Plan, seconds: int) -> None:
        """Make the change, with a way back that is there before it. What does not work raises Undone, and has to be undone."""
        for folder in {os.path.dirname(path) for path in plan.changes}:
            try:
                os.makedirs(folder, mode=0o755, exist_ok=True)
            except OSError as exc:
                raise told(f"{folder} cannot be made, so nothing was changed", exc) from exc
        way_back.begin(list(plan.changes), found.unit, seconds)
        try:
            land(plan.changes, found.configuration.main)
            self.take(found, plan)
            way_back.landed()
        except SshdError as exc:
            raise Undone(exc) from exc

    def take(self, found: Found, plan: Plan) -> None:
        """Let sshd read its configuration, and see that it lives and listens. Live connections go on."""
        if found.socket is not None:
            # The socket goes on listening while sshd, which was given it, is stopped; sessions go on. A reload would make sshd bind by itself.
            systemctl("daemon-reload")
            systemctl("stop", f"{found.socket.rpartition('.')[0]}.service")
            done = systemctl("restart", found.socket)
        else:
            done = systemctl("reload", found.unit)
        if done.returncode and systemctl("is-active", "--quiet", found.unit).returncode == 0:
            raise SshdError(
                f"{self._name}: {found.unit} could not be reloaded: {done.stderr.strip()}.",
                hint=f"See: journalctl -u {found.unit}",
            )
        self._await(found, plan, done)
        status, output, said = self._run("-T")
        effective = _sshd.parse_effective(output) if not status else {}
        for name, values in plan.asked.items():
            if not _sshd.holds(name, values, effective.get(name, ())):
                raise SshdError(
                    f"{self._name}: after the change sshd has {name} {' '.join(effective.get(name, ())) or _last_line(said)} "
                    f"instead of {' '.join(values)}."
                )

    def _await(self, found: Found, plan: Plan, done: subprocess.CompletedProcess[str]) -> None:
        """See that sshd listens, and start it where it was killed meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while True:
            deaf = [port for port in plan.ports if not served(port)]
            alive = systemctl("is-active", "--quiet", found.unit).returncode == 0
            if alive and not deaf:
                return
            if not alive:
                done = self._start(found.unit)
            if time.monotonic() > deadline:
                what = f"does not listen on port {', '.join(map(str, deaf))}" if deaf else "does not run"
                said = f" ({done.stderr.strip()})" if done.returncode else ""
                raise SshdError(
                    f"{self._name}: sshd {what} with the new configuration{said}.",
                    hint=f"See: journalctl -u {found.unit}",
                )
            time.sleep(0.25)

    @staticmethod
    def _start(unit: str) -> subprocess.CompletedProcess[str]:
        systemctl("reset-failed", unit)
        return systemctl("start", unit)


class Undone(Exception):
    """A change has to be undone because of `args[0]`."""


def _put(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


def _alone(wanted: Wanted, ports: Sequence[int]) -> list[str]:
    """Our settings with nothing beside them, which is how they come to count as sshd understands them."""
    return [
        *(f"Port {port}" for port in wanted.ports or ports),
        *(f"ListenAddress {address}" for address in _sshd.LOOPBACK if wanted.loopback),
        *(f"{keyword} {value}" for keyword, value in wanted.lines),
    ]


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # The last one only counts the others.
    told = [line for line in lines if "terminating" not in line] or lines
    return told[-1].rstrip(".") if told else "it did not say why"


def listening(proc: str = "/proc") -> list[tuple[str, int]]:
    """Address and port of everything that listens for TCP connections."""
    return sorted({(address, port) for address, port, _inode in _sockets(proc)})


def _sockets(proc: str) -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of the sockets that listen (proc(5): /proc/net/tcp)."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(os.path.join(proc, "net", name), encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    address, _colon, port = fields[1].partition(":")
                    yield _address(address), int(port, 16), fields[9]


def served(port: int, proc: str = "/proc") -> bool:
    """Whether it is sshd that listens there, or systemd for it: another program would take every connection that Azure relays.

    Nothing connects for that, because sshd penalizes whoever connects and does not log in (PerSourcePenalties).
    """
    wanted = {f"socket:[{inode}]" for _address_, found, inode in _sockets(proc) if found == port}
    return any(link in wanted for folder in glob.glob(os.path.join(proc, "[0-9]*")) for link in _held(folder))


def _held(folder: str) -> list[str]:
    """What the files of a process are, if it is sshd or systemd."""
    links = []
    with contextlib.suppress(OSError), open(os.path.join(folder, "comm"), encoding="utf-8", errors="replace") as file:
        name = file.read().strip()
        for path in glob.glob(os.path.join(folder, "fd", "*")) if name.startswith("sshd") or name == "systemd" else ():
            with contextlib.suppress(OSError):
                links.append(os.readlink(path))
    return links


def _address(text: str) -> str:
    # Each 32 bits are in the order of the machine, and all that systemd runs an Arc agent on are little-endian.
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return str(ipaddress.ip_address(raw))


def change(
    sshd: Sshd, way_back: WayBack, wanted: Wanted, *, seconds: int, check: bool, through_arc: int | None
) -> dict[str, Any]:
    """Bring sshd to what is wanted; the result as the module returns it. `through_arc` is the port of the connection through Azure Arc.

    Raises SshdError; what landed before that has been undone then.
    """
    if check:
        # Without the lock, which is a file.
        return _applied(sshd, way_back, wanted, seconds, through_arc, check=True)
    try:
        with way_back.lock():
            return _applied(sshd, way_back, wanted, seconds, through_arc, check=False)
    except Undone as undone:
        fault: SshdError = undone.args[0]
        outcome = "The configuration was rolled back to what it was before."
        try:
            way_back.revert()
            way_back.forget()
        except SshdError as exc:
            outcome = str(exc)
        raise SshdError(
            f"{fault.message.rstrip('.')}. {outcome}",
            code=fault.code,
            hint=fault.hint,
        ) from fault


def _applied(
    sshd: Sshd, way_back: WayBack, wanted: Wanted, seconds: int, through_arc: int | None, *, check: bool
) -> dict[str, Any]:
    pending = way_back.pending
    if not check:
        way_back.tidy([_sshd.FOLDER, f"{_sshd.FOLDER}/sshd_config.d"])
    found = sshd.look()
    plan = sshd.plan(found, wanted)
    if wanted.loopback and through_arc is None and plan.changes:
        raise SshdError(
            f"{platform.node()}: this connection does not come through Azure Arc (sshd does not see it coming from the machine itself), so "
            "listening on the loopback addresses only would cut it. Nothing was changed.",
            hint="Run this over the relay, where it proves that the way in works.",
        )
    ports = {port for _address_, port in listening()}
    deaf = [port for port in plan.ports if port not in ports]
    rolled_back = way_back.rolled_back()
    changed = bool(plan.changes or deaf or not found.active)
    if not check:
        if plan.changes:
            sshd.apply(way_back, found, plan, seconds)
        elif changed or pending:
            # A run that was killed may have written files that sshd never read.
            sshd.take(found, plan)
            if pending:
                way_back.landed()
        way_back.forget()
    return {
        **facts(sshd, found, plan),
        "changed": changed,
        "before": {key: list((found.effective or {}).get(key, ())) for key in sorted(plan.asked)},
        "after": {key: list(plan.effective.get(key, ())) for key in sorted(plan.asked)},
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": _shown(found.configuration.files.get(path)),
                "after": _shown(text),
            }
            for path, text in sorted(plan.changes.items())
        ],
        "pending": pending if check else way_back.pending,
        "rolled_back": rolled_back,
    }


def confirm(way_back: WayBack, *, check: bool) -> dict[str, Any]:
    """Keep the change, proven by the session that this runs in. Raises SshdError if it proves nothing or comes too late."""
    name = platform.node()
    if check:
        return {"changed": way_back.pending, "pending": False, "rolled_back": None}
    with way_back.lock():
        if not way_back.pending:
            rolled_back = way_back.rolled_back()
            way_back.forget()
            if rolled_back is not None:
                raise SshdError(
                    rolled_back,
                    code="RolledBack",
                    hint="Find out why no new connection came through, and run this again.",
                )
        elif not way_back.proven_by(session_begun()):
            raise SshdError(
                f"{name}: this connection is older than the change of sshd, so it does not prove that the way in works.",
                code="OldConnection",
                hint="Open a new one (ansible.builtin.meta: reset_connection) and confirm over that.",
            )
        return {"changed": way_back.confirm(), "pending": False, "rolled_back": None}


def revert(way_back: WayBack, *, check: bool) -> dict[str, Any]:
    """Take the way back at once, if there is one."""
    with contextlib.nullcontext() if check else way_back.lock():
        pending = way_back.pending
    if pending and not check:
        way_back.revert()
        way_back.forget()
    told_ = (
        f"{platform.node()}: the configuration of sshd was rolled back to what it was before the change."
        if pending
        else None
    )
    return {"changed": pending, "pending": False, "rolled_back": told_}


def inspect(sshd: Sshd, way_back: WayBack) -> dict[str, Any]:
    """What is there, and what in it keeps users out."""
    found = sshd.look()
    return {
        **facts(sshd, found, sshd.plan(found, None)),
        "changed": False,
        "pending": way_back.pending,
        "rolled_back": None,
    }


def _shown(text: str | None) -> str:
    return (text or "").encode(errors="surrogateescape").decode(errors="replace")


def facts(sshd: Sshd, found: Found, plan: Plan) -> dict[str, Any]:
    """What every state of the module returns about the machine."""
    ports = list(plan.ports)
    return {
        "ports": ports,
        "listeners": [
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            for address, port in listening()
            if port in ports
        ],
        "host_keys": sshd.host_keys(plan.effective),
        "version": found.version_text,
        "unit": found.unit,
        "started": found.active and systemctl("is-enabled", "--quiet", found.unit).returncode == 0,
        "findings": list(plan.findings),
        "selinux": os.path.exists("/sys/fs/selinux/enforce"),
    }


def over_arc() -> int | None:
    """The port of sshd that this task is connected to, if its connection can have come through Azure Arc; `None` otherwise."""
    return arc_port(ssh_connection())


def session_begun(proc: str = "/proc") -> float | None:
    """When the SSH session was begun that this process belongs to, in seconds of uptime; `None` if it belongs to none that can be seen."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(os.path.join(proc, str(pid), "stat"), encoding="utf-8", errors="replace") as file:
                # The second field, the program's name in brackets, may hold blanks and brackets itself.
                name, _bracket, rest = file.read().partition("(")[2].rpartition(")")
        except OSError:
            return None
        if name.startswith("sshd"):
            return int(rest.split()[19]) / os.sysconf("SC_CLK_TCK")
        pid = parent_of(os.path.join(proc, str(pid), "stat"))
    return None
