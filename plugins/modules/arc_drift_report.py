#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How is the drift of a fleet reported to those who were not there?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_drift_report
short_description: Write what other modules found as a drift report
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Makes one report, with an entry for each machine, of the results of this collection's modules, as JSON and in other forms. Runs on the controller
    and asks Azure nothing.
  - The playbook C(arcfleet.ssh.enforce) uses it; with it, a playbook of your own can report what else it enforces.
  - Each file is written to its place in one piece. Where one cannot be written, all others are written all the same, and the task fails.
  - Files that are new are readable by their owner only, those of O(prometheus) by everybody; a file that is replaced keeps its mode.
options:
  findings:
    description:
      - For each kind of resource that was looked at, the results of the modules that looked, as a list. Those of a task with a loop are its
        C(results).
      - The key is the name under which the report shows the resource, for example V(service_configuration).
    type: dict
    required: true
  looked:
    description:
      - What modules found in check mode before a repair, in the same form as O(findings). What those say of a resource of a machine takes its place.
      - What differs here counts as not repaired.
    type: dict
    default: {}
  mode:
    description:
      - How the modules ran. V(report) is in check mode, so that every difference is drift; V(repair) is for real, so that every
        difference is one that was mended.
    type: str
    choices: [report, repair]
    required: true
  begun:
    description:
      - When the run began, in seconds since 1970.
    type: float
    required: true
  path:
    description:
      - The JSON file to write. Its directory has to exist.
    type: path
    required: true
  html:
    description:
      - The HTML page to write for persons. Its directory has to exist.
      - It needs nothing besides itself, and runs no scripts.
    type: path
  junit:
    description:
      - The JUnit XML file to write for pipelines, with a test case for each machine. Its directory has to exist.
    type: path
  prometheus:
    description:
      - The file to write for the textfile collector of Prometheus' node_exporter, which takes files whose names end in C(.prom). Its directory has to exist.
      - It names no machine, and everybody may read it, because node_exporter runs as a user of its own.
    type: path
  history:
    description:
      - The directory that keeps reports, made with mode 0700 where it is missing; the directory above it has to exist.
      - Each run adds a JSON file with a number that grows and the time, for example C(drift-000042-20261121T080009Z.json). It holds the report
        without the machines in order, which its summary counts.
      - The trend in the O(html) comes from there.
    type: path
  history_keep:
    description:
      - How many reports the O(history) keeps. Older ones are deleted once the new one is there. Files that are not reports stay.
    type: int
    default: 90
  unchanged:
    description:
      - By resource id, machines that were not read in this run because nothing was written to them since they were found in order; dicts with
        C(name), C(host), and C(verified), the time at which they were, in ISO 8601 with its zone.
      - They are reported as in order. What O(findings) says of a machine counts more.
    type: dict
    default: {}
  held_back:
    description:
      - Why this run repaired nothing, or nothing more, for example because too many machines would have changed.
    type: str
  deferred:
    description:
      - By resource id, why this machine was not repaired in this run, for example because it is outside its maintenance window. What differs there
        counts as not repaired, wherever it comes from.
    type: dict
    default: {}
  reading:
    description:
      - How this run chose the machines that it read, for the reader of the report.
    type: dict
    suboptions:
      mode:
        description:
          - V(full) when all machines were to be read, V(ledger) when only those were of which the ledger and the activity log say so.
        type: str
        choices: [full, ledger]
        required: true
      reason:
        description:
          - Why, in words.
        type: str
      read:
        description:
          - How many machines were read.
        type: int
      requests:
        description:
          - How many requests were sent to Azure.
        type: int
  runner:
    description:
      - A name for what ran, such as the job or the controller. It stands in the reports, and becomes the label C(runner) of every Prometheus series,
        by which the series of several fleets differ.
    type: str
  unfinished:
    description:
      - The file that a run leaves behind when it does not come to its end. Before its repair begins, a run writes there what it is about to repair, with this
        option and O(path) the same; nothing else is written then. A report that finds the file tells what had been repaired, and removes it.
    type: path
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
    details:
      - The report is made and returned, but nothing is written.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - The report is what the task is for, not a state of the controller; so it never counts as a change.
  - The shape of the report is a contract. C(format) is V(arcfleet.ssh/drift-report), and C(version) grows whenever a program that
    reads it would have to change. C(docs/drift-report.schema.json) in the collection is its JSON Schema.
"""

EXAMPLES = r"""
- name: Look for drift
  arcfleet.ssh.arc_ssh_service_config:
    machines: "{{ hostvars | arcfleet.ssh.fleet(ansible_play_batch) }}"
    max_fail_percentage: 100
  check_mode: true
  register: looked
  delegate_to: localhost
  run_once: true

- name: Report it
  arcfleet.ssh.arc_drift_report:
    findings:
      service_configuration: ["{{ looked }}"]
    mode: report
    begun: "{{ begun }}"
    path: /var/lib/arcfleet/drift.json
  delegate_to: localhost
  run_once: true

- name: Report it to persons, a pipeline and Prometheus as well, and keep the reports of a month of hourly runs
  arcfleet.ssh.arc_drift_report:
    findings:
      service_configuration: ["{{ looked }}"]
    mode: report
    begun: "{{ begun }}"
    path: /var/lib/arcfleet/drift.json
    html: /var/lib/arcfleet/drift.html
    junit: /var/lib/arcfleet/drift.xml
    prometheus: /var/lib/node_exporter/textfile/arcfleet.prom
    history: /var/lib/arcfleet/history
    history_keep: 720
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The JSON file that was asked for.
  returned: always
  type: str
written:
  description: The files that were written, that of the history among them; none in check mode.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/arcfleet/drift.json, /var/lib/arcfleet/history/drift-000042-20261121T080009Z.json]
summary:
  description: How many machines there were, and in which state.
  returned: always
  type: dict
  sample: {total: 100, in_order: 97, drifted: 2, repaired: 0, failed: 1, skipped: 0}
drift_left:
  description: Whether anything is not what it shall be, machines or else.
  returned: always
  type: bool
left:
  description: For each machine that is not what it shall be, by its name in the inventory (else its id), what is the matter.
  returned: always
  type: dict
  sample: {web01: "web01: service configuration is missing."}
problems:
  description: What failed and belongs to no machine, such as a login or the registration in a subscription.
  returned: always
  type: list
  elements: str
"""

import datetime
import json
import os
from collections.abc import Callable
from functools import partial

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import REPAIR, REPORT, left, report, unsettled
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._report_files import History, unfinished, write
from ansible_collections.arcfleet.ssh.plugins.module_utils._reports import _html, _junit, _prometheus
from ansible_collections.arcfleet.ssh.plugins.module_utils._reports._trend import remembered

READING = {
    "mode": {"type": "str", "choices": ["full", "ledger"], "required": True},
    "reason": {"type": "str"},
    "read": {"type": "int"},
    "requests": {"type": "int"},
}

# How many runs the trend shows.
RUNS = 60


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "findings": {"type": "dict", "required": True},
            "looked": {"type": "dict", "default": {}},
            "mode": {"type": "str", "choices": [REPORT, REPAIR], "required": True},
            "begun": {"type": "float", "required": True},
            "path": {"type": "path", "required": True},
            "html": {"type": "path"},
            "junit": {"type": "path"},
            "prometheus": {"type": "path"},
            "history": {"type": "path"},
            "history_keep": {"type": "int", "default": 90},
            "unchanged": {"type": "dict", "default": {}},
            "held_back": {"type": "str"},
            "deferred": {"type": "dict", "default": {}},
            "reading": {"type": "dict", "options": READING},
            "runner": {"type": "str"},
            "unfinished": {"type": "path"},
        },
        supports_check_mode=True,
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    before = recalled(module)
    try:
        made = made_of(module.params, now, before)
    except ArcError as exc:
        module.fail_json(msg=str(exc))
    written, trouble = ([], []) if module.check_mode else publish(module, made, now, before)
    told = {key: made[key] for key in ("summary", "drift_left", "problems")}
    result = {"path": module.params["path"], "written": written, "left": left(made), **told}
    if trouble:
        module.fail_json(msg=" ".join(trouble), **result)
    module.exit_json(**result)


def recalled(module: AnsibleModule) -> dict | None:
    """The report with which a run began that did not come to its end."""
    params = module.params
    if not params["unfinished"]:
        return None
    last = History(params["history"]).last() if params["history"] else params["path"]
    found, warning = unfinished(params["unfinished"], last)
    if warning:
        module.warn(warning)
    return found


def made_of(params: dict, now: datetime.datetime, before: dict | None) -> dict:
    """The report that the options describe. Raises InputError for options that cannot be."""
    if params["history_keep"] < 1:
        raise InputError(f"history_keep is {params['history_keep']}; it is at least 1.")
    places = [params[form] for form in ("path", "html", "junit", "prometheus") if params[form]]
    if len(set(places)) < len(places):
        raise InputError("path, html, junit and prometheus have to be different files.")
    begun = datetime.datetime.fromtimestamp(params["begun"], datetime.timezone.utc)
    try:
        return report(
            params["findings"],
            mode=params["mode"],
            begun=begun.isoformat(timespec="seconds"),
            ended=now.isoformat(timespec="seconds"),
            looked=params["looked"],
            unchanged=params["unchanged"],
            # What a template makes of nothing is an empty text.
            held_back=params["held_back"] or None,
            deferred=params["deferred"],
            reading=params["reading"],
            runner=params["runner"] or None,
            unfinished=before,
        )
    except (AttributeError, KeyError, TypeError) as exc:
        raise InputError(
            f"findings holds something that is not a list of results of this collection's modules: {exc}"
        ) from exc


def publish(module: AnsibleModule, made: dict, now: datetime.datetime, before: dict | None) -> tuple:
    """Write what can be written of what was asked for, what programs rely on first: what was written, and what went wrong."""
    params, written, trouble = module.params, [], []
    history = History(params["history"]) if params["history"] else None
    earlier = history.trend(RUNS - 1) if history else []
    left_over = unsettled(made, before) if before else {}
    # What a run begins with is no report of it yet.
    begins = params["unfinished"] == params["path"]
    if begins:
        made = {**made, **{kind: {**made[kind], **entries} for kind, entries in left_over.items()}}
    work = [partial(as_file, params["path"], as_json, made)]
    if history and not begins:
        work.append(partial(history.add, as_json(remembered(made)), now, params["history_keep"]))
    forms = {"html": partial(_html.render, earlier=earlier), "junit": _junit.render, "prometheus": _prometheus.render}
    work += [
        partial(as_file, params[name], form, made, public=name == "prometheus")
        for name, form in forms.items()
        if params[name] and not begins
    ]
    for step in work:
        try:
            written.append(step())
        except ArcError as exc:
            trouble.append(str(exc))
    for warning in history.warnings if history else ():
        module.warn(warning)
    if before and not trouble and not begins:
        try:
            settle(params["unfinished"], before, left_over)
        except ArcError as exc:
            trouble.append(str(exc))
    return written, trouble


def settle(path: str, before: dict, left_over: dict) -> None:
    """Forget what has been told of a run that did not come to its end."""
    if any(left_over.values()):
        write(path, as_json({**before, **left_over}))
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise ArcError(
            f"{path} cannot be removed: {exc.strerror}.", hint="Remove it, or the next report tells the same again."
        ) from exc


def as_file(path: str, form: Callable[[dict], str], made: dict, *, public: bool = False) -> str:
    """Write the report to `path` in a form; the path."""
    write(path, form(made), public=public)
    return path


def as_json(made: dict) -> str:
    """The report as programs read it."""
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
