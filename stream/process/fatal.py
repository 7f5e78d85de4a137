"""The one way in which a worker gives up: say why, then leave at once.

Everything durable is acknowledged or in RocksDB's log before it counts, so an exit at any instant is safe; a worker that
went on after an unknown error would be guessing. Nothing may hold the end back either: where the last line cannot be written
(a pipe that nobody reads, a lock that is held), the process ends without it.
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
from stream.core.errors import BrokerError, DiskError, FreshetError, LeaseError, MachineError
from stream.inference.machine_errors import machine_fails

LAST_WORDS: Final = 2.0
"""Seconds that the last line may take."""

log = logging.getLogger("freshet.fatal")


class _WayOut:
    """A thread that ends the process LAST_WORDS after it was asked to, whatever the others do.

    It is there from the start, with some memory put by: where threads or memory have run out none can be had any more.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._code = 70
        self._thread: threading.Thread | None = None
        self._reserve: bytearray | None = None

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


def prepare() -> None:
    """Called at a worker's start: from here on an end of this process cannot be held back. May be called twice."""
    _way_out.prepare()


def prepared() -> bool:
    """This process is a worker, and ends by `leave`."""
    return _way_out.open


def meaning(error: BaseException) -> BaseException:
    """What an error is to us: a refusal, a broker that is away, something that has run out; any other error is itself."""
    if not isinstance(error, FreshetError) and (short := machine_fails(error)):
        return MachineError(short)
    if isinstance(error, InvalidTimestampError):
        return BrokerError(
            "the broker refuses the timestamp of a record that this worker wrote (InvalidTimestamp): this machine's clock is "
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC; set it right, or look at the topic's "
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
    """What this process has run out of, that clients tell as a broker that is away, and RocksDB as a disk that fails; "" for
    nothing."""
    out = os.strerror(errno.EMFILE) in str(error)
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as refused:
        out = out or refused.errno in (errno.EMFILE, errno.ENFILE)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"too many open files (this process may have {limit}): raise the limit (ulimit -n, LimitNOFILE)" if out else ""
    )


def said(error: BaseException) -> str:
    """One line that is never empty: of a FreshetError its text, of any other its type, its text, and where it was raised
    if it has no text."""
    text = " ".join(str(error).split())
    if isinstance(error, FreshetError):
        return text or f"{type(error).__name__} without a word: this is a bug"
    if text:
        return f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, {os.path.basename(frames[-1].filename)} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def fatal(error: BaseException) -> NoReturn:
    """Log `error` and end the process with its exit code (70 for one that freshet does not know). Never returns."""
    _way_out.ask(70)  # before anything else is tried
    error = meaning(error)
    known = isinstance(error, FreshetError)
    code = error.exit_code if isinstance(error, FreshetError) else 70
    leave(code, f"worker stops: {said(error)}", None if known else error)


def leave(code: int, message: str = "", error: BaseException | None = None, level: int = logging.CRITICAL) -> NoReturn:
    """Log `message`, if there is one, and end the process with `code` at once: no client's finalizer speaks after it."""
    _way_out.ask(code)
    try:
        if message:
            logger = log if level == logging.CRITICAL else logging.getLogger("freshet.worker")
            logger.log(level, message, exc_info=error)
        logging.shutdown()
        sys.stderr.flush()
    except BaseException:  # memory, a broken pipe: the message alone, by the shortest way
        with suppress(BaseException):
            os.write(2, message.encode(errors="replace") + b"\n")
    os._exit(code)
