# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the parts of bootstrap.sh do what they say that need no machine of their own?

Its functions are called by each shell that is here, without what follows them; programs of distributions that are not
here are stand-ins.
The whole script runs on machines in tests/machines.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import pwd
import shutil
import stat
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "roles" / "arc_sshd" / "files" / "bootstrap.sh"
FUNCTIONS = SCRIPT.read_text().partition("\ntrap report EXIT\n")[0]
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILdKc5vHjdOMRHZOF8n1yDWYjSzPJZ3H2UwJ5Q0iY1Rb"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherOtherOtherOtherOtherOtherOtherOtherOt"


@pytest.fixture(params=SHELLS)
def shell(request):
    """The command of a shell; bash as it is where it is sh."""
    return {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}[request.param]


def call(shell, commands, *, env=None, stdin=""):
    return subprocess.run(
        [*shell, "-c", f"{FUNCTIONS}\n{commands}"],
        input=stdin,
        capture_output=True,
        text=True,
        env=env or {},
        timeout=10,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("plain", "plain"),
        ('a "quote" and a \\ backslash', 'a "quote" and a \\ backslash'),
        ("tab\there\nand a line", "tab here and a line"),
        ("\x1b[31mred\x7f", " [31mred "),
        ("Straße", "Stra??e"),
        ("$(id) `id` %s %%", "$(id) `id` %s %%"),
        ("", ""),
    ],
)
def test_a_text_as_json(shell, given, told):
    done = call(shell, 'text "$GIVEN"', env={"GIVEN": given})
    assert json.loads(done.stdout) == told


def test_lines_as_json(shell):
    assert json.loads(call(shell, "array text", stdin='a"b\n\nc\n').stdout) == ['a"b', "c"]
    assert json.loads(call(shell, "array number", stdin="22\n2222\n").stdout) == [22, 2222]
    assert json.loads(call(shell, "array text", stdin="").stdout) == []


@pytest.mark.parametrize("commands", ["exit 0", "fail 'It is \"late\"'", "kill -TERM $$; sleep 1", "exit 5"])
def test_there_is_one_line_whatever_happens(shell, commands):
    done = call(shell, f"trap report EXIT; trap stopped HUP INT TERM; {commands}")
    told = json.loads(done.stdout)
    assert set(told) == {"arcfleet", "changed", "port", "listeners", "host_keys", "version", "problem"}
    assert (told["arcfleet"], told["changed"], told["host_keys"]) == (1, False, [])
    if "fail" in commands:
        assert told["problem"] == 'It is "late"' and done.returncode == 1
    if "TERM" in commands:
        assert "stopped" in told["problem"] and done.returncode == 1


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"{KEY} me@here and more",
        f'from="127.0.0.1",no-pty {KEY} x',
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJPN4L8=",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIE",
    ],
)
def test_public_keys(shell, line):
    assert call(shell, 'is_key "$LINE"', env={"LINE": line}).returncode == 0


@pytest.mark.parametrize(
    "line",
    ["", "hello", f"# {KEY}", "ssh-ed25519", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----", f"x{KEY}"],
)
def test_what_is_no_public_key(shell, line):
    assert call(shell, 'is_key "$LINE"', env={"LINE": line}).returncode == 1


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({}, None),
        ({"ARCFLEET_USER": "deploy", "ARCFLEET_KEY": KEY}, None),
        ({"ARCFLEET_USER": "first.last@example.org", "ARCFLEET_KEY": f"{KEY}\n\n{OTHER}\r\n"}, None),
        ({"ARCFLEET_USER": "-x"}, "ARCFLEET_USER"),
        ({"ARCFLEET_USER": "a;id"}, "ARCFLEET_USER"),
        ({"ARCFLEET_USER": "a b"}, "ARCFLEET_USER"),
        ({"ARCFLEET_USER": "a/../b"}, "ARCFLEET_USER"),
        ({"ARCFLEET_USER": "a\nb"}, "ARCFLEET_USER"),
        ({"ARCFLEET_USER": ".."}, "ARCFLEET_USER"),
        ({"ARCFLEET_USER": "0"}, "ARCFLEET_USER"),
        ({"ARCFLEET_KEY": f"{KEY}\nnonsense"}, "Line 2 of ARCFLEET_KEY"),
        ({"ARCFLEET_PATIENCE": "1;id"}, "ARCFLEET_PATIENCE"),
    ],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_input_is_checked(shell, env, problem, encoded):
    if encoded:
        env = {
            name: value if name == "ARCFLEET_PATIENCE" else f"base64:{base64.b64encode(value.encode()).decode()}"
            for name, value in env.items()
        }
    done = call(shell, "trap report EXIT; check_input", env=env)
    told = json.loads(done.stdout)["problem"]
    assert told is None if problem is None else problem in told
    assert done.returncode == (0 if problem is None else 1)


@pytest.mark.parametrize("name", ["ARCFLEET_USER", "ARCFLEET_KEY"])
def test_what_is_no_base_64_is_not_taken_for_empty(shell, name):
    done = call(shell, "trap report EXIT; check_input", env={name: "base64:%%%"})
    assert json.loads(done.stdout)["problem"] == f"{name} is not base 64."


@pytest.mark.parametrize(
    ("sockets", "problem"),
    [
        (["0.0.0.0:22", "[::]:22"], None),
        (["*:22"], None),
        (["127.0.0.1:22"], None),
        (["[::1]:22"], None),
        (["[::ffff:127.0.0.1]:22"], None),
        (["10.0.0.4:22", "127.0.0.1:2222"], "sshd listens on 10.0.0.4:22 only, and Azure Arc connects to localhost"),
        (["[fe80::1]%eth0:22", "0.0.0.0:222"], "sshd listens on [fe80::1]%eth0:22 only"),
        (["0.0.0.0:222"], "nothing listens on port 22."),
    ],
)
def test_sshd_has_to_listen_where_azure_arc_comes_from(shell, sockets, problem):
    shown = "".join(f"LISTEN 0 128 {one} 0.0.0.0:*\n" for one in sockets)
    # Not as a program on the PATH, which the script sets.
    commands = f"ss() {{ printf '%s' '{shown}'; }}; sleep() {{ :; }}; ports=22; trap report EXIT; await_listeners"
    told = json.loads(call(shell, commands).stdout)
    assert told["problem"] is None if problem is None else problem in told["problem"]
    assert told["listeners"] == [one for one in sockets if one.endswith(":22")]


def test_only_root_may(shell):
    user = (
        {}
        if os.geteuid()
        else {"user": pwd.getpwnam("nobody").pw_uid, "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    )
    done = subprocess.run(
        [*shell, "-s"], input=SCRIPT.read_text(), capture_output=True, text=True, env={}, cwd="/", check=False, **user
    )
    assert "root" in json.loads(done.stdout)["problem"] and done.returncode == 1


# Package managers

TOOLS = "awk cat cut date env grep head id mkdir sed sleep sort tail touch tr uname".split()


@pytest.fixture
def stand_ins(tmp_path):
    """A folder of programs with nothing of this machine in it but simple tools; a function that adds one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in (*TOOLS, "dash", "bash"):
        if path := shutil.which(tool):
            (folder / tool).symlink_to(path)

    def add(name, text):
        program = folder / name
        # What is there may be a link to this machine's own.
        program.unlink(missing_ok=True)
        program.write_text(
            f"#!{shutil.which('dash') or shutil.which('bash')}\nLOG={tmp_path}/log\nBIN={folder}\n{text}\n"
        )
        program.chmod(0o755)

    add.folder, add.log = folder, tmp_path / "log"
    return add


MAKE = 'printf "#!/bin/sh\\n" >"$BIN/sshd"; /bin/chmod 755 "$BIN/sshd"'


def install(shell, stand_ins, patience=0):
    stand_ins("sleep", "exit 0")
    commands = f"PATH={stand_ins.folder}; hash -r; patience={patience}; trap report EXIT; install_server"
    done = call([shutil.which(shell[0]), *shell[1:]], commands, env={})
    lines = stand_ins.log.read_text().splitlines() if stand_ins.log.exists() else []
    return json.loads(done.stdout)["problem"], lines


@pytest.mark.parametrize("manager", ["dnf", "tdnf", "yum", "microdnf"])
def test_every_package_manager_is_asked_in_its_own_words(shell, stand_ins, manager):
    stand_ins(manager, f'echo "{manager} $*" >>"$LOG"; {MAKE}')
    assert install(shell, stand_ins) == (None, [f"{manager} install -y openssh-server"])


def test_suse_has_two_names_for_it(shell, stand_ins):
    stand_ins("zypper", f'echo "$*" >>"$LOG"; case "$*" in *openssh-server) exit 104;; esac; {MAKE}')
    problem, lines = install(shell, stand_ins)
    assert problem is None and [line.split()[-1] for line in lines] == ["openssh-server", "openssh"]


def test_lists_are_fetched_where_they_are_missing(shell, stand_ins):
    stand_ins(
        "apt-get",
        f'echo "$*" >>"$LOG"; case "$*" in *update) touch "$LOG.lists";; *) [ -e "$LOG.lists" ] || exit 100; {MAKE};; esac',
    )
    problem, lines = install(shell, stand_ins)
    assert problem is None and [line.split()[-1] for line in lines] == ["openssh-server", "update", "openssh-server"]
    assert all("--force-confold" in line for line in lines)


def test_others_are_waited_for(shell, stand_ins):
    lock = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)"
    stand_ins(
        "apt-get",
        f'echo "$*" >>"$LOG"; if [ ! -e "$LOG.2" ]; then [ -e "$LOG.1" ] && touch "$LOG.2"; touch "$LOG.1"; echo "{lock}" >&2; exit 100; fi; {MAKE}',
    )
    problem, lines = install(shell, stand_ins, patience=60)
    assert problem is None and len(lines) == 3


def test_but_not_for_ever(shell, stand_ins):
    stand_ins("zypper", 'echo "System management is locked by the application with pid 7 (zypper)." >&2; exit 7')
    problem, _lines = install(shell, stand_ins, patience=0)
    assert "could not be installed" in problem and "System management is locked" in problem


def test_all_commands_together_wait_no_longer(shell, stand_ins):
    stand_ins("apt-get", 'echo "$*" >>"$LOG"; echo "E: Could not get lock /var/lib/dpkg/lock-frontend." >&2; exit 100')
    # Time passes by a minute with each look at it.
    stand_ins("date", 'echo x >>"$LOG.clock"; n=0; while read -r _; do n=$((n + 60)); done <"$LOG.clock"; echo $n')
    problem, lines = install(shell, stand_ins, patience=300)
    timeouts = [int(line.partition("Timeout=")[2].split()[0]) for line in lines]
    assert "Could not get lock" in problem and timeouts[0] <= 300 and timeouts[-1] == 0
    assert timeouts == sorted(timeouts, reverse=True)


def test_an_interrupted_dpkg_is_mended_once(shell, stand_ins):
    told = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."
    stand_ins("apt-get", f'[ -e "$LOG.mended" ] || {{ echo "{told}" >&2; exit 100; }}; {MAKE}')
    stand_ins("dpkg", 'echo "dpkg $*" >>"$LOG"; touch "$LOG.mended"')
    stand_ins("dpkg-query", "exit 1")
    assert install(shell, stand_ins) == (None, ["dpkg --configure -a --force-confdef --force-confold"])
    stand_ins("dpkg", 'echo "dpkg $*" >>"$LOG"; /bin/rm -f "$LOG.mended"')
    (stand_ins.folder / "sshd").unlink()
    pathlib.Path(f"{stand_ins.log}.mended").unlink()
    problem, _lines = install(shell, stand_ins)
    assert "dpkg was interrupted" in problem


def test_a_half_done_installation_does_not_count(shell, stand_ins):
    stand_ins("sshd", "exit 0")
    for status, whole in (
        ("install ok half-configured", 1),
        ("install ok unpacked", 1),
        ("install ok installed", 0),
        ("", 0),
    ):
        stand_ins("dpkg-query", f'printf "%s" "{status}"')
        done = call([shutil.which(shell[0]), *shell[1:]], f"PATH={stand_ins.folder}; hash -r; installed", env={})
        assert done.returncode == whole, status


def test_a_machine_without_a_package_manager(shell, stand_ins):
    problem, _lines = install(shell, stand_ins)
    assert "no package manager" in problem


# Keys


def add_keys(shell, file, *keys, umask="077", folder="700", mode="600"):
    program = FUNCTIONS.partition("\nadd_keys='")[2].partition("\n'\n")[0]
    return subprocess.run(
        [*shell, "-c", program, "add-keys", str(file), umask, folder, mode],
        input="".join(f"{key}\n" for key in keys),
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_added_once(shell, tmp_path):
    file = tmp_path / ".ssh" / "authorized_keys"
    assert add_keys(shell, file, f"{KEY} me").returncode == 0
    assert (mode_of(file.parent), mode_of(file), file.read_text()) == (0o700, 0o600, f"{KEY} me\n")
    assert add_keys(shell, file, f"{KEY} me").returncode == 10
    assert add_keys(shell, file, f"{KEY} another comment", OTHER).returncode == 0
    assert file.read_text() == f"{KEY} me\n{OTHER}\n" and os.listdir(file.parent) == ["authorized_keys"]


def test_what_is_there_stays(shell, tmp_path):
    file = tmp_path / "authorized_keys"
    file.write_text(f'# {KEY}\ncommand="x" {OTHER} y')
    file.chmod(0o600)
    tmp_path.chmod(0o700)
    assert add_keys(shell, file, OTHER).returncode == 10
    assert add_keys(shell, file, KEY).returncode == 0
    assert file.read_text() == f'# {KEY}\ncommand="x" {OTHER} y\n{KEY}\n'


def test_modes_are_mended(shell, tmp_path):
    file = tmp_path / ".ssh" / "authorized_keys"
    file.parent.mkdir(mode=0o755)
    file.write_text(f"{KEY}\n")
    file.chmod(0o664)
    assert add_keys(shell, file, KEY).returncode == 0
    assert (mode_of(file.parent), mode_of(file)) == (0o700, 0o600)
    assert add_keys(shell, file, KEY).returncode == 10


def test_a_link_stays_a_link(shell, tmp_path):
    (tmp_path / "real").write_text("")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert add_keys(shell, tmp_path / "link", KEY).returncode == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == f"{KEY}\n"


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_loses_nothing(shell, tmp_path):
    file = tmp_path / "authorized_keys"
    file.write_text(f"{OTHER}\n")
    file.chmod(0o600)
    stand_in = tmp_path / "bin"
    stand_in.mkdir()
    # The copy goes where there is no room.
    (stand_in / "mktemp").write_text(f"#!/bin/sh\nln -s /dev/full {tmp_path}/part\necho {tmp_path}/part\n")
    (stand_in / "mktemp").chmod(0o755)
    program = FUNCTIONS.partition("\nadd_keys='")[2].partition("\n'\n")[0]
    done = subprocess.run(
        [shutil.which(shell[0]), *shell[1:], "-c", program, "add-keys", str(file), "077", "", "600"],
        input=f"{KEY}\n",
        capture_output=True,
        text=True,
        env={"PATH": f"{stand_in}:/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 1 and file.read_text() == f"{OTHER}\n"
    assert sorted(os.listdir(tmp_path)) == ["authorized_keys", "bin"]
