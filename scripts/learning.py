"""What learning from day to day is worth: `python -m scripts.learning DATA --days 30 --out FOLDER`.

The last days are replayed. Before each of them four ways to serve have what they would have then; the day's choices are ranked,
each against the state before it:

    frozen   the first run, trained on all before the first day
    tables   the same, with neighbours and popularity that follow the stream
    head     head updates, each from the one before, at most one a day
    full     full updates likewise, at most one in --full-days

An update is made once --events have come since the one before. There is no gate in between. Written are learning.json (figures
by day, days without choices, the updates, and over all days with 95 % intervals of the difference to `frozen`), learning.png,
and each run as soon as it is trained: a replay that was cut off goes on with them if it is given the same options.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from models.data import DataSet, read
from models.data.histories import Doubles, Histories, Rows
from models.evaluation.gate import DAY, day_of
from models.evaluation.run_task import ranker_of
from models.metrics.bootstrap import drawn_means, ends
from models.metrics.ranks import gains, ranks
from models.network.text import TextEncoder
from models.text_rating.histories import read_histories
from models.training.regimes import STREAMED
from models.training.run import Run, load_run, save_run
from models.training.sequential.sequential_knn import SequentialKnn, shape_of
from models.training.tables import TableSettings, live_tables
from models.training.train import TrainSettings, item_vectors, train, training_part
from models.training.warm import after, over_items

ARMS: Final = ("frozen", "tables", "head", "full")


def main() -> None:
    """Run the replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--first-epochs", type=int, default=60)
    parser.add_argument("--first-minutes", type=float, default=60.0, help="most minutes of the first training")
    parser.add_argument("--epochs", type=int, default=3, help="of an update")
    parser.add_argument("--minutes", type=float, default=60.0, help="most minutes of an update")
    parser.add_argument("--events", type=int, default=1, help="least number of new events for an update")
    parser.add_argument("--full-days", type=int, default=1, help="days from one full update to the next")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    holdout = TrainSettings(holdout=0)
    first = replace(holdout, epochs=given.first_epochs, max_minutes=given.first_minutes)
    update = replace(holdout, epochs=given.epochs, max_minutes=given.minutes)
    plan = Plan(given.days, first, update, given.events, given.full_days)
    found = replay(read(given.data), plan, given.out, TextEncoder())
    (given.out / "learning.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, given.out / "learning.png")
    print(json.dumps(found["all"], indent=1))


@dataclass(frozen=True)
class Plan:
    """What is replayed.

    Attributes:
        days: Days before the end of the newest one.
        first: How to train the first run.
        update: How to train an update. Both must hold out nothing.
        events: Least number of events since the update before.
        full_days: Days from one full update to the next.
    """

    days: int
    first: TrainSettings
    update: TrainSettings
    events: int = 1
    full_days: int = 1


class Chain:
    """Updates of one kind, each from the one before.

    Args:
        name: `head` or `full`.
        base: The run before the first update.
        begin: The first day (since 1970) that it has not learned from.
        every: Days from one update to the next.
    """

    def __init__(self, name: str, base: Run, begin: int, every: int) -> None:
        self.name = name
        self.run = base
        self.updates: list[dict[str, Any]] = []
        self._until = begin
        self._every = every

    def reach(self, data: DataSet, day: int, plan: Plan, out: Path, encoder: TextEncoder) -> bool:
        """Learn from what came before a day, if an update is due. Return whether it was."""
        part = _before(data, day)
        new = len(part.events) - len(_before(data, self._until).events)
        if day - self._until < self._every or new < plan.events:
            return False
        folder = out / f"{self.name}-{day_of(day * DAY)}"
        settings = replace(plan.update, head=self.name == "head")
        self.run = _kept(folder, lambda: train(part, settings, encoder, start=self.run).run)
        self._until = day
        about = {"epochs": self.run.settings["epochs_run"], "seconds": round(self.run.seconds, 1)}
        self.updates.append({"arm": self.name, "before": day_of(day * DAY), "new_events": new, **about})
        print(json.dumps(self.updates[-1]), flush=True)
        return True


def replay(data: DataSet, plan: Plan, out: Path, encoder: TextEncoder) -> dict[str, Any]:
    """Return the figures. Runs that are in `out` already are not trained again."""
    newest = int(data.events["time"].max()) // DAY  # type: ignore[arg-type]
    begin = newest - plan.days + 1
    part = _before(data, begin)
    base = _kept(out / "first", lambda: train(part, plan.first, encoder).run)
    data = after(base, data)
    ids, text = tuple(item.item for item in data.items), item_vectors(data, encoder)
    rows = read_histories(data.events, None, ids, base.spec, encoder.encode, base.reading, timed=data.timed)
    training, _ = training_part(part, plan.first, encoder, start=base)
    shape = shape_of(SequentialKnn().fit(training, 0).chosen)
    frozen = ranker_of(over_items(base, ids, text))
    streamed = replace(live_tables(training, TableSettings(STREAMED, shape)), size=len(ids) + 1)
    scorers = {"frozen": frozen.scorer(rows), "tables": replace(frozen, live=streamed).scorer(rows)}
    chains = [Chain("head", base, begin, 1), Chain("full", base, begin, plan.full_days)]
    listed, empty, values, owners = [], [], [], []
    for day in range(begin, newest + 1):
        positions = _positions(rows, day)
        if not len(positions):
            empty.append(day_of(day * DAY))
            continue
        for chain in chains:
            if chain.reach(data, day, plan, out, encoder) or chain.name not in scorers:
                scorers[chain.name] = ranker_of(over_items(chain.run, ids, text)).scorer(rows)
        gain = np.stack([gains(ranks(rows, positions, scorers[name])) for name in ARMS], 1)
        values.append(gain)
        owners.append(rows.owner()[positions])
        users = len(np.unique(owners[-1]))
        means = dict(zip(ARMS, np.round(gain.mean(0), 5).tolist(), strict=True))
        listed.append({"day": day_of(day * DAY), "choices": len(positions), "users": users, **means})
        print(json.dumps(listed[-1]), flush=True)
    return {
        "days": listed,
        "days_without_choices": empty,
        "updates": [one for chain in chains for one in chain.updates],
        "all": _over_all(np.concatenate(values), np.concatenate(owners)),
    }


def _kept(folder: Path, trained: Callable[[], Run]) -> Run:
    """Return the run in a folder. It is trained only if it is not there."""
    if not (folder / "run.json").exists():
        save_run(trained(), folder)
    return load_run(folder)


def _before(data: DataSet, day: int) -> DataSet:
    return replace(data, events=data.events.filter(pl.col("time") < day * DAY))


def _positions(rows: Histories, day: int) -> Rows:
    """Return the choices of a day, without first events of users."""
    assert rows.time is not None  # noqa: S101
    return np.flatnonzero(rows.choice & ~rows.first() & (rows.time // DAY == day))


def _over_all(values: Doubles, owners: Rows) -> dict[str, Any]:
    drawn = drawn_means(values, owners)
    found: dict[str, Any] = {"choices": len(values), "users": len(np.unique(owners))}
    for number, name in enumerate(ARMS):
        found[name] = {"NDCG@10": round(float(values[:, number].mean()), 5)}
        if number:
            found[name]["less frozen"] = [round(end, 5) for end in ends(drawn[:, number] - drawn[:, 0])]
    return found


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw how far each arm is from `frozen` over all choices up to each day, its updates, and the choices of each day."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import dates, pyplot

    days = found["days"]
    when = np.array([one["day"] for one in days], "datetime64[D]")
    choices = np.array([one["choices"] for one in days])
    mean = {name: np.cumsum([one[name] for one in days] * choices) / np.cumsum(choices) for name in ARMS}
    figure, (upper, lower) = pyplot.subplots(2, sharex=True, figsize=(8, 5), layout="constrained", height_ratios=(3, 1))
    upper.axhline(0, color="grey", linewidth=1, label=f"frozen: {mean['frozen'][-1]:.4f} in the end")
    for name in ARMS[1:]:
        less = mean[name] - mean["frozen"]
        low, high = found["all"][name]["less frozen"]
        line = upper.plot(when, less, marker=".", label=f"{name}: {mean[name][-1]:.4f} ({low:+.4f} to {high:+.4f})")
        updates = np.array([one["before"] for one in found["updates"] if one["arm"] == name], "datetime64[D]")
        upper.plot(updates, less[np.searchsorted(when, updates)], "^", color=line[0].get_color())
    upper.set(title="NDCG@10 less that of frozen, over all choices so far; triangles: updates")
    upper.legend(loc="upper left")
    lower.bar(when, choices, color="grey")
    lower.set(ylabel="choices", yscale="symlog", ylim=(0, None))
    lower.xaxis.set_major_formatter(dates.DateFormatter("%d %b"))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
