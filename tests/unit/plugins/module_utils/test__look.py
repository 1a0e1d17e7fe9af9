# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is every doubt about a log a reason to read the machines of its subscription, and only those?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _look
from ansible_collections.arcfleet.ssh.plugins.module_utils._activity_log import Event, UnreadableLog
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import (
    ArmError,
    AuthError,
    ConnectionFailed,
    InputError,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._fleet import machine_targets
from ansible_collections.arcfleet.ssh.plugins.module_utils._ledger import DOUBTED, NEVER, WRITTEN, Entry, Ledger, digest
from ansible_collections.arcfleet.ssh.plugins.module_utils._reconcile import Outcome

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ONE, OTHER = ("11111111-2222-3333-4444-555555555555", "22222222-2222-3333-4444-555555555555")


def machine(name, subscription=ONE):
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/{name}"


WEB01, WEB02, DB01 = machine("web01"), machine("web02"), machine("db01", OTHER)
FLEET = (WEB01, WEB02, DB01)


class Arm:
    """ARM, which tells the time and nothing else."""

    address = "https://management.azure.com"

    def __init__(self, time=NOW, refuses=False):
        self.azure_time = time
        self._refuses = refuses

    def get(self, _path, _version, *, doing):
        if self._refuses:
            raise ArmError(f"{doing}: no.", status=403)
        return {}


def event(resource, operation="Microsoft.HybridConnectivity/endpoints/write", ago=10):
    return Event("1", resource, operation, "Succeeded", NOW - timedelta(minutes=ago))


@pytest.fixture
def looked(monkeypatch):
    """What is said of each machine, when the logs hold these events or cannot be read."""

    def look(logs, arm=None, ledger=None, **params):
        given = {"path": "ledger", "kinds": [], "full_every": 86400, "visit_share": 1, **params}
        wanted = digest({"kinds": given["kinds"]})
        verified = {one.lower(): Entry(wanted, NOW - timedelta(hours=1)) for one in FLEET}
        known = ledger or Ledger(verified, {}, dict.fromkeys((ONE, OTHER), NOW - timedelta(hours=1)))
        monkeypatch.setattr(_look, "load", lambda _path, _cloud: (known, None))

        def events(_arm, subscription, _since, _until):
            answer = logs.get(subscription, [])
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(_look, "events", events)
        found = _look.Look(given)
        targets = machine_targets({"machines": list(FLEET)})
        targets = [SimpleNamespace(**{**vars(target), "options": {}}) for target in targets]
        for target in targets:
            found.check(target)
        found.read(SimpleNamespace(arm=arm or Arm()), targets)
        outcomes = {target.name: Outcome() for target in targets}
        for target in targets:
            found.judge(target, outcomes[target.name])
        warnings = {text for outcome in outcomes.values() for text in outcome.warnings}
        reasons = {name: outcome.details["reason"] for name, outcome in outcomes.items()}
        return reasons, warnings, found.result()

    return look


def test_nothing_happened(looked):
    reasons, warnings, result = looked({})
    assert set(reasons.values()) == {None} and not warnings
    assert result["read_hosts"] == [] and len(result["unchanged"]) == 3
    assert result["look"]["logs"] == {ONE: True, OTHER: True} and result["look"]["at"] == NOW.isoformat()


def test_what_was_written_below_a_machine_is_news_of_that_machine(looked):
    path = f"{WEB01}/providers/Microsoft.HybridConnectivity/endpoints/default"
    reasons, warnings, result = looked({ONE: [event(path)]})
    assert reasons == {"web01": WRITTEN, "web02": None, "db01": None} and not warnings
    assert result["look"]["written"] == [WEB01.lower()]


def test_the_latest_of_several_events_counts(looked):
    reasons, _warnings, _result = looked({ONE: [event(WEB01, ago=5), event(WEB01, ago=90)]})
    assert reasons["web01"] == WRITTEN


@pytest.mark.parametrize(
    "trouble",
    [
        ArmError("cannot read the activity log: no rights.", status=403),
        UnreadableLog("cannot read the activity log: an event has no time."),
        ConnectionFailed("cannot read the activity log: no answer."),
        [
            event(
                f"/subscriptions/{ONE}/providers/Microsoft.HybridConnectivity",
                "Microsoft.HybridConnectivity/unregister/action",
            )
        ],
    ],
)
def test_a_log_in_doubt_has_everything_of_its_subscription_read(looked, trouble):
    reasons, warnings, result = looked({ONE: trouble})
    assert reasons == {"web01": DOUBTED, "web02": DOUBTED, "db01": None}
    assert len(warnings) == 1 and "Every machine of" in warnings.pop()
    assert result["look"]["logs"] == {ONE: False, OTHER: True}


def test_a_login_that_fails_is_no_doubt_but_the_end(looked):
    with pytest.raises(AuthError):
        looked({ONE: AuthError("No login.")})


def test_a_refusal_tells_the_time_as_well(looked):
    _reasons, _warnings, result = looked({}, arm=Arm(refuses=True))
    assert result["look"]["at"] == NOW.isoformat()


def test_without_azures_time_nothing_is_concluded(looked):
    with pytest.raises(ConnectionFailed, match="without telling its time"):
        looked({}, arm=Arm(time=None))


def test_without_a_ledger_no_log_is_asked(looked):
    reasons, warnings, result = looked({ONE: AssertionError("asked"), OTHER: AssertionError("asked")}, ledger=Ledger())
    assert set(reasons.values()) == {NEVER} and not warnings and result["reasons"] == {NEVER: 3}


@pytest.mark.parametrize("params", [{"full_every": -1}, {"full_every": 31 * 86400}, {"visit_share": 0}])
def test_options_that_cannot_be_are_refused(looked, params):
    with pytest.raises(InputError):
        looked({}, **params)
