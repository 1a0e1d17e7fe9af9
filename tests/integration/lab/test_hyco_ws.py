# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does Microsoft's own client for Node, `hyco-ws` 1.0.5, work with the lab's relay in both roles?

It signs its own tokens, so this also checks the relay's view of shared access signatures. The package is installed with
npm below `.cache/` on first use.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from relay_app import RelayApp, relay_app
from websockets.asyncio.client import connect

from arclab import sas
from arclab.relay import HybridConnection

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "hyco-ws"

# The package asks for the newest of three packages that Node has built in, which npm cannot install any more; its code is left as it is.
BUILT_IN = ("http", "crypto", "util")

LISTENER = """
const hyco = require('hyco-ws');
const [server, uri, rule, key] = process.argv.slice(1);
const relayed = hyco.createRelayedServer({server, token: () => hyco.createRelayToken(uri, rule, key)}, (socket) => {
  socket.on('message', (data, flags) => socket.send(data, {binary: !!(flags && flags.binary)}));
});
relayed.on('listening', () => console.log('listening'));
relayed.on('error', (error) => { console.log('error ' + error.message); process.exit(1); });
"""

SENDER = """
const hyco = require('hyco-ws');
const [server, uri, rule, key] = process.argv.slice(1);
const client = hyco.relayedConnect(server, hyco.createRelayToken(uri, rule, key), (socket) => socket.send('hello'));
client.on('message', (data) => { console.log(data); client.close(); });
client.on('close', () => process.exit(0));
client.on('error', (error) => { console.log('error ' + error.message); process.exit(1); });
"""

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="node or npm is absent: hyco-ws, the third-party listener, cannot run",
)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


@pytest.fixture(scope="module")
def hyco() -> Path:
    """The directory whose node_modules holds hyco-ws; installed aside and moved, so that parallel runs do not clash."""
    modules = CACHE / "node_modules"
    if not (modules / "hyco-ws").exists():
        aside = CACHE.with_name(f"hyco-ws.{os.getpid()}")
        aside.mkdir(parents=True)
        _install(aside)
        try:
            aside.rename(CACHE)
        except OSError:
            assert (modules / "hyco-ws").exists()
            shutil.rmtree(aside)
    return CACHE


def _install(place: Path) -> None:
    _npm(place, "pack", "hyco-ws@1.0.5")
    shutil.unpack_archive(next(place.glob("*.tgz")), place, "gztar")
    manifest = place / "package" / "package.json"
    described = json.loads(manifest.read_text(encoding="utf-8"))
    for name in BUILT_IN:
        described["dependencies"].pop(name, None)
    manifest.write_text(json.dumps(described), encoding="utf-8")
    wanted = {"name": "hyco-ws-oracle", "private": True, "dependencies": {"hyco-ws": "file:package"}}
    (place / "package.json").write_text(json.dumps(wanted), encoding="utf-8")
    _npm(place, "install", "--install-links", "--no-audit", "--no-fund")


def _npm(place: Path, *command: str) -> None:
    done = subprocess.run(["npm", *command, "--loglevel=error"], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.asynccontextmanager
async def node(hyco: Path, script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        "node", "-e", script, "--", *arguments, cwd=hyco, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()


def arguments(app: RelayApp, connection: HybridConnection, action: str, key: str | None = None) -> list[str]:
    server = app.url(connection.name, **{"sb-hc-action": action})
    return [server, f"{app.base}/{connection.name}", connection.key_name, key or connection.key]


def test_a_hyco_ws_listener_serves_this_projects_kind_of_sender(tmp_path: Path, hyco: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time(), "tests/echo")
            async with node(hyco, LISTENER, *arguments(app, connection, "listen")) as listener:
                assert await line(listener) == "listening"
                uri = f"http://{app.authority}/{connection.name}"
                token = sas.sign(uri, connection.key_name, connection.key, int(time.time()) + 60)
                headers = {"ServiceBusAuthorization": token}
                async with connect(app.url(connection.name), additional_headers=headers, proxy=None) as sender:
                    for sent in ("text", b"\x00\xff" * 100_000, b"end"):
                        await sender.send(sent)
                        assert await asyncio.wait_for(sender.recv(), 10) == sent

    run(scenario())


def test_hyco_ws_talks_to_itself_through_the_relay(tmp_path: Path, hyco: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            async with node(hyco, LISTENER, *arguments(app, connection, "listen")) as listener:
                assert await line(listener) == "listening"
                async with node(hyco, SENDER, *arguments(app, connection, "connect")) as sender:
                    assert await line(sender) == "hello"
                    assert await asyncio.wait_for(sender.wait(), 10) == 0

    run(scenario())


def test_hyco_ws_with_a_wrong_key_is_refused(tmp_path: Path, hyco: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            for script, action in ((LISTENER, "listen"), (SENDER, "connect")):
                async with node(hyco, script, *arguments(app, connection, action, key="wrong")) as process:
                    assert await line(process) == "error unexpected server response (403)"

    run(scenario())
