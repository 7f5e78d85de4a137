"""Training on a GPU: it learns as it does on the processor, and what comes back is on the processor."""

from __future__ import annotations

import pytest
import torch

from models.data import generate
from models.network.text import TextEncoder
from models.training import distributed
from models.training.train import TrainSettings, train

SETTINGS = TrainSettings(epochs=8, preset="dense")


def test_it_learns_as_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    world, encoder = generate(users=120, items=160, events=40), TextEncoder()
    on_gpu = train(world, SETTINGS, encoder)
    monkeypatch.setattr(distributed, "training_device", lambda: torch.device("cpu"))
    on_cpu = train(world, SETTINGS, encoder)
    assert {value.device.type for value in on_gpu.run.network.state_dict().values()} == {"cpu"}
    assert on_gpu.curve[-1].loss == pytest.approx(on_cpu.curve[-1].loss, rel=0.05)
