"""States computed again from their events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from deploy.verify.recent_events import recents
from deploy.verify.recompute.context import Context
from deploy.verify.recompute.events import Event
from deploy.verify.recompute.items import LiveItems, Vector
from deploy.verify.recompute.sample import SampledUser
from stream.core.features import NUMBERS, InputRows
from stream.core.state import Interest


class States:
    """Folds events through the step graph, and compares h and c with the recorded ones."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bundle = context.bundle
        self._report = context.report
        self._texts: dict[tuple[str, bool], tuple[Vector, float]] = {}

    def check(self, user: SampledUser, states: list[tuple[int, Interest]], live: dict[int, LiveItems]) -> None:
        """Check one user's states.

        Args:
            user: The user.
            states: (offset in the changelog, state), in order.
            live: The items at each offset of the items topic that a state names.
        """
        before: Interest | None = None
        for offset, state in states:
            if (maker := user.makers[offset]) != self._bundle.id:
                if not maker and self._context.counts:
                    self._context.other_states += 1
                    self._report.numbers_unverifiable += 1
                before = state
            elif not self._context.fits(state):
                message = f"h and c have {len(state.h)} numbers, expected {self._bundle.hidden}"
                self._add(message, user, offset, state)
                before = None
            elif before is not None and _same_events(state, before):
                self._compare(user, offset, state, (before.h, before.c), live, [])
            else:
                self._recompute(user, offset, state, before, live)
                before = state

    def _recompute(
        self, user: SampledUser, offset: int, state: Interest, before: Interest | None, live: dict[int, LiveItems]
    ) -> None:
        for count in range(len(state.folded), 0, -1):
            if state.folded[count - 1] in user.controls:
                before, state.folded = None, state.folded[count:]
                break
        found = [user.events.get((topic, at)) for topic, at in state.folded]
        events = [event for event in found if event is not None]
        first = before is None and state.seq == len(state.folded)
        follows = before is not None and state.seq - len(state.folded) == before.seq
        if (first or follows) and len(events) == len(found):
            computed = self._fold(before, events, live[state.catalogue])
            self._compare(user, offset, state, computed, live, events)
        else:
            adopted = before is None or len(events) < len(found)
            self._report.numbers_unverifiable += not adopted

    def _fold(self, before: Interest | None, events: Iterable[Event], live: LiveItems) -> tuple[Any, Any]:
        """Return h and c after `events`. A state of another step model is first built again from its recent events."""
        h = c = np.zeros((1, self._bundle.hidden), np.float16)
        last = -1 if before is None else before.last_time
        if before is not None and before.model == self._bundle.state_model:
            h, c = before.h[None], before.c[None]
        elif before is not None:
            latest = -1
            for old in recents(before.recent):
                event = Event(old.behaviour, old.item, old.scene, old.value, old.time, "", old.action)
                h, c = self._step(event, latest, live, h, c)
                latest = max(latest, old.time)
        for event in events:
            h, c = self._step(event, last, live, h, c)
            last = max(last, event.time)
        return h[0], c[0]

    def _step(self, event: Event, last: int, live: LiveItems, h: Any, c: Any) -> tuple[Any, Any]:
        """Return h and c after one event. last: Epoch ms of the event before; -1 for none."""
        spec = self._bundle.spec
        value, comment = event.value, np.zeros((1, spec.text_dim), np.float32)
        if event.text:
            wanted = self._context.encoder.reads and math.isnan(value)
            comment[0], read = self._text(event.text, wanted)
            value = read if wanted else value
        gap = -1 if last < 0 else max(0, event.time - last)
        numbers = np.array(spec.numbers(value, gap), np.float32).reshape(1, NUMBERS)
        rows = InputRows(
            item=live.matrix[[self._context.items.row(live, event.item)]],
            behaviour=np.array([event.behaviour], np.int64),
            scene=np.array([spec.scene(event.scene)], np.int64),
            action=np.array([spec.action(event.action)], np.int64),
            numbers=numbers,
            comment=comment,
        )
        return self._context.models.step(rows, h, c)

    def _text(self, text: str, wanted: bool) -> tuple[Vector, float]:
        """Return the vector of a comment's text, and the rating read out of it if that is wanted, else NaN."""
        found = self._texts.get((text, wanted))
        if found is None:
            encoder = self._context.encoder
            found = encoder.encode_and_read(text) if wanted else (encoder.encode(text), math.nan)
            self._texts[text, wanted] = found
        return found

    def _compare(
        self,
        user: SampledUser,
        offset: int,
        state: Interest,
        computed: tuple[Any, Any],
        live: dict[int, LiveItems],
        events: list[Event],
    ) -> None:
        self._report.numbers += 1
        h, c = computed
        if state.h.tobytes() == h.tobytes() and state.c.tobytes() == c.tobytes():
            return
        trained = self._context.items.trained
        if not live[state.catalogue].whole and any(event.item not in trained for event in events):
            self._report.numbers_unverifiable += 1
            return
        far = max(float(np.abs(a.astype(np.float32) - b).max()) for a, b in ((h, state.h), (c, state.c)))
        self._add(f"h or c differs from what its events give, by {far:.2g}", user, offset, state)

    def _add(self, message: str, user: SampledUser, offset: int, state: Interest) -> None:
        position = self._context.settings.changelog_topic, user.partition, offset
        self._context.add("numbers", message, user.key, state.seq, position)


def _same_events(state: Interest, before: Interest) -> bool:
    """Return whether a state has no event more than the one before."""
    return state.seq == before.seq and state.chain == before.chain and state.model == before.model
