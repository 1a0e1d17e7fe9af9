# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What did this program use, with everything that it started?

    python -I -S launcher.py RESULT_FD TIMEOUT SAMPLE_SECONDS COMMAND...

A small process of its own for each run, for three reasons. The kernel sums up children for a whole life (getrusage),
so one run's figures need a life of their own. A process inherits the peak memory of the process that started it
(fs/exec.c: setmax_mm_hiwater_rss), so a big parent would be the floor of every figure. And only a subreaper (prctl(2))
is told about the end of processes that their own parents left behind.

One JSON object goes to RESULT_FD: wall, cpu (seconds), peak_mb (largest process), tree_mb (largest sampled sum of PSS of
all processes, null unless SAMPLE_SECONDS is above 0), status, timed_out. Processes that outlive the command are left
alone; the CPU time that they used until then counts, their peak memory too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


def stat_of(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc(5)); empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def descendants(root: int) -> list[int]:
    """Everything below `root`, whatever session or group it is in."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_of(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, left = [], [root]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def field_kb(path: str, name: str) -> int:
    """A line `Name:  12 kB` of a file in /proc; 0 if the process is gone."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1])
    return 0


def sample(until: threading.Event, seconds: float, peak: list[int]) -> None:
    """Keep the largest sum of PSS in `peak`."""
    while not until.wait(seconds):
        total = sum(field_kb(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in descendants(os.getpid()))
        peak[0] = max(peak[0], total)


def reap() -> None:
    """Take leave of orphans that ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_all() -> None:
    """End what the command started, also what appears meanwhile."""
    while pids := [pid for pid in descendants(os.getpid()) if (stat_of(pid) or "Z")[0] != "Z"]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.05)
    reap()


def start(command: list[str]) -> int:
    """Start the command; 127 from it means that it could not be."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as exc:
            os.write(2, f"{command[0]}: {exc.strerror}\n".encode())
        os._exit(127)
    return pid


def wait(pid: int, seconds: float) -> tuple[int, bool]:
    """The command's exit status as subprocess gives it, and whether it had to be ended."""
    timed_out = threading.Event()

    def over() -> None:
        timed_out.set()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(seconds, over)
    timer.daemon = True
    timer.start()
    status = os.waitpid(pid, 0)[1]
    timer.cancel()
    return os.waitstatus_to_exitcode(status), timed_out.is_set()


def terminated(_number: int, _frame: object) -> None:
    """Nobody wants the figures any more."""
    kill_all()
    os._exit(1)


def main() -> None:
    result, seconds, every = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    os.set_inheritable(result, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminated)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = time.monotonic()
    # Before any thread: a child that is forked must not inherit a lock that nobody will open.
    pid = start(sys.argv[4:])
    peak, over = [0], threading.Event()
    if every:
        sampler = threading.Thread(target=sample, args=(over, every, peak), daemon=True)
        sampler.start()
    status, timed_out = wait(pid, seconds)
    wall = time.monotonic() - before
    over.set()
    if every:
        sampler.join()
    if timed_out:
        kill_all()
    reap()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, peak_kb = used.ru_utime + used.ru_stime, used.ru_maxrss
    for pid in descendants(os.getpid()):
        if fields := stat_of(pid):
            # utime, stime and those of the children it waited for: fields 14 to 17.
            cpu += sum(map(int, fields[11:15])) / TICKS
            peak_kb = max(peak_kb, field_kb(f"/proc/{pid}/status", "VmHWM:"))
    figures = {
        "wall": wall,
        "cpu": cpu,
        "peak_mb": peak_kb / 1024,
        "tree_mb": peak[0] / 1024 if every else None,
        "status": status,
        "timed_out": timed_out,
    }
    os.write(result, json.dumps(figures).encode())


if __name__ == "__main__":
    main()
