"""Instances of the extension under test: a command, or a container image, with its output in a file.

Each instance is a process group of its own, and gets the environment that a workload gets (contract: "What
a workload gets"). A container runs in the foreground under ``docker run`` or ``podman run`` on the host's
network: both pass SIGTERM on, so that a container is one more command. It is
removed by its name at the end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Final

import orjson

from .target import Target

EXIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02


class LaunchError(OSError):
    """The command can't be started; the text is one sentence."""


@dataclass
class Instance:
    """One running process."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    remove: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it runs."""
        return self.process.poll()

    def output(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def last_words(self, lines: int = 5) -> str:
        """The end of what it has printed."""
        return " / ".join(self.output().strip().splitlines()[-lines:])

    def terminate(self) -> None:
        """Asks it to end, as Kubernetes does."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    async def exited(self, seconds: float = EXIT_SECONDS) -> int | None:
        """Its exit code; None where it still runs after ``seconds``."""
        for _ in range(int(seconds / _POLL_SECONDS)):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(_POLL_SECONDS)
        return self.process.poll()

    def kill(self) -> None:
        """Ends it and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.remove:
            subprocess.run(self.remove, check=False, capture_output=True)  # noqa: S603 -- our own arguments
            self.remove = ()

    async def probe(self, path: str) -> int:
        """The status of a GET on its health port; 0 where nothing answers."""
        return await asyncio.to_thread(_status, f"http://127.0.0.1:{self.port}{path}")


@dataclass
class Launcher:
    """Starts instances. ``command`` runs as it is; with ``image`` it is put behind the image's name."""

    command: tuple[str, ...]
    folder: Path
    image: str | None = None
    engine: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    started: list[Instance] = field(default_factory=list)

    def start(self, target: Target, nats_url: str) -> Instance:
        """One more instance. Raises :class:`LaunchError`."""
        port = _free_port()
        given = {
            "NATS_URL": nats_url,
            "NATS_SUBJECT": target.subject,
            "NATS_QUEUE_GROUP": target.extension_id,
            "BEAMLINE_EXTENSION_ID": target.extension_id,
            "BEAMLINE_EXTENSION_TYPE": target.kind,
            "BEAMLINE_CONFIG": orjson.dumps(target.config).decode(),
            "METRICS_PORT": str(port),
            "LOG_LEVEL": "debug",
            **self.environment,
        }
        command, remove = self._command(given)
        log = self.folder / f"instance-{len(self.started) + 1}.log"
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(  # noqa: S603 -- the command that the user wants tested
                    command,
                    env={**os.environ, **given},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchError(f"{command[0]} can't be started: {error.strerror}") from error
        instance = Instance(process, log, port, remove)
        self.started.append(instance)
        return instance

    def kill_all(self) -> None:
        """Ends whatever still runs."""
        for instance in self.started:
            instance.kill()

    def _command(self, given: Mapping[str, str]) -> tuple[Sequence[str], tuple[str, ...]]:
        if self.image is None:
            return self.command, ()
        assert self.engine is not None
        name = f"beamline-conformance-{token_hex(6)}"
        variables = [word for pair in given.items() for word in ("--env", "=".join(pair))]
        run = [self.engine, "run", "--rm", "--name", name, "--network", "host", *variables, self.image]
        return [*run, *self.command], (self.engine, "rm", "--force", name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=3) as reply:  # noqa: S310 -- our own loopback address
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0
