"""An extension's record, checked and made ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from beamline_contract.extension import default_failure_mode
from beamline_contract.names import EXTENSION_TYPES, SUBJECT_MAX_LENGTH, object_id, subject_fault
from beamline_contract.projection import ExtensionRecord

from .reading import (
    BrokenRecordError,
    breaker,
    flag,
    mapping,
    one_of,
    optional_text,
    retry_budget,
    serialised,
    sticky_key,
    text,
    whole,
)
from .route import CompiledExtension, FailureMode

FAILURE_MODES: tuple[FailureMode, ...] = ("open", "closed", "fallback")
DEFAULT_CONCURRENCY = 64


def compile_extension(record: ExtensionRecord) -> CompiledExtension:
    """Raises :class:`BrokenRecordError` with the first fault."""
    extension_id = text(record.id, "metadata.name")
    kind = one_of(record.type, "spec.type", EXTENSION_TYPES)
    subject = text(record.subject, "spec.subject", longest=SUBJECT_MAX_LENGTH)
    if fault := subject_fault(subject):
        raise BrokenRecordError("spec.subject", fault)
    spec = mapping(record.spec, "spec")
    config = mapping(record.config, "spec.config")
    failure_mode, fallback_id = _failure_mode(spec, default_failure_mode(kind))
    retry_on_timeout = spec.get("retryOnTimeout")
    version_of = optional_text(spec.get("versionOf"), "spec.versionOf")
    return CompiledExtension(
        id=extension_id,
        type=kind,
        subject=subject,
        enabled=flag(record.enabled, "spec.enabled"),
        timeout_ms=whole(record.timeout_ms, "spec.timeoutMs", 1, 600_000),
        retry=whole(record.retry, "spec.retry", 0, 5),
        retry_on_timeout=None if retry_on_timeout is None else flag(retry_on_timeout, "spec.retryOnTimeout"),
        failure_mode=failure_mode,
        fallback_id=fallback_id,
        config=config,
        config_json=serialised(config, "spec.config"),
        breaker=breaker(spec.get("circuitBreaker"), "spec.circuitBreaker"),
        concurrency=whole(spec.get("concurrency", DEFAULT_CONCURRENCY), "spec.concurrency", 1, 100_000),
        budget=retry_budget(spec.get("retryBudget"), "spec.retryBudget"),
        version=optional_text(record.version, "spec.version"),
        version_of=None if version_of is None else object_id(version_of),
        weight=whole(record.weight, "spec.weight", 0, 1_000),
        sticky_key=sticky_key(spec.get("stickyKey"), "spec.stickyKey"),
        generation=whole(record.generation, "metadata.generation", 0, 2**63 - 1),
        record=record,
    )


def _failure_mode(spec: Mapping[str, Any], default: FailureMode) -> tuple[FailureMode, str | None]:
    stated = spec.get("failureMode")
    mode = default if stated is None else one_of(stated, "spec.failureMode", FAILURE_MODES)
    if mode != "fallback":
        return mode, None
    reference = mapping(spec.get("fallbackRef"), "spec.fallbackRef")
    return mode, object_id(text(reference.get("name"), "spec.fallbackRef.name"))


def link_versions(table: dict[str, CompiledExtension]) -> None:
    """Gives each extension of ``table`` its enabled versions, in place.

    A version counts where its base exists in the same namespace, has the same type and is no version itself;
    elsewhere it is an extension like any other. One whose versions stayed the same objects stays itself.
    """
    families: dict[str, list[CompiledExtension]] = {}
    for extension in table.values():
        if extension.version_of is None or not extension.enabled:
            continue
        base = table.get(extension.version_of)
        if base is not None and _is_version(extension, base):
            families.setdefault(base.id, []).append(extension)
    for extension_id, extension in table.items():
        kept = extension.versions
        if not kept and extension_id not in families:
            continue
        wanted = tuple(sorted(families.get(extension_id, ()), key=lambda version: version.id))
        if len(kept) != len(wanted) or any(a is not b for a, b in zip(kept, wanted, strict=True)):
            table[extension_id] = replace(extension, versions=wanted)


def _is_version(extension: CompiledExtension, base: CompiledExtension) -> bool:
    return (
        base.version_of is None
        and extension.type == base.type
        and extension.record.namespace == base.record.namespace
    )
