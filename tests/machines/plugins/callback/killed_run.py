# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a run leave behind that is killed between any two of its steps?

Counts the tasks of one host that did something, from the first that changed something, notes them in KILLED_RUN_NOTES,
and kills the whole run (its process group, -9) after the one that KILLED_RUN_AFTER says.
"""

from __future__ import annotations

import os
import signal

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: killed_run
    type: aggregate
    short_description: Kills the run after a number of steps
    description: Only for tests.
"""
# They only decide what comes next.
NO_STEPS = ("include_tasks", "include_role", "set_fact", "debug", "validate_argument_spec")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "killed_run"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self._count = 0

    def v2_runner_on_ok(self, result):
        if result.task.action.rpartition(".")[2] in NO_STEPS or not (self._count or result.is_changed()):
            return
        self._count += 1
        with open(os.environ["KILLED_RUN_NOTES"], "a", encoding="utf-8") as file:
            file.write(f"{result.task.get_name()}\n")
        if self._count == int(os.environ["KILLED_RUN_AFTER"]):
            os.killpg(0, signal.SIGKILL)
