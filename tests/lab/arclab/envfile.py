# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do variables get into a shell and back?

Files of `export NAME=value` lines, to be sourced by a POSIX shell and read by tests.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path


def exports(variables: Mapping[str, str]) -> str:
    """Variables as lines for a POSIX shell."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def read_exports(path: Path) -> dict[str, str]:
    """The variables of such a file."""
    variables = {}
    for line in path.read_text().splitlines():
        name, _equals, value = line.removeprefix("export ").partition("=")
        variables[name] = "".join(shlex.split(value))
    return variables
