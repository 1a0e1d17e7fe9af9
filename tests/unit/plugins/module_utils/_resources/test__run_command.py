# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a run command asked for as Azure takes it, and is its record understood?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._ids import MachineId
from ansible_collections.arcfleet.ssh.plugins.module_utils._resources._run_command import (
    RunCommand,
    check,
    is_leftover,
    json_of,
    obstacle,
    result,
)

WEB01 = MachineId("11111111-2222-3333-4444-555555555555", "rg", "web01")
OPTIONS = {"script": "echo $A", "timeout": 600}
MINE, THEIRS = "0a1b2c3d", "99999999"
NOW = 1_800_000_000.0


def command(**options):
    return RunCommand(WEB01, {**OPTIONS, **options}, MINE, "0123456789abcdef")


def record(state="Succeeded", name=f"arcfleet-{MINE}-0123456789abcdef", provisioning="Succeeded", **view):
    view = {"executionState": state, "exitCode": 0, "output": "", "error": "", **view}
    return {"name": name, "properties": {"provisioningState": provisioning, "instanceView": view}}


def machine(version="1.48.02881.1941", os="linux", status="Connected", **config):
    return {
        "location": "westeurope",
        "properties": {"status": status, "agentVersion": version, "osType": os, "agentConfiguration": config},
    }


def test_the_body_is_azures():
    asked = command(
        parameters={"A": "one", "B": 2, "C": True, "D": None},
        protected_parameters={"T": "secret"},
        arguments=["-x", "y z"],
        run_as_user="joe",
        run_as_password="pw",
    )
    assert asked.body(machine()) == {
        "location": "westeurope",
        "properties": {
            "source": {"script": "echo $A"},
            "asyncExecution": False,
            "timeoutInSeconds": 600,
            "parameters": [
                {"name": "A", "value": "one"},
                {"name": "B", "value": "2"},
                {"name": "C", "value": "true"},
                {"name": "", "value": "-x"},
                {"name": "", "value": "y z"},
            ],
            "protectedParameters": [{"name": "T", "value": "secret"}],
            "runAsUser": "joe",
            "runAsPassword": "pw",
        },
    }
    assert command(script=None, script_uri="https://x/y").body(machine())["properties"]["source"] == {
        "scriptUri": "https://x/y"
    }


def test_the_name_is_short_enough_for_linux():
    assert command().name == "arcfleet-0a1b2c3d-0123456789abcdef" and len(command().name) <= 36


def test_what_is_shown_holds_no_value():
    shown = command(parameters={"A": "one"}, protected_parameters={"T": "secret"}, arguments=["x"]).state()
    assert shown == {
        "source": "script",
        "parameters": ["A", "T"],
        "arguments": 1,
        "run_as_user": None,
        "timeout": 600,
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"script": ""}, "either script or script_uri"),
        ({"script_uri": "https://x/y"}, "either script or script_uri"),
        ({"timeout": 0}, "at least 1"),
        ({"run_as_password": "hunter2"}, "without run_as_user"),
        ({"parameters": {"a b": "hunter2"}}, "'a b'"),
        ({"protected_parameters": {"1a": "hunter2"}}, "'1a'"),
        ({"parameters": {"a": {"b": "hunter2"}}}, "parameters.a is not a text"),
        (
            {"parameters": {"a": 1}, "protected_parameters": {"a": "hunter2"}},
            "both parameters and protected_parameters",
        ),
    ],
)
def test_bad_options_are_told_without_their_values(options, sentence):
    with pytest.raises(InputError) as caught:
        check("web01", {**OPTIONS, **options})
    assert (
        sentence in str(caught.value) and str(caught.value).startswith("web01: ") and "hunter2" not in str(caught.value)
    )


HANDLER = {"publisher": "microsoft.cplat.core", "type": "runcommandhandlerlinux"}


@pytest.mark.parametrize(
    ("record_of_machine", "sentence"),
    [
        (machine(), None),
        (machine(version="1.33.0.0"), None),
        (machine(version=None), None),
        (machine(version="1.32.99.1"), "1.33 or later"),
        (machine(status="Disconnected"), "Disconnected"),
        (machine(configMode="monitor"), "monitor mode"),
        (machine(extensionsEnabled="false"), "extension manager is off"),
        (machine(extensionsBlockList=[HANDLER]), "blocks the extension Microsoft.CPlat.Core/RunCommandHandlerLinux"),
        (machine(os="windows", extensionsBlockList=[HANDLER]), None),
        (machine(extensionsAllowList=[HANDLER]), None),
        (machine(extensionsAllowList=["Microsoft.CPlat.Core/RunCommandHandlerLinux"]), None),
        (machine(extensionsAllowList=["Allow/None"]), "does not allow the extension"),
        (machine(os="windows", extensionsAllowList=[HANDLER]), "RunCommandHandlerWindows"),
    ],
)
def test_obstacles(record_of_machine, sentence):
    found = obstacle(record_of_machine)
    assert found is None if sentence is None else sentence in found


@pytest.mark.parametrize(
    ("state", "provisioning", "ended"),
    [
        ("Succeeded", "Succeeded", "succeeded"),
        ("Failed", "Succeeded", "failed"),
        ("TimedOut", "Failed", "timedout"),
        ("Canceled", "Succeeded", "canceled"),
        ("Running", "Succeeded", None),
        ("Pending", "Creating", None),
        ("Unknown", "Succeeded", None),
        ("Unknown", "Failed", "failed"),
        (None, "Failed", "failed"),
        (None, "Updating", None),
    ],
)
def test_the_state_of_execution_counts(state, provisioning, ended):
    found = result(record(state, provisioning=provisioning))
    assert (found.state if found else None) == ended


def test_a_record_without_a_view():
    assert result({"name": "x"}) is None and result({"properties": {"provisioningState": "Creating"}}) is None


@pytest.mark.parametrize(
    ("view", "code", "sentence"),
    [
        ({"exitCode": 3, "error": "one\ntwo\n\n"}, "ScriptFailed", "web01: the script failed with exit code 3: two."),
        ({"exitCode": 3, "output": "said\n"}, "ScriptFailed", "web01: the script failed with exit code 3: said."),
        (
            {"exitCode": None, "executionMessage": "no disk"},
            "ScriptFailed",
            "web01: the script could not be run: no disk.",
        ),
        ({"exitCode": None}, "ScriptFailed", "web01: the script could not be run."),
    ],
)
def test_failures_are_sentences(view, code, sentence):
    found = result(record("Failed", **view)).failure("web01", 600)
    assert (found.code, found.message) == (code, sentence)


def test_a_script_that_was_stopped():
    late = result(record("TimedOut", exitCode=-1, output="step 1\n")).failure("web01", 60.0)
    assert late.code == "ScriptTimedOut" and "did not end within 60 s, and was stopped: step 1." in late.message
    assert result(record("Canceled", exitCode=None)).failure("web01", 60).code == "ScriptCanceled"


def test_output_is_said_to_be_cut():
    full = result(record(output="x" * 4096, error="ü" * 2047 + "�")).details()
    assert full["output_truncated"] and full["error_truncated"]
    assert not result(record(output="x" * 4000)).details()["output_truncated"]


def test_json():
    assert json_of("web01", result(record(output='noise\n{"changed": false}\n\n'))) == {"changed": False}
    # As PowerShell ends lines, and with characters that are line breaks elsewhere.
    assert json_of("web01", result(record(output='{"a": "b\u2028c\x85d"}\r\n'))) == {"a": "b\u2028c\x85d"}
    for output in ("", "text", "[1]", '{"cut": ', "[" * 4000):
        with pytest.raises(ArcError) as caught:
            json_of("web01", result(record(output=output)))
        assert caught.value.code == "ResultNotJson" and "4 KB only" not in str(caught.value)
    with pytest.raises(ArcError, match="4 KB only"):
        json_of("web01", result(record(output="x" * 4096)))


@pytest.mark.parametrize(
    ("raw", "leftover"),
    [
        (record(), True),
        (record("Failed"), True),
        (record("Running"), False),
        (record(provisioning="Deleting"), False),
        (record(name="customers-own"), False),
        (record(name=f"arcfleet-{THEIRS}-1"), False),
        (record(name=f"arcfleet-{THEIRS}-1", endTime="2027-01-15T07:55:00Z"), False),
        (record(name=f"arcfleet-{THEIRS}-1", endTime="2027-01-15T06:55:00.1234567+00:00"), True),
        (record(name=f"arcfleet-{THEIRS}-1", endTime="2027-01-15T06:55:00.1234567Z"), True),
        (record(name=f"arcfleet-{THEIRS}-1", endTime="yesterday"), False),
    ],
)
def test_leftovers(raw, leftover):
    assert is_leftover(raw, MINE, NOW) is leftover
