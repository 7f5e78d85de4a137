"""`freshet verify --bundle` after a change of the bundle: each state and slate is judged by its own model, or left out.

The models are made up: a step adds the model's gain and the number of the action to h and c, an item scores its row times the
gain, plus h and the epoch of the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.verify import Report, Scope, check
from deploy.verify.recompute import recomputation
from stream.core import state as state_module
from stream.core.errors import BundleError
from stream.core.features import NUMBERS
from stream.core.messages import SourceEvent
from stream.core.tables import CLOSED_KEY, encode_closed, encode_row, row_key
from tests.epochs import closed
from tests.epochs import row as table_row
from tests.unit.synthetic import NOW, World, partition_of

ALICE = "alice"
HOME = partition_of(ALICE)
ITEMS = 30
SCALE = (0.5, 5.0)
WIDTH = {"A": 16, "B": 16, "C": 24}
GAIN = {"A": 1.0, "B": 2.0, "C": 3.0}


def place_of(action: str) -> int:
    """Of an action among those that the made-up bundles know."""
    return ("", "purchase", "skip").index(action) if action in ("purchase", "skip") else 0


def stamp(name: str) -> bytes:
    return name.encode() * 16


class Models:
    """What stream.inference.models.Models offers, made up."""

    choices = (0, 1)
    refused = frozenset(["dislike"])
    last = 5

    def __init__(self, name: str) -> None:
        self.gain = GAIN[name]
        self.width = WIDTH[name]

    def step(self, rows: Any, h: Any, c: Any) -> tuple[Any, Any]:
        assert h.shape == c.shape == (1, self.width)
        more = self.gain + rows.action[0]
        return (h + more).astype(np.float16), (c + more).astype(np.float16)

    def score(
        self, h: Any, matrix: Any, bias: Any, seen: Any, chosen: Any, seq: Any, k: int, tables: Any
    ) -> tuple[Any, Any]:
        assert h.shape == (1, self.width)
        more = 0 if tables is None else tables.epoch
        scores = (np.arange(len(bias)) * self.gain + float(h[0, 0]) + bias + more).astype(np.float32)
        scores[seen[:, 1]] = -np.inf
        order = np.argsort(-scores, kind="stable")[:k]
        return scores[order][None], order[None]


class Headed(Models):
    """The step of A; B scores 100 higher."""

    def __init__(self, name: str) -> None:
        super().__init__("A")
        self.more = 100 if name == "B" else 0

    def score(self, *inputs: Any) -> tuple[Any, Any]:
        scores, order = super().score(*inputs)
        return scores + np.float32(self.more), order


def bundle(name: str) -> Any:
    spec = SimpleNamespace(
        rating_scale=SCALE, text_dim=4, scene=lambda scene: 0, action=place_of,
        numbers=lambda value, gap: [0.0] * NUMBERS,
    )  # fmt: skip
    names = tuple(f"item-{row}" for row in range(1, ITEMS + 1))
    items = np.zeros((ITEMS + 1, 4), np.float32)
    return SimpleNamespace(
        id=name, state_model=stamp(name), item_ids=names, items=items, score_items=items, outputs=None, hidden=WIDTH[name],
        popularity=np.zeros(ITEMS + 1, np.float32), spec=spec,
    )  # fmt: skip


class Worker(World):
    """Its h and c are those of the made-up model `bundle`, its slates the best items that the user has not had."""

    def __init__(self) -> None:
        super().__init__()
        self.bundle = "A"
        self.reads_actions = True
        self.tables = 0
        rows = [json.dumps({"item": f"item-{row}", "title": "t"}).encode() for row in range(1, ITEMS + 1)]
        self.log.topics[self.settings.items_topic] = [[], []]
        for row, value in enumerate(rows, start=1):
            self.log.append(self.settings.items_topic, 0, b"item-%d" % row, value)

    def _fold(self, user: bytes, events: list[SourceEvent]) -> None:
        models = Models(self.bundle)
        state = self.states.setdefault(user, state_module.new(stamp(self.bundle), models.width))
        state.folded = []
        refolded = state.model != stamp(self.bundle)
        if refolded:
            state.model = stamp(self.bundle)
            acted = sum(place_of(recent.action) for recent in state.recents())
            state.h = state.c = np.full(models.width, models.gain * state.recent_count + acted, np.float16)
        redelivered = passed = False
        for one in events:
            if state_module.is_redelivered(state, one):
                redelivered = True
            elif state_module.is_duplicate(state, one):
                state_module.pass_over(state, one)
                passed = True
            else:
                state_module.fold(state, one, self.settings.sources[one.behaviour])
                more = models.gain + self.reads_actions * place_of(one.action)
                state.h = state.c = (state.h + more).astype(np.float16)
        state.catalogue = ITEMS - 1
        if state.folded or passed or refolded:
            self.write(user, HOME, state_module.encode(state))
        seen = {int(one) for one in state.seen_hashes()}
        left = [row for row in range(ITEMS, 0, -1) if state_module.item_hash(f"item-{row}") not in seen][:10]
        more = float(state.h[0]) + self.tables
        items = [{"item": f"item-{row}", "score": row * models.gain + more} for row in left]
        named = {"tables": self.tables} if self.tables else {}
        self.slate(
            user, HOME, redelivered or not state.folded, items=items, catalogue=ITEMS - 1, bundle=self.bundle, **named
        )  # fmt: skip

    def click(self, item: str, **fields: Any) -> None:
        self.send(0, ALICE, item, **fields)
        self.work()


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Worker, str], Report]:
    """(world, bundle) -> the report of `freshet verify --bundle` with that bundle."""
    monkeypatch.setattr(recomputation, "load", lambda path: bundle(path.name))
    monkeypatch.setattr(recomputation, "open_models", lambda one, provider: Models(one.id))
    monkeypatch.setattr(recomputation, "open_encoder", lambda one, provider: SimpleNamespace(reads=False))

    def verify(world: Worker, name: str) -> Report:
        return check(world.log, world.settings, scope=Scope(bundle=Path(name), users=0))

    return verify


def test_with_a_bundle_ratings_are_judged_by_its_scale(
    judged: Callable[[Worker, str], Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Worker()
    world.send(0, ALICE, "item-1", id="e1")
    world.work()
    _, partition, offset = world.send(1, ALICE, "item-2", value=8.0)
    world.letter("ratings", world.log.topics["ratings"][partition][offset], "rating_out_of_scale", "validate")
    world._read["ratings", partition] = offset + 1
    world.commit()
    assert judged(world, "A").kinds == {}
    wide = bundle("A")
    wide.spec.rating_scale = (1.0, 10.0)
    monkeypatch.setattr(recomputation, "load", lambda path: wide)
    assert "valid-dead-letter" in judged(world, "A").kinds


def five_clicks() -> Worker:
    world = Worker()
    for number in range(1, 6):
        world.click(f"item-{number}", id=f"e{number}")
    return world


def again(world: Worker, name: str) -> None:
    """A duplicate under another bundle: the state is built from its recent events, and written with the same chain."""
    world.bundle = name
    world.click("item-5", id="e5")


def acted(world: Worker) -> Worker:
    for number, action in enumerate(("purchase", "skip", "share"), start=1):
        world.click(f"item-{number}", action=action)
    world.click("item-4")
    return world


def test_the_action_of_a_click_is_in_the_numbers(judged: Callable[[Worker, str], Report]) -> None:
    report = judged(acted(Worker()), "A")
    assert (report.violations, report.exit_code, report.numbers, report.ranked) == ([], 0, 4, 4)


def test_a_state_that_is_built_again_reads_the_actions_that_it_remembers(
    judged: Callable[[Worker, str], Report],
) -> None:
    world = acted(Worker())
    world.bundle = "B"
    world.click("item-5", action="purchase")
    report = judged(world, "B")
    assert report.violations == []
    assert report.numbers == 1


def test_a_worker_that_reads_no_action_is_red(judged: Callable[[Worker, str], Report]) -> None:
    world = Worker()
    world.reads_actions = False
    assert judged(acted(world), "A").kinds == {"numbers": 2}, "the first two: from there on all is as it was written"


def test_one_bundle_all_along(judged: Callable[[Worker, str], Report]) -> None:
    report = judged(five_clicks(), "A")
    assert (report.violations, report.exit_code, report.numbers, report.ranked) == ([], 0, 5, 5)
    assert (report.numbers_unverifiable, report.notes) == (0, [])


@pytest.mark.parametrize("other", ["B", "C"])
@pytest.mark.parametrize("path", ["A", "AA", "A more", "A back", "A back more"])
@pytest.mark.parametrize("with_bundle", ["A", "other"])
def test_after_a_change_of_the_bundle_each_is_judged_by_its_own(
    judged: Callable[[Worker, str], Report], other: str, path: str, with_bundle: str
) -> None:
    world = five_clicks()
    again(world, other)
    if "AA" in path:
        again(world, other)
    if "back" in path:
        again(world, "A")
    if "more" in path:
        world.click("item-9")
    report = judged(world, "A" if with_bundle == "A" else other)
    assert report.violations == []
    assert report.exit_code == 3
    assert report.numbers > 0
    assert report.ranked > 0
    assert report.numbers_unverifiable > 0
    (note,) = [note for note in report.notes if note.kind == "other-model"]
    assert "states" in note.message
    assert f"bundle {'A' if with_bundle == 'A' else other}" in note.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the bundles A, B and C, with CURRENT."""
    for name in "ABC":
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"state_model": stamp(name).hex()}))
    (tmp_path / "CURRENT").write_text("A")
    return tmp_path


@pytest.fixture
def in_folder(
    judged: Callable[[Worker, str], Report], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Worker], Report]:
    """world -> the report of `freshet verify --bundle FOLDER`."""
    monkeypatch.setattr(recomputation, "current", lambda path: path / "A")
    return lambda world: judged(world, str(folder))


@pytest.mark.parametrize("other", ["B", "C"])
@pytest.mark.parametrize("path", ["A", "AA", "A more", "A back", "A back more"])
def test_with_a_folder_each_is_judged_by_the_bundle_that_it_names(
    in_folder: Callable[[Worker], Report], other: str, path: str
) -> None:
    world = five_clicks()
    again(world, other)
    if "AA" in path:
        again(world, other)
    if "back" in path:
        again(world, "A")
    if "more" in path:
        world.click("item-9")
    report = in_folder(world)
    assert (report.violations, report.notes) == ([], [])
    slates = world.log.topics[world.settings.recommendations_topic][HOME]
    assert (report.numbers_unverifiable, report.ranked) == (0, len(slates))


def spoil(world: Worker, kind: str, index: int) -> None:
    """Alter a state, or the order of a slate, so that verify reports this kind."""
    topic = world.settings.changelog_topic if kind == "numbers" else world.settings.recommendations_topic
    rows = world.log.topics[topic][HOME]
    if kind == "numbers":
        state = state_module.decode(rows[index].value or b"")
        state.c = state.c + np.float16(1)
        value = state_module.encode(state)
    else:
        slate = json.loads(rows[index].value or b"")
        value = json.dumps(slate | {"items": slate["items"][::-1]}).encode()
    rows[index] = rows[index]._replace(value=value)


@pytest.mark.parametrize("kind", ["numbers", "ranking"])
@pytest.mark.parametrize("index", [2, 6])
def test_with_a_folder_what_is_wrong_of_any_bundle_is_red(
    in_folder: Callable[[Worker], Report], kind: str, index: int
) -> None:
    world = five_clicks()
    again(world, "B")
    world.click("item-9")
    spoil(world, kind, index)
    assert kind in in_folder(world).kinds


def test_bundles_with_one_step_model_and_other_scores_are_told_apart(
    in_folder: Callable[[Worker], Report], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the head alone: the states go on, the slates are scored otherwise."""
    world = five_clicks()
    (folder / "B" / "manifest.json").write_text(json.dumps({"state_model": stamp("A").hex()}))
    monkeypatch.setattr(recomputation, "load", lambda path: SimpleNamespace(**(vars(bundle("A")) | {"id": path.name})))
    monkeypatch.setattr(recomputation, "open_models", lambda one, provider: Headed(one.id))
    world.click("item-9")
    rows = world.log.topics[world.settings.recommendations_topic][HOME]
    slate = json.loads(rows[-1].value or b"")
    rows[-1] = rows[-1]._replace(value=json.dumps(slate | {"bundle": "B"}).encode())
    assert in_folder(world).kinds == {"ranking": 1}
    for scored in slate["items"]:
        scored["score"] += 100
    rows[-1] = rows[-1]._replace(value=json.dumps(slate | {"bundle": "B"}).encode())
    report = in_folder(world)
    assert (report.violations, report.numbers, report.ranked, report.numbers_unverifiable) == ([], 6, 6, 0)


@pytest.mark.parametrize("gone", [True, False])
def test_what_a_bundle_made_that_cannot_be_used_is_left_out(
    in_folder: Callable[[Worker], Report], folder: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    def load(path: Path) -> Any:
        if path.name == "B":
            raise BundleError("step.onnx: the file was changed")
        return bundle(path.name)

    world = five_clicks()
    again(world, "B")
    if gone:
        (folder / "B" / "manifest.json").unlink()
    else:
        monkeypatch.setattr(recomputation, "load", load)
    report = in_folder(world)
    assert (report.violations, report.exit_code, report.numbers, report.ranked) == ([], 3, 5, 5)
    assert report.numbers_unverifiable == 2
    assert [one.kind for one in report.notes] == ["other-model"] * (1 if gone else 2)
    assert "1 states and 1 slates come from another model or bundle than bundle A" in report.notes[-1].message


@pytest.mark.parametrize("other", ["B", "C"])
@pytest.mark.parametrize("index", [0, 2, 4])
def test_what_is_wrong_beside_it_stays_red(judged: Callable[[Worker, str], Report], other: str, index: int) -> None:
    for kind in ("numbers", "ranking"):
        world = five_clicks()
        again(world, other)
        spoil(world, kind, index)
        assert kind in judged(world, "A").kinds


@pytest.mark.parametrize("topic", ["changelog_topic", "recommendations_topic"])
def test_what_compaction_has_left_of_two_bundles_is_no_violation(
    judged: Callable[[Worker, str], Report], topic: str
) -> None:
    """The state that a slate shows may be gone while a later one of its chain is there."""
    world = five_clicks()
    again(world, "B")
    again(world, "A")
    rows = world.log.topics[getattr(world.settings, topic)][HOME]
    del rows[4]
    report = judged(world, "A")
    assert report.numbers_unverifiable > 0
    assert not {"ranking", "numbers"} & set(report.kinds)


@pytest.mark.parametrize("width", [0, 1, 8, 17])
def test_a_state_of_another_width_is_named(judged: Callable[[Worker, str], Report], width: int) -> None:
    world = five_clicks()
    rows = world.log.topics[world.settings.changelog_topic][HOME]
    state = state_module.decode(rows[4].value or b"")
    state.h = state.c = np.zeros(width, np.float16)
    rows[4] = rows[4]._replace(value=state_module.encode(state))
    report = judged(world, "A")
    assert report.kinds == {"numbers": 1}, report.violations
    assert f"h and c have {width} numbers, expected 16" in report.violations[0].message


def ruled() -> Worker:
    """Two rules, and a last slate that was made under both: it lacks the blocked item, which would be the best one."""
    world = five_clicks()
    rules: list[dict[str, Any]] = [
        {"kind": "block", "filter": {"item": "item-30"}},
        {"kind": "cap", "most": 50},
    ]
    world.log.topics[world.settings.rules_topic] = [[], []]
    for number, rule in enumerate(rules):
        name = f"rule-{number}"
        value = json.dumps({"rule": name, **rule}).encode()
        world.log.append(world.settings.rules_topic, 0, name.encode(), value)
    rows = world.log.topics[world.settings.recommendations_topic][HOME]
    slate = json.loads(rows[-1].value or b"")
    assert slate["items"][0]["item"] == "item-30"
    last = slate["items"][-1]
    after = {"item": f"item-{int(last['item'].removeprefix('item-')) - 1}", "score": last["score"] - 1}
    value = json.dumps(slate | {"items": [*slate["items"][1:], after], "rules": 1}).encode()
    rows[-1] = rows[-1]._replace(value=value)
    return world


def test_a_slate_under_rules_is_judged_by_them(judged: Callable[[Worker, str], Report]) -> None:
    world = ruled()
    report = judged(world, "A")
    assert (report.violations, report.exit_code, report.ranked, report.notes) == ([], 0, 5, [])
    rows = world.log.topics[world.settings.rules_topic][0]
    rows[0] = rows[0]._replace(key=b"rule-1", value=rows[1].value)
    report = judged(world, "A")
    assert (report.kinds, report.exit_code) == ({"ranking": 1}, 1)


def test_a_slate_whose_rules_are_compacted_away_is_counted_as_lost_rules(
    judged: Callable[[Worker, str], Report],
) -> None:
    world = ruled()
    del world.log.topics[world.settings.rules_topic][0][0]
    report = judged(world, "A")
    assert (report.violations, report.exit_code, report.numbers_unverifiable) == ([], 3, 1)
    (note,) = report.notes
    assert note.kind == "lost-rules"
    assert note.message.startswith("1 slates do not fit the rules that the topic rules still has")


def test_what_was_compacted_away_does_not_matter_to_a_slate_that_fits(
    judged: Callable[[Worker, str], Report],
) -> None:
    world = ruled()
    del world.log.topics[world.settings.rules_topic][0][1]
    report = judged(world, "A")
    assert (report.violations, report.exit_code, report.notes) == ([], 0, [])


def learnt(*named: int, epochs: int = 3) -> Worker:
    """A worker that names these epochs in its slates, one after the other, and a topic with so many epochs of two rows."""
    world = Worker()
    for number, tables in enumerate(named, start=1):
        world.tables = tables
        world.click(f"item-{number}")
    topic = world.settings.tables_topic
    world.log.topics[topic] = [[], []]
    for epoch in range(1, epochs + 1):
        rows = [table_row("item-1", {"item-2": 3}, epoch), table_row("item-2", {"item-1": 1}, epoch)]
        for one in rows:
            world.log.append(topic, 0, row_key(one.item), encode_row(one), timestamp=NOW - 1000)
        world.log.append(topic, 0, CLOSED_KEY, encode_closed(closed(rows, epoch)), timestamp=NOW - 1000)
    return world


def test_slates_are_judged_by_the_epochs_that_they_name(judged: Callable[[Worker, str], Report]) -> None:
    report = judged(learnt(0, 1, 1, 2, 3), "A")
    assert (report.violations, report.exit_code, report.ranked, report.notes) == ([], 0, 5, [])


def test_a_slate_scored_with_another_epoch_than_it_names_is_red(judged: Callable[[Worker, str], Report]) -> None:
    world = learnt(1, 2)
    rows = world.log.topics[world.settings.recommendations_topic][HOME]
    slate = json.loads(rows[-1].value or b"")
    rows[-1] = rows[-1]._replace(value=json.dumps(slate | {"tables": 3}).encode())
    assert judged(world, "A").kinds == {"ranking": 1}


def test_a_slate_with_an_epoch_that_was_never_closed_is_red(judged: Callable[[Worker, str], Report]) -> None:
    report = judged(learnt(1, 4), "A")
    assert (report.kinds, report.exit_code) == ({"epoch-unknown": 1}, 1)
    assert report.violations[0].message == "it names epoch 4 of the tables, but the newest is 3"
    assert judged(learnt(1, epochs=0), "A").kinds == {"epoch-unknown": 1}, "the topic is empty"


def test_a_slate_with_an_epoch_that_was_closed_only_later_is_red(judged: Callable[[Worker, str], Report]) -> None:
    world = learnt(1)
    rows = world.log.topics[world.settings.tables_topic][0]
    for at, one in enumerate(rows):
        rows[at] = one._replace(timestamp=NOW + 60_000)
    assert judged(world, "A").kinds == {}, "as far as clocks may differ"
    for at, one in enumerate(rows):
        rows[at] = one._replace(timestamp=NOW + 60_001)
    report = judged(world, "A")
    assert report.kinds == {"epoch-unknown": 1}
    assert "which was closed 60001 ms after the slate was made" in report.violations[0].message


@pytest.mark.parametrize("earlier", [1, 0])
def test_a_worker_that_goes_back_to_an_older_epoch_is_red(
    judged: Callable[[Worker, str], Report], earlier: int
) -> None:
    report = judged(learnt(1, 3, earlier, 3), "A")
    assert (report.kinds, report.exit_code) == ({"epoch-stale": 1}, 1)
    assert (
        report.violations[0].message
        == f"it names epoch {earlier} of the tables, but the same worker named epoch 3 before"
    )


def test_another_worker_may_be_behind(judged: Callable[[Worker, str], Report]) -> None:
    world = Worker()
    for epoch, tables in ((1, 3), (2, 1), (2, 2)):
        if epoch == 1 or tables == 1:
            world.claim(HOME, epoch)
        world.tables = tables
        world.click(f"item-{tables}")
    world.log.topics[world.settings.tables_topic] = learnt().log.topics[world.settings.tables_topic]
    report = judged(world, "A")
    assert (report.violations, report.exit_code) == ([], 0)


def test_a_slate_whose_epoch_is_compacted_away_is_counted_as_not_recomputable(
    judged: Callable[[Worker, str], Report],
) -> None:
    world = learnt(1, 2, 3)
    del world.log.topics[world.settings.tables_topic][0][0]  # a row of epoch 1, which epoch 2 replaced
    del world.log.topics[world.settings.tables_topic][0][4]  # the closing record of epoch 2
    report = judged(world, "A")
    assert (report.violations, report.exit_code, report.numbers_unverifiable, report.ranked) == ([], 3, 2, 1)
    (note,) = report.notes
    assert note.kind == "lost-tables"
    assert note.message.startswith("2 slates name epochs of which the topic tables no longer has all rows")
