"""``beamline conformance``: the suite that every extension must pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import as_json, paint, say

if TYPE_CHECKING:
    from beamline_contract.names import ExtensionType
    from beamline_sdk.conformance import CheckResult, Launcher, Report, Target

_DEFAULT_URL = "nats://127.0.0.1:4222"


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="conformance")(conformance)


def conformance(
    subject: Annotated[
        str, typer.Argument(help="Subject of the extension, beamline.ext.pre.shout.v1 or so.")
    ],
    *,
    command: Annotated[
        str | None, typer.Option(help="Start the extension with this command, and stop it at the end.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Start the extension from this image, with docker or podman.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="pre, validator, provider or post; default: from SUBJECT.")
    ] = None,
    extension_id: Annotated[
        str | None, typer.Option("--id", help="Id of the extension; default: from SUBJECT.")
    ] = None,
    nats_url: Annotated[
        str | None,
        typer.Option(
            envvar="NATS_URL",
            help=f"NATS server; default: one of its own with --command and --image, else {_DEFAULT_URL}.",
        ),
    ] = None,
    credentials: Annotated[
        str | None, typer.Option(envvar="NATS_CREDENTIALS_FILE", help="Credentials file for NATS.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration to send, a JSON object; an extension that needs one.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt that the extension can answer.")] = None,
    output: Annotated[
        str | None, typer.Option(help="The provider's answer that a post step is given.")
    ] = None,
    slow: Annotated[
        str | None,
        typer.Option(
            help='Fields that make a request slow, JSON; default: {"parameters": {"latency_ms": ...}}.'
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Check that an extension keeps the contract, in whatever language it is written.

    Asks it over NATS as a router would, and as nobody should. With --command or --image it also starts,
    doubles and stops it. Exit code 0: no check failed; 1: one failed; 69: nobody to ask.
    """
    if image is not None and command is not None and not command.strip():
        raise CliError("--command is empty", ExitCode.USAGE)
    target = _target(subject, kind, extension_id, config=config, prompt=prompt, output=output, slow=slow)
    with _launcher(command, image) as launcher, _nats(nats_url, own=launcher is not None) as url:
        if not json:
            say(f"{target.subject} ({target.kind} {target.extension_id})")
        report = _run(target, url, credentials, launcher, live=not json)
    if junit is not None:
        _write(junit, report.to_junit())
    if json:
        say(as_json(report.to_json()))
    else:
        _summary(report)
    if not report.passed:
        raise typer.Exit(ExitCode.FAILURE)


def _run(
    target: Target, url: str, credentials: str | None, launcher: Launcher | None, *, live: bool
) -> Report:
    import asyncio

    from beamline_sdk import logs
    from beamline_sdk.conformance import NobodyListensError, run_suite
    from beamline_sdk.conformance.processes import LaunchError

    logs.configure("conformance", silent=True)
    try:
        return asyncio.run(
            run_suite(
                target,
                nats_url=url,
                credentials_file=credentials,
                launcher=launcher,
                on_result=_show if live else lambda _: None,
            )
        )
    except LaunchError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except NobodyListensError as error:
        hint = "" if launcher else ": is the extension running there? (--command starts it)"
        raise CliError(f"{error}{hint}", ExitCode.UNAVAILABLE) from error


def _target(subject: str, kind: str | None, extension_id: str | None, **texts: str | None) -> Target:
    from beamline_contract.names import EXTENSION_TYPES
    from beamline_sdk.conformance import Target
    from beamline_sdk.conformance.target import TargetError

    if kind is not None and kind not in EXTENSION_TYPES:
        raise CliError(f"--kind must be one of {', '.join(EXTENSION_TYPES)}, not {kind!r}", ExitCode.USAGE)
    known: ExtensionType | None = next((one for one in EXTENSION_TYPES if one == kind), None)
    more: dict[str, Any] = {
        name: _object(name, text) if name in {"config", "slow"} else text
        for name, text in texts.items()
        if text is not None
    }
    try:
        return Target.of(subject, kind=known, extension_id=extension_id, **more)
    except TargetError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


def _object(name: str, text: str) -> dict[str, Any]:
    import orjson

    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CliError(f"--{name} is not JSON: {error}", ExitCode.USAGE) from error
    if not isinstance(found, dict):
        raise CliError(f"--{name} must be a JSON object", ExitCode.USAGE)
    return found


@contextmanager
def _launcher(command: str | None, image: str | None) -> Iterator[Launcher | None]:
    """What starts instances; None where the extension runs already."""
    import shlex
    import shutil
    import tempfile

    from beamline_sdk.conformance import Launcher

    if command is None and image is None:
        yield None
        return
    try:
        words = tuple(shlex.split(command or ""))
    except ValueError as error:
        raise CliError(f"--command can't be read: {error}", ExitCode.USAGE) from error
    if image is None and not words:
        raise CliError("--command is empty", ExitCode.USAGE)
    engine = None
    if image is not None:
        engine = next((name for name in ("docker", "podman") if shutil.which(name)), None)
        if engine is None:
            raise CliError(
                "--image needs docker or podman, and neither is on PATH: install one, or start the extension "
                "with --command",
                ExitCode.UNAVAILABLE,
            )
    with tempfile.TemporaryDirectory(prefix="beamline-conformance-") as folder:
        yield Launcher(words, Path(folder), image=image, engine=engine)


@contextmanager
def _nats(url: str | None, *, own: bool) -> Iterator[str]:
    """The server to use: the one that is named, one of our own, or the usual address."""
    if url is not None or not own:
        yield url or _DEFAULT_URL
        return
    from beamline_cli.local.nats import LocalNats
    from beamline_cli.local.postgres import LocalPartError

    server = LocalNats()
    try:
        server.start()
    except LocalPartError as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    try:
        yield server.url
    finally:
        server.stop()


_MARKS = {
    "passed": ("\u2713", "ok", "green"),
    "failed": ("\u2717", "FAILED", "red"),
    "not_checked": ("-", "-", "dim"),
}


def _show(result: CheckResult) -> None:
    from beamline_sdk.conformance.results import Outcome, printable

    pretty, plain, colour = _MARKS[result.outcome.value]
    mark = pretty if "utf" in (sys.stdout.encoding or "").lower() else plain
    say(f"{paint(mark, colour)} {result.check.id:<12} {result.check.title}")
    detail = printable(result.detail)
    if result.outcome is Outcome.FAILED:
        say(f"    {paint(detail, 'red')}")
        say(f"    what to do: {result.check.advice}")
    else:
        words = "not checked: " if result.outcome is Outcome.NOT_CHECKED else ""
        say(paint(f"    {words}{detail}", "dim"))


def _summary(report: Report) -> None:
    from beamline_sdk.conformance import Outcome

    failed, skipped = report.of(Outcome.FAILED), report.of(Outcome.NOT_CHECKED)
    words = [f"{len(report.of(Outcome.PASSED))} passed"]
    words += [f"{len(failed)} failed ({', '.join(failed)})"] if failed else []
    words += [f"{len(skipped)} not checked ({', '.join(skipped)})"] if skipped else []
    say(paint(", ".join(words), "red" if failed else "green"))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise CliError(f"{path} can't be written: {error.strerror}", ExitCode.CONFIGURATION) from error
