"""What ``beamline up`` is asked to do, checked before anything is started."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from beamline_cli.faults import CliError, ExitCode


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line of ``beamline up``. ``port`` and ``nats_port`` 0 choose free ports; ``state`` None: by
    default.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    nats_port: int = 0
    state: Path | None = None
    ephemeral: bool = False
    watch: bool = True
    admin: bool = True
    admin_port: int = 0
    """0 chooses a free one."""
    log_level: str = "info"

    @property
    def state_folder(self) -> Path:
        """Where data and logs are; only after :func:`prepared`."""
        assert self.state is not None
        return self.state

    @property
    def logs(self) -> Path:
        """Where the processes' logs are."""
        return self.state_folder / "logs"


def prepared(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """The plan with every default filled in and its folders made. Raises :class:`CliError` with what is in
    the way.
    """
    folder = _manifest_folder(plan.folder)
    if plan.ephemeral:
        state = Path(tempfile.mkdtemp(prefix="beamline-up-"))
    else:
        state = (plan.state or default_state(folder, environ)).absolute()
    try:
        for part in (state, state / "logs"):
            part.mkdir(parents=True, exist_ok=True)
        probe = state / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CliError(
            f"the state folder {state} can't be written ({error.strerror}): choose another with --state",
            ExitCode.CONFIGURATION,
        ) from error
    return replace(plan, folder=folder, state=state)


def with_port(plan: Plan) -> Plan:
    """The plan with the router's port chosen and known to be free. Raises :class:`CliError`."""
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((plan.host, plan.port))
        except OSError as error:
            raise CliError(_port_sentence(plan, error), ExitCode.UNAVAILABLE) from error
        return replace(plan, port=int(probe.getsockname()[1]))


def home(environ: Mapping[str, str]) -> Path:
    """Where all states are: below XDG_STATE_HOME, else ~/.local/state; for root below /var/lib.

    Root's home is no place for them: PostgreSQL runs as a user of its own then, and every folder above its
    data would have to be opened to it.
    """
    if stated := environ.get("XDG_STATE_HOME", ""):
        base = Path(stated)
    elif os.geteuid() == 0:
        base = Path("/var/lib")
    else:
        base = Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return base / "beamline"


def default_state(folder: Path, environ: Mapping[str, str]) -> Path:
    """The state of a manifest folder: one each, named after it, apart by the hash of its path."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", folder.name)[:40] or "root"
    return home(environ) / "up" / f"{name}-{digest}"


def _manifest_folder(folder: Path) -> Path:
    from beamline_operator.edges.manifests import manifest_files

    if not folder.exists():
        raise CliError(f"{folder} does not exist: give a folder with manifests", ExitCode.USAGE)
    if not folder.is_dir():
        raise CliError(f"{folder} is a file: give the folder that holds it", ExitCode.USAGE)
    try:
        files = manifest_files(folder)
    except OSError as error:
        raise CliError(f"{folder} can't be read: {error.strerror}", ExitCode.CONFIGURATION) from error
    if not files:
        raise CliError(
            f"{folder} holds no manifests: there is no .yaml or .yml file in it", ExitCode.CONFIGURATION
        )
    return folder.resolve()


def _port_sentence(plan: Plan, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            helps = "stop what listens there, or choose another with --port (0 takes a free one)"
            return f"port {plan.port} is taken: {helps}"
        case errno.EACCES:
            return f"port {plan.port} is not allowed for this user: choose one above 1023 with --port"
        case _:
            why = error.strerror or error
            return f"{plan.host}:{plan.port} can't be listened on ({why}): check --host and --port"
