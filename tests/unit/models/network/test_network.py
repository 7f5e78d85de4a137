"""The network and its rows: the unrolled form is the stepped form, and training reads the rows that serving reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.data import generate, split_last
from models.data.histories import Histories, histories
from models.metrics.ranks import MISSED, gains, hits, popularity_ranks, ranks
from models.network import scorer
from models.network.blocks import RECURRENT
from models.network.network import InterestNetwork, NetworkSize
from models.network.scorer import before, input_rows, states, windows
from models.training.batching import cut, following, initial_states
from models.training.loss import CatalogueLoss
from stream.core import state as state_module
from stream.core.features import InputSpec
from stream.core.messages import COMMENT, SOURCE_TOPICS, SourceEvent

WIDTH = 12
SPEC = InputSpec((0.5, 5.0), (), WIDTH)


def fake_vectors(texts: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Any fixed vectors will do where BERT is not the matter; the empty text has zeros."""
    return np.array([[float(len(text) % (at + 2)) for at in range(WIDTH)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def rows() -> Histories:
    data = generate(users=12, items=40, events=20)
    split = split_last(data, 3, 2)
    spec = InputSpec(data.rating_scale, data.scenes, WIDTH)
    return histories(split.train, split.held, [item.item for item in data.items[:30]], spec, fake_vectors)


@pytest.fixture(scope="module")
def network() -> InterestNetwork:
    torch.manual_seed(0)
    return made()


def made(**other: Any) -> InterestNetwork:
    size = NetworkSize(items=30, scenes=2, item=16, width=32, text=WIDTH, comment=8, **other)
    return InterestNetwork(size, torch.randn(31, WIDTH)).eval()


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize(("blocks", "residual", "feed"), [(1, True, True), (2, True, True), (1, False, False)])
@torch.no_grad()
def test_unrolled_is_stepped(kind: str, blocks: int, residual: bool, feed: bool) -> None:
    torch.manual_seed(2)
    network = made(kind=kind, blocks=blocks, residual=residual, feed=feed)
    inputs = torch.randn(3, 9, 32)
    h, c = torch.randn(3, network.size.hidden), torch.randn(3, network.size.hidden)
    c[:, -32:] = 0
    out, h_last, c_last = network.unroll(inputs, h, c)
    for at in range(9):
        h, c = network.step(inputs[:, at], h, c)
        torch.testing.assert_close(network.project(out[:, at]), network.query(h), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(h_last, h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(c_last, c, rtol=1e-5, atol=1e-5)


def test_a_scene_gates_what_is_read(rows: Histories) -> None:
    torch.manual_seed(4)
    plain = made(features=())
    item, numbers, comment = torch.randn(1, 16), torch.randn(1, 4), torch.randn(1, WIDTH)
    zero, one = torch.tensor([0]), torch.tensor([1])
    assert torch.equal(plain.inputs(item, zero, zero, numbers, comment), plain.inputs(item, one, one, numbers, comment))
    gated = made(features=("scene",))
    first = gated.inputs(item, zero, zero, numbers, comment)
    assert torch.equal(first, gated.inputs(item, one, zero, numbers, comment))
    assert not torch.equal(first, gated.inputs(item, zero, one, numbers, comment))


@torch.no_grad()
def test_states_of_users_with_one_event_each(network: InterestNetwork) -> None:
    data = generate(users=5, items=40, events=20)
    first = data.events.unique("user", keep="first", maintain_order=True)
    rows = histories(first, None, [item.item for item in data.items[:30]], SPEC, fake_vectors)
    after = states(network, rows, network.item_matrix())
    assert after.shape == (5, 32)
    assert after.any(dim=1).all()


@torch.no_grad()
def test_states_of_all_users_at_once_are_those_of_each_alone(network: InterestNetwork, rows: Histories) -> None:
    items = network.item_matrix()
    after = states(network, rows, items)
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        h = c = torch.zeros(1, network.size.hidden)
        for at in range(begin, end):
            inputs = network.inputs(
                items[rows.item[at : at + 1]],
                torch.from_numpy(rows.behaviour[at : at + 1]),
                torch.from_numpy(rows.scene[at : at + 1]),
                torch.from_numpy(rows.numbers[at : at + 1]),
                torch.from_numpy(rows.vectors[rows.comment[at : at + 1]]),
            )
            torch.testing.assert_close(before(rows, after, np.array([at])), h[:, -32:], rtol=1e-5, atol=1e-5)
            h, c = network.step(inputs, h, c)
            torch.testing.assert_close(after[at : at + 1], h[:, -32:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attention_sees_the_window_before_each_place(rows: Histories) -> None:
    network = made(kind="attention", blocks=2, window=5)
    items = network.item_matrix()
    positions = np.arange(len(rows.item))
    found = windows(network, rows, items, positions)
    empty = torch.zeros(1, network.size.hidden)
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        assert not found[begin].any()
        for at in range(begin + 1, end):
            seen = np.arange(max(begin, at - 5), at)[None]
            out = network.unroll(input_rows(network, items, rows, seen), empty, empty)[0][:, -1]
            torch.testing.assert_close(found[at : at + 1], out, rtol=1e-5, atol=1e-5)


def test_rows_hold_what_the_worker_feeds(rows: Histories) -> None:
    data = generate(users=12, items=40, events=20)
    spec = InputSpec(data.rating_scale, data.scenes, WIDTH)
    known = {item.item: position + 1 for position, item in enumerate(data.items[:30])}
    at = {user: int(start) for user, start in zip(rows.users, rows.starts[:-1], strict=True)}
    folded: dict[str, state_module.Interest] = {}
    for number, (user, item, behaviour, time, value, text, scene, *_) in enumerate(data.events.iter_rows()):
        state = folded.setdefault(user, state_module.new(bytes(16), 4))
        event = SourceEvent(behaviour, 0, number, time, user.encode(), item, time, value, scene, text, "", b"")
        gap = state_module.fold(state, event, SOURCE_TOPICS[behaviour])
        position = at[user]
        assert rows.item[position] == known.get(item, 0)
        assert rows.behaviour[position] == behaviour
        assert rows.scene[position] == spec.scene(scene) > 0
        assert rows.numbers[position].tolist() == np.array(spec.numbers(value, gap), np.float32).tolist()
        assert (rows.vectors[rows.comment[position]] == fake_vectors([text])[0]).all()
        assert bool(rows.comment[position]) == (behaviour == COMMENT)
        assert not math.isnan(rows.numbers[position].sum())
        at[user] += 1
    assert [at[user] for user in rows.users] == rows.starts[1:].tolist()


def test_the_catalogue_loss_is_cross_entropy_and_so_is_its_gradient() -> None:
    torch.manual_seed(1)
    query = torch.randn(7, 8, dtype=torch.double, requires_grad=True)
    items = torch.randn(20, 8, dtype=torch.double, requires_grad=True)
    targets = torch.tensor([1, 19, 4, 4, 7, 11, 2])
    exact = CatalogueLoss(torch.double)
    wanted = functional.cross_entropy((query @ items.T)[:, 1:], targets - 1)
    torch.testing.assert_close(exact(query, items, targets), wanted, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(wanted, (query, items))
    for kind, far in ((torch.double, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        found = torch.autograd.grad(CatalogueLoss(kind)(query, items, targets), (query, items))
        for one, two in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=far, atol=far)


def test_pieces_start_from_the_states_of_a_whole_fold(
    rows: Histories, network: InterestNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some groups of users have nobody with a second piece, and are not folded."""
    monkeypatch.setattr(scorer, "USERS", 3)
    lengths = np.sort(np.diff(rows.starts))
    first = int(lengths[len(lengths) // 2])
    pieces = cut(rows, np.ones(len(rows.item), np.bool_), first, 2)
    assert (pieces.ahead > 0).any()
    assert lengths[2] < first  # the last group
    h, c = initial_states(network, rows, pieces, first, 2)
    piece_at = {position: piece for piece, position in enumerate(pieces.begin.tolist())}
    with torch.no_grad():
        for some in scorer.rounds(network, rows, network.item_matrix(), first, 2):
            for line, position in enumerate(some.positions[:, 0].tolist()):
                piece = piece_at.pop(position)
                assert torch.equal(h[piece], some.h[line])
                assert torch.equal(c[piece], some.c[line])
    assert not piece_at


def test_what_follows_is_the_next_choice_that_may_be_learned(rows: Histories) -> None:
    use = np.arange(len(rows.item)) % 7 != 3
    found = following(rows, use)
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        for at in range(begin, end):
            ahead = [rows.item[position] for position in range(at + 1, end) if rows.choice[position] and use[position]]
            assert found[at] == (ahead[0] if ahead and use[at] else 0)


def test_ranks_by_hand() -> None:
    """One user: items 1, 2 taken, then 3 and 1 again. Scores prefer high rows; seen items drop out."""
    none = np.zeros(4, np.int64)
    rows = Histories(
        users=("u",), starts=np.array([0, 4]), item=np.array([1, 2, 3, 1]), behaviour=none, scene=none,
        numbers=np.zeros((4, 4), np.float32), comment=none, vectors=np.zeros((1, WIDTH), np.float32),
        choice=np.ones(4, np.bool_), judged=np.ones(4, np.bool_),
    )  # fmt: skip
    positions = np.array([1, 2, 3])
    scores = torch.tensor([[9.0, 1.0, 2.0, 3.0, 4.0, 3.0]])
    found = ranks(rows, positions, lambda some: scores.expand(len(some), -1))
    assert found.tolist() == [3, 2, MISSED]  # item 3 shares its score with item 5, and stands behind it
    assert ranks(rows, positions, lambda some: scores.expand(len(some), -1), filter_seen=False).tolist() == [3, 2, 4]
    assert popularity_ranks(np.array([9, 1, 1, 1, 1], np.float32), rows, positions).tolist() == [2, 1, MISSED]
    assert hits(found, 3).tolist() == [0.0, 1.0, 0.0]
    assert gains(found, 3).tolist() == [0.0, 1 / math.log2(4), 0.0]
