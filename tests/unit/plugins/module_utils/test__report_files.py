# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is no report lost, none written by half, and nothing of anybody else's touched?"""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _report_files
from ansible_collections.arcfleet.ssh.plugins.module_utils._drift import report
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError
from ansible_collections.arcfleet.ssh.plugins.module_utils._report_files import History, write

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


def text(begun=NOW):
    return json.dumps(report({}, mode="report", begun=begun.isoformat(), ended=begun.isoformat()))


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "history"


def fill(place, runs, keep=90, step=timedelta(hours=1)):
    """The history after so many runs."""
    for number in range(runs):
        history = History(str(place))
        history.add(text(NOW + number * step), NOW + number * step, keep)
        assert history.warnings == []
    return sorted(os.listdir(place))


def test_a_report_is_its_owners_alone_and_metrics_are_for_everybody(tmp_path):
    path = tmp_path / "drift"
    write(str(path), "a")
    assert (path.read_text(), mode(path)) == ("a", 0o600)
    path.chmod(0o640)
    write(str(path), "b")
    assert (path.read_text(), mode(path)) == ("b", 0o640)
    write(str(path), "c", public=True)
    assert (path.read_text(), mode(path), os.listdir(tmp_path)) == ("c", 0o644, ["drift"])


def test_a_relative_path_is_one_below_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("drift.json", "a")
    assert (tmp_path / "drift.json").read_text() == "a"


@pytest.mark.parametrize("where", ["nowhere/drift.json", "file/drift.json", "folder"])
def test_a_place_that_cannot_be_is_told_and_nothing_is_made(tmp_path, where):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArcError, match=f"cannot be written to {tmp_path / where}: .*untouched"):
        write(str(tmp_path / where), "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and (tmp_path / "file").read_text() == "old"


def test_the_history_is_made_and_grows_by_numbered_files(place):
    assert fill(place, 2) == ["drift-000001-20261121T080000Z.json", "drift-000002-20261121T090000Z.json"]
    assert mode(place) == 0o700 and {mode(path) for path in place.iterdir()} == {0o600}
    assert [found.begun[11:13] for found in History(str(place)).trend(10)] == ["08", "09"]
    assert [found.begun[11:13] for found in History(str(place)).trend(1)] == ["09"]


def test_only_the_last_reports_are_kept(place):
    assert [name[:12] for name in fill(place, 5, keep=2)] == ["drift-000004", "drift-000005"]


def test_a_clock_that_was_set_back_changes_no_order_and_deletes_no_new_report(place):
    names = fill(place, 4, keep=2, step=timedelta(days=-1))
    assert names == ["drift-000003-20261119T080000Z.json", "drift-000004-20261118T080000Z.json"]
    assert [found.begun[8:10] for found in History(str(place)).trend(10)] == ["19", "18"]


def test_a_clock_that_stands_still_overwrites_nothing(place):
    assert len(fill(place, 3, step=timedelta(0))) == 3


def test_numbers_go_on_in_order_when_they_need_another_digit(place):
    place.mkdir()
    (place / "drift-999999-20261121T070000Z.json").write_text(text())
    fill(place, 2, keep=2)
    assert sorted(os.listdir(place)) == ["drift-1000000-20261121T080000Z.json", "drift-1000001-20261121T090000Z.json"]


def test_what_is_not_a_report_is_never_deleted(place):
    place.mkdir()
    foreign = {
        "notes.txt": "mine",
        "drift-1-20261121T080000Z.json": text(),
        "drift-000001-20261121T080000Z.json.bak": text(),
        "drift-000001-20200101T000000Z.json": "not one of ours",
        "drift-000002-20200101T000000Z.json": json.dumps({"format": "other"}),
        ".drift-notes.claim": "",
    }
    for name, content in foreign.items():
        (place / name).write_text(content)
    (place / "drift-000003-20200101T000000Z.json").mkdir()
    for number in range(3):
        History(str(place)).add(text(), NOW + number * timedelta(hours=1), 1)
    left = {path.name: path.read_text() for path in place.iterdir() if path.is_file()}
    assert left.pop("drift-000006-20261121T100000Z.json") == text()
    assert left == foreign and (place / "drift-000003-20200101T000000Z.json").is_dir()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"format": "arcfleet.ssh/dr', "is no JSON"),
        (b"\xff\xfe", "is no text"),
        (b"{}", "is no drift report"),
        (text().replace('"version": 1', '"version": 2').encode(), "is of version 2, not 1"),
    ],
)
def test_a_report_that_was_damaged_is_named_left_out_and_left_alone(place, content, why):
    fill(place, 3)
    damaged = place / "drift-000002-20261121T090000Z.json"
    damaged.write_bytes(content)
    history = History(str(place))
    assert [found.begun[11:13] for found in history.trend(10)] == ["08", "10"]
    history.add(text(), NOW, 1)
    assert history.warnings == [f"{damaged} {why}. It is left alone, and left out of the trend."]
    assert sorted(os.listdir(place)) == [damaged.name, "drift-000004-20261121T080000Z.json"]


def test_two_runs_at_once_write_two_reports(place):
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda number: History(str(place)).add(text(), NOW, 90), range(48)))
    assert len(set(paths)) == 48 and sorted(map(os.path.basename, paths)) == sorted(os.listdir(place))
    assert len({name.split("-")[1] for name in os.listdir(place)}) == 48


def test_a_number_whose_run_was_killed_is_left_out_and_cleared_away_later(place):
    fill(place, 1)
    (place / ".drift-000002.claim").touch()
    assert [name[:13] for name in fill(place, 2, keep=3)][-2:] == ["drift-000003-", "drift-000004-"]
    assert (place / ".drift-000002.claim").exists()
    assert [name[:13] for name in fill(place, 1, keep=2)] == ["drift-000004-", "drift-000005-"]


def test_a_full_disk_loses_nothing_of_the_history(place, monkeypatch):
    before = fill(place, 2)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArcError, match="cannot be added to the history .*: No space left on device. .* untouched"):
        History(str(place)).add(text(), NOW, 1)
    assert sorted(os.listdir(place)) == before


def test_a_report_that_cannot_be_deleted_is_a_warning(place, monkeypatch):
    fill(place, 2)

    def refused(path):
        if "claim" not in path:
            raise PermissionError(1, "Operation not permitted")
        os.remove(path)

    monkeypatch.setattr(_report_files.os, "unlink", refused)
    history = History(str(place))
    assert os.path.exists(history.add(text(), NOW, 1))
    assert history.warnings == [f"Old reports cannot be deleted from the history {place}: Operation not permitted."]


def test_a_history_that_is_a_file_or_has_no_place_is_told(tmp_path):
    (tmp_path / "file").touch()
    for where, why in (("file", "Not a directory"), ("no/where", "No such file or directory")):
        with pytest.raises(ArcError, match=why):
            History(str(tmp_path / where)).add(text(), NOW, 1)
    assert History(str(tmp_path / "none")).trend(5) == [] and os.listdir(tmp_path) == ["file"]
