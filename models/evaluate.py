"""Prequential evaluation: each held-out choice is ranked against the state before it, then folded in, as a live system
sees it. Full catalogue, seen items left out, the same for every model. Popularity counts the training part only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.data import DataSet, split_last
from models.data.dataset import fingerprint
from models.ranking import Ranks, gains, hits, interest_ranks, interval, popularity_ranks
from models.reading.histories import read_histories
from models.run import Run
from models.text import TextEncoder
from stream.errors import DataError

BASE = "popularity"


@dataclass(frozen=True)
class Evaluation:
    """ranks: model name -> i64 [Q] rank of each judged choice; owners: i64 [Q] its user; users: how many of them."""

    data: str
    holdout: int
    filter_seen: bool
    ranks: Mapping[str, Ranks]
    owners: np.ndarray[Any, np.dtype[np.int64]]

    def figures(self) -> dict[str, dict[str, Any]]:
        """Per model: `test` with HR@10 and NDCG@10, and `intervals` of the difference to popularity (95 %, paired,
        bootstrapped over users)."""
        out: dict[str, dict[str, Any]] = {}
        for name, of in self.ranks.items():
            measures = {"HR@10": hits(of), "NDCG@10": gains(of)}
            floor = {"HR@10": hits(self.ranks[BASE]), "NDCG@10": gains(self.ranks[BASE])}
            out[name] = {"test": {measure: float(values.mean()) for measure, values in measures.items()}}
            if name != BASE:
                out[name]["intervals"] = {
                    f"{measure} - {BASE}": interval(values - floor[measure], self.owners)
                    for measure, values in measures.items()
                }
        return out


def evaluate(
    data: DataSet, run: Run, encoder: TextEncoder, holdout: int | None = None, *, filter_seen: bool = True
) -> Evaluation:
    """Judge `run` on the last `holdout` choices of each user (as in its training unless given).

    Raises DataError where the run was trained on other events, since held-out choices may then have been learned, and
    where nothing is held out.
    """
    last = int(run.settings.get("holdout", 8)) if holdout is None else holdout
    split = split_last(data, last)
    if fingerprint(split.train) != run.data.sha256:
        raise DataError(
            f"the run was trained on {run.data.events} events of {run.data.name}, not on the {len(split.train)} before "
            f"the last {last} choices of each user of {data.name}"
        )
    rows = read_histories(split.train, split.held, run.item_ids, run.spec, encoder.encode, run.reading)
    places = np.flatnonzero(rows.judged)
    if not len(places):
        raise DataError(f"{data.name}: no user has enough choices to hold the last {last} back")
    ranks = {
        "interest": interest_ranks(run.network, rows, places, filter_seen=filter_seen),
        BASE: popularity_ranks(run.popularity, rows, places, filter_seen=filter_seen),
    }
    return Evaluation(data.name, last, filter_seen, ranks, rows.owner()[places])
