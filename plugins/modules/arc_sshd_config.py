#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does this machine's sshd do what was asked for, and is there a way back from that?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_sshd_config
short_description: Configure the OpenSSH server of a Linux machine, with a way back
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Sets keywords, ports and addresses of C(sshd) on the machine on which it runs, as root. What is set is checked by C(sshd) itself before it
    lands, for a login that comes through Azure Arc too, and afterwards.
  - Each change has a way back. After O(way_back) seconds the machine puts everything back by itself, also after a reboot, unless the module was called
    with O(state=confirmed) over a connection that was opened after the change. The role P(arcfleet.ssh.arc_sshd#role) does that.
  - Writes C(/etc/ssh/sshd_config.d/00-arcfleet.conf) where C(sshd_config) includes that folder before anything else, and otherwise a block at the
    top of C(sshd_config). Other people's lines stay as they are, but for those of C(Port) and C(ListenAddress) that would count beside ours; they
    are commented out with the mark C(#arcfleet.ssh#), and come back when ours go.
  - Live connections go on. Where systemd listens for C(sshd), its socket is changed with it.
options:
  state:
    description:
      - V(applied) brings C(sshd) to what O(settings), O(ports) and O(listen) say. What they do not say is not set by us any more, so without any of
        them everything is as if we had never been there.
      - V(confirmed) ends the way back, so that the change stays. Fails over a connection that is older than the change, and when the way back was faster.
      - V(reverted) takes the way back at once.
      - V(inspected) only looks.
    type: str
    choices: [applied, confirmed, reverted, inspected]
    default: applied
  settings:
    description:
      - Keywords of C(sshd_config) and their values. Truth values mean C(yes) and C(no), V(null) leaves the keyword alone.
      - A list becomes one line for each item where C(sshd) adds lines up (such as C(AllowUsers)), and otherwise one value with commas or blanks between the
        items, as the keyword has it.
      - C(Port), C(ListenAddress), C(Match) and C(Include) cannot be set like this.
    type: dict
    default: {}
  ports:
    description:
      - The ports on which C(sshd) shall listen, and no others. Without any, they are left alone.
    type: list
    elements: int
    default: []
  listen:
    description:
      - V(loopback) lets C(sshd) listen on C(127.0.0.1) and C(::1) only, which is where Azure Arc connects to. Refused unless the task itself is
        connected through Azure Arc.
      - V(any) leaves the addresses alone.
    type: str
    choices: [any, loopback]
    default: any
  way_back:
    description:
      - Seconds after which the machine puts back what was there before an unconfirmed change, at least 30.
    type: int
    default: 600
  login_user:
    description:
      - The user for whom RV(findings) are judged.
    type: str
    default: root
extends_documentation_fragment:
  - arcfleet.ssh._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    description: The operating system of the machine on which the module runs. For Windows see the role P(arcfleet.ssh.arc_sshd#role).
    platforms: linux
"""

EXAMPLES = r"""
- name: Let every user of Azure Arc in, who all come from one address
  arcfleet.ssh.arc_sshd_config:
    settings:
      MaxStartups: "100:30:300"
      PerSourcePenaltyExemptList: [127.0.0.0/8, "::1/128"]
  become: true
  register: sshd

- name: Close the connection, so that the next task opens one that proves that the way in works
  ansible.builtin.meta: reset_connection

- name: Keep the change
  arcfleet.ssh.arc_sshd_config:
    state: confirmed
  become: true
  when: sshd.pending
"""

RETURN = r"""
ports:
  description: The ports on which sshd listens, in check mode those on which it would.
  returned: success
  type: list
  elements: int
listeners:
  description: The addresses on which something listens now at these ports.
  returned: success
  type: list
  elements: str
  sample: ["0.0.0.0:22", "[::]:22"]
before:
  description: What counted before of the keywords that are asked for, as C(sshd -T) prints it, by keyword in lower case.
  returned: O(state=applied)
  type: dict
after:
  description: What counts now, or in check mode would count.
  returned: O(state=applied)
  type: dict
  sample: {maxstartups: ["100:30:300"]}
pending:
  description: Whether a change waits for O(state=confirmed).
  returned: success
  type: bool
rolled_back:
  description: When an earlier change was put back, in a sentence. Is told once.
  returned: success
  type: str
findings:
  description: What in other people's lines keeps users out who come through Azure Arc, in sentences.
  returned: O(state=applied) or O(state=inspected)
  type: list
  elements: str
host_keys:
  description: The public host keys, each with its type.
  returned: O(state=applied) or O(state=inspected)
  type: list
  elements: str
version:
  description: The version of the server.
  returned: O(state=applied) or O(state=inspected)
  type: str
  sample: OpenSSH_9.2p1
unit:
  description: The unit of systemd that makes sshd listen.
  returned: O(state=applied) or O(state=inspected)
  type: str
  sample: ssh.service
started:
  description: Whether that unit runs, and starts with the machine.
  returned: O(state=applied) or O(state=inspected)
  type: bool
selinux:
  description: Whether SELinux is on, which has to allow other ports than 22.
  returned: O(state=applied) or O(state=inspected)
  type: bool
"""

import os
import platform
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import SshdError, Wanted, lines_for
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd_machine import (
    Sshd,
    change,
    confirm,
    inspect,
    over_arc,
    revert,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd_way_back import WayBack


def main() -> None:
    module = AnsibleModule(
        {
            "state": {
                "type": "str",
                "choices": ["applied", "confirmed", "reverted", "inspected"],
                "default": "applied",
            },
            "settings": {"type": "dict", "default": {}},
            "ports": {"type": "list", "elements": "int", "default": []},
            "listen": {"type": "str", "choices": ["any", "loopback"], "default": "any"},
            "way_back": {"type": "int", "default": 600},
            "login_user": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    try:
        result = work(module.params, module.tmpdir, check=module.check_mode)
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure())
    if result["rolled_back"]:
        module.warn(result["rolled_back"])
    module.exit_json(**result)


def work(options: Mapping[str, Any], scratch: str, *, check: bool) -> dict[str, Any]:
    """Do what was asked for; the module's result."""
    wanted = asked(options)
    if os.geteuid() != 0:
        raise SshdError(
            f"{platform.node()}: only root can read and change the configuration of sshd.",
            hint="Run the task with become: true.",
        )
    way_back = WayBack()
    if options["state"] == "confirmed":
        return confirm(way_back, check=check)
    if options["state"] == "reverted":
        return revert(way_back, check=check)
    sshd = Sshd(scratch, options["login_user"])
    if options["state"] == "inspected":
        return inspect(sshd, way_back)
    return change(sshd, way_back, wanted, seconds=options["way_back"], check=check, through_arc=over_arc())


def asked(options: Mapping[str, Any]) -> Wanted:
    """What the options ask for. Raises InputError."""
    ports = sorted(set(options["ports"]))
    if any(not 0 < port < 65536 for port in ports):
        raise InputError("`ports` are numbers from 1 to 65535.")
    if options["way_back"] < 30:
        raise InputError("`way_back` has to be at least 30 seconds, because a new connection takes some of them.")
    return Wanted(lines_for(options["settings"]), tuple(ports), options["listen"] == "loopback")


if __name__ == "__main__":
    main()
