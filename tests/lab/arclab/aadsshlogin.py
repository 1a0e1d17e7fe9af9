# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does Entra login change on a machine, and how does its extension fail?

The package `aadsshlogin` in a folder that stands for packages.microsoft.com, and the extension AADSSHLoginForLinux, which installs it
as the real installer does. From the contract: the Match block to the letter and in the main file, the entries in nsswitch.conf and
PAM, the group with sudo, the installer's own checks, its sentences and exit codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import aad_certhandler, debian_package
from .aad_certhandler import ADMINS, VERSION

PUBLISHER, TYPE = "Microsoft.Azure.ActiveDirectory", "AADSSHLoginForLinux"
REPOSITORY = "/opt/arclab/packages.microsoft.com"
HANDLER = "/usr/sbin/aad_certhandler"
_PACKAGE = f"aadsshlogin_{VERSION}_all.deb"
_CONTROL = {
    "Package": "aadsshlogin",
    "Version": VERSION,
    "Architecture": "all",
    "Maintainer": "arcfleet.ssh contributors",
    "Depends": "openssh-server, libnss-systemd, python3, sudo",
    "Conflicts": "aadlogin",
    "Section": "admin",
    "Priority": "optional",
    "Description": "stand-in for the Entra ID login package of Microsoft",
}
BLOCK = """\
Match User *@*,????????-????-????-????-????????????    # Added by aadsshlogin installer
    AuthenticationMethods publickey
    PubkeyAuthentication yes
    AuthorizedKeysCommand /usr/sbin/aad_certhandler %u %k
    AuthorizedKeysCommandUser root
"""
# sshd reads its configuration again some moments after the signal.
_RELOAD = "if [ -d /run/systemd/system ]; then systemctl try-reload-or-restart ssh.service; sleep 0.5; fi"
_POSTINST = f"""\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
getent group {ADMINS} >/dev/null || groupadd {ADMINS}
grep -q '^passwd:.*[[:space:]]aad' /etc/nsswitch.conf || sed -i -E '/^(passwd|group|shadow):/ s/$/ aad/' /etc/nsswitch.conf
if ! grep -q pam_aad /etc/pam.d/sshd; then
    printf '%s\\n' '-auth [default=ignore] pam_aad.so' '-account [default=ignore] pam_aad.so' >>/etc/pam.d/sshd
fi
if ! grep -q aad_certhandler /etc/ssh/sshd_config; then
    cat >>/etc/ssh/sshd_config <<'END'
{BLOCK}END
fi
{_RELOAD}
"""
_PRERM = f"""\
#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
sed -i '/# Added by aadsshlogin installer$/,/AuthorizedKeysCommandUser root$/d' /etc/ssh/sshd_config
sed -i '/pam_aad[.]so/d' /etc/pam.d/sshd
sed -i -E '/^(passwd|group|shadow):/ s/ aad$//' /etc/nsswitch.conf
rm -f {aad_certhandler.ACCOUNTS}/*
{_RELOAD}
"""
# The installer's numbers are those of the process, not of its script: 10004 becomes 20, 10005 becomes 21.
INSTALL = f"""\
fail() {{ code=$1; shift; echo "$*" >&2; exit "$code"; }}
dpkg-query --show --showformat='${{db:Status-Status}}' aadlogin 2>/dev/null | grep -q ^installed &&
    fail 23 'Detected obsolete packages. Please uninstall AADLoginForLinux first, then try again.'
for folder in /var /var/lib; do
    findmnt --noheadings --output OPTIONS --target "$folder" | tr , '\\n' | grep -qx noexec &&
        fail 64 "'noexec' flag set on the file system of $folder"
done
[ -r {REPOSITORY}/Packages ] || fail 20 'Cannot access https://packages.microsoft.com'
echo 'deb [trusted=yes] file:{REPOSITORY} ./' >/etc/apt/sources.list.d/microsoft-prod.list
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=60 update >&2 || fail 20 'Cannot access https://packages.microsoft.com'
apt-get -q -o DPkg::Lock::Timeout=60 install --reinstall --yes --no-install-recommends aadsshlogin >&2
installed=$?
grep -qs aad_certhandler /etc/ssh/sshd_config || fail 21 'Missing AuthorizedKeysCommand registration'
grep -qs aad /etc/nsswitch.conf || fail 21 'Missing registration in nsswitch.conf'
grep -qs pam_aad /etc/pam.d/* || fail 21 'Missing auth registration in PAM'
[ "$installed" = 0 ] || fail 51 'Unsupported Linux version. Learn more at https://aka.ms/AADSSHLogin'
echo {VERSION} >/var/log/AADSSHLoginForLinux.version
"""
REMOVE = """\
export DEBIAN_FRONTEND=noninteractive
dpkg-query --show aadsshlogin >/dev/null 2>&1 || exit 0
apt-get -q -o DPkg::Lock::Timeout=60 purge --yes aadsshlogin >&2 || exit 1
rm -f /var/log/AADSSHLoginForLinux.version
"""


def repository() -> dict[str, tuple[int, bytes]]:
    """The files of the repository, as they lie on a machine (path: mode, content)."""
    handler = "#!/usr/bin/python3 -I\n" + Path(aad_certhandler.__file__).read_text()
    files = {
        HANDLER.lstrip("/"): (0o755, handler),
        f"etc/sudoers.d/{ADMINS}": (0o440, f"%{ADMINS} ALL=(ALL) NOPASSWD:ALL\n"),
    }
    package = debian_package.build(_CONTROL, {"postinst": _POSTINST, "prerm": _PRERM}, files)
    return {
        f"{REPOSITORY}/{_PACKAGE}": (0o644, package),
        f"{REPOSITORY}/Packages": (0o644, debian_package.index(_CONTROL, _PACKAGE, package).encode()),
    }


def is_it(extension: dict[str, Any]) -> bool:
    """Is this resource the extension of Entra login?"""
    properties = extension["properties"]
    return (properties["publisher"].lower(), properties["type"].lower()) == (PUBLISHER.lower(), TYPE.lower())


def reason(status: int, complaint: str) -> str:
    """What the agent reports of an installer that ended with this status; its last line says why."""
    last = complaint.strip().rsplit("\n", 1)[-1]
    if status == 64:
        return f"Extension returned non-zero exit code for Install: 64. {last}"
    return f"Non-zero exit code: {status}. {last}"
