#!/bin/sh
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# By which keys does ssh know this Linux machine? Run as root by Azure's run command; changes nothing and writes one line of JSON.

set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

sshd=$(command -v sshd)
problem=null
keys=
if [ -z "$sshd" ]; then
    problem='"There is no OpenSSH server."'
else
    files=$("$sshd" -T 2>/dev/null </dev/null | sed -n 's/^hostkey //p')
    [ -n "$files" ] || files=$(ls /etc/ssh/ssh_host_*_key 2>/dev/null)
    for file in $files; do
        # What sshd proves is the private key, whatever lies beside it.
        public=$(ssh-keygen -y -P '' -f "$file" 2>/dev/null </dev/null)
        # An agent may keep the private one.
        [ -n "$public" ] || public=$(head -n 1 "$file.pub" 2>/dev/null)
        key=$(printf '%s\n' "$public" | cut -d ' ' -f 1,2 | grep -Ex '[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}')
        [ -z "$key" ] || keys="$keys${keys:+,}\"$key\""
    done
    [ -n "$keys" ] || problem='"sshd has no host keys that can be read."'
fi
printf '{"changed":false,"host_keys":[%s],"problem":%s}\n' "$keys" "$problem"
