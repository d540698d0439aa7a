"""Logs: one JSON object a line on stderr, the same from our code and from the libraries.

Fields: ``timestamp`` (ISO 8601, UTC), ``level``, ``event`` (a dotted name), ``component``, then the event's
own keys; those about a request are called ``extension_id`` ``trace_id`` ``tenant_id`` ``latency_ms``
``status`` ``error`` (contract: "Metrics, logs, spans"). A line never holds a prompt, an output or a key.

``LOG_SILENT=1`` leaves ``error`` and ``critical``: quiet in tests and on a laptop, but a process never dies
without a word. Libraries that use :mod:`logging` (nats, uvicorn, kopf, asyncio) go through the same renderer;
their debug level stays off even where ours is on, because several of them write whole payloads there.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_CHATTY: Final = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "urllib3",
    "kubernetes",
    "openai",
    "anthropic",
    "aiohttp.access",
)
"""Loggers that write addresses, headers or bodies at info or below."""
_TAKEN_OVER: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "kopf", "nats", "asyncio")
_MAX_FRAMES: Final = 12
_QUOTED: Final = re.compile(r"[\n(<]")
"""What asyncio quotes of tasks, futures and callbacks, and of what is in them, begins with one of these."""


def configure(
    component: str, *, level: str = "info", silent: bool = False, exception_text: bool = True
) -> None:
    """Sets up logging for the process; a second call replaces the first.

    ``level`` is a key of :data:`LEVELS`. With ``exception_text`` false an exception is logged by type and
    place only: a process that handles payloads can't know what is in the text, nor in the arguments of a
    callback, and asyncio's own lines quote both. Raises :class:`ValueError` on an unknown level.
    """
    number = threshold(level, silent=silent)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(component),
        _exceptions(with_text=exception_text),
    ]
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_StderrStream())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
            keep_exc_info=False,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))
    for name in _TAKEN_OVER:
        taken = logging.getLogger(name)
        taken.handlers.clear()
        taken.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)


def threshold(level: str, *, silent: bool) -> int:
    """The number (of :mod:`logging`) from which lines are written. Raises :class:`ValueError` on an unknown
    level.
    """
    number = LEVELS.get(level.lower())
    if number is None:
        raise ValueError(f"LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level!r}")
    return max(number, logging.ERROR) if silent else number


def place_of(error: BaseException) -> list[str]:
    """Where ``error`` was raised, outermost call first: ``file.py:12 in name``. No text, no values."""
    return _frames(error.__traceback__)


def _frames(tb: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(tb)[-_MAX_FRAMES:]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} in {frame.name}" for frame in frames]


def _named(component: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("component", component)
        return event

    return add


def _exceptions(*, with_text: bool) -> Processor:
    """Turns ``exc_info`` into ``error`` (its type, and its text where that is allowed) and ``at`` (its
    frames).
    """

    def render(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        info = event.pop("exc_info", None)
        if info is True:
            info = sys.exc_info()
        error = info[1] if isinstance(info, tuple) else info
        if isinstance(error, BaseException):
            kind = type(error).__name__
            event.setdefault("error", f"{kind}: {error}" if with_text else kind)
            event["at"] = _frames(error.__traceback__)
            if not with_text and event.get("logger") == "asyncio":
                event["event"] = _QUOTED.split(event["event"], maxsplit=1)[0].rstrip()
        return event

    return render


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    ordered.update(event)
    return orjson.dumps(ordered, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


class _Stderr:
    """Where structlog writes: whatever ``sys.stderr`` is now, one write a line, and never an exception."""

    def msg(self, line: str) -> None:
        _write(line)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _StderrStream:
    def write(self, text: str) -> None:
        _write(text.removesuffix("\n"))

    def flush(self) -> None:
        """Each write is flushed already."""


def _write(line: str) -> Any:
    stream = sys.stderr
    if not line or stream is None:
        return
    try:
        stream.write(line + "\n")
        stream.flush()
    except (
        OSError,
        ValueError,
    ):  # the reader has gone, or the stream is closed: logging must not stop the work
        return
