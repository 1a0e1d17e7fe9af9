# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which file is each machine of the fleet noted, and how is that file replaced?

Machines may have several files, because each names its own in its arguments of ssh. A file is read, changed and put in its place
while no other run of the same user does so. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence

from ._claims import Claims, default_path
from ._errors import ArcError, InputError
from ._files import read_text, replace_text
from ._fleet import Target, machine_of
from ._known_hosts import Host, host, known_hosts_file, merge, ssh_options
from ._reconcile import Outcome

USUAL = "~/.ssh/known_hosts"


def note(targets: Sequence[Target], *, path: str | None, replace: bool, check_mode: bool) -> dict[str, Outcome]:
    """Note the option `host_keys` of each target; what became of each."""
    outcomes = {target.key: Outcome(asked="host_keys") for target in targets}
    files: dict[str, dict[str, tuple[Target, Host]]] = {}
    for target in targets:
        outcome = outcomes[target.key]
        try:
            file, found = _wanted(target, path)
        except ArcError as exc:
            outcome.failure = exc.failure()
            continue
        if file is None:
            outcome.skip_reason = "ssh keeps no known hosts for it (UserKnownHostsFile)"
            continue
        outcome.details["path"] = file
        here = files.setdefault(file, {})
        if found.name in here:
            other = here[found.name][0].name
            outcome.failure = InputError(f"{target.name}: {other} has the same name in {file}, {found.name}.").failure()
            continue
        here[found.name] = (target, found)
    claims = None if check_mode else Claims(default_path())
    try:
        for file, here in files.items():
            with claims.hold(f"known_hosts {file}", time.sleep) if claims else contextlib.nullcontext():
                _note(file, here, outcomes, replace=replace, check_mode=check_mode)
    finally:
        if claims:
            claims.close()
    return outcomes


def _note(
    file: str,
    here: Mapping[str, tuple[Target, Host]],
    outcomes: Mapping[str, Outcome],
    *,
    replace: bool,
    check_mode: bool,
) -> None:
    """Bring one file up to date."""
    try:
        text = read_text(file) or ""
        merged = merge(text, [found for _target, found in here.values()], replace=replace, path=file)
        if merged.text != text and not check_mode:
            replace_text(file, merged.text)
    except OSError as exc:
        failure = ArcError(
            f"{file}: the host keys cannot be noted: {exc.strerror or exc}.",
            hint="Check the owner, the permissions and the space of its directory.",
        ).failure()
        for target, _found in here.values():
            outcomes[target.key].failure = failure
        return
    for name, (target, _found) in here.items():
        if name in merged.refused:
            outcomes[target.key].failure = merged.refused[name].failure()
        else:
            outcomes[target.key].steps["host_keys"] = merged.plans[name]


def _wanted(target: Target, path: str | None) -> tuple[str | None, Host]:
    """The file for a machine, and what it shall say of it."""
    options = ssh_options(target.options.get("ssh_args") or "")
    name = options.get("hostkeyalias") or machine_of(target).key
    found = host(name, target.name, target.options["host_keys"])
    file = path or known_hosts_file(options.get("userknownhostsfile", USUAL), os.environ)
    # A link stays a link.
    return (os.path.realpath(os.path.expanduser(file)) if file else None), found
