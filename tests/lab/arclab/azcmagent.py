# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does `azcmagent` say and do on a machine?

A stand-in for the Connected Machine agent's command, which the lab puts on its machines as /opt/azcmagent/bin/azcmagent: outputs,
exit codes, privileges and habits (errors go to stdout unless --log-stderr) as far as public sources tell them. Settings live in
localconfig.json, which the lab watches; himds lives as long as somebody holds the lock that its unit takes. An agent below 1.34 has
no JSON for `config list` and fewer properties: where that really began is not known. The standard library is enough for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
from typing import Any, NoReturn, cast

BINARY = "/opt/azcmagent/bin/azcmagent"
SETTINGS = "/var/opt/azcmagent/localconfig.json"
IDENTITY = "/var/opt/azcmagent/agentconfig.json"
HIMDS_LOCK = "/run/himdsd.lock"

# What a property is worth where nothing was set; its type is the property's. From lists of agent 1.48 that users published.
DEFAULTS: dict[str, Any] = {
    "incomingconnections.enabled": True,
    "incomingconnections.ports": [],
    "connection.type": "default",
    "proxy.url": "",
    "proxy.bypass": [],
    "extensions.allowlist": [],
    "extensions.blocklist": [],
    "guestconfiguration.enabled": True,
    "extensions.enabled": True,
    "config.mode": "full",
    "guestconfiguration.agent.cpulimit": 5,
    "extensions.agent.cpulimit": 5,
}
INFO = {
    "incomingconnections.enabled": "Whether remote connections such as SSH and Windows Admin Center are allowed.",
    "incomingconnections.ports": "The local ports that incoming connections may be made to.",
    "connection.type": "How the agent reaches Azure.",
    "proxy.url": "The proxy server to use.",
    "proxy.bypass": "The services that do not use the proxy.",
    "extensions.allowlist": "The extensions that may be installed.",
    "extensions.blocklist": "The extensions that may not be installed.",
    "guestconfiguration.enabled": "Whether machine configuration runs.",
    "extensions.enabled": "Whether the extension manager runs.",
    "config.mode": "Which capabilities the agent offers.",
    "guestconfiguration.agent.cpulimit": "The CPU limit of the machine configuration agent in percent.",
    "extensions.agent.cpulimit": "The CPU limit of the extension agent in percent.",
}
CHOICES = {
    "connection.type": ("default", "direct", "gateway"),
    "config.mode": ("full", "monitor"),
    "proxy.bypass": ("AAD", "ARM", "AMA", "Arc", "ArcData"),
}
PREVIEW = ("incomingconnections.enabled", "incomingconnections.ports", "connection.type")
NEWER = ("connection.type", "guestconfiguration.agent.cpulimit", "extensions.agent.cpulimit")
FROZEN_BY_MONITOR = ("extensions.allowlist", "extensions.blocklist", "extensions.enabled", "guestconfiguration.enabled")
JSON_LIST_SINCE = (1, 34)
CAPITAL_KEYS_SINCE = (1, 60)
SHOW_FOR_ALL_SINCE = (1, 31)
SERVICES = (
    ("Agent Service", "himds", "himdsd"),
    ("Azure Arc Proxy", "arcproxy", "arcproxyd"),
    ("Extension Service", "extensionservice", "extd"),
    ("GC Service", "gcarcservice", "gcad"),
)
LABELS = {
    "resourceName": "Resource Name",
    "resourceGroup": "Resource Group Name",
    "resourceNamespace": "Resource Namespace",
    "resourceId": "Resource Id",
    "subscriptionId": "Subscription ID",
    "tenantId": "Tenant ID",
    "vmId": "VM ID",
    "correlationId": "Correlation ID",
    "vmUuid": "VM UUID",
    "location": "Location",
    "cloud": "Cloud",
    "identityKeyStore": "Identity Key Store",
    "agentVersion": "Agent Version",
    "logFilePath": "Agent Logfile",
    "status": "Agent Status",
    "lastHeartbeat": "Agent Last Heartbeat",
    "errorCode": "Agent Error Code",
    "errorDetails": "Agent Error Details",
    "errorTimestamp": "Agent Error Timestamp",
    "httpsProxy": "Using HTTPS Proxy",
    "proxyBypass": "Proxy Bypass List",
    "upstreamProxy": "Upstream Proxy",
    "gatewayUrl": "Gateway URL",
    "cloudProvider": "Cloud Provider",
    "cloudMetadata": "Cloud Metadata",
    "manufacturer": "Manufacturer",
    "model": "Model",
    "mssqlDiscovered": "MSSQL Server Detected",
    "mysqlDiscovered": "MySQL Server Detected",
    "pgsqlDiscovered": "PGSQL Server Detected",
}
FLAGS = {"-j": "json", "--json": "json", "--no-color": "", "--log-stderr": "log-stderr", "-v": "", "--verbose": ""}
USAGE = """\
The Azure Connected Machine agent.

Usage:
  azcmagent [command]

Available Commands:
  check       Run a series of network connectivity checks
  config      Manage the local configuration of the agent
  show        Get the status of the agent
  version     Display the version of the agent
"""


class Failure(Exception):
    """The command ends with the exit status `code`, which is also the number of the message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# ---- what is stored


def load_settings(root: str = "/") -> dict[str, Any]:
    """All properties; what the file lacks, or a missing file, is the default."""
    try:
        with open(os.path.join(root, SETTINGS.lstrip("/")), encoding="utf-8") as file:
            stored = json.load(file)
    except (OSError, ValueError):
        stored = {}
    return {**DEFAULTS, **{name: value for name, value in stored.items() if name in DEFAULTS}}


def save_settings(settings: dict[str, Any]) -> None:
    """In one step, so that whoever watches never sees half a file."""
    draft = SETTINGS + ".new"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=2)
        file.write("\n")
    os.replace(draft, SETTINGS)


def himds_runs(root: str = "/") -> bool:
    """Does the unit of himds hold its lock?"""
    try:
        with open(os.path.join(root, HIMDS_LOCK.lstrip("/")), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def identity() -> dict[str, Any]:
    """Who this machine is in Azure; written by the lab."""
    with open(IDENTITY, encoding="utf-8") as file:
        return cast("dict[str, Any]", json.load(file))


def version_of(who: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", who["agentVersion"])[:2])


# ---- values


def known(who: dict[str, Any]) -> list[str]:
    """The properties of this version of the agent."""
    return [name for name in DEFAULTS if version_of(who) >= JSON_LIST_SINCE or name not in NEWER]


def parsed(name: str, text: str) -> Any:
    """A value from the command line; Failure 23 if the property cannot have it."""
    kind = type(DEFAULTS[name])
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise Failure(23, f"Invalid value '{text}' for {name}: expected true or false")
        return text.lower() == "true"
    if kind is int:
        if not text.isdigit() or not 1 <= int(text) <= 100:
            raise Failure(23, f"Invalid value '{text}' for {name}: expected a number from 1 to 100")
        return int(text)
    if kind is list:
        return [checked(name, item.strip()) for item in text.split(",") if item.strip()]
    return checked(name, text)


def checked(name: str, item: str) -> str:
    choices = CHOICES.get(name)
    if choices is not None and item.lower() not in [one.lower() for one in choices]:
        raise Failure(23, f"Invalid value '{item}' for {name}: expected one of {', '.join(choices)}")
    if name == "incomingconnections.ports" and not (item.isdigit() and 0 < int(item) < 65536):
        raise Failure(23, f"Invalid port '{item}'")
    if name == "proxy.url" and item and not item.startswith(("http://", "https://")):
        raise Failure(23, f"Invalid URL '{item}'")
    return item if choices is None else next(one for one in choices if one.lower() == item.lower())


def shown(value: Any, who: dict[str, Any]) -> str:
    """A value as text; old agents write lists as Go does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{(',' if version_of(who) >= JSON_LIST_SINCE else ' ').join(value)}]"
    return str(value)


# ---- commands


class Command:
    """One call: words, flags, and who runs it."""

    def __init__(self, arguments: list[str]) -> None:
        self.words: list[str] = []
        self.flags: set[str] = set()
        waiting = iter(arguments)
        for argument in waiting:
            if argument in FLAGS:
                self.flags.add(FLAGS[argument])
            elif argument in ("-a", "--add", "-r", "--remove"):
                self.flags.add("add" if argument in ("-a", "--add") else "remove")
            elif argument in ("--config", "-l", "--location", "-e", "--cloud"):
                next(waiting, None)
            elif argument.startswith("--config="):
                continue
            elif argument in ("-p", "--enable-pls-check", "-h", "--help"):
                self.flags.add("help" if argument in ("-h", "--help") else "")
            elif argument.startswith("-") and len(argument) > 1:
                raise Failure(23, f"unknown flag: {argument}")
            else:
                self.words.append(argument)
        self.who = identity()

    @property
    def json(self) -> bool:
        return "json" in self.flags

    def need_root(self) -> None:
        if os.geteuid() != 0:
            raise Failure(18, "This command requires elevated privileges: run it as root or with sudo")

    def note(self, text: str) -> None:
        """A line of the log: on stdout, unless it was asked for elsewhere."""
        print(text, file=sys.stderr if "log-stderr" in self.flags else sys.stdout)

    def property_of(self, word: str) -> str:
        if word.lower() not in known(self.who):
            raise Failure(23, f"Invalid configuration property: {word}")
        return word.lower()

    def run(self) -> None:
        if "help" in self.flags or not self.words:
            sys.stdout.write(USAGE)
            return
        first, rest = self.words[0], self.words[1:]
        work = {"config": self.config, "show": self.show, "version": self.version, "check": self.check}.get(first)
        if work is None:
            if first in ("connect", "disconnect", "license", "extension", "logs", "genkey", "upgrade"):
                raise Failure(3, f"The lab's agent has no '{first}'")
            raise Failure(23, f'unknown command "{first}" for "azcmagent"')
        work(rest)

    def version(self, _words: list[str]) -> None:
        number = self.who["agentVersion"]
        print(json.dumps({"version": number}) if self.json else f"azcmagent version {number}")

    def check(self, _words: list[str]) -> None:
        self.need_root()
        if not himds_runs():
            raise Failure(64, "The agent service (himds) cannot be reached")
        endpoints = [
            "management.azure.com",
            "login.microsoftonline.com",
            f"{self.who['location']}.servicebus.windows.net",
        ]
        if self.json:
            rows = [
                {"endpoint": f"https://{one}", "reachable": True, "proxy": False, "private": False} for one in endpoints
            ]
            print(json.dumps({"endpoints": rows}, indent=2))
            return
        print(f"{'Endpoint':<50} Reachable  Private  Proxy")
        for one in endpoints:
            print(f"{'https://' + one:<50} {'true':<10} {'false':<8} not set")

    def show(self, words: list[str]) -> None:
        if version_of(self.who) < SHOW_FOR_ALL_SINCE:
            self.need_root()
        facts = self.facts()
        if words:
            wanted = {word.lower() for word in words}
            facts = {name: value for name, value in facts.items() if name.lower() in wanted}
        if self.json:
            print(json.dumps(facts, indent=2))
            return
        for name, value in facts.items():
            if name in LABELS:
                print(f"{LABELS[name]:<39}: {value}")
        if not words:
            print("\nDependent Service Status")
            for label, service, _unit in SERVICES:
                print(f"  {f'{label} ({service})':<37}: {facts['services'][service]}")

    def facts(self) -> dict[str, Any]:
        running = himds_runs()
        settings = load_settings()
        beat = time.time()
        if not running and os.path.exists(HIMDS_LOCK):
            beat = os.path.getmtime(HIMDS_LOCK)
        facts: dict[str, Any] = {name: self.who.get(name, "") for name in LABELS}
        facts.update(
            resourceNamespace="Microsoft.HybridCompute",
            identityKeyStore="default",
            logFilePath="/var/opt/azcmagent/log/himds.log",
            status="Connected" if running else "Disconnected",
            lastHeartbeat=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(beat)),
            httpsProxy=settings["proxy.url"],
            proxyBypass=shown(settings["proxy.bypass"], self.who),
            cloudProvider="N/A",
            mssqlDiscovered="false",
            mysqlDiscovered="false",
            pgsqlDiscovered="false",
            services={name: "running" if name != "himds" or running else "stopped" for _label, name, _unit in SERVICES},
        )
        return facts

    def config(self, words: list[str]) -> None:
        verbs = {
            "list": self.list_all,
            "get": self.get_one,
            "set": self.set_one,
            "clear": self.clear_one,
            "info": self.info,
        }
        if not words:
            raise Failure(16, "Missing required parameter: list, get, set, clear or info")
        if words[0] not in verbs:
            raise Failure(23, f'unknown command "{words[0]}" for "azcmagent config"')
        verbs[words[0]](words[1:])

    def readable(self) -> dict[str, Any]:
        if not himds_runs():
            raise Failure(70, "Unable to obtain the local configuration: the agent service (himds) cannot be reached")
        return load_settings()

    def list_all(self, _words: list[str]) -> None:
        if self.json and version_of(self.who) < JSON_LIST_SINCE:
            raise Failure(23, "unknown flag: --json")
        settings = self.readable()
        if self.json:
            key, value = ("Key", "Value") if version_of(self.who) >= CAPITAL_KEYS_SINCE else ("key", "value")
            rows = [{key: name, value: settings[name]} for name in known(self.who)]
            print(json.dumps({"localsettings": rows}, indent=2))
            return
        print("Local Configuration Settings")
        for name in known(self.who):
            label = f"{name} (preview)" if name in PREVIEW else name
            print(f"  {label:<54}: {shown(settings[name], self.who)}")

    def get_one(self, words: list[str]) -> None:
        if not words:
            raise Failure(16, "Missing required parameter: the name of a property")
        name = self.property_of(words[0])
        value = self.readable()[name]
        print(json.dumps(value) if self.json and version_of(self.who) >= JSON_LIST_SINCE else shown(value, self.who))

    def set_one(self, words: list[str]) -> None:
        self.need_root()
        if len(words) != 2:
            raise Failure(16, "Missing required parameter: a property and its value")
        name = self.property_of(words[0])
        value = parsed(name, words[1])
        verbs = self.flags & {"add", "remove"}
        if verbs and not isinstance(value, list):
            raise Failure(23, f"{name} is not a list: --add and --remove do not apply")
        if len(verbs) == 2:
            raise Failure(23, "--add and --remove exclude each other")
        settings = self.writable(name)
        if "add" in verbs:
            value = settings[name] + [item for item in value if item not in settings[name]]
        elif "remove" in verbs:
            value = [item for item in settings[name] if item not in value]
        self.store(settings, name, value)
        print(f"Config property {name} set to value {shown(value, self.who)}")
        self.note("INFO    Updating service configuration: Agent Service")

    def clear_one(self, words: list[str]) -> None:
        self.need_root()
        if not words:
            raise Failure(16, "Missing required parameter: the name of a property")
        name = self.property_of(words[0])
        self.store(self.writable(name), name, DEFAULTS[name])
        print(f"Config property {name} cleared")
        self.note("INFO    Updating service configuration: Agent Service")

    def writable(self, name: str) -> dict[str, Any]:
        if not himds_runs():
            raise Failure(69, "Error updating the local configuration: the agent service (himds) cannot be reached")
        settings = load_settings()
        if settings["config.mode"] == "monitor" and name in FROZEN_BY_MONITOR:
            raise Failure(27, f"{name} cannot be changed in monitor mode")
        return settings

    def store(self, settings: dict[str, Any], name: str, value: Any) -> None:
        settings[name] = value
        try:
            save_settings(settings)
        except OSError as exc:
            raise Failure(69, f"Error updating the local configuration: {exc.strerror}") from exc

    def info(self, words: list[str]) -> None:
        for name in [self.property_of(words[0])] if words else known(self.who):
            print(f"{name}\n    Description: {INFO[name]}")
            kind = {bool: "true, false", int: "1-100", list: "a comma-separated list"}.get(type(DEFAULTS[name]), "text")
            print(f"    Supported values: {', '.join(CHOICES[name]) if name in CHOICES else kind}")
            print(f"    Default value: {shown(DEFAULTS[name], self.who)}")


def main() -> NoReturn:
    arguments = sys.argv[1:]
    try:
        Command(arguments).run()
    except Failure as failure:
        where = sys.stderr if "--log-stderr" in arguments else sys.stdout
        print(f"FATAL   AZCM{failure.code:04}: {failure}", file=where)
        sys.exit(failure.code)
    sys.exit(0)


if __name__ == "__main__":
    main()
