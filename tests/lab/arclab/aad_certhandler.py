# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May the holder of this certificate log in to this machine, and as what?

The lab's stand-in for the program of the package aadsshlogin that sshd runs as AuthorizedKeysCommand with %u and %k. Copied as it is
onto a machine of its own, hence of the standard library alone. It asks the lab through the agent's address, admits or expels from
aad_admins, and prints the line of authorized_keys that makes sshd accept the certificate; whatever is missing, it prints nothing.
The lines in the log are those that Microsoft's articles on sign-ins name.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import sys
import syslog
import urllib.request
from typing import Any

VERSION = "1.0.031230001"
DOOR = "http://127.0.0.1:40342/arclab/login"
ACCOUNTS = "/run/userdb"
ADMINS = "aad_admins"
# The same two patterns as in the Match block.
NAMES = re.compile(r".*@.*|.{8}-.{4}-.{4}-.{4}-.{12}")
TIMEOUT = 20


def log(text: str) -> None:
    syslog.syslog(syslog.LOG_INFO, text)


def decision(user: str, blob: str) -> dict[str, Any]:
    """What Entra ID says of this certificate and the roles of its principal; OSError while the agent does not answer."""
    request = urllib.request.Request(
        DOOR,
        data=json.dumps({"user": user, "certificate": blob}).encode(),
        headers={"Content-Type": "application/json", "Metadata": "true"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=TIMEOUT) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def set_admin(user: str, admin: bool) -> None:
    """Let the user be a member of the group with sudo, or no longer."""
    path = f"{ACCOUNTS}/{user}:{ADMINS}.membership"
    if admin:
        # nss-systemd takes an empty file for one that hides another.
        with open(path, "w", encoding="utf-8") as file:
            file.write("{}\n")
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def make_home(user: str) -> None:
    """The home directory, as the first login makes it."""
    account = pwd.getpwnam(user)
    if not os.path.exists(account.pw_dir):
        shutil.copytree("/etc/skel", account.pw_dir)
        os.chmod(account.pw_dir, 0o750)
        for folder, folders, files in os.walk(account.pw_dir):
            for name in (folder, *(os.path.join(folder, one) for one in (*folders, *files))):
                os.lchown(name, account.pw_uid, account.pw_gid)


def main() -> int:
    user, blob = sys.argv[1], sys.argv[2]
    syslog.openlog("aad_certhandler", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    log(f"Version: {VERSION}; user: {user}")
    if not NAMES.fullmatch(user):
        log(f"User '{user}' is not an AAD user; returning empty result.")
        return 0
    try:
        found = decision(user, blob)
    except (OSError, ValueError) as exc:
        log(f"Failed to get the instance metadata: {exc}")
        return 1
    if not found["granted"]:
        log(f"{found['reason']}; user: {user}")
        return 0
    set_admin(user, found["admin"])
    make_home(user)
    log(f"Login granted; user: {user}")
    print(f'cert-authority,principals="{found["principal"]}" {found["authority"]}')
    return 0


if __name__ == "__main__":
    sys.exit(main())
