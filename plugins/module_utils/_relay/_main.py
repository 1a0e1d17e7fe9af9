# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does ssh run as its ProxyCommand?

    python …/module_utils/_relay/_start.py --resource-id ID --port %p

Bytes pass through stdin and stdout, sentences go to stderr. With good credentials in the cache nothing of Azure's
libraries is imported, nor anything else that takes long: the start is a part of every connection. No option takes a
secret. Exit status: 0, 255 for a failure (as ssh has it), 2 for arguments that cannot be. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from . import _credentials
from ._cache import Cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ._certificates import State
    from ._credentials import Credentials
    from ._refusal import Login
    from ._shortcut import Shortcut

FAILED, WRONG_USE = 255, 2

# How long (seconds) the helper keeps trying: after SSH was enabled, the agent takes up to two minutes to listen.
TIMEOUT = 180.0

SERVICES = ("SSH", "WAC")

# Option -> (placeholder, explanation). The rest are names of the collection's auth options; secrets have no option.
_OPTIONS = {
    "resource-id": ("ID", "the machine's resource id"),
    "port": ("PORT", "sshd's port on the machine, as the service configuration allows it"),
    "service": ("SSH|WAC", "the service configuration to use (default SSH)"),
    "timeout": ("SECONDS", "how long to keep trying (default 180)"),
    "cache-dir": ("DIR", "where credentials rest (default $XDG_CACHE_HOME/arcfleet/relay)"),
    "proxy-binary": (
        "PATH|find",
        "hand over to Microsoft's SSH proxy at PATH, or to the newest that az ssh has placed",
    ),
    "proxy-digest": ("sha256:HEX", "run that proxy only if this is its digest"),
    "certificate": ("NAME", "keep this SSH certificate good; ssh waits for that with ProxyUseFdpass=yes"),
}
_AUTH_OPTIONS = {
    "auth-source": ("SOURCE", "auto, env, cli, credential_file or msi"),
    "profile": ("NAME", "profile in ~/.azure/credentials"),
    "subscription-id": ("GUID", "subscription of the login"),
    "client-id": ("GUID", "service principal, or user-assigned managed identity"),
    "tenant": ("GUID", "tenant to log in to"),
    "x509-certificate-path": ("PATH", "certificate of the service principal"),
    "oidc-token-file-path": ("PATH", "token of a federated identity"),
    "cloud-environment": ("NAME|URL", "AzureCloud, AzureUSGovernment, AzureChinaCloud or a metadata endpoint"),
}
_FLAGS = {
    "once": "refuse the attempt that follows a lost connection at once: for programs that repeat by themselves",
    "verbose": "tell every step",
    "help": "show this text",
}


class UsageError(Exception):
    """Arguments that cannot be; the text says which."""


class Arguments:
    """The command line: `options` by name without dashes, `flags` that were set."""

    def __init__(self, options: Mapping[str, str], flags: frozenset[str]) -> None:
        self._options = options
        self.flags = flags

    def __getitem__(self, name: str) -> str | None:
        return self._options.get(name) or None

    @property
    def resource_id(self) -> str:
        return (self["resource-id"] or "").strip()

    @property
    def machine(self) -> str:
        """The machine's name, for messages."""
        return self.resource_id.rstrip("/").rpartition("/")[2]

    @property
    def port(self) -> int:
        return int(self["port"] or 0)

    @property
    def service(self) -> str:
        return self["service"] or SERVICES[0]

    @property
    def timeout(self) -> float:
        return float(self["timeout"] or TIMEOUT)

    @property
    def auth(self) -> dict[str, str | None]:
        """The collection's auth options by their names there."""
        return {name.replace("-", "_"): self[name] for name in _AUTH_OPTIONS}


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Raises UsageError. argparse would cost a third of the helper's start."""
    options: dict[str, str] = {}
    flags = set()
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument[2:].partition("=")
        if not argument.startswith("--") or name not in {**_OPTIONS, **_AUTH_OPTIONS, **_FLAGS}:
            # Whatever it is, it may be a secret in the wrong place: only its name is shown.
            raise UsageError(f"unknown argument {argument.partition('=')[0]!r}")
        if name in _FLAGS:
            flags.add(name)
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise UsageError(f"--{name} needs a value")
        options[name] = value
    parsed = Arguments(options, frozenset(flags))
    if "help" not in flags:
        _check(parsed)
    return parsed


def _check(arguments: Arguments) -> None:
    if not arguments.resource_id:
        raise UsageError("--resource-id is missing")
    port = arguments["port"] or ""
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--port {port!r} is no port number" if port else "--port is missing")
    if arguments.service not in SERVICES:
        raise UsageError(f"--service {arguments.service!r} is none of {', '.join(SERVICES)}")
    if arguments["certificate"]:
        from ._certificates import NAME

        if not NAME.fullmatch(arguments["certificate"]):
            raise UsageError("--certificate takes the name that the inventory gives")
    if arguments["proxy-digest"]:
        from ._handover import DIGEST

        if not arguments["proxy-binary"]:
            raise UsageError("--proxy-digest needs --proxy-binary")
        if not DIGEST.fullmatch(arguments["proxy-digest"]):
            raise UsageError("--proxy-digest takes sha256: and 64 hexadecimal digits")
    try:
        good = 0 < arguments.timeout < 86400
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"--timeout {arguments['timeout']!r} is no number of seconds")


def usage() -> str:
    """The text of --help."""
    lines = ["usage: python …/plugins/module_utils/_relay/_start.py --resource-id ID --port PORT [options]", ""]
    for name, (placeholder, text) in {**_OPTIONS, **_AUTH_OPTIONS}.items():
        lines.append(f"  {f'--{name} {placeholder}':<34} {text}")
    lines += [f"  {f'--{name}':<34} {text}" for name, text in _FLAGS.items()]
    lines += ["", "Secrets come from the environment, the credential file or the Azure CLI; no option takes one."]
    return "\n".join(lines)


class Session:
    """The credentials for one run of the helper."""

    def __init__(self, arguments: Arguments, cache: Cache, environ: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._cache = cache
        self._environ = environ
        self._arm: Shortcut | None = None
        self._cloud = arguments["cloud-environment"] or environ.get("AZURE_CLOUD_ENVIRONMENT") or "AzureCloud"

    def current(self) -> Credentials:
        """From the cache without further ado, else from Azure."""
        import time

        found = _credentials.load(self._cache, self._arguments.resource_id, self._arguments.service, self._cloud)
        if found is not None and found.lasts(time.time()):
            return found
        return self._ensure()

    def renew(self, refused: Credentials) -> Credentials:
        """Others than `refused`."""
        return self._ensure(refused=refused)

    def for_long(self) -> Credentials:
        """Credentials that last for nearly as long as Azure grants: for a program that cannot renew them."""
        return self._ensure(minimum_life=_credentials.LIFE)

    def confirm(self) -> None:
        """Ask Azure for credentials whatever the cache holds: it may not give them to this identity any more."""
        self._ensure(force=True)

    def _ensure(
        self, *, force: bool = False, refused: Credentials | None = None, minimum_life: int | None = None
    ) -> Credentials:
        from .._errors import InputError
        from .._ids import MachineId

        try:
            machine = MachineId.parse(self._arguments.resource_id)
        except InputError as exc:
            raise UsageError(f"--resource-id: {str(exc).rstrip('.')}") from exc
        credentials, _fetched = _credentials.ensure(
            self._log_in,
            self._cache,
            machine,
            self._arguments.service,
            force=force,
            minimum_life=minimum_life,
            refused=refused,
            cloud=self._cloud,
        )
        return credentials

    def _log_in(self) -> Shortcut:
        if self._arm is None:
            from .._auth import AuthOptions
            from ._shortcut import Shortcut

            options = AuthOptions.from_params(self._arguments.auth, self._environ)
            self._arm = Shortcut(options, self._cache, self._environ)
        return self._arm


def run(arguments: Arguments, environ: Mapping[str, str], source: int = 0, sink: int = 1) -> int:
    """Connect and copy until the end; the exit status. Raises ArcError."""
    from . import _dial
    from ._host_key import HostKey
    from ._pump import Pump
    from ._repetition import AT_ONCE, BEFORE_A_TASK, Note
    from ._repetition import sentence as lost

    ssh = os.getppid()
    with _ssh_waiting(arguments, source, sink):
        cache = Cache(arguments["cache-dir"])
        certificate = _good_certificate(arguments, cache, environ)
    session = Session(arguments, cache, environ)
    loss = Note(cache, "lost", arguments.resource_id) if "once" in arguments.flags else None
    if loss and loss.taken_within(AT_ONCE):
        _refuse(*lost(arguments.machine))
    login = _login(arguments, cache, session, certificate) if certificate else None
    if arguments["proxy-binary"]:
        from . import _handover

        binary = _handover.program(arguments["proxy-binary"], arguments["proxy-digest"], arguments.machine, cache)
        _handover.become(binary, arguments.machine, arguments.port, session.for_long(), environ)
    with _while_wanted(source, None if login else ssh):
        relay, early = _dial.connect(
            session,
            arguments.machine,
            arguments.port,
            arguments.timeout,
            environ,
            say=tell,
            detail=tell if "verbose" in arguments.flags else _silence,
        )
    with contextlib.closing(relay), _calm(source, sink) as alarm:
        key = HostKey(arguments.machine, ssh, then=login.requests.see if login else None)
        # Windows Admin Center speaks another protocol.
        watch, watch_back = (key.sent, key.received) if arguments.service == SERVICES[0] else (None, None)
        pump = Pump(relay, source, sink, early=early, alarm=alarm, watch=watch, watch_back=watch_back)
        ending = pump.run()
    if login and login.was_refused(ending.clean):
        tell(" ".join(login.refusal()))
        return FAILED
    if ending.clean:
        return 0
    if loss and pump.uploaded > BEFORE_A_TASK:
        loss.leave()
    tell(f"{arguments.machine}: {ending.text}. Connect again; if this comes back, check the machine's agent and sshd.")
    return FAILED


def _ssh_waiting(arguments: Arguments, source: int, sink: int) -> contextlib.AbstractContextManager[None]:
    """ssh begins after this, where a certificate has to be good first."""
    if not arguments["certificate"]:
        return contextlib.nullcontext()
    from ._passing import held_back

    return held_back(source, sink)


def _good_certificate(arguments: Arguments, cache: Cache, environ: Mapping[str, str]) -> State | None:
    """The certificate, renewed where that is due; `None` where none is used."""
    name = arguments["certificate"]
    if not name:
        return None
    from . import _certificates

    found = _certificates.current(cache, name)
    if found is not None:
        return found
    from .._auth import AuthOptions
    from .._ssh_certificate import obtain
    from ._login import subject_of

    options = AuthOptions.from_params(arguments.auth, environ)
    return _certificates.ensure(cache, name, subject_of(options), lambda: obtain(options, environ))


def _login(arguments: Arguments, cache: Cache, session: Session, certificate: State) -> Login:
    """The login to come; raises ArcError when there is no use in trying it again."""
    from ._refusal import Login

    name = str(arguments["certificate"])
    login = Login(cache, name, certificate.principal, certificate.offer, arguments.machine, arguments.resource_id)
    if login.follows_refusal():
        # If Azure does not let this identity near the machine any more, it says so itself.
        session.confirm()
        _refuse(*login.refusal())
    return login


def _refuse(message: str, hint: str) -> None:
    from .._errors import ConnectionFailed

    raise ConnectionFailed(message, hint=hint)


def _while_wanted(source: int, ssh: int | None) -> contextlib.AbstractContextManager[None]:
    from ._passing import while_wanted

    return while_wanted(source, ssh)


@contextlib.contextmanager
def _calm(source: int, sink: int) -> Iterator[int]:
    """Non-blocking descriptors, and signals as bytes on the descriptor that is yielded."""
    blocking = [descriptor for descriptor in (source, sink) if os.get_blocking(descriptor)]
    alarm, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _note)
    # Ctrl-C reaches the whole terminal, and with it the helper of a shared connection (ControlPersist) that is to stay.
    signal.signal(signal.SIGINT, _note if os.isatty(source) else signal.SIG_IGN)
    for descriptor in blocking:
        os.set_blocking(descriptor, False)
    try:
        yield alarm
    finally:
        signal.set_wakeup_fd(-1)
        for descriptor in blocking:
            # The terminal or pipe may be somebody else's as well.
            with contextlib.suppress(OSError):
                os.set_blocking(descriptor, True)


def _note(_number: int, _frame: object) -> None:
    """The signal's number on the wake-up descriptor is all that is wanted."""


def tell(sentence: str) -> None:
    """One line on stderr, where ssh shows it; ssh may have gone."""
    with contextlib.suppress(OSError):
        os.write(2, f"arcfleet.ssh: {sentence}\n".encode("utf-8", "replace"))


def fail(message: str, hint: str | None) -> None:
    """Why there is no connection: on stderr, or where that leads nowhere, as ssh's own error message."""
    from . import _farewell

    if _farewell.is_silenced():
        _farewell.disconnect(_farewell.fit(message, hint))
    else:
        tell(f"{message} {hint}" if hint else message)


def _silence(_sentence: str) -> None:
    """For details that nobody asked for."""


def main(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
    """Run with these arguments; the exit status. Never raises."""
    environ = os.environ if environ is None else environ
    verbose = "--verbose" in argv
    try:
        arguments = parse_arguments(argv)
        if "help" in arguments.flags:
            os.write(1, f"{usage()}\n".encode())
            return 0
        return run(arguments, environ)
    except UsageError as exc:
        fail(f"{exc}.", "See --help.")
        return WRONG_USE
    except KeyboardInterrupt:
        return FAILED
    except Exception as exc:  # noqa: BLE001 - ssh's user gets a sentence, whatever happens
        return _explain(exc, verbose)


def _explain(exc: Exception, verbose: bool) -> int:
    from .._errors import ArcError, redact

    if isinstance(exc, ArcError):
        fail(redact(exc.message), exc.hint)
    elif isinstance(exc, ImportError):
        fail(f"a Python package is missing: {exc}.", f"Install the collection's requirements for {sys.executable}.")
    else:
        fail(
            redact(f"unexpected {type(exc).__name__}: {exc}."), "Connect again with --verbose and report what it says."
        )
    if verbose:
        import traceback

        tell(redact("".join(traceback.format_exception(type(exc), exc, exc.__traceback__))))
    return FAILED
