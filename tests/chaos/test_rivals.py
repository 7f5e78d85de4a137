"""freshet, stock Faust and Quix Streams under the same kills: freshet must lose nothing and apply nothing twice, what the
others do is recorded (.cache/chaos/rivals.jsonl) and asserted nowhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import rivals
from tests.chaos.outcomes import record
from tests.chaos.rivals import QUIX_PYTHON, Contender, Plan
from tests.rivals import quix, stock
from tests.settings import SETTINGS, SHORT_SESSION

pytestmark = pytest.mark.chaos
SEEDS = range(5)
OFTEN = 0.5  # seconds: as often as freshet commits
RIVALS = {
    "faust": partial(rivals.faust, guarantee="at-least-once", commit_interval=stock.DEFAULT_COMMIT_INTERVAL),
    "faust-exactly-once": partial(
        rivals.faust, guarantee="exactly-once", commit_interval=stock.DEFAULT_COMMIT_INTERVAL
    ),
    "faust-often": partial(rivals.faust, guarantee="at-least-once", commit_interval=OFTEN),
    "quix": partial(rivals.quix_streams, guarantee="at-least-once", commit_interval=quix.DEFAULT_COMMIT_INTERVAL),
    "quix-exactly-once": partial(
        rivals.quix_streams, guarantee="exactly-once", commit_interval=quix.DEFAULT_COMMIT_INTERVAL
    ),
    "quix-often": partial(rivals.quix_streams, guarantee="at-least-once", commit_interval=OFTEN),
}


@pytest.mark.parametrize("name", ["freshet", *RIVALS])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_kills(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int, name: str) -> None:
    if name.startswith("quix") and not QUIX_PYTHON.exists():
        pytest.skip("no Quix Streams here; `make rivals` installs it")
    settings = world(**SETTINGS | SHORT_SESSION)
    found = rivals.run(settings, _contender(name, settings, bundles, tmp_path), Plan(seed))
    record(found)
    if name == "freshet":
        assert (found.lost, found.double, found.unshown, found.users_wrong) == (0, 0, 0, 0)


def _contender(name: str, settings: Settings, bundles: Path, folder: Path) -> Contender:
    if name == "freshet":
        return rivals.freshet(settings, bundles, folder)
    return RIVALS[name](settings, folder)
