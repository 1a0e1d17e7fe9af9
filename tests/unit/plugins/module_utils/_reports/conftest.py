# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drift reports do the tests of their forms use?"""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import report

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
BEGUN, ENDED = "2026-11-21T08:00:00+00:00", "2026-11-21T08:00:09+00:00"
SSH = MappingProxyType({"service_name": "SSH", "port": 22})
OTHER = {"service_name": "SSH", "port": 2222}


def machine(name):
    return f"/subscriptions/{SUBSCRIPTION}/resourcegroups/arc-prod/providers/microsoft.hybridcompute/machines/{name}"


def entry(name, action="none", before=SSH, after=SSH, **more):
    states = {side: None if state is None else dict(state) for side, state in (("before", before), ("after", after))}
    return {"name": name, "host": name, "action": action, **states, **more}


def failed(name, message="The request was refused.", hint="Ask for rights.", code="AuthorizationFailed"):
    failure = {"code": code, "message": f"{name}: {message}", "status": 403, "request_id": "r-1", "hint": hint}
    return {"name": name, "host": name, "action": "none", "failure": failure}


def made(*entries, mode="report", findings=None, begun=BEGUN, ended=ENDED, **about):
    """A report on the machines of these entries."""
    looked = {"service_configuration": [{"machines": {machine(found["name"]): found for found in entries}}]}
    return report({**looked, **(findings or {})}, mode=mode, begun=begun, ended=ended, **about)


def mixed(**about):
    """One machine in each status, a subscription and a problem; machines that drifted are left alone."""
    skipped = {"name": "app1", "host": "app1", "action": "skip", "skip_reason": "its agent is Disconnected"}
    provider = {"name": "prod", "action": "update", "before": {"registered": False}, "after": {"registered": True}}
    return made(
        entry("web01"),
        entry("web02", "update", OTHER, SSH),
        entry("web03", "create", None, SSH),
        failed("db01"),
        skipped,
        mode="repair",
        findings={
            "provider": [{"subscriptions": {f"/subscriptions/{SUBSCRIPTION}": provider}}],
            "login": [{"failed": True, "msg": "The login failed."}],
        },
        deferred={machine("web02"): "It is outside its maintenance window."},
        **about,
    )


@pytest.fixture
def reports():
    return SimpleNamespace(made=made, mixed=mixed, entry=entry, failed=failed, machine=machine, SSH=SSH, OTHER=OTHER)
