# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checks does this project have, and do they pass?

    python tests/tools/gates.py [GROUP...]      lint, units, integration, machines, bench, sanity, build, importer, core; all of them without a group

Runs in the virtual environment of `make setup-all`. The gates see neither the Ansible and Azure settings of whoever runs them nor
their home directory, only how pip and npm reach their package index. Collection requirements: Ansible's inclusion checklist.
"""

from __future__ import annotations

import ast
import collections
import functools
import glob
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

import checks
import runner
from runner import ROOT, Failed, Gate, Log, NotRun

BIN = pathlib.Path(sys.prefix, "bin")
BUILD = ROOT / "build"
HOME = ROOT / ".cache" / "home"
# Other people's collections; ours is there too, as a link, and comes last wherever a copy of it is what counts.
COLLECTIONS = pathlib.Path(sys.prefix, "collections")
ANTSIBULL_DOCS = (
    "antsibull-docs",
    "lint-collection-docs",
    "--plugin-docs",
    "--validate-collection-refs=self",
    "--check-extra-docs-refs",
    ".",
)
# Which Python runs which ansible-core.
OTHER_CORE = {"2.19": ("3.11", "3.12", "3.13"), "2.21": ("3.12", "3.13", "3.14")}


def environment() -> dict[str, str]:
    """The environment of every gate."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "AZURE_", "ARM_"))}
    npm = pathlib.Path.home() / ".npmrc"
    return {
        **({"NPM_CONFIG_USERCONFIG": str(npm)} if npm.exists() else {}),
        **kept,
        "HOME": str(HOME),
        "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
        "ANSIBLE_HOME": str(HOME / ".ansible"),
        "ANSIBLE_CONFIG": str(HOME / "ansible.cfg"),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }


# ---- the tree as a collection


def git_files() -> list[str]:
    """The files of the checkout that are, or could be, committed."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


def copy(name: str) -> pathlib.Path:
    """Copy the checkout to build/NAME/ansible_collections/arcfleet/ssh: most of Ansible's tools insist on a real path of that shape."""
    place = BUILD / name / "ansible_collections" / "arcfleet" / "ssh"
    shutil.rmtree(place, ignore_errors=True)
    for file in git_files():
        target = place / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, target)
    # Without a repository of its own, the copy would be an ignored folder of the checkout's: ansible-test would find no files in it.
    subprocess.run(["git", "init", "--quiet", place], check=True)
    return place


def in_copy(name: str, *command: str) -> Callable[[Log], None]:
    """A gate that is one program, run in a copy of its own."""

    def run(log: Log) -> None:
        place = copy(name)
        log.run(*command, cwd=place, env={"ANSIBLE_COLLECTIONS_PATH": f"{place.parents[2]}:{COLLECTIONS}"})

    return run


def program(*command: str) -> Callable[[Log], None]:
    """A gate that is one program, run in the checkout."""

    def run(log: Log) -> None:
        log.run(*command)

    return run


def types(log: Log) -> None:
    """Types; what ships and what tests it, one after the other because they share a cache."""
    faults = []
    for what in (
        ("plugins/module_utils", "plugins/plugin_utils"),
        ("tests/lab/arclab", "tests/tools"),
        ("tests/bench",),
    ):
        try:
            log.run("mypy", "--strict", *what)
        except Failed as fault:
            faults.append(f"{' and '.join(what)}: {fault}")
    if faults:
        raise Failed("; ".join(faults))


def house(log: Log) -> None:
    """The rules that no other tool knows."""
    faults = checks.house(ROOT, git_files())
    if faults:
        log.write("\n".join(faults) + "\n")
        raise Failed(f"{len(faults)} rules of the house are broken")


# ---- tests


def pytest(log: Log, folder: str, python: pathlib.Path, *how: str, more: Mapping[str, str] | None = None) -> None:
    """Run the tests of a folder in several processes; what skips itself is told with its reason."""
    cores = os.cpu_count() or 1
    # The tests on the lab wait for it most of the time, and those on machines for timers; there a computer has room for some twenty-five.
    workers = {"integration": 2 * cores, "machines": 4}.get(folder, cores)
    env = {"PATH": f"{python.parent}{os.pathsep}{log.env['PATH']}", **(more or {})}
    chosen = ["-n", str(max(workers, 2)), "--color=no", *how]
    try:
        log.run(python, "-m", "pytest", "-q", *chosen, f"tests/{folder}", env=env)
    finally:
        text = log.path.read_text(encoding="utf-8")
        log.note = next(
            (line for line in reversed(text.splitlines()) if re.match(r"\d+ (passed|failed|error)", line)), ""
        )
        skipped: collections.Counter[str] = collections.Counter()
        for count, file, reason in re.findall(r"^SKIPPED \[(\d+)\] ([^:\s]+)\S*: (.*)$", text, re.MULTILINE):
            skipped[f"{file}: {reason}"] += int(count)
        log.left_out += [f"{count} in {what}" for what, count in skipped.items()]


def units(log: Log) -> None:
    """The unit tests."""
    pytest(log, "unit", BIN / "python")


def integration(log: Log) -> None:
    """The tests on the lab."""
    pytest(log, "integration", BIN / "python")


def images(log: Log) -> None:
    """What the machines are made from; most of the time is waiting for packages."""
    sys.path.insert(0, str(ROOT / "tests" / "lab"))
    from arclab import images, podman

    if (obstacle := podman.obstacle()) is not None:
        raise NotRun(f"{obstacle} `make test-machines` installs what root can install.")
    try:
        images.ensure(images.SUITES)
    except podman.MachinesFailed as fault:
        raise Failed(str(fault)) from fault
    log.note = ", ".join(images.SUITES)


def machines_wholly() -> bool:
    """Whether nothing of these tests is left out: they were asked for by themselves."""
    return sys.argv[1:] == ["machines"]


def machines(log: Log) -> None:
    """The tests on Linux machines of their own."""
    images(log)
    steps = "all" if machines_wholly() else "some"
    # The tests of a file share their machines.
    how = ("--dist", "loadfile", "--no-loadscope-reorder")
    pytest(log, "machines", BIN / "python", *how, more={"ARCFLEET_STEPS": steps})
    if steps == "some":
        log.left_out += [
            "seven of eight steps before which a run can be killed: `make test-machines` tries each",
            "three of four Molecule scenarios: `make test-machines` runs them",
        ]


@functools.lru_cache(maxsize=1)
def other_core() -> tuple[str, str]:
    """The ansible-core that the main environment has not, and an interpreter for it."""
    import ansible.release

    core = "2.21" if ansible.release.__version__.startswith("2.19.") else "2.19"
    for version in OTHER_CORE[core]:
        pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
        for candidate in (f"python{version}", *sorted(glob.glob(f"{pyenv}/versions/{version}*/bin/python{version}"))):
            found = shutil.which(candidate)
            if (
                found
                and not subprocess.run([found, "-c", "import ensurepip"], capture_output=True, check=False).returncode
            ):
                return core, found
    raise NotRun(f"ansible-core {core} needs one of Python {', '.join(OTHER_CORE[core])}, and none was found")


def other_core_packages(log: Log) -> None:
    """A virtual environment with the other ansible-core."""
    core, python = other_core()
    wanted = f"ansible-core >= {core}.0, < 2.{int(core[2:]) + 1}"
    log.run(
        "bash", "tests/tools/venv.sh", f".venv-{core}", python, "-r", "requirements-test.txt", wanted, env=os.environ
    )
    log.run(ROOT / f".venv-{core}" / "bin" / "python", "tests/tools/community.py", env=os.environ)
    log.note = f"ansible-core {core}, {subprocess.run([python, '--version'], capture_output=True, text=True, check=True).stdout.strip()}"


def on_other_core(folder: str, *how: str) -> Callable[[Log], None]:
    """A gate that runs the tests of a folder on the other ansible-core."""

    def run(log: Log) -> None:
        pytest(log, folder, ROOT / f".venv-{other_core()[0]}" / "bin" / "python", *how)

    return run


def machines_on_other_core(log: Log) -> None:
    """What Ansible does with its own connections to machines, on the other ansible-core."""
    if not machines_wholly():
        raise NotRun("`make test-machines` runs it")
    other_core_packages(log)
    python = ROOT / f".venv-{other_core()[0]}" / "bin" / "python"
    pytest(log, "machines/test_everything.py", python, "--dist", "loadfile")


# ---- ansible-test


def pip_configuration() -> str:
    """What pip is told on this machine, as a file: ansible-test hands no environment variables on to pip."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    ca = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    known = {"cert": ca, "proxy": proxy, "cache-dir": cache.stdout.strip()}
    settings = {key: value for key, value in known.items() if value}
    for line in listed.stdout.splitlines():
        key, _eq, value = line.partition("=")
        section, _dot, name = key.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings[name] = ast.literal_eval(value)
    indented = {name: value.strip().replace("\n", "\n    ") for name, value in settings.items()}
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in indented.items())


def prepare_pip() -> None:
    """For ansible-test: pip's settings, and our own get-pip in the place of the one that it would download."""
    settings = HOME / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.touch(mode=0o600)
    settings.write_text(pip_configuration(), encoding="utf-8")
    import ansible_test

    source = pathlib.Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py"
    version = re.search(r"pip='([\d.]+)'", source.read_text(encoding="utf-8"))
    if not version:
        raise Failed("ansible-test does not say which pip it wants")
    shim = HOME / ".ansible" / "test" / "cache" / f"get_pip_{version[1].replace('.', '_')}.py"
    shim.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "tools" / "get_pip.py", shim)


def sanity(log: Log) -> None:
    """All of ansible-test sanity, with nothing ignored."""
    prepare_pip()
    finished = HOME / "sanity-finished"
    if not finished.exists():
        # A virtual environment whose making was interrupted would be taken for a good one.
        shutil.rmtree(HOME / ".ansible" / "test" / "venv", ignore_errors=True)
    finished.unlink(missing_ok=True)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        log.run("ansible-test", "sanity", "--venv", "--python", python, "--color", "no", cwd=copy("sanity"))
    finally:
        text = log.path.read_text(encoding="utf-8")
        tests = set(re.findall("^Running sanity test .([a-z-]+)", text, re.MULTILINE))
        log.note = f"{len(tests)} tests"
        log.left_out += re.findall(r"^WARNING: (Skipping .*|Required .*)$", text, re.MULTILINE)
        if "yamllint" in tests:
            finished.touch()
    if "validate-modules" not in tests:
        raise Failed("ansible-test found nothing to test")


# ---- the artifact


def build(log: Log, folder: pathlib.Path = BUILD) -> pathlib.Path:
    """Build the artifact from the checkout, as a user would, and look at what is in it."""
    for old in folder.glob("*.tar.gz"):
        old.unlink()
    log.run("ansible-galaxy", "collection", "build", "--force", "--output-path", folder)
    (artifact,) = folder.glob("*.tar.gz")
    names = checks.names_in(artifact)
    log.write("".join(f"  {name}\n" for name in names))
    faults = checks.artifact(names, git_files())
    if faults:
        raise Failed("; ".join(faults))
    log.note = f"{artifact.name}: {len(names)} files, {artifact.stat().st_size // 1024} KiB"
    return artifact


def ships_alone(log: Log) -> None:
    """The artifact works with nothing but meta/, plugins/, roles/ and playbooks/ (inclusion checklist)."""
    artifact = build(log)
    place = BUILD / "installed"
    shutil.rmtree(place, ignore_errors=True)
    env = {"ANSIBLE_COLLECTIONS_PATH": f"{place}:{COLLECTIONS}"}
    install = ("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "--collections-path", place)
    # Not env: the link to the checkout would count as installed.
    log.run(*install, artifact, env={"ANSIBLE_COLLECTIONS_PATH": str(place)})
    here = place / "ansible_collections" / "arcfleet" / "ssh"
    for entry in here.iterdir():
        if entry.is_dir() and entry.name not in ("meta", "plugins", "roles", "playbooks"):
            shutil.rmtree(entry)
    for kind in ("module", "inventory", "role"):
        found = log.run("ansible-doc", "--type", kind, "--list", "arcfleet.ssh", env=env)
        names = re.findall(r"^(arcfleet\.ssh\.\w+)", found, re.MULTILINE)
        if not names:
            raise Failed(f"the installed collection has no {kind}")
        log.run("ansible-doc", "--type", kind, *names, env=env)
    for playbook in sorted((here / "playbooks").glob("*.yml")):
        log.run("ansible-playbook", "--syntax-check", "-i", "localhost,", f"arcfleet.ssh.{playbook.stem}", env=env)
    log.run(sys.executable, here / "plugins" / "module_utils" / "_relay" / "_start.py", "--help", env=env)


def importer(log: Log) -> None:
    """Galaxy's own importer, in a virtual environment of its own: it holds back versions that other tools need."""
    venv = ROOT / ".venv-importer"
    log.run("bash", "tests/tools/venv.sh", venv.name, sys.executable, "galaxy-importer >= 0.4.44", env=os.environ)
    folder = BUILD / "importer"
    folder.mkdir(parents=True, exist_ok=True)
    artifact = build(log, folder)
    env = {
        "PATH": f"{venv / 'bin'}{os.pathsep}{log.env['PATH']}",
        "GALAXY_IMPORTER_CHECK_REQUIRED_TAGS": "1",
    }
    text = log.run(venv / "bin" / "python", "-m", "galaxy_importer.main", artifact, cwd=folder, env=env)
    complaints = re.findall(r"^(?:WARNING|ERROR): (.*)$", text, re.MULTILINE)
    if complaints or "Importer processing completed successfully" not in text:
        raise Failed("; ".join(complaints[:5]) or "the importer did not complete")


def introspect(log: Log) -> None:
    """What ansible-builder would put into an execution environment."""
    place = copy("introspect")
    text = log.run("ansible-builder", "introspect", place.parents[2])
    wanted = [line for line in (ROOT / "meta/ee-requirements.txt").read_text("utf-8").splitlines() if line[0] != "#"]
    missing = [line for line in wanted if re.split(r"[ <>=~!]", line)[0] not in text]
    if missing:
        raise Failed(f"ansible-builder does not see {', '.join(missing)}")


GATES = [
    # What takes longest begins first: two gates run at a time.
    Gate("ansible-test sanity", "sanity", sanity),
    Gate("images of machines", "machines", images),
    Gate("ruff check", "lint", program("ruff", "check", ".")),
    Gate("ruff format", "lint", program("ruff", "format", "--check", ".")),
    Gate("mypy", "lint", types),
    Gate("yamllint", "lint", program("yamllint", "--strict", ".")),
    Gate("ansible-lint: production", "lint", in_copy("lint", "ansible-lint", "--profile", "production", "--offline")),
    Gate("antsibull-docs", "lint", in_copy("docs-lint", *ANTSIBULL_DOCS)),
    Gate("antsibull-changelog", "lint", in_copy("changelog-lint", "antsibull-changelog", "lint")),
    Gate("rules of the house", "lint", house),
    Gate("unit tests", "units", units, alone=True),
    Gate("integration tests", "integration", integration, alone=True),
    Gate("tests on machines of their own", "machines", machines, alone=True),
    Gate("other core: Ansible's features on machines", "machines", machines_on_other_core, alone=True),
    Gate("make bench, quickly", "bench", program(sys.executable, "tests/bench", "--quick"), alone=True),
    Gate("artifact", "build", ships_alone),
    Gate("galaxy-importer", "importer", importer),
    Gate("ansible-builder introspect", "build", introspect),
    Gate("other core: packages", "core", other_core_packages),
    Gate("other core: unit tests", "core", on_other_core("unit"), alone=True),
    Gate("other core: integration tests", "core", on_other_core("integration", "-m", "not one_core"), alone=True),
]


def main() -> int:
    """Run the groups that are named."""
    wanted = set(sys.argv[1:])
    unknown = wanted - {gate.group for gate in GATES}
    if unknown:
        print(f"There is no group {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    # A shell starts what runs in the background with interruption ignored, and tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    (HOME / "ansible.cfg").touch()
    return runner.run([gate for gate in GATES if not wanted or gate.group in wanted], environment())


if __name__ == "__main__":
    sys.exit(main())
