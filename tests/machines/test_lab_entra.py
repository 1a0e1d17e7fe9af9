# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does Entra login work on the lab's machines as it does on real ones?

Judged by MSAL, ssh, ssh-keygen and sshd, without a line of the collection: who has a role gets in with a certificate alone, as
administrator or as user, and nobody else does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msal
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_public_key

from arclab import debian_package
from arclab.client import Lab
from arclab.tokens import AZURE_CLI

SCOPE = "https://pas.windows.net/CheckMyAccess/Linux/.default"
ADMIN, USER = "Virtual Machine Administrator Login", "Virtual Machine User Login"
ADMIN_DEFINITION = "/providers/Microsoft.Authorization/roleDefinitions/1c0163c0-47e6-4577-8991-ea5c82e286e4"
ASSIGNMENTS = "/providers/Microsoft.Authorization/roleAssignments"
EXTENSION = {"publisher": "Microsoft.Azure.ActiveDirectory", "type": "AADSSHLoginForLinux"}
VERSION = {"extensions": "2024-07-10", "roleAssignments": "2022-04-01"}


@pytest.fixture(scope="module")
def lab(machines: Callable[..., Lab]) -> Lab:
    """web01 has the extension from the beginning, db01, of the newer Debian, not even an SSH server."""
    return machines({"name": "web01", "extensions": [EXTENSION]}, {"name": "db01", "image": "bare", "suite": "trixie"})


@pytest.fixture(scope="module")
def arm(lab: Lab) -> Iterator[Callable[..., Any]]:
    """Ask ARM as the owner of everything."""
    with client(lab) as session:
        application = msal.ConfidentialClientApplication(
            lab.env["AZURE_CLIENT_ID"],
            lab.env["AZURE_SECRET"],
            authority(lab),
            instance_discovery=False,
            http_client=session,
        )
        token = application.acquire_token_for_client([f"{lab.url}/.default"])["access_token"]
        session.headers["Authorization"] = f"Bearer {token}"

        def ask(method: str, path: str, body: Any = None, **query: str) -> Any:
            version = VERSION["roleAssignments" if "/roleAssignments" in path else "extensions"]
            answer = session.request(method, lab.url + path, params={"api-version": version, **query}, json=body)
            answer.raise_for_status()
            return answer.json() if answer.content else None

        yield ask


def revoke(lab: Lab, arm: Callable[..., Any], one: Login) -> None:
    """Take away what the principal was given at web01."""
    scope = lab.machine("web01")["id"] + ASSIGNMENTS
    wanted = {"$filter": f"atScope() and principalId eq '{one.principal['object_id']}'"}
    for assignment in arm("GET", scope, **wanted)["value"]:
        arm("DELETE", assignment["id"])


def settled(arm: Callable[..., Any], path: str) -> dict[str, Any] | None:
    """The extension when the operation on it is over; `None` if it is gone."""
    while True:
        for extension in arm("GET", path.rpartition("/")[0])["value"]:
            if extension["properties"]["provisioningState"] in ("Creating", "Updating", "Deleting"):
                time.sleep(0.1)
                break
            return dict(extension["properties"])
        else:
            return None


def client(lab: Lab) -> requests.Session:
    """HTTP that trusts the lab, whatever this computer's environment says."""
    session = requests.Session()
    session.trust_env = False
    session.verify = lab.env["REQUESTS_CA_BUNDLE"]
    return session


def authority(lab: Lab) -> str:
    return f"{lab.url}/{lab.env['AZURE_TENANT']}"


class Login:
    """A service principal, or a `user` of the Azure CLI, with an RSA key and a certificate for it."""

    def __init__(self, lab: Lab, folder: Path, *roles: str, scope: str | None = None, user: str | None = None) -> None:
        self.lab = lab
        where = scope or lab.machine("web01")["id"]
        self.user = user
        self.folder = folder
        if user is None:
            self.principal = lab.principal("login", roles=list(roles), scope=where)
            self.name = self.principal["client_id"]
        else:
            self.principal = lab.principal(user, type="User", roles=list(roles), scope=where)
            self.name = user.lower()
        self.key = folder / self.name
        self.certificate = folder / f"{self.name}-cert.pub"
        self.new_key()
        self.renew()

    def new_key(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        self.key.unlink(missing_ok=True)
        self.key.touch(0o600)
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))

    def renew(self) -> None:
        """As az does it: the numbers are SSH's own, urlsafe and with their padding."""
        public = subprocess.run(["ssh-keygen", "-y", "-f", self.key], capture_output=True, check=True).stdout
        key = load_ssh_public_key(public)
        assert isinstance(key, rsa.RSAPublicKey)
        numbers = key.public_numbers()
        modulus, exponent = (
            base64.urlsafe_b64encode(one.to_bytes(one.bit_length() // 8 + 1, "big")).decode()
            for one in (numbers.n, numbers.e)
        )
        key_id = hashlib.sha256((modulus + exponent).encode()).hexdigest()
        jwk = {"kty": "RSA", "n": modulus, "e": exponent, "kid": key_id}
        data = {"token_type": "ssh-cert", "req_cnf": json.dumps(jwk), "key_id": key_id}
        common: dict[str, Any] = {
            "authority": authority(self.lab),
            "instance_discovery": False,
            "http_client": client(self.lab),
        }
        if self.user is None:
            secret = self.principal["secret"]
            answer = msal.ConfidentialClientApplication(self.name, secret, **common).acquire_token_for_client(
                [SCOPE], data=data
            )
        else:
            variables = self.lab.cli_login(self.folder / "azure", self.user)
            cache = msal.SerializableTokenCache()
            cache.deserialize(Path(variables["AZURE_CONFIG_DIR"], "msal_token_cache.json").read_text())
            application = msal.PublicClientApplication(AZURE_CLI, token_cache=cache, **common)
            account = application.get_accounts(self.user)[0]
            answer = application.acquire_token_silent_with_error([SCOPE], account, data=data)
        assert answer["token_type"] == "ssh-cert"
        self.certificate.write_text(f"ssh-rsa-cert-v01@openssh.com {answer['access_token']}\n")

    def ssh(self, command: str, machine: str = "web01") -> subprocess.CompletedProcess[str]:
        about = self.lab.machine(machine)
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-l", self.name, "-i", str(self.key)),
                *("-o", f"CertificateFile={self.certificate}", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
                *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                *("-o", "LogLevel=ERROR", about["address"], command),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def is_denied(self, machine: str = "web01") -> bool:
        done = self.ssh("true", machine)
        return done.returncode == 255 and "Permission denied (publickey" in done.stderr

    def reasons(self) -> set[str]:
        """Why the lab let nobody in; the bare key, which ssh offers too, is never good."""
        lines = self.lab.journal(kind="login", user=self.name, granted=False)
        return {line["reason"] for line in lines} - {"Login denied: what was presented is no RSA certificate"}


@pytest.fixture
def login(lab: Lab, tmp_path: Path) -> Callable[..., Login]:
    def make(*roles: str, **more: Any) -> Login:
        return Login(lab, tmp_path, *roles, **more)

    return make


def test_an_administrator_gets_sudo_without_any_key_on_the_machine(lab: Lab, login: Callable[..., Login]) -> None:
    one = login(ADMIN)
    done = one.ssh("id -un; id -Gn; sudo -n id -un; pwd")
    assert done.stdout.split() == [one.name, one.name, "aad_admins", "root", f"/home/{one.name}"], done.stderr
    assert one.name not in lab.shell("web01", "cat /etc/passwd").stdout
    assert lab.shell("web01", f"ls -A /home/{one.name}/.ssh", check=False).returncode != 0
    log = lab.shell("web01", "journalctl -q -t aad_certhandler -o cat").stdout
    assert f"; user: {one.name}" in log and f"Login granted; user: {one.name}" in log
    assert lab.certificate_requests()[one.name] == 1


def test_a_person_logs_in_with_the_lower_cased_name(lab: Lab, login: Callable[..., Login]) -> None:
    one = login(USER, user="Uma.User@arclab.onmicrosoft.example")
    done = one.ssh("id -un; pwd")
    assert done.stdout.split() == [one.name, f"/home/{one.name}"], done.stderr
    shown = subprocess.run(["ssh-keygen", "-L", "-f", one.certificate], capture_output=True, text=True, check=True)
    assert "Uma.User@" in shown.stdout


def test_a_user_gets_none_and_a_change_of_role_counts_at_the_next_login(
    lab: Lab, arm: Callable[..., Any], login: Callable[..., Login]
) -> None:
    one = login(USER)
    assert one.ssh("sudo -n id -un").returncode == 1
    path = f"{lab.machine('web01')['id']}{ASSIGNMENTS}/6f0f2b1e-2c0b-4a7e-9a40-0d5a4f0c7f11"
    properties = {
        "roleDefinitionId": ADMIN_DEFINITION,
        "principalId": one.principal["object_id"],
        "principalType": "ServicePrincipal",
    }
    arm("PUT", path, {"properties": properties})
    assert one.ssh("sudo -n id -un").stdout == "root\n"
    arm("DELETE", path)
    assert one.ssh("id -Gn").stdout.split() == [one.name]


def test_without_a_role_nobody_gets_in_and_the_machine_says_why(
    lab: Lab, arm: Callable[..., Any], login: Callable[..., Login]
) -> None:
    stranger = login("Owner")
    assert stranger.is_denied()
    assert f"Invalid user {stranger.name}" in lab.shell("web01", "journalctl -q -t sshd -o cat").stdout
    one = login(USER)
    assert one.ssh("true").returncode == 0
    revoke(lab, arm, one)
    assert one.is_denied()
    assert one.reasons() == {"Azure role not assigned"}
    log = lab.shell("web01", "journalctl -q -t aad_certhandler -o cat").stdout
    assert f"Azure role not assigned; user: {one.name}" in log


def test_a_changed_role_counts_after_the_delay(lab: Lab, arm: Callable[..., Any], login: Callable[..., Login]) -> None:
    one = login(USER)
    lab.setting(role_delay=3600)
    revoke(lab, arm, one)
    late = login(USER)
    assert one.ssh("true").returncode == 0
    assert late.is_denied()
    lab.setting(role_delay=0)
    assert late.ssh("true").returncode == 0
    assert one.is_denied()


def test_an_expired_certificate_is_refused_until_it_is_renewed(lab: Lab, login: Callable[..., Login]) -> None:
    lab.setting(certificate_seconds=0)
    one = login(USER)
    lab.setting(certificate_seconds=3600)
    assert one.is_denied()
    assert one.reasons() == {"Login denied: the certificate is expired or not yet valid"}
    one.renew()
    assert one.ssh("true").returncode == 0
    assert lab.certificate_requests()[one.name] == 2


def test_a_certificate_is_good_for_its_own_key_and_principal_only(
    lab: Lab, login: Callable[..., Login], tmp_path: Path
) -> None:
    one, other = login(USER), login(USER)
    own = one.certificate.read_text()
    one.certificate.write_text(other.certificate.read_text())
    assert one.is_denied()
    one.certificate.write_text(own)
    one.new_key()
    assert one.is_denied()
    one.renew()
    other.certificate.write_text(one.certificate.read_text())
    other.key.write_bytes(one.key.read_bytes())
    assert other.is_denied()
    assert other.reasons() == {f"Login denied: the certificate is for {one.name}"}
    forger = tmp_path / "forger"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", forger], check=True)
    sign = ["ssh-keygen", "-q", "-s", forger, "-I", "forged", "-n", other.name, "-V", "-5m:+1h", f"{other.key}.pub"]
    public = subprocess.run(["ssh-keygen", "-y", "-f", other.key], capture_output=True, check=True).stdout
    Path(f"{other.key}.pub").write_bytes(public)
    subprocess.run(sign, check=True)
    assert other.is_denied()
    assert "Login denied: the certificate was signed by an unknown authority" in other.reasons()


def test_without_the_agent_nobody_is_let_in(lab: Lab, login: Callable[..., Login]) -> None:
    one = login(USER)
    lab.shell("web01", "systemctl stop himdsd")
    try:
        assert one.is_denied()
        log = lab.shell("web01", "journalctl -q -t sshd -o cat").stdout
        assert "AuthorizedKeysCommand /usr/sbin/aad_certhandler" in log
    finally:
        lab.shell("web01", "systemctl start himdsd")
    assert one.ssh("true").returncode == 0


def test_sshd_lets_nobody_in_while_the_block_is_shadowed(lab: Lab, login: Callable[..., Login]) -> None:
    one = login(USER)
    shadow = "/etc/ssh/sshd_config.d/00-hardening.conf"
    lab.shell("web01", f"printf 'Match User *\\n  AuthorizedKeysCommand none\\n' >{shadow}; systemctl restart ssh")
    try:
        assert one.is_denied()
        assert not lab.journal(kind="login", user=one.name)
    finally:
        lab.shell("web01", f"rm {shadow}; systemctl restart ssh")
    assert one.ssh("true").returncode == 0


def test_accounts_come_back_after_a_reboot_and_a_waiting_extension_goes_on(
    lab: Lab, arm: Callable[..., Any], login: Callable[..., Login]
) -> None:
    one = login(USER)
    about = lab.machine("web01", "stop")
    path = f"{about['id']}/extensions/AADSSHLoginForLinux"
    arm("PUT", path, {"location": about["location"], "properties": EXTENSION})
    lab.machine("web01", "start")
    settled_again = settled(arm, path)
    assert settled_again is not None and settled_again["provisioningState"] == "Succeeded"
    lab.shell("web01", "systemctl start ssh")
    assert one.ssh("id -un").stdout.strip() == one.name


def test_the_extension_fails_as_the_installer_does_and_comes_and_goes(
    lab: Lab, arm: Callable[..., Any], login: Callable[..., Login]
) -> None:
    machine = lab.machine("db01")
    path = f"{machine['id']}/extensions/AADSSHLogin"
    body = {"location": machine["location"], "properties": EXTENSION}
    obsolete = debian_package.build(
        {"Package": "aadlogin", "Version": "1", "Architecture": "all", "Maintainer": "x", "Description": "x"}, {}, {}
    )
    for prepare, undo, sentence in (
        (
            f"echo {base64.b64encode(obsolete).decode()} | base64 -d >/tmp/a.deb; dpkg -i /tmp/a.deb",
            "dpkg -r aadlogin",
            "Non-zero exit code: 23. Detected obsolete packages. Please uninstall AADLoginForLinux first, then try again.",
        ),
        (
            "mv /opt/arclab/packages.microsoft.com /opt/arclab/away",
            "mv /opt/arclab/away /opt/arclab/packages.microsoft.com",
            "Non-zero exit code: 20. Cannot access https://packages.microsoft.com",
        ),
        (
            "mount -t tmpfs -o noexec none /var/lib",
            "umount /var/lib",
            "Extension returned non-zero exit code for Install: 64. 'noexec' flag set on the file system of /var/lib",
        ),
    ):
        lab.shell("db01", prepare)
        arm("PUT", path, body)
        failed = settled(arm, path)
        lab.shell("db01", undo)
        assert failed is not None and failed["provisioningState"] == "Failed"
        assert failed["instanceView"]["status"]["message"].endswith(sentence)
    arm("PUT", path, body)
    installed = settled(arm, path)
    assert installed is not None and installed["provisioningState"] == "Succeeded"
    one = login(USER, scope=machine["id"])
    assert one.ssh("true", "db01").returncode == 0
    assert one.is_denied("web01")
    arm("DELETE", path)
    assert settled(arm, path) is None
    assert one.is_denied("db01")
    left = "grep -l aad /etc/ssh/sshd_config /etc/nsswitch.conf /etc/pam.d/sshd /etc/sudoers.d/*; ls /run/userdb"
    assert lab.shell("db01", left, check=False).stdout == ""


def test_the_packages_route_ends_at_the_same_place(lab: Lab, login: Callable[..., Login]) -> None:
    source = "deb [trusted=yes] file:/opt/arclab/packages.microsoft.com ./"
    lab.shell("db01", f"echo '{source}' >/etc/apt/sources.list.d/microsoft-prod.list; apt-get -q update")
    lab.shell("db01", "DEBIAN_FRONTEND=noninteractive apt-get -q install --yes aadsshlogin")
    one = login(ADMIN, scope=lab.machine("db01")["id"])
    assert one.ssh("sudo -n id -un", "db01").stdout == "root\n"
    lab.shell("db01", "apt-get -q remove --yes aadsshlogin")
    assert one.is_denied("db01")
