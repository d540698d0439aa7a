"""The OpenAPI 3.1 document of the admin API, made from the routes: ``python -m beamline_admin.openapi --write
FILE``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from beamline_registry.memory import MemoryRegistry

from .app import web
from .catalogue import Catalogue
from .identity import Authenticator, Sessions
from .problems import Problem
from .telemetry import Telemetry


def document() -> dict[str, Any]:
    """The document. Its version is the program's."""
    registry = MemoryRegistry()
    nobody = Authenticator([])
    app = web(Catalogue(registry), registry, nobody, Sessions(time.monotonic, nobody), Telemetry())
    made = app.openapi()
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
    return made


def text() -> str:
    """The document as it is kept in a file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Writes the document to a file, or checks that the file is fresh (exit code 1 where it is not)."""
    parser = argparse.ArgumentParser(prog="python -m beamline_admin.openapi", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE", help="write the document")
    what.add_argument("--check", type=Path, metavar="FILE", help="fail where the file is not fresh")
    chosen = parser.parse_args(arguments)
    if chosen.write is not None:
        chosen.write.parent.mkdir(parents=True, exist_ok=True)
        chosen.write.write_text(text(), encoding="utf-8")
        return 0
    if not chosen.check.exists() or chosen.check.read_text(encoding="utf-8") != text():
        sys.stderr.write(
            f"{chosen.check} is stale: python -m beamline_admin.openapi --write {chosen.check}\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
