#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# How does a run of the job end, and what was it given?
systemctl start arcfleet-enforcement.service 2>/dev/null && echo "The run did not fail."
cd /var/lib/arcfleet-enforcement || exit
cat secret certificate
tail -n 2 arguments
tr '\t' ' ' <confined
systemctl show -p ExecMainStatus --value arcfleet-enforcement.service
systemctl show -p ActiveState --value arcfleet-enforcement.service
systemctl is-enabled arcfleet-enforcement.timer
systemctl is-active arcfleet-enforcement.timer
systemd-analyze verify arcfleet-enforcement.service arcfleet-enforcement.timer 2>&1
systemd-analyze security --threshold=15 arcfleet-enforcement.service >/dev/null && echo confined
stat -c '%a %U %n' /etc/arcfleet-enforcement/*
