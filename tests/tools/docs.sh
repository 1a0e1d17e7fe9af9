#!/usr/bin/env bash
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# How does the documentation in the plugins read as HTML? Writes build/docs/html.
set -euo pipefail
cd "$(dirname "$0")/../.."
ANSIBLE_COLLECTIONS_PATH=$(python -c 'import sys; print(sys.prefix)')/collections
export ANSIBLE_COLLECTIONS_PATH
rm -rf build/docs
mkdir -p build/docs/rst
chmod 700 build/docs/rst
antsibull-docs collection --use-current --squash-hierarchy --dest-dir build/docs/rst arcfleet.ssh
cat >build/docs/conf.py <<END
project = "arcfleet.ssh"
extensions = ["sphinx_antsibull_ext"]
html_theme = "alabaster"
suppress_warnings = ["ref.ref"]
END
sphinx-build -q -c build/docs build/docs/rst build/docs/html
echo "build/docs/html/index.html"
