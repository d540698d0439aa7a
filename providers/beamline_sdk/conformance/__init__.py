"""The suite that every extension must pass, in whatever language it is written.

:func:`run_suite` asks one extension over NATS, as a router would, and as nobody should. What a check
proves and what to do where it fails stands beside it in :data:`CHECKS`.
"""

from .checks import CHECKS
from .processes import Launcher
from .results import Check, CheckResult, Outcome, Report
from .suite import NobodyListensError, run_suite
from .target import Target

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "Launcher",
    "NobodyListensError",
    "Outcome",
    "Report",
    "Target",
    "run_suite",
]
