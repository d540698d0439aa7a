"""``beamline top``: routers and extensions, live in a terminal.

Each look asks all routers over NATS and is compared with the one before. On a terminal the picture is drawn
in place, on the alternate screen, which is given back however it ends; elsewhere it is plain text, one table
after the other, or with ``-o json`` one object a line. Ctrl-C is the ordinary way to end it: exit code 0.
A look that nobody answers is said in the first line and tried again; only the very first one must succeed.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.figures import Look, Row, Sort, View, view
from beamline_cli.output import Format, as_json, as_yaml, paint, say, table
from beamline_cli.routers import Credentials, NatsUrl, Router, Timeout, ask, results

from .look import State

_ONCE_S: Final = 1.0
_COLOURS: Final = {"open": "red", "isolated": "red", "half-open": "yellow"}


class SortBy(StrEnum):
    """Values of ``--sort``."""

    RATE = "rate"
    ERRORS = "errors"
    P99 = "p99"
    P50 = "p50"
    IN_FLIGHT = "inflight"
    NAME = "name"


def add_to(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command(name="top")(top)


def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="One picture, measured over a second, then end.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=3600.0, help="Seconds between two looks.")] = 2.0,
    sort: Annotated[SortBy, typer.Option(help="Order of the extensions, largest first.")] = SortBy.RATE,
    router: Router = None,
    nats_url: NatsUrl = None,
    credentials: Credentials = None,
    state: State = None,
    timeout: Timeout = 2.0,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="How to print; json without --once: an object a line.")
    ] = Format.TABLE,
) -> None:
    """Watch routers and extensions: requests a second, errors, p50 and p99, in flight, breakers.

    Counts are of all routers that answer. A dash is what was not measured: nothing happened, or the router
    has just started. Errors are shares of requests, or of steps, that failed by no caller's fault.
    """
    if output in {Format.NAME, Format.WIDE} or (output is Format.YAML and not once):
        raise CliError(
            f"-o {output.value} is no way to print this: table or json, with --once yaml", ExitCode.USAGE
        )

    def look() -> Look:
        where: dict[str, Any] = {"nats_url": nats_url, "credentials": credentials, "state": state}
        return dict(results(ask("traffic", {}, router=router, timeout=timeout, **where)))

    by: Sort = sort.value
    try:
        before = look()
        if once:
            time.sleep(min(interval, _ONCE_S))
            _print(view(before, look(), by), output, once=True)
            return
        live = output is Format.TABLE and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        with _screen() if live else _plain():
            shown = view({}, before, by)
            fault = ""
            while True:
                if live:
                    _draw(shown, fault, interval, by)
                time.sleep(interval)
                try:
                    now = look()
                except CliError as error:
                    fault = str(error)
                    if not live:
                        sys.stderr.write(f"beamline: {fault}\n")
                    continue
                shown, before, fault = view(before, now, by), now, ""
                if not live:
                    _print(shown, output, once=False)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _print(found: View, output: Format, *, once: bool) -> None:
    if output is Format.JSON:
        import orjson

        say(as_json(found.to_json()) if once else orjson.dumps(found.to_json()).decode())
    elif output is Format.YAML:
        say(as_yaml(found.to_json()))
    else:
        for line in lines(found):
            say(line)
        if not once:
            say()


def lines(found: View) -> list[str]:
    """Both tables as text."""
    routers = [
        (
            row.name,
            _number(row.rate),
            _share(row.errors),
            _ms(row.p50),
            _ms(row.p99),
            str(row.in_flight),
            str(row.revision),
            _duration(row.uptime),
        )
        for row in found.routers
    ]
    out = table(("ROUTER", "REQ/S", "ERRORS", "P50", "P99", "IN FLIGHT", "REVISION", "UP"), routers)
    extensions = [_extension(row) for row in found.extensions]
    if not extensions:
        return [*out, "", "No extension has been called since these routers started."]
    header = ("EXTENSION", "TYPE", "STEPS/S", "ERRORS", "P50", "P99", "IN FLIGHT", "BREAKER")
    below = table(header, extensions)
    colours = [_COLOURS.get(row.breaker) for row in found.extensions]
    coloured = [paint(line, colour) for line, colour in zip(below[1:], colours, strict=True)]
    return [*out, "", below[0], *coloured]


def _extension(row: Row) -> Sequence[str]:
    return (
        row.name,
        row.kind,
        _number(row.rate),
        _share(row.errors),
        _ms(row.p50),
        _ms(row.p99),
        str(row.in_flight),
        row.breaker,
    )


def _draw(found: View, fault: str, interval: float, sort: str) -> None:
    """The picture from the top left corner, cut to the terminal; what was below it is cleared."""
    size = shutil.get_terminal_size()
    clock = time.strftime("%H:%M:%S")
    head = f"beamline top  {clock}  every {interval:g} s, by {sort}  Ctrl-C ends"
    first = paint(f"{clock}  {fault}; trying again"[: size.columns], "red") if fault else head[: size.columns]
    shown = [first, "", *lines(found)]
    rows = [line if "\x1b" in line else line[: size.columns] for line in shown[: size.lines - 1]]
    sys.stdout.write("\x1b[H" + "".join(f"{row}\x1b[K\n" for row in rows) + "\x1b[J")
    sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


@contextmanager
def _plain() -> Iterator[None]:
    yield


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
