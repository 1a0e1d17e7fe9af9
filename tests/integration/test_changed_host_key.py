# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does somebody whom ssh keeps from a machine with another host key learn which one it is and how to verify it through Azure?"""

from __future__ import annotations

import pathlib
import tempfile

import pytest

from arclab.client import Lab
from on_lab import module, start_ssh

REMEDY = "arc_connection_host_keys=run_command"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    lab = Lab.up(tmp_path_factory.mktemp("lab") / "state", machines=2, listener_lag=0)
    done = module(lab, "arc_ssh_service_config", machines=[one["id"] for one in lab.machines()])
    assert not done.get("failed"), done
    yield lab
    lab.down()


@pytest.fixture
def sockets():
    """pytest's own directories have names too long for the sockets of shared connections."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def connect(lab, machine, *options):
    """The exit status of ssh, and what it and its helper say."""
    ssh = start_ssh(lab, machine, "true", options=options)
    said = ssh.communicate(timeout=60)[1].decode()
    return ssh.returncode, said


@pytest.mark.one_core
@pytest.mark.parametrize(
    "more", [(), ("-o", "ControlMaster=auto", "-o", "ControlPersist=1")], ids=["alone", "ControlPersist"]
)
def test_a_changed_key_is_refused_with_the_remedy_and_no_other_end_is(site, tmp_path, sockets, more):
    machine, other = site.machines()
    known = pathlib.Path(site.env["ARCLAB_KNOWN_HOSTS"]).read_text(encoding="utf-8")
    alias, theirs = machine["id"].lower(), other["id"].lower()
    of_other = next(line for line in known.splitlines() if line.startswith(theirs))
    spoiled = tmp_path / "known_hosts"
    spoiled.write_text(of_other.replace(theirs, alias) + "\n", encoding="utf-8")
    shared = (*more, "-o", f"ControlPath={sockets}/%C" if more else "ControlPath=none")

    site.env["ARCLAB_KNOWN_HOSTS"], right = str(spoiled), site.env["ARCLAB_KNOWN_HOSTS"]
    try:
        status, said = connect(site, machine, *shared)
        assert status == 255
        assert "HOST IDENTIFICATION HAS CHANGED" in said
        assert alias in said
        assert f"arcfleet.ssh: {machine['name']}: " in said
        assert said.count(REMEDY) == 1
        assert spoiled.read_text(encoding="utf-8") == of_other.replace(theirs, alias) + "\n"
    finally:
        site.env["ARCLAB_KNOWN_HOSTS"] = right

    # It says nothing of the sort to who is let in, nor to who has the wrong key of their own.
    assert connect(site, machine, *shared)[0] == 0
    status, said = connect(site, machine, "-o", "PubkeyAuthentication=no", "-o", "ControlPath=none")
    assert status == 255
    assert "arcfleet.ssh" not in said
