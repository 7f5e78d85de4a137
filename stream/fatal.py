"""The one way in which a worker gives up: say why, then leave at once.

Everything durable is acknowledged or in RocksDB's log before it counts, so an exit at any instant is safe; a worker that
went on after an unknown error would be guessing.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from aiokafka.errors import KafkaConnectionError

from stream.errors import BrokerError, FreshetError
from stream.security import refusal

log = logging.getLogger("freshet.fatal")


def meaning(error: BaseException) -> BaseException:
    """What a Kafka client's error is to us: a refusal, or a broker that is away, as BrokerError; any other error is itself."""
    if isinstance(error, KafkaConnectionError):
        return BrokerError(f"no Kafka broker answers: {error}")
    return refusal(error) or error


def fatal(error: BaseException) -> NoReturn:
    """Log `error` and end the process with its exit code (70 for one that freshet does not know). Never returns."""
    error = meaning(error)
    known = isinstance(error, FreshetError)
    log.critical("worker stops: %s", error, exc_info=None if known else error)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(error.exit_code if isinstance(error, FreshetError) else 70)
