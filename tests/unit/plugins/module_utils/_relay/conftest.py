# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which fixtures do the helper's tests share?

What they are made of is in relay_double.py.
"""

from __future__ import annotations

import contextlib
import pathlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from relay_double import Authority, Helper, ProxyDouble, RelayDouble, Script


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
def relay(authority: Authority) -> Iterator[Callable[..., RelayDouble]]:
    """`relay(script)` starts a double."""
    doubles: list[RelayDouble] = []

    def start(script: Script, context: ssl.SSLContext | None = None) -> RelayDouble:
        doubles.append(RelayDouble(context or authority.server_context(), script))
        return doubles[-1]

    yield start
    for double in doubles:
        double.close()


@pytest.fixture
def helper(tmp_path: pathlib.Path, authority: Authority) -> Iterator[Helper]:
    running = Helper(tmp_path, authority)
    yield running
    for process in running.processes:
        with contextlib.suppress(OSError):
            process.kill()
        process.communicate()


@pytest.fixture
def proxy() -> Iterator[Callable[..., ProxyDouble]]:
    """`proxy(**options)` starts a double."""
    doubles: list[ProxyDouble] = []

    def start(**options: Any) -> ProxyDouble:
        doubles.append(ProxyDouble(**options))
        return doubles[-1]

    yield start
    for double in doubles:
        double.close()
