# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module take hosts as Ansible has them, and keep to itself what it was given?"""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.arcfleet.ssh.plugins.modules import arc_static_inventory


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    logged = []
    monkeypatch.setattr(
        arc_static_inventory.AnsibleModule, "log", lambda self, *given, **more: logged.append((given, more))
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tmp_path.chmod(0o700)

    def call(**options):
        logged.clear()
        with patch_module_args({"path": str(tmp_path / "arc.yml"), **options}), pytest.raises(SystemExit) as ended:
            arc_static_inventory.main()
        said = capsys.readouterr().out
        result = json.loads(said)
        assert bool(ended.value.code) == result.get("failed", False)
        return result, said + repr(logged)

    return call


def test_hosts_are_a_dictionary_or_its_json(run):
    hosts = {"web01": {"a": "{{ x }}"}, "db01": {"b": [1, None]}}
    assert run(hosts=hosts)[0]["changed"]
    assert not run(hosts=json.dumps(hosts))[0]["changed"]
    assert run(hosts={**hosts, "db01": None})[0]["summary"]["updated"] == 1
    assert run(state="absent")[0]["summary"] == {"total": 0, "created": 0, "updated": 0, "deleted": 2, "unchanged": 0}


@pytest.mark.parametrize(
    "options", [{"hosts": {"web01": ["a"]}}, {"hosts": {}, "groups": {"web": "web01"}}], ids=["hosts", "groups"]
)
def test_what_is_neither_is_refused(run, options):
    result, _said = run(**options)
    assert result["failure"]["code"] == "InputError"


def test_a_secret_that_is_refused_is_neither_shown_nor_logged(run):
    result, said = run(hosts={"web01": {"ansible_password": "hunter2"}})
    assert "ansible_password" in result["msg"]
    assert "hunter2" not in said
