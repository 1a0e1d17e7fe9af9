# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which texts does a wish for sshd come to, and what in other people's lines keeps users out?"""

from __future__ import annotations

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils import _sshd
from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._sshd import Configuration, SshdError, Wanted

MAIN = "/etc/ssh/sshd_config"
GLOB = "/etc/ssh/sshd_config.d/*.conf"
OWN = "/etc/ssh/sshd_config.d/00-arcfleet.conf"
CLOUD = "/etc/ssh/sshd_config.d/50-cloud-init.conf"
DEBIAN = f"# A comment\n\nInclude {GLOB}\n\n#Port 22\nUsePAM yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
ENTRA_CRITERIA = "User *@*,????????-????-????-????-????????????    # Added by aadsshlogin installer"
ENTRA = f"""Match {ENTRA_CRITERIA}
    AuthenticationMethods publickey
    AuthorizedKeysCommand /usr/sbin/aad_certhandler %u %k
"""


def configuration(main: str = DEBIAN, **others: str) -> Configuration:
    """A main file, and files in sshd_config.d by what comes before .conf."""
    files = {f"/etc/ssh/sshd_config.d/{name.replace('_', '-')}.conf": text for name, text in others.items()}
    included = {GLOB: sorted(files)} if "Include" in main else {}
    return Configuration(MAIN, {MAIN: main, **(files if included else {})}, included)


def after(before: Configuration, wanted: Wanted) -> Configuration:
    """The configuration once the plan was carried out."""
    files = {path: text for path, text in {**before.files, **_sshd.plan(before, wanted)}.items() if text is not None}
    return Configuration(MAIN, files, {glob: sorted(set(files) - {MAIN}) for glob in before.included})


class TestLines:
    def test_values(self) -> None:
        lines = _sshd.lines_for(
            {"X11Forwarding": False, "MaxAuthTries": 6, "usepam": True, "Banner": "/etc/a b", "LogLevel": None}
        )
        assert lines == (("Banner", "/etc/a b"), ("MaxAuthTries", "6"), ("usepam", "yes"), ("X11Forwarding", "no"))

    def test_a_list_is_what_the_keyword_has(self) -> None:
        lines = _sshd.lines_for(
            {
                "AllowUsers": ["a", "b"],
                "Ciphers": ["-*-cbc", "3des-cbc"],
                "AuthenticationMethods": ["publickey", "password"],
                "PerSourcePenaltyExemptList": ["127.0.0.0/8", "::1/128"],
            }
        )
        assert lines == (
            ("AllowUsers", "a"),
            ("AllowUsers", "b"),
            ("AuthenticationMethods", "publickey password"),
            ("Ciphers", "-*-cbc,3des-cbc"),
            ("PerSourcePenaltyExemptList", "127.0.0.0/8,::1/128"),
        )

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"Port": 22}, "Use `ports`"),
            ({"listenaddress": "::"}, "Use `listen`"),
            ({"Match": "all"}, "Match cannot be one of the settings"),
            ({"Include": "/x"}, "Include cannot be one of the settings"),
            ({"Banner": "a\nPermitRootLogin yes"}, "Banner has to be one line"),
            ({"Banner": ""}, "Banner has to be one line"),
            ({"Banner": {"a": 1}}, "Banner has to be one line"),
            ({"Banner": ["a\r"]}, None),
            ({"Banner": ["a\rb"]}, "Banner has to be one line"),
            ({"AllowUsers": []}, "AllowUsers has an empty list"),
            ({"a b": 1}, "'a b' is not a keyword"),
            ({"# x": 1}, "is not a keyword"),
        ],
    )
    def test_what_cannot_be_a_setting(self, settings: dict[str, object], said: str | None) -> None:
        if said is None:
            assert _sshd.lines_for(settings)
            return
        with pytest.raises(InputError, match=said):
            _sshd.lines_for(settings)


class TestReading:
    def test_order_files_and_blocks(self) -> None:
        found = _sshd.directives(
            configuration(DEBIAN + ENTRA, a="Port=2222\nMatch user x\n banner none", b='UsePAM "no" # why')
        )
        assert [(one.keyword, one.value, one.match) for one in found] == [
            ("include", GLOB, None),
            ("port", "2222", None),
            ("match", "user x", "user x"),
            ("banner", "none", "user x"),
            ("usepam", '"no" # why', None),
            ("usepam", "yes", None),
            ("subsystem", "sftp /usr/lib/openssh/sftp-server", None),
            ("match", ENTRA_CRITERIA, ENTRA_CRITERIA),
            ("authenticationmethods", "publickey", ENTRA_CRITERIA),
            ("authorizedkeyscommand", "/usr/sbin/aad_certhandler %u %k", ENTRA_CRITERIA),
        ]
        assert str(found[1]) == "/etc/ssh/sshd_config.d/a.conf line 1"
        assert _sshd.words('"a b" c # d') == ["a b", "c"]

    def test_a_file_that_includes_itself(self) -> None:
        loop = Configuration(MAIN, {MAIN: f"Include {MAIN}\n"}, {MAIN: [MAIN]})
        assert len(_sshd.directives(loop)) == 17

    @pytest.mark.parametrize(
        ("main", "own"),
        [
            (DEBIAN, OWN),
            ("Include sshd_config.d/*.conf\n", OWN),
            (f"Include /etc/crypto/x.conf {GLOB}\n", OWN),
            (f"UsePAM yes\nInclude {GLOB}\n", None),
            ("Include /etc/ssh/other.d/*.conf\n", None),
            ("Include /etc/ssh/sshd_config.d/50-*.conf\n", None),
            (f"Match all\nInclude {GLOB}\n", None),
            ("", None),
        ],
    )
    def test_where_our_lines_go(self, main: str, own: str | None) -> None:
        assert _sshd.place(configuration(main)) == own


class TestPlan:
    def test_our_own_file(self) -> None:
        planned = _sshd.plan(configuration(), Wanted((("MaxStartups", "100"),)))
        assert planned == {OWN: f"{_sshd.NOTE}\nMaxStartups 100\n"}

    @pytest.mark.parametrize("main", [DEBIAN, "UsePAM yes\n", "UsePAM yes", ""])
    @pytest.mark.parametrize(
        "wanted",
        [
            Wanted((("MaxStartups", "100"), ("AllowUsers", "a"))),
            Wanted((), (2222,)),
            Wanted((), (22, 2222), True),
            Wanted((), (), True),
        ],
    )
    def test_done_twice_is_done_once_and_undone_is_as_it_was(self, main: str, wanted: Wanted) -> None:
        before = configuration(main, **{"50_cloud_init": "Port 2200\nListenAddress 10.0.0.1\n"})
        if wanted.ports and not wanted.loopback:
            before = configuration(main, **{"50_cloud_init": "port 2200\n"})
        then = after(before, wanted)
        assert _sshd.plan(then, wanted) == {}
        assert after(then, Wanted()).files == before.files
        assert _sshd.plan(before, Wanted()) == {}

    def test_a_block_at_the_top_where_nothing_is_included_first(self) -> None:
        then = after(configuration("UsePAM yes\n" + ENTRA), Wanted((("UsePAM", "no"),)))
        text = then.files[MAIN]
        assert text.startswith(f"{_sshd.BEGIN}\n") and text.endswith(ENTRA) and text.count("UsePAM") == 2
        assert [one.value for one in _sshd.directives(then) if one.keyword == "usepam"] == ["no", "yes"]

    def test_a_file_of_ours_that_is_not_read_first_any_more_goes(self) -> None:
        before = configuration(f"UsePAM yes\nInclude {GLOB}\n", **{"00_arcfleet": "MaxStartups 1\n"})
        then = after(before, Wanted((("MaxStartups", "2"),)))
        assert OWN not in then.files and "MaxStartups 2" in then.files[MAIN]

    def test_lines_of_ports_add_up_so_those_of_others_are_put_aside(self) -> None:
        before = configuration(DEBIAN.replace("#Port", "Port"), **{"50_cloud_init": "  port=2200\nUsePAM yes\n"})
        then = after(before, Wanted((), (2222, 22)))
        assert then.files[CLOUD] == f"{_sshd.ASIDE}  port=2200\nUsePAM yes\n"
        assert [one.value for one in _sshd.directives(then) if one.keyword == "port"] == ["2222", "22"]
        then = after(then, Wanted((), (2222,)))
        assert [one.value for one in _sshd.directives(then) if one.keyword == "port"] == ["2222"]

    @pytest.mark.parametrize(("main", "ports"), [(DEBIAN, (22,)), ("Port 22\nPort 2222\n", (2222, 22))])
    def test_ports_that_are_right_need_no_line_of_ours(self, main: str, ports: tuple[int, ...]) -> None:
        assert _sshd.plan(configuration(main), Wanted((), ports)) == {}

    def test_a_port_in_an_address_is_not_ours_to_change(self) -> None:
        before = configuration("ListenAddress 10.0.0.1:22\n")
        with pytest.raises(SshdError, match=r"sshd_config line 1: ListenAddress 10.0.0.1:22 has a port of its own"):
            _sshd.plan(before, Wanted((), (2222,)))
        assert _sshd.plan(before, Wanted((), (22,))) == {}

    def test_the_distributions_own_file_is_not_changed(self) -> None:
        vendor = "/usr/etc/ssh/sshd_config"
        with pytest.raises(SshdError, match="belongs to the distribution"):
            _sshd.plan(Configuration(vendor, {vendor: "UsePAM yes\n"}, {}), Wanted((("UsePAM", "no"),)))

    def test_other_line_ends_stay(self) -> None:
        before = configuration("Port 2200\r\nUsePAM yes\r\n")
        assert after(after(before, Wanted((), (22, 2222))), Wanted()).files == before.files


class TestCandidate:
    def test_copies_that_read_only_copies(self) -> None:
        before = configuration(**{"50_cloud_init": "UsePAM no\n"})
        texts, copies = _sshd.candidate(before, {OWN: "MaxStartups 1\n"}, "/tmp/x")
        main = next(iter(texts))
        by_path = {path: copy for copy, path in copies.items()}
        assert copies[main] == MAIN
        assert f"Include {by_path[OWN]} {by_path[CLOUD]}\n" in texts[main] and "/etc/ssh" not in texts[main]

    def test_a_file_that_goes_is_not_read(self) -> None:
        before = configuration(**{"00_arcfleet": "MaxStartups 1\n"})
        texts, copies = _sshd.candidate(before, {OWN: None}, "/tmp/x")
        assert list(copies.values()) == [MAIN] and f"#Include {GLOB}" in next(iter(texts.values()))

    def test_messages_name_the_real_file(self) -> None:
        assert _sshd.real("/t/1.conf line 3: bad", {"/t/1.conf": OWN, "/t/11.conf": MAIN}) == f"{OWN} line 3: bad"
        assert _sshd.real("/t/11.conf line 3: bad", {"/t/1.conf": OWN, "/t/11.conf": MAIN}) == f"{MAIN} line 3: bad"


EFFECTIVE = "port 22\nport 2222\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:2222\nusepam yes\nciphers a,b\n"


class TestEffective:
    def test_output(self) -> None:
        found = _sshd.parse_effective(EFFECTIVE)
        assert found["port"] == ["22", "2222"] and found["ciphers"] == ["a,b"]
        assert _sshd.ports_of(found) == [22, 2222]
        assert _sshd.ports_of({"port": ["22"], "listenaddress": ["10.0.0.1:2200"]}) == [2200]

    def test_names(self) -> None:
        found = {"kbdinteractiveauthentication": ["no"], "usepam": ["yes"]}
        wanted = Wanted((("ChallengeResponseAuthentication", "no"), ("UsePAM", "yes"), ("Gone", "x")), (22,), True)
        assert _sshd.managed(wanted, found) == ["kbdinteractiveauthentication", "listenaddress", "port", "usepam"]

    def test_what_holds(self) -> None:
        assert _sshd.holds("allowusers", ["a"], ["b", "a"]) and not _sshd.holds("allowusers", ["a"], ["b"])
        assert _sshd.holds("port", ["22", "2"], ["2", "22"]) and not _sshd.holds("port", ["22"], ["2", "22"])
        assert not _sshd.holds("usepam", ["yes"], ["no"])

    @pytest.mark.parametrize(
        ("text", "version"), [("OpenSSH_9.2p1 Debian-2, OpenSSL", (9, 2)), ("OpenSSH_10.0p2", (10, 0)), ("x", None)]
    )
    def test_versions(self, text: str, version: tuple[int, int] | None) -> None:
        assert _sshd.parse_version(text) == version


class TestFindings:
    def found(
        self,
        main: str,
        asked: dict[str, list[str]] | None = None,
        relayed: dict[str, list[str]] | None = None,
        entra: dict[str, list[str]] | None = None,
        version: tuple[int, int] | None = (9, 2),
    ) -> list[str]:
        return _sshd.findings(_sshd.directives(configuration(main)), asked or {}, relayed or {}, entra or {}, version)

    def test_nothing_to_find(self) -> None:
        good = {"authorizedkeyscommand": ["/usr/sbin/aad_certhandler %u %k"]}
        assert self.found(DEBIAN + ENTRA, entra=good) == []

    @pytest.mark.parametrize("keyword", ["AllowUsers", "allowgroups", "DenyUsers", "DenyGroups"])
    def test_gates(self, keyword: str) -> None:
        (sentence,) = self.found(f"UsePAM yes\n{keyword} root\n")
        assert sentence.startswith(f"/etc/ssh/sshd_config line 2: {keyword.lower()} root.")

    def test_the_address_of_everybody(self) -> None:
        (sentence,) = self.found("Match Address 10.0.0.0/8\n  PasswordAuthentication no\n")
        assert "Match Address 10.0.0.0/8" in sentence and "127.0.0.1" in sentence
        assert self.found("Match User address\n") == []

    def test_a_block_that_says_something_else(self) -> None:
        (sentence,) = self.found(
            "Match User root\n  MaxAuthTries 2\n", {"maxauthtries": ["6"]}, {"maxauthtries": ["2"]}
        )
        assert sentence == f"{MAIN} line 2: logins through Azure Arc get maxauthtries 2 instead of 6."

    @pytest.mark.parametrize(
        ("relayed", "said"),
        [
            ({"pubkeyauthentication": ["no"]}, "PubkeyAuthentication is no"),
            ({"allowtcpforwarding": ["no"]}, "AllowTcpForwarding is off"),
            ({"listenaddress": ["10.0.0.1:22"]}, "sshd listens on 10.0.0.1:22 only"),
        ],
    )
    def test_what_counts_for_the_relay(self, relayed: dict[str, list[str]], said: str) -> None:
        (sentence,) = self.found(DEBIAN, relayed=relayed)
        assert said in sentence

    def test_penalties_for_all(self) -> None:
        on = {"persourcepenalties": ["crash:90 authfail:5"], "persourcepenaltyexemptlist": ["none"]}
        assert len(self.found(DEBIAN, relayed=on, version=(9, 8))) == 1
        assert (
            self.found(DEBIAN, relayed={**on, "persourcepenaltyexemptlist": ["127.0.0.0/8,::1/128"]}, version=(10, 0))
            == []
        )
        assert self.found(DEBIAN, relayed={"persourcepenalties": ["no"]}, version=(9, 9)) == []

    def test_entra_logins(self) -> None:
        (sentence,) = self.found(DEBIAN + ENTRA, entra={"authorizedkeyscommand": ["none"]})
        assert "an earlier Match block says something else" in sentence
        good = {"authorizedkeyscommand": ["/usr/sbin/aad_certhandler %u %k"]}
        (sentence,) = self.found(
            DEBIAN + ENTRA, entra={**good, "pubkeyacceptedalgorithms": ["ssh-ed25519,rsa-sha2-512"]}
        )
        assert "PubkeyAcceptedAlgorithms" in sentence
        fine = {**good, "pubkeyacceptedalgorithms": ["rsa-sha2-512-cert-v01@openssh.com"]}
        assert self.found(DEBIAN + ENTRA, entra=fine) == []


class TestSockets:
    CAT = "# /usr/lib/systemd/system/ssh.socket\n[Socket]\nListenStream=22\nAccept=no\n"

    def test_what_it_listens_on(self) -> None:
        assert _sshd.socket_listens(self.CAT) == ["22"]
        assert _sshd.socket_listens(self.CAT + "[Socket]\nListenStream=\nListenStream=0.0.0.0:2200\n") == [
            "0.0.0.0:2200"
        ]

    def test_what_we_drop_in(self) -> None:
        assert _sshd.socket_text(["22"], Wanted()) is None
        assert _sshd.socket_text(["[::]:22", "0.0.0.0:22"], Wanted((), (22,))) is None
        text = _sshd.socket_text(["22"], Wanted((), (22, 2222)))
        assert text == f"{_sshd.NOTE}\n[Socket]\nListenStream=\nListenStream=22\nListenStream=2222\n"
        text = _sshd.socket_text(["22"], Wanted((), (), True)) or ""
        assert text.endswith("ListenStream=\nListenStream=127.0.0.1:22\nListenStream=[::1]:22\n")
