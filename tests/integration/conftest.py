# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests get a lab?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from arclab.client import Lab


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    """Start labs with options of their own; all are stopped after the test."""
    labs: list[Lab] = []

    def up(**options: Any) -> Lab:
        labs.append(Lab.up(tmp_path_factory.mktemp("lab") / "state", **options))
        return labs[-1]

    yield up
    for lab in labs:
        lab.down()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of five machines, one of them stopped, one with an agent below 1.31; shared by the tests of one file."""
    found = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=5, stopped=1, old_agents=1, operation_seconds=0.2)
    yield found
    found.down()
