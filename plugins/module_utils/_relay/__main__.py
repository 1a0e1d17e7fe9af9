# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does `python …/module_utils/_relay` run in a checkout?

The same as `_start.py`, which is what the inventory runs: Galaxy refuses a file of this name, so it is not part of the artifact.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import runpy

if __name__ == "__main__":
    runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "_start.py"), run_name="__main__")
