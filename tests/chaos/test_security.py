"""Faults 30 and 31, five seeds each: credentials, certificates, ACLs, secrets. `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import security
from tests.secured_kafka import SecuredKafka

pytestmark = pytest.mark.chaos
SEEDS = range(6)  # one for each right that is revoked


@pytest.mark.parametrize("seed", SEEDS)
def test_refused_at_the_start(secured: SecuredKafka, bundles: Path, tmp_path: Path, seed: int) -> None:
    security.refused_at_start(secured, bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_right(secured: SecuredKafka, bundles: Path, tmp_path: Path, seed: int) -> None:
    security.missing_right(secured, bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_is_revoked_at_work(secured: SecuredKafka, bundles: Path, tmp_path: Path, seed: int) -> None:
    security.revoked_at_work(secured, bundles, tmp_path, seed)
