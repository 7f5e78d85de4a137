"""Every parser answers anything at all with a value or with one of its own errors; nothing else, and in time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import SEEDS, TARGETS, mutated

CASES = [(name, seed) for name, seeds in SEEDS.items() for seed in seeds]


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FRESHET_")]:
        monkeypatch.delenv(name)


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize(("name", "seed"), CASES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CASES)])
def test_what_was_found_once(name: str, seed: bytes) -> None:
    TARGETS[name](seed)


@pytest.mark.parametrize("name", list(TARGETS))
def test_anything(name: str) -> None:
    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(mutated(SEEDS[name]))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_a_state_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    """The checksum sees every change of one byte."""
    from stream.core import state
    from stream.core.errors import StateError

    record = bytearray(state.encode(state.new(b"m" * 16, 4)))
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError):
        state.decode(bytes(record))
