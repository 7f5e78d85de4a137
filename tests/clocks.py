"""`freshet worker` on a machine whose wall clock is wrong: python -m tests.clocks FILE

FILE holds the seconds by which it is ahead (negative: behind), and may be written again while the worker runs. The steady clocks
stay as they are, as on a real machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # before anything is imported that may take `time` apart
    real, file = time.time, Path(sys.argv.pop())

    def wrong() -> float:
        return real() + float(file.read_text())

    time.time = wrong
    time.time_ns = lambda: int(wrong() * 1e9)


def wrong_by(file: Path, seconds: float) -> None:
    """From now on the worker that was started with `file` has a clock that is so far ahead."""
    partial = file.with_suffix(".new")
    partial.write_text(str(seconds))
    partial.replace(file)


if __name__ == "__main__":
    from deploy.cli.main import main

    sys.argv[1:] = ["worker"]
    main()
