#!/usr/bin/env bash
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Does the whole main job work on this machine? Called by `make demo`, in the project's virtual environment.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
state=$(mktemp -d)
export PYTHONPATH="$here/tests/lab"
arclab() { python -m arclab "$@"; }
stop() {
  arclab down --state-dir "$state/lab" >/dev/null 2>&1 || true
  rm -rf "$state"
}
trap stop EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# The demo answers to nobody's settings but its own.
while read -r name; do unset "$name"; done < <(compgen -v | grep -E '^(ANSIBLE_|AZURE_)' || true)
export HOME="$state/home" ANSIBLE_CONFIG="$state/ansible.cfg" ANSIBLE_NOCOLOR=1 ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_FORKS=10 ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=True ANSIBLE_DISPLAY_SKIPPED_HOSTS=False
mkdir -m 700 "$HOME"
touch "$ANSIBLE_CONFIG"
export ANSIBLE_PYTHON_INTERPRETER=auto_silent
ANSIBLE_COLLECTIONS_PATH=$(python -c 'import sys; print(sys.prefix)')/collections
export ANSIBLE_COLLECTIONS_PATH

say "The lab: Entra ID, ARM, Resource Graph, a relay and five machines, one switched off, one with an agent that is too old"
arclab up --machines 5 --stopped 1 --old-agents 1 --listener-lag 2 --unregistered --state-dir "$state/lab"
# shellcheck source=/dev/null
. "$state/lab/env.sh"

say "What enabling would do (ansible-playbook arcfleet.ssh.enable --check --diff)"
ansible-playbook -i "$ARCLAB_INVENTORY" arcfleet.ssh.enable --check --diff --tags control_plane

say "Enable the fleet"
ansible-playbook -i "$ARCLAB_INVENTORY" arcfleet.ssh.enable | tee "$state/first"

say "Enable it again: nothing is left to do"
ansible-playbook -i "$ARCLAB_INVENTORY" arcfleet.ssh.enable | tee "$state/second"
if grep -Eq 'changed=[1-9]' "$state/second"; then
  echo "The second run changed something." >&2
  exit 1
fi

say "The inventory"
ansible-inventory -i "$ARCLAB_INVENTORY" --graph

say "Ping the ready machines through the relay"
ansible -i "$ARCLAB_INVENTORY" 'status_connected:!agent_too_old' -m ansible.builtin.ping

say "Those that are not ready, and why"
grep -o 'not ready: [^"]*' "$state/second"

say "Done. Everything that was started is being stopped."
