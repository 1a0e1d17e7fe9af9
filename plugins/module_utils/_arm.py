# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How does a request reach Azure Resource Manager, and what comes back?

The only door to ARM. The pipeline, the challenge of continuous access evaluation and the polling of long-running operations are
azure-core's and azure-mgmt-core's. When a request goes, and when it goes again, is `_pacing`'s: azure-core's retries know one
request only, and repeat a write whose fate is unknown. The policy that would register resource providers behind the user's back is
left out, and every failure becomes a typed sentence. Private to arcfleet.ssh.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from ._auth import TokenSource, ca_bundle
from ._errors import ArmError, ConnectionFailed, Interrupted, OperationTimeout, Throttled, arm_error, in_the_way, redact
from ._pacing import LONGEST_WAIT, WRITING, Pace, again, come_back_after, lane_of, retry_after

try:
    import requests
    from azure.core.exceptions import AzureError, HttpResponseError
    from azure.core.pipeline.policies import HeadersPolicy, HTTPPolicy, RequestIdPolicy, UserAgentPolicy
    from azure.core.pipeline.transport import RequestsTransport
    from azure.core.rest import HttpRequest
    from azure.mgmt.core import ARMPipelineClient
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
    from azure.mgmt.core.polling.arm_polling import ARMPolling
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError
except ImportError as exc:
    MISSING: ImportError | None = exc
    ARMPolling = HTTPPolicy = object  # type: ignore[misc,assignment]
else:
    MISSING = None

# 404s that say "the scope is wrong" rather than "there is no such thing yet".
_WRONG_SCOPE = frozenset(
    ("SubscriptionNotFound", "ResourceGroupNotFound", "InvalidResourceNamespace", "InvalidResourceType")
)

# Seconds after which a mangled answer is asked for again, each time.
_AGAIN = (1.0, 2.0, 4.0)

# How many fresh logins a request gets whose token is refused.
_LOGINS = 2

# Seconds between polls of an operation where the answer holds no Retry-After.
_POLL = 10.0

USER_AGENT = "arcfleet.ssh"


class Arm:
    """ARM of one cloud for one identity. Safe to share between threads, which share its pace; `connections` bounds the pool.

    `doing` in each call is the beginning of the sentence that an error completes: "web01: cannot read the endpoint".
    All calls raise ArmError, AuthError, ConnectionFailed, Throttled or Interrupted.
    """

    def __init__(self, credential: TokenSource, *, connections: int = 32, pace: Pace | None = None) -> None:
        if MISSING is not None:
            raise MISSING
        self.pace = pace or Pace()
        self._azure_time: datetime | None = None
        self._credential = credential
        session = _session(credential.cloud.resource_manager, connections)
        self._client: Any = ARMPipelineClient(
            credential.cloud.resource_manager,
            policies=[
                RequestIdPolicy(),
                HeadersPolicy({"Accept": "application/json"}),
                UserAgentPolicy(base_user_agent=USER_AGENT),
                _PacingPolicy(self.pace, self._note_time),
                ARMChallengeAuthenticationPolicy(credential, credential.cloud.scope),
            ],
            transport=RequestsTransport(
                session=session, connection_timeout=20, read_timeout=100, connection_verify=session.verify
            ),
        )

    @property
    def address(self) -> str:
        """The URL at which this ARM answers."""
        return str(self._credential.cloud.resource_manager)

    @property
    def azure_time(self) -> datetime | None:
        """Azure's own time (aware) when it gave the latest answer, refusals included; `None` before the first one."""
        return self._azure_time

    def _note_time(self, headers: Mapping[str, str]) -> None:
        # A proxy that answers in Azure's place has a clock of its own.
        if not headers.get("x-ms-request-id"):
            return
        try:
            told = email.utils.parsedate_to_datetime(headers.get("Date") or "")
        except (TypeError, ValueError):
            return
        self._azure_time = told if told.tzinfo else told.replace(tzinfo=timezone.utc)

    def get(
        self, path: str, api_version: str, *, query: Mapping[str, str] | None = None, doing: str
    ) -> dict[str, Any] | None:
        """The resource at `path`, or `None` when there is none."""
        return self._get(self._url(path, api_version, query), doing)

    def put(self, path: str, api_version: str, body: Mapping[str, Any], *, doing: str) -> dict[str, Any]:
        """Create or replace; the answer of a synchronous operation."""
        answer = self._send("PUT", self._url(path, api_version), doing, body)
        try:
            return _object(answer, doing)
        except ConnectionFailed as exc:
            exc.uncertain = True
            raise

    def post(
        self,
        path: str,
        api_version: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        doing: str,
    ) -> dict[str, Any]:
        """An action on a resource; its answer."""
        return _object(self._send("POST", self._url(path, api_version, query), doing, body), doing)

    def delete(self, path: str, api_version: str, *, doing: str) -> None:
        """Delete; a resource that is gone already is no error."""
        try:
            self._send("DELETE", self._url(path, api_version), doing)
        except ArmError as exc:
            if not _is_absent(exc):
                raise

    def pages(
        self, path: str, api_version: str, *, query: Mapping[str, str] | None = None, doing: str
    ) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page. A page that cannot be read raises: a list is never silently short."""
        url: str | None = self._url(path, api_version, query)
        while url:
            page = self._read(url, doing)
            if not isinstance(page.get("value"), list):
                raise _unreadable(doing, "a page without `value`")
            yield from page["value"]
            url = page.get("nextLink")

    def put_and_wait(
        self, path: str, api_version: str, body: Mapping[str, Any], *, doing: str, timeout: float
    ) -> dict[str, Any]:
        """As `put`, for a long-running operation: polled in whichever of ARM's styles it answers. `timeout` in seconds."""
        url = self._url(path, api_version)
        self._poll(self._run("PUT", url, doing, body), doing, timeout)
        resource = self._get(url, doing)
        if resource is None:
            raise _unreadable(doing, "nothing where the operation ended well")
        return resource

    def put_and_leave(self, path: str, api_version: str, body: Mapping[str, Any], *, doing: str) -> None:
        """As `put`, for a long-running operation that nobody waits for."""
        self._send("PUT", self._url(path, api_version), doing, body)

    def delete_and_wait(self, path: str, api_version: str, *, doing: str, timeout: float) -> None:
        """As `delete`, for a long-running operation."""
        try:
            self._poll(self._run("DELETE", self._url(path, api_version), doing), doing, timeout)
        except ArmError as exc:
            if not _is_absent(exc):
                raise

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _url(self, path: str, api_version: str, query: Mapping[str, str] | None = None) -> str:
        request = HttpRequest(
            "GET", self._client.format_url(path), params={**(query or {}), "api-version": api_version}
        )
        return str(request.url)

    def _get(self, url: str, doing: str) -> dict[str, Any] | None:
        try:
            return self._read(url, doing)
        except ArmError as exc:
            if _is_absent(exc):
                return None
            raise

    def _read(self, url: str, doing: str) -> dict[str, Any]:
        """The object at `url`; an answer that was mangled on its way is asked for again."""
        for pause in _AGAIN:
            try:
                return _object(self._send("GET", url, doing), doing)
            except _Unreadable:
                self.pace.sleep(pause)
        return _object(self._send("GET", url, doing), doing)

    def _send(self, method: str, url: str, doing: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._run(method, url, doing, body).http_response

    def _run(self, method: str, url: str, doing: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self._once(method, url, doing, body)
        for _attempt in range(_LOGINS):
            if answer.http_response.status_code != 401:
                break
            # Refused without a challenge: expired early or revoked, and for another thread's new token perhaps again.
            self._credential.forget(answer.http_request.headers.get("Authorization", ""))
            answer = self._once(method, url, doing, body)
        if answer.http_response.status_code >= 400:
            raise _told(_failure(doing, answer.http_response), method, answer.http_response)
        return answer

    def _once(self, method: str, url: str, doing: str, body: Mapping[str, Any] | None) -> Any:
        request = HttpRequest(method, url, json=body)
        try:
            return self._client.send_request(request, _return_pipeline_response=True, stream=False)
        except (Interrupted, ConnectionFailed, Throttled) as exc:
            raise type(exc)(f"{doing}: {exc.message}", hint=exc.hint) from exc
        except AzureError as exc:
            failure = _no_answer(doing, self._credential.cloud.resource_manager, exc)
            failure.uncertain = method in WRITING and _may_have_arrived(exc)
            raise failure from exc

    def _poll(self, first: Any, doing: str, timeout: float) -> None:
        poller = _Polling(doing, timeout, self.pace)
        poller.initialize(self._client, first, lambda answer: answer)
        try:
            poller.run()
        except Interrupted as exc:
            raise Interrupted(f"{doing}: {exc.message} The operation goes on in Azure.", hint=exc.hint) from exc
        except (ConnectionFailed, Throttled) as exc:
            raise type(exc)(f"{doing}: {exc.message} The operation goes on in Azure.", hint=exc.hint) from exc
        except HttpResponseError as exc:
            raise _failure(doing, exc.response) from exc
        except AzureError as exc:
            raise _no_answer(doing, self._credential.cloud.resource_manager, exc) from exc


def _session(where: str, connections: int) -> Any:
    """A session with a pool of connections. The environment is read once, not for each request, which takes a third of its time."""
    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=connections))
    settings = session.merge_environment_settings(where, {}, None, None, None)
    bundle = ca_bundle()
    session.proxies, session.verify = settings["proxies"], settings["verify"] if bundle is True else bundle
    session.trust_env = False
    return session


class _PacingPolicy(HTTPPolicy):  # type: ignore[type-arg]
    """The run's pace as a policy of azure-core's pipeline, in the place of its retries."""

    def __init__(self, pace: Pace, note_time: Callable[[Mapping[str, str]], None]) -> None:
        super().__init__()
        self._pace = pace
        self._note_time = note_time

    def send(self, request: Any) -> Any:
        method, lane = request.http_request.method, lane_of(request.http_request.method, request.http_request.url)
        attempt = 0
        while True:
            attempt += 1
            admission = self._pace.admit(lane)
            try:
                answer = self.next.send(request)
            except AzureError as exc:
                self._pace.unanswered(admission)
                delay = again(method, None, attempt, sent=_may_have_arrived(exc), told=None)
                if delay is None or in_the_way(exc):
                    raise
            except BaseException:
                self._pace.withdrawn(admission)
                raise
            else:
                status, headers = answer.http_response.status_code, answer.http_response.headers
                self._pace.answered(admission, status, headers)
                self._note_time(headers)
                if status < 400:
                    return answer
                delay = again(method, status, attempt, sent=True, told=retry_after(headers, time.time()))
                if delay is None:
                    return answer
            self._pace.sleep(delay)


def _may_have_arrived(exc: AzureError) -> bool:
    """Whether Azure may have got a request that was not answered; azure-core calls a reset after it "not sent" as well."""
    cause: Any = getattr(exc, "inner_exception", None)
    if isinstance(cause, requests.exceptions.SSLError):
        return False
    reason = cause.args[0] if isinstance(cause, requests.RequestException) and cause.args else cause
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return not isinstance(reason, (NewConnectionError, ConnectTimeoutError))


class _Polling(ARMPolling):
    """azure-mgmt-core's polling of the three styles, with an end: it would wait for ever."""

    def __init__(self, doing: str, timeout: float, pace: Pace) -> None:
        super().__init__(timeout=_POLL)
        self._doing = doing
        self._pace = pace
        self._wait_timeout = timeout
        self._deadline = time.monotonic() + timeout

    def _delay(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise OperationTimeout(
                f"{self._doing}: the operation did not end within {self._wait_timeout:g} s; it goes on in Azure.",
                hint="Run again later, or raise wait_timeout.",
            )
        self._pace.sleep(min(self._extract_delay(), left))


def _told(failure: ArmError | ConnectionFailed, method: str, response: Any) -> ArmError | ConnectionFailed:
    """`failure` with what the answer says of the request's fate and of when to ask again."""
    status = response.status_code
    failure.retry_after = retry_after(response.headers, time.time())
    failure.uncertain = method in WRITING and (status >= 500 or status == 408)
    if status == 429 and (failure.retry_after or 0) > LONGEST_WAIT:
        failure.hint = come_back_after(failure.retry_after or 0)
    return failure


def _is_absent(exc: ArmError) -> bool:
    return exc.status == 404 and exc.code not in _WRONG_SCOPE


def _object(response: Any, doing: str) -> dict[str, Any]:
    if response.status_code == 204 or not response.content:
        return {}
    try:
        body = json.loads(response.content)
    except ValueError as exc:
        raise _unreadable(doing, "something that is not JSON") from exc
    if not isinstance(body, dict):
        raise _unreadable(doing, "JSON that is not an object")
    return body


class _Unreadable(ConnectionFailed):
    """An answer came, but not one of ARM's."""


def _unreadable(doing: str, what: str) -> _Unreadable:
    return _Unreadable(
        f"{doing}: Azure answers with {what}.",
        code=ConnectionFailed.__name__,
        hint="Run again; a proxy that answers in Azure's place is the usual cause.",
    )


def _failure(doing: str, response: Any) -> ArmError | ConnectionFailed:
    try:
        body = json.loads(response.content or b"{}")
    except ValueError:
        if response.status_code == 404:
            # Not ARM's: whoever answers in its place knows nothing of the resource, and absent must not be concluded.
            return _unreadable(doing, "404 and something that is not JSON")
        body = response.content.decode("utf-8", "replace")
    return arm_error(doing, response.status_code, body, response.headers.get("x-ms-request-id"))


def _no_answer(doing: str, where: str, exc: Exception) -> ConnectionFailed:
    obstacle = in_the_way(exc)
    if obstacle:
        return ConnectionFailed(f"{doing}: cannot reach {where}: {obstacle[0]}.", hint=obstacle[1])
    return ConnectionFailed(
        f"{doing}: no answer from {where}: {' '.join(redact(str(exc)).split())[:300]}",
        hint="Check the network, the proxy settings (HTTPS_PROXY, NO_PROXY) and, for a private CA, REQUESTS_CA_BUNDLE.",
    )
