# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does ansible-test get pip into its virtual environments without a download from a place of its own?

It runs a script named get-pip, which it would fetch from a server of Ansible's. The gates put this one in that script's
cache: Python's own pip, then what was asked for, from the package index that is configured.
"""

from __future__ import annotations

import ensurepip
import os
import subprocess
import sys

# Taken before ensurepip sets PIP_CONFIG_FILE to /dev/null in this process.
environment = {key: value for key, value in os.environ.items() if key != "GET_PIP"}
ensurepip.bootstrap(default_pip=True)
arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *arguments], env=environment))
