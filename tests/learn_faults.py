"""A `freshet learn` with the tests' graph of BERT, and with a fault that a file in its folder of runs switches on.

python -m tests.learn_faults DATA --runs DIR ...      as `freshet learn`
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from deploy.cli.main import main
from deploy.learning.learn import Learner, Outcome
from export import publish
from tests.bundles import text_onnx
from tests.patching import patch

HOLDS = "holds"
"""While this file is there, a turn does not go on."""


def arm(runs: Path) -> None:
    """Put the graph and the fault in place."""
    turn, build = Learner.turn, publish.build

    def held(self: Learner) -> Outcome:
        while (runs / HOLDS).exists():
            time.sleep(0.1)
        return turn(self)

    def quickly(run: Any, text: bytes | None = None, base: Any = None) -> Any:
        return build(run, text=text_onnx(), base=base)

    patch(Learner, "turn", held)
    patch(publish, "build", quickly)


if __name__ == "__main__":
    arm(Path(sys.argv[sys.argv.index("--runs") + 1]))
    sys.argv.insert(1, "learn")
    main()
