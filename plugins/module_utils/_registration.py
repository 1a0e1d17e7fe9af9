# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who registers the resource provider when a machine's subscription turns out to lack it?

The run itself, once for each subscription and only when Azure has said so: asking beforehand would cost every run a request and
a process. Private to arcfleet.ssh.
"""

from __future__ import annotations

import threading

from ._errors import ArcError
from ._reconcile import Outcome, Run, reconcile
from ._resources._provider import Provider


class Registrations:
    """The registrations of `namespace` that a run makes on its way, in `outcomes` by subscription. Safe to share between threads."""

    def __init__(self, namespace: str = "Microsoft.HybridConnectivity") -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._failures: dict[str, ArcError] = {}
        self.outcomes: dict[str, Outcome] = {}

    def ensure(self, run: Run, subscription_id: str) -> None:
        """Register, and wait for it; in check mode predict it. The first caller does it, all get the same failure."""
        key = subscription_id.lower()
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            if key not in self.outcomes:
                outcome = self.outcomes[key] = Outcome()
                try:
                    reconcile(run, Provider(key, namespace=self._namespace), outcome)
                except ArcError as exc:
                    outcome.failure = exc.failure()
                    self._failures[key] = exc
        failure = self._failures.get(key)
        if failure is not None:
            raise failure
