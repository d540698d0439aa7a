"""Which migrations a database lacks, and which histories are refused."""

from __future__ import annotations

import re

import pytest

from beamline_registry.migrate import Migration, latest, packaged, pending
from beamline_registry.port import SchemaError

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
