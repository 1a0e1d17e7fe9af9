# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the PowerShell of this project well formed, and does it keep to the rules?

No PowerShell runs here, so a real grammar reads it: what is no PowerShell is found, and what a person would mistype (a name of a command,
of a parameter, of a variable) is looked up in tables from the documentation of Windows PowerShell 5.1.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest
import tree_sitter
import tree_sitter_powershell
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "arc_sshd"
SCRIPT = ROLE / "files" / "bootstrap.ps1"
HOST_KEYS = ROOT / "roles" / "arc_connection" / "files" / "host_keys.ps1"
BOTH = pytest.mark.parametrize("script", [SCRIPT, HOST_KEYS], ids=["bootstrap", "host keys"])
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))

# The commands of Windows PowerShell 5.1 and its modules that the script may use, with those of their parameters that it may use.
COMMANDS = {
    "Add-WindowsCapability": "Online Name Source LimitAccess",
    "ConvertTo-Json": "InputObject Compress Depth",
    "Copy-Item": "LiteralPath Destination Force",
    "Disable-NetFirewallRule": "Name",
    "ForEach-Object": "Process",
    "Get-Acl": "LiteralPath",
    "Get-ChildItem": "LiteralPath Filter",
    "Get-CimInstance": "ClassName Filter",
    "Get-Date": "",
    "Get-Item": "LiteralPath",
    "Get-ItemProperty": "LiteralPath",
    "Get-NetFirewallRule": "Name ErrorAction",
    "Get-NetTCPConnection": "State ErrorAction",
    "Get-Process": "Name ErrorAction",
    "Get-Service": "Name",
    "Join-Path": "Path ChildPath",
    "Move-Item": "LiteralPath Destination",
    "New-Item": "Path ItemType",
    "New-ItemProperty": "LiteralPath Name Value PropertyType",
    "New-Object": "TypeName ArgumentList",
    "New-ScheduledTaskAction": "Execute Argument",
    "New-ScheduledTaskPrincipal": "UserId LogonType RunLevel",
    "New-ScheduledTaskSettingsSet": "StartWhenAvailable AllowStartIfOnBatteries DontStopIfGoingOnBatteries",
    "New-ScheduledTaskTrigger": "Once At",
    "Register-ScheduledTask": "TaskName Description Action Trigger Settings Principal Force",
    "Remove-Item": "LiteralPath Force Recurse",
    "Restart-Service": "Name Force",
    "Select-Object": "First",
    "Set-Acl": "LiteralPath AclObject",
    "Set-Service": "Name StartupType",
    "Set-StrictMode": "Version",
    "Sort-Object": "Property",
    "Split-Path": "Path Parent",
    "Start-Service": "Name",
    "Start-Sleep": "Milliseconds",
    "Test-Path": "LiteralPath PathType Path",
    "Unregister-ScheduledTask": "TaskName Confirm ErrorAction",
    "Where-Object": "FilterScript",
}
AUTOMATIC = {"_", "true", "false", "null", "matches", "lastexitcode", "pscmdlet", "erroractionpreference", "ansible"}
# Names of accounts and groups, which Windows translates. SIDs and the short forms of SDDL are the same everywhere.
TRANSLATED = r"(?i)\b(?:BUILTIN|NT AUTHORITY|Authenticated Users|Everyone|LOCAL SYSTEM)\b|\bAdministrators?\\|\\Administrators?\b"


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def text(node: tree_sitter.Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode()


def tree(script: pathlib.Path = SCRIPT) -> tree_sitter.Node:
    return PARSER.parse(script.read_bytes()).root_node


def of_type(root: tree_sitter.Node, *types: str) -> list[tree_sitter.Node]:
    return [node for node in nodes(root) if node.type in types]


def parameters(root: tree_sitter.Node) -> dict[str, set[str]]:
    """The parameters that each function of the script takes; those of the script itself under the empty name."""
    found: dict[str, set[str]] = {}
    for block in of_type(root, "param_block"):
        owner = block.parent
        while owner is not None and owner.type not in {"function_statement", "program", "script_block_expression"}:
            owner = owner.parent
        if owner is None or owner.type == "script_block_expression":
            continue
        name = text(of_type(owner, "function_name")[0]) if owner.type == "function_statement" else ""
        found[name] = {
            text(child).lstrip("$")
            for parameter in of_type(block, "script_parameter")
            for child in parameter.children
            if child.type == "variable"
        }
    return found


def actions() -> set[str]:
    listed = re.search(r"ValidateSet\(([^)]*)\)", SCRIPT.read_text(encoding="utf-8"))
    assert listed is not None
    return set(re.findall(r"'(\w+)'", listed[1]))


def script_tasks() -> list[dict[str, object]]:
    """The role's tasks that run a script."""

    def inside(task: dict[str, object]) -> Iterator[dict[str, object]]:
        yield task
        for part in ("block", "rescue", "always"):
            for child in task.get(part, []):  # type: ignore[attr-defined]
                yield from inside(child)

    files = sorted(ROLE.glob("tasks/windows*.yml"))
    tasks = [one for file in files for task in yaml.safe_load(file.read_text(encoding="utf-8")) for one in inside(task)]
    return [task["ansible.windows.win_powershell"] for task in tasks if "ansible.windows.win_powershell" in task]  # type: ignore[misc]


@pytest.mark.parametrize("broken", [b"if ($x { 'a' }", b"function { }", b"$x = @{ one = }", b"foreach ($a $b) { }"])
def test_the_grammar_finds_what_is_no_powershell(broken: bytes) -> None:
    assert PARSER.parse(broken).root_node.has_error


@BOTH
def test_the_script_is_well_formed(script: pathlib.Path) -> None:
    wrong = [(node.start_point, text(node)[:80]) for node in nodes(tree(script)) if node.is_error or node.is_missing]
    assert not wrong


@BOTH
def test_the_script_is_ascii_without_mark_so_that_every_code_page_reads_the_same(script: pathlib.Path) -> None:
    assert script.read_bytes().isascii()
    assert b"\r" not in script.read_bytes()


@BOTH
def test_it_calls_only_commands_and_parameters_that_exist(script: pathlib.Path) -> None:
    root = tree(script)
    own = parameters(root)
    functions = {text(node) for node in of_type(root, "function_name")}
    wrong = []
    called = set()
    for command in of_type(root, "command"):
        name = text(next((child for child in command.children if child.type == "command_name"), None))
        if not name or re.fullmatch(r"\d+\.\.\d+", name):
            continue
        called.add(name)
        known = own.get(name, set()) if name in functions else set(COMMANDS.get(name, "").split())
        if name not in functions and name not in COMMANDS:
            wrong.append(name)
        elements = [child for child in command.children if child.type == "command_elements"]
        for element in elements:
            for child in element.children:
                given = text(child).lstrip("-").split(":")[0]
                if child.type == "command_parameter" and given not in known:
                    wrong.append(f"{name} -{given}")
    assert not wrong
    assert functions <= called, f"never called: {functions - called}"


def test_it_reads_no_variable_that_nothing_sets() -> None:
    root = tree()
    given = {name.lower() for names in parameters(root).values() for name in names} | AUTOMATIC
    given |= {
        text(child).lstrip("$").lower()
        for node in of_type(root, "script_parameter")
        for child in node.children
        if child.type == "variable"
    }
    for node in of_type(root, "left_assignment_expression", "foreach_statement"):
        given |= {text(variable).lstrip("$").lower() for variable in of_type(node, "variable")[:1]}
    used = {text(node).lstrip("$@").strip("{}").lower() for node in of_type(root, "variable")}
    assert {name for name in used if not name.startswith("env:")} <= given


def test_nothing_is_made_from_text_and_run() -> None:
    root = tree()
    words = {text(node).lower() for node in of_type(root, "command_name", "type_identifier", "command_parameter")}
    assert not words & {
        "invoke-expression",
        "iex",
        "invoke-command",
        "start-process",
        "add-type",
        "scriptblock",
        "-encodedcommand",
        "-command",
        "cmd",
        "cmd.exe",
        "powershell.exe",
        "invoke-webrequest",
        "invoke-restmethod",
    }
    # The one program that is called by a variable is sshd.exe, with its arguments as a list.
    called = [
        text(node).strip()
        for node in of_type(root, "command")
        if node.children[0].type == "command_invokation_operator"
    ]
    assert called == ["& $Path $ArgumentList 2>&1"]


def test_accounts_are_named_by_sid() -> None:
    strings = [text(node) for node in of_type(tree(), "string_literal")]
    assert not [string for string in strings if re.search(TRANSLATED, string)]
    # The keys of administrators are for administrators and the system, and nobody inherits anything.
    assert "'O:BAD:PAI(A;;FA;;;SY)(A;;FA;;;BA)'" in strings


def test_the_tasks_run_this_script_with_what_it_takes() -> None:
    takes = parameters(tree())[""]
    tasks = script_tasks()
    assert len(tasks) >= 6
    for task in tasks:
        assert task["path"] == SCRIPT.name
        assert task["error_action"] == "stop"
        given = task["parameters"]
        assert isinstance(given, dict)
        assert set(given) <= takes
        assert given["Action"] in actions()
    # Run by the scheduled task and by the run command.
    assert {task["parameters"]["Action"] for task in tasks} | {"bootstrap", "revert"} == actions()  # type: ignore[index]


def test_the_tasks_read_what_the_script_tells_and_the_model_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "integration")
    import windows_machine

    function = next(
        node for node in of_type(tree(), "function_statement") if text(of_type(node, "function_name")[0]) == "Get-State"
    )
    table = next(node for node in of_type(function, "hash_literal_expression"))
    told = {text(of_type(entry, "key_expression")[0]) for entry in of_type(table, "hash_entry")}
    sources = [*ROLE.glob("tasks/windows*.yml"), *ROLE.glob("templates/windows*.j2"), ROLE / "vars" / "windows.yml"]
    read = {
        name for file in sources for name in re.findall(r"__arc_sshd_windows\.(\w+)", file.read_text(encoding="utf-8"))
    }
    assert read
    assert read <= told
    assert set(windows_machine.look(windows_machine.machine())) == told
    # Jinja takes `.keys` and its like for the methods of a dictionary.
    assert not {name for name in told if hasattr({}, name)}


def test_the_report_has_the_keys_of_the_contract() -> None:
    function = next(
        node
        for node in of_type(tree(), "function_statement")
        if text(of_type(node, "function_name")[0]) == "Write-Report"
    )
    tables = [
        {text(of_type(entry, "key_expression")[0]) for entry in of_type(table, "hash_entry")}
        for table in of_type(function, "hash_literal_expression")
    ]
    assert {"arcfleet", "changed", "port", "listeners", "host_keys", "version", "problem"} in tables


def test_every_step_but_looking_asks_before_it_changes() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    steps = source[source.index("if ($Action -eq 'look')") :]
    for action in sorted(actions() - {"bootstrap", "look"}):
        step = steps[steps.index(f"$Action -eq '{action}'") :].split("\nelseif", 1)[0]
        assert "$PSCmdlet.ShouldProcess(" in step, action
