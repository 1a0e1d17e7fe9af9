# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are there relay credentials in the cache for one machine, and will they last?

Fills the cache that the relay helper reads, so that the first connections of a fleet need no login and no request of their own.
Private to arcfleet.ssh.
"""

from __future__ import annotations

import os
import time

from ._fleet import Target, machine_of
from ._plan import CREATE, NONE, UPDATE, Plan
from ._reconcile import Outcome, Run
from ._relay._cache import Cache, default_directory
from ._relay._credentials import ensure, load


def prefetch(run: Run, target: Target, outcome: Outcome) -> None:
    """Note in `outcome` whether credentials had to be fetched; in check mode, whether they would have to be."""
    machine, options = machine_of(target), target.options
    service, life, force = options["service_name"], options["minimum_life"], options["force"]
    where = options["cache_dir"] or default_directory()
    cloud = run.cloud_environment
    outcome.asked = "credentials"
    cache = Cache(where) if os.path.isdir(where) or not run.check_mode else None
    try:
        kept = load(cache, machine.key, service, cloud) if cache else None
        good = kept is not None and not force and kept.lasts(time.time(), life)
        state = {"service_name": service}
        action = NONE if good else CREATE if kept is None else UPDATE
        if cache and not run.check_mode:
            kept, _fetched = ensure(
                lambda: run.arm, cache, machine, service, force=force, minimum_life=life, cloud=cloud
            )
    finally:
        if cache:
            cache.close()
    outcome.steps["credentials"] = Plan(action, None if action == CREATE else state, state)
    if kept is not None:
        outcome.details["credentials"] = kept.public()
