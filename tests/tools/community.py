# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do other people's collections get here without Galaxy?

    .venv/bin/python tests/tools/community.py      those that our roles use, for the virtual environment whose Python runs this, and awx.awx

The community package of the Python package index holds them all (over 500 MB unpacked): the wanted ones are taken out of its wheel,
without tests and documentation. Nothing of it is committed or shipped.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

COLLECTIONS = ("ansible.posix", "ansible.windows", "community.general")
# The community package that goes with an ansible-core, and the Python that pip has to pretend to be to get it.
PACKAGES = {"2.19": ("ansible==12.3.0", "3.11"), "2.21": ("ansible==14.5.0", "3.12")}
# No part of the later ones, and no dependency: whoever sets AWX up has it.
AWX, AWX_PACKAGE = "awx.awx", PACKAGES["2.19"]
_NOT_NEEDED = ("tests/", "docs/", "changelogs/", ".github/", ".azure-pipelines/")
_TIMEOUT = 900.0


class Unavailable(Exception):
    """The community package could not be had; the message says why."""


def unpack(package: str, python: str, names: Sequence[str], place: Path) -> None:
    """Put the collections `names` of a community package into `place`/ansible_collections, whatever was there of them."""
    with tempfile.TemporaryDirectory() as folder:
        download = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--python-version", python, "--dest", folder, package),
        ]
        try:
            subprocess.run(download, stdin=subprocess.DEVNULL, check=True, timeout=_TIMEOUT)
        except (subprocess.SubprocessError, OSError) as exc:
            raise Unavailable(f"`pip download {package}` failed: {exc}") from exc
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name in names:
                prefix = f"ansible_collections/{name.replace('.', '/')}/"
                shutil.rmtree(place / prefix, ignore_errors=True)
                members = [
                    one
                    for one in wheel.namelist()
                    if one.startswith(prefix) and not one.removeprefix(prefix).startswith(_NOT_NEEDED)
                ]
                if not members:
                    raise Unavailable(f"{package} does not hold {name}")
                wheel.extractall(place, members)


def ensure() -> None:
    """The collections that our roles use are in this virtual environment; a stamp says so when all are."""
    core = importlib.metadata.version("ansible-core")
    own = PACKAGES[".".join(core.split(".")[:2])]
    sources = {own: [*COLLECTIONS, AWX]} if own == AWX_PACKAGE else {own: [*COLLECTIONS], AWX_PACKAGE: [AWX]}
    place = Path(sys.prefix, "collections")
    stamp, wanted = place / "community.json", [[package, *names] for (package, _python), names in sources.items()]
    if stamp.exists() and json.loads(stamp.read_text("utf-8")) == wanted:
        return
    stamp.unlink(missing_ok=True)
    for (package, python), names in sources.items():
        print(f"Taking {', '.join(names)} out of the package {package.replace('==', ' ')} (once)", flush=True)
        unpack(package, python, names, place)
    stamp.write_text(json.dumps(wanted), "utf-8")


if __name__ == "__main__":
    try:
        ensure()
    except Unavailable as reason:
        sys.exit(str(reason))
