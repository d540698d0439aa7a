"""A step's call of an extension: what the step lays over the extension's own settings, decided beforehand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import orjson

from beamline_contract.names import ExtensionType

from .reading import breaker, flag, mapping, retry_budget, serialised, whole
from .retry import DEFAULT_BUDGET, BudgetSettings
from .route import Call, CompiledExtension
from .score import NO_HINTS, read_hints

_EMPTY = orjson.Fragment(b"{}")
_ABSENT_BREAKER = breaker(None, "")


class Resolver:
    """Looks extensions up for one policy and remembers which ones it depends on."""

    def __init__(
        self,
        policy_id: str,
        table: Mapping[str, CompiledExtension],
        budget: BudgetSettings | None,
        denied: Collection[str] = (),
    ) -> None:
        self.policy_id = policy_id
        self._table = table
        self._budget = budget
        self._denied = frozenset(denied)
        self.needs: dict[str, CompiledExtension | None] = {}

    def find(self, extension_id: str) -> CompiledExtension | None:
        """The extension of that id, disabled or not; None also where it does not let this policy use it."""
        found = self._table.get(extension_id)
        self.needs[extension_id] = found
        return None if extension_id in self._denied else found

    def call(
        self,
        extension_id: str,
        wanted: ExtensionType,
        step: Mapping[str, Any],
        at: str,
        *,
        key: str = "",
        weight: int = 1,
        shadow: bool = False,
    ) -> Call:
        """The call of one extension with what ``step`` lays over it; an empty ``step`` lays nothing.

        A ``shadow`` has breaker, budget and bulkhead of its own, so that it opens, uses up and fills nothing
        that decides about an answer.

        Raises :class:`BrokenRecordError` for what is wrong in ``step``, whether there is an extension or not.
        """
        extension = self.find(extension_id)
        over = _Overrides(step, at)
        if extension is None or not extension.enabled or extension.type != wanted:
            nobody = _nobody(extension_id, wanted, extension, weight)
            if extension_id in self._denied:
                return replace(nobody, absent=f"{extension_id} does not let this policy use it")
            return nobody
        if not extension.versions:
            return self._one(extension, extension_id, over, key, weight, shadow)
        leaves = tuple(
            replace(self._one(one, extension_id, over, key, weight, shadow), version=one.version or one.id)
            for one in (extension, *extension.versions)
        )
        return replace(leaves[0], versions=leaves, version_key=extension.sticky_key)

    def _one(  # noqa: PLR0917 -- what a call is made of, in the order of call()
        self,
        extension: CompiledExtension,
        named: str,
        over: _Overrides,
        key: str,
        weight: int,
        shadow: bool,
    ) -> Call:
        config, config_json = extension.config, extension.config_json
        if over.config:
            config = {**config, **over.config}
            config_json = serialised(config, f"{over.at}.config")
        timeout_s = (extension.timeout_ms if over.timeout_ms is None else over.timeout_ms) / 1000
        stated = extension.retry_on_timeout if over.retry_on_timeout is None else over.retry_on_timeout
        effective = over.breaker or extension.breaker
        own = f"{extension.id}@{self.policy_id}/{key}"
        budget, budget_key = self._budget_of(extension, over, own, shadow)
        return Call(
            extension_id=extension.id,
            type=extension.type,
            subject=extension.subject,
            absent=None,
            timeout_s=timeout_s,
            retry=extension.retry if over.retry is None else over.retry,
            retry_on_timeout=extension.type != "provider" if stated is None else stated,
            fallback_on_timeout=stated is not False,
            config=config,
            config_json=config_json,
            breaker_key=extension.id if over.breaker is None and not shadow else own,
            breaker=effective,
            slow_s=timeout_s * effective.slow_threshold_ratio,
            concurrency=extension.concurrency,
            weight=weight,
            named=named,
            share=extension.weight,
            load_key=own if shadow else extension.id,
            gate=None if over.concurrency is None else own,
            gate_limit=over.concurrency or 0,
            budget_key=budget_key,
            budget=budget,
            hints=read_hints(extension.record.metadata) if extension.type == "provider" else NO_HINTS,
        )

    def _budget_of(
        self, extension: CompiledExtension, over: _Overrides, own: str, shadow: bool
    ) -> tuple[BudgetSettings | None, str | None]:
        """Settings and key of the retry budget, the step's before the policy's before the extension's; None
        where nobody states one, and the extension's default holds.
        """
        if over.budget is not None:
            return over.budget, own
        if self._budget is not None:
            stated, shared = self._budget, f"{extension.id}@{self.policy_id}"
        elif extension.budget is not None:
            stated, shared = extension.budget, extension.id
        else:
            return (DEFAULT_BUDGET, own) if shadow else (None, None)
        return stated, own if shadow else shared


class _Overrides:
    """What a step states for the call itself, checked."""

    __slots__ = (
        "at", "breaker", "budget", "concurrency", "config", "retry", "retry_on_timeout", "timeout_ms",
    )  # fmt: skip

    def __init__(self, step: Mapping[str, Any], at: str) -> None:
        self.at = at
        timeout, retry, on_timeout = step.get("timeout_ms"), step.get("retry"), step.get("retry_on_timeout")
        config, own_breaker, concurrency = (
            step.get("config"),
            step.get("circuit_breaker"),
            step.get("concurrency"),
        )
        self.timeout_ms = None if timeout is None else whole(timeout, f"{at}.timeoutMs", 1, 600_000)
        self.retry = None if retry is None else whole(retry, f"{at}.retry", 0, 5)
        self.retry_on_timeout = None if on_timeout is None else flag(on_timeout, f"{at}.retryOnTimeout")
        self.config = None if config is None else mapping(config, f"{at}.config")
        self.budget = retry_budget(step.get("retry_budget"), f"{at}.retryBudget")
        self.breaker = None if own_breaker is None else breaker(own_breaker, f"{at}.circuitBreaker")
        self.concurrency = (
            None if concurrency is None else whole(concurrency, f"{at}.concurrency", 1, 100_000)
        )


def _nobody(extension_id: str, wanted: ExtensionType, found: CompiledExtension | None, weight: int) -> Call:
    if found is None:
        absent = f"no extension goes by the id {extension_id}"
    elif found.type != wanted:
        absent = f"{extension_id} is a {found.type}, not a {wanted}"
    else:
        absent = f"{extension_id} is disabled"
    return Call(
        extension_id=extension_id,
        type=wanted,
        subject="",
        absent=absent,
        timeout_s=0.0,
        retry=0,
        retry_on_timeout=False,
        fallback_on_timeout=True,
        config={},
        config_json=_EMPTY,
        breaker_key=extension_id,
        breaker=_ABSENT_BREAKER,
        slow_s=0.0,
        concurrency=1,
        weight=weight,
        named=extension_id,
        load_key=extension_id,
    )
