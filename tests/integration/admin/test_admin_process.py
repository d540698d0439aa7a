"""The admin process as a person or a pod starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beamline_registry.migrate import migrate

COMMAND = (sys.executable, "-m", "beamline_admin")
NOWHERE = {"BEAMLINE_DATABASE_URL": "postgresql://127.0.0.1:1/none", "BEAMLINE_ADMIN_HTTP_PORT": "0"}


@pytest.fixture
async def database(database_url: str) -> str:
    await migrate(database_url)
    return database_url


@contextmanager
def running(log: Path, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and what it told the person at the terminal; ends by SIGTERM, with exit code 0."""
    with log.open("w") as errors:
        child = subprocess.Popen(
            COMMAND,
            env={**os.environ, **NOWHERE, **env},
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    try:
        assert child.stdout is not None
        yield child, child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0, log.read_text()
    finally:
        child.kill()
        child.communicate()


def test_it_prints_a_link_that_works_and_keeps_the_token_out_of_its_log(
    database: str, tmp_path: Path
) -> None:
    log = tmp_path / "admin.log"
    with running(log, BEAMLINE_DATABASE_URL=database) as (_, said):
        link = said.removeprefix("inspector: ").strip()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(link, timeout=20) as reply:
            assert (reply.status, reply.url) == (200, link.partition("?")[0])
            assert "Needs attention" in reply.read().decode()
        with urllib.request.urlopen(f"{link.partition('?')[0]}readyz", timeout=20) as reply:
            assert reply.read() == b'{"status":"ok"}'
    logged = log.read_text()
    assert '"admin.listening"' in logged
    assert '"admin.stopping"' in logged
    assert link.rpartition("=")[2] not in logged


def test_a_chosen_token_is_not_printed_and_opens_the_api(database: str, tmp_path: Path) -> None:
    log, token = tmp_path / "admin.log", "chosen-by-somebody"
    with running(log, BEAMLINE_DATABASE_URL=database, BEAMLINE_ADMIN_TOKEN=token) as (_, said):
        assert token not in said
        url = said.removeprefix("inspector: ").strip()
        request = urllib.request.Request(
            f"{url}/api/v1/registry", headers={"authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert b'"revision":0' in reply.read()
    assert token not in log.read_text()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param({"BEAMLINE_ADMIN_TOKEN": "short"}, "at least 16 characters", id="a short token"),
        pytest.param(
            {"BEAMLINE_DATABASE_URL": "mysql://x"}, "must start with postgresql://", id="no PostgreSQL"
        ),
        pytest.param({"BEAMLINE_ADMIN_HTTP_PORT": "TAKEN"}, "is taken: stop what listens", id="a taken port"),
    ],
)
def test_what_keeps_it_from_starting_is_one_sentence(env: dict[str, str], said: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        given = {key: value.replace("TAKEN", port) for key, value in env.items()}
        done = subprocess.run(
            COMMAND,
            env={**os.environ, **NOWHERE, **given},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 78
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
