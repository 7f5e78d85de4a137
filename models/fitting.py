"""The optimisation itself: pieces of histories in, a better network out, one epoch at a time.

Every position foretells the user's next choices (cross-entropy over the whole catalogue). Histories are long, so they
are cut into pieces; each epoch first computes the state at every cut with the weights as they are, and a piece starts
from there (as R2D2 stores recurrent states: S. Kapturowski et al., ICLR 2019). Weights are averaged over steps, and it
is the average that is judged and kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.chunks import cut, following, hold_validation, initial_states
from models.network import InterestNetwork
from models.popularity import popularity
from models.ranking import Ranks, gains, hits, input_rows, interest_ranks, popularity_ranks
from models.rows import Histories, Rows
from models.softmax import catalogue_loss
from stream.inputs import UNKNOWN

WARM_UP = 10.0  # steps after which the weight average has forgotten about half of the first weights
CLIP = 1.0  # largest norm of a step's gradient


@dataclass(frozen=True)
class TrainSettings:
    """Chosen on the validation part of ml-latest-small; none was ever chosen on held-out events.

    holdout: choices per user that nothing here may see; validation: last choices of the rest, for early stopping;
    length, batch: events in a piece, pieces in a step; rate, decay: of AdamW; horizon: how many next choices count as the
    answer, each `fade` times the one before; unknown: share of input items hidden; average: decay of the weight
    average, per step; patience: epochs without a better validation NDCG@10; max_minutes: of wall time, all in (text
    encoding included).
    """

    seed: int = 0
    epochs: int = 24
    holdout: int = 8
    validation: int = 3
    length: int = 64
    batch: int = 24
    rate: float = 2e-3
    decay: float = 0.01
    horizon: int = 1
    fade: float = 0.8
    unknown: float = 0.01
    average: float = 0.99
    patience: int = 4
    max_minutes: float = 3.0


class Fitting:
    """A network in training on the histories of a training part, some last choices of which are kept for validation.

    `average` is the network to keep (eval mode, no gradients).
    """

    def __init__(self, network: InterestNetwork, rows: Histories, settings: TrainSettings) -> None:
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self._network = network
        self._rows = rows
        self._settings = settings
        self._draw = np.random.default_rng(settings.seed)
        self._use, self._watched = hold_validation(rows, settings.validation)
        self._targets = following(rows, self._use, settings.horizon)
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
        self._steps = 0

    @property
    def watched(self) -> int:
        """How many validation choices there are."""
        return len(self._watched)

    def epoch(self, told: Callable[[int, int, float], None]) -> float:
        """Go over all pieces once -> mean loss in nats per state. told: (pieces done, of how many, loss of the step)."""
        length, size = self._settings.length, self._settings.batch
        first = int(self._draw.integers(1, length + 1))  # cuts fall elsewhere in every epoch
        pieces = cut(self._rows, self._use, first, length)
        h, c = initial_states(self._network.eval(), self._rows, pieces, first, length)
        self._network.train()
        unknown = self._draw.random(len(self._rows.item)) < self._settings.unknown
        rows = replace(self._rows, item=np.where(unknown, UNKNOWN, self._rows.item))
        order = self._draw.permutation(len(pieces.begin))
        total, count = 0.0, 0
        for at in range(0, len(order), size):
            some = order[at : at + size]
            places, real = pieces.places(some)
            loss, states = self._step(rows, places, real, h[some], c[some])
            total += loss * states
            count += states
            told(at + len(some), len(order), loss)
        return total / max(1, count)

    def validate(self) -> tuple[float, float]:
        """HR@10 and NDCG@10 of the average on the validation choices; 0 where there are none."""
        return means(interest_ranks(self.average, self._rows, self._watched))

    def floor(self) -> tuple[float, float]:
        """The same of popularity, counted over what the network is fitted to."""
        counts = popularity(replace(self._rows, choice=self._rows.choice & self._use), self._network.size.items)
        return means(popularity_ranks(counts, self._rows, self._watched))

    def _step(self, rows: Histories, places: Rows, real: NDArray[np.bool_], h: Tensor, c: Tensor) -> tuple[float, int]:
        """One step on the events at `places` [B, T] -> its loss and how many states had an answer."""
        answer = self._targets[places]  # [B, T, K]
        asked = torch.from_numpy(real & (answer[..., 0] != UNKNOWN))
        if not asked.any():
            return 0.0, 0
        items = self._network.item_matrix()
        out, _, _ = self._network.unroll(input_rows(self._network, items, rows, places), h, c)
        wanted = torch.from_numpy(answer)[asked]  # [M, K]
        weights = self._settings.fade ** torch.arange(wanted.shape[1]) * (wanted != UNKNOWN)
        query = self._network.query(out[asked])
        loss = catalogue_loss(query, items, wanted, weights / weights.sum(1, keepdim=True))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIP)
        self._optimiser.step()
        self._steps += 1
        self._blend(min(self._settings.average, self._steps / (self._steps + WARM_UP)))
        return loss.item(), len(wanted)

    @torch.no_grad()
    def _blend(self, keep: float) -> None:
        for mean, weight in zip(self.average.parameters(), self._network.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - keep)


def means(of: Ranks) -> tuple[float, float]:
    """HR@10 and NDCG@10 of some ranks; 0 where there are none."""
    return (float(hits(of).mean()), float(gains(of).mean())) if len(of) else (0.0, 0.0)
