# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a path that swallows everything told from an end that is slow?

Trust, handshakes and bytes through TLS are tested with the dial (test__dial.py). The kernel's answers are made up here after linux/tcp.h;
that it does give them is shown in network namespaces (tests/integration/test_hostile_networks.py).
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._tls import Tls


class Told:
    """A socket whose TCP is in the state given."""

    def __init__(self, answer: bytes | OSError) -> None:
        self._answer = answer

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        if isinstance(self._answer, OSError):
            raise self._answer
        return self._answer[:size]


def over(lower: object) -> Tls:
    return Tls(lower, ssl.create_default_context(), "relay.example")  # type: ignore[arg-type]


def tcp_info(*, retransmits: int = 0, probes: int = 0, last_ack_recv: int = 0) -> bytes:
    """The struct as a kernel of today fills it, longer than what is asked for; `last_ack_recv` in milliseconds."""
    return struct.pack("=8B24I", 1, 0, retransmits, probes, *([0] * 4), *([7] * 12), last_ack_recv, *([9] * 11))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how TCP fares")
@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        ({"last_ack_recv": 90_000}, 0.0),
        ({"last_ack_recv": 90_000, "probes": 1}, 0.0),
        ({"last_ack_recv": 90_000, "probes": 2}, 90.0),
        ({"last_ack_recv": 1_500, "retransmits": 1}, 1.5),
    ],
)
def test_only_repeated_questions_count(state: dict[str, int], seconds: float) -> None:
    lower = over(Told(tcp_info(**state)))
    assert lower.unanswered == seconds
    # Through a proxy that is reached by https it is the proxy's connection that counts.
    assert over(lower).unanswered == seconds


@pytest.mark.parametrize("answer", [OSError(92, "Protocol not available"), b"short"])
def test_a_system_that_does_not_tell_is_no_failure(answer: bytes | OSError) -> None:
    assert over(Told(answer)).unanswered == 0.0


def test_a_real_connection_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        client.send(b"x")
        assert over(client).unanswered == 0.0
