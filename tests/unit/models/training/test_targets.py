"""Targets with shares: the loss and its gradient, which items share, and that without a share nothing changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.data import generate
from models.data.histories import Floats, histories
from models.interfaces import TrainingData
from models.network.network import InterestNetwork
from models.training.batching import hold_validation
from models.training.loss import CatalogueLoss
from models.training.neighbours import NeighbourSettings, neighbours
from models.training.sequential.network_model import NetworkModel
from models.training.targets import SpreadTargets
from stream.core.features import InputSpec

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 16


@pytest.fixture(scope="module")
def training() -> TrainingData:
    data = generate(users=60, items=40, events=20)
    spec = InputSpec(data.rating_scale, data.scenes, WIDTH)

    def nothing_read(texts: Sequence[str]) -> Floats:
        return np.zeros((len(texts), WIDTH), np.float32)

    rows = histories(data.events, None, [item.item for item in data.items], spec, nothing_read)
    use, watched = hold_validation(rows, 1)
    return TrainingData(data.items, spec, np.zeros((len(data.items) + 1, WIDTH), np.float32), rows, use, watched)


def fitted(training: TrainingData, **fit: float) -> InterestNetwork:
    return NetworkModel("small", "dense", {"width": 16, "item": 16}, {"epochs": 2, **fit}).fit(training, 0).network


def test_the_loss_of_shared_targets_is_cross_entropy_and_so_is_its_gradient() -> None:
    torch.manual_seed(1)
    query = torch.randn(7, 8, dtype=torch.double, requires_grad=True)
    items = torch.randn(20, 8, dtype=torch.double, requires_grad=True)
    targets = torch.randint(1, 20, (7, 4))  # with some items twice in a row
    shares = torch.rand(7, 4, dtype=torch.double)
    shares[2, 1:], targets[2, 1:] = 0, 0  # as of an item that has no neighbours
    shares /= shares.sum(1, keepdim=True)
    wanted = torch.zeros(7, 20, dtype=torch.double).scatter_add_(1, targets, shares)[:, 1:]
    loss = functional.cross_entropy((query @ items.T)[:, 1:], wanted)
    torch.testing.assert_close(CatalogueLoss(torch.double)(query, items, targets, shares), loss, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(loss, (query, items))
    for kind, far in ((torch.double, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        found = torch.autograd.grad(CatalogueLoss(kind)(query, items, targets, shares), (query, items))
        for one, two in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=far, atol=far)


def test_one_target_with_all_of_the_share_is_the_plain_loss_to_the_bit() -> None:
    torch.manual_seed(1)
    query, items = torch.randn(7, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    targets, all_of_it = torch.randint(1, 20, (7,)), torch.ones(7, 1)
    for kind in (torch.float32, torch.bfloat16):
        plain = CatalogueLoss(kind)(query, items, targets)
        plain_gradients = torch.autograd.grad(plain, (query, items))
        shared = CatalogueLoss(kind)(query, items, targets[:, None], all_of_it)
        assert torch.equal(plain, shared)
        for one, two in zip(plain_gradients, torch.autograd.grad(shared, (query, items)), strict=True):
            assert torch.equal(one, two)


def test_a_share_goes_to_the_nearest_neighbours_by_weight(training: TrainingData) -> None:
    near, weight = neighbours(training, NeighbourSettings(keep=5))
    items, shares = SpreadTargets(training, 0.3, 5).of(torch.arange(1, len(near)))
    assert torch.equal(items[:, 0], torch.arange(1, len(near)))
    assert np.array_equal(items[:, 1:].numpy(), near[1:])
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
    alone = weight[1:].sum(1) == 0
    assert (shares[torch.from_numpy(alone), 0] == 1).all()
    some = torch.from_numpy(~alone)
    torch.testing.assert_close(shares[some, 0], torch.full((int(some.sum()),), 0.7))
    parts = 0.3 * weight[1:] / weight[1:].sum(1, keepdims=True).clip(1e-9)
    assert np.allclose(shares[:, 1:].numpy(), parts, atol=1e-6)


def test_nobody_shares_with_an_item_without_neighbours(training: TrainingData) -> None:
    alone = TrainingData(
        training.items, training.spec, training.text, training.rows, np.zeros_like(training.use), training.watched
    )
    items, shares = SpreadTargets(alone, 0.3, 5).of(torch.tensor([3, 1]))
    assert items.tolist() == [[3, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert shares.tolist() == [[1, 0, 0, 0, 0, 0]] * 2


def test_a_share_changes_what_is_learned_and_no_share_nothing(training: TrainingData) -> None:
    plain, none, some = (
        fitted(training, **fit).state_dict() for fit in ({}, {"spread": 0.0, "spread_over": 3}, {"spread": 0.3})
    )
    assert all(torch.equal(value, none[name]) for name, value in plain.items())
    assert not torch.equal(plain["ids.weight"], some["ids.weight"])
