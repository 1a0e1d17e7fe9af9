# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does a person see of a drift report?

Pure: one page without scripts and without anything from elsewhere. It is built as a tree, so that no text of Azure's or of a machine's can become
markup; only the style sheet, which is a constant here, is written as it is. Lists are cut, so that the page of any fleet opens at once: the JSON
report has everything. Private to arcfleet.ssh.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._drift import DRIFTED, FAILED, IN_ORDER, REPAIR, REPAIRED, SKIPPED, STATUSES, kinds, sentences
from ._common import duration, fit, moment, sides
from ._trend import Point, point

_ROWS, _LONGEST = 300, 240
_BAR, _HEIGHT, _RECENT = 12, 120, 10
_ATTENTION = (FAILED, DRIFTED, REPAIRED)
_TITLES = {
    IN_ORDER: "in order",
    DRIFTED: "drifted",
    REPAIRED: "repaired",
    FAILED: "failed",
    SKIPPED: "skipped",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --back: #ffffff; --in_order: #1a7f37; --drifted: #9a6700;
  --repaired: #0969da; --failed: #cf222e; --skipped: #57606a; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9da7b3; --line: #3d444d; --back: #0d1117; --in_order: #3fb950;
  --drifted: #d29922; --repaired: #58a6ff; --failed: #ff7b72; --skipped: #9da7b3; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 75rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); }
h1 { margin: 0; } h2 { margin: 2rem 0 .5rem; } .soft { color: var(--soft); }
ul.counts { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; list-style: none; }
ul.counts li { padding: .5rem 1rem; border: 1px solid var(--line); border-left: .4rem solid var(--soft); border-radius: .4rem; }
ul.counts b { display: block; font-size: 1.6rem; line-height: 1.2; }
.alert { padding: .5rem 1rem; border: 1px solid var(--failed); border-left-width: .4rem; border-radius: .4rem; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; } caption { text-align: left; color: var(--soft); }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; overflow-wrap: anywhere; }
thead { display: table-header-group; } tr { break-inside: avoid; } svg { max-width: 100%; height: auto; border-bottom: 1px solid var(--line); }
ul.counts li.in_order { border-left-color: var(--in_order); } .in_order { color: var(--in_order); }
ul.counts li.drifted { border-left-color: var(--drifted); } .drifted { color: var(--drifted); } rect.drifted { fill: var(--drifted); }
ul.counts li.repaired { border-left-color: var(--repaired); } .repaired { color: var(--repaired); } rect.repaired { fill: var(--repaired); }
ul.counts li.failed { border-left-color: var(--failed); } .failed { color: var(--failed); } rect.failed { fill: var(--failed); }
.skipped { color: var(--skipped); }
@media print { body { padding: 0; max-width: none; font-size: 10pt; } }
"""


def render(reported: Mapping[str, Any], earlier: Sequence[Point] = ()) -> str:
    """The page of one report; `earlier` are the runs before it, the oldest first."""
    page = ET.Element("html", {"lang": "en"})
    _head(page)
    body = _in(page, "body")
    _top(body, reported)
    _counts(body, reported["summary"])
    _by_kind(body, reported)
    _trend(body, [*earlier, point(reported)])
    _persons(body, reported)
    _drift(body, reported)
    return "<!DOCTYPE html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"


def _in(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    """A new element at the end of `parent`; `kind` is its class."""
    given = {"class" if name == "kind" else name: fit(value) for name, value in attributes.items()}
    made = ET.SubElement(parent, tag, given)
    made.text = None if text is None else fit(text)
    return made


def _head(page: ET.Element) -> None:
    head = _in(page, "head")
    _in(head, "meta", charset="utf-8")
    ET.SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    _in(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _in(head, "meta", name="referrer", content="no-referrer")
    _in(head, "title", "Drift report")
    _in(head, "style", _STYLE)


def _top(body: ET.Element, reported: Mapping[str, Any]) -> None:
    _in(body, "h1", "Drift report")
    about = [f"Mode {reported['mode']}", f"{reported['begun']} to {reported['ended']} ({duration(reported):.0f} s)"]
    about += [str(reported["runner"])] if reported["runner"] else []
    _in(body, "p", " | ".join(about), kind="soft")
    for sentence in _reading(reported):
        _in(body, "p", sentence, kind="soft")
    _in(body, "p", _verdict(reported))
    if reported["held_back"]:
        _in(body, "p", f"Repairs were held back: {reported['held_back']}", kind="alert")
    for problem in reported["problems"][:_ROWS]:
        _in(body, "p", _cut(problem), kind="alert")


def _reading(reported: Mapping[str, Any]) -> list[str]:
    reading = reported["reading"]
    told = []
    if reading:
        chosen = (
            "Every machine was to be read" if reading["mode"] == "full" else "The ledger said which machines to read"
        )
        told.append(f"{chosen}: {reading['reason'].rstrip('.')}." if reading.get("reason") else f"{chosen}.")
        told += [
            f"{what}: {reading[name]:,}."
            for name, what in (("read", "Machines read"), ("requests", "Requests to Azure"))
            if reading.get(name) is not None
        ]
    times = [entry["verified"] for entry in reported["machines"].values() if entry["verified"]]
    longest_ago = min(times, key=moment, default=reported["begun"])
    if longest_ago != reported["begun"]:
        told.append(f"The machine in order that was read longest ago was read at {longest_ago}.")
    return [" ".join(told)] if told else []


def _verdict(reported: Mapping[str, Any]) -> str:
    if not reported["drift_left"]:
        return "Everything is what it shall be, as far as it could be looked at."
    drifted = reported["summary"][DRIFTED]
    if drifted and reported["mode"] != REPAIR:
        return f"Drift is left. A run with the mode repair mends what the {drifted:,} drifted machines differ in."
    return "Drift is left."


def _counts(body: ET.Element, summary: Mapping[str, int]) -> None:
    _in(body, "h2", "Machines")
    tiles = _in(body, "ul", kind="counts")
    for status, title in (("total", "in all"), *_TITLES.items()):
        tile = _in(tiles, "li", kind=status)
        _in(tile, "b", f"{summary[status]:,}")
        _in(tile, "span", title)


def _by_kind(body: ET.Element, reported: Mapping[str, Any]) -> None:
    _in(body, "h2", "Drift by kind")
    found = [(_words(resource), action, f"{count:,}") for (resource, action), count in kinds(reported).items()]
    _table(body, ("resource", "action", "differences"), found, "No difference was found.")


def _trend(body: ET.Element, points: Sequence[Point]) -> None:
    _in(body, "h2", "Trend")
    if len(points) < 2:
        _in(body, "p", "No earlier report is known.", kind="soft")
        return
    _in(body, "p", f"Machines that failed, drifted or were repaired in the last {len(points)} runs.", kind="soft")
    highest = max(1, *(sum(run.counts[status] for status in _ATTENTION) for run in points))
    width = _BAR * len(points)
    chart = _in(
        body,
        "svg",
        viewBox=f"0 0 {width} {_HEIGHT}",
        width=str(width),
        height=str(_HEIGHT),
        role="img",
    )
    _in(chart, "title", f"From {points[0].begun} to {points[-1].begun}; the highest bar is {highest:,} machines")
    for number, run in enumerate(points):
        column, bottom = _in(chart, "g"), float(_HEIGHT)
        _in(column, "title", f"{run.begun}: {_told(run)}")
        for status in _ATTENTION:
            high = run.counts[status] * _HEIGHT / highest
            bottom -= high
            if high:
                where = {
                    "x": str(number * _BAR + 1),
                    "width": str(_BAR - 2),
                    "y": f"{bottom:.2f}",
                    "height": f"{high:.2f}",
                }
                _in(column, "rect", kind=status, **where)
    rows = [
        (run.begun, run.mode, f"{run.total:,}", *(f"{run.counts[status]:,}" for status in STATUSES))
        for run in reversed(points[-_RECENT:])
    ]
    _table(body, ("begun", "mode", "machines", *(_TITLES[status] for status in STATUSES)), rows, "")


def _told(run: Point) -> str:
    return ", ".join(f"{run.counts[status]:,} {_TITLES[status]}" for status in _ATTENTION)


def _persons(body: ET.Element, reported: Mapping[str, Any]) -> None:
    _in(body, "h2", "Needs a person")
    rows = []
    for key, entry in _all(reported):
        needed = _need(entry, reported["held_back"])
        if needed:
            rows.append((_who(key, entry), _TITLES[entry["status"]], *needed))
    _table(body, ("machine", "state", "why", "what to do"), rows, "Nothing needs a person.")


def _need(entry: Mapping[str, Any], held_back: str | None) -> tuple[str, str] | None:
    """Why a person has to look at this one, and what that person can do; `None` where nobody has to."""
    failure, status = entry["failure"] or {}, entry["status"]
    if status == FAILED:
        reference = ", ".join(f"{name} {failure[name]}" for name in ("code", "request_id") if failure.get(name))
        remedy = failure.get("hint") or "Mend the cause; the next run tries again."
        return str(failure.get("message")), f"{remedy} ({reference})" if reference else remedy
    if status == DRIFTED and (entry["held_back"] or held_back):
        remedy = "A later run repairs it once the reason is gone; or repair it in a run of your own."
        return " ".join(sentences(entry)), remedy
    if status == SKIPPED:
        return str(entry["skip_reason"]), "Mend the reason, or take the machine out of the inventory of this run."
    return None


def _drift(body: ET.Element, reported: Mapping[str, Any]) -> None:
    _in(body, "h2", "All drift")
    rows = [
        (
            _who(key, entry),
            _words(step["resource"]),
            step["action"],
            *sides(step),
            "yes" if step["repaired"] else "no",
        )
        for key, entry in _all(reported)
        for step in entry["drift"]
    ]
    _table(
        body, ("machine", "resource", "action", "is or was", "shall be", "repaired"), rows, "No difference was found."
    )


def _all(reported: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Subscriptions, then machines by their name."""
    machines = sorted(reported["machines"].items(), key=lambda item: (str(item[1]["name"]), item[0]))
    return [*reported["subscriptions"].items(), *machines]


def _who(key: str, entry: Mapping[str, Any]) -> str:
    """What the machine or subscription is called. The inventory's names are unique; without one the id says which it is."""
    names = " / ".join(dict.fromkeys(str(name) for name in (entry["host"], entry["name"]) if name))
    return names if entry["host"] else f"{names} ({key})".lstrip()


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(body: ET.Element, heads: Iterable[str], rows: Sequence[Sequence[str]], otherwise: str) -> None:
    if not rows:
        _in(body, "p", otherwise, kind="soft")
        return
    table = _in(body, "table")
    if len(rows) > _ROWS:
        _in(table, "caption", f"The first {_ROWS} of {len(rows):,}; the JSON report has all.")
    line = _in(_in(table, "thead"), "tr")
    for head in heads:
        _in(line, "th", head, scope="col")
    content = _in(table, "tbody")
    for row in rows[:_ROWS]:
        line = _in(content, "tr")
        line.tail = "\n"
        for cell in row:
            _in(line, "td", _cut(cell))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [...]"
