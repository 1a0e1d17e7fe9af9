# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are there relay credentials in the cache for each machine, will they last, and does the machine listen?

Fills the cache that the relay helper reads, so that the first connections of a fleet need no login and no request of their own, and
waits for the listeners of the whole fleet at once. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence

from ._errors import InputError
from ._fleet import Target, machine_of, work_on
from ._listeners import Listener, await_listeners
from ._plan import CREATE, NONE, UPDATE, Plan
from ._reconcile import Outcome, Run
from ._relay._cache import Cache, default_directory
from ._relay._credentials import Credentials, ensure, load
from ._resources._service_configuration import DEFAULT_PORTS


class Prefetch:
    """The work of one run: `before` does all of it, because waiting is for the fleet; `tell` gives each machine its result."""

    def __init__(self) -> None:
        self._outcomes: Mapping[str, Outcome] = {}

    def check(self, target: Target) -> None:
        """Raises InputError for options that cannot be."""
        port, options = port_of(target), target.options
        if not 1 <= port <= 65535:
            raise InputError(f"{target.name}: {port} is not a port.", hint="Ports are numbers from 1 to 65535.")
        for option in ("wait_timeout", "wait_settle"):
            if (options[option] or 0) < 0:
                raise InputError(f"{option} is {options[option]}; it is a number of seconds.")

    def before(self, run: Run, targets: Sequence[Target]) -> None:
        """Fetch the credentials of all machines, and wait for their listeners where that is asked for."""
        options = targets[0].options
        listeners: dict[str, Listener] = {}

        def one(target: Target, outcome: Outcome) -> None:
            listener = prefetch(run, target, outcome)
            if listener is not None:
                listeners[target.key] = listener

        outcomes = work_on(targets, one, concurrency=options["concurrency"])
        if options["wait"] and not run.check_mode:
            await_listeners(
                list(listeners.values()),
                patience=options["wait_timeout"],
                settle=options["wait_settle"],
                threads=options["concurrency"],
                sleep=run.pace.sleep,
            )
            for key, listener in listeners.items():
                outcomes[key].details.update(listening=listener.listening, waited=round(listener.waited, 1))
                if listener.failure is not None:
                    outcomes[key].failure = listener.failure.failure()
        self._outcomes = outcomes

    def tell(self, run: Run, target: Target, outcome: Outcome) -> None:
        """Fill `outcome` with what `before` did for this machine."""
        vars(outcome).update(vars(self._outcomes[target.key]))


def port_of(target: Target) -> int:
    """The port to reach, by default the service's usual one."""
    given = target.options["port"]
    return DEFAULT_PORTS[target.options["service_name"]] if given is None else int(given)


def prefetch(run: Run, target: Target, outcome: Outcome) -> Listener | None:
    """Note in `outcome` whether credentials had to be fetched; in check mode, whether they would have to be.

    Returns what is needed to dial the machine, `None` in check mode.
    """
    outcome.asked = "credentials"
    service, cloud = target.options["service_name"], run.cloud_environment
    force, life = target.options["force"], target.options["minimum_life"]
    with _cache(run, target) as cache:
        kept = load(cache, target.key, service, cloud) if cache else None
        good = kept is not None and not force and kept.lasts(time.time(), life)
        found, fetched = kept, False
        if cache and not run.check_mode:
            machine = machine_of(target)
            found, fetched = ensure(
                lambda: run.arm, cache, machine, service, force=force, minimum_life=life, cloud=cloud
            )
    _note(outcome, NONE if good else CREATE if kept is None else UPDATE, service, found)
    if found is None or run.check_mode:
        return None
    renew = None if fetched else lambda refused: _renewed(run, target, outcome, refused)
    return Listener(target.name, port_of(target), found, renew)


def _renewed(run: Run, target: Target, outcome: Outcome, refused: Credentials) -> Credentials:
    service = target.options["service_name"]
    with _cache(run, target) as cache:
        if cache is None:
            return refused
        found, _fetched = ensure(
            lambda: run.arm, cache, machine_of(target), service, refused=refused, cloud=run.cloud_environment
        )
    _note(outcome, UPDATE, service, found)
    return found


def _note(outcome: Outcome, action: str, service: str, found: Credentials | None) -> None:
    state = {"service_name": service}
    outcome.steps["credentials"] = Plan(action, None if action == CREATE else state, state)
    if found is not None:
        outcome.details["credentials"] = found.public()


@contextlib.contextmanager
def _cache(run: Run, target: Target) -> Iterator[Cache | None]:
    """The cache; `None` where check mode would have to make it."""
    directory = target.options["cache_dir"] or default_directory()
    if run.check_mode and not os.path.isdir(directory):
        yield None
        return
    cache = Cache(directory)
    try:
        yield cache
    finally:
        cache.close()
