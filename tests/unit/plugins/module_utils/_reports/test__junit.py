# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a pipeline read what a report says to it?

`valid` holds what the schemas of Ant and of Jenkins' xUnit plugin both demand.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._junit import render

COUNTS = {"tests", "failures", "errors", "time"}
SUITE = {"name", "skipped", "timestamp", "hostname", *COUNTS}


def valid(text):
    """The suite of a report that fits the schemas."""
    top = ET.fromstring(text.encode())
    assert top.tag == "testsuites" and set(top.attrib) == {"name", *COUNTS}
    (suite,) = top
    assert suite.tag == "testsuite" and set(suite.attrib) == SUITE
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    properties, *cases = suite
    assert properties.tag == "properties"
    assert all(one.tag == "property" and set(one.attrib) == {"name", "value"} for one in properties)
    for case in cases:
        assert case.tag == "testcase" and set(case.attrib) == {"classname", "name", "time"}
        assert [child.tag for child in case] in (["skipped"], ["error"], ["failure"], ["system-out"], [])
        for child in case:
            wanted = {"skipped": {"message"}, "system-out": set()}.get(child.tag, {"type", "message"})
            assert set(child.attrib) == wanted
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute)) == sum(case.find(tag) is not None for case in cases)
    assert int(suite.get("tests")) == int(top.get("tests")) == len(cases)
    return suite


def outcomes(suite):
    return {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}


def test_every_machine_and_whatever_else_went_wrong_is_a_test_case(reports):
    suite = valid(render(reports.mixed(runner="nightly")))
    assert outcomes(suite) == {
        "web01": [],
        "web02": ["failure"],
        "web03": ["system-out"],
        "db01": ["error"],
        "app1": ["skipped"],
        "prod": ["system-out"],
        "problem 1": ["error"],
    }
    assert (suite.get("hostname"), suite.get("timestamp"), suite.get("time")) == (
        "nightly",
        "2026-11-21T08:00:00",
        "9.000",
    )
    groups = {case.get("classname") for case in suite.iter("testcase")}
    assert groups == {"11111111-2222-3333-4444-555555555555.arc-prod", "subscriptions", "run"}


def test_a_failure_says_what_differs_and_what_to_do(reports):
    told = {case.get("name"): case for case in valid(render(reports.mixed())).iter("testcase")}
    failure, error = told["web02"].find("failure"), told["db01"].find("error")
    assert "has port 2222 instead of 22" in failure.get("message")
    assert "It is outside its maintenance window." in failure.get("message")
    assert "service_configuration update (left): port: 2222 -> port: 22" in failure.text
    assert error.get("type") == "AuthorizationFailed" and error.get("message").endswith("Ask for rights.")
    assert told["app1"].find("skipped").get("message") == "its agent is Disconnected"


def test_what_the_run_was_stands_in_the_properties(reports):
    reading = {"mode": "ledger", "reason": "<quiet>", "read": 4, "requests": None}
    suite = valid(render(reports.made(mode="repair", reading=reading, held_back="Too many.")))
    found = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert found.items() >= {"mode": "repair", "drift_left": "false", "total": "0", "held_back": "Too many."}.items()
    assert found["reading.reason"] == "<quiet>" and "reading.requests" not in found


def test_no_text_breaks_the_file(reports):
    evil = 'a]]>&amp;</failure><x y="\x00\x1b\ud800\uffff\u202e">\r\n'
    report = reports.made(
        reports.failed(evil, message=evil, hint=evil, code=evil),
        {"name": f"s{evil}", "action": "skip", "skip_reason": evil},
        reports.entry(f"d{evil}", "update", {evil: 1}, {evil: evil}),
        findings={evil: [{"failed": True, "msg": evil}]},
        runner=evil,
        held_back=evil,
    )
    suite = valid(render(report))
    assert sorted(tag for tags in outcomes(suite).values() for tag in tags) == ["error", "error", "failure", "skipped"]
