# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests get Linux machines of their own: systemd, an address, host keys, a real sshd?

They cost about two seconds a lab and a minute once for each Debian (the images are kept), so the tests of a file share theirs.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from arclab import podman
from arclab.client import Lab

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))


# The files whose tests take minutes, the longest first: whatever begins last is waited for.
LONGEST = ("arc_sshd_port", "arc_sshd_chaos", "disable", "arc_sshd", "arc_entra_login", "bootstrap", "enforce_machines")


def _rank(item: pytest.Item) -> int:
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first. Without root or podman there are no such machines."""
    items.sort(key=_rank)
    if os.environ.get("ARCFLEET_STEPS") == "some":
        for item in items:
            if item.get_closest_marker("takes_minutes"):
                item.add_marker(pytest.mark.skip(reason="it takes minutes: `make test-machines` runs it"))
    if (obstacle := podman.obstacle()) is not None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=obstacle))


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    """Start a lab of machines of their own; all are removed after the tests of the file.

    Each positional argument is a machine as in a fleet file; it needs a `name`, and `image` (bare, ready) and `suite`
    (bookworm, trixie) where they differ from the options of the lab, which are the keyword arguments.
    """
    labs: list[Lab] = []

    def up(*fleet: dict[str, Any], **options: Any) -> Lab:
        folder = tmp_path_factory.mktemp("lab")
        if fleet:
            path = folder / "fleet.json"
            path.write_text(json.dumps(fleet))
            options["fleet"] = str(path)
        labs.append(Lab.up(folder / "state", **{"backend": "podman", "operation_seconds": 0.2, **options}))
        return labs[-1]

    yield up
    for lab in labs:
        lab.down()
