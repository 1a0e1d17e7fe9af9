# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the ledger believed only where it is whole, and lost by nothing that goes wrong?"""

from __future__ import annotations

import concurrent.futures
import errno
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ledger import Entry, Ledger
from ansible_collections.arcfleet.ssh.plugins.module_utils._ledger_files import amend, load, note

CLOUD = "https://management.azure.com"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SUB = "11111111-2222-3333-4444-555555555555"
SSH = {"service_name": "SSH", "port": 22}
FAILURE = {"code": "X", "message": "m2: no.", "status": 500, "request_id": None, "hint": None}


def key(number):
    return f"/subscriptions/{SUB}/resourcegroups/rg/providers/microsoft.hybridcompute/machines/m{number}"


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "state" / "ledger.json"


def entry(number, action="none", **more):
    before = None if action == "create" else SSH
    return {"name": f"m{number}", "host": f"m{number}", "action": action, "before": before, "after": SSH, **more}


def params(path, *entries, at=NOW, **more):
    """What the module arc_ledger is told of a run that found these entries."""
    look = {
        "at": at.isoformat(),
        "cloud": CLOUD,
        "full_every": 86400,
        "logs": {SUB: True},
        "written": [],
        "desired": {key(number): f"digest{number}" for number in range(5)},
    }
    findings = {"service_configuration": [{"machines": {key(int(found["name"][1:])): found for found in entries}}]}
    return {
        "path": str(path),
        "look": look,
        "findings": findings,
        "looked": {},
        "mode": "report",
        "visited": [],
        **more,
    }


def test_what_is_in_order_is_noted_and_nothing_else(path):
    found = entry(1), entry(2, failure=FAILURE), entry(3, "create")
    assert note(params(path, *found), write=True) == (1, 1)
    ledger, trouble = load(str(path), CLOUD)
    assert (set(ledger.machines), trouble) == ({key(1)}, None)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


def test_a_machine_that_was_repaired_is_noted_and_one_that_was_only_looked_at_is_not(path):
    looked = {"service_configuration": [{"machines": {key(1): entry(1, "create"), key(2): entry(2, "create")}}]}
    assert note(params(path, entry(1, "create"), looked=looked, mode="repair"), write=True) == (1, 1)
    assert set(load(str(path), CLOUD)[0].machines) == {key(1)}


def test_what_belongs_to_no_machine_may_have_kept_all_from_being_looked_at(path):
    given = params(path, entry(1))
    given["findings"]["extension"] = [{"failed": True, "msg": "No login."}]
    assert note(given, write=True) == (0, 0)


def test_a_prediction_writes_nothing(path):
    assert note(params(path, entry(1)), write=False) == (1, 1)
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_ledger_that_cannot_be_written_is_told_and_the_old_one_stays(path, monkeypatch, number):
    note(params(path, entry(1)), write=True)
    before = path.read_bytes()

    def fail(*_arguments):
        raise OSError(number, "It cannot be")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(InputError, match="What was there before is untouched") as told:
        note(params(path, entry(2)), write=True)
    assert str(path) in told.value.message and told.value.hint
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == [".ledger.json.lock", "ledger.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00" * 100])
def test_what_is_no_ledger_is_an_empty_one_with_a_reason_and_is_replaced(path, text):
    path.parent.mkdir(mode=0o700)
    path.write_text(text)
    ledger, trouble = load(str(path), CLOUD)
    assert ledger == Ledger() and "Every machine is read." in trouble
    assert note(params(path, entry(1)), write=True) == (1, 1)
    assert load(str(path), CLOUD)[1] is None


def test_what_is_not_the_result_of_a_module_is_refused(path):
    with pytest.raises(InputError, match="not what other modules"):
        note({**params(path, entry(1)), "look": {"at": "yesterday"}}, write=True)
    assert not path.exists()


def test_runs_at_once_lose_nothing_of_each_other(path):
    def add(number):
        moment = NOW + timedelta(seconds=number)
        amend(str(path), CLOUD, lambda old: Ledger({**old.machines, key(number): Entry("d", moment)}, {}, {}))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert set(load(str(path), CLOUD)[0].machines) == {key(number) for number in range(40)}


def test_a_directory_that_others_may_write_to_is_refused(path):
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(InputError, match="others may write"):
        load(str(path), CLOUD)
    assert not list(path.parent.iterdir())
