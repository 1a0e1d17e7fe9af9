# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rules does this house have that no linter knows?

Roles describe their arguments, the action group is complete, files carry their licence, Python files begin with a question, nothing
that ships knows the lab, and the artifact holds what it should and nothing else. Each check returns sentences; none is good.
"""

from __future__ import annotations

import ast
import fnmatch
import pathlib
import tarfile
from collections.abc import Iterable, Iterator

import yaml

SHIPPED = ("meta/", "playbooks/", "plugins/", "roles/")
ARTIFACT = {"CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "requirements.txt"}
ARTIFACT_FOLDERS = {"changelogs", "docs", "extensions", "meta", "playbooks", "plugins", "roles"}
CARRY_NO_LICENCE = (
    "LICENSE",
    "changelogs/changelog.yaml",
    ".gitignore",
    "*.json",
    "*.md",
    "*.pem",
    "*.pub",
    "*.svg",
    "*.png",
)
# The modules that run on a machine, with the Python that there is; all others run on the controller.
ON_MACHINES = ("arc_agent_config", "arc_entra_login_info", "arc_sshd_config")
GROUP_FRAGMENT = "arcfleet.ssh._attributes.actiongroup_arc"


def house(root: pathlib.Path, files: list[str]) -> list[str]:
    """All checks of the tree; `files` are paths relative to `root`."""
    return [
        *role_arguments(root),
        *action_group(root),
        *licences(root, files),
        *questions(root, files),
        *lab_stays_home(root, files),
        *old_pythons(root),
        *no_ignore_files(files),
    ]


def role_arguments(root: pathlib.Path) -> Iterator[str]:
    """Every role has argument specs with a `main`, and every default is one of the arguments."""
    for role in sorted(path for path in (root / "roles").iterdir() if path.is_dir()):
        specs = role / "meta" / "argument_specs.yml"
        entries = (yaml.safe_load(specs.read_text("utf-8")) or {}).get("argument_specs", {}) if specs.is_file() else {}
        if "main" not in entries:
            yield f"role {role.name}: meta/argument_specs.yml has no entry point `main`"
        described = {option for entry in entries.values() for option in entry.get("options", {})}
        defaults = role / "defaults" / "main.yml"
        given = (yaml.safe_load(defaults.read_text("utf-8")) or {}) if defaults.is_file() else {}
        for name in sorted(set(given) - described):
            yield f"role {role.name}: the default {name} is not described in meta/argument_specs.yml"


def action_group(root: pathlib.Path) -> Iterator[str]:
    """A module is in the action group `arc` exactly if its documentation says so."""
    runtime = yaml.safe_load((root / "meta" / "runtime.yml").read_text("utf-8"))
    listed = set(runtime["action_groups"]["arc"])
    modules = (root / "plugins" / "modules").glob("*.py")
    documented = {path.stem for path in modules if GROUP_FRAGMENT in path.read_text("utf-8")}
    for name in sorted(listed - documented):
        yield f"module {name}: in the action group `arc` of meta/runtime.yml, but not documented as such"
    for name in sorted(documented - listed):
        yield f"module {name}: documented as part of the action group `arc`, but not in meta/runtime.yml"


def licences(root: pathlib.Path, files: Iterable[str]) -> Iterator[str]:
    """Every file that can hold a comment names its licence near the top."""
    for name in files:
        content = (root / name).read_bytes()
        exempt = not content or any(fnmatch.fnmatch(name, pattern) for pattern in CARRY_NO_LICENCE)
        if not exempt and b"SPDX-License-Identifier:" not in content[:1000]:
            yield f"{name}: no SPDX-License-Identifier"


def questions(root: pathlib.Path, files: Iterable[str]) -> Iterator[str]:
    """The first line of a Python file's docstring is the question that the file answers."""
    for name in files:
        content = (root / name).read_text("utf-8") if name.endswith(".py") else ""
        if not content:
            continue
        if not (ast.get_docstring(ast.parse(content)) or "").partition("\n")[0].endswith("?"):
            yield f"{name}: its docstring does not begin with a question"


def lab_stays_home(root: pathlib.Path, files: Iterable[str]) -> Iterator[str]:
    """What ships works without the tests, and has no hook for them."""
    for name in files:
        if name.startswith(SHIPPED) and b"arclab" in (root / name).read_bytes().lower():
            yield f"{name}: ships, and knows the lab"


def old_pythons(root: pathlib.Path) -> Iterator[str]:
    """What runs on a machine can be imported by Python 3.8, which cannot subscript collections.abc's classes."""
    left = [root / "plugins" / "modules" / f"{name}.py" for name in ON_MACHINES]
    seen: set[pathlib.Path] = set()
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        tree = ast.parse(path.read_text("utf-8"))
        generic: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
                generic.update(names if node.module == "collections.abc" else ())
                parts = (node.module or "").rpartition("module_utils")[2].strip(".").split(".")
                near = (root / "plugins" / "module_utils" / f"{name}.py" for name in [*parts, *names])
                left += [file for file in near if file.is_file()]
        for node in _evaluated(tree):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in generic:
                where = f"{path.relative_to(root)}:{node.lineno}"
                yield f"{where}: Python 3.8 cannot evaluate {node.value.id}[...] when it imports the file"


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """What is evaluated when a file with postponed annotations is imported."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") or (field == "body" and isinstance(node, (ast.FunctionDef, ast.Lambda))):
            continue
        for child in value if isinstance(value, list) else [value]:
            guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if isinstance(child, ast.AST) and not guarded:
                yield child
                yield from _evaluated(child)


def no_ignore_files(files: Iterable[str]) -> Iterator[str]:
    """Sanity passes without exceptions."""
    for name in files:
        if name.startswith("tests/sanity/ignore"):
            yield f"{name}: faults are mended here, not ignored"


def names_in(artifact: pathlib.Path) -> list[str]:
    """The files in a built collection."""
    with tarfile.open(artifact) as tar:
        return sorted(member.name for member in tar.getmembers() if member.isfile())


def artifact(names: Iterable[str], files: Iterable[str]) -> list[str]:
    """The artifact holds everything that ships, and nothing that only the repository needs.

    Galaxy refuses a file called `__main__.py`.
    """
    held, faults = set(names), []
    for name in sorted(held):
        folder, slash, _rest = name.partition("/")
        if (folder not in ARTIFACT_FOLDERS) if slash else (name not in ARTIFACT):
            faults.append(f"{name} does not belong into the artifact: see build_ignore in galaxy.yml")
    wanted = {name for name in files if name.startswith(SHIPPED) and not name.endswith("/__main__.py")}
    wanted |= {"LICENSE", "README.md"}
    return faults + [f"{name} is missing from the artifact" for name in sorted(wanted - held)]
