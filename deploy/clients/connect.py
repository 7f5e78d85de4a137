"""Creates kafka-python's clients. Retries while no broker answers, and fails immediately if a retry cannot help."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from kafka.errors import CorruptRecordError, KafkaError
from kafka.record import default_records, legacy_records
from kafka.record.default_records import DefaultRecordBatch

from stream.core.denials import refusal
from stream.core.errors import BrokerError
from stream.kafka import decompression
from stream.kafka.lenient_headers import Escaping
from stream.observability import logs
from stream.settings import Settings, toml_file
from stream.settings.security import certificate_problem

ATTEMPT_MS: Final = 2000  # of the first attempt to reach a broker; later ones get longer
LONGEST_MS: Final = 10_000
SHORTEST_MS: Final = 1000  # even if less time is left: a busy machine cannot reach a broker in less
PAUSE: Final = 0.3  # seconds between two attempts
SILENT: Final = 1.0  # seconds after which a line reports the wait

Client = TypeVar("Client")
log = logging.getLogger("freshet.connect")


def _of_worth(record: logging.LogRecord) -> bool:
    """Return False for a useless warning.

    On a busy machine kafka-python warns of a "tight sync loop" whenever its thread had to wait for the processor.
    """
    return "It is blocking the event loop" not in str(record.msg)


logging.getLogger("kafka.net.selector").addFilter(_of_worth)


def connect(settings: Settings, make: Callable[[int], Client]) -> Client:
    """Create a client with make(milliseconds for one attempt). Retry for startup_timeout.

    Raises BrokerError if no broker answers in this time. Raises it after the first attempt if the broker denies access, its
    certificate is not accepted, or it does not speak TLS.
    """
    DefaultRecordBatch._read_msg = _read_record
    decompression.bound(default_records, legacy_records)
    with _announced(settings):
        return _connected(settings, make)


class _Waiting:
    """Counts the clients that wait for a broker now, per line that reports it. Only the first one prints the line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def first(self, message: str) -> bool:
        with self._lock:
            self._counts[message] += 1
            return self._counts[message] == 1

    def leave(self, message: str) -> None:
        with self._lock:
            self._counts[message] -= 1


_waiting = _Waiting()


@contextmanager
def _announced(settings: Settings) -> Iterator[None]:
    """Report the wait for a broker before the program looks as if it hangs."""
    seconds = settings.startup_timeout
    message = f"waiting for a Kafka broker at {settings.brokers}, up to {seconds:g} s"
    timer = threading.Timer(SILENT, _print, [message])
    timer.daemon = True
    if _waiting.first(message) and seconds > SILENT:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _waiting.leave(message)


def _print(message: str) -> None:
    if logs.configured():
        log.info(message)
    else:
        sys.stderr.write(f"freshet: {message}\n")


def _connected(settings: Settings, make: Callable[[int], Client]) -> Client:
    end = time.monotonic() + settings.startup_timeout
    attempt = ATTEMPT_MS
    tries = 0
    while True:
        try:
            with _Listening() as heard:
                return make(max(SHORTEST_MS, min(attempt, int(1000 * (end - time.monotonic())))) if tries else attempt)
        except (KafkaError, OSError) as error:
            for failure in (error, *heard.errors):
                if refused := refusal(failure):
                    raise BrokerError(f"{settings.brokers}: {refused}") from None
            if problem := certificate_problem(settings):
                raise BrokerError(problem) from None
            if time.monotonic() >= end:
                raise BrokerError(
                    f"no Kafka broker answers at {settings.brokers} with {settings.security_protocol} "
                    f"({type(error).__name__}); `freshet broker start` runs one here ({toml_file.description()})"
                ) from None
        time.sleep(PAUSE)
        tries += 1
        attempt = min(2 * attempt, LONGEST_MS)


_read_strictly = DefaultRecordBatch._read_msg


def _read_record(batch: Any) -> Any:
    """Read a record, even if its headers' names are not valid."""
    try:
        return _read_strictly(batch)
    except (UnicodeDecodeError, CorruptRecordError):
        batch._buffer = Escaping(batch._buffer)
        return _read_strictly(batch)


class _Listening(logging.Handler):
    """Collects the errors that kafka-python only logs.

    While it looks for its first broker, it raises only that it found none, whatever the brokers answered. Meanwhile its log
    lines are held back: one clear line follows.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[BaseException] = []
        self._logger = logging.getLogger("kafka")

    def emit(self, record: logging.LogRecord) -> None:
        arguments: Any = record.args if isinstance(record.args, tuple) else ()
        self.errors += [one for one in arguments if isinstance(one, BaseException)]

    def __enter__(self) -> _Listening:
        self._propagated, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
