# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a machine get its sshd back when a change of it has locked everybody out?

By itself. Before anything changes, each file that will is linked under a second name beside it (which takes no room on a full disk and keeps
owner, mode and labels), and a timer of systemd is started that puts them back, also after a reboot. The change counts when someone has
logged in anew and says so. Killed at any point, a change ends as it was before or as it was meant: what is pending is one folder,
`saved`, which comes and goes by a rename. Runs on the managed machine, so it needs the standard library only. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from ._sshd import SshdError

STATE = "/var/lib/arcfleet/sshd"
UNITS = "/etc/systemd/system"
UNIT = "arcfleet-sshd-way-back"
SERVICE, TIMER = f"{UNIT}.service", f"{UNIT}.timer"
# Names that no Include matches. The first is the file as it was, the second what will become the file.
WAS, NEW = ".arcfleet-was-", ".arcfleet-new-"
LOCK_PATIENCE = 90

# Nothing of it comes from a user. It may be killed anywhere and run again: each step is undone or done as a whole.
SCRIPT = f"""\
#!/bin/sh
# Written by arcfleet.ssh: puts sshd's configuration back, unless somebody has logged in with the new one and confirmed it.
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
cd {STATE} || exit 1
exec 9>lock
flock 9 || exit 1
disarm() {{
    systemctl disable --now {TIMER} >/dev/null 2>&1
    rm -f {UNITS}/{UNIT}.* {UNITS}/timers.target.wants/{TIMER}
    systemctl daemon-reload
    rm -f way-back way-back.new
}}
if [ ! -d saved ]; then
    disarm
    exit 0
fi
failed=0
for entry in saved/[0-9]*; do
    # Also a line feed at the end of a name is one of its letters.
    path=$(cat "$entry/path" && echo x) && path=${{path%x}} || {{ failed=1; continue; }}
    folder=${{path%/*}}
    was="$folder/{WAS}${{path##*/}}"
    rm -f "$folder/{NEW}${{path##*/}}"
    if [ -e "$entry/absent" ]; then
        rm -f "$path" || failed=1
    elif [ -n "$(find "$was" -samefile "$path" 2>/dev/null)" ]; then
        # Nothing had landed there, and a file is not renamed to itself.
        rm -f "$was" || failed=1
    elif [ -e "$was" ]; then
        mv -f "$was" "$path" || failed=1
    fi
done
[ "$failed" = 0 ] || exit 1
unit=$(cat saved/unit)
case $unit in
    *.socket)
        systemctl daemon-reload
        # sshd has the socket that systemd gave it; without that systemd refuses to start the socket anew. Sessions go on.
        systemctl stop "${{unit%.socket}}.service"
        systemctl restart "$unit"
        ;;
    *)
        if systemctl is-active --quiet "$unit" && systemctl reload "$unit"; then
            :
        else
            systemctl reset-failed "$unit" 2>/dev/null
            systemctl start "$unit"
        fi
        ;;
esac
[ "$?" = 0 ] || failed=1
date -u '+%Y-%m-%d %H:%M:%S UTC' >rolled_back.new && cat saved/seconds >>rolled_back.new && mv -f rolled_back.new rolled_back ||
    rm -f rolled_back.new
rm -rf over && mv saved over && rm -rf over
disarm
exit "$failed"
"""


def timer_text(seconds: int) -> str:
    """Counts from its start, which after a reboot is the boot."""
    return (
        "[Unit]\nDescription=Time until sshd's configuration is put back (arcfleet.ssh)\n"
        f"[Timer]\nOnActiveSec={seconds}s\nAccuracySec=1s\nUnit={SERVICE}\n[Install]\nWantedBy=timers.target\n"
    )


SERVICE_TEXT = (
    "[Unit]\nDescription=Put sshd's configuration back (arcfleet.ssh)\nStartLimitIntervalSec=0\n"
    f"[Service]\nType=simple\nExecStart=/bin/sh {STATE}/way-back\nRestart=on-failure\nRestartSec=10\n"
)


def told(action: str, fault: OSError) -> SshdError:
    """An error of the system as a sentence with a remedy."""
    hint = {
        errno.ENOSPC: "Free some space on that file system.",
        errno.EDQUOT: "Free some space on that file system.",
        errno.EROFS: "The file system is mounted read-only; mount it for writing.",
        errno.EPERM: "Take away the attribute that forbids changes (lsattr shows it, chattr -i takes it away).",
        errno.EACCES: "Run the task with become: true.",
    }.get(fault.errno or 0)
    return SshdError(
        f"{platform.node()}: {action}: {fault.strerror or fault}.",
        code=errno.errorcode.get(fault.errno or 0),
        hint=hint,
    )


def write(path: str, text: str, mode: int, like: str | None = None) -> None:
    """Replace a file in one step, with the owner, mode and labels of `like` where that exists."""
    folder, name = os.path.split(path)
    new = os.path.join(folder, NEW + name)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
                file.flush()
                if like is not None:
                    before = os.stat(like)
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                    # Labels of SELinux are attributes, which this copies as well.
                    shutil.copystat(like, new)
                    os.utime(new)
                else:
                    os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.rename(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
    except OSError as exc:
        raise told(f"{path} cannot be written", exc) from exc
    sync(folder)


def sync(folder: str) -> None:
    """Let a rename outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WayBack:
    """The way back of one machine. Everything but `lock` needs the lock."""

    def __init__(self, state: str = STATE) -> None:
        self._state = state
        self._saved = os.path.join(state, "saved")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep another run, and the way back itself, away."""
        try:
            os.makedirs(self._state, mode=0o700, exist_ok=True)
            os.chmod(self._state, 0o700)
            descriptor = os.open(os.path.join(self._state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise told(f"{self._state} cannot be used; nothing was changed", exc) from exc
        try:
            self._take(descriptor)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _take(descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SshdError(
                        f"{platform.node()}: another run has been changing sshd for {LOCK_PATIENCE} seconds; nothing was changed.",
                        hint="Run this again when that is over.",
                    ) from None
                time.sleep(0.2)

    @property
    def pending(self) -> bool:
        """Whether a change waits for its confirmation."""
        return os.path.isdir(self._saved)

    def rolled_back(self) -> str | None:
        """When the way back fired and nobody was told yet, in words; `None` otherwise."""
        try:
            with open(os.path.join(self._state, "rolled_back"), encoding="utf-8") as file:
                when, _newline, seconds = file.read().partition("\n")
        except OSError:
            return None
        return (
            f"{platform.node()}: the configuration of sshd was rolled back at {when}, because no new connection confirmed "
            f"the change within {seconds.strip() or 'some'} seconds."
        )

    def forget(self) -> None:
        """The note that the way back fired has been read."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._state, "rolled_back"))

    def begin(self, paths: Sequence[str], unit: str, seconds: int) -> None:
        """Save what is there and start the timer. What an unconfirmed change saved before stays what is gone back to."""
        try:
            self._arm(seconds)
            if not self.pending:
                self._begin(paths, unit, seconds)
            else:
                known = self._entries()
                self._put(os.path.join(self._saved, "seconds"), f"{seconds}\n")
                for path in paths:
                    if path not in known.values():
                        self._add(self._saved, path, max(known, default=0) + 1)
                        known = self._entries()
        except OSError as exc:
            if not self.pending:
                self._clean(paths)
            raise told(
                f"what is there cannot be saved ({exc.filename or self._state}), so nothing was changed", exc
            ) from exc

    def _begin(self, paths: Sequence[str], unit: str, seconds: int) -> None:
        fresh = os.path.join(self._state, "saving")
        shutil.rmtree(fresh, ignore_errors=True)
        os.mkdir(fresh, 0o700)
        self._put(os.path.join(fresh, "unit"), f"{unit}\n")
        self._put(os.path.join(fresh, "seconds"), f"{seconds}\n")
        for number, path in enumerate(paths):
            self._add(fresh, path, number)
        sync(fresh)
        os.rename(fresh, self._saved)
        sync(self._state)

    def _add(self, folder: str, path: str, number: int) -> None:
        """Save one file, as an entry that is there as a whole or not at all."""
        entry = os.path.join(folder, f".{number}")
        shutil.rmtree(entry, ignore_errors=True)
        os.mkdir(entry, 0o700)
        self._put(os.path.join(entry, "path"), path)
        if os.path.exists(path):
            was = os.path.join(os.path.dirname(path), WAS + os.path.basename(path))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(was)
            self._link(path, was)
        else:
            self._put(os.path.join(entry, "absent"), "")
        os.rename(entry, os.path.join(folder, str(number)))

    @staticmethod
    def _link(path: str, was: str) -> None:
        try:
            os.link(path, was, follow_symlinks=False)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
                raise
            shutil.copy2(path, was)
            before = os.stat(path)
            os.chown(was, before.st_uid, before.st_gid)
        sync(os.path.dirname(path))

    @staticmethod
    def _put(path: str, text: str, mode: int = 0o600) -> None:
        # In one step: what is armed must never be half a script.
        new = f"{path}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(new, mode)
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise

    def _entries(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for name in os.listdir(self._saved):
            if name.isdigit():
                with open(os.path.join(self._saved, name, "path"), encoding="utf-8", errors="surrogateescape") as file:
                    found[int(name)] = file.read()
        return found

    def _arm(self, seconds: int) -> None:
        self._put(os.path.join(self._state, "way-back"), SCRIPT)
        self._put(os.path.join(UNITS, SERVICE), SERVICE_TEXT, 0o644)
        self._put(os.path.join(UNITS, TIMER), timer_text(seconds), 0o644)
        for words in (("daemon-reload",), ("enable", TIMER), ("restart", TIMER)):
            done = systemctl(*words)
            if done.returncode:
                self._disarm()
                raise SshdError(
                    f"{platform.node()}: the timer of the way back cannot be started, so nothing was changed: {done.stderr.strip()}.",
                    hint="Look at systemctl status, which may say that systemd has to be mended first.",
                )

    @staticmethod
    def _disarm() -> None:
        systemctl("disable", "--now", TIMER)
        for path in _units():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        systemctl("daemon-reload")

    def landed(self) -> None:
        """The change has been made now: a session that was begun before proves nothing about it."""
        try:
            self._put(os.path.join(self._saved, "landed"), f"{_boot()} {_uptime()}\n")
        except OSError as exc:
            raise told(f"{self._saved} cannot be written", exc) from exc

    def proven_by(self, begun: float | None) -> bool:
        """Whether a session that was begun then, in seconds of uptime, is newer than the change. An unknown session is taken for new."""
        if begun is None:
            return True
        try:
            with open(os.path.join(self._saved, "landed"), encoding="utf-8") as file:
                boot, uptime = file.read().split()
        except (OSError, ValueError):
            return False
        return boot != _boot() or begun >= float(uptime)

    def confirm(self) -> bool:
        """The change counts from here on; whether there was one."""
        if not self.pending:
            return False
        paths = list(self._entries().values())
        gone = os.path.join(self._state, "over")
        shutil.rmtree(gone, ignore_errors=True)
        # From here on the timer does nothing any more.
        os.rename(self._saved, gone)
        sync(self._state)
        self._clean(paths)
        return True

    def tidy(self, folders: Sequence[str]) -> None:
        """Take away what a killed run left behind, where nothing is pending."""
        if self.pending:
            return
        for folder in folders:
            for stray in glob.glob(os.path.join(glob.escape(folder), ".arcfleet-*")):
                with contextlib.suppress(OSError):
                    os.unlink(stray)
            if folder.startswith(UNITS):
                # Was made for our file alone.
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        if _units():
            self._disarm()
        for name in ("saving", "over"):
            shutil.rmtree(os.path.join(self._state, name), ignore_errors=True)
        for path in glob.glob(os.path.join(glob.escape(self._state), "way-back*")):
            os.unlink(path)

    def _clean(self, paths: Sequence[str]) -> None:
        self.tidy(sorted({os.path.dirname(path) for path in paths}))

    def revert(self) -> None:
        """Go back at once. Needs the lock to be free, because the script takes it."""
        # The script as text, because there may be no room for a file.
        done = subprocess.run(
            ["/bin/sh", "-c", SCRIPT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SshdError(
                f"{platform.node()}: sshd's configuration could not be put back at once: {(done.stderr or done.stdout).strip()}.",
                hint="It is tried again when the time of the way back is over, and then every ten seconds.",
            )


def _units() -> list[str]:
    """The files of the timer and its service, and what a killed run left of their making."""
    return glob.glob(os.path.join(UNITS, f"{UNIT}.*"))


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _uptime() -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return float(file.read().split()[0])


def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl; a machine without it, or on which it hangs, looks as if it had failed."""
    command = ["systemctl", *words]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60, check=False,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "there is no systemctl on this machine")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "systemctl did not answer within 60 s")


def land(changes: Mapping[str, str | None], main: str) -> None:
    """Put the new texts into place. New files get the owner and mode of the main file."""
    for path, text in changes.items():
        if text is not None:
            write(path, text, 0o644, like=path if os.path.exists(path) else main)
            continue
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sync(os.path.dirname(path))
        except OSError as exc:
            raise told(f"{path} cannot be removed", exc) from exc
