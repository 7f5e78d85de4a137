"""What may differ between ONNX Runtime's providers, a table of cases: pytest runs it on the CPU, `python -m tests.gpu` on CUDA.

A case takes a Subject and raises AssertionError, with the figures, where the provider under test does not do what the worker
needs. Nothing here needs more than the packages that serve: no pytest, no torch, no Kafka, no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.core.features import NUMBERS, InputRows
from stream.inference.bundle import Bundle
from stream.inference.masking import LEAST
from stream.inference.models import Models, open_models, ulps, users_at_once
from stream.inference.runtime import Policy
from stream.inference.text_encoder import Encoder, open_encoder

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
NO_PAIRS: Final = np.empty((0, 2), np.int64)
NO_CHOICES: Final = np.empty((0, 3), np.int64)
NEAR: Final = 1e-3  # of a score, as in stream.inference.bundle's parity
STEPS: Final = 2  # float16 steps of a state


@dataclass(frozen=True)
class Subject:
    """A bundle on the provider under test (`found`) and on the CPU (`cpu`), which is what training was proved against."""

    bundle: Bundle
    provider: Policy

    @cached_property
    def found(self) -> Models:
        return open_models(self.bundle, self.provider)

    @cached_property
    def cpu(self) -> Models:
        return open_models(self.bundle, "cpu")

    @cached_property
    def encoder(self) -> Encoder:
        return open_encoder(self.bundle, self.provider)

    @cached_property
    def cpu_encoder(self) -> Encoder:
        return open_encoder(self.bundle, "cpu")


Case = Callable[[Subject], None]
CASES: Final[dict[str, Case]] = {}
OF_SCORE: Final[list[str]] = []  # those that ask the score graph


def case(name: str, *, score: bool = False) -> Callable[[Case], Case]:
    """Enter a function in the table."""

    def enter(function: Case) -> Case:
        CASES[name] = function
        if score:
            OF_SCORE.append(name)
        return function

    return enter


@dataclass(frozen=True)
class Request:
    """One call of Models.score, as its arguments."""

    h: Any
    items: Floats
    bias: Floats
    hidden: Rows
    recent: Rows
    count: Rows

    def ask(self, models: Models, k: int) -> tuple[Floats, Rows]:
        return models.score(self.h, self.items, self.bias, self.hidden, self.recent, self.count, k)


def steps(subject: Subject, count: int, seed: int = 3) -> tuple[InputRows, Any, Any]:
    """`count` rows of the step model, and states."""
    random, bundle = np.random.default_rng(seed), subject.bundle
    rows = InputRows(
        item=bundle.items[random.integers(0, len(bundle.items), count)],
        behaviour=random.integers(0, 3, count),
        scene=random.integers(0, len(bundle.spec.scenes) + 1, count),
        action=random.integers(0, len(bundle.spec.actions) + 1, count),
        numbers=random.uniform(-1, 1, (count, NUMBERS)).astype(np.float32),
        comment=(random.normal(size=(count, bundle.text_dim)) / 20).astype(np.float32),
    )
    h = np.tanh(random.normal(size=(count, bundle.hidden))).astype(np.float16)
    return rows, h, (h * 2).astype(np.float16)


def catalogue(subject: Subject, size: int) -> Floats:
    """An item matrix of `size` rows: the bundle's, then rows that came after training."""
    items = subject.bundle.items
    more = np.random.default_rng(size).normal(size=(max(0, size - len(items)), items.shape[1])) * items.std()
    return np.concatenate((items, more.astype(np.float32)))[:size]


def request(subject: Subject, users: int, size: int, live: int, seed: int = 0, seen: int = 0) -> Request:
    """`users` users with choices and `seen` hidden items each, over `size` rows of which `live` are live."""
    random = np.random.default_rng((users, size, live, seed))
    bias = np.full(size, -np.inf, np.float32)
    bias[random.permutation(np.arange(1, size))[:live]] = 0
    pairs = [(user, row) for user in range(users) for row in random.permutation(size)[:seen]]
    choices = [
        (user, random.integers(0, size), age)
        for user in range(users)
        for age in range(min(user % 7, subject.found.last))
    ]
    return Request(
        h=np.tanh(random.normal(size=(users, subject.bundle.hidden))).astype(np.float16),
        items=catalogue(subject, size),
        bias=bias,
        hidden=np.array(pairs, np.int64).reshape(-1, 2),
        recent=np.array(choices, np.int64).reshape(-1, 3),
        count=random.integers(0, 60, users),
    )


def every_score(subject: Subject, asked: Request) -> Floats:
    """float32 [B, N]: what the CPU gives each item with nothing masked, then masked here, by numpy."""
    size = len(asked.items)
    open_ = Request(asked.h, asked.items, np.zeros(size, np.float32), NO_PAIRS, asked.recent, asked.count)
    scores, rows = open_.ask(subject.cpu, size)
    full = np.empty_like(scores)
    np.put_along_axis(full, rows, scores, axis=1)
    full += asked.bias
    full[asked.hidden[:, 0], asked.hidden[:, 1]] = -np.inf
    return full


def right(subject: Subject, asked: Request, k: int, full: Floats | None = None) -> None:
    """The provider's slates of k are the k best of every score; none where none is left."""
    full = every_score(subject, asked) if full is None else full
    users, size = full.shape
    what = f"{users} users, {size} rows, {int((asked.bias == 0).sum())} live, {len(asked.hidden)} hidden, k {k}"
    scores, rows = asked.ask(subject.found, k)
    k = min(k, size)
    assert scores.shape == rows.shape == (users, k), f"{what}: shapes {scores.shape} and {rows.shape}"
    assert scores.dtype == np.float32, f"{what}: scores are {scores.dtype}"
    assert rows.dtype == np.int64, f"{what}: rows are {rows.dtype}"
    best = -np.sort(-full, axis=1)[:, :k]
    none = np.isneginf(best)
    wrong = np.isneginf(scores) != none
    assert not wrong.any(), f"{what}: scores {scores[wrong][:5]} at rows {rows[wrong][:5]}, expected {best[wrong][:5]}"
    assert ((rows >= 0) & (rows < size)).all(), f"{what}: rows {rows.min()} .. {rows.max()}"
    apart = np.abs(np.where(none, 0, scores) - np.where(none, 0, best)).max(initial=0)
    assert apart < NEAR, f"{what}: a score is {apart:g} away"
    owned = np.take_along_axis(full, rows, axis=1)
    apart = np.abs(np.where(none, 0, owned) - np.where(none, 0, best)).max(initial=0)
    assert apart < NEAR, f"{what}: an item is {apart:g} worse than the one that belongs there"
    for user in range(users):
        own = rows[user, ~none[user]]
        assert len(set(own.tolist())) == len(own), f"{what}: user {user} has an item twice: {own}"


@case("golden vectors of step, score, text and item")
def golden(subject: Subject) -> None:
    for opened in (subject.found, subject.encoder):
        expected = "cpu" if subject.provider == "cpu" else "cuda"
        assert opened.provider == expected, f"runs on {opened.provider}, expected {expected}"


@case("states of 1, 2, 7, 256 and 4,096 users, within two float16 steps")
def states(subject: Subject) -> None:
    for count in (1, 2, 7, 256, 4096):
        rows, h, c = steps(subject, count)
        for name, found, expected in zip(
            "hc", subject.found.step(rows, h, c), subject.cpu.step(rows, h, c), strict=True
        ):
            far = ulps(found, expected)
            assert far <= STEPS, f"{count} users: {name} is {far:g} float16 steps away"


@case("a history of 60 events, within ten float16 steps")
def history(subject: Subject) -> None:
    _, h, c = steps(subject, 16)
    found = expected = (np.zeros_like(h), np.zeros_like(c))
    for event in range(60):
        rows, _, _ = steps(subject, 16, seed=event)
        found, expected = subject.found.step(rows, *found), subject.cpu.step(rows, *expected)
    far = max(ulps(one, other) for one, other in zip(found, expected, strict=True))
    assert far <= 5 * STEPS, f"{far:g} float16 steps away"


@case("nobody: no step and no slate for B = 0")
def nobody(subject: Subject) -> None:
    rows, h, c = steps(subject, 0)
    shapes = [part.shape for part in subject.found.step(rows, h, c)]
    assert shapes == [(0, subject.bundle.hidden)] * 2, f"shapes {shapes}"
    for k in (0, 5):
        asked = request(subject, 0, len(subject.bundle.items), 10)
        right(subject, asked, k, np.empty((0, len(asked.items)), np.float32))


@case("states at the limits of float16 stay finite")
def limits(subject: Subject) -> None:
    rows, h, c = steps(subject, 4)
    for value in (65_504, -65_504, 6e-8, 0):
        found = subject.found.step(rows, h, np.full_like(c, value))
        expected = subject.cpu.step(rows, h, np.full_like(c, value))
        for one, other in zip(found, expected, strict=True):
            assert np.isfinite(one).all(), f"c = {value}: not finite"
            assert ulps(one, other) <= STEPS, f"c = {value}: {ulps(one, other):g} float16 steps away"


@case("a step on what is not finite says so, and spoils no other user's state")
def broken_step(subject: Subject) -> None:
    rows, h, c = steps(subject, 5)
    good = subject.found.step(rows, h, c)
    for value in (np.nan, np.inf, -np.inf):
        for name in ("h", "c", "item", "numbers", "comment"):
            parts: dict[str, Any] = rows._asdict() | {"h": h, "c": c}
            parts[name] = parts[name].copy()
            parts[name][2, 1] = value
            own_rows = InputRows(*(parts[field] for field in InputRows._fields))
            found = subject.found.step(own_rows, parts["h"], parts["c"])
            spoilt = [not np.isfinite(part[2]).all() for part in found]
            assert any(spoilt), f"{value} in {name}: the next state is finite, nobody would notice"
            others = [0, 1, 3, 4]
            far = max(ulps(part[others], before[others]) for part, before in zip(found, good, strict=True))
            assert far <= STEPS, f"{value} in {name}: another user's state is {far:g} float16 steps away"


@case("the ten best of 64 users, and a new snapshot is seen", score=True)
def ten_best(subject: Subject) -> None:
    size = len(subject.bundle.items)
    asked = request(subject, 64, size, size - 1)
    for _ in range(4):
        for hidden in (NO_PAIRS, np.stack((np.arange(64), np.arange(64) % size), 1)):
            one = Request(asked.h, asked.items, asked.bias, hidden, asked.recent, asked.count)
            right(subject, one, 10)
        bias = asked.bias.copy()
        bias[one.ask(subject.cpu, 10)[1][:, 0]] = -np.inf
        asked = Request(asked.h, asked.items, bias, NO_PAIRS, asked.recent, asked.count)


@case("users without any choice, without any hidden item, and neither", score=True)
def no_pairs(subject: Subject) -> None:
    asked = request(subject, 9, len(subject.bundle.items), 30, seen=5)
    for hidden in (asked.hidden, NO_PAIRS):
        for recent in (asked.recent, NO_CHOICES):
            right(subject, Request(asked.h, asked.items, asked.bias, hidden, recent, asked.count), 10)


def _near(live: int, size: int) -> list[int]:
    return sorted({k for k in (1, live - 1, live, live + 1, live + 10, size, size + 50) if k > 0})


@case("k near, at and above the number of live items, for 1 to 65 users", score=True)
def few_live(subject: Subject) -> None:
    for users in (1, 2, 63, 64, 65):
        for live in (0, 1, 9, 10, 11):
            asked = request(subject, users, len(subject.bundle.items), live)
            full = every_score(subject, asked)
            for k in _near(live, len(asked.items)):
                right(subject, asked, k, full)


@case("users who have had nearly everything, or everything", score=True)
def nearly_all_seen(subject: Subject) -> None:
    size = len(subject.bundle.items)
    for seen in (size - 11, size - 10, size - 9, size - 2, size - 1, size):
        asked = request(subject, 7, size, size - 1, seen=seen)
        full = every_score(subject, asked)
        for k in (9, 10, 11, size):
            right(subject, asked, k, full)


@case("no item is live", score=True)
def none_live(subject: Subject) -> None:
    for size in (len(subject.bundle.items), 1025):
        right(subject, request(subject, 3, size, 0, seen=1), 10)


@case("a catalogue without a row", score=True)
def no_rows(subject: Subject) -> None:
    one = request(subject, 3, 1, 0)
    asked = Request(one.h, one.items[:0], one.bias[:0], NO_PAIRS, NO_CHOICES, one.count)
    scores, rows = asked.ask(subject.found, 10)
    assert scores.shape == rows.shape == (3, 0), f"shapes {scores.shape} and {rows.shape}"


@case(
    "catalogues of 1,000 to 20,000 rows, few of them live", score=True
)  # CUDA's TopK has an algorithm for each range of N and k
def larger_catalogues(subject: Subject) -> None:
    for size in (1000, 1024, 1025, 2048, 4097, 20_000):
        for live in (0, 9, size // 2):
            asked = request(subject, 3, size, live, seen=20)
            full = every_score(subject, asked)
            for k in (1, 10, 100, 300):
                right(subject, asked, k, full)


@case("items of equal scores: none twice, none lost", score=True)
def ties(subject: Subject) -> None:
    for size in (len(subject.bundle.items), 1025):
        asked = request(subject, 5, size, size - 1)
        same = np.repeat(asked.items[1:2], size, axis=0)
        for k in (10, size - 1, size):
            right(subject, Request(asked.h, same, asked.bias, NO_PAIRS, NO_CHOICES, asked.count), k)


@case("a state that is not finite has no slate, and spoils no other", score=True)
def broken_state(subject: Subject) -> None:
    asked = request(subject, 66, len(subject.bundle.items), 30)
    full = every_score(subject, asked)
    for value in (np.nan, np.inf, -np.inf):
        h = asked.h.copy()
        h[[1, 65], -2] = value
        h[3] = value
        expected = full.copy()
        expected[[1, 3, 65]] = -np.inf
        right(subject, Request(h, asked.items, asked.bias, asked.hidden, asked.recent, asked.count), 10, expected)


@case("states and items so large that scores overflow: no slate or a finite one, and spoils no other", score=True)
def overflow(subject: Subject) -> None:
    asked = request(subject, 4, len(subject.bundle.items), 30)
    asked.items[1:] *= np.float32(1e37)
    asked.h[0] = 0
    for h in (asked.h, np.full_like(asked.h, 60_000)):
        one = Request(h, asked.items, asked.bias, NO_PAIRS, NO_CHOICES, asked.count)
        scores, rows = one.ask(subject.found, 10)
        real = ~np.isneginf(scores)
        assert np.isfinite(scores[real]).all(), f"scores {scores[real][:5]}"
        assert (scores[real] > LEAST).all(), f"scores {scores[real].min()}"
        assert (one.bias[rows[real]] == 0).all(), "an item that is not live is recommended"


@case("the graph alone: a place without an item has -inf, and every row is one of the catalogue", score=True)
def raw(subject: Subject) -> None:
    for size, live in ((len(subject.bundle.items), 0), (len(subject.bundle.items), 3), (1025, 3)):
        asked = request(subject, 6, size, live)
        feed = {"h": asked.h, "hidden": asked.hidden, "recent": asked.recent, "count": asked.count, "k": np.array([10])}
        feed["recent"] = feed["recent"] * (
            feed["recent"][:, 1:2] <= len(subject.bundle.item_ids)
        )  # as the session does
        scores, rows = subject.found._answer(feed, asked.items, asked.bias, subject.found._bound(None))
        what = f"{size} rows, {live} live"
        assert ((rows >= 0) & (rows < size)).all(), f"{what}: rows {rows.min()} .. {rows.max()}; export the run again"
        assert np.isneginf(scores[:, live:]).all(), f"{what}: {scores[:, live:].max()} where none is left"
        assert np.isfinite(scores[:, :live]).all(), f"{what}: {scores[:, :live]}"


@case("more users at once than one call takes", score=True)
def many_users(subject: Subject) -> None:
    size = 20_000
    users = min(users_at_once(subject.provider, size), 2000) + 3
    asked = request(subject, users, size, size // 2, seen=3)
    tail = slice(users - 5, users)
    scores, rows = asked.ask(subject.found, 10)
    mine = asked.recent[asked.recent[:, 0] >= users - 5] - (users - 5, 0, 0)
    hidden = asked.hidden[asked.hidden[:, 0] >= users - 5] - (users - 5, 0)
    last = Request(asked.h[tail], asked.items, asked.bias, hidden, mine, asked.count[tail])
    best = -np.sort(-every_score(subject, last), axis=1)[:, :10]
    apart = np.abs(scores[tail] - best).max()
    assert apart < NEAR, f"the last of {users} users: a score is {apart:g} away"
    assert (asked.bias[rows] == 0).all(), "an item that is not live is recommended"


@case("texts, the empty one among them")
def texts(subject: Subject) -> None:
    some = ["a", "some words about boats", "long " * 80, "", "\ud800", "zu lang, aber die Musik bleibt im Kopf"]
    found, expected = (encoder.encode_many(some) for encoder in (subject.encoder, subject.cpu_encoder))
    apart = np.abs(found - expected).max()
    assert apart < NEAR, f"a component of a text's vector is {apart:g} away"
    assert not found[3].any(), "the empty text has a vector"


@case("vectors of new items")
def new_items(subject: Subject) -> None:
    for some in ([], ["one"], ["A quiet film about two friends.", "", "Space opera"]):
        found, expected = (encoder.item_vectors(some) for encoder in (subject.encoder, subject.cpu_encoder))
        apart = np.abs(found - expected).max(initial=0)
        assert found.shape == (len(some), subject.bundle.item_dim), f"{len(some)} texts: shape {found.shape}"
        assert apart < NEAR, f"{len(some)} texts: a component is {apart:g} away"
