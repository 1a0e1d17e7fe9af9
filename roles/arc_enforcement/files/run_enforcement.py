# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does one scheduled run end: all in order, drift left, failed, or not begun because another one runs?

ansible-playbook ends with the same status for a machine that drifted and for a login that failed; the report that the run wrote tells
them apart. systemd and cron start this with the command behind two dashes. Needs Python 3.8 and nothing else.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import subprocess
import sys
import time

DRIFT_LEFT = 10
NO_REPORT, BUSY = 66, 75  # EX_NOINPUT and EX_TEMPFAIL of sysexits.h


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a command, one at a time, and tell drift from failure.")
    parser.add_argument("--lock", required=True, help="the file that one run holds at a time")
    parser.add_argument("--report", required=True, help="the JSON report that the command writes")
    parser.add_argument("--delay", type=float, default=0.0, help="wait up to this many seconds first, at random")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args(words)
    time.sleep(random.uniform(0, asked.delay))
    try:
        descriptor = os.open(asked.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        return complain(f"The lock {asked.lock} cannot be opened: {exc.strerror}.", 1)
    with os.fdopen(descriptor, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return complain(f"Another run holds {asked.lock}. This one leaves, and nothing was done.", BUSY)
        return run(asked.command, asked.report, lock.fileno())


def run(command: list[str], report: str, lock: int) -> int:
    """Run the command and say how that ended."""
    before = identity(report)
    try:
        # The command holds the lock too, in case this process is killed alone.
        status = subprocess.run(command, pass_fds=[lock], check=False).returncode
    except OSError as exc:
        return complain(f"{command[0]} cannot be run: {exc.strerror}.", 127)
    if status < 0:
        return complain(f"The run was ended by signal {-status}.", 128 - status)
    reported = identity(report) != before
    if status == 0 and not reported:
        return complain(f"The run ended well and wrote no {report}. Is there any machine in the inventory?", NO_REPORT)
    if status and reported and only_drift(report):
        return complain(f"Drift is left. {report} says where.", DRIFT_LEFT)
    return status and complain(f"The run failed with status {status}.", status)


def complain(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return status


def identity(path: str) -> tuple[int, int, int] | None:
    """What differs when a file was replaced, whatever the clock says; `None` where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def only_drift(path: str) -> bool:
    """Does the report say that machines are not what they shall be, and nothing worse?"""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict) or not found.get("drift_left") or found.get("problems"):
        return False
    entries = [entry for kind in ("machines", "subscriptions") for entry in (found.get(kind) or {}).values()]
    return all(entry.get("status") != "failed" for entry in entries)


if __name__ == "__main__":
    sys.exit(main())
