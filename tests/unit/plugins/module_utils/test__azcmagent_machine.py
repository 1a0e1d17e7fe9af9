# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the agent run as it has to be, and is the SSH session found that a process belongs to?"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._azcmagent import AgentError, Change
from ansible_collections.arcfleet.ssh.plugins.module_utils._azcmagent_machine import (
    Azcmagent,
    detached,
    run_program,
    ssh_connection,
)

LIST = "Local Configuration Settings\n  config.mode : full\n"


class Script:
    """Answers to commands, by their words; what has none is an unknown flag."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, command):
        self.asked.append(" ".join(command[1:]))
        return self.answers.get(self.asked[-1], (23, "FATAL   AZCM0023: unknown flag\n", ""))


def test_settings_come_from_json_where_there_is_json():
    script = Script(
        {"config list -j --no-color --log-stderr": (0, '{"localsettings":[{"key":"a.b","value":1}]}', "WARN x.y: 2")}
    )
    assert Azcmagent(run=script).settings() == {"a.b": 1}
    assert len(script.asked) == 1


def test_an_old_agent_is_asked_for_text():
    script = Script({"config list": (0, LIST, "")})
    assert Azcmagent(run=script).settings() == {"config.mode": "full"}


def test_json_that_cannot_be_read_is_no_end():
    script = Script({"config list -j --no-color --log-stderr": (0, "{", ""), "config list": (0, LIST, "")})
    assert Azcmagent(run=script).settings() == {"config.mode": "full"}


def test_a_list_that_fails_is_a_sentence():
    down = (70, "FATAL   AZCM0070: no himds\n", "")
    script = Script({"config list -j --no-color --log-stderr": down, "config list": down})
    with pytest.raises(AgentError, match=r"status 70.*no himds") as caught:
        Azcmagent(run=script).settings()
    assert "systemctl restart himdsd" in caught.value.hint


def test_a_list_that_says_nothing_is_a_sentence():
    with pytest.raises(AgentError, match="printed no settings"):
        Azcmagent(run=Script({"config list": (0, "\n", "")})).settings()


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("show -j --no-color --log-stderr", '{"agentVersion": "1.67.1"}'),
        ("show -j", '{"AgentVersion": "1.67.1"}'),
        ("show", "Agent Version : 1.67.1\n"),
    ],
)
def test_facts_come_from_whatever_the_agent_has(words, output):
    assert Azcmagent(run=Script({words: (0, output, "")})).facts()["version"] == "1.67.1"


def test_facts_without_a_version_are_facts():
    assert Azcmagent(run=Script({"show": (0, "Resource Name : web01\n", "")})).facts()["name"] == "web01"
    with pytest.raises(AgentError, match="status 23"):
        Azcmagent(run=Script({})).facts()


def test_a_command_that_fails_is_a_sentence():
    script = Script({"config set a.b c --add": (0, "", "")})
    Azcmagent(run=script).change(("config", "set", "a.b", "c", "--add"))
    with pytest.raises(AgentError, match="`azcmagent config set a.b c` ended with status 23"):
        Azcmagent(run=script).change(("config", "set", "a.b", "c"))


def test_what_was_set_is_read_again():
    script = Script({"config list": (0, LIST, ""), "config get new.switch": (0, "true\n", "")})
    agent = Azcmagent(run=script)
    assert agent.check([Change("new.switch", False, True, ())])["new.switch"] is True
    with pytest.raises(AgentError, match="took config.mode = 'monitor', but it is 'full'"):
        agent.check([Change("config.mode", "full", "monitor", ())])


# ---- programs


def test_a_program_gets_no_input_and_no_language(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run_program(["/bin/sh", "-c", 'cat; echo "$LC_ALL"; echo err >&2; exit 5']) == (5, "C\n", "err\n")


def test_a_program_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(AgentError, match="there is no") as caught:
        run_program([str(tmp_path / "azcmagent"), "show"])
    assert "Azure Arc" in caught.value.hint
    (tmp_path / "azcmagent").write_text("")
    with pytest.raises(AgentError, match="cannot be run: Permission denied"):
        run_program([str(tmp_path / "azcmagent"), "show"])


def test_what_ends_the_connection_happens_later_and_alone(tmp_path):
    marker = tmp_path / "done"

    def run(command):
        marker.write_text(f"{os.getpid()} {os.getsid(0)} {' '.join(command)}")
        return 0, "", ""

    begun = time.monotonic()
    Azcmagent("/x", run).change_later(
        [Change("config.mode", "full", "monitor", (("config", "set", "config.mode", "monitor"),))], 0.1
    )
    assert time.monotonic() - begun < 0.1
    assert not marker.exists()
    while not marker.exists() and time.monotonic() - begun < 5:
        time.sleep(0.02)
    process, session, *command = marker.read_text().split()
    assert int(process) != os.getpid()
    assert int(session) != os.getsid(0)
    assert command == ["/x", "config", "set", "config.mode", "monitor"]


# ---- the session


def process(proc: pathlib.Path, pid: int, parent: int, environment: str) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "environ").write_text(environment)
    (folder / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1 0")


def test_the_session_is_found_above_sudo(tmp_path):
    process(tmp_path, os.getpid(), 70, "SUDO_USER=u\0PATH=/bin\0")
    process(tmp_path, 70, 60, "")
    process(tmp_path, 60, 1, "HOME=/h\0SSH_CONNECTION=127.0.0.1 5 127.0.0.1 22\0")
    assert ssh_connection(str(tmp_path)) == "127.0.0.1 5 127.0.0.1 22"


def test_the_nearest_session_counts(tmp_path):
    process(tmp_path, os.getpid(), 60, "SSH_CONNECTION=10.0.0.1 5 10.0.0.2 22\0")
    process(tmp_path, 60, 1, "SSH_CONNECTION=127.0.0.1 5 127.0.0.1 22\0")
    assert ssh_connection(str(tmp_path)) == "10.0.0.1 5 10.0.0.2 22"


def test_without_a_session_there_is_none(tmp_path):
    process(tmp_path, os.getpid(), 60, "PATH=/bin\0")
    assert ssh_connection(str(tmp_path)) is None
    process(tmp_path, 60, 1, "PATH=/bin\0")
    assert ssh_connection(str(tmp_path)) is None


def test_a_session_through_arc_is_ours_if_none_is_known_to_be(tmp_path):
    process(tmp_path, os.getpid(), 1, "PATH=/bin\0")
    process(tmp_path, 80, 1, "SSH_CONNECTION=10.0.0.1 5 10.0.0.2 22\0")
    assert ssh_connection(str(tmp_path)) is None
    process(tmp_path, 81, 1, "SSH_CONNECTION=127.0.0.1 5 127.0.0.1 2222\0")
    assert ssh_connection(str(tmp_path)) == "127.0.0.1 5 127.0.0.1 2222"


def test_a_real_process_finds_its_session(tmp_path):
    package = pathlib.Path(run_program.__code__.co_filename).parents[1]
    (tmp_path / "child.py").write_text(
        f"import sys\nsys.path.insert(0, {str(package)!r})\n"
        "from module_utils._azcmagent_machine import ssh_connection\nprint(ssh_connection())\n"
    )
    found = subprocess.run(
        ["/bin/sh", "-c", 'env -i "$1" "$2"; true', "sh", sys.executable, str(tmp_path / "child.py")],
        env={**os.environ, "SSH_CONNECTION": "127.0.0.1 5 127.0.0.1 2222"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "127.0.0.1 5 127.0.0.1 2222\n"


def test_an_asynchronous_task_is_told_by_its_environment():
    assert detached({"ANSIBLE_ASYNC_DIR": "~/.ansible_async"})
    assert not detached({})
