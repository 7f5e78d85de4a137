"""What learning from day to day is worth: `python -m scripts.learning DATA --days 30 --out FOLDER`.

The last days are replayed. Before each of them four ways to serve have what they would have then; the day's choices are ranked,
each against the state before it:

    frozen   the first run, trained on all before the first day
    tables   the same, with neighbours and popularity that follow the stream
    head     a head update on the day before, each on the one before
    full     a full update likewise

There is no gate in between. It writes learning.json (figures by day, days without choices, and over all days with 95 % intervals
of the difference to `frozen`) and learning.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
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
from models.training.sequential.freshet import BlendRanker
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
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    holdout = TrainSettings(holdout=0)
    first = replace(holdout, epochs=given.first_epochs, max_minutes=given.first_minutes)
    update = replace(holdout, epochs=given.epochs, max_minutes=given.minutes)
    found = replay(read(given.data), given.days, first, update, given.out, TextEncoder())
    (given.out / "learning.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, given.out / "learning.png")
    print(json.dumps(found["all"], indent=1))


def replay(
    data: DataSet, days: int, first: TrainSettings, update: TrainSettings, out: Path, encoder: TextEncoder
) -> dict[str, Any]:
    """Return the figures. The first run is kept in `out`, so that a second replay does not train it again.

    Args:
        data: The data set, with times.
        days: Days before the end of the newest one that are replayed.
        first: How to train the first run.
        update: How to train an update. Both must hold out nothing.
        out: A folder.
        encoder: Encodes the texts.
    """
    newest = int(data.events["time"].max()) // DAY  # type: ignore[arg-type]
    begin = newest - days + 1
    part = _before(data, begin)
    if not (out / "first" / "run.json").exists():
        save_run(train(part, first, encoder).run, out / "first")
    base = load_run(out / "first")
    data = after(base, data)
    ids, text = tuple(item.item for item in data.items), item_vectors(data, encoder)
    rows = read_histories(data.events, None, ids, base.spec, encoder.encode, base.reading, timed=data.timed)
    training, _ = training_part(part, first, encoder, start=base)
    shape = shape_of(SequentialKnn().fit(training, 0).chosen)
    frozen = ranker_of(over_items(base, ids, text))
    streamed = replace(live_tables(training, TableSettings(STREAMED, shape)), size=len(ids) + 1)
    arms: dict[str, BlendRanker] = {"frozen": frozen, "tables": replace(frozen, live=streamed)}
    chain: dict[str, Run] = {"head": base, "full": base}
    seconds = dict.fromkeys(chain, 0.0)
    listed, empty, values, owners = [], [], [], []
    trained = begin
    for day in range(begin, newest + 1):
        positions = _positions(rows, day)
        if not len(positions):
            empty.append(day_of(day * DAY))
            continue
        for name in chain:
            if trained < day and len(_before(data, day).events) > len(_before(data, trained).events):
                began = time.monotonic()
                settings = replace(update, head=name == "head")
                chain[name] = train(_before(data, day), settings, encoder, start=chain[name]).run
                seconds[name] += time.monotonic() - began
            arms[name] = ranker_of(over_items(chain[name], ids, text))
        trained = day
        gain = np.stack([gains(ranks(rows, positions, arms[name].scorer(rows))) for name in ARMS], 1)
        values.append(gain)
        owners.append(rows.owner()[positions])
        users = len(np.unique(owners[-1]))
        means = dict(zip(ARMS, np.round(gain.mean(0), 5).tolist(), strict=True))
        listed.append({"day": day_of(day * DAY), "choices": len(positions), "users": users, **means})
        print(json.dumps(listed[-1]), flush=True)
    whole = np.concatenate(values)
    return {
        "days": listed,
        "days_without_choices": empty,
        "all": _over_all(whole, np.concatenate(owners)),
        "seconds_of_updates": seconds,
    }


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
    """Draw NDCG@10 over all choices up to each day."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    days = found["days"]
    count = np.cumsum([day["choices"] for day in days])
    figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name in ARMS:
        total = np.cumsum([day[name] * day["choices"] for day in days])
        axis.plot([day["day"] for day in days], total / count, marker="o", label=name)
    axis.set(title="NDCG@10 over all choices so far, each ranked before it is known", ylim=(0, None))
    axis.tick_params(axis="x", labelrotation=90)
    axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
