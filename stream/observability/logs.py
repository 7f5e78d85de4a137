"""The worker's log: one JSON object per line on stderr, or plain text if stderr is a terminal.

    {"time": "2026-01-02T03:04:05.678Z", "level": "INFO", "logger": "stream.worker", "message": "...", more fields}

Fields come from `extra=`: `log.info("recovered", extra={"records": 5})`. Line breaks and control characters in any
value are escaped, so one event is one line, whatever a message contains.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO

log = logging.getLogger("freshet.logs")

QUIET: Final = {
    "aiokafka": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "kafka": logging.WARNING,
    "kafka.admin": logging.ERROR,  # it warns about each group member with Faust's metadata, which it cannot read
    "asyncio": logging.WARNING,
    "onnx_ir": logging.WARNING,
    "onnxscript": logging.WARNING,
    "rocksdict": logging.WARNING,
    "stream.app": logging.WARNING,  # mode logs each service's start under the module of its class
    "stream.kafka": logging.WARNING,
}
"""Libraries whose INFO lines our own messages and metrics make redundant. They stay quiet even at our level DEBUG."""

CLIENTS: Final = ("aiokafka", "kafka")
LIBRARIES: Final = ("aiokafka", "kafka", "faust", "mode", "asyncio")
REPEAT: Final = 10.0  # seconds between two equal lines of a library
MOST: Final = 1000  # different lines that are remembered

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data"}  # mode adds `data`
_RESERVED: Final = ("time", "level", "logger", "message", "exception")


def moment(created: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what the caller passed as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _OWN and name not in _RESERVED}


class Repeats(logging.Filter):
    """Thins out lines that a library repeats (an unreachable broker): one line passes per `every` seconds.

    The field `repeated` counts the lines that were left out. All of our own lines pass.
    """

    def __init__(self, every: float = REPEAT, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every = every
        self._clock = clock
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}  # when it was logged, how often it came since

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL or not record.name.startswith(LIBRARIES):
            return True
        template = str(record.msg)[:100]
        key, now = (record.name, record.levelno, template), self._clock()
        last, left_out = self._seen.get(key, (-math.inf, 0))
        if now - last < self._every:
            self._seen[key] = last, left_out + 1
            return False
        if len(self._seen) >= MOST:
            self._seen.clear()
        self._seen[key] = now, 0
        if left_out:
            record.repeated = left_out
        return True


class Connections(logging.Filter):
    """Writes a connection that a Kafka client has lost as one sentence. Its traceback shows the client's code only."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, OSError) and record.name.startswith(CLIENTS):
            record.msg, record.args = f"{record.getMessage()}: {error}", ()
            record.exc_info = record.exc_text = None
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, ASCII only: CR, LF, escape sequences and lone surrogates are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record for people: time, level, message, fields. Control characters are escaped as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        words = [moment(record.created)[11:-1], f"{record.levelname:<7}", _plain(record.getMessage())]
        words += [f"{name}={_plain(str(value))}" for name, value in fields(record).items()]
        text = " ".join(words)
        if record.exc_info:
            text += "\n" + "\n".join(_plain(line) for line in self.formatException(record.exc_info).splitlines())
        return text


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logging of the process to `stream` (default: stderr) in one form. Replaces earlier handlers."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if stream.isatty() else JsonFormatter())
    handler.addFilter(Repeats())
    handler.addFilter(Connections())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda ended: _uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)
    sys.unraisablehook = lambda ended: _uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)
    for name, least in QUIET.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(least, logging.getLevelName(level)))


def configured() -> bool:
    """Check whether `configure` was called: then this process has a log, and its messages belong there."""
    return any(isinstance(one.formatter, (JsonFormatter, TextFormatter)) for one in logging.getLogger().handlers)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log what Python would print itself: an exception that ends a thread, or that cannot be raised to any caller."""
    raised = error or kind()
    if not isinstance(raised, (KeyboardInterrupt, SystemExit)):
        log.error("uncaught %s: %s", kind.__name__, raised, exc_info=(kind, raised, trace))


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
