"""``beamline crds``: what a cluster needs to know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="crds")(crds)


def crds(
    write: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write one file per kind into DIR.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Fail where the files in DIR are not what would be written."),
    ] = None,
) -> None:
    """Print the CRDs, for `kubectl apply -f -`."""
    from beamline_contract.crd import crd_yaml
    from beamline_contract.objects import KINDS

    texts = {f"{kind.lower()}.yaml": crd_yaml(kind) for kind in KINDS}
    if check is not None:
        stale = [name for name, text in texts.items() if _text_of(check / name) != text]
        if stale:
            raise CliError(
                f"stale in {check}: {', '.join(stale)}: run `beamline crds --write {check}` (`make crds`)"
            )
        say(f"{', '.join(texts)} in {check} are fresh.")
    elif write is not None:
        try:
            write.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (write / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CliError(f"{write} can't be written: {error.strerror}", ExitCode.CONFIGURATION) from error
        say(f"Wrote {', '.join(texts)} into {write}.")
    else:
        say("---\n".join(texts.values()).rstrip("\n"))


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
