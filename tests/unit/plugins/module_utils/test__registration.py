# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a subscription registered once, however many machines lack it?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _registration
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArmError
from ansible_collections.arcfleet.ssh.plugins.module_utils._registration import Registrations

SUB = "11111111-2222-3333-4444-55555555555A"
OTHER = "22222222-2222-3333-4444-555555555555"


@pytest.fixture
def made(monkeypatch):
    """The resources that were reconciled."""
    found = []
    monkeypatch.setattr(_registration, "reconcile", lambda run, resource, outcome: found.append(resource))
    return found


def test_many_threads_make_one_registration_for_each_subscription(made):
    registrations = Registrations()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: registrations.ensure(None, key), [SUB, SUB.lower(), OTHER] * 20))
    assert sorted(resource.subscription_id for resource in made) == [SUB.lower(), OTHER]
    assert {resource.namespace for resource in made} == {"Microsoft.HybridConnectivity"}
    assert set(registrations.outcomes) == {SUB.lower(), OTHER}


def test_a_failure_is_asked_for_once_and_told_to_all(monkeypatch):
    asked = []

    def refuse(run, resource, outcome):
        asked.append(resource)
        raise ArmError("subscription: cannot register.", code="AuthorizationFailed", status=403)

    monkeypatch.setattr(_registration, "reconcile", refuse)
    registrations = Registrations()
    for _machine in range(3):
        with pytest.raises(ArmError):
            registrations.ensure(None, SUB)
    assert len(asked) == 1
    assert registrations.outcomes[SUB.lower()].failure["code"] == "AuthorizationFailed"
