# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which versions of which extensions can be installed?

A few of the extensions that Azure publishes for Arc machines, oldest version first. Others can be installed too: their
version is completed to three numbers, as Azure's own example does (1.10 becomes 1.10.3).
"""

from __future__ import annotations

VERSIONS: dict[tuple[str, str], list[str]] = {
    ("Microsoft.Azure.ActiveDirectory", "AADSSHLoginForLinux"): ["1.0.2568.1", "1.0.2845.1", "1.0.3123.1"],
    ("Microsoft.Azure.ActiveDirectory", "AADLoginForWindows"): ["2.0.0.0", "2.1.0.0", "2.2.0.0"],
    ("Microsoft.Azure.OpenSSH", "WindowsOpenSSH"): ["1.0.0.1", "3.0.1.0"],
    ("Microsoft.Azure.Extensions", "CustomScript"): ["2.1.6", "2.1.10", "2.1.13"],
    ("Microsoft.Compute", "CustomScriptExtension"): ["1.10.3", "1.10.15", "1.10.20"],
    ("Microsoft.Azure.Monitor", "AzureMonitorLinuxAgent"): ["1.9.1", "1.9.2", "1.33.2"],
    ("Microsoft.Azure.Monitor", "AzureMonitorWindowsAgent"): ["1.10.0.0", "1.31.0.0"],
}


def full_version(publisher: str, kind: str, asked: str | None) -> str | None:
    """The newest version that `asked` means (`None`: any); `None` if the catalogue has no such version."""
    for (known_publisher, known_kind), versions in VERSIONS.items():
        if (known_publisher.lower(), known_kind.lower()) == (publisher.lower(), kind.lower()):
            fitting = [one for one in versions if asked is None or one == asked or one.startswith(asked + ".")]
            return fitting[-1] if fitting else None
    if asked is None:
        return "1.0.0"
    return asked if asked.count(".") >= 2 else f"{asked}.{'3' if '.' in asked else '0.3'}"
