#!/usr/bin/python
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can this machine get Entra ID login, and does the one that it has let Entra users in?"""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: arc_entra_login_info
short_description: Look at Entra ID login on a Linux machine
version_added: 0.1.0
author: arcfleet.ssh contributors (@arcfleet)
description:
  - Tells, on the machine on which it runs and as root, what keeps the extension C(AADSSHLoginForLinux) or its package C(aadsshlogin) from being installed
    there, and whether what is installed lets Entra users in.
  - What counts is what C(sshd) says of a login through Azure Arc (C(sshd -T -C)), for a user and for a service principal. A line that counts instead of
    the package's block is named with its file and number.
  - The role P(arcfleet.ssh.arc_entra_login#role) installs it.
options:
  users:
    description:
      - The login names to ask C(sshd) about. The default stands for any user and any service principal.
    type: list
    elements: str
    default: [someone@example.org, 00000000-0000-0000-0000-000000000000]
  source:
    description:
      - How it is going to be installed, which RV(obstacles) depend on.
    type: str
    choices: [extension, packages]
    default: extension
  repository:
    description:
      - Where the packages are. It is tried from the machine where O(probe) says so. A C(file:) address is a folder of the machine.
      - Empty means that the machine gets them from somewhere that is not looked at.
    type: str
    default: https://packages.microsoft.com
  probe:
    description:
      - Whether to try the repository. V(missing) does so where Entra login is not installed.
    type: str
    choices: [missing, always, never]
    default: missing
  proxy:
    description:
      - The HTTP proxy through which the repository is tried. Without it, that of the environment counts, and for O(source=extension) that of the Azure
        Connected Machine agent, if it has one.
    type: str
    default: ""
extends_documentation_fragment:
  - arcfleet.ssh._attributes
  - arcfleet.ssh._attributes.info_module
attributes:
  platform:
    description: The operating system of the machine on which the module runs. There is no Entra login with SSH on Windows.
    platforms: linux
"""

EXAMPLES = r"""
- name: Look whether a service principal can log in
  arcfleet.ssh.arc_entra_login_info:
    users: [7d1ac9a2-6f3c-4b3e-9f0e-0d1a52d4a0d5]
  become: true
  register: entra

- name: Tell why not
  ansible.builtin.debug:
    var: entra.findings
  when: entra.findings | length > 0
"""

RETURN = r"""
installed:
  description: Whether the package C(aadsshlogin) is installed.
  returned: success
  type: bool
distribution:
  description: The distribution, and whether Microsoft supports Entra login there. RV(distribution.manager) is V(apt), V(dnf) or V(zypper).
  returned: success
  type: dict
  sample: {id: debian, version: "12", name: Debian GNU/Linux 12 (bookworm), manager: apt, supported: true}
  contains:
    manager:
      description: The kind of its packages, and of who installs them.
      type: str
obstacles:
  description:
    - What keeps it from being installed, or from being supported. The codes are V(UnsupportedDistribution), V(ObsoletePackage), V(NoExec), V(OldSles),
      V(NoRepository) and V(RepositoryUnreachable).
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: What it is.
      type: str
    message:
      description: The same in a sentence, with the remedy.
      type: str
findings:
  description: What keeps Entra users out, in sentences. Only judged for O(users).
  returned: success
  type: list
  elements: str
leftovers:
  description: What is still there, in sentences, for a machine from which Entra login was removed.
  returned: success
  type: list
  elements: str
notes:
  description: What whoever logs in should know, in sentences.
  returned: success
  type: list
  elements: str
registrations:
  description:
    - Where the package is registered - C(nsswitch.conf), PAM, C(sshd), and the SELinux module, which is V(none) where SELinux is off.
  returned: success
  type: dict
  sample: {nsswitch: true, pam: true, sshd: true, selinux: null}
users:
  description: What C(sshd -T -C) says of each of O(users), V(none) where it says nothing.
  returned: success
  type: dict
  sample:
    someone@example.org:
      authenticationmethods: publickey
      authorizedkeyscommand: /usr/sbin/aad_certhandler %u %k
      authorizedkeyscommanduser: root
      pubkeyauthentication: "yes"
packages:
  description: The packages to install where that is done without the extension.
  returned: success
  type: list
  elements: str
repository:
  description:
    - The file that describes the repository to the package manager, as C(path) and C(text), the address of its C(key) and the C(key_path) of that. V(none)
      where a repository at that address is set up already.
  returned: success
  type: dict
"""

import os
import platform
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.arcfleet.ssh.plugins.module_utils._entra_login import REPOSITORY, USERS, result
from ansible_collections.arcfleet.ssh.plugins.module_utils._entra_login_machine import ground, look
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import ArcError, InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import SshdError


def main() -> None:
    module = AnsibleModule(
        {
            "users": {"type": "list", "elements": "str", "default": list(USERS)},
            "source": {"type": "str", "choices": ["extension", "packages"], "default": "extension"},
            "repository": {"type": "str", "default": REPOSITORY},
            "probe": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
            "proxy": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    try:
        found = work(module.params, module.tmpdir)
    except ArcError as exc:
        module.fail_json(msg=str(exc), failure=exc.failure())
    module.exit_json(changed=False, **found)


def work(options: Mapping[str, Any], scratch: str) -> dict[str, Any]:
    """Look at the machine; the module's result."""
    for user in options["users"]:
        # sshd takes them for criteria of their own.
        if not user or set(user) & set(", ="):
            raise InputError(f"{user!r} cannot be a login name.")
    if os.geteuid() != 0:
        raise SshdError(
            f"{platform.node()}: only root can ask sshd about the logins of others.",
            hint="Run the task with become: true.",
        )
    seen = look(scratch, options["users"])
    probe = options["probe"] == "always" or (options["probe"] == "missing" and not seen.installed)
    return result(ground(options["source"], options["repository"], options["proxy"], probe=probe), seen)


if __name__ == "__main__":
    main()
