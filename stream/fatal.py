"""The one way in which a worker gives up: say why, then leave at once.

Everything durable is acknowledged or in RocksDB's log before it counts, so an exit at any instant is safe; a worker that
went on after an unknown error would be guessing.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from stream.errors import FreshetError
from stream.security import refusal

log = logging.getLogger("freshet.fatal")


def fatal(error: BaseException) -> NoReturn:
    """Log `error` and end the process with its exit code (70 for one that freshet does not know). Never returns."""
    error = refusal(error) or error
    known = isinstance(error, FreshetError)
    log.critical("worker stops: %s", error, exc_info=None if known else error)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(error.exit_code if isinstance(error, FreshetError) else 70)
