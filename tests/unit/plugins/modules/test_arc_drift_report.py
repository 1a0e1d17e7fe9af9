# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module write all that can be written, and say what could not?"""

from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.arcfleet.ssh.plugins.modules import arc_drift_report

SSH = {"service_name": "SSH", "port": 22}
FORMS = {"path": "drift.json", "html": "drift.html", "junit": "drift.xml", "prometheus": "arcfleet.prom"}


def looked(machines=1):
    entry = {"host": None, "action": "create", "before": None, "after": SSH}
    return {
        "service_configuration": [{"machines": {f"/id/{n}": {**entry, "name": f"web{n}"} for n in range(machines)}}]
    }


@pytest.fixture
def run(capsys, monkeypatch):
    told = []
    # Ansible collects warnings for the whole process.
    monkeypatch.setattr(arc_drift_report.AnsibleModule, "warn", lambda self, text, **_more: told.append(text))

    def call(check=False, **options):
        told.clear()
        given = {"findings": looked(), "mode": "report", "begun": 1795248000, "_ansible_check_mode": check, **options}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            arc_drift_report.main()
        result = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == result.get("failed", False)
        return {**result, "told": list(told)}

    return call


@pytest.fixture
def volume(tmp_path):
    """A file system of 128 KiB, and what makes it read-only."""
    place = tmp_path / "volume"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "arcfleet-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(
            "A disk to fill is a file system of its own, which only root may mount, and not in every container."
        )
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def places(directory, **more):
    return {**{option: str(directory / name) for option, name in FORMS.items()}, **more}


def test_every_form_is_written_and_named(run, tmp_path):
    done = run(**places(tmp_path, history=str(tmp_path / "history")))
    (kept,) = (tmp_path / "history").iterdir()
    assert sorted(done["written"]) == sorted([str(kept), *(str(tmp_path / name) for name in FORMS.values())])
    assert done["drift_left"] and done["left"] == {"/id/0": "web0: service configuration is missing."}
    assert "changed" not in done
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {**dict.fromkeys(FORMS.values(), 0o600), "arcfleet.prom": 0o644, "history": 0o700}
    assert json.loads(kept.read_text()) == json.loads((tmp_path / "drift.json").read_text())


def test_the_page_shows_the_runs_that_the_history_knows(run, tmp_path):
    asked = places(tmp_path, history=str(tmp_path / "history"), history_keep=2)
    for _run in range(3):
        assert run(**asked)["told"] == []
    assert "in the last 3 runs" in (tmp_path / "drift.html").read_text()
    oldest = min((tmp_path / "history").iterdir())
    oldest.write_text("{")
    assert run(**asked)["told"] == [f"{oldest} is no JSON. It is left alone, and left out of the trend."]
    assert "in the last 2 runs" in (tmp_path / "drift.html").read_text() and oldest.exists()


def test_a_prediction_writes_nothing(run, tmp_path):
    done = run(check=True, **places(tmp_path, history=str(tmp_path / "history")))
    assert done["written"] == [] and done["drift_left"] and list(tmp_path.iterdir()) == []


def test_what_a_template_makes_of_nothing_is_nothing(run, tmp_path):
    run(**places(tmp_path, html="", junit="", prometheus="", history="", held_back="", runner=""))
    report = json.loads((tmp_path / "drift.json").read_text())
    assert (report["held_back"], report["runner"], os.listdir(tmp_path)) == (None, None, ["drift.json"])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"history_keep": 0}, "history_keep is 0; it is at least 1."),
        ({"html": "{path}"}, "have to be different files"),
        ({"unchanged": {"/id/1": {}}}, "unchanged says of /id/1 no time"),
        ({"findings": {"sshd": "text"}}, "findings holds something that is not a list of results"),
        ({"findings": {"sshd": [{"machines": {"/id/0": {"before": None}}}]}}, "findings holds something that is not"),
        ({"reading": {"mode": "some"}}, "value of mode must be one of: full, ledger"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(run, tmp_path, wrong, why):
    path = str(tmp_path / "drift.json")
    wrong = {name: path if value == "{path}" else value for name, value in wrong.items()}
    assert why in run(path=path, **wrong)["msg"] and list(tmp_path.iterdir()) == []


def test_each_place_that_cannot_be_written_to_is_told_and_the_others_are_written(run, tmp_path):
    (tmp_path / "file").touch()
    done = run(**places(tmp_path, html=str(tmp_path / "no" / "drift.html"), history=str(tmp_path / "file")))
    assert done["failed"] and done["drift_left"] and done["summary"]["drifted"] == 1
    assert f"cannot be written to {tmp_path}/no/drift.html: No such file or directory" in done["msg"]
    assert f"cannot be added to the history {tmp_path}/file: Not a directory" in done["msg"]
    assert [os.path.basename(path) for path in done["written"]] == ["drift.json", "drift.xml", "arcfleet.prom"]


def test_a_full_disk_leaves_what_was_there_and_no_half_file(run, volume, tmp_path):
    run(**places(volume, history=str(volume / "history")))
    before = {path: path.read_bytes() for path in volume.rglob("*") if path.is_file()}
    elsewhere = str(tmp_path / "drift.html")
    done = run(findings=looked(1000), **places(volume, html=elsewhere, history=str(volume / "history"), history_keep=1))
    assert done["failed"] and done["msg"].count("No space left on device") == 3
    assert {os.path.basename(path) for path in done["written"]} == {"drift.html", "arcfleet.prom"}
    after = {path: path.read_bytes() for path in volume.rglob("*") if path.is_file()}
    metrics = volume / "arcfleet.prom"
    assert b'status="drifted"} 1000' in after.pop(metrics) and before.pop(metrics)
    assert after == before


def test_a_volume_that_became_read_only_is_told(run, volume):
    run(**places(volume, history=str(volume / "history")))
    before = {path: path.read_bytes() for path in volume.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    done = run(**places(volume, history=str(volume / "history")))
    assert done["failed"] and done["msg"].count("Read-only file system") == 5 and done["written"] == []
    assert {path: path.read_bytes() for path in volume.rglob("*") if path.is_file()} == before
