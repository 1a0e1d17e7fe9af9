# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can a listener that follows the public hybrid connections guide serve senders of the lab's relay?

Control channel, rendezvous, rejection, renewal and the close codes are those of the guide; both sides are `websockets`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from relay_app import MACHINE_ID, RelayApp, relay_app
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from arclab import sas
from arclab.relay import HybridConnection


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def token(app: RelayApp, connection: HybridConnection, expires_in: float = 600) -> str:
    uri = f"http://{app.authority}/{connection.name}"
    return sas.sign(uri, connection.key_name, connection.key, int(time.time() + expires_in))


async def listen(app: RelayApp, connection: HybridConnection, expires_in: float = 600) -> ClientConnection:
    """Open a control channel; the token travels in the query, as the guide has it."""
    text = quote(token(app, connection, expires_in), safe="")
    return await connect(app.url(connection.name, **{"sb-hc-action": "listen", "sb-hc-token": text}), proxy=None)


async def send(app: RelayApp, connection: HybridConnection, suffix: str = "", **options: Any) -> ClientConnection:
    headers = {"ServiceBusAuthorization": token(app, connection), "X-Own": "yes"}
    url = app.url(connection.name + suffix, **{"sb-hc-id": "my-id"})
    return await connect(url, additional_headers=headers, proxy=None, **options)


async def offer(control: ClientConnection) -> dict[str, Any]:
    message = json.loads(await asyncio.wait_for(control.recv(), 5))
    assert list(message) == ["accept"]
    return dict(message["accept"])


async def close_code(client: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(client.recv(), 5)
    return client.close_code


def test_an_accepted_sender_talks_to_the_listener(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time(), "Tests/Echo")
            async with await listen(app, connection) as control:
                sending = asyncio.create_task(send(app, connection, "/suffix?own=1", subprotocols=["b", "a"]))
                accept = await offer(control)
                assert accept["id"] == "my-id"
                assert f"/$hc/{connection.name}/suffix?own=1&sb-hc-action=accept&sb-hc-id=my-id" in accept["address"]
                headers = accept["connectHeaders"]
                assert headers["X-Own"] == "yes"
                assert headers["Sec-WebSocket-Version"] == "13"
                assert headers["Sec-WebSocket-Protocol"] == "b, a"
                assert {"Host", "Sec-WebSocket-Key", "Sec-WebSocket-Extensions"} <= set(headers)
                assert "sig=" not in json.dumps(accept)
                assert accept["remoteEndpoint"]["address"] == "127.0.0.1"
                assert not sending.done()
                async with connect(accept["address"], proxy=None, subprotocols=[Subprotocol("a")]) as accepted:
                    sender = await sending
                    assert sender.subprotocol == "a"
                    assert sender.response is not None
                    assert "Sec-WebSocket-Extensions" not in sender.response.headers
                    await sender.send("text")
                    await sender.send(b"\x00binary")
                    assert [await accepted.recv(), await accepted.recv()] == ["text", b"\x00binary"]
                    await accepted.send("back")
                    assert await sender.recv() == "back"
                    with pytest.raises(InvalidStatus) as again:
                        await connect(accept["address"], proxy=None)
                    assert again.value.response.status_code == 403
                    await sender.close()
                    assert await close_code(accepted) == 1001

    run(scenario())


def test_a_listener_that_closes_or_a_relay_that_drops_ends_the_sender(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            async with await listen(app, connection) as control:
                sending = asyncio.create_task(send(app, connection))
                accepted = await connect((await offer(control))["address"], proxy=None)
                sender = await sending
                await accepted.send(b"last words")
                await accepted.close()
                assert await sender.recv() == b"last words"
                assert await close_code(sender) == 1000
                app.relay.drop(connection.name)
                assert await close_code(control) == 1001
            with pytest.raises(InvalidStatus) as refused:
                await send(app, connection)
            assert refused.value.response.reason_phrase.startswith("Endpoint does not exist.")

    run(scenario())


def test_a_rejection_reaches_the_sender_and_the_listener_is_told_410(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            async with await listen(app, connection) as control:
                sending = asyncio.create_task(send(app, connection))
                address = (await offer(control))["address"]
                for query, status in (
                    ("&sb-hc-statusCode=1&sb-hc-statusDescription=x", 400),
                    ("&sb-hc-statusCode=503&sb-hc-statusDescription=not%20today%0D%0AX-Evil:%201", 410),
                ):
                    with pytest.raises(InvalidStatus) as told:
                        await connect(address + query, proxy=None)
                    assert told.value.response.status_code == status
                with pytest.raises(InvalidStatus) as refused:
                    await sending
                response = refused.value.response
                assert (response.status_code, response.reason_phrase) == (503, "not today??X-Evil: 1")
                assert "X-Evil" not in response.headers

    run(scenario())


def test_without_a_listener_it_is_404_and_a_listener_that_ignores_the_offer_504(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arclab.relay.RENDEZVOUS_TIMEOUT", 0.1)

    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            with pytest.raises(InvalidStatus) as absent:
                await send(app, connection)
            assert absent.value.response.status_code == 404
            assert absent.value.response.reason_phrase.startswith("There are no listeners connected for the endpoint.")
            async with await listen(app, connection) as control:
                with pytest.raises(InvalidStatus) as ignored:
                    await send(app, connection)
                assert ignored.value.response.status_code == 504
                with pytest.raises(InvalidStatus) as late:
                    await connect((await offer(control))["address"], proxy=None)
                assert late.value.response.status_code == 403

    run(scenario())


def test_senders_are_spread_over_the_listeners(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            counts = [0, 0, 0]

            async def serve(control: ClientConnection, number: int) -> None:
                async for message in control:
                    counts[number] += 1
                    await (await connect(json.loads(message)["accept"]["address"], proxy=None)).close()

            controls = [await listen(app, connection) for _number in counts]
            tasks = [asyncio.create_task(serve(control, number)) for number, control in enumerate(controls)]
            for _round in range(9):
                await (await send(app, connection)).close()
            assert counts == [3, 3, 3]
            await asyncio.gather(*(control.close() for control in controls), *tasks)

    run(scenario())


def test_a_control_channel_lives_as_long_as_its_token_unless_renewed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(None, time.time())
            short = await listen(app, connection, expires_in=2)
            renewed = await listen(app, connection, expires_in=2)
            await renewed.send(json.dumps({"renewToken": {"token": token(app, connection)}}))
            await asyncio.wait_for(await renewed.ping(), 1)
            assert await close_code(short) == 1008
            await asyncio.sleep(0.2)
            await renewed.send(json.dumps({"renewToken": {"token": "SharedAccessSignature nonsense"}}))
            assert await close_code(renewed) == 1008

    run(scenario())


def test_listening_takes_the_right_to_listen(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relay_app(tmp_path) as app:
            connection = app.relay.mint(MACHINE_ID, time.time())
            with pytest.raises(InvalidStatus) as refused:
                await listen(app, connection)
            assert refused.value.response.status_code == 403
            other = app.relay.mint(None, time.time())
            with pytest.raises(InvalidStatus) as missing:
                await connect(app.url(other.name, **{"sb-hc-action": "listen"}), proxy=None)
            assert missing.value.response.status_code == 401
            listeners = [await listen(app, other) for _number in range(25)]
            with pytest.raises(InvalidStatus) as full:
                await listen(app, other)
            assert full.value.response.status_code == 403
            await asyncio.gather(*(listener.close() for listener in listeners))

    run(scenario())
