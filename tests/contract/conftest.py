"""Fixtures of the contract tests: the tiny bundle, loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.inference.bundle import Bundle, current, load
from stream.inference.text_encoder import Encoder, open_encoder


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return open_encoder(bundle, "cpu")
