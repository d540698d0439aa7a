"""``python -m bench.run``: runs benchmark rows by name, prints one table, keeps the raw figures.

A benchmark informs, it does not gate: the exit code is 0 also where a goal is missed, and 1 only where a
row could not be run at all.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import import_module

import orjson
from rich.console import Console
from rich.table import Table

from bench.parts import RESULTS, Row

ROWS = {
    "saturation": "bench.saturation",
    "transports": "bench.transports",
    "applied": "bench.applied",
    "scale": "bench.scale",
    "latency": "bench.latency",
    "chat": "bench.chat",
    "lookup": "bench.lookup",
    "size": "bench.size",
    "first_chunk": "bench.first_chunk",
    "outage": "bench.outage",
    "start": "bench.start",
    "mock_provider": "bench.mock_provider",
    "openai_provider": "bench.openai_provider",
    "anthropic_provider": "bench.anthropic_provider",
    "provider_registry": "bench.provider_registry",
    "overload": "bench.overload",
    "inspector": "bench.inspector",
    "soak": "bench.soak",
}
"""Row name to the module whose ``run(rounds=, seconds=)`` measures it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", default=",".join(ROWS), help=f"comma-separated, of: {', '.join(ROWS)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds per row (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement (default: 2)")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    given = parser.parse_args(arguments)
    if given.list:
        sys.stdout.write("\n".join(ROWS) + "\n")
        return 0
    wanted = [name.strip() for name in given.rows.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        parser.error(f"unknown row {', '.join(unknown)}: choose from {', '.join(ROWS)}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table("what", "goal", "min / median / max", "met", title=_machine())
    failed = False
    for name in wanted:
        console.print(f"{name} ...")
        try:
            rows, raw = import_module(ROWS[name]).run(rounds=given.rounds, seconds=given.seconds)
        except Exception as error:  # noqa: BLE001 -- the other rows are still worth running
            rows, raw, failed = [Row(name, "", f"not run: {error}", False)], {"error": str(error)}, True
        _keep(name, raw)
        for row in rows:
            table.add_row(row.what, row.goal, row.measured, {True: "yes", False: "NO", None: ""}[row.met])
    console.print(table)
    return 1 if failed else 0


def _machine() -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{when}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def _keep(name: str, raw: dict[str, object]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    document = {"row": name, "machine": _machine(), **raw}
    (RESULTS / f"{stamp}-{name}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    sys.exit(main())
