# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was asked of Azure, and how fast can that be at best?

Counts the lab's journal by kind of request and by token bucket. The best case: every bucket is full at the start, holds
as many requests as it is deep, and lets the rest through at its refill (ARM's throttling documentation: reads 250 and
25 a second, writes and deletes 200 and 10, for each subscription, principal and kind; POST counts as a write). Buckets
empty beside each other, so the slowest of them is the bound.
"""

from __future__ import annotations

import json
import ssl
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arclab.client import Lab
from arclab.throttle import operation_of

API_VERSION = "2023-03-15"
BUCKETS = {"reads": (250, 25.0), "writes": (200, 10.0), "deletes": (200, 10.0)}
_CONNECTIVITY = "Microsoft.HybridConnectivity/endpoints"


@dataclass
class Requests:
    """The requests of one run: ARM's by operation, `throttled` those that were refused for coming too early, `succeeded`
    by action of Azure's roles, and by bucket (subscription, principal, operation) what took a token."""

    operations: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    buckets: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    queries: int = 0
    logins: int = 0
    throttled: int = 0

    def __str__(self) -> str:
        extra = f", {self.throttled} refused with 429" if self.throttled else ""
        return (
            f"{self.operations['reads']} reads, {self.operations['writes']} writes, "
            f"{self.queries} Resource Graph{extra}"
        )

    def done(self, action: str) -> int:
        """Successful requests for an action below Microsoft.HybridConnectivity/endpoints."""
        return self.succeeded[f"{_CONNECTIVITY}/{action}".lower()]


def count(journal: Iterable[Mapping[str, Any]]) -> Requests:
    """The lab's journal in figures."""
    requests = Requests()
    for line in journal:
        kind, status = line["kind"], line.get("status")
        if kind == "entra":
            requests.logins += line["method"] == "POST"
        elif status == 429:
            requests.throttled += 1
        elif kind == "graph":
            requests.queries += 1
        elif kind == "arm":
            operation = operation_of(line["method"])
            words = line["path"].lower().split("/")
            subscription = words[2] if words[1:2] == ["subscriptions"] and len(words) > 2 else ""
            requests.operations[operation] += 1
            requests.buckets[subscription, line.get("principal") or "", operation] += 1
            if status is not None and 200 <= status < 300:
                requests.succeeded[(line.get("action") or "").lower()] += 1
    return requests


def bound(buckets: Mapping[tuple[str, str, str], int]) -> float:
    """Seconds that ARM's token buckets need at least for these requests."""
    seconds = [0.0]
    for (_subscription, _principal, operation), asked in buckets.items():
        depth, refill = BUCKETS[operation]
        seconds.append((asked - depth) / refill)
    return max(seconds)


def service_configuration(machine: str) -> str:
    """The path of a machine's SSH service configuration, with its query."""
    return f"{endpoint(machine).partition('?')[0]}/serviceConfigurations/SSH?api-version={API_VERSION}"


def endpoint(machine: str) -> str:
    """The path of a machine's endpoint, with its query."""
    return f"{machine}/providers/Microsoft.HybridConnectivity/endpoints/default?api-version={API_VERSION}"


def withdraw(lab: Lab, machines: Sequence[str]) -> None:
    """Delete the SSH service configurations of these machines, as somebody else would."""
    context = ssl.create_default_context(cafile=lab.env["SSL_CERT_FILE"])
    form = {
        "grant_type": "client_credentials",
        "client_id": lab.env["AZURE_CLIENT_ID"],
        "client_secret": lab.env["AZURE_SECRET"],
        "scope": f"{lab.url}/.default",
    }
    asked = urllib.request.Request(
        f"{lab.url}/{lab.env['AZURE_TENANT']}/oauth2/v2.0/token", urllib.parse.urlencode(form).encode()
    )
    with urllib.request.urlopen(asked, context=context) as answer:
        token = json.load(answer)["access_token"]
    for machine in machines:
        request = urllib.request.Request(
            lab.url + service_configuration(machine), method="DELETE", headers={"Authorization": f"Bearer {token}"}
        )
        urllib.request.urlopen(request, context=context).close()
