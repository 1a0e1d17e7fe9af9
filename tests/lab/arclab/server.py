# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does HTTP become questions to the lab, and its answers HTTP?

One HTTPS port for ARM, Resource Graph, Entra, the cloud's metadata and the relay. Every request is journalled, faults
strike here, and no traceback leaves the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from . import metadata
from .arm import Arm, Exchange, Interrupted, Request, machine_of
from .entra import Entra, Grant
from .entra_errors import EntraFailure, refusal
from .faults import Fault, Faults
from .http import Answer, ArmFailure
from .journal import Journal
from .relay import Relay
from .specs import Specs

log = logging.getLogger("arclab")

MAX_BODY = 4 << 20
_STANDARD = {
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Expires": "-1",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}
_INTERNAL = {
    "error": {"code": "InternalServerError", "message": "The server encountered an internal error. Please retry."}
}


class Server:
    """The Azure-facing side of a lab."""

    def __init__(
        self,
        arm: Arm,
        entra: Entra,
        relay: Relay,
        faults: Faults,
        journal: Journal,
        *,
        url: str,
        latency: float,
        specs: Specs | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.arm = arm
        self.entra = entra
        self.relay = relay
        self.faults = faults
        self.journal = journal
        self.url = url
        self.latency = latency
        self.specs = specs
        self.clock = clock

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        app.on_response_prepare.append(self._date)
        router = app.router
        router.add_get("/$hc/{path:.*}", self._relay)
        router.add_route("*", "/metadata/endpoints", self._metadata)
        router.add_get("/msi/token", self._managed_identity)
        router.add_get("/common/discovery/instance", self._instance_discovery)
        for prefix, v2 in (("/{tenant}/v2.0", True), ("/{tenant}", False)):
            router.add_get(f"{prefix}/.well-known/openid-configuration", self._openid(v2))
        router.add_get("/{tenant}/discovery/keys", self._keys)
        router.add_get("/{tenant}/discovery/v2.0/keys", self._keys)
        router.add_post("/{tenant}/oauth2/v2.0/token", self._token(True))
        router.add_post("/{tenant}/oauth2/token", self._token(False))
        router.add_route("*", "/{path:.*}", self._arm)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.latency:
            await asyncio.sleep(self.latency)
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except (web.HTTPException, asyncio.CancelledError, ConnectionError):
            raise
        except Exception:  # no traceback may reach a client
            log.exception("%s %s", request.method, request.path)
            return _json(500, _INTERNAL)

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(self.clock(), usegmt=True)

    # ARM

    async def _arm(self, request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        try:
            content = await request.read()
        except web.HTTPRequestEntityTooLarge:
            failure = ArmFailure(413, "RequestContentTooLarge", f"The request content size exceeds {MAX_BODY} bytes.")
            refusal = failure.answer()
            return _json(refusal.status, refusal.body, self._identity(request))
        asked = Request(request.method, request.path, _queries(request), request.headers, content)
        return await self._exchange(request, asked, started)

    async def _exchange(self, request: web.Request, asked: Request, started: float) -> web.StreamResponse:
        exchange = Exchange(api_version=asked.query.get("api-version", ""))
        answer, error_code = self._answer(asked, exchange)
        fault = exchange.fault
        if fault is not None and fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault is not None and fault.status and (answer is None or fault.when == "after"):
            error_code = fault.code or "ServiceUnavailable"
            answer = _failed_by(fault)
        self._note(asked, exchange, answer, error_code, started)
        if answer is None or (fault is not None and fault.reset):
            return _reset(request)
        headers = {**_STANDARD, **self._identity(request), **exchange.headers, **answer.headers}
        if answer.status >= 400 and exchange.caller is None:
            headers["x-ms-failure-cause"] = "gateway"
        if fault is not None and (fault.slow_body or fault.truncate or fault.garbage):
            return await _broken(request, fault, answer, headers)
        return _json(answer.status, answer.body, headers)

    def _answer(self, asked: Request, exchange: Exchange) -> tuple[Answer | None, str | None]:
        """The answer and its error code; no answer if a fault takes its place."""
        try:
            return self.arm.answer(asked, self.clock(), self.url, exchange), None
        except ArmFailure as failure:
            return failure.answer(), failure.code
        except Interrupted:
            return None, None
        except Exception:  # as above, and the journal gets its line
            log.exception("%s %s", asked.method, asked.path)
            return Answer(500, _INTERNAL), "InternalServerError"

    def _identity(self, request: web.Request) -> dict[str, str]:
        """Headers that name this request."""
        request_id = str(uuid.uuid4())
        headers = {
            "x-ms-request-id": request_id,
            "x-ms-correlation-request-id": request.headers.get("x-ms-correlation-request-id", request_id),
            "x-ms-routing-request-id": f"ARCLAB:{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(self.clock()))}:{request_id}",
        }
        client_id = request.headers.get("x-ms-client-request-id")
        if client_id and request.headers.get("x-ms-return-client-request-id", "").lower() == "true":
            headers["x-ms-client-request-id"] = client_id
        return headers

    def note_part(self, asked: Request, exchange: Exchange, answer: Answer, error_code: str | None) -> None:
        """Journal a request that came in a batch."""
        self._note(asked, exchange, answer, error_code, time.perf_counter())

    def _note(
        self, asked: Request, exchange: Exchange, answer: Answer | None, error_code: str | None, started: float
    ) -> None:
        fault = exchange.fault
        line: dict[str, Any] = {
            "kind": "graph" if "/microsoft.resourcegraph/" in exchange.resource_id else "arm",
            "method": asked.method,
            "path": asked.path,
            "query": dict(asked.query),
            "api_version": exchange.api_version,
            "action": exchange.action,
            "resource_id": exchange.resource_id,
            "principal": exchange.caller.app_id if exchange.caller else None,
            "status": answer.status if answer is not None else None,
            "error_code": error_code,
            "carried_out": exchange.carried_out,
            "request_body": exchange.body,
            "fault": {"id": fault.id, "effects": fault.effects} if fault is not None else None,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
        }
        if machine := machine_of(exchange.resource_id):
            line["machine"] = machine
        if self.specs is not None and answer is not None and exchange.caller is not None:
            line["spec"] = [] if fault is not None else self._violations(asked, exchange, answer)
        self.journal.write(line)

    def _violations(self, asked: Request, exchange: Exchange, answer: Answer) -> list[str]:
        # Neither a batch nor the question whether something exists is an operation of a provider.
        if self.specs is None or asked.method == "HEAD" or asked.path.lower().startswith("/batch"):
            return []
        try:
            return self.specs.check(asked.method, asked.path, asked.query, exchange.body, answer.status, answer.body)
        except Exception as exc:  # a fault of the check is no fault of the answer
            log.exception("specs: %s %s", asked.method, asked.path)
            return [f"the check itself failed: {type(exc).__name__}: {exc}"]

    async def _metadata(self, request: web.Request) -> web.StreamResponse:
        version = _queries(request).get("api-version")
        try:
            if request.method not in ("GET", "HEAD"):
                raise ArmFailure(405, "MethodNotAllowed", "The requested resource only supports GET.")
            answer = metadata.endpoints(self.url, version)
        except ArmFailure as failure:
            answer = failure.answer()
        line = {"kind": "metadata", "method": request.method, "path": request.path, "api_version": version}
        self.journal.write({**line, "status": answer.status})
        return _json(answer.status, answer.body, {**_STANDARD, **self._identity(request)})

    # Entra

    async def _login(
        self, request: web.Request, work: Callable[[Mapping[str, str]], Answer | Grant]
    ) -> web.StreamResponse:
        """One request to Entra: faults, the work on its form, the journal."""
        started = time.perf_counter()
        text = (await request.read()).decode(errors="replace")
        form = dict(parse_qsl(text, keep_blank_values=True))
        client_id = form.get("client_id")
        token_type = form.get("token_type", "bearer") if "grant_type" in form else None
        fault = self.faults.take(
            kind="entra", method=request.method, path=request.path, principal=client_id, token_type=token_type
        )
        grant: Grant | None = None
        if fault is not None and fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault is not None and fault.aadsts:
            answer = refusal(fault.aadsts, client_id=client_id or "", name="arclab").answer(self.clock())
        elif fault is not None and fault.status:
            answer = Answer(
                fault.status,
                {
                    "error": fault.code or "temporarily_unavailable",
                    "error_description": fault.message
                    or "AADSTS90033: A transient error has occurred. Please try again.",
                    "error_codes": [90033],
                },
                dict(fault.headers),
            )
        else:
            try:
                done = work(form)
                grant = done if isinstance(done, Grant) else None
                answer = done.answer if isinstance(done, Grant) else done
            except EntraFailure as failure:
                answer = failure.answer(self.clock())
        self.journal.write(
            {
                "kind": "entra",
                "method": request.method,
                "path": request.path,
                "query": _queries(request),
                "principal": client_id,
                "object_id": grant.principal_id if grant is not None else None,
                "token_type": token_type,
                "certificate_for": grant.certificate_for if grant is not None else None,
                "status": answer.status,
                "error_code": answer.body.get("error") if isinstance(answer.body, dict) else None,
                "request_body": form or None,
                "fault": {"id": fault.id, "effects": fault.effects} if fault is not None else None,
                "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            }
        )
        if fault is not None and fault.reset:
            return _reset(request)
        headers = {
            "Cache-Control": "no-store, no-cache",
            "Pragma": "no-cache",
            "x-ms-request-id": str(uuid.uuid4()),
            **answer.headers,
        }
        if client_request_id := request.headers.get("client-request-id"):
            headers["client-request-id"] = client_request_id
        if fault is not None and (fault.slow_body or fault.truncate or fault.garbage):
            return await _broken(request, fault, answer, headers)
        return _json(answer.status, answer.body, headers)

    def _token(self, v2: bool) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            def work(form: Mapping[str, str]) -> Grant:
                if not request.content_type.startswith("application/x-www-form-urlencoded"):
                    raise EntraFailure(
                        400,
                        "invalid_request",
                        900144,
                        "The request body must contain the following parameter: 'grant_type'.",
                    )
                return self.entra.token(request.match_info["tenant"], form, v2=v2, now=self.clock())

            return await self._login(request, work)

        return handle

    def _openid(self, v2: bool) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            tenant = request.match_info["tenant"]
            return await self._login(request, lambda _form: self.entra.openid_configuration(tenant, v2=v2))

        return handle

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        return await self._login(request, lambda _form: self.entra.keys())

    async def _instance_discovery(self, request: web.Request) -> web.StreamResponse:
        return await self._login(request, lambda _form: self.entra.instance_discovery(_queries(request), self.clock()))

    async def _managed_identity(self, request: web.Request) -> web.StreamResponse:
        def work(_form: Mapping[str, str]) -> Answer:
            return self.entra.managed_identity(_queries(request), request.headers, self.clock())

        return await self._login(request, work)

    # Relay

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        connection = self.relay.connections.get(path.strip("/").lower())
        machine_id = connection.machine_id if connection is not None else None
        machine = machine_of(machine_id) if machine_id else None
        fault = self.faults.take(kind="relay", method=request.method, path=f"/$hc/{path}", machine=machine)
        if fault is not None:
            if fault.delay_ms:
                await asyncio.sleep(fault.delay_ms / 1000)
            line = {
                "kind": "relay",
                "path": path,
                "machine_id": machine_id,
                "fault": {"id": fault.id, "effects": fault.effects},
            }
            if fault.reset:
                self.journal.write({**line, "status": None, "text": "reset"})
                return _reset(request)
            if fault.status:
                text = fault.message or "The relay failed."
                self.journal.write({**line, "status": fault.status, "text": text})
                return web.Response(status=fault.status, reason=text, text=text, headers=fault.headers)
        return await self.relay.handle(request)


def _queries(request: web.Request) -> dict[str, str]:
    return dict(request.query)


def _json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    return web.Response(
        status=status,
        headers=headers,
        body=json.dumps(body).encode(),
        content_type="application/json",
        charset="utf-8",
    )


def _failed_by(fault: Fault) -> Answer:
    code = fault.code or "ServiceUnavailable"
    return ArmFailure(
        fault.status or 503,
        code,
        fault.message or "The service is not available now. Please retry.",
        headers=fault.headers,
    ).answer()


def _reset(request: web.Request) -> web.Response:
    """Cut the TCP connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _broken(request: web.Request, fault: Fault, answer: Answer, headers: Mapping[str, str]) -> web.StreamResponse:
    """An answer whose body is slow, cut short, or not what its headers say."""
    body = b"" if answer.body is None else json.dumps(answer.body).encode()
    if fault.garbage:
        body = b"<html><body>\x00\xff not JSON </body></html>"
    response = web.StreamResponse(
        status=answer.status, headers={**headers, "Content-Type": "application/json; charset=utf-8"}
    )
    response.content_length = len(body)
    await response.prepare(request)
    if fault.truncate:
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    pieces = 10 if fault.slow_body else 1
    size = max(1, -(-len(body) // pieces))
    for start in range(0, len(body), size):
        await response.write(body[start : start + size])
        if fault.slow_body:
            await asyncio.sleep(fault.slow_body / pieces)
    await response.write_eof()
    return response
