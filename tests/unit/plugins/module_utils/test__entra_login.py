# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is each machine judged rightly: whether Entra login can be installed there, and which line keeps Entra users out?"""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _entra_login, _sshd
from ansible_collections.arcfleet.ssh.plugins.module_utils._entra_login import (
    USERS,
    Ground,
    Login,
    Look,
    Registrations,
)
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import Configuration

MAIN = "/etc/ssh/sshd_config"
DROP_IN = "/etc/ssh/sshd_config.d/50-hardening.conf"
COMMAND = "/usr/sbin/aad_certhandler %u %k"
BLOCK = f"""\
Match User *@*,????????-????-????-????-????????????    # Added by aadsshlogin installer
    AuthenticationMethods publickey
    PubkeyAuthentication yes
    AuthorizedKeysCommand {COMMAND}
    AuthorizedKeysCommandUser root
"""
GOOD = {
    "authenticationmethods": ["publickey"],
    "pubkeyauthentication": ["yes"],
    "authorizedkeyscommand": [COMMAND],
    "authorizedkeyscommanduser": ["root"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519,rsa-sha2-512-cert-v01@openssh.com"],
    "casignaturealgorithms": ["ssh-ed25519,rsa-sha2-512"],
}
REGISTERED = Registrations(nsswitch=True, pam=True, sshd=True)
DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""


def look(
    *,
    main: str = f"Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n{BLOCK}",
    drop_in: str = "",
    installed: bool = True,
    registrations: Registrations = REGISTERED,
    version: tuple[int, int] | None = (9, 2),
    **effective: str,
) -> Look:
    """A machine on which these lines are said, and on which sshd says the values of `effective` of everybody, else what is good."""
    configuration = Configuration(MAIN, {MAIN: main, DROP_IN: drop_in}, {"/etc/ssh/sshd_config.d/*.conf": [DROP_IN]})
    values = {**GOOD, **{keyword: [value] for keyword, value in effective.items()}}
    logins = [Login(user, values) for user in USERS]
    return Look(_sshd.directives(configuration), logins, registrations, installed, version)


def ground(text: str = DEBIAN, **more: object) -> Ground:
    return Ground(_entra_login.parse_os_release(text), **more)  # type: ignore[arg-type]


def codes(found: Ground) -> list[str]:
    return [one.code for one in _entra_login.obstacles(found)]


class TestDistributions:
    def test_os_release(self) -> None:
        found = _entra_login.parse_os_release(f"# a comment\n\nVERSION='12 \"x\n{DEBIAN}")
        assert (found.id, found.version, found.codename, found.manager) == ("debian", (12,), "bookworm", "apt")
        assert found.name == "Debian GNU/Linux 12 (bookworm)"

    @pytest.mark.parametrize(
        ("identifier", "version", "expected"),
        [
            ("debian", "9", True),
            ("debian", "12", True),
            ("debian", "13", False),
            ("debian", None, False),
            ("ubuntu", "16.04", True),
            ("ubuntu", "24.04", True),
            ("ubuntu", "24.10", False),
            ("ubuntu", "26.04", False),
            ("rhel", "7.3", False),
            ("rhel", "7.9", True),
            ("rhel", "8.2", False),
            ("rhel", "8.10", True),
            ("rhel", "9.0", True),
            ("rhel", "10.0", False),
            ("rocky", "8.9", True),
            ("almalinux", "10.0", False),
            ("ol", "9.4", True),
            ("sles", "12.5", True),
            ("sles", "15", False),
            ("sles", "15.6", True),
            ("sles_sap", "15.5", True),
            ("opensuse-leap", "42.3", True),
            ("opensuse-leap", "15.6", True),
            ("mariner", "2.0", True),
            ("azurelinux", "3.0", True),
            ("amzn", "2023", False),
            ("fedora", "40", False),
        ],
    )
    def test_the_matrix(self, identifier: str, version: str | None, expected: bool) -> None:
        text = f"ID={identifier}\n" + (f'VERSION_ID="{version}"\n' if version else "")
        assert _entra_login.supported(_entra_login.parse_os_release(text)) is expected

    def test_an_unsupported_one_is_named_with_what_is_supported(self) -> None:
        (found,) = _entra_login.obstacles(ground(DEBIAN.replace("12", "13").replace("bookworm", "trixie")))
        assert found.code == "UnsupportedDistribution"
        assert "Debian GNU/Linux 13 (trixie) is not among" in found.message
        assert "Debian 9 to 12" in found.message


class TestObstacles:
    def test_none(self) -> None:
        assert codes(ground()) == []

    def test_the_obsolete_package(self) -> None:
        assert codes(ground(obsolete=True)) == ["ObsoletePackage"]

    def test_old_sles_needs_a_version_that_only_packages_have(self) -> None:
        text = 'ID=sles\nVERSION_ID="15.5"\nPRETTY_NAME="SLES 15 SP5"\n'
        assert codes(ground(text)) == ["OldSles"]
        assert codes(ground(text, source="packages")) == []
        assert _entra_login.packages(ground(text)) == ["aadsshlogin=1.0.027980001"]
        assert _entra_login.packages(ground(text.replace("15.5", "15.6"))) == ["aadsshlogin"]

    @pytest.mark.parametrize(
        ("mounts", "expected"),
        [
            ("/dev/sda / ext4 rw,relatime 0 0\n", []),
            ("/dev/sda / ext4 rw 0 0\n/dev/sdb /var ext4 rw,noexec 0 0\n", [("/var", "/var"), ("/var/lib", "/var")]),
            ("/dev/sdb /var ext4 rw 0 0\ntmpfs /var/lib tmpfs rw,nosuid,noexec 0 0\n", [("/var/lib", "/var/lib")]),
            ("/dev/sdb /var ext4 noexec 0 0\n/dev/sdc /var/lib ext4 rw 0 0\n", [("/var", "/var")]),
            ("/dev/sdb /var ext4 noexec 0 0\n/dev/sdb /var ext4 rw 0 0\n", []),
            ("tmpfs /var/tmp tmpfs noexec 0 0\n/x /variable ext4 noexec 0 0\n", []),
        ],
    )
    def test_noexec(self, mounts: str, expected: list[tuple[str, str]]) -> None:
        assert _entra_login.noexec(mounts) == expected
        assert codes(ground(mounts=mounts)) == ["NoExec"] * len(expected)

    def test_the_repository(self) -> None:
        (found,) = _entra_login.obstacles(ground(repository="https://mirror", unreachable="timed out"))
        assert found.code == "RepositoryUnreachable"
        assert "cannot reach https://mirror: timed out. " in found.message

    def test_a_distribution_whose_folder_is_not_known(self) -> None:
        text = 'ID=azurelinux\nVERSION_ID="3.0"\n'
        assert codes(ground(text, source="packages", repository="https://mirror")) == ["NoRepository"]
        assert codes(ground(text, source="packages", repository="https://mirror", configured=True)) == []
        assert codes(ground(text, source="packages")) == []
        assert codes(ground(text, repository="https://mirror")) == []


class TestPackages:
    def test_selinux(self) -> None:
        assert _entra_login.packages(ground(policy=["selinux-policy-default"])) == [
            "aadsshlogin",
            "aadsshlogin-selinux",
        ]

    def test_debian(self) -> None:
        assert _entra_login.repository(ground(repository="https://mirror/")) == {
            "path": "/etc/apt/sources.list.d/microsoft-prod.list",
            "text": "deb [signed-by=/etc/apt/keyrings/microsoft-prod.asc] https://mirror/repos/microsoft-debian-bookworm-prod bookworm main\n",
            "key": "https://mirror/keys/microsoft.asc",
            "key_path": "/etc/apt/keyrings/microsoft-prod.asc",
        }

    @pytest.mark.parametrize(
        ("text", "path", "address"),
        [
            ('ID=rocky\nVERSION_ID="9.4"\n', "/etc/yum.repos.d/microsoft-prod.repo", "https://m/rhel/9/prod/"),
            ('ID=sles\nVERSION_ID="15.6"\n', "/etc/zypp/repos.d/microsoft-prod.repo", "https://m/sles/15/prod/"),
        ],
    )
    def test_rpm(self, text: str, path: str, address: str) -> None:
        found = _entra_login.repository(ground(text, repository="https://m"))
        assert found is not None
        assert found["path"] == path
        assert f"\nbaseurl={address}\n" in found["text"]
        assert "\ngpgcheck=1\ngpgkey=https://m/keys/microsoft.asc\n" in found["text"]

    def test_the_repository_is_told_unless_it_is_set_up(self) -> None:
        told = _entra_login.result(ground(repository="https://m"), look())
        assert told["repository"]["key"] == "https://m/keys/microsoft.asc"
        assert _entra_login.result(ground(repository="https://m", configured=True), look())["repository"] is None
        assert _entra_login.result(ground(), look())["repository"] is None


class TestRegistrations:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("passwd:         files systemd aad\ngroup: files\n", True),
            ("passwd: files [NOTFOUND=continue] aad\n", True),
            ("passwd: files\ngroup: files aad\n", False),
            ("passwd: files # aad\n", False),
            ("# passwd: files aad\n", False),
            ("passwd: files aadx\n", False),
            ("", False),
        ],
    )
    def test_nsswitch(self, text: str, expected: bool) -> None:
        assert _entra_login.nss_serves(text) is expected

    def test_pam(self) -> None:
        assert _entra_login.pam_uses(["x", "account [default=ignore] pam_aad.so\n"])
        assert not _entra_login.pam_uses(["# account required pam_aad.so\n", ""])

    def test_a_machine_without_it(self) -> None:
        nothing = Registrations(nsswitch=False, pam=False, sshd=False)
        found = look(main="UsePAM yes\n", installed=False, registrations=nothing, authorizedkeyscommand="none")
        assert _entra_login.findings(found) == ["Entra login is not installed: there is no aad_certhandler."]
        assert _entra_login.leftovers(found) == []

    def test_what_is_left(self) -> None:
        found = _entra_login.leftovers(look(installed=False))
        assert found[0].startswith(f"{MAIN} line 6: sshd still asks aad_certhandler.")
        assert len(found) == 3
        assert _entra_login.leftovers(look())[0] == "The package aadsshlogin is still installed."

    def test_each_that_is_missing(self) -> None:
        registrations = Registrations(nsswitch=False, pam=False, sshd=True, selinux=False)
        found = _entra_login.findings(look(registrations=registrations))
        assert [words in one for words, one in zip(("nsswitch", "pam_aad", "aad_permissions"), found, strict=True)] == [
            True
        ] * 3

    def test_a_block_that_something_took_away(self) -> None:
        registrations = dataclasses.replace(REGISTERED, sshd=False)
        (found,) = _entra_login.findings(look(main="UsePAM yes\n", registrations=registrations))
        assert "No line of sshd's configuration asks aad_certhandler" in found

    def test_a_command_that_sshd_will_not_run(self) -> None:
        found = dataclasses.replace(look(), unsafe="/usr/sbin can be changed by others than root")
        assert _entra_login.findings(found) == [
            f"{MAIN} line 6: sshd will not run the command, because /usr/sbin can be changed by others than root."
        ]


class TestShadows:
    def test_nothing_to_find(self) -> None:
        assert _entra_login.findings(look()) == []
        assert _entra_login.findings(look(authenticationmethods="any")) == []
        assert _entra_login.findings(look(authenticationmethods="publickey,password publickey")) == []

    @pytest.mark.parametrize(
        ("criteria", "keyword", "value"),
        [
            ("User *", "AuthorizedKeysCommand", "/usr/bin/sss_ssh_authorizedkeys"),
            ("Address 127.0.0.0/8", "AuthenticationMethods", "publickey,keyboard-interactive"),
            ("all", "PubkeyAuthentication", "no"),
            ("Group *", "AuthorizedKeysCommandUser", "nobody"),
            ("Host localhost", "AuthorizedKeysCommand", "none"),
        ],
    )
    def test_a_match_block_before_that_of_the_package(self, criteria: str, keyword: str, value: str) -> None:
        drop_in = f"# Hardening\nMatch {criteria}\n  {keyword} {value}\n"
        (found,) = _entra_login.findings(look(drop_in=drop_in, **{keyword.lower(): value}))
        assert found.startswith(f"{DROP_IN} line 3: {keyword} {value} counts for {USERS[0]} and {USERS[1]} instead of ")
        assert f"in the block with {MAIN} line 6." in found

    def test_blocks_that_are_not_for_entra_users_are_not_blamed(self) -> None:
        drop_in = "Match User git\n PubkeyAuthentication no\nMatch User *@*\n PubkeyAuthentication no\n"
        found = look(drop_in=drop_in)
        other = Login(USERS[0], {**GOOD, "pubkeyauthentication": ["no"]})
        (sentence,) = _entra_login.findings(dataclasses.replace(found, logins=[other, found.logins[1]]))
        assert sentence.startswith(f"{DROP_IN} line 4: PubkeyAuthentication no counts for {USERS[0]} instead of")

    def test_a_line_outside_of_any_block_counts_where_the_block_lacks_it(self) -> None:
        main = f"PubkeyAuthentication no\n{BLOCK.replace('    PubkeyAuthentication yes', '')}"
        (found,) = _entra_login.findings(look(main=main, pubkeyauthentication="no"))
        assert found.startswith(f"{MAIN} line 1: PubkeyAuthentication no counts for")

    def test_what_no_line_says(self) -> None:
        look_ = look()
        login = Login(USERS[0], {keyword: value for keyword, value in GOOD.items() if "command" not in keyword})
        found = _entra_login.findings(dataclasses.replace(look_, logins=[login]))
        assert found[0].startswith(f"No line that could be found, but sshd says of {MAIN}: AuthorizedKeysCommand none")

    @pytest.mark.parametrize(
        ("criteria", "expected"),
        [
            ("all", True),
            ("User *@*,x", True),
            ("User !*@*,*", False),
            ("user *@EXAMPLE.org", False),
            ("User=*@example.org", True),
            ("User *@* Address 10.0.0.0/8", False),
            ("Address 127.0.0.1,::1", True),
            ("Address *,!127.0.0.0/8", False),
            ("LocalPort 22 Host local*", True),
            ("LocalPort 2222", False),
            ("Group wheel", None),
            ("Group wheel User git", False),
            ("invalid-user", None),
            ("User *  # User x", True),
        ],
    )
    def test_criteria(self, criteria: str, expected: bool | None) -> None:
        assert _entra_login.matches(criteria, Login(USERS[0], {})) is expected


class TestGates:
    @pytest.mark.parametrize(
        ("keyword", "value", "kept_out"),
        [
            ("AllowUsers", "root admin", True),
            ("AllowUsers", "*@*", False),
            ("AllowUsers", "*", False),
            ("AllowUsers", "someone@example.org", True),
            ("AllowUsers", "*@10.0.0.0/8", True),
            ("DenyUsers", "root", False),
            ("DenyUsers", "*@127.0.0.0/8", True),
            ("AllowGroups", "ssh", True),
            ("DenyGroups", "root", True),
        ],
    )
    def test_gates(self, keyword: str, value: str, kept_out: bool) -> None:
        found = _entra_login.findings(look(drop_in=f"{keyword} {value}\n", **{keyword.lower(): value}))
        assert bool(found) is kept_out
        if kept_out:
            assert found[0].startswith(f"{DROP_IN} line 1: {keyword.lower()} {value}. ")

    def test_a_gate_for_others_is_none(self) -> None:
        assert _entra_login.findings(look(drop_in="Match User git\n AllowUsers git\n")) == []


class TestAlgorithms:
    @pytest.mark.parametrize("keyword", ["pubkeyacceptedalgorithms", "casignaturealgorithms"])
    def test_rsa_is_needed(self, keyword: str) -> None:
        drop_in = f"{keyword} ssh-ed25519\n"
        (found,) = _entra_login.findings(look(drop_in=drop_in, **{keyword: "ssh-ed25519"}))
        assert found.startswith(f"{DROP_IN} line 1: ")
        assert "rsa-sha2-256" in found

    def test_old_servers_know_other_names(self) -> None:
        found = look(version=(7, 4), pubkeyacceptedalgorithms="ssh-rsa-cert-v01@openssh.com")
        assert _entra_login.findings(found) == []
        assert "OpenSSH 7.4 takes certificates with SHA-1" in _entra_login.notes(found)[0]
        assert _entra_login.notes(look()) == []


def test_the_result_has_what_the_module_documents() -> None:
    told = _entra_login.result(ground(obsolete=True), look())
    assert told["distribution"] == {
        "id": "debian",
        "version": "12",
        "name": "Debian GNU/Linux 12 (bookworm)",
        "manager": "apt",
        "supported": True,
    }
    assert told["obstacles"][0]["code"] == "ObsoletePackage"
    assert told["users"][USERS[0]]["authorizedkeyscommand"] == COMMAND
    assert told["registrations"] == {"nsswitch": True, "pam": True, "sshd": True, "selinux": None}
