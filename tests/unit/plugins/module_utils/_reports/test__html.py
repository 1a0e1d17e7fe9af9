# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the page say what a person has to know, and is it nothing but a page?"""

from __future__ import annotations

from html.parser import HTMLParser

from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._html import render
from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._trend import point

TAGS = set("html head meta title style body h1 h2 p ul li b span table caption thead tbody tr th td svg g rect".split())
ATTRIBUTES = set("lang charset http-equiv content name class scope viewbox width height role x y".split())


class Page(HTMLParser):
    """What a browser makes of a page: its sections as texts, its rows as cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.sections, self.rows, self.section = {"": []}, {"": []}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows[self.section].append([])
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.section = data
            self.sections[data], self.rows[data] = [], []
        elif self.open and self.open[-1] == "td":
            self.rows[self.section][-1].append(data)
        elif data.strip():
            self.sections[self.section].append(data)

    def cells(self, section):
        return [row for row in self.rows[section] if row]


def test_a_person_finds_what_needs_them_and_what_to_do(reports):
    page = Page(render(reports.mixed()))
    found = {row[0].split(" ")[0]: row[1:] for row in page.cells("Needs a person")}
    assert set(found) == {"db01", "web02", "app1"}
    assert found["db01"] == [
        "failed",
        "db01: The request was refused.",
        "Ask for rights. (code AuthorizationFailed, request_id r-1)",
    ]
    assert found["web02"][0] == "drifted" and "Not repaired: It is outside its maintenance window." in found["web02"][1]
    assert found["app1"][:2] == ["skipped", "its agent is Disconnected"]
    assert "The login failed." in page.sections[""]


def test_all_drift_stands_with_before_and_after(reports):
    page = Page(render(reports.mixed()))
    rows = [(row[0].split(" ")[0], *row[1:]) for row in page.cells("All drift")]
    assert rows == [
        ("prod", "resource provider", "update", "registered: false", "registered: true", "yes"),
        ("web02", "service configuration", "update", "port: 2222", "port: 22", "no"),
        ("web03", "service configuration", "create", "nothing", "port: 22, service_name: SSH", "yes"),
    ]
    assert page.cells("Drift by kind") == [
        ["resource provider", "update", "1"],
        ["service configuration", "create", "1"],
        ["service configuration", "update", "1"],
    ]


def test_machines_in_order_are_counted_and_not_listed(reports):
    text = render(reports.made(reports.entry("web01"), reports.entry("web02")))
    page = Page(text)
    assert page.sections["Machines"][:4] == ["2", "in all", "2", "in order"]
    assert "web01" not in text and page.sections["Needs a person"] == ["Nothing needs a person."]
    assert "Everything is what it shall be, as far as it could be looked at." in page.sections[""]


def test_the_page_says_why_nothing_was_repaired_and_how_machines_were_chosen(reports):
    known = {reports.machine("old"): {"name": "old", "host": "old", "verified": "2026-11-20T09:00:00+01:00"}}
    told = " ".join(
        Page(
            render(
                reports.made(
                    reports.entry("web01", "create", None, reports.SSH),
                    mode="repair",
                    held_back="61 % of the fleet would change.",
                    unchanged=known,
                    reading={"mode": "ledger", "reason": "it is young enough", "read": 1, "requests": 4},
                )
            )
        ).sections[""]
    )
    assert "Repairs were held back: 61 % of the fleet would change." in told
    assert "The ledger said which machines to read: it is young enough. Machines read: 1. Requests to Azure: 4." in told
    assert "read longest ago was read at 2026-11-20T09:00:00+01:00" in told


def test_the_trend_shows_the_runs_before_this_one(reports):
    def run(day, drifted):
        entries = [reports.entry(f"web{number}", "create", None, reports.SSH) for number in range(drifted)]
        return reports.made(*entries, begun=f"2026-11-{day}T08:00:00+00:00")

    page = Page(render(run(21, 1), [point(run(19, 4)), point(run(20, 0))]))
    assert [(row[0], row[4]) for row in page.cells("Trend")] == [
        ("2026-11-21T08:00:00+00:00", "1"),
        ("2026-11-20T08:00:00+00:00", "0"),
        ("2026-11-19T08:00:00+00:00", "4"),
    ]
    bars = [value for name, value in page.attributes if name == "height"][1:]
    assert bars == ["120.00", "30.00"], "no bar for the run without drift"
    assert Page(render(run(21, 1))).sections["Trend"] == ["No earlier report is known."]


def test_no_text_becomes_markup(reports):
    evil = """"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\x00\u202e</style>"""
    text = render(
        reports.made(
            reports.failed(evil, message=evil, hint=evil, code=evil),
            {"name": f"s{evil}", "action": "skip", "skip_reason": evil},
            reports.entry(f"d{evil}", "update", {evil: 1}, {evil: evil}),
            findings={evil: [{"failed": True, "msg": evil}]},
            mode="repair",
            deferred={reports.machine(f"d{evil}"): evil},
            held_back=evil,
            runner=evil,
            reading={"mode": "full", "reason": evil, "read": 1, "requests": 1},
        )
    )
    page = Page(text)
    assert set(page.tags) <= TAGS and {name for name, value in page.attributes} <= ATTRIBUTES
    shown = evil.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert any(shown in row[2] for row in page.cells("Needs a person"))
    assert "\x00" not in text and "\u202e" not in text


def test_the_page_fetches_and_runs_nothing(reports):
    page = Page(render(reports.mixed(), [point(reports.mixed())]))
    assert set(page.tags) <= TAGS and {name for name, value in page.attributes} <= ATTRIBUTES
    (policy,) = [value for name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none';") and "script" not in policy
    assert ("http-equiv", "Content-Security-Policy") in page.attributes


def test_the_page_of_a_large_fleet_in_trouble_stays_small(reports):
    settings = {f"setting{number}": "x <&> " * 20 for number in range(20)}
    entries = [reports.failed(f"web{number}", message="Refused & <told> at length. " * 20) for number in range(5000)]
    entries += [reports.entry(f"app{number}", "create", None, settings) for number in range(5000)]
    earlier = [point(reports.made(*entries[:100]))] * 59
    text = render(reports.made(*entries), earlier)
    assert len(text.encode()) < 1_000_000
    assert "The first 300 of 5,000; the JSON report has all." in Page(text).sections["Needs a person"]
