# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a report get what the roles found on a machine, and no more than what differs?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.filter.visit_findings import visit_findings
from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import report

WEB01 = "/subscriptions/S/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/web01"
OPENED = {"rc": 0}
AGENT = {"changed": False, "before": {"config.mode": "full"}, "after": {"config.mode": "full"}}
SSHD = {"changed": False, "before": {"maxstartups": ["100:30:300"]}, "after": {"maxstartups": ["100:30:300"]}}


def entry(**facts):
    """The machine's entry in a report of what was found."""
    own = {
        "arc_resource_id": WEB01,
        "arc_enforcement_opened": OPENED,
        "arc_agent_result": AGENT,
        "arc_sshd_result": SSHD,
    }
    found = visit_findings({"web01": {**own, **facts}, "nas": {}}, ["web01", "nas"])
    (made,) = report(found, mode="report", begun="", ended="")["machines"].values()
    return made


def test_a_machine_that_is_what_it_shall_be():
    assert entry()["status"] == "in_order" and entry()["name"] == "web01"


@pytest.mark.parametrize(
    ("facts", "resource", "before", "after"),
    [
        (
            {"arc_agent_result": {"changed": True, "before": {"a": 1, "b": 2}, "after": {"a": 1, "b": 3}}},
            "agent",
            {"b": 2},
            {"b": 3},
        ),
        (
            {"arc_sshd_result": {"changed": True, "before": {"port": ["22"]}, "after": {"port": ["2222"], "x": ["y"]}}},
            "sshd",
            {"port": ["22"], "x": None},
            {"port": ["2222"], "x": ["y"]},
        ),
        ({"arc_sshd_before": {"started": False}}, "sshd", {"started": False}, {"started": True}),
        ({"arc_sshd_before": {"failure": {"code": "NoServer"}}}, "sshd", None, {"installed": True}),
        (
            {"arc_sshd_keys_let_in": {"changed": True}},
            "login",
            {"arc_sshd_user_made": False, "arc_sshd_sudo_given": False, "arc_sshd_keys_let_in": False},
            {"arc_sshd_user_made": False, "arc_sshd_sudo_given": False, "arc_sshd_keys_let_in": True},
        ),
    ],
)
def test_what_differs_is_drift(facts, resource, before, after):
    made = entry(**facts)
    assert made["status"] == "drifted"
    assert [(step["resource"], step["before"], step["after"]) for step in made["drift"]] == [(resource, before, after)]


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"arc_enforcement_opened": {"unreachable": True, "msg": "Permission denied."}}, "Permission denied."),
        ({"arc_enforcement_opened": {"rc": 1}}, "did not let us in"),
        ({"arc_enforcement_visit_failure": "The disk is full."}, "The disk is full."),
    ],
)
def test_a_machine_on_which_it_went_wrong_has_failed(facts, why):
    made = entry(**facts)
    assert made["status"] == "failed" and why in made["failure"]["message"]
