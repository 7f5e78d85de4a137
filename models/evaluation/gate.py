"""Decides whether a run may take the place of the one that is served. It compares both on the same choices.

- not-finite: a weight or a table of the new run holds NaN or an infinity. Nothing else is looked at then.
- rows: what the new run says of items is not about these items. Which items are alike does not depend on how a network
  turned its vectors, so the similarities of pairs of items must agree with the served run's at least a little.
- prequential: the newest days, which the new run has not learned from. Each choice is ranked against the state before it and
  then folded in. The lower end of the 95 % interval of NDCG@10, new over served, must be high enough.
- forgetting: a fixed set of older choices. NDCG@10 may fall by a small share only.
- labels: the new run's network ranks what users chose a day before or after a choice, in proportion to the choice itself, much
  better than the served one does: its labels were shifted.

A. Dawid, Present position and potential developments: the prequential approach, JRSS A 147 (2), 1984.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import torch

from models.data import DataSet
from models.data.choices import choices
from models.data.histories import Doubles, Histories, Rows
from models.evaluation.run_task import ranker_of
from models.interfaces import ProgressCallback, Scorer, silent
from models.metrics.bootstrap import drawn_means, ends
from models.metrics.ranks import batches, gains, ranks, worst_ranks
from models.network.text import TextEncoder
from models.text_rating.histories import read_histories
from models.training.run import Run
from models.training.train import item_vectors
from models.training.warm import after, over_items
from stream.core.errors import DataError

DAY: Final = 86_400_000
PAIRED: Final = 600
"""Items whose similarities are compared."""
ALIKE: Final = 0.05
"""Least correlation of these similarities. An update has .9 and more, two short trainings from different random weights .13 and
more (600 of the films in ml-latest-small), shuffled rows 0."""
SHIFTED: Final = 3.0
"""A network is refused if it ranks shifted labels, in proportion to true ones, so many times better than the served one does.
Two good trainings differ by a factor of 1.1 to 1.8, one on labels of the day before by 16 (users of ml-latest-small who came
on three days or more)."""
ENOUGH: Final = 50
"""Fewer shifted labels prove nothing."""


@dataclass(frozen=True)
class Limits:
    """What a new run must keep to.

    Attributes:
        ratio: Least lower end of the 95 % interval of NDCG@10, new over served, on the newest days.
        fall: Largest relative fall of NDCG@10 on the older choices.
        days: Newest days that are judged; whole days are added until there are `users`.
        users: Users whose choices must be in these days.
        most_days: Days that are judged at most.
        older: Days before the newest event at which the older choices end.
        kept: Number of older choices.
    """

    ratio: float = 0.99
    fall: float = 0.02
    days: int = 1
    users: int = 30
    most_days: int = 30
    older: int = 30
    kept: int = 2000


class Reason(NamedTuple):
    """Why a run is refused. `name` is one of the words above, or parity or golden (deploy/learning)."""

    name: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        reasons: Why the run is refused; none if it may be served.
        figures: What was measured: name -> number, text or list of numbers.
    """

    reasons: tuple[Reason, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the run may be served."""
        return not self.reasons


def judged_since(data: DataSet, limits: Limits) -> int:
    """Return from which time on (epoch ms) events are for judging and must not be learned from.

    It is the beginning of a day (UTC). Raises DataError if the data has no times, or if nothing is before it.
    """
    if not data.timed:
        raise DataError(f"{data.name}: the file gives only an order within each user; judging by days needs times")
    events = data.events
    counted = choices(events, data.choices, data.weights)
    times = events["time"].to_numpy()
    newest = int(times[-1]) // DAY * DAY
    known = events.select(first=pl.col("time").cum_count().over("user") == 1)["first"]
    judged = events.filter(counted & ~known).select("user", "time")
    days = limits.days
    while days < limits.most_days:
        if judged.filter(pl.col("time") > newest - (days - 1) * DAY - 1)["user"].n_unique() >= limits.users:
            break
        days += 1
    since = newest - (days - 1) * DAY
    if int(times[0]) >= since:
        raise DataError(
            f"{data.name}: all events are within the {days} days that are judged; expected some before {day_of(since)} to "
            "learn from (fewer days are judged if fewer users are asked for: --judge-users, --judge-most-days)"
        )
    return since


def day_of(time: int) -> str:
    """Return the day (UTC) of an epoch ms, YYYY-MM-DD."""
    return datetime.fromtimestamp(time / 1000, UTC).date().isoformat()


def judge(
    data: DataSet,
    since: int,
    served: Run,
    new: Run,
    encoder: TextEncoder,
    limits: Limits | None = None,
    report: ProgressCallback = silent,
) -> Verdict:
    """Compare a new run with the served one. `since` is what `judged_since` returned; neither run has learned from it on.

    Raises DataError if the two count different events as choices, so that they cannot be compared.
    """
    limits = limits or Limits()
    if broken := not_finite(new):
        return Verdict((Reason("not-finite", broken),), {"judged_from": day_of(since)})
    if (served.spec.choices, served.spec.weights) != (new.spec.choices, new.spec.weights):
        raise DataError("the new run counts other events as choices than the served one; they cannot be compared")
    both = _Both(data, served, new, encoder)
    reasons: list[Reason] = []
    figures: dict[str, Any] = {"judged_from": day_of(since), "limits": asdict(limits)}
    alike = both.alike()
    figures["similarities"] = round(alike, 4)
    if alike < ALIKE:
        reasons.append(
            Reason(
                "rows",
                f"the similarities of its items have a correlation of {alike:.2f} with those of the served run, expected at "
                f"least {ALIKE:g}: rows belong to other items",
            )
        )
    report("gate", 1, 4, "newest days")
    newest = both.at(_choices_of(data, pl.col("time") >= since))
    found = _compared(both, newest)
    figures |= found
    if found["choices"] and not found["interval"][0] >= limits.ratio:
        low, high = found["interval"]
        reasons.append(
            Reason(
                "prequential",
                f"NDCG@10 {found['new']:.4f} on {found['choices']} choices of {found['users']} users since {day_of(since)}, the "
                f"served run {found['served']:.4f}: the ratio's 95 % interval is {low:.3f} to {high:.3f}, expected at least "
                f"{limits.ratio:g}",
            )
        )
    report("gate", 2, 4, "older choices")
    kept = both.at(_fixed(data, since, limits))
    older = _compared(both, kept)
    fall = 1 - older["new"] / older["served"] if older["served"] else 0.0
    figures |= {"older_choices": older["choices"], "older_served": older["served"], "older_new": older["new"]}
    figures["older_fall"] = round(fall, 4)
    if fall > limits.fall:
        reasons.append(
            Reason(
                "forgetting",
                f"NDCG@10 {older['new']:.4f} on {older['choices']} choices older than {limits.older} days, the served run "
                f"{older['served']:.4f}: {100 * fall:.1f} % less, expected at most {100 * limits.fall:g} % less",
            )
        )
    report("gate", 3, 4, "labels")
    if kept is not None and (shifted := _shifted(both, kept)):
        reasons.append(shifted)
    report("gate", 4, 4, "refused" if reasons else "passed")
    return Verdict(tuple(reasons), figures)


def not_finite(run: Run) -> str:
    """Return which array of the run holds numbers that are not finite, and how many; "" if none does."""
    parts: dict[str, Any] = {
        f"weights.safetensors: the tensor {name!r}": value.numpy() for name, value in run.network.state_dict().items()
    }
    parts |= {"popularity.npy": run.popularity, "text.npy": run.text, "neighbours.npz": run.neighbours.weight}
    parts |= {"projection.npz: mean": run.projection.mean, "projection.npz: matrix": run.projection.matrix}
    for name, value in parts.items():
        if count := int((~np.isfinite(value)).sum()):
            return f"{name} holds {count} values that are not finite"
    return ""


class _Judged(NamedTuple):
    """Choices to rank.

    Attributes:
        events: The table of all events of their users.
        rows: The events of their users.
        positions: i64 [Q].
    """

    events: pl.DataFrame
    rows: Histories
    positions: Rows


class _Both:
    """The two runs over one catalogue: the new run's items, then the others of the data."""

    def __init__(self, data: DataSet, served: Run, new: Run, encoder: TextEncoder) -> None:
        data = after(new, data)
        self._data, self._encoder = data, encoder
        self.item_ids = tuple(item.item for item in data.items)
        text = item_vectors(data, encoder)
        self._shared = np.isin(self.item_ids, served.item_ids) & np.isin(self.item_ids, new.item_ids)
        self.served, self.new = (over_items(run, self.item_ids, text) for run in (served, new))

    def alike(self) -> float:
        """Return the correlation of the items' similarities in both runs, -1 to 1; 1 if there are too few items."""
        rows = np.flatnonzero(self._shared) + 1
        rows = rows[(self.served.popularity[rows] > 0) & (self.new.popularity[rows] > 0)]
        if len(rows) < 10:
            return 1.0
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:PAIRED])
        upper = np.triu_indices(len(rows), 1)
        one, two = (
            values - values.mean() for values in (_similarities(run, rows)[upper] for run in (self.served, self.new))
        )
        return float(one @ two / max(1e-12, np.sqrt((one @ one) * (two @ two))))

    def at(self, judged: pl.DataFrame) -> _Judged | None:
        """Return the judged events (column `at`: rows of data.events) in the histories of their users, without first events.

        None if there are none.
        """
        if not len(judged):
            return None
        events = self._data.events.with_row_index("at")
        theirs = events.filter(pl.col("user").is_in(judged["user"].unique().implode()))
        rows = self._read(theirs.drop("at"), self.new)
        order = theirs.with_columns(owner=pl.col("user").rank("dense")).sort("owner", maintain_order=True)
        wanted = np.isin(order["at"].to_numpy(), judged["at"].to_numpy())
        positions = np.flatnonzero(wanted & rows.choice & ~rows.first())
        return _Judged(theirs.drop("at"), rows, positions) if len(positions) else None

    def scorers(self, judged: _Judged, *, network_only: bool = False) -> Iterator[Scorer]:
        """Yield the scorer of the served run, then that of the new one. Each reads the rows in its own way."""
        for run in (self.served, self.new):
            own = judged.rows if run is self.new else self._read_as(judged, run)
            ranker = ranker_of(run)
            yield ranker.interest.scorer(own) if network_only else ranker.scorer(own)

    def _read(self, events: pl.DataFrame, run: Run) -> Histories:
        timed = self._data.timed
        return read_histories(events, None, self.item_ids, run.spec, self._encoder.encode, run.reading, timed=timed)

    def _read_as(self, judged: _Judged, run: Run) -> Histories:
        """Return the same events as another run reads them: its scenes, its actions, its reading of comments."""
        same = (run.spec.scenes, run.spec.actions) == (self.new.spec.scenes, self.new.spec.actions)
        if same and run.reading is None and self.new.reading is None:
            return judged.rows
        return self._read(judged.events, run)


def _similarities(run: Run, rows: Rows) -> Doubles:
    with torch.inference_mode():
        vectors = run.network.output_matrix().numpy()[rows].astype(np.float64)
    vectors -= vectors.mean(0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: Doubles = vectors @ vectors.T
    return found


def _choices_of(data: DataSet, where: pl.Expr) -> pl.DataFrame:
    """Return `at`, `user`, `item` and `time` of the choices for which `where` holds."""
    counted = choices(data.events, data.choices, data.weights)
    return data.events.with_row_index("at").filter(counted).filter(where).select("at", "user", "item", "time")


def _fixed(data: DataSet, since: int, limits: Limits) -> pl.DataFrame:
    """Return the older choices: those with the least hashes, so that the set stays the same from day to day."""
    newest = int(data.events["time"][-1])
    found = _choices_of(data, pl.col("time") < min(since, newest - limits.older * DAY))
    hashes = [
        int.from_bytes(blake2b(f"{user}\0{item}\0{time}".encode("utf-8", "replace"), digest_size=8).digest(), "big")
        for user, item, time in found.select("user", "item", "time").iter_rows()
    ]
    return found.with_columns(pl.Series("hash", hashes, pl.UInt64)).sort("hash").head(limits.kept)


def _compared(both: _Both, judged: _Judged | None) -> dict[str, Any]:
    """Return NDCG@10 of both runs on some choices, and the 95 % interval of their ratio."""
    if judged is None:
        return {"choices": 0, "users": 0, "served": 0.0, "new": 0.0, "interval": [1.0, 1.0]}
    rows, positions = judged.rows, judged.positions
    values = np.stack([gains(ranks(rows, positions, scorer)) for scorer in both.scorers(judged)], 1)
    owners = rows.owner()[positions]
    served, new = values.mean(0).tolist()
    return {
        "choices": len(positions),
        "users": len(np.unique(owners)),
        "served": round(served, 5),
        "new": round(new, 5),
        "interval": [round(end, 4) for end in ratio_ends(values, owners)],
    }


def ratio_ends(values: Doubles, owners: Rows) -> list[float]:
    """Return the 95 % interval of mean(values[:, 1]) / mean(values[:, 0]) over users drawn with replacement.

    values: f64 [Q, 2]. owners: i64 [Q]. A draw in which both means are 0 counts as 1.
    """
    drawn = drawn_means(values, owners)
    both = (drawn == 0).all(1)
    ratio = np.where(both, 1.0, drawn[:, 1] / np.maximum(drawn[:, 0], 1e-9))
    return ends(ratio)


def _shifted(both: _Both, judged: _Judged) -> Reason | None:
    """Return the reason if the new run's network ranks the labels of another day better than the served one's does, although it
    ranks the true ones worse."""
    rows = judged.rows
    for days, word in ((-1, "before"), (1, "after")):
        positions, labels = _labels(rows, judged.positions, days * DAY)
        if len(positions) < ENOUGH:
            continue
        served, new = (
            np.stack([_gains_of(positions, wanted, scorer) for wanted in (labels, rows.item[positions])], 1)
            for scorer in both.scorers(judged, network_only=True)
        )
        drawn = np.maximum(drawn_means(np.concatenate((served, new), 1), rows.owner()[positions]), 1e-6)
        times, least = np.median(found := drawn[:, 2] * drawn[:, 1] / (drawn[:, 0] * drawn[:, 3])), ends(found)[0]
        (was, _), (now, true) = served.mean(0).tolist(), new.mean(0).tolist()
        if now > was and times > SHIFTED and least > 1:
            return Reason(
                "labels",
                f"its network ranks what users chose a day {word} with NDCG@10 {now:.4f} and what they chose with {true:.4f}, "
                f"{times:.1f} times the proportion of the served run ({len(positions)} choices): it was trained on labels "
                "shifted by a day",
            )
    return None


def _labels(rows: Histories, positions: Rows, shift: int) -> tuple[Rows, Rows]:
    """Return the positions that have a label `shift` ms away, and its item row: the user's nearest choice that far or farther."""
    if rows.time is None:
        return positions[:0], positions[:0]
    chosen = np.flatnonzero(rows.choice)
    kept, labels = [], []
    for position in positions.tolist():
        mine = _own(chosen, rows, position)
        times = rows.time[mine]
        wanted = rows.time[position] + shift
        at = int(np.searchsorted(times, wanted, side="right")) - 1 if shift < 0 else int(np.searchsorted(times, wanted))
        if 0 <= at < len(mine):
            kept.append(position)
            labels.append(int(rows.item[mine[at]]))
    return np.array(kept, np.int64), np.array(labels, np.int64)


def _own(chosen: Rows, rows: Histories, position: int) -> Rows:
    """Return the choices of the user of a position."""
    user = int(np.searchsorted(rows.starts, position, side="right")) - 1
    low, high = np.searchsorted(chosen, rows.starts[user : user + 2])
    return chosen[low:high]


def _gains_of(positions: Rows, labels: Rows, score: Scorer) -> Doubles:
    """Return NDCG@10 of given labels, f64 [Q]. Items that the user has seen are ranked, too."""
    out = np.zeros(len(positions))
    for batch in batches(positions):
        scores = score(positions[batch]).clone()
        out[batch] = gains(worst_ranks(scores, torch.from_numpy(labels[batch])).numpy())
    return out
