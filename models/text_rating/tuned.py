"""BERT with its upper layers fine-tuned to read ratings, and how it is tuned.

It first fits the head on frozen vectors, then tunes both (A. Kumar et al., Fine-Tuning can Distort Pretrained Features,
ICLR 2022). Frozen layers run without dropout. Without augmentation their outputs are computed once and kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from models.data.histories import Doubles, Floats, Rows
from models.interfaces import ProgressCallback, silent
from models.network.text import load_bert, load_tokenizer, pooled
from models.text_rating.augment import drop_words, shuffle_sentences
from models.text_rating.head import HeadSettings, RatingHead, class_weights, fit_head
from stream.core.errors import DataError

CLIP: Final = 1.0  # largest norm of a step's gradient
SORTED: Final = 16  # batches whose texts are sorted by length together: less padding


@dataclass(frozen=True)
class TuneSettings:
    """How to tune a reader.

    Attributes:
        frozen: Number of layers from the bottom (of 6) that stay unchanged, together with the embeddings.
        epochs: Maximum number of epochs.
        patience: Number of epochs without a better validation RMSE after which tuning stops.
        batch: Number of texts in a batch.
        rate: Learning rate of the layers (AdamW, linear decay).
        head_rate: Learning rate of the head (AdamW, linear decay).
        decay: Weight decay.
        words: Share of words dropped from training texts.
        sentences: Shuffle the sentences of training texts.
        keep_last: Keep the weights of the last epoch instead of the best.
        head: Output and class balance of the head.
    """

    frozen: int = 4
    epochs: int = 4
    patience: int = 2
    batch: int = 16
    rate: float = 1e-4
    head_rate: float = 1e-3
    decay: float = 0.01
    words: float = 0.0
    sentences: bool = False
    keep_last: bool = False
    head: HeadSettings = field(default_factory=HeadSettings)


class TunedReader(nn.Module):
    """Maps token ids and mask i64 [B, L] to values f32 [B].

    `bert` is a transformers BertModel. The vector is as in models.network.text.
    """

    def __init__(self, bert: Any, head: RatingHead) -> None:
        super().__init__()
        self.bert = bert
        self.head = head

    def trunk(self, ids: Tensor, mask: Tensor, layers: int) -> Tensor:
        """Return the outputs of the first `layers` layers, f32 [B, L, T]."""
        return self._layers(self.bert.embeddings(input_ids=ids), mask, range(layers))

    def vector(self, hidden: Tensor, mask: Tensor, layers: int) -> Tensor:
        """Compute the text vector f32 [B, T] from the outputs of the first `layers` layers."""
        hidden = self._layers(hidden, mask, range(layers, len(self.bert.encoder.layer)))
        return pooled(hidden, mask)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.vector(self.trunk(ids, mask, 0), mask, 0))  # type: ignore[no-any-return]

    def _layers(self, hidden: Tensor, mask: Tensor, which: range) -> Tensor:
        hides = (1.0 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        for number in which:
            found = self.bert.encoder.layer[number](hidden, attention_mask=hides)
            hidden = found[0] if isinstance(found, tuple) else found
        return hidden


@dataclass(frozen=True)
class Tuned:
    """A tuned reader.

    Attributes:
        reader: The network, in eval mode.
        curve: Validation RMSE before the first and after each epoch.
        epochs: The epoch of the reader.
        seconds: Time that tuning took.
    """

    reader: TunedReader
    curve: tuple[float, ...]
    epochs: int
    seconds: float


def tune(
    texts: Sequence[str],
    values: Doubles,
    watched: Sequence[str],
    watched_values: Doubles,
    bounds: tuple[float, float],
    settings: TuneSettings,
    vectors: Floats,
    seed: int = 0,
    report: ProgressCallback = silent,
) -> Tuned:
    """Tune on texts with values f64 [n]. Keep the epoch with the least RMSE on the watched ones.

    `vectors` is f32 [n, T], the texts' frozen vectors, for the head to start from. The same input and seed give the
    same result on one machine. Raises DataError if training diverges.
    """
    began = time.monotonic()
    head = fit_head(vectors, values, bounds, settings.head, seed)
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    tuning = Tuning(TunedReader(load_bert(), head), settings, len(texts))
    reader, feed = tuning.reader, tuning.feed
    weight = class_weights(values, balanced=settings.head.balanced)
    fixed = not settings.words and not settings.sentences
    fixed_inputs = feed.of(texts) if fixed else []
    watching = feed.of(watched)

    def rmse() -> float:
        return float(np.sqrt(np.mean((feed.read(watching) - watched_values) ** 2)))

    curve, best, best_at = [rmse()], copy.deepcopy(reader.state_dict()), 0
    for epoch in range(1, settings.epochs + 1):
        inputs = fixed_inputs if fixed else feed.of([_other(text, settings, draw) for text in texts])
        for done, loss in tuning.epoch(inputs, values, weight, draw):
            report(f"epoch {epoch}/{settings.epochs}", done, len(texts), f"loss {loss:.3f}")
        reader.eval()
        curve.append(rmse())
        report("validation", 1, 1, f"epoch {epoch}: RMSE {curve[-1]:.4f}")
        if not math.isfinite(curve[-1]):
            raise DataError(
                f"reading: diverged in epoch {epoch}: RMSE {curve[-1]:g} on the validation part; expected a finite one"
            )
        if settings.keep_last or curve[-1] < curve[best_at]:
            best, best_at = copy.deepcopy(reader.state_dict()), epoch
        if epoch - best_at >= settings.patience:
            break
    reader.load_state_dict(best)
    return Tuned(reader.requires_grad_(False).eval(), tuple(curve), best_at, time.monotonic() - began)


class Tuning:
    """A reader whose upper layers and head learn, on n texts."""

    def __init__(self, reader: TunedReader, settings: TuneSettings, texts: int) -> None:
        self.reader = reader.requires_grad_(False)
        self.feed = Feed(reader, settings.frozen)
        self._settings = settings
        layers = list(reader.bert.encoder.layer[settings.frozen :])
        self._layers = nn.ModuleList(layers + ([] if settings.frozen else [reader.bert.embeddings])).requires_grad_(
            True
        )
        reader.head.requires_grad_(True)
        groups = [
            {"params": list(self._layers.parameters()), "lr": settings.rate},
            {"params": list(reader.head.parameters()), "lr": settings.head_rate},
        ]
        self._optimiser = torch.optim.AdamW(groups, weight_decay=settings.decay)
        steps = settings.epochs * -(-texts // settings.batch)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: max(0.0, 1.0 - step / steps))

    def epoch(
        self, inputs: Sequence[Tensor], values: Doubles, weight: Doubles, draw: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Take a step on each batch of the inputs. Yield how many inputs are done, and the loss of the step.

        `inputs` are as `feed` makes them; values and weight are f64 [n].
        """
        reader, frozen = self.reader, self._settings.frozen
        learning = [*self._layers.parameters(), *reader.head.parameters()]
        reader.head.train()
        self._layers.train()
        for done, rows in batches([len(one) for one in inputs], self._settings.batch, draw):
            hidden, mask = padded([inputs[row] for row in rows.tolist()])
            vector = reader.vector(hidden, mask, frozen) if frozen else self.feed.whole(hidden, mask)
            value, of = torch.from_numpy(values[rows]).float(), torch.from_numpy(weight[rows]).float()
            loss = reader.head.loss(vector, value, of)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning, CLIP)
            self._optimiser.step()
            self._schedule.step()
            yield done, loss.item()


class Feed:
    """Texts in the form of the trained layers' input: frozen layers' outputs f32 [L, T] each, or token ids i64 [L]."""

    def __init__(self, reader: TunedReader, frozen: int) -> None:
        self._reader = reader
        self._frozen = frozen
        self._tokenizer = load_tokenizer()

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Return one tensor per text, in order."""
        tokens = [torch.tensor(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]
        if not self._frozen:
            return tokens
        out: list[Tensor] = [torch.empty(0)] * len(tokens)
        self._reader.eval()
        with torch.no_grad():
            for some in by_length(tokens):
                ids, mask = padded([tokens[row] for row in some])
                for row, output in zip(some, self._reader.trunk(ids, mask, self._frozen), strict=True):
                    out[row] = output[: len(tokens[row])].clone()
        return out

    def whole(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map token ids and mask i64 [B, L] through all layers to vectors f32 [B, T]."""
        return self._reader.vector(self._reader.trunk(ids, mask, 0), mask, 0)

    def read(self, inputs: Sequence[Tensor]) -> Doubles:
        """Read values f64 [n] from what `of` returned."""
        out = np.zeros(len(inputs))
        self._reader.eval()
        with torch.no_grad():
            for some in by_length(inputs):
                hidden, mask = padded([inputs[row] for row in some])
                vector = self._reader.vector(hidden, mask, self._frozen) if self._frozen else self.whole(hidden, mask)
                out[some] = self._reader.head(vector).numpy()
        return out


def by_length(inputs: Sequence[Tensor], at_once: int = 32) -> Iterator[list[int]]:
    """Yield rows of the inputs, those of similar length together, so that little is computed on padding."""
    order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
    for at in range(0, len(order), at_once):
        yield order[at : at + at_once]


def padded(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad B tensors [L] or [L, T] with zeros to the longest L. Return them as one, and the mask i64 [B, L]."""
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(one), dtype=torch.int64) for one in inputs], batch_first=True)
    return nn.utils.rnn.pad_sequence(list(inputs), batch_first=True), mask


def batches(lengths: Sequence[int], size: int, draw: np.random.Generator) -> Iterator[tuple[int, Rows]]:
    """Yield (rows done with this batch, its rows i64): each row once, in random order, similar lengths in one batch."""
    length = np.asarray(lengths)
    order = draw.permutation(len(length))
    found: list[Rows] = []
    for at in range(0, len(order), size * SORTED):
        some = order[at : at + size * SORTED]
        some = some[np.argsort(length[some], kind="stable")]
        found += [some[begin : begin + size] for begin in range(0, len(some), size)]
    done = 0
    for which in draw.permutation(len(found)).tolist():
        done += len(found[which])
        yield done, found[which]


def _other(text: str, settings: TuneSettings, draw: np.random.Generator) -> str:
    text = shuffle_sentences(text, draw) if settings.sentences else text
    return drop_words(text, settings.words, draw) if settings.words else text
