#!/bin/sh
# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# How does a Linux machine on which nothing answers get to the point where a key opens it?
#
# Run as root by Azure's run command. Installs and starts OpenSSH, lets the key in, and writes one line of JSON last. It may be run again at
# any time, and after it was killed at any point; what is right already stays as it is. All input comes as environment variables:
#   ARCFLEET_USER         whom to let in; root when empty
#   ARCFLEET_KEY          public keys, one in each line; none when empty
#   ARCFLEET_CREATE_USER  yes: make the user when there is none
#   ARCFLEET_SUDO         yes: let the user become root without a password
#   ARCFLEET_PATIENCE     seconds to wait, all in all, for whoever else installs packages now; 300 when empty
# How the run command passes line breaks is not documented, so each value may also be written as base64: and itself in base 64.

set -u
umask 022
unset CDPATH ENV IFS
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
HOME=/root
export PATH LC_ALL HOME

changed=false
problem=
told=false
sshd=
ports=
deadline=
newline='
'

text() {
    # A text as a JSON string: what is not printable ASCII is replaced, because nobody knows its encoding.
    printf '"%s"' "$(printf '%s' "$1" | tr '\000-\037\177' ' ' | tr '\200-\377' '?' | sed 's/[\\"]/\\&/g')"
}

array() {
    # Lines as a JSON array, of numbers with $1 = number, else of strings.
    first=true
    printf '['
    while IFS= read -r line; do
        [ -n "$line" ] || continue
        "$first" || printf ','
        first=false
        if [ "$1" = number ]; then printf '%d' "$line"; else text "$line"; fi
    done
    printf ']'
}

report() {
    # The one line. Whatever ends the script comes through here.
    "$told" && return
    told=true
    [ -n "$problem" ] && problem=$(printf '%s' "$problem" | cut -c 1-1000)
    printf '{"arcfleet":1,"changed":%s,"port":%s,"listeners":%s,"host_keys":%s,"version":%s,"problem":%s}\n' \
        "$changed" \
        "$(printf '%s\n' "$ports" | array number)" \
        "$(listeners | array text)" \
        "$(host_keys | array text)" \
        "$(text "$(version)")" \
        "$(if [ -n "$problem" ]; then text "$problem"; else printf null; fi)"
}

fail() {
    problem=$1
    exit 1
}

stopped() {
    problem="The script was stopped before it was done. Run it again."
    exit 1
}

decoded() {
    # The value of a parameter.
    case $1 in
        base64:*) printf '%s' "${1#base64:}" | base64 -d 2>/dev/null ;;
        *) printf '%s' "$1" ;;
    esac
}

last_line() {
    printf '%s\n' "$1" | sed '/^[[:space:]]*$/d' | tail -n 1
}

is_key() {
    # Whether a line can be one of authorized_keys: perhaps options, a type, and the key in base 64.
    printf '%s\n' "$1" | grep -Eq \
        '^([^#].*[[:space:]])?(ssh-(ed25519|rsa|dss)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)[[:space:]]+[A-Za-z0-9+/]{40,}={0,3}([[:space:]].*)?$'
}

check_input() {
    # Not read as empty, which would mean root.
    user=$(decoded "${ARCFLEET_USER-}") || fail "ARCFLEET_USER is not base 64."
    keys=$(decoded "${ARCFLEET_KEY-}") || fail "ARCFLEET_KEY is not base 64."
    keys=$(printf '%s\n' "$keys" | tr -d '\r')
    patience=${ARCFLEET_PATIENCE:-300}
    user=${user:-root}
    case $user in
        -* | *[!A-Za-z0-9_.@-]* | . | ..) fail "ARCFLEET_USER is not the name of a user." ;;
        *[!0-9]*) ;;
        # Programs take it for the number of a user.
        *) fail "ARCFLEET_USER is not the name of a user." ;;
    esac
    case $patience in
        *[!0-9]*) fail "ARCFLEET_PATIENCE is not a number of seconds." ;;
    esac
    number=0
    while IFS= read -r line; do
        number=$((number + 1))
        case $line in
            *[![:space:]]*) is_key "$line" || fail "Line $number of ARCFLEET_KEY is not a public key." ;;
        esac
    done <<INPUT
$keys
INPUT
}

# Packages

installed() {
    sshd=$(command -v sshd) || return
    # Killed in the middle of it, an installation looks as if it were one.
    case $(dpkg-query -W -f '${Status}' openssh-server 2>/dev/null) in
        *" unpacked" | *" half-configured" | *" half-installed") false ;;
    esac
}

held() {
    # Whether a package manager says that another one is at work.
    case $1 in
        *"Could not get lock"* | *"Unable to lock"* | *"Unable to acquire the dpkg"* | *"is locked by another process"*) true ;;
        *"System management is locked"* | *"another process is running"* | *"holding the yum lock"* | *"Failed to obtain the transaction lock"*) true ;;
        *) false ;;
    esac
}

patiently() {
    # Run a package manager's command. Sets $output; waits for other package managers, but not for ever.
    deadline=${deadline:-$(($(date +%s) + patience))}
    mended=false
    while true; do
        if output=$("$@" </dev/null 2>&1); then return 0; fi
        case $output in
            *"dpkg was interrupted"*)
                "$mended" && return 1
                mended=true
                dpkg --configure -a --force-confdef --force-confold </dev/null >&2
                continue
                ;;
        esac
        held "$output" && [ "$(date +%s)" -lt "$deadline" ] || return 1
        sleep 5
    done
}

apt_get() {
    deadline=${deadline:-$(($(date +%s) + patience))}
    left=$((deadline - $(date +%s)))
    # Less than none would mean for ever.
    [ "$left" -gt 0 ] || left=0
    patiently apt-get -q -y -o DPkg::Lock::Timeout="$left" -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

install_with_apt() {
    # The lists may be missing or too old for what they name; or they are fine, and need not be fetched.
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt_get install --no-install-recommends openssh-server && return 0
    apt_get update
    apt_get install --no-install-recommends openssh-server
}

install_server() {
    if command -v apt-get >/dev/null; then
        install_with_apt
    elif command -v rpm-ostree >/dev/null && [ -e /run/ostree-booted ]; then
        fail "This machine gets software as whole images; put openssh-server into its image."
    elif command -v transactional-update >/dev/null; then
        fail "This machine gets software by transactional updates; install openssh with transactional-update and start it anew."
    elif command -v zypper >/dev/null; then
        patiently zypper --non-interactive install --no-recommends openssh-server || patiently zypper --non-interactive install --no-recommends openssh
    elif command -v tdnf >/dev/null; then
        patiently tdnf install -y openssh-server
    elif command -v dnf >/dev/null; then
        patiently dnf install -y openssh-server
    elif command -v microdnf >/dev/null; then
        patiently microdnf install -y openssh-server
    elif command -v yum >/dev/null; then
        patiently yum install -y openssh-server
    else
        fail "There is no OpenSSH server, and no package manager that this script knows. Install it by other means."
    fi
    result=$?
    hash -r
    installed && return
    printf '%s\n' "$output" >&2
    fail "The OpenSSH server could not be installed (exit code $result): $(last_line "$output")"
}

# The service

version() {
    [ -n "$sshd" ] || return
    # Servers before 9.2 have no -V, and tell their version while they say so.
    "$sshd" -V 2>&1 </dev/null | sed -n 's/.*\(OpenSSH_[^ ,]*\).*/\1/p' | head -n 1
}

host_keys() {
    [ -n "$sshd" ] || return
    "$sshd" -T 2>/dev/null </dev/null | sed -n 's/^hostkey //p' | while IFS= read -r file; do
        # What sshd proves is the private key, whatever lies beside it. Without the comment, which is the machine's name for itself.
        public=$(ssh-keygen -y -P '' -f "$file" 2>/dev/null </dev/null)
        # An agent may keep the private one.
        [ -n "$public" ] || public=$(head -n 1 "$file.pub" 2>/dev/null)
        printf '%s\n' "$public" | cut -d ' ' -f 1,2
    done
}

make_host_keys() {
    before=$(ls /etc/ssh/ssh_host_*_key 2>/dev/null)
    output=$(ssh-keygen -A 2>&1 </dev/null) || fail "The host keys could not be made: $(last_line "$output")"
    after=$(ls /etc/ssh/ssh_host_*_key 2>/dev/null)
    [ "$before" = "$after" ] || changed=true
}

accepted() {
    # Whether sshd would start with its configuration. Sets $output, without the line ends that sshd writes for terminals.
    output=$("$sshd" -t 2>&1 </dev/null)
    result=$?
    output=$(printf '%s' "$output" | tr -d '\r')
    return "$result"
}

check_configuration() {
    accepted && return
    case $output in
        # Where there is one of them, the others are missing because somebody does not want them.
        *"no hostkeys available"*)
            make_host_keys
            accepted && return
            ;;
    esac
    case $output in
        *"Missing privilege separation directory: /"*)
            # Made when the service starts, and gone where it does not run.
            mkdir -p "${output##*directory: }"
            accepted && return
            ;;
    esac
    # The last line only counts the faults.
    fail "sshd does not accept its own configuration, so it was not started: $(printf '%s' "$output" | tr '\n' ' ')"
}

has_unit() {
    case $(systemctl show -p LoadState "$1" 2>/dev/null) in
        LoadState=loaded | LoadState=masked) ;;
        *) false ;;
    esac
}

start_unit() {
    case $(systemctl is-enabled "$1" 2>/dev/null) in
        masked*) fail "$1 is masked, so somebody does not want it to run. Unmask it with: systemctl unmask $1" ;;
        disabled)
            output=$(systemctl enable "$1" 2>&1) || fail "$1 could not be enabled: $(last_line "$output")"
            changed=true
            ;;
    esac
    systemctl is-active --quiet "$1" && return
    systemctl reset-failed "$1" 2>/dev/null
    output=$(systemctl start "$1" 2>&1) || fail "$1 could not be started: $(last_line "$output"). See: journalctl -u $1"
    changed=true
}

start_server() {
    [ -d /run/systemd/system ] || fail "systemd does not run here, so sshd cannot be started as a service."
    for unit in ssh.socket sshd.socket; do
        if systemctl is-enabled --quiet "$unit" 2>/dev/null || systemctl is-active --quiet "$unit" 2>/dev/null; then
            # sshd is started by its first connection.
            start_unit "$unit"
            ports=$(systemctl show -p Listen "$unit" | grep -Eo '[0-9]+ \(Stream\)' | cut -d ' ' -f 1 | sort -nu)
            return
        fi
    done
    unit=sshd.service
    # An alias of it may be known only once it is enabled.
    has_unit ssh.service && unit=ssh.service
    start_unit "$unit"
    # An address may have a port of its own, whatever the line with the port says.
    ports=$("$sshd" -T 2>/dev/null </dev/null | sed -n 's/^listenaddress [^ ]*:\([0-9]*\).*/\1/p' | sort -nu)
}

listening() {
    # Address and port of everything that listens for TCP connections.
    if command -v ss >/dev/null; then
        ss -Hltn | awk '{ print $4 }'
    else
        # Port numbers are in base 16 here, and 0A means listening.
        cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' | sort -u |
            while read -r port; do printf '*:%d\n' "0x$port"; done
    fi
}

listeners() {
    all=$(listening)
    for port in $ports; do
        printf '%s\n' "$all" | grep -E ":$port\$"
    done
}

await_listeners() {
    tries=0
    while true; do
        missing=
        all=$(listening)
        for port in $ports; do
            printf '%s\n' "$all" | grep -Eq ":$port\$" || missing="$missing $port"
        done
        [ -z "$missing" ] && break
        tries=$((tries + 1))
        [ "$tries" -lt 20 ] || fail "sshd was started, but nothing listens on port$missing. See: journalctl -u ssh -u sshd"
        sleep 0.5
    done
    # Azure Arc comes from the machine itself.
    all=$(listeners)
    printf '%s\n' "$all" | grep -Eq '^(\*|0\.0\.0\.0|127\..*|\[::(1|ffff:127\..*)?\]):[0-9]+$' ||
        fail "sshd listens on $(printf '%s' "$all" | tr '\n' ' ') only, and Azure Arc connects to localhost. Let it listen on 127.0.0.1 too (ListenAddress)."
}

# The user

make_user() {
    getent passwd "$user" >/dev/null && return
    [ "${ARCFLEET_CREATE_USER-}" = yes ] || fail "There is no user $user. Create it, or let it be created."
    shell=/bin/sh
    [ -x /bin/bash ] && shell=/bin/bash
    # No password fits a star, and the account is not locked by it as it would be without.
    output=$(useradd -m -s "$shell" -p '*' -- "$user" 2>&1) || fail "The user $user could not be created: $(last_line "$output")"
    changed=true
}

allow_sudo() {
    [ "${ARCFLEET_SUDO-}" = yes ] && [ "$user" != root ] || return 0
    command -v visudo >/dev/null || fail "There is no sudo, so $user cannot become root. Install it, or let root log in."
    # sudo does not read files whose names have a dot.
    file=/etc/sudoers.d/arcfleet-$(printf '%s' "$user" | tr '.@' '__')
    rule="$user ALL=(ALL:ALL) NOPASSWD: ALL"
    [ "$(cat "$file" 2>/dev/null)" = "$rule" ] && return
    # Runs that were killed may have left one.
    rm -f /etc/sudoers.d/.arcfleet.??????
    part=$(mktemp /etc/sudoers.d/.arcfleet.XXXXXX) || fail "Nothing can be written in /etc/sudoers.d."
    if printf '%s\n' "$rule" >"$part" && chmod 0440 "$part" && visudo -qcf "$part" >&2 && mv -f "$part" "$file"; then
        changed=true
    else
        rm -f "$part"
        fail "sudo does not accept its new rule for $user."
    fi
}

find_key_file() {
    # Sets $file: where sshd looks for the keys of the user, by its own word.
    effective=$("$sshd" -T -C "user=$user,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=${ports%%"$newline"*}" 2>/dev/null </dev/null)
    case "$newline$effective$newline" in
        *"${newline}pubkeyauthentication no$newline"*) fail "sshd is configured to accept no keys of $user (PubkeyAuthentication no)." ;;
        *"${newline}permitrootlogin no$newline"*)
            [ "$user" != root ] || fail "sshd is configured to keep root out (PermitRootLogin no). Let another user in (arc_sshd_user)."
            ;;
    esac
    file=$(printf '%s\n' "$effective" | sed -n 's/^authorizedkeysfile //p' | cut -d ' ' -f 1)
    case ${file:-none} in
        none) fail "sshd is configured to look for no file with keys of $user (AuthorizedKeysFile)." ;;
    esac
    file=$(printf '%s' "$file" | sed "s|%h|$home|g; s|%u|$user|g; s|%U|$(id -u "$user")|g; s|%%|%|g")
    case $file in
        /*) ;;
        *) file=$home/$file ;;
    esac
}

# Runs as the user whose file it is, so that links in a home directory lead nobody astray. Arguments: the file, the umask, the mode of its
# folder (empty: as it is), its own mode. Standard input: the keys. Exit code 10: everything was right already.
# shellcheck disable=SC2016
add_keys='
set -u
file=$1
umask "$2"
folder=$(dirname "$file")
same=true
if [ ! -d "$folder" ]; then
    mkdir -p "$folder" || exit 1
    same=false
fi
if [ -n "$3" ] && [ -n "$(find "$folder" -prune ! -perm "$3")" ]; then
    chmod "$3" "$folder" || exit 1
    same=false
fi
if [ -e "$file" ] && [ -n "$(find -H "$file" -prune ! -perm "$4")" ]; then
    chmod "$4" "$file" || exit 1
    same=false
fi
lacking=
while IFS= read -r line; do
    key=$(printf "%s\n" "$line" | grep -Eo "(ssh|ecdsa|sk)-[^[:space:]]+[[:space:]]+[A-Za-z0-9+/]{40,}={0,3}" | head -n 1)
    key=${key##*[[:space:]]}
    [ -n "$key" ] || continue
    if [ -e "$file" ] && awk -v key="$key" "
        !/^[[:space:]]*#/ { for (i = 1; i <= NF; i++) if (\$i == key) found = 1 }
        END { exit !found }" "$file"; then
        continue
    fi
    lacking="$lacking$line
"
done
if [ -n "$lacking" ]; then
    target=$(readlink -f "$file") || target=$file
    # Runs that were killed may have left one.
    rm -f "$target".arcfleet.??????
    part=$(mktemp "$target.arcfleet.XXXXXX") || exit 1
    # The last line may lack its end.
    if { [ ! -e "$target" ] || awk 1 "$target"; } >"$part" && printf "%s" "$lacking" >>"$part" && sync "$part" && chmod "$4" "$part" &&
        mv -f "$part" "$target"; then
        same=false
    else
        rm -f "$part"
        exit 1
    fi
fi
if "$same"; then exit 10; fi
'

add_keys_as() {
    # $1: the user whose file it is; then the arguments of add_keys.
    as=$1
    shift
    if [ "$as" = root ]; then
        printf '%s\n' "$keys" | sh -c "$add_keys" add-keys "$@" 2>&1
    elif command -v runuser >/dev/null; then
        printf '%s\n' "$keys" | HOME=$home runuser -u "$as" -- sh -c "$add_keys" add-keys "$@" 2>&1
    else
        echo "runuser is missing, which would do it as $as."
        return 1
    fi
}

let_in() {
    [ -n "$keys" ] || return 0
    home=$(getent passwd "$user" | cut -d : -f 6)
    [ -d "$home" ] || fail "The home directory of $user, $home, does not exist, so there is no place for the key."
    find_key_file
    case $file in
        "$home"/*/*) output=$(add_keys_as "$user" "$file" 077 700 600) ;;
        "$home"/*) output=$(add_keys_as "$user" "$file" 077 '' 600) ;;
        # sshd reads it with the rights of the user.
        *) output=$(add_keys_as root "$file" 022 '' 644) ;;
    esac
    case $? in
        0) changed=true ;;
        10) ;;
        *) fail "The key could not be written into $file: $(last_line "$output")" ;;
    esac
    if command -v selinuxenabled >/dev/null && selinuxenabled; then
        restorecon -R "$(dirname "$file")" >&2
    fi
    case $file in
        "$home"/*)
            [ -z "$(find -H "$home" -prune -perm /022)" ] ||
                fail "Others may write in $home, so sshd does not trust the keys there. Take that right from them: chmod go-w $home"
            ;;
    esac
}

trap report EXIT
trap stopped HUP INT TERM
[ "$(id -u)" = 0 ] || fail "The script has to be run as root, as Azure's run command does."
check_input
if ! installed; then
    changed=true
    install_server
fi
check_configuration
start_server
await_listeners
make_user
allow_sudo
let_in
