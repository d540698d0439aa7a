"""What a workload's process gets to see of the environment, and the command that it is.

A local process does not inherit the whole environment: an extension must not find a key there that its
manifest never asked for. It gets what any program needs to run (:data:`PASSED`), what Beamline adds, and what
``workload.env`` names. A Secret or ConfigMap can't be read without a cluster; the variable of the same name
in the environment of whoever started Beamline stands for it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from beamline_contract.workload import EnvFrom, EnvVar

from .port import DeploymentRequest, Phase

PASSED: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "NO_PROXY", "no_proxy"}
)
"""Variables that every process inherits."""
PASSED_PREFIXES: Final = (
    "LC_",
    "PYTHON",
    "SSL_CERT_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "COV",
)
BEAMLINE: Final = (sys.executable, "-m", "beamline_cli")
"""What the command ``beamline`` stands for: the one of the running environment, whatever PATH says."""


@dataclass(frozen=True, slots=True)
class NotRunnable:
    """Why the workload can't be run here, as a sentence for people."""

    phase: Phase
    message: str


@dataclass(frozen=True, slots=True)
class Runnable:
    """A command with its arguments, and its whole environment."""

    command: tuple[str, ...]
    env: Mapping[str, str]


def resolve(request: DeploymentRequest, environ: Mapping[str, str], cwd: Path) -> Runnable | NotRunnable:
    """The process that ``request`` asks for, started in ``cwd``; ``environ`` is the environment of who starts
    it.
    """
    workload = request.workload
    if not workload.command:
        return NotRunnable(
            Phase.NOT_RUNNABLE,
            f"image {workload.image} can't be run without a cluster: "
            "set workload.command to the program that it holds",
        )
    env = inherited(environ)
    env.update(request.env)
    missing: list[NotRunnable] = []
    for source in workload.env_from:
        missing.extend(_take_all(source, environ, env))
    for variable in workload.env:
        missing.extend(_take(variable, request, environ, env))
    if missing:
        phases = {one.phase for one in missing}
        phase = Phase.NOT_RUNNABLE if Phase.NOT_RUNNABLE in phases else Phase.CREDENTIALS_MISSING
        return NotRunnable(phase, "; ".join(one.message for one in missing))
    program = workload.command[0]
    if program == "beamline":
        start: tuple[str, ...] = BEAMLINE
    else:
        found = _find(program, env.get("PATH", os.defpath), cwd)
        if found is None:
            return NotRunnable(
                Phase.NOT_RUNNABLE,
                f"workload.command: {program!r} is not on this machine: install it, or give its full path",
            )
        start = (found,)
    return Runnable((*start, *workload.command[1:], *workload.args), env)


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of ``environ`` that every process gets."""
    return {
        name: value for name, value in environ.items() if name in PASSED or name.startswith(PASSED_PREFIXES)
    }


def _find(program: str, path: str, cwd: Path) -> str | None:
    if "/" in program:
        # Not resolved: a virtual environment is the symbolic link by which its interpreter is called.
        candidate = Path(os.path.abspath(cwd / program))
        return str(candidate) if candidate.is_file() and os.access(candidate, os.X_OK) else None
    return shutil.which(program, path=path)


def _take(
    variable: EnvVar, request: DeploymentRequest, environ: Mapping[str, str], env: dict[str, str]
) -> Iterator[NotRunnable]:
    """Sets one variable in ``env``; yields why its value can't be had."""
    source = variable.value_from
    if source is None:
        env[variable.name] = variable.value or ""
        return
    if source.field_ref is not None:
        known = {
            "metadata.name": request.name,
            "metadata.namespace": request.namespace,
            "status.podIP": "127.0.0.1",
        }
        if source.field_ref.field_path in known:
            env[variable.name] = known[source.field_ref.field_path]
        else:
            asked = source.field_ref.field_path
            yield NotRunnable(
                Phase.NOT_RUNNABLE, f"workload.env: {variable.name} asks for {asked}, which only a pod has"
            )
        return
    ref = source.secret_key_ref or source.config_map_key_ref
    secret = source.secret_key_ref is not None
    kind = "Secret" if secret else "ConfigMap"
    if value := environ.get(variable.name, ""):
        env[variable.name] = value
    elif ref is not None and not ref.optional:
        yield NotRunnable(
            Phase.CREDENTIALS_MISSING if secret else Phase.NOT_RUNNABLE,
            f"{variable.name} is not set: without a cluster there is no {kind} {ref.name!r}, "
            f"so set the environment variable {variable.name} before you start",
        )


def _take_all(source: EnvFrom, environ: Mapping[str, str], env: dict[str, str]) -> Iterator[NotRunnable]:
    ref = source.secret_ref or source.config_map_ref
    if ref is None:
        return
    found = {name: environ[name] for name in environ if source.prefix and name.startswith(source.prefix)}
    env.update(found)
    if not found and not ref.optional:
        wanted = (
            f"set variables that start with {source.prefix}"
            if source.prefix
            else "name its keys in workload.env"
        )
        yield NotRunnable(
            Phase.NOT_RUNNABLE if source.secret_ref is None else Phase.CREDENTIALS_MISSING,
            f"workload.envFrom: without a cluster there is no {ref.name!r}: {wanted}",
        )
