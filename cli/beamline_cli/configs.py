"""Configurations in manifests, held against what is known of the extensions without asking any.

Known are the schema in an Extension's own manifest (``spec.configSchema``) and the models of the extensions
that ship with Beamline, where the workload's command names one. A policy's step lays its ``config`` over that
of the extensions that it calls; those among the manifests are known, and no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beamline_cli.output import complain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from beamline_contract.model import Fault
    from beamline_contract.objects import BeamlineObject, Extension, RoutingPolicy


def config_faults_of(parsed: BeamlineObject) -> Iterator[Fault]:
    """What a configuration breaks: of the schema in the manifest, and of an extension that ships with us."""
    from beamline_contract.model import Fault
    from beamline_contract.objects import Extension
    from beamline_operator.core.config_schema import config_faults, schema_fault

    if not isinstance(parsed, Extension):
        return
    schema = parsed.spec.config_schema
    if schema is not None:
        wrong = schema_fault(schema)
        if wrong is not None:
            yield Fault("spec.configSchema", wrong)
        for sentence in config_faults(schema, parsed.spec.config):
            yield _fault(sentence)
    for sentence in _builtin_faults(parsed, parsed.spec.config, say=True):
        yield _fault(f"spec.{sentence}")


def step_faults_of(policy: RoutingPolicy, objects: Collection[BeamlineObject]) -> Iterator[Fault]:
    """What the configurations of a policy's steps break, laid over those of the extensions among ``objects``.

    What an extension's own configuration breaks is told of that object, and not again here.
    """
    from beamline_contract.objects import Extension
    from beamline_operator.core.config_schema import override_faults
    from beamline_operator.core.overrides import overridden

    home = policy.metadata.namespace
    extensions = [one for one in objects if isinstance(one, Extension)]
    for at, config, ref in overridden(policy):
        place = (ref.namespace or home, ref.name)
        for one in extensions:
            if one.metadata.namespace != place[0] or ref.name not in {one.metadata.name, one.spec.version_of}:
                continue
            own = set(_builtin_faults(one, one.spec.config))
            found = [
                f"{at}{sentence.removeprefix('config')}"
                for sentence in _builtin_faults(one, {**one.spec.config, **config})
                if sentence not in own
            ]
            if one.spec.config_schema is not None:
                found.extend(override_faults(one.spec.config_schema, one.spec.config, config, at))
            for sentence in found:
                yield _fault(f"{sentence} (laid over the config of {one.key})")


def _fault(sentence: str) -> Fault:
    from beamline_contract.model import Fault

    field, _, words = sentence.partition(": ")
    return Fault(field, words)


def _builtin_faults(parsed: Extension, config: Mapping[str, Any], *, say: bool = False) -> tuple[str, ...]:
    """By the model of the extension that the workload's command names, ``[..., extension, run, NAME]``."""
    from pydantic import ValidationError

    from beamline_extensions.catalogue import UnknownExtensionError, create
    from beamline_sdk.config import faults_of

    workload = parsed.spec.workload
    command = list((workload.command if workload is not None else None) or ())
    if command[-3:-1] != ["extension", "run"]:
        return ()
    why = None
    try:
        create(command[-1]).config_model.model_validate(config)
    except UnknownExtensionError as error:
        why = str(error)
    except ImportError:
        why = "its configuration is not checked, beamline[extensions] is not installed"
    except ValidationError as error:
        return faults_of(error)
    if why is not None and say:
        complain(f"{parsed.key}: {why}")
    return ()
