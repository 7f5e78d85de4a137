"""The optimisation itself: pieces of histories go in, a better network comes out, one epoch at a time.

Every position predicts the user's next choice (cross-entropy over the whole catalogue). Histories may be long, so they
are cut into pieces. Each epoch first computes the state at every cut with the current weights, and a piece starts from
there (as R2D2 stores recurrent states: S. Kapturowski et al., ICLR 2019). Weights are averaged over steps, and the
average is what is evaluated and kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Flags, Histories, Rows
from models.interfaces import TrainingData
from models.metrics.ranks import Ranks, gains, hits, ranks
from models.network.network import InterestNetwork
from models.network.scorer import input_rows, interest_scorer
from models.training import distributed
from models.training.batching import batches, cut, following, initial_states
from models.training.loss import CatalogueLoss
from models.training.start import Start
from models.training.targets import SpreadTargets
from stream.core.features import UNKNOWN

WARM_UP = 10.0  # steps after which the weight average has forgotten about half of the first weights
HEAD = ("query_item.", "out_ids.", "out_tower.")  # the parameters behind the state
STARTED = 1 << 20  # steps that a network which starts from a run is taken to have behind it: its weights are no noise
CLIP = 1.0  # largest norm of a step's gradient
WATCHED = 20_000  # most validation choices evaluated after an epoch; more would cost time and show nothing new


@dataclass(frozen=True)
class FitSettings:
    """How to fit a network.

    Attributes:
        epochs: Maximum number of epochs.
        length: Events in a piece.
        states: Events in a step.
        rate: Learning rate of AdamW.
        decay: Weight decay of AdamW.
        unknown: Share of input items that are hidden.
        average: Decay of the weight average, per step.
        spread: Share of each target that goes to its neighbours (models.training.targets).
        spread_over: How many neighbours it goes to, at most.
        patience: Number of epochs without a better validation NDCG@10 after which fitting stops.
        max_minutes: Limit of wall time; 0 for no limit.
    """

    epochs: int = 24
    length: int = 64
    states: int = 1024
    rate: float = 2e-3
    decay: float = 0.01
    unknown: float = 0.01
    average: float = 0.99
    spread: float = 0.0
    spread_over: int = 10
    patience: int = 4
    max_minutes: float = 0.0


class Fitting:
    """A network in training. `average` is the network to keep (eval mode, no gradients)."""

    def __init__(
        self,
        network: InterestNetwork,
        training: TrainingData,
        settings: FitSettings,
        seed: int,
        start: Start | None = None,
    ) -> None:
        device = next(network.parameters()).device
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self._network = network
        self._device = device
        self._rows = training.rows
        self._use = training.use
        self._settings = settings
        self._start = start
        self._draw = np.random.default_rng(seed)
        watched = training.watched
        if len(watched) > WATCHED:
            watched = np.sort(np.random.default_rng(0).choice(watched, WATCHED, replace=False))
        self._watched = watched
        self._targets = following(training.rows, training.use)
        self._loss = CatalogueLoss(device=device)
        self._spread = (
            SpreadTargets(training, settings.spread, settings.spread_over, device) if settings.spread else None
        )
        self._head = start is not None and start.head
        if self._head:
            for name, weight in network.named_parameters():
                weight.requires_grad_(name.startswith(HEAD))
        learning = [weight for weight in network.parameters() if weight.requires_grad]
        self._optimiser = torch.optim.AdamW(learning, lr=settings.rate, weight_decay=settings.decay, fused=True)
        self._steps = STARTED if start else 0
        learned = torch.from_numpy(training.known)[:, None].to(device, copy=True)
        learned[UNKNOWN] = True
        with torch.no_grad():  # an item that is not in the training part has no id embedding, only its text
            network.ids.weight.mul_(learned)
            self.average.ids.weight.mul_(learned)
        if not self._head:
            network.ids.weight.register_hook(lambda gradient: gradient * learned)  # type: ignore[no-untyped-call]
            return
        learned[start.rows + 1 :] = False  # type: ignore[union-attr]  # they are served by their text
        network.out_ids.weight.register_hook(lambda gradient: gradient * learned)  # type: ignore[no-untyped-call]

    @property
    def starts(self) -> bool:
        """Whether it starts from a run."""
        return self._start is not None

    @property
    def watched(self) -> int:
        """How many validation choices are evaluated."""
        return len(self._watched)

    def epoch(self, progress: Callable[[int, int, float], None]) -> float:
        """Go over all pieces once and return the mean loss in nats per state.

        `progress` is called with (pieces done, number of pieces, loss of the step).
        """
        length = self._settings.length
        recurrent = self._network.size.kind != "attention"
        # Cuts fall elsewhere in every epoch. Attention starts each piece from zeros, so its cuts stay at the window.
        first = int(self._draw.integers(length // 2, length + 1)) if recurrent else length
        pieces = cut(self._rows, self._use, first, length)
        if self._start is not None:
            pieces = self._start.chosen(pieces, self._rows, self._draw)
        if recurrent:
            h, c = initial_states(self._network.eval(), self._rows, pieces, first, length)
        else:
            h = c = torch.zeros(1, self._network.size.hidden, device=self._device).expand(len(pieces.begin), -1)
        self._network.train(not self._head)  # what is frozen is computed as it is served
        unknown = self._draw.random(len(self._rows.item)) < self._settings.unknown
        rows = replace(self._rows, item=np.where(unknown, UNKNOWN, self._rows.item))
        total, count, done = 0.0, 0, 0
        steps = batches(pieces, self._settings.states, self._draw)
        for some in steps[distributed.rank() : len(steps) - len(steps) % distributed.size() : distributed.size()]:
            positions, real = pieces.positions(some)
            loss, states = self._step(rows, positions, real, h[some], c[some])
            total += loss * states
            count += states
            done += len(some)
            progress(done, len(pieces.begin), loss)
        return total / max(1, count)

    def diverged(self, loss: float) -> bool:
        """Return whether the epoch's loss or a weight of the average is no longer a finite number."""
        weights = self.average.parameters()
        return not math.isfinite(loss) or not all(bool(weight.isfinite().all()) for weight in weights)

    def validate(self) -> tuple[float, float]:
        """Return HR@10 and NDCG@10 of the average on the validation choices; 0 if there are none."""
        return means(ranks(self._rows, self._watched, interest_scorer(self.average, self._rows)))

    def state(self) -> dict[str, Any]:
        """Return everything that is needed to resume: only tensors, numbers and strings."""
        return {
            "network": self._network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
            "draw": self._draw.bit_generator.state,
            "torch": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from what `state` returned."""
        self._network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps = state["steps"]
        self._draw.bit_generator.state = state["draw"]
        torch.set_rng_state(state["torch"])

    def _step(self, rows: Histories, positions: Rows, real: Flags, h: Tensor, c: Tensor) -> tuple[float, int]:
        """Take one step on the events at `positions` [B, T]. Return its loss and how many states had a target."""
        answer = self._targets[positions]  # [B, T]
        asked = torch.from_numpy(real & (answer != UNKNOWN))
        wanted = torch.from_numpy(answer)[asked].to(self._device)  # [M]
        if not len(wanted) and distributed.size() == 1:
            return 0.0, 0
        with torch.set_grad_enabled(not self._head):
            items = self._network.item_matrix()
            out, _, _ = self._network.unroll(input_rows(self._network, items, rows, positions), h, c)
        query = self._network.project(out[asked])
        outputs = self._network.output_matrix() if self._network.size.untied else items
        target = (wanted,) if self._spread is None else self._spread.of(wanted)
        loss = self._loss(query, outputs, *target) if len(wanted) else 0.0 * query.sum()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        distributed.share_gradients(self._network, len(wanted))
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIP)
        self._optimiser.step()
        self._steps += 1
        self._blend(min(self._settings.average, self._steps / (self._steps + WARM_UP)))
        return loss.item(), len(wanted)

    @torch.no_grad()
    def _blend(self, keep: float) -> None:
        mean: list[Tensor] = list(self.average.parameters())
        now: list[Tensor] = list(self._network.parameters())
        torch._foreach_lerp_(mean, now, 1.0 - keep)


def means(of: Ranks) -> tuple[float, float]:
    """Return HR@10 and NDCG@10 of some ranks; 0 if there are none."""
    return (float(hits(of).mean()), float(gains(of).mean())) if len(of) else (0.0, 0.0)
