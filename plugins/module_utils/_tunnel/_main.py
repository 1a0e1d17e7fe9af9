# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can a person do with a machine besides logging in to it?

    arcfleet tunnel web01 -L 5432:db.internal:5432
    arcfleet rdp win01

The first leads ports of this computer through a machine, the second opens a desktop on one. Both stay until Ctrl-C and connect again when
the connection is lost. What is said of the way goes to stderr; no option takes a secret. Private to arcfleet.ssh.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile

from .._errors import ArcError, InputError, redact
from .._files import settled
from .._relay import _main as relay
from . import _destination, _doors, _forward, _listening, _remote_desktop
from ._link import end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ._listening import Listening

FAILED, WRONG_USE = 1, 2

# Windows Admin Center's port, here and on the machine, unless somebody chose another.
_ADMIN_CENTER = 6516


def main(argv: Sequence[str]) -> int:
    """Run with these arguments; the exit status. Raises SystemExit for arguments that cannot be."""
    # What follows is for FreeRDP.
    split = list(argv).index("--") if "--" in argv else len(argv)
    given = parser().parse_args(list(argv[:split]))
    try:
        return int(asyncio.run(_until_told(given.run(given, list(argv[split + 1 :])))))
    except InputError as exc:
        relay.tell(redact(str(exc)))
        return WRONG_USE
    except ArcError as exc:
        relay.tell(redact(str(exc)))
        return FAILED
    except KeyboardInterrupt:
        # Before there was anything to end.
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="arcfleet", description="Reach what is behind Azure Arc machines.")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("machine", metavar="[USER@]MACHINE", help="a name of ssh's configuration, or a resource id")
    common.add_argument("-F", dest="config", metavar="FILE", help="ssh's configuration (default: the user's own)")
    login = common.add_argument_group("login to Azure", "for a resource id that ssh's configuration does not know")
    for name in relay.Arguments({}, frozenset()).auth:
        login.add_argument(f"--{name.replace('_', '-')}", dest=f"auth_{name}", metavar="VALUE")

    tunnel = commands.add_parser(
        "tunnel", parents=[common], allow_abbrev=False, help="lead ports of this computer through a machine"
    )
    tunnel.add_argument(
        "-L", dest="forwards", action="append", default=[], metavar="FORWARD", help="as for ssh, any number of times"
    )
    tunnel.add_argument(
        "--bind", metavar="ADDRESS", default="127.0.0.1", help="where to listen; other computers reach any but loopback"
    )
    tunnel.add_argument("-l", "--user", help="who logs in to the machine")
    tunnel.add_argument(
        "--service", choices=["SSH", "WAC"], default="SSH", help="WAC: Windows Admin Center, without ssh"
    )
    tunnel.add_argument("--local-port", type=_port, metavar="PORT", help="with WAC: the port here (default 6516)")
    tunnel.add_argument("--port", type=_port, metavar="PORT", help="with WAC: the port there (default 6516)")
    tunnel.set_defaults(run=_tunnel)

    desktop = commands.add_parser(
        "rdp", parents=[common], allow_abbrev=False, help="open a Windows desktop; what follows -- is for FreeRDP"
    )
    desktop.add_argument("--user", help="who logs in to Windows; ssh's user stands before the machine's name")
    desktop.add_argument("--port", type=_port, default=_remote_desktop.PORT, help="of Remote Desktop (default 3389)")
    desktop.add_argument("--local-port", type=_port, default=0, metavar="PORT", help="the port here (default: any)")
    desktop.add_argument("--file", metavar="FILE", help="write a .rdp file instead of starting FreeRDP")
    desktop.set_defaults(run=_desktop)
    return whole


def _port(text: str) -> int:
    try:
        return _forward.port(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


async def _until_told(work: Awaitable[int]) -> int:
    """The result of `work`, 0 when a signal ended it."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(told.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    return 0 if task.cancelled() else task.result()


def _settle(given: argparse.Namespace, user: str | None) -> _destination.Destination:
    auth = {
        name[len("auth_") :].replace("_", "-"): value
        for name, value in vars(given).items()
        if name.startswith("auth_") and value
    }
    return _destination.settle(given.machine, config=given.config, user=user, auth=auth)


# --- tunnels


async def _tunnel(given: argparse.Namespace, more: Sequence[str]) -> int:
    if more:
        raise InputError(f"{more[0]!r} is one argument too many.", hint="See --help.")
    if given.service == "WAC":
        return await _admin_center(given)
    if given.local_port is not None or given.port is not None:
        raise InputError("--local-port and --port are for --service WAC.", hint="Say the ports with -L.")
    if not given.forwards:
        raise InputError("There is nothing to forward.", hint="Say what with -L, such as -L 8080:localhost:80.")
    forwards = [_forward.parse(text) for text in given.forwards]
    with contextlib.ExitStack() as stack:
        doors = [
            (stack.enter_context(contextlib.closing(_listening.listen(forward, given.bind))), forward.target)
            for forward in forwards
        ]
        for forward in forwards:
            if forward.path is None:
                _warn(given.bind if forward.address is None else forward.address)
        destination = _settle(given, given.user)
        return await _doors.through_ssh(destination, doors, relay.tell, _say_and_stay(_usable(doors, destination.name)))


async def _admin_center(given: argparse.Namespace) -> int:
    if given.forwards:
        raise InputError("-L is for ssh, which Windows Admin Center does without.", hint="Use --local-port.")
    port = _ADMIN_CENTER if given.local_port is None else given.local_port
    with contextlib.closing(_listening.at_port(given.bind, port)) as listening:
        _warn(given.bind)
        destination = _settle(given, given.user)
        local = _forward.is_loopback(given.bind) or given.bind in _forward.ANY_ADDRESS
        address = "localhost" if local else given.bind
        place = f"https://{_forward.address_and_port(address, listening.port)}"
        sentence = [f"{place} is Windows Admin Center of {destination.name}"]
        command = destination.helper("WAC", given.port or _ADMIN_CENTER)
        return await _doors.through_relay(command, destination.name, listening, _say_and_stay(sentence))


def _usable(doors: Sequence[tuple[Listening, str]], machine: str) -> list[str]:
    return [f"{listening.name} -> {target} by {machine}" for listening, target in doors]


def _warn(address: str) -> None:
    if not _forward.is_loopback(address):
        what = "all addresses" if address in _forward.ANY_ADDRESS else address
        relay.tell(f"Warning: other computers can use this tunnel, too; it listens at {what}.")


def _say_and_stay(lines: Sequence[str]) -> Callable[[], Awaitable[int]]:
    async def stay() -> int:
        _show(lines)
        await asyncio.Event().wait()
        return 0

    return stay


def _show(lines: Sequence[str]) -> None:
    with contextlib.suppress(OSError):
        os.write(1, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))


# --- desktops


async def _desktop(given: argparse.Namespace, more: Sequence[str]) -> int:
    program = None if given.file else _remote_desktop.installed()
    if more and program is None:
        raise InputError("Arguments for FreeRDP are of no use without it.", hint="Install FreeRDP, or leave them out.")
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(contextlib.closing(_listening.at_port("127.0.0.1", given.local_port)))
        destination = _settle(given, None)
        doors = [(listening, f"localhost:{given.port}")]
        if program is not None:
            command = _remote_desktop.command(program, listening.name, given.user, more)
            return await _doors.through_ssh(
                destination, doors, relay.tell, _run(command, _usable(doors, destination.name))
            )
        content = _remote_desktop.file(listening.name, given.user)
        path = given.file or os.path.join(stack.enter_context(_doors.private_directory()), f"{destination.name}.rdp")
        _write(path, content)
        lines = [
            *_usable(doors, destination.name),
            f"{path} opens the desktop, with Windows App or mstsc, for as long as this runs; Ctrl-C ends it",
        ]
        return await _doors.through_ssh(destination, doors, relay.tell, _say_and_stay(lines))


def _run(command: Sequence[str], lines: Sequence[str]) -> Callable[[], Awaitable[int]]:
    async def run() -> int:
        _show(lines)
        try:
            process = await asyncio.create_subprocess_exec(*command)
        except OSError as exc:
            raise InputError(f"{command[0]} cannot be run ({exc.strerror}).", hint="Use --file.") from exc
        try:
            return await process.wait()
        finally:
            await end(process)

    return run


def _write(path: str, content: bytes) -> None:
    file = settled(path)
    try:
        descriptor, part = tempfile.mkstemp(prefix=".arcfleet-", dir=os.path.dirname(file))
        try:
            with open(descriptor, "wb") as handle:
                handle.write(content)
            os.replace(part, file)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as exc:
        raise InputError(
            f"{path} cannot be written: {exc.strerror or exc}.", hint="Name a file in a directory of your own."
        ) from exc
