"""The admin process of ``beamline up``: on this machine's loopback address alone, with a token of this run.

The token goes to the process by its environment and to the person by the summary; never into a log.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from beamline_cli.faults import CliError, ExitCode

if TYPE_CHECKING:
    from beamline_sdk.deployment.supervisor import Supervised
    from beamline_sdk.deployment.watchdog import Watchdog

    from .world import World

HOST: Final = "127.0.0.1"
_STOP_S: Final = 12.0


class AdminPart:
    """The process, and where it answers. Raises :class:`CliError` where its port is taken."""

    def __init__(self, world: World, environ: Mapping[str, str], watchdog: Watchdog | None) -> None:
        from beamline_sdk.deployment.environment import BEAMLINE, inherited
        from beamline_sdk.deployment.supervisor import ProcessSpec, Supervised, Timing

        from .world import DATABASE

        plan = world.plan
        self.port = _free(plan.admin_port)
        self.token = environ.get("BEAMLINE_ADMIN_TOKEN") or secrets.token_urlsafe(32)
        env = inherited(environ) | {
            "BEAMLINE_DATABASE_URL": world.postgres.url(DATABASE, "beamline_operator"),
            "NATS_URL": world.nats.url,
            "BEAMLINE_ADMIN_HTTP_HOST": HOST,
            "BEAMLINE_ADMIN_TOKEN": self.token,
            "BEAMLINE_ADMIN_FOLDER": str(plan.folder),
            "BEAMLINE_ADMIN_STATE": str(plan.state_folder),
            "LOG_LEVEL": plan.log_level,
        }
        passed = ("BEAMLINE_ADMIN_OIDC_", "BEAMLINE_TRAIL_CONTENT")
        stated = {name: value for name, value in environ.items() if name.startswith(passed)}
        spec = ProcessSpec(
            name="admin",
            command=(*BEAMLINE, "admin"),
            env=env | stated,
            cwd=plan.folder,
            log=plan.logs / "admin.log",
            port_variable="BEAMLINE_ADMIN_HTTP_PORT",
            port=self.port,
        )
        self.process: Supervised = Supervised(
            spec, timing=Timing(stop_s=_STOP_S), on_change=lambda _: None, watchdog=watchdog
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def login_url(self) -> str:
        """The inspector, logged in: holds the token."""
        return f"{self.url}/?{urlencode({'token': self.token})}"


def _free(port: int) -> int:
    """``port``, known to be free. Raises :class:`CliError`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise CliError(
                f"port {port} for the admin API can't be used ({why}): choose another with --admin-port",
                ExitCode.UNAVAILABLE,
            ) from error
        return int(probe.getsockname()[1])
