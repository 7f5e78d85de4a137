"""The table of cases on CUDA; skipped where there is none. On the CPU they run in tests/contract/test_provider_cases.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.core.errors import ProviderError
from stream.inference import runtime
from stream.inference.bundle import current, load
from tests.gpu.cases import CASES, Subject


@pytest.fixture(scope="module")
def subject(bundles: Path) -> Subject:
    try:
        runtime.resolve("cuda")
    except ProviderError as error:
        pytest.skip(str(error))
    return Subject(load(current(bundles)), "cuda")


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, subject: Subject) -> None:
    CASES[name](subject)
