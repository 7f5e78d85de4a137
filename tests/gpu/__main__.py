"""The table of cases on one provider; see docs/gpu.md.

python -m tests.gpu                          on CUDA, with a small bundle made for it (needs torch)
python -m tests.gpu --make FOLDER            write that bundle, to take to a machine without torch; runs nothing
python -m tests.gpu --bundle FOLDER          on CUDA, with a bundle: its own folder, or a bundles folder with CURRENT
python -m tests.gpu --provider cpu ...       on the CPU

Needs the packages that serve, no Kafka, no network and no pytest. Exit codes: 0 all passed, 1 a case failed, 2 the command
line, 65 the bundle, 69 no usable CUDA, 78 a package is missing.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import onnxruntime

from stream.core.errors import FreshetError, SettingsError
from stream.inference import runtime
from stream.inference.bundle import Bundle, current, load
from tests.gpu.cases import CASES, Subject


def main() -> int:
    """Run the command line -> its exit code."""
    logging.disable()  # what is wrong is printed here, in one line
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="provider cases, pass or fail, one a line")
    parser.add_argument("--provider", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="a bundle's folder, or one with CURRENT")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="write the small bundle there and end")
    parser.add_argument("cases", nargs="*", metavar="WORD", help="only the cases whose name has one of these words")
    chosen = parser.parse_args()
    try:
        if chosen.make:
            print(_make(chosen.make))
            return 0
        runtime.resolve(chosen.provider)
        with tempfile.TemporaryDirectory(prefix="freshet-gpu-") as folder:
            bundle = _open(chosen.bundle) if chosen.bundle else load(_make(Path(folder)))
            return _run(Subject(bundle, chosen.provider), chosen.cases)
    except FreshetError as error:
        hint = (
            "; --provider cpu runs the cases on the CPU" if chosen.provider == "cuda" and error.exit_code == 69 else ""
        )
        print(f"{error}{hint}", file=sys.stderr)
        return error.exit_code


def _run(subject: Subject, words: list[str]) -> int:
    print(f"provider {subject.provider}, {_card(subject.provider)}, ONNX Runtime {onnxruntime.__version__}")
    print(
        f"bundle {subject.bundle.id[:12]}, {len(subject.bundle.item_ids):,} items, state {subject.bundle.hidden} wide"
    )
    wanted = {name: run for name, run in CASES.items() if not words or any(word in name for word in words)}
    failed = 0
    for name, run in wanted.items():
        began = time.perf_counter()
        try:
            run(subject)
            why = ""
        except AssertionError as error:
            why = str(error)
        except Exception as error:  # what ONNX Runtime raises has no common base
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            traceback.print_exc()
        failed += bool(why)
        print(
            f"{'FAIL' if why else 'pass'} {time.perf_counter() - began:6.2f} s  {name}{f': {why}' if why else ''}",
            flush=True,
        )
    print(f"{len(wanted) - failed} passed, {failed} failed on {subject.provider}")
    return 1 if failed or not wanted else 0


def _open(folder: Path) -> Bundle:
    return load(current(folder) if (folder / "CURRENT").is_file() else folder)


def _make(folder: Path) -> Path:
    """A bundle of 50 items, with one layer of the text network: about 55 MB."""
    try:
        from tests.bundles import shallow_bundle
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"a bundle is made with {error.name}, which is not installed here: run `python -m tests.gpu --make FOLDER` where "
            "it is, bring the folder here and name it with --bundle"
        ) from None
    return shallow_bundle(folder)


def _card(name: str) -> str:
    """What runs it, for people."""
    if name == "cpu":
        return "the processor"
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "a card that nvidia-smi does not name"
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
