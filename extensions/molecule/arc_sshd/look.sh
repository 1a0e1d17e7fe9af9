#!/bin/sh
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What is there of everything that the role may touch?
set -eu
find /etc/ssh /root/.ssh -type f -exec sha256sum {} + | sort
find /etc/ssh /root/.ssh -printf '%p %m %u %g\n' | sort
getent passwd
systemctl list-timers --all --no-legend arcfleet\* | wc -l
/usr/sbin/sshd -T
