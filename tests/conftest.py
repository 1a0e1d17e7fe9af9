# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do tests import the collection and the lab from a plain checkout?

The checkout is the collection, so it has to look like `ansible_collections/arcfleet/ssh`: `make setup` leaves a link of
that shape in the virtual environment, and Ansible's own finder resolves imports through it, as in a real run.
"""

from __future__ import annotations

import os
import pathlib
import sys

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLLECTIONS = pathlib.Path(sys.prefix, "collections")
LINK = COLLECTIONS / "ansible_collections" / "arcfleet" / "ssh"


def _link_collection() -> None:
    if LINK.is_symlink() and LINK.resolve() == ROOT:
        return
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(ROOT)


_link_collection()
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
sys.path.insert(0, str(ROOT / "tests" / "lab"))
_AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()
