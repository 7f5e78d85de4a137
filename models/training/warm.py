"""Starts a training from an earlier run: which rows, scenes and actions it keeps, and which events it learns from again.

Items of the run keep their rows. Items that it lacks come behind them and begin with the vector of their text, as serving
gives one to an item that training has not seen. New scenes begin as "no scene", new actions as "no action", so that the
network says the same as before until it has learned what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.data import DataSet
from models.data.histories import Flags, Floats, Rows
from models.interfaces import TrainingData
from models.network.blend import Neighbours, no_neighbours
from models.network.network import InterestNetwork
from models.training.neighbours import DAY
from models.training.run import Run
from models.training.start import Start
from stream.core.errors import DataError
from stream.core.features import InputSpec
from stream.core.messages import Item


def require_alike(run: Run, data: DataSet) -> None:
    """Raise DataError, naming the field, if a training on `data` cannot start from the run."""
    spec = run.spec
    if data.choices != spec.choices:
        raise DataError(
            f"choices {', '.join(data.choices)}: the run to start from was trained with {', '.join(spec.choices)}; leave "
            "--choices out, or train without --from"
        )
    if data.weights != spec.weights:
        changed = sorted({name for name, _ in set(data.weights) ^ set(spec.weights)})
        raise DataError(
            f"--action: the run to start from was trained with other weights of {', '.join(changed)}; leave --action out, or "
            "train without --from"
        )
    if tuple(data.rating_scale) != tuple(spec.rating_scale):
        (low, high), (first, last) = data.rating_scale, spec.rating_scale
        raise DataError(
            f"rating_scale {low:g} to {high:g}: the run to start from was trained with {first:g} to {last:g}; pass "
            f"--rating-scale {first:g} {last:g}, or train without --from"
        )


def grown_spec(run: Run, now: InputSpec) -> InputSpec:
    """Return the run's spec with the scenes and actions that are new behind its own."""
    scenes, actions = run.spec.scenes, run.spec.actions
    if "action" not in run.network.size.features:
        now = replace(now, actions=())
    return replace(
        now,
        scenes=(*scenes, *(name for name in now.scenes if name not in scenes)),
        actions=(*actions, *(name for name in now.actions if name not in actions)),
    )


def after(run: Run, data: DataSet) -> DataSet:
    """Return the data with the run's items first, in its order. Those that the catalogue lacks have no title."""
    mine = {item.item: item for item in data.items}
    own = set(run.item_ids)
    first = tuple(mine.get(item, Item(item, "")) for item in run.item_ids)
    return replace(data, items=(*first, *(item for item in data.items if item.item not in own)))


def texts_of(run: Run, data: DataSet, text: Floats, *, keep: bool = False) -> Floats:
    """Return the texts f32 [N + 1, X] of `after`, with the run's texts for items that have neither title nor text now.

    With `keep` all items of the run have the run's texts.
    """
    gone = (
        list(range(1, len(run.item_ids) + 1))
        if keep
        else [row for row, item in enumerate(data.items[: len(run.item_ids)], start=1) if not text[row].any()]
    )
    found = text.copy()
    found[gone] = run.text[gone]
    return found


def learned_rows(run: Run, items: Sequence[str]) -> Flags:
    """Return bool [N + 1]: the items that the run has learned."""
    source = rows_of(run, items)
    had: Flags = run.network.ids.weight.any(1).numpy()[source] & (source > 0)
    return had


def begin(run: Run, training: TrainingData, days: float, replay: float, seed: int, *, head: bool = False) -> Start:
    """Return what a training on `training` starts from. `days` are counted back from the newest event that is learned from."""
    torch.manual_seed(seed)
    times = training.rows.time
    newest = 0 if times is None or not training.use.any() else int(times[training.use].max())
    network = network_of(run, training.item_ids, training.text, training.spec, untied=head)
    return Start(network, newest - int(days * DAY), replay, head, len(run.item_ids))


def network_of(
    run: Run, items: Sequence[str], text: Floats, spec: InputSpec | None = None, *, untied: bool | None = None
) -> InterestNetwork:
    """Return the run's network over other items, in eval mode.

    Args:
        run: The run.
        items: Ids of M items, in any order. What the run has learned of those that it lacks is nothing: their text alone.
        text: f32 [M + 1, X], the items' BERT vectors.
        spec: Has the scenes and actions of the run's spec first. None: the run's own.
        untied: Whether it has output vectors of its own. If the run has none, they begin as the vectors that are read; if the
            run's are not wanted, they are left out. None: as the run.
    """
    spec = spec or run.spec
    old = run.network.size
    untied = old.untied if untied is None else untied
    size = replace(old, items=len(items), scenes=len(spec.scenes), actions=len(spec.actions), untied=untied)
    network = InterestNetwork(size, torch.from_numpy(text))
    source = torch.from_numpy(rows_of(run, items))
    state = dict(run.network.state_dict())
    mine = network.state_dict()
    state["ids.weight"] = _placed(state["ids.weight"], source)
    own = {name: value for name, value in state.items() if name.startswith("out_")}
    if untied and own:
        state["out_ids.weight"] = _placed(state["out_ids.weight"], source)
    elif untied:
        state["out_ids.weight"] = state["ids.weight"].clone()
        state |= {f"out_{name[5:]}": value.clone() for name, value in state.items() if name.startswith("text_tower.")}
    else:
        state = {name: value for name, value in state.items() if name not in own}
    state["scene.weight"] = _longer(state["scene.weight"], len(spec.scenes) + 1, state["scene.weight"][0])
    if network.action is not None:
        if run.network.action is None:  # the new rows are zeros, so that the rest does not matter yet
            state |= {name: value for name, value in mine.items() if name.startswith("action")}
        else:
            nothing = torch.zeros(size.context)
            state["action.weight"] = _longer(state["action.weight"], len(spec.actions) + 1, nothing)
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def rows_of(run: Run, items: Sequence[str]) -> Rows:
    """Return i64 [M + 1]: the run's row of each of M items, 0 for those that it lacks and for row 0."""
    row_of = {item: row for row, item in enumerate(run.item_ids, start=1)}
    return np.array([0, *(row_of.get(item, 0) for item in items)], np.int64)


def over_items(run: Run, items: Sequence[str], text: Floats) -> Run:
    """Return the run over other items: what it would serve if these were in the catalogue.

    `text` is f32 [M + 1, X]; the run's own items keep the texts that they were trained with. Items that the run lacks have
    no neighbours and no popularity, as in serving.
    """
    source = rows_of(run, items)
    own = source > 0
    texts = np.where(own[:, None], run.text[source], text).astype(np.float32)
    place = np.zeros(len(run.item_ids) + 1, np.int64)
    place[source[own]] = np.flatnonzero(own)
    near = no_neighbours(len(items))
    if run.neighbours.index.shape[1]:
        index = np.where(own[:, None], place[run.neighbours.index[source]], 0)
        near = Neighbours(index, np.where(index > 0, run.neighbours.weight[source], 0).astype(np.float32))
    new = np.where(own, run.new[source], True) if len(run.new) == len(run.text) else run.new
    return replace(
        run,
        network=network_of(run, items, texts),
        item_ids=tuple(items),
        popularity=np.where(own, run.popularity[source], 0).astype(np.float32),
        text=texts,
        neighbours=near,
        new=new,
    )


def _placed(rows: Tensor, source: Tensor) -> Tensor:
    """Return the rows at `source`, zeros for 0 but in row 0, which stays."""
    found = rows[source] * (source > 0)[:, None]
    found[0] = rows[0]
    return found


def _longer(rows: Tensor, count: int, more: Tensor) -> Tensor:
    """Return the rows with copies of `more` behind them, `count` in all."""
    return torch.cat((rows, more.expand(count - len(rows), -1)))
