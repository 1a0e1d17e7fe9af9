#!/usr/bin/env bash
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Is everything here that `make demo` (setup.sh lab), `make test` (setup.sh lint) or `make test-machines` (setup.sh machines) needs?
# Installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
purpose=$1
# shellcheck source=tests/tools/debian.sh
. tests/tools/debian.sh

works() { "$@" >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in python3 python3.11 python3.12 python3.13; do
    if works "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or later is needed and none was found (looked for python3 and python3.11 to python3.13)." >&2
  return 1
}

apt_mend
python=$(find_python)
missing=()
if ! works .venv/bin/python -m pip --version && ! works "$python" -c 'import ensurepip, venv'; then
  missing+=("$python-venv")
fi
[ -x /usr/sbin/sshd ] || works command -v sshd || missing+=(openssh-server)
{ works command -v ssh && works command -v ssh-keygen; } || missing+=(openssh-client)
if [ "$purpose" != lab ] && as_root && ! works command -v shellcheck; then
  missing+=(shellcheck)
fi
# Without root there are no machines of their own, and their tests say so.
if [ "$purpose" = machines ] && as_root; then
  for needed in podman runc debootstrap ip:iproute2 nft:nftables git rsync; do
    works command -v "${needed%:*}" || missing+=("${needed#*:}")
  done
  [ -x /usr/lib/podman/netavark ] || missing+=(netavark)
fi

if [ "${#missing[@]}" -gt 0 ]; then
  if as_root && works command -v apt-get; then
    apt_install "${missing[@]}"
  else
    echo "Please install what is missing, as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi

bash tests/tools/venv.sh .venv "$python" -r "requirements-$purpose.txt"

# The checkout is the collection: the link makes it look like one to Ansible.
collections=.venv/collections/ansible_collections/arcfleet
mkdir -p "$collections"
[ "$(readlink "$collections/ssh" || true)" = "$PWD" ] || ln -sfn "$PWD" "$collections/ssh"
.venv/bin/python tests/tools/community.py
