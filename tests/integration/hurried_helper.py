# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does the helper find out that nobody answers, when a test has less than a minute?

ssh's ProxyCommand as it is, but for the times of its keep-alive. That the real ones find it out within a minute is shown with a clock of
its own in the pump's unit tests.
"""

from __future__ import annotations

import sys

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay import _main, _pump

_pump.PING_EVERY = 1.0
_pump.PONG_WITHIN = 2.0
_pump.UNANSWERED = 1.5
_pump.LOOK_EVERY = 0.5

if __name__ == "__main__":
    raise SystemExit(_main.main(sys.argv[1:]))
