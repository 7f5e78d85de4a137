"""The one way in which a worker ends after an error: it logs why, then exits immediately.

Everything durable is acknowledged or in RocksDB's log before it counts, so an exit at any moment is safe. A worker that
continued after an unknown error would be guessing. Nothing may delay the exit either. If the last line cannot be
written (a pipe that nobody reads, a lock that is held), the process exits without it.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Final, NoReturn

from aiokafka.errors import InvalidTimestampError, KafkaConnectionError

from stream.core.denials import refusal
from stream.core.errors import BrokerError, DiskError, FreshetError, InternalError, LeaseError, MachineError
from stream.inference.machine_errors import machine_fails

LAST_WORDS: Final = 2.0
"""Seconds that the last line may take."""

log = logging.getLogger("freshet.fatal")


class _WayOut:
    """A thread that ends the process LAST_WORDS after it was asked to, whatever the other threads do.

    It exists from the start and reserves some memory: once threads or memory have run out, no new thread can be
    started.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._code = 70
        self._thread: threading.Thread | None = None
        self._reserve: bytearray | None = None
        self.process = "worker"
        """What this process is, in the log's last line."""

    @property
    def open(self) -> bool:
        return self._thread is not None

    def prepare(self) -> None:
        if self._thread is None:
            self._reserve = bytearray(1 << 20)
            self._thread = threading.Thread(target=self._run, name="way-out", daemon=True)
            self._thread.start()

    def ask(self, code: int) -> None:
        self._reserve = None
        self._code = code
        self._asked.set()

    def _run(self) -> None:
        self._asked.wait()
        time.sleep(LAST_WORDS)
        os._exit(self._code)


_way_out = _WayOut()


def prepare(process: str = "worker") -> None:
    """Make sure that nothing can delay this process's exit any more. A process that serves calls it when it starts.

    Args:
        process: What it is, for the log's last line.
    """
    _way_out.process = process
    _way_out.prepare()


def prepared() -> bool:
    """Check whether this process serves, and so exits through `leave`."""
    return _way_out.open


def process() -> str:
    """Return what this process is: worker or gateway."""
    return _way_out.process


def meaning(error: BaseException) -> BaseException:
    """Return what an error means: a refusal, an unreachable broker, or an exhausted resource; else the error itself."""
    if not isinstance(error, FreshetError) and (short := machine_fails(error)):
        return MachineError(short)
    if isinstance(error, InvalidTimestampError):
        return BrokerError(
            "the broker refuses the timestamp of a record that this worker wrote (InvalidTimestamp): this machine's clock is "
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC; set it right, or check the topic's "
            "message.timestamp.before.max.ms and message.timestamp.after.max.ms"
        )
    if isinstance(error, (OSError, KafkaConnectionError, BrokerError, LeaseError, DiskError)) and (
        short := exhausted(error)
    ):
        return FreshetError(short)
    if isinstance(error, KafkaConnectionError):
        return BrokerError(f"no Kafka broker answers: {error}")
    return refusal(error) or error


def exhausted(error: BaseException) -> str:
    """Return what this process has run out of, or "".

    Clients report it as an unreachable broker, and RocksDB as a failing disk.
    """
    out = os.strerror(errno.EMFILE) in str(error)
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as refused:
        out = out or refused.errno in (errno.EMFILE, errno.ENFILE)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"too many open files (this process may have {limit}): raise the limit (ulimit -n, LimitNOFILE)" if out else ""
    )


def one_line(error: BaseException) -> str:
    """Return an error as one line that is never empty.

    For a FreshetError it is the text. For any other error it is the type and the text, or the type and where it was
    raised if it has no text.
    """
    text = " ".join(str(error).split())
    if isinstance(error, FreshetError):
        return text or f"{type(error).__name__} without a message: this is a bug"
    if text:
        return f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, {os.path.basename(frames[-1].filename)} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def fatal(error: BaseException) -> NoReturn:
    """Log `error` and end the process with its exit code (70 for an unknown error). Never returns."""
    _way_out.ask(70)  # before anything else is tried
    error = meaning(error)
    known = isinstance(error, FreshetError) and not isinstance(error, InternalError)
    code = error.exit_code if isinstance(error, FreshetError) else 70
    leave(code, f"{_way_out.process} stops: {one_line(error)}", None if known else error)


def leave(code: int, message: str = "", error: BaseException | None = None, level: int = logging.CRITICAL) -> NoReturn:
    """Log `message`, if any, and end the process with `code` immediately: no client's finalizer logs after it."""
    _way_out.ask(code)
    try:
        if message:
            logger = log if level == logging.CRITICAL else logging.getLogger("freshet.worker")
            logger.log(level, message, exc_info=error)
        logging.shutdown()
        sys.stderr.flush()
    except BaseException:  # no memory, a broken pipe: write only the message, in the simplest way
        with suppress(BaseException):
            os.write(2, message.encode(errors="replace") + b"\n")
    os._exit(code)
