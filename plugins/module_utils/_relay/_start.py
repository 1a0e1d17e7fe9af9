# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does the helper start by its path, without an installed package?

ssh runs `python …/module_utils/_relay/_start.py`. The files import each other relatively, so they need a package around them; it is
made here instead of searching sys.path, where anything called `module_utils` could come first. Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import sys
import types


def start() -> int:
    """Run the helper; its exit status."""
    here = os.path.dirname(os.path.abspath(__file__))
    # Python put this directory in front; a file of ours must not pass for a top-level module of somebody else.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    for name, path in (("arcfleet_ssh", os.path.dirname(here)), ("arcfleet_ssh._relay", here)):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package
    from arcfleet_ssh._relay._main import main  # type: ignore[import-not-found]

    return int(main(sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(start())
