# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can Entra ID login be installed on this machine, and does what is installed let Entra users in?

Pure: judges texts that were read on the machine, and what sshd says of a login. Sources: Microsoft's page on signing in to a Linux machine with Entra ID
(supported distributions, error codes), and what the installer of AADSSHLoginForLinux itself checks afterwards. Of sshd counts sshd_config(5): a
Match block that matches comes before what is said outside of any, and the first of several before the others. Private to arcfleet.ssh.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import _sshd
from ._sshd import ENTRA_COMMAND, ENTRA_USER, Directive

if TYPE_CHECKING:
    Effective = Mapping[str, Sequence[str]]

PACKAGE = "aadsshlogin"
SELINUX_PACKAGE = "aadsshlogin-selinux"
SELINUX_MODULE = "aad_permissions"
OBSOLETE_PACKAGE = "aadlogin"
# With one of these installed, the installer takes the package for SELinux as well.
POLICY_PACKAGES = {
    "apt": ("selinux-policy-default",),
    "dnf": ("selinux-policy-targeted",),
    "zypper": ("selinux-policy-targeted", "selinux-policy-minimum"),
}
# The newest one does not work there.
OLD_SLES_VERSION = "1.0.027980001"
# Where the installer and what it installs are executed.
EXECUTED = ("/var", "/var/lib")
REPOSITORY = "https://packages.microsoft.com"
# Login names as they are for a user and for a service principal.
USERS = (ENTRA_USER, "00000000-0000-0000-0000-000000000000")

_SUPPORTED: Mapping[str, tuple[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]]] = {
    # Each range from its first version to before its last.
    "almalinux": ("AlmaLinux 8 and 9", (((8,), (10,)),)),
    "azurelinux": ("Azure Linux 2 and 3", (((3,), (4,)),)),
    "mariner": ("Azure Linux 2 and 3", (((2,), (3,)),)),
    "debian": ("Debian 9 to 12", (((9,), (13,)),)),
    "opensuse-leap": ("openSUSE Leap 42.3 and 15.1 and later", (((42, 3), (43,)), ((15, 1), (16,)))),
    "ol": ("Oracle Linux 8 and 9", (((8,), (10,)),)),
    "rhel": ("RHEL 7.4 to 7.9, 8.3 and later, and 9", (((7, 4), (8,)), ((8, 3), (10,)))),
    "rocky": ("Rocky Linux 8 and 9", (((8,), (10,)),)),
    "sles": ("SLES 12, and 15.1 and later", (((12,), (13,)), ((15, 1), (16,)))),
    "ubuntu": ("Ubuntu 16.04 to 24.04", (((16, 4), (24, 5)),)),
}
_MANAGERS = {"debian": "apt", "ubuntu": "apt", "sles": "zypper", "opensuse-leap": "zypper"}
# Folders of the repository. Distributions that rebuild RHEL use its packages.
_RPM_FOLDERS = {
    **dict.fromkeys(("almalinux", "ol", "rhel", "rocky"), "rhel"),
    "sles": "sles",
    "opensuse-leap": "opensuse",
}

# What the block for Entra users says of each keyword, and how sshd may say that it comes to the same.
_BLOCK = {
    "authorizedkeyscommand": f"AuthorizedKeysCommand /usr/sbin/{ENTRA_COMMAND} %u %k",
    "authorizedkeyscommanduser": "AuthorizedKeysCommandUser root",
    "pubkeyauthentication": "PubkeyAuthentication yes",
    "authenticationmethods": "AuthenticationMethods publickey",
}
_REINSTALL = f"Install the package {PACKAGE} again, and let whatever writes this file keep what it says of Entra users."


@dataclass(frozen=True)
class Distribution:
    """What /etc/os-release says. `version` is VERSION_ID in numbers, empty where there is none."""

    id: str
    version: tuple[int, ...]
    name: str
    codename: str

    @property
    def manager(self) -> str:
        """The kind of its packages and of who installs them: apt, dnf or zypper."""
        return _MANAGERS.get(self.id, "dnf")


@dataclass(frozen=True)
class Obstacle:
    """What keeps Entra login from being installed: a code to ignore it by, and a sentence with its remedy."""

    code: str
    message: str


@dataclass(frozen=True)
class Registrations:
    """Where the package has to be registered. `selinux` is `None` where SELinux is off."""

    nsswitch: bool
    pam: bool
    sshd: bool
    selinux: bool | None = None


@dataclass(frozen=True)
class Login:
    """A login through Azure Arc, and what counts for it as `sshd -T -C` prints it."""

    user: str
    effective: Effective
    port: int = 22


@dataclass(frozen=True)
class Look:
    """What was seen of a machine. `said` are all lines of sshd's configuration, `unsafe` is why sshd will not run the command, if it will not."""

    said: Sequence[Directive]
    logins: Sequence[Login]
    registrations: Registrations
    installed: bool
    version: tuple[int, int] | None = None
    unsafe: str | None = None


@dataclass(frozen=True)
class Ground:
    """What was seen of a machine that matters before an installation. `unreachable` is why the repository is not to be had."""

    distribution: Distribution
    source: str = "extension"
    obsolete: bool = False
    mounts: str = ""
    repository: str = ""
    unreachable: str | None = None
    policy: Sequence[str] = field(default_factory=tuple)
    configured: bool = False


# ---- before the installation


def parse_os_release(text: str) -> Distribution:
    """The distribution by os-release(5)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            try:
                words = shlex.split(value)
            except ValueError:
                words = [value]
            found[name] = words[0] if words else ""
    version = tuple(int(part) for part in re.findall(r"\d+", found.get("VERSION_ID", "")))
    name = found.get("PRETTY_NAME") or f"{found.get('NAME', 'Linux')} {found.get('VERSION_ID', '')}".strip()
    # SLES for SAP is SLES with more on it.
    identifier = {"sles_sap": "sles"}.get(found.get("ID", "").lower(), found.get("ID", "").lower())
    return Distribution(identifier, version, name, found.get("VERSION_CODENAME", ""))


def supported(distribution: Distribution) -> bool:
    """Whether Microsoft supports Entra login there."""
    ranges = _SUPPORTED.get(distribution.id, ("", ()))[1]
    return any(low <= distribution.version < high for low, high in ranges)


def obstacles(ground: Ground) -> list[Obstacle]:
    """What keeps Entra login from being installed there, or from being supported."""
    found = []
    distribution = ground.distribution
    if not supported(distribution):
        names = sorted({name for name, _ranges in _SUPPORTED.values()})
        found.append(
            Obstacle(
                "UnsupportedDistribution",
                f"{distribution.name} is not among the distributions on which Entra login is supported ({'; '.join(names)}).",
            )
        )
    if ground.obsolete:
        found.append(
            Obstacle(
                "ObsoletePackage",
                f"The obsolete package {OBSOLETE_PACKAGE} is installed, with which {PACKAGE} refuses to be (exit code 23 or 53). Remove it and the "
                "extension AADLoginForLinux first; where its removal fails, delete /var/lib/dpkg/info/aadlogin.prerm before.",
            )
        )
    found += [
        Obstacle(
            "NoExec",
            f"{folder} is mounted noexec ({point}), so the installation fails there (exit code 64). Mount it without noexec.",
        )
        for folder, point in noexec(ground.mounts)
    ]
    if _old_sles(distribution) and ground.source == "extension":
        found.append(
            Obstacle(
                "OldSles",
                f"The extension installs the newest {PACKAGE}, which does not work on {distribution.name}. "
                f"Install version {OLD_SLES_VERSION} from packages (arc_entra_login_source: packages).",
            )
        )
    if ground.source == "packages" and ground.repository and not ground.configured and repository(ground) is None:
        found.append(
            Obstacle(
                "NoRepository",
                f"Where the packages for {distribution.name} are in {ground.repository} is not known. Set the repository up yourself, and "
                "leave arc_entra_login_repository empty.",
            )
        )
    if ground.unreachable is not None:
        found.append(
            Obstacle(
                "RepositoryUnreachable",
                f"The machine cannot reach {ground.repository}: {ground.unreachable.rstrip('.')}. The packages come from there. Let it out to that "
                "address, or name its proxy.",
            )
        )
    return found


def noexec(mounts: str) -> list[tuple[str, str]]:
    """The folders from which nothing can be executed though that is needed, each with its mount point (proc(5): /proc/mounts)."""
    points: dict[str, Sequence[str]] = {}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) >= 4:
            # A later mount covers an earlier one at the same place.
            points[fields[1]] = fields[3].split(",")
    found = []
    for folder in EXECUTED:
        point = max((one for one in points if _below(folder, one)), key=len, default=None)
        if point is not None and "noexec" in points[point]:
            found.append((folder, point))
    return found


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _old_sles(distribution: Distribution) -> bool:
    return distribution.id == "sles" and distribution.version < (15, 6)


# ---- packages


def packages(ground: Ground) -> list[str]:
    """The packages to install. `policy` of the ground are the installed packages of SELinux policies."""
    plain = f"{PACKAGE}={OLD_SLES_VERSION}" if _old_sles(ground.distribution) else PACKAGE
    return [plain, SELINUX_PACKAGE] if ground.policy else [plain]


def repository(ground: Ground) -> dict[str, str] | None:
    """The file that describes the repository: `path`, `text`, the address of its `key`, and where that belongs; `None` where that is not known."""
    distribution, base = ground.distribution, ground.repository.rstrip("/")
    key = f"{base}/keys/microsoft.asc"
    if distribution.manager == "apt":
        if not distribution.codename:
            return None
        address = f"{base}/repos/microsoft-{distribution.id}-{distribution.codename}-prod"
        place = "/etc/apt/keyrings/microsoft-prod.asc"
        text = f"deb [signed-by={place}] {address} {distribution.codename} main\n"
        return {"path": "/etc/apt/sources.list.d/microsoft-prod.list", "text": text, "key": key, "key_path": place}
    folder = _RPM_FOLDERS.get(distribution.id)
    if folder is None or not distribution.version:
        return None
    etc = "/etc/zypp/repos.d" if distribution.manager == "zypper" else "/etc/yum.repos.d"
    lines = [
        "[microsoft-prod]",
        "name=microsoft-prod",
        f"baseurl={base}/{folder}/{distribution.version[0]}/prod/",
        "enabled=1",
        "gpgcheck=1",
        f"gpgkey={key}",
        "",
    ]
    return {"path": f"{etc}/microsoft-prod.repo", "text": "\n".join(lines), "key": key, "key_path": ""}


# ---- what is installed


def nss_serves(text: str, service: str = "aad") -> bool:
    """Whether the accounts of `service` are found (nsswitch.conf(5))."""
    for line in text.splitlines():
        database, colon, services = line.partition("#")[0].partition(":")
        if colon and database.strip() == "passwd" and service in re.sub(r"\[[^\]]*\]", " ", services).split():
            return True
    return False


def pam_uses(texts: Iterable[str], module: str = "pam_aad") -> bool:
    """Whether any of PAM's files uses a module."""
    return any(module in line.partition("#")[0] for text in texts for line in text.splitlines())


def block_of(said: Iterable[Directive]) -> Directive | None:
    """The line that asks the certificate handler."""
    return next((one for one in said if one.keyword == "authorizedkeyscommand" and ENTRA_COMMAND in one.value), None)


def leftovers(look: Look) -> list[str]:
    """What is registered though it should not be, one sentence each."""
    block = block_of(look.said)
    there = look.registrations
    found = [f"The package {PACKAGE} is still installed."] if look.installed else []
    if block is not None:
        found.append(f"{block}: sshd still asks {ENTRA_COMMAND}. Remove the block that this line is in.")
    if there.nsswitch:
        found.append("/etc/nsswitch.conf still asks aad for accounts. Remove the word.")
    if there.pam:
        found.append("A file in /etc/pam.d still uses pam_aad. Remove the line.")
    return found


def findings(look: Look) -> list[str]:
    """What keeps Entra users out of a machine on which Entra login should work, one sentence each."""
    if not look.installed and not look.registrations.sshd:
        return [f"Entra login is not installed: there is no {ENTRA_COMMAND}."]
    there = look.registrations
    found = []
    if not there.nsswitch:
        found.append(
            f"/etc/nsswitch.conf does not ask aad for accounts (passwd), so Entra users are unknown. {_REINSTALL}"
        )
    if not there.pam:
        found.append(f"No file in /etc/pam.d uses pam_aad. {_REINSTALL}")
    if there.selinux is False:
        found.append(
            f"SELinux is on and has no module {SELINUX_MODULE}, so sshd may not ask {ENTRA_COMMAND}. Install the package {SELINUX_PACKAGE}."
        )
    block = block_of(look.said)
    if block is None:
        found.append(
            f"No line of sshd's configuration asks {ENTRA_COMMAND}, though the package is installed. {_REINSTALL}"
        )
        return found
    if look.unsafe is not None:
        found.append(f"{block}: sshd will not run the command, because {look.unsafe}.")
    return [*found, *_shadows(look, block), *_gates(look), *_algorithms(look)]


def notes(look: Look) -> list[str]:
    """What users of the machine should know, one sentence each."""
    if look.version is not None and look.version < (7, 8):
        version = ".".join(map(str, look.version))
        option = "PubkeyAcceptedAlgorithms=+ssh-rsa-cert-v01@openssh.com"
        return [f"OpenSSH {version} takes certificates with SHA-1 signatures only: clients since 8.8 need {option}."]
    return []


def _shadows(look: Look, block: Directive) -> list[str]:
    """The lines that count instead of those of the block, one sentence for each."""
    users: dict[tuple[str, str, str], list[str]] = {}
    for login in look.logins:
        for keyword in _BLOCK:
            # sshd prints no command where none is set.
            values = list(login.effective.get(keyword, ["none"]))
            if not _as_in_block(keyword, values):
                found_at = str(culprit(look.said, keyword, values, login) or "")
                users.setdefault((keyword, " ".join(values), found_at), []).append(login.user)
    found = []
    for (keyword, value, line), names in users.items():
        spelled = _BLOCK[keyword]
        place = line or f"No line that could be found, but sshd says of {block.path}"
        found.append(
            f"{place}: {spelled.split(' ', maxsplit=1)[0]} {value} counts for {' and '.join(names)} instead of {spelled}, which is said for Entra users "
            f"in the block with {block}. Take the line away, or let its Match leave Entra users out."
        )
    return found


def _as_in_block(keyword: str, values: Sequence[str]) -> bool:
    if keyword == "authorizedkeyscommand":
        return any(ENTRA_COMMAND in one for one in values)
    if keyword == "authenticationmethods":
        # Several lists of methods, of which one has to be gone through. Anything is as good.
        return any(one in ("any", "publickey") for value in values for one in value.split())
    return list(values) == [_BLOCK[keyword].partition(" ")[2]]


def culprit(said: Sequence[Directive], keyword: str, values: Sequence[str], login: Login) -> Directive | None:
    """The line that gives a login this value: the first in a Match block that matches, else the first outside of any."""
    names = {keyword, _sshd.ALIASES.get(keyword, keyword)}
    lines = [one for one in said if one.keyword in names]
    wanted = " ".join(values).lower()
    for one in lines:
        same = " ".join(_sshd.words(one.value)).lower() == wanted
        if one.match is not None and same and matches(one.match, login) is not False:
            return one
    return next((one for one in lines if one.match is None), None)


def matches(criteria: str, login: Login) -> bool | None:
    """Whether a Match block is for a login; `None` if that depends on what only sshd knows, such as groups."""
    words = [part for word in _sshd.words(criteria) for part in word.split("=", 1)]
    known = True
    while words:
        name = words.pop(0).lower()
        if name == "all":
            continue
        if name == "invalid-user":
            known = False
            continue
        patterns = (words.pop(0) if words else "").split(",")
        if name == "user":
            fits: bool | None = listed(login.user, patterns)
        elif name == "host":
            fits = listed("localhost", patterns)
        elif name in ("address", "localaddress"):
            fits = _addressed("127.0.0.1", patterns)
        elif name == "localport":
            fits = listed(str(login.port), patterns)
        else:
            fits = None
        if fits is False:
            return False
        known = known and fits is not None
    return True if known else None


def listed(text: str, patterns: Iterable[str]) -> bool:
    """Whether a list of patterns is for a text (ssh_config(5), PATTERNS): one has to match, and none of those behind an exclamation mark."""
    found = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        if _fits(text, pattern[1:] if negated else pattern):
            if negated:
                return False
            found = True
    return found


def _fits(text: str, pattern: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _addressed(address: str, patterns: Iterable[str]) -> bool:
    def within(pattern: str) -> bool:
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return _fits(address, pattern)

    negated = [one[1:] for one in patterns if one.startswith("!")]
    plain = [one for one in patterns if not one.startswith("!")]
    return any(map(within, plain)) and not any(map(within, negated))


def _gates(look: Look) -> list[str]:
    """What lets in only some users, or keeps some out."""
    found = []
    for keyword in _sshd.GATES:
        kept_out = [login.user for login in look.logins if _kept_out(keyword, login)]
        line = _sshd.opposing(look.said, keyword)
        if kept_out and line is not None:
            found.append(
                f"{line}: {line.keyword} {line.value}. {_sshd.GATES[keyword]} It keeps out {' and '.join(kept_out)}. Take it away, or put it into a Match "
                "block that leaves Entra users out."
            )
    return found


def _kept_out(keyword: str, login: Login) -> bool:
    values = [word for one in login.effective.get(keyword, ()) for word in one.split()]
    if not values:
        return False
    if keyword.endswith("groups"):
        # Members of what an Entra user is, is only known after the first login.
        return True
    named = any(_names(pattern, login.user) for pattern in values)
    return named if keyword == "denyusers" else not named


def _names(pattern: str, user: str) -> bool:
    """Whether a pattern of AllowUsers or DenyUsers is for a user, who comes from this machine itself. What follows the last @ is a host."""
    name, at, host = pattern.rpartition("@")
    if not at:
        return _fits(user, pattern)
    return _fits(user, name) and (_fits("localhost", host) or _addressed("127.0.0.1", [host]))


def _algorithms(look: Look) -> list[str]:
    """What lets sshd refuse the certificates, which are RSA and signed with SHA-2."""
    found = []
    effective = look.logins[0].effective if look.logins else {}
    accepted = _sshd.canonical("pubkeyacceptedalgorithms", effective)
    old = look.version is not None and look.version < (7, 8)
    for keyword, name, suffix in (
        (accepted, "PubkeyAcceptedAlgorithms", "-cert-v01@openssh.com"),
        (_sshd.canonical("casignaturealgorithms", effective), "CASignatureAlgorithms", ""),
    ):
        allowed = set(",".join(effective.get(keyword or "", ())).split(","))
        wanted = {f"rsa-sha2-256{suffix}", f"rsa-sha2-512{suffix}"}
        if keyword is not None and not old and not wanted & allowed:
            line = _sshd.opposing(look.said, keyword)
            found.append(
                f"{f'{line}: ' if line else ''}{name} has neither {' nor '.join(sorted(wanted))}, which the certificates of Entra users need."
            )
    return found


def result(ground: Ground, look: Look) -> dict[str, Any]:
    """What the module returns of what was seen."""
    wanted = repository(ground) if ground.repository and not ground.configured else None
    return {
        "installed": look.installed,
        "distribution": {
            "id": ground.distribution.id,
            "version": ".".join(map(str, ground.distribution.version)),
            "name": ground.distribution.name,
            "manager": ground.distribution.manager,
            "supported": supported(ground.distribution),
        },
        "obstacles": [{"code": one.code, "message": one.message} for one in obstacles(ground)],
        "registrations": {
            "nsswitch": look.registrations.nsswitch,
            "pam": look.registrations.pam,
            "sshd": look.registrations.sshd,
            "selinux": look.registrations.selinux,
        },
        "users": {
            login.user: {keyword: " ".join(login.effective.get(keyword, ())) or None for keyword in _BLOCK}
            for login in look.logins
        },
        "findings": findings(look),
        "leftovers": leftovers(look),
        "notes": notes(look),
        "packages": packages(ground),
        "repository": wanted,
    }
