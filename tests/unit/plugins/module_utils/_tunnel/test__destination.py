# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what ssh knows of a machine become the right command?"""

from __future__ import annotations

import pathlib
import shlex

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel import _destination
from ansible_collections.arcfleet.ssh.plugins.module_utils._tunnel._destination import Destination, settle

MACHINE = (
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/Rg(1)"
    "/providers/Microsoft.HybridCompute/machines/web01"
)
HELPER = "/opt/my%%lib/_relay/_start.py"


def config(folder: pathlib.Path, text: str) -> str:
    file = folder / "config"
    file.write_text(text, encoding="utf-8")
    return str(file)


def options(command: list[str]) -> list[str]:
    return [command[number + 1] for number, word in enumerate(command) if word == "-o"]


def test_a_name_is_ssh_s_business(tmp_path: pathlib.Path) -> None:
    file = config(tmp_path, f"Host web01\n  HostName {MACHINE}\n  ProxyCommand none\n")
    found = settle("ada@web01", config=file, user=None, auth={})
    command = found.tunnel([("/run/x/0", "db:5432"), ("/run/x/1", "/run/s")])
    assert (found.name, found.settings["hostname"]) == ("web01", MACHINE.lower())
    assert command[:6] == ["ssh", "-N", "-T", "-F", file, "-l"]
    assert command[-6:] == ["-L", "/run/x/0:db:5432", "-L", "/run/x/1:/run/s", "--", "web01"]
    assert {"ControlMaster=no", "ControlPath=none", "ExitOnForwardFailure=yes"} < set(options(command))
    with pytest.raises(InputError, match="web01: ssh does not reach it through the relay"):
        found.helper("WAC", 6516)


def test_the_helper_for_another_service_has_the_same_login(tmp_path: pathlib.Path) -> None:
    proxy = f"'/opt/my python' {HELPER} --profile 'a b' --resource-id '%h' --port %p --once --certificate c --timeout=9"
    file = config(tmp_path, f"Host web01\n  HostName {MACHINE}\n  Port 2222\n  ProxyCommand {proxy}\n")
    command = settle("web01", config=file, user=None, auth={}).helper("WAC", 6516)
    assert command == [
        *("/opt/my python", "/opt/my%lib/_relay/_start.py", "--profile", "a b", "--resource-id", MACHINE.lower()),
        *("--service", "WAC", "--port", "6516"),
    ]


def test_an_id_that_ssh_does_not_know_gets_our_helper(tmp_path: pathlib.Path) -> None:
    file = config(tmp_path, "User ada\n")
    found = settle(MACHINE, config=file, user=None, auth={"profile": "100% me"})
    assert found.name == "web01"
    given = dict(option.split("=", 1) for option in options(found.tunnel([])))
    assert given["HostKeyAlias"] == MACHINE.lower()
    words = shlex.split(given["ProxyCommand"])
    assert words[1].endswith("/plugins/module_utils/_relay/_start.py")
    assert words[2:] == ["--profile", "100%% me", "--resource-id", MACHINE, "--port", "%p"]
    # ssh takes no host with parentheses.
    assert found.host == MACHINE.replace("(", "_").replace(")", "_")
    assert found.helper("WAC", 1)[2:] == [
        "--profile",
        "100% me",
        "--resource-id",
        MACHINE,
        "--service",
        "WAC",
        "--port",
        "1",
    ]


def test_an_id_keeps_the_login_of_the_configuration(tmp_path: pathlib.Path) -> None:
    proxy = f"python {HELPER} --client-id c --resource-id '%h' --port %p"
    file = config(tmp_path, f"Match host /subscriptions/*/machines/*\n  ProxyCommand {proxy}\n")
    found = settle(MACHINE, config=file, user=None, auth={"profile": "other"})
    given = dict(option.split("=", 1) for option in options(found.tunnel([])))
    assert given["ProxyCommand"] == f"python {HELPER} --client-id c --resource-id '{MACHINE}' --port %p"


def test_an_id_that_ssh_knows_needs_nothing_more(tmp_path: pathlib.Path) -> None:
    plain = MACHINE.replace("Rg(1)", "rg")
    file = config(
        tmp_path,
        f"Match host /subscriptions/*/machines/*\n  ProxyCommand python {HELPER} --resource-id '%h' --port %p\n",
    )
    command = settle(f"ada@{plain}", config=file, user=None, auth={}).tunnel([])
    assert command[-2:] == ["--", plain]
    assert not [option for option in options(command) if option.startswith(("ProxyCommand", "HostKeyAlias"))]


@pytest.mark.parametrize("given", ["", "ada@", "-oProxyCommand=touch", "-l@web01", "/subscriptions/nonsense"])
def test_what_is_no_machine_never_reaches_ssh(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_destination.subprocess, "run", lambda *_given, **_options: pytest.fail("ssh was run"))
    with pytest.raises(InputError):
        settle(given, config=None, user=None, auth={})


def test_a_configuration_with_a_fault_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="(?i)bad configuration option: nonsense"):
        settle("web01", config=config(tmp_path, "Nonsense yes\n"), user=None, auth={})


def test_nothing_of_a_person_s_session_comes_along() -> None:
    command = Destination("web01", "web01", (), {}, ()).tunnel([])
    assert {"PermitLocalCommand=no", "RemoteCommand=none", "ForwardAgent=no", "ForwardX11=no"} < set(options(command))
