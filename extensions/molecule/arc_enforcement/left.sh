#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What is left of the job?
find /etc /opt /run /srv /usr /var -xdev -name '*arcfleet-enforcement*'
find /var/lib -name drift.json
systemctl list-units --all --no-legend 'arcfleet*'
getent passwd arcfleet | cut -d : -f 1
