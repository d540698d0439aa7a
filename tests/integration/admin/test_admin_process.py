"""The admin process as a person or a pod starts it."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamline_registry.migrate import migrate
from harness.processes import Process, free_port

COMMAND = (sys.executable, "-m", "beamline_admin")


@pytest.fixture
async def process(database_url: str, tmp_path: Path) -> Process:
    await migrate(database_url)
    port = free_port()
    env = {"BEAMLINE_DATABASE_URL": database_url, "BEAMLINE_ADMIN_HTTP_PORT": str(port)}
    return Process("admin", COMMAND, env, tmp_path / "admin.log", port)


@pytest.fixture
def started(process: Process) -> Iterator[Process]:
    yield process.start()
    process.stop()


def test_it_prints_a_link_that_works_keeps_the_token_out_of_its_log_and_ends_cleanly(
    started: Process,
) -> None:
    lines = started.log.read_text().splitlines()
    link = next(line for line in lines if line.startswith("inspector: ")).partition(" ")[2]
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(link) as reply:
        assert reply.status == 200
        assert reply.url == f"http://127.0.0.1:{started.port}/"
        assert "No policies yet" in reply.read().decode()
    assert started.metric("beamline_admin_requests_total", route="/", status="200") == 1
    token = link.rpartition("=")[2]
    assert started.stop() == 0
    logged = [line for line in started.log.read_text().splitlines() if line.startswith("{")]
    assert any('"admin.listening"' in line for line in logged)
    assert not [line for line in logged if token in line]


def test_a_chosen_token_is_not_printed_and_opens_the_api(database_url: str, process: Process) -> None:
    process = Process(
        "admin",
        COMMAND,
        {**process._env, "BEAMLINE_ADMIN_TOKEN": "chosen-by-somebody"},
        process.log,
        process.port,
    )
    process.start()
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{process.port}/api/v1/registry",
            headers={"authorization": "Bearer chosen-by-somebody"},
        )
        with urllib.request.urlopen(request) as reply:
            assert b'"revision":0' in reply.read()
    finally:
        process.stop()
    assert "chosen-by-somebody" not in process.log.read_text()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param({"BEAMLINE_ADMIN_TOKEN": "short"}, "at least 16 characters", id="a short token"),
        pytest.param(
            {"BEAMLINE_DATABASE_URL": "mysql://nowhere"}, "database URL can't be used", id="another database"
        ),
        pytest.param(
            {"BEAMLINE_ADMIN_HTTP_PORT": "TAKEN"}, "is taken: stop what listens there", id="a taken port"
        ),
    ],
)
def test_what_keeps_it_from_starting_is_one_sentence(env: dict[str, str], said: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        env = {key: value.replace("TAKEN", port) for key, value in env.items()}
        done = subprocess.run(
            COMMAND, env={**_environment(), **env}, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 78
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def _environment() -> dict[str, str]:
    import os

    return {
        **os.environ,
        "BEAMLINE_DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "BEAMLINE_ADMIN_HTTP_PORT": "0",
    }
