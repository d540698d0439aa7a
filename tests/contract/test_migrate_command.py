"""``beamline migrate`` as Jobs and init containers run it: log and exit code of a process, on PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from beamline_registry.migrate import Migration, migrate, packaged

NAMES = [migration.name for migration in packaged()]


async def started(url: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "beamline_cli", "migrate", "--database-url", url, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_check_of_an_older_database_answers_1_and_changes_nothing(database_url: str) -> None:
    await migrate(database_url, migrations=packaged()[:2])
    code, _, err = await ended(await started(database_url, "--check"))
    assert (code, err) == (
        1,
        f"beamline: the database lacks {', '.join(NAMES[2:])}: run `beamline migrate`\n",
    )
    assert await migrate(database_url) == NAMES[2:]


async def test_a_waiting_check_says_what_it_waits_for_and_ends_with_the_migration(database_url: str) -> None:
    process = await started(database_url, "--check", "--wait", "--timeout", "60")
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    assert line == b"waiting (0 of 60 s): the database holds no registry yet: run `beamline migrate`\n"
    await migrate(database_url)
    assert await ended(process) == (0, "The database is up to date.\n", "")


async def test_a_waiting_check_gives_up_with_69(database_url: str) -> None:
    code, out, err = await ended(await started(database_url, "--check", "--wait", "--timeout", "0.5"))
    assert code == 69
    assert out.count("waiting (") == 1
    assert err.startswith("beamline: gave up after 0.5 s: the database holds no registry yet")


async def test_a_newer_database_is_refused_at_once_with_78(database_url: str) -> None:
    await migrate(database_url, migrations=[*packaged(), Migration("9999_future", "CREATE TABLE future ()")])
    for arguments in ([], ["--wait"], ["--check", "--wait"]):
        code, _, err = await ended(await started(database_url, *arguments))
        assert code == 78
        assert "install the newer release" in err


async def test_a_migration_waits_for_a_server_that_is_still_to_come(tmp_path: Path) -> None:
    url = f"postgresql://postgres@/beamline?host={tmp_path}"
    code, out, err = await ended(await started(url, "--wait", "--timeout", "0.5"))
    assert code == 69
    assert "waiting (" in out
    assert "can't be reached" in err
