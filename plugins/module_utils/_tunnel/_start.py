# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does the command start by its path, without an installed package?

The launcher that the role arc_connection writes runs `python …/module_utils/_tunnel/_start.py`. As for the relay helper, the package around
the files is made here. Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import sys
import types


def start() -> int:
    """Run the command; its exit status."""
    here = os.path.dirname(os.path.abspath(__file__))
    # Python put this directory in front; a file of ours must not pass for a top-level module of somebody else.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    above = os.path.dirname(here)
    for name in ("", "._relay", "._tunnel"):
        package = types.ModuleType(f"arcfleet_ssh{name}")
        package.__path__ = [os.path.join(above, name[1:]) if name else above]
        sys.modules[package.__name__] = package
    from arcfleet_ssh._tunnel._main import main  # type: ignore[import-not-found]

    return int(main(sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(start())
