# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the Ansible side of every ARM module?

The argument specification, the one place that catches errors, and the one that exits. A module states its options and which
resource they describe; everything else is here, once. Private to arcfleet.ssh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ._arm import MISSING, Arm
from ._auth import AUTH_SOURCES, AuthOptions, TokenSource
from ._claims import Claims, default_path
from ._errors import ArcError, InputError, redact
from ._fleet import Target, machine_targets, report, subscription_targets, told, verdict, work_on
from ._interruption import stoppable
from ._pacing import Pace
from ._reconcile import Outcome, Run, reconcile
from ._registration import Registrations
from ._resources._base import Resource

Work = Callable[[Run, Target, Outcome], None]
Before = Callable[[Run, Sequence[Target]], None]

AUTH_OPTIONS: dict[str, Any] = {
    "auth_source": {
        "type": "str",
        "choices": list(AUTH_SOURCES),
        "default": "auto",
        "fallback": (env_fallback, ["ANSIBLE_AZURE_AUTH_SOURCE"]),
    },
    "profile": {"type": "str"},
    "subscription_id": {"type": "str", "fallback": (env_fallback, ["AZURE_SUBSCRIPTION_ID"])},
    "client_id": {"type": "str"},
    "secret": {"type": "str", "no_log": True},
    "tenant": {"type": "str"},
    "x509_certificate_path": {"type": "path"},
    "oidc_token": {"type": "str", "no_log": True},
    "oidc_token_file_path": {"type": "path"},
    # No default here: a profile of the credential file may name its cloud.
    "cloud_environment": {"type": "str", "fallback": (env_fallback, ["AZURE_CLOUD_ENVIRONMENT"])},
}

RUN_OPTIONS: dict[str, Any] = {
    "concurrency": {"type": "int", "default": 32},
    "max_fail_percentage": {"type": "float", "default": 0.0},
}

MACHINE_OPTIONS: dict[str, Any] = {
    "machines": {"type": "list", "elements": "raw"},
    "name": {"type": "str", "aliases": ["machine_name"]},
    "resource_group": {"type": "str"},
}

STATE_OPTION: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

# The options of modules whose write takes Azure a while.
WAIT_OPTIONS: dict[str, Any] = {
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 600},
}

UNAVAILABLE_OPTION: dict[str, Any] = {
    "unavailable": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
}


class ArcModule:
    """One module run.

    `options` are the module's own; `overrides` are those that a machine may have to itself; `machine_option` names a single
    machine, where `name` is something else.
    """

    kind = "machines"
    common: Mapping[str, Any] = MACHINE_OPTIONS

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        overrides: Sequence[str] = (),
        machine_option: str = "name",
        **conditions: Any,
    ) -> None:
        self._machine_option = machine_option
        self._overrides = {name: {**options[name], "default": None} for name in overrides}
        if "name" in self.common:
            conditions["mutually_exclusive"] = [("machines", machine_option), ("machines", "resource_group")]
        self._module = AnsibleModule(
            argument_spec={**AUTH_OPTIONS, **self.common, **RUN_OPTIONS, **options},
            supports_check_mode=True,
            **conditions,
        )
        self.params: Mapping[str, Any] = self._module.params
        self._registrations = Registrations()

    def reconcile(self, describe: Callable[[Any, Mapping[str, Any]], Resource]) -> None:
        """Bring the resource that `describe(machine or subscription, options)` makes of each target to what it shall be."""
        resources: dict[str, Resource] = {}

        def check(target: Target) -> None:
            resources[target.key] = describe(target.machine or target.key, target.options)

        self.run(lambda run, target, outcome: reconcile(run, resources[target.key], outcome), check=check)

    def run(
        self,
        work: Work,
        *,
        check: Callable[[Target], None] = lambda target: None,
        before: Before = lambda run, targets: None,
        also: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Do `work` for each target and exit.

        `check` sees every target before the first request, and may refuse it; `before` is called once, after the login, to read
        what is better read for the whole fleet at once; `also` makes what is returned beside the targets.
        """
        try:
            self._check_run_options()
            targets = self._targets()
            for target in targets:
                check(target)
            if MISSING is not None:
                self._module.fail_json(
                    msg=missing_required_lib("azure-identity and azure-mgmt-resource"), exception=str(MISSING)
                )
            pace = Pace()
            with stoppable(pace):
                outcomes = self._work(pace, targets, work, before)
        except ArcError as exc:
            self._module.fail_json(msg=str(exc), failure=exc.failure())
        except Exception as exc:  # noqa: BLE001
            self._module.fail_json(
                msg=f"Unexpected {type(exc).__name__}: {redact(str(exc))}. Please report this with the version of arcfleet.ssh."
            )
        self._exit(targets, outcomes, pace, also())

    def _work(self, pace: Pace, targets: Sequence[Target], work: Work, before: Before) -> Mapping[str, Outcome]:
        run = self._begin(pace)
        try:
            before(run, targets)
            return work_on(
                targets, lambda target, outcome: work(run, target, outcome), concurrency=self.params["concurrency"]
            )
        finally:
            run.arm.close()
            if run.claims is not None:
                run.claims.close()

    def _check_run_options(self) -> None:
        if self.params["concurrency"] < 1:
            raise InputError(f"concurrency is {self.params['concurrency']}; it is at least 1.")
        if not 0 <= self.params["max_fail_percentage"] <= 100:
            raise InputError(f"max_fail_percentage is {self.params['max_fail_percentage']}; it lies between 0 and 100.")

    def _targets(self) -> list[Target]:
        return machine_targets(self._typed(), tuple(self._overrides), machine_option=self._machine_option)

    def _typed(self) -> Mapping[str, Any]:
        """The parameters, with the types of per-machine overrides checked as those of options are."""
        entries = self.params.get("machines")
        identity = {"id": {"type": "str", "required": True}, "host": {"type": "str"}}
        validator = ArgumentSpecValidator({**identity, **self._overrides})
        typed: list[Any] = []
        for entry in entries or ():
            if (
                isinstance(entry, Mapping)
                and isinstance(entry.get("id"), str)
                and set(entry) <= {*identity, *self._overrides}
            ):
                result = validator.validate(dict(entry))
                if result.error_messages:
                    raise InputError(f"{entry['id']}: {'; '.join(result.error_messages)}.")
                entry = {key: value for key, value in result.validated_parameters.items() if key in entry}
            typed.append(entry)
        return self.params if entries is None else {**self.params, "machines": typed}

    def _begin(self, pace: Pace) -> Run:
        credential = TokenSource(AuthOptions.from_params(self.params))
        # One failed login is one sentence, not one for each machine.
        credential.token()
        return Run(
            arm=Arm(credential, connections=self.params["concurrency"], pace=pace),
            pace=pace,
            claims=None if self._module.check_mode else Claims(default_path()),
            cloud_environment=credential.options.cloud_environment,
            check_mode=self._module.check_mode,
            wait=self.params.get("wait", True),
            wait_timeout=float(self.params.get("wait_timeout", 600)),
            skip_unavailable=self.params.get("unavailable") == "skip",
            register=self._registrations.ensure if self.params.get("register_provider") else None,
        )

    def _exit(
        self, targets: Sequence[Target], outcomes: Mapping[str, Outcome], pace: Pace, also: Mapping[str, Any]
    ) -> None:
        result = {**report(targets, outcomes, kind=self.kind), **also}
        self._add_registrations(result)
        result["pacing"] = {
            "requests": pace.requests,
            "throttled": pace.throttled,
            "waited": round(pace.waited, 1),
        }
        for warning in dict.fromkeys(text for outcome in outcomes.values() for text in outcome.warnings):
            self._module.warn(warning)
        failed = verdict(result, kind=self.kind, max_fail_percentage=self.params["max_fail_percentage"])
        if failed:
            self._module.fail_json(msg=failed, **result)
        if result["failures"]:
            self._module.warn(
                f"{result['summary']['failed']} of {result['summary']['total']} {self.kind} failed; see failures."
            )
        self._module.exit_json(msg=told(result), **result)

    def _add_registrations(self, result: dict[str, Any]) -> None:
        """Add what was registered on the way."""
        made = self._registrations.outcomes
        if made:
            also = report([Target(key, key, self.params) for key in made], made, kind="subscriptions")
            result["subscriptions"] = also["subscriptions"]
            result["changed"] = result["changed"] or also["changed"]
            for side in ("before", "after"):
                result["diff"][side].update(also["diff"][side])


class SubscriptionModule(ArcModule):
    """A module that works on subscriptions."""

    kind = "subscriptions"
    common: Mapping[str, Any] = {"subscriptions": {"type": "list", "elements": "str"}}

    def _targets(self) -> list[Target]:
        return subscription_targets(self.params)
