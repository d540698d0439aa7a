"""How a command ends: the exit codes, and the exception that ends a command otherwise than well."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees. The numbers above 2 are those of sysexits.h."""

    OK = 0
    FAILURE = 1
    """What was asked for could not be done, or the answer is no: a request refused, a manifest with faults.
    """
    USAGE = 2
    """The command line is wrong."""
    UNAVAILABLE = 69
    """Something that is needed does not answer, is taken, or is not running."""
    CONFIGURATION = 78
    """A file, a folder, a setting or the database's schema is wrong; trying again will not help."""


EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 69 something needed is not available, "
    "78 wrong configuration. BEAMLINE_DEBUG=1 shows where an error comes from."
)


class CliError(Exception):
    """Ends the command with one sentence on stderr and an exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.code = code
