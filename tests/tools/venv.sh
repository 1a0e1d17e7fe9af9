#!/usr/bin/env bash
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Does this virtual environment hold these requirements? Makes or mends it when it does not.
#
#   venv.sh DIRECTORY PYTHON PIP-ARGUMENT...
#
# The stamp is a hash of the arguments and of all requirement files. It is written last, so that what was interrupted is
# taken up again. A virtual environment knows its own path: in a checkout that was moved it is made anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$1 python=$2
shift 2

mkdir -p .cache
if command -v flock >/dev/null; then
  exec 9>".cache/$(basename "$venv").lock"
  flock 9
fi

stamp=$venv/set-up-$({ printf '%s\n' "$@"; cat requirements*.txt meta/ee-requirements.txt; } | sha256sum | cut -c1-16)
is_ours() { grep -qF "$PWD/$venv/bin/python" "$venv/bin/pip" && "$venv/bin/python" -m pip --version >/dev/null; }

if ! is_ours 2>/dev/null; then
  "$python" -m venv --clear "$venv"
elif [ -e "$stamp" ]; then
  exit 0
fi
echo "Installing Python packages into $venv (once, about a minute)"
"$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
touch "$stamp"
