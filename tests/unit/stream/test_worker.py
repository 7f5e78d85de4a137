"""What a worker refuses before it claims anything: settings that do not fit the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from stream.core.errors import SettingsError
from stream.core.features import InputSpec
from stream.inference.serving import check_fit
from stream.settings import load
from tests.unit.stream.observability.test_status import BUNDLE

START = """
import sys
from stream import settings, swap, worker
from tests.unit.stream.observability.test_status import BUNDLE
swap.current = lambda folder: folder
swap.load = lambda folder: BUNDLE
def open_for(*given):
    print("models opened")
    sys.exit(3)
swap.open_for = open_for
from stream.core.errors import FreshetError
try:
    worker.run(settings.load(rating_scale=%s))
except FreshetError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_the_scale_that_the_bundle_was_trained_with_is_accepted() -> None:
    for scale in ((0.5, 5.0), (1, 5), (0, 0.1 + 0.2)):
        check_fit(load(rating_scale=scale), replace(BUNDLE, spec=InputSpec(scale, (), 384)))


@pytest.mark.parametrize("scale", [(0.5, 5.0), (1.0, 10.0), (1.0000001, 5.0)])
def test_another_scale_than_the_bundles_is_refused_and_both_are_named(scale: tuple[float, float]) -> None:
    with pytest.raises(SettingsError) as raised:
        check_fit(load(rating_scale=scale), replace(BUNDLE, spec=InputSpec((1.0, 5.0), (), 384)))
    assert raised.value.exit_code == 78
    text = str(raised.value)
    assert text.startswith(f"rating_scale: found {json.dumps(scale)}, expected [1.0, 5.0]")
    assert f"the bundle {BUNDLE.id[:12]}..." in text
    assert "FRESHET_RATING_SCALE='[1.0, 5.0]'" in text


@pytest.mark.parametrize(("scale", "code", "message"), [((0.5, 5.0), 78, "rating_scale: "), ((1.0, 5.0), 3, "models ")])
def test_a_worker_looks_before_it_opens_the_models(scale: tuple[float, float], code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START % (scale,)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout[: len(message)]) == (code, message), done.stderr


GOLDEN = """
import sys, threading, time
from stream import settings, swap, worker
from tests.unit.stream.observability.test_status import BUNDLE
worker.BUNDLE_LIMIT = 1.0
swap.current = lambda folder: folder
swap.load = lambda folder: BUNDLE
swap.open_for = lambda *given: threading.Event().wait(30)
worker.run(settings.load(rating_scale=(1, 5)))
"""


def test_golden_vectors_that_never_end_are_refused_in_time() -> None:
    done = subprocess.run([sys.executable, "-c", GOLDEN], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 65, f"{done.returncode}: {done.stderr}"
    report = json.loads(done.stderr.splitlines()[-1])["message"]
    assert report == "worker stops: golden.npz: not computed within 1 s: a graph does not end"
