# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a program for remote desktops learn where to connect?

Pure. FreeRDP takes it as arguments (xfreerdp(1)); Microsoft's programs take a file. Its properties `full address` and `username` are documented under
"Supported RDP properties" (learn.microsoft.com); `prompt for credentials` and `authentication level` are inferred from the properties of the ActiveX
control and from the files that mstsc writes. No password is in either: all of them ask for it. Private to arcfleet.ssh.
"""

from __future__ import annotations

import re
import shutil
import unicodedata

from .._errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PORT = 3389
# The newest first; sdl-freerdp needs no X11.
PROGRAMS = ("xfreerdp3", "xfreerdp", "sdl-freerdp3", "sdl-freerdp", "wlfreerdp")

_PASSWORDS = re.compile(r"(?i)[/+-]{1,2}(p|password|gp|pth|pass-the-hash)(:.*)?|[/+-]{1,2}(gateway|g):.*\bp:.*")


def installed() -> str | None:
    """The path of FreeRDP, `None` where there is none."""
    return next((found for found in map(shutil.which, PROGRAMS) if found), None)


def command(program: str, address: str, user: str | None, more: Sequence[str]) -> list[str]:
    """FreeRDP with the arguments it needs and `more`. Raises InputError for a password among them."""
    if any(_PASSWORDS.fullmatch(argument) for argument in more):
        raise InputError(
            "A password in FreeRDP's arguments would be seen by everybody on this computer.",
            hint="Leave it out; FreeRDP asks for it.",
        )
    return [program, f"/v:{address}", *([f"/u:{plain(user)}"] if user else []), *more]


def plain(user: str) -> str:
    """The user's name, if it is one. Raises InputError: in a file, a line more would be a setting more."""
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in user):
        raise InputError(f"{user!r} cannot be the name of a user.")
    return user


def file(address: str, user: str | None) -> bytes:
    """The .rdp file, in UTF-16 as Microsoft's own programs write it. Raises InputError for a name that cannot be one."""
    lines = [f"full address:s:{address}", "prompt for credentials:i:1", "authentication level:i:2"]
    if user:
        lines.append(f"username:s:{plain(user)}")
    return b"\xff\xfe" + "".join(f"{line}\r\n" for line in lines).encode("utf-16-le")
