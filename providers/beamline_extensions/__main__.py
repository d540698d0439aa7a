"""``python -m beamline_extensions NAME``: serves one of the extensions that ship with Beamline."""

from __future__ import annotations

import sys

from .catalogue import UnknownExtensionError, names, run


def main(arguments: list[str]) -> int:
    """Exit status: 0 after a stop signal, 2 where the name or the environment is wrong."""
    if len(arguments) != 1 or arguments[0] in {"-h", "--help"}:
        sys.stderr.write(f"usage: python -m beamline_extensions NAME\nNAME is one of: {', '.join(names())}\n")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        run(arguments[0])
    except UnknownExtensionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
