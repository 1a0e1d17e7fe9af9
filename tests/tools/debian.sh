# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# How do Debian packages come onto the operator's machine without a service of theirs being started? To be sourced, in the checkout.
#
# Packages ask /usr/sbin/policy-rc.d before they start a service (Debian Policy 9.3.3). Ours says no, for as long as the
# installation takes, and only where there is none.

PATH=$PATH:/usr/sbin:/sbin
policy=/usr/sbin/policy-rc.d
policy_text='#!/bin/sh
# Made by arcfleet.ssh for the time of an installation: no service is started.
exit 101'

as_root() { [ "$(id -u)" = 0 ]; }

# The policy goes away, and the OpenSSH server that we brought is not started at the next boot either: the lab runs its own.
# (update-rc.d knows systemd too.)
apt_leave() {
  if [ -f "$policy" ] && [ "$(cat "$policy")" = "$policy_text" ]; then
    rm -f "$policy"
  fi
  if [ -e .cache/apt/openssh-server ] && [ -x /usr/sbin/sshd ]; then
    update-rc.d ssh disable || true
    rm -f .cache/apt/openssh-server
  fi >>.cache/apt/log 2>&1
}

apt_try() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends "$@" >>.cache/apt/log 2>&1
}

# apt_install PACKAGE... The package lists are fetched only if it does not work without.
apt_install() (
  mkdir -p .cache/apt
  trap apt_leave EXIT
  trap 'exit 130' INT TERM HUP
  if [ ! -e "$policy" ]; then
    printf '%s\n' "$policy_text" >"$policy"
    chmod 755 "$policy"
  fi
  case " $* " in
    *" openssh-server "*)
      allowed=0
      "$policy" ssh start >/dev/null 2>&1 || allowed=$?
      if [ "$allowed" != 101 ]; then
        echo "Please install openssh-server: $policy would let its service start, and it is not ours to change." >&2
        exit 1
      fi
      touch .cache/apt/openssh-server
      ;;
  esac
  printf '%s\n' "$*" >.cache/apt/unfinished
  echo "Installing Debian packages: $*"
  if ! apt_try "$@"; then
    { dpkg --configure -a && apt-get update; } >>.cache/apt/log 2>&1 || true
    apt_try "$@" || { tail -n 20 .cache/apt/log >&2; exit 1; }
  fi
  rm -f .cache/apt/unfinished
)

# An installation that was interrupted has left packages unpacked, and maybe the policy.
apt_mend() {
  if as_root && [ -e .cache/apt/unfinished ]; then
    read -ra unfinished <.cache/apt/unfinished
    apt_install "${unfinished[@]}"
  fi
}
