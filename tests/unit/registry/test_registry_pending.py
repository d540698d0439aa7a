"""Which migrations a database lacks, and which histories are refused."""

from __future__ import annotations

import re

import pytest

from beamline_registry.migrate import Migration, latest, packaged, pending, wait
from beamline_registry.port import RegistryUnavailableError, SchemaError, SchemaPendingError

ONE, TWO, THREE = (Migration(f"000{number}_m", f"SELECT {number}") for number in (1, 2, 3))
KNOWN = (ONE, TWO, THREE)


def applied(*migrations: Migration) -> dict[str, str]:
    return {migration.name: migration.checksum for migration in migrations}


@pytest.mark.parametrize(
    ("has", "lacks"),
    [
        pytest.param(applied(), [ONE, TWO, THREE], id="an empty database lacks all"),
        pytest.param(applied(ONE), [TWO, THREE], id="an older one lacks the rest"),
        pytest.param(applied(*KNOWN), [], id="an up-to-date one lacks none"),
    ],
)
def test_what_is_lacking_comes_in_order(has: dict[str, str], lacks: list[Migration]) -> None:
    assert pending(reversed(KNOWN), has) == lacks


@pytest.mark.parametrize(
    ("has", "sentence"),
    [
        pytest.param({**applied(TWO, THREE), "0001_m": "x"}, "migration 0001_m was edited", id="edited"),
        pytest.param(
            applied(*KNOWN, Migration("0004_m", "")), "knows none after 0003_m", id="newer than the program"
        ),
        pytest.param(
            applied(ONE, Migration("0001_z", "")), "0001_z, which this program lacks", id="not known here"
        ),
        pytest.param(applied(ONE, THREE), "0003_m but not 0002_m", id="a gap"),
    ],
)
def test_what_does_not_add_up_is_refused_with_a_command_that_helps(
    has: dict[str, str], sentence: str
) -> None:
    with pytest.raises(SchemaError, match=sentence) as caught:
        pending(KNOWN, has)
    assert "`" in str(caught.value)


def test_line_ends_of_a_checkout_do_not_count_as_an_edit() -> None:
    assert Migration("m", "a\r\nb").checksum == Migration("m", "a\nb").checksum


def test_the_packaged_ones_are_numbered_without_a_gap() -> None:
    names = [migration.name for migration in packaged()]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in names)
    assert latest() == names[-1]


async def _waits(failures: list[Exception], timeout_s: float) -> tuple[list[tuple[str, float]], float]:
    """What was said while ``failures`` came one after the other, and when the wait ended."""
    clock = [0.0]
    said: list[tuple[str, float]] = []

    async def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    assert (
        await wait(
            attempt,
            timeout_s=timeout_s,
            on_wait=lambda reason, seconds: said.append((reason, seconds)),
            sleep=sleep,
            now=lambda: clock[0],
        )
        == "done"
    )
    return said, clock[0]


async def test_who_waits_says_each_reason_once_and_again_every_half_minute() -> None:
    away, empty = RegistryUnavailableError("away"), SchemaPendingError("empty")
    said, ended = await _waits([away, away, *[empty] * 40], timeout_s=100)
    assert said == [("away", 0), ("empty", 2), ("empty", 32)]
    assert ended == 42


async def test_who_waits_gives_up_in_time_with_the_last_reason() -> None:
    failures: list[Exception] = [SchemaPendingError("lacks 0003")] * 9
    with pytest.raises(RegistryUnavailableError, match=r"gave up after 2\.5 s: lacks 0003"):
        await _waits(failures, timeout_s=2.5)
    assert len(failures) == 5, "at 0, 1, 2 and 2.5 seconds"


async def test_what_time_does_not_heal_is_not_waited_for() -> None:
    failures: list[Exception] = [SchemaPendingError("empty"), SchemaError("newer"), SchemaPendingError("x")]
    with pytest.raises(SchemaError, match="newer"):
        await _waits(failures, timeout_s=100)
    assert len(failures) == 1


_CONTRACTS = re.compile(
    r"\bDROP\s+(TABLE|COLUMN|CONSTRAINT|INDEX|VIEW|ROLE)\b|\bRENAME\b|^\s*TRUNCATE\b|\bREVOKE\b"
    r"|\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b|\bSET\s+NOT\s+NULL\b",
    re.IGNORECASE | re.MULTILINE,
)


def test_every_migration_only_adds_so_that_old_routers_serve_on() -> None:
    """What takes away comes a release after its last reader, in a file ``NNNN_contract_...``."""
    taking = {
        migration.name: found.group()
        for migration in packaged()
        if (found := _CONTRACTS.search(re.sub(r"--.*", "", migration.sql)))
    }
    assert {name for name in taking if "_contract_" not in name} == set(), taking


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE x",
        "ALTER TABLE x DROP  COLUMN y",
        "ALTER TABLE x RENAME y TO z",
        "ALTER TABLE x ALTER COLUMN y TYPE text",
        "alter table x alter column y set not null",
    ],
)
def test_a_statement_that_takes_away_is_found(statement: str) -> None:
    assert _CONTRACTS.search(statement)
