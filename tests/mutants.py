"""Workers that break the promise, each in one way: the test of the tester.

python -m tests.mutants NAME      a real `stream.worker.run` with the settings of the environment, and one thing patched

Those that need a crash kill themselves once (a file in the data folder remembers it); whoever started them starts them again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stream import worker
from stream.catalogue import popularity
from stream.catalogue.catalogue import Catalogue, Snapshot
from stream.core import candidates, fencing_log, fold, ruling
from stream.core import state as state_module
from stream.core.bundle_log import Activation, Switched
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.features import InputRows
from stream.core.fencing_log import CLAIM_KEY
from stream.core.fold import UserBatch, advance, apply_events, input_rows, rank
from stream.core.messages import SourceEvent
from stream.core.ruling import Selection, select
from stream.core.score_tables import ScoreTables, epoch_of
from stream.core.state import Interest, is_redelivered
from stream.inference import loading
from stream.inference.models import Models
from stream.kafka.batch import MicroBatch
from stream.kafka.lease import Lease
from stream.kafka.producer import Outgoing, RecordBatches
from stream.observability.health import Health
from stream.pipeline import pipeline, switches
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.reissues import Reissues
from stream.pipeline.switches import Switches
from stream.settings import Settings, load
from stream.swap import Swap
from stream.worker import run
from tests.patching import patch

EVERY = 1000  # events
BATCHES = 20  # micro-batches until the crash
USERS = 16  # that a micro-batch must have for the crash to be seen
CRASHED = "crashed"
SLOW = "slow"
POISON = "poison"


def crash(settings: Settings) -> None:
    """SIGKILL ourselves, the first time."""
    marker = settings.data_dir / CRASHED
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def unmutated(settings: Settings) -> None:
    """The control."""


def sets_aside(settings: Settings) -> None:
    """One good event in a thousand becomes a dead letter."""
    decode, numbers = EventDecoder.decode, count(1)

    def mutant(self: EventDecoder, *record: Any) -> SourceEvent:
        event = decode(self, *record)
        if next(numbers) % EVERY == 0:
            raise RecordError("validate", "out_of_range", "item", "not liked")
        return event

    patch(EventDecoder, "decode", mutant)


def drops(settings: Settings) -> None:
    """One event in a thousand is forgotten."""
    decode, numbers = Pipeline._decode, count(1)

    def mutant(self: Pipeline, *batch: Any) -> Any:
        events, dead_letters = decode(self, *batch)
        return [event for event in events if next(numbers) % EVERY], dead_letters

    patch(Pipeline, "_decode", mutant)


def doubles(settings: Settings) -> None:
    """One event in a thousand is folded twice in a row."""
    numbers = count(1)
    again: list[SourceEvent] = []

    def mutant(
        user: bytes, partition: int, record: bytes | None, events: Sequence[SourceEvent], *rest: Any
    ) -> UserBatch:
        again[:] = [event for event in events if next(numbers) % EVERY == 0]
        twice = [one for event in events for one in ((event, event) if event in again else (event,))]
        return apply_events(user, partition, record, twice, *rest)

    patch(pipeline, "apply_events", mutant)
    patch(fold, "is_redelivered", lambda state, event: is_redelivered(state, event) and event not in again)


def swaps(settings: Settings) -> None:
    """A user's first two events of a micro-batch change places, where they are of one topic."""
    late: list[SourceEvent] = []

    def mutant(
        user: bytes, partition: int, record: bytes | None, events: Sequence[SourceEvent], *rest: Any
    ) -> UserBatch:
        late.clear()
        if len(events) > 1 and events[0].behaviour == events[1].behaviour:
            late.append(events[0])
            events = [events[1], events[0], *events[2:]]
        return apply_events(user, partition, record, events, *rest)

    patch(pipeline, "apply_events", mutant)
    patch(fold, "is_redelivered", lambda state, event: is_redelivered(state, event) and event not in late)


def on_changelog(settings: Settings, change: Callable[[list[Outgoing]], list[Outgoing]]) -> None:
    """Change what is sent to the changelog, RocksDB and slates as ever.

    A list of which nothing is left ends at -1: the worker is to believe that it was sent, and what is not sent has no end.
    """
    send = RecordBatches.send

    async def mutant(self: RecordBatches, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> Any:
        changed = {
            tp: change(list(records)) if tp[0] == settings.changelog_topic else records for tp, records in lists.items()
        }
        ends = await send(self, changed)
        return {tp: -1 for tp, records in changed.items() if not records} | ends

    patch(RecordBatches, "send", mutant)


def states_only(records: list[Outgoing]) -> list[Outgoing]:
    """Without a writer's claim, which is no state."""
    return [record for record in records if not (record.key or b"").startswith(b"\xff")]


def skips_record(settings: Settings) -> None:
    """One changelog record in a hundred is not written."""
    numbers = count(1)
    on_changelog(
        settings,
        lambda records: [record for record in records if not states_only([record]) or next(numbers) % 100],
    )


def forks(settings: Settings) -> None:
    """One state in a hundred is written a second time with another chain, as by a second worker."""
    numbers = count(1)

    def twice(records: list[Outgoing]) -> list[Outgoing]:
        more = []
        for record in states_only(records):
            if next(numbers) % 100 == 0:
                state = state_module.decode(record.value or b"")
                state.chain = bytes(reversed(state.chain))
                more.append(record._replace(value=state_module.encode(state)))
        return records + more

    on_changelog(settings, twice)


def forgets_seen(settings: Settings) -> None:
    """After one event in a hundred its user is taken to have seen one item fewer."""
    see, numbers = state_module._see, count(1)

    def mutant(state: Interest, item: int) -> None:
        see(state, item)
        if next(numbers) % 100 == 0:
            state.seen = state.seen[4:]

    patch(state_module, "_see", mutant)


def muddles_recent(settings: Settings) -> None:
    """After one event in a hundred the last two that its user's state remembers change places."""
    remember, numbers = state_module._remember, count(1)

    def mutant(state: Interest, event: SourceEvent) -> None:
        remember(state, event)
        if next(numbers) % 100 == 0:
            entries, raw = [], state.recent
            while raw:
                end = 2 + int.from_bytes(raw[:2], "little")
                entries.append(raw[:end])
                raw = raw[end:]
            state.recent = b"".join(entries[:-2] + entries[-2:][::-1])

    patch(state_module, "_remember", mutant)


def muddles_action(settings: Settings) -> None:
    """Of one event with an action in ten its user's state remembers another one."""
    remember, numbers = state_module._remember, count(1)

    def mutant(state: Interest, event: SourceEvent) -> None:
        if event.action and next(numbers) % 10 == 0:
            event = msgspec.structs.replace(event, action=f"not {event.action}")
        remember(state, event)

    patch(state_module, "_remember", mutant)


def feeds_no_action(settings: Settings) -> None:
    """The recurrent step reads every click as one without an action."""

    def mutant(*inputs: Any) -> tuple[InputRows, int]:
        rows, unknown = input_rows(*inputs)
        return rows._replace(action=np.zeros_like(rows.action)), unknown

    patch(fold, "input_rows", mutant)


def forgets_texts(settings: Settings) -> None:
    """The catalogue has no projected texts."""
    snap = Catalogue._snap

    def mutant(self: Catalogue, tables: ScoreTables | None) -> Snapshot:
        found = snap(self, tables)
        bare = found.score_items.copy()
        bare[:, found.items.shape[1] :] = 0
        return replace(found, score_items=bare)

    patch(Catalogue, "_snap", mutant)


def names_epochs_to_come(settings: Settings) -> None:
    """Slates name an epoch of the tables that does not exist yet."""
    patch(pipeline, "epoch_of", lambda catalogue: 1000 + (epoch_of(catalogue) or 0))


def goes_back_to_old_tables(settings: Settings) -> None:
    """One slate in ten is of the first epoch that the worker has used, and names it."""
    first: dict[str, ScoreTables] = {}
    numbers = count(1)

    def mutant(self: Pipeline, batches: Any, catalogue: Any, *rest: Any) -> Any:
        return rank_all(self, batches, older(catalogue), *rest)

    def slates(self: Pipeline, batches: Any, found: Any, catalogue: Any, *rest: Any) -> Any:
        return make(self, batches, found, going.get("on", catalogue), *rest)

    def older(catalogue: Any) -> Any:
        if epoch_of(catalogue):
            first.setdefault("epoch", catalogue.tables)
            if next(numbers) % 3 == 0:
                catalogue = replace(catalogue, tables=first["epoch"])
        going["on"] = catalogue
        return catalogue

    going: dict[str, Any] = {}
    rank_all, make = Pipeline._rank, Pipeline._slates
    patch(Pipeline, "_rank", mutant)
    patch(Pipeline, "_slates", slates)


def scores_with_its_own_tables(settings: Settings) -> None:
    """Scores are those of the bundle's own tables, whatever the slates name."""
    score = Models.score

    def mutant(self: Models, *inputs: Any) -> Any:
        return score(self, *inputs[:7])

    patch(Models, "score", mutant)


def names_another_bundle(settings: Settings) -> None:
    """One slate in fifty names a bundle that does not exist."""
    numbers = count(1)

    def change(records: list[Outgoing]) -> list[Outgoing]:
        return [
            record if record.value is None or next(numbers) % 50
            else record._replace(value=json.dumps(json.loads(record.value) | {"bundle": "f" * 64}).encode())
            for record in records
        ]  # fmt: skip

    on_output(settings.recommendations_topic, change)


def switches_silently(settings: Settings) -> None:
    """No `switched` is written when the bundle changes."""

    async def mutant(self: Switches, partitions: Collection[int], serving: Activation) -> None:
        self._said |= dict.fromkeys(partitions, serving)

    patch(Switches, "announce", mutant)


def switches_late(settings: Settings) -> None:
    """A `switched` names an offset behind the first slates of the bundle."""

    def late(number: int, bundle: str, partition: int, slates: int, *rest: Any) -> Switched:
        return Switched(number, bundle, partition, slates + 20, *rest)

    patch(switches, "Switched", late)


def never_switches(settings: Settings) -> None:
    """Activations are neither followed nor refused."""

    async def mutant(self: Swap[Any], activation: Activation) -> None:
        await asyncio.Event().wait()

    patch(Swap, "_follow", mutant)


def drifts(settings: Settings) -> None:
    """One call of the recurrent step in ten is off by the smallest step that float16 has."""
    step, numbers = Models.step, count(1)

    def mutant(self: Models, *inputs: Any) -> Any:
        h, c = step(self, *inputs)
        if next(numbers) % 10 == 0:
            h = np.nextafter(h, np.float16(2))
        return h, c

    patch(Models, "step", mutant)


def misranks(settings: Settings) -> None:
    """The last item of every slate comes first."""

    def mutant(*inputs: Any, **named: Any) -> Any:
        return [[*items[-1:], *items[:-1]] for items in rank(*inputs, **named)]

    patch(pipeline, "rank", mutant)


def ignores_caps(settings: Settings) -> None:
    """Slates are made as if there were no caps."""
    on_selection(lambda selection: replace(selection, caps=()))


def mispins(settings: Settings) -> None:
    """Each pinned item comes one place too late."""
    on_selection(lambda selection: replace(selection, pins=tuple((place + 1, row) for place, row in selection.pins)))


def unboosts(settings: Settings) -> None:
    """Boosts change no score."""
    on_selection(lambda selection: replace(selection, bias=np.where(np.isfinite(selection.bias), 0, selection.bias)))


def on_selection(change: Callable[[Selection], Selection]) -> None:
    """Change what rules do to slates."""
    patch(ruling, "select", lambda *inputs: change(select(*inputs)))


def ranks_by_score(settings: Settings) -> None:
    """Slates that say that they were re-ranked are in the order of their scores."""

    def mutant(scores: Any, items: Any, strength: float, k: int, **named: Any) -> Any:
        return np.broadcast_to(np.arange(k), (len(scores), k)).copy()

    patch(candidates, "reranked", mutant)


def leaves_out(settings: Settings) -> None:
    """One slate in twenty of a placement other than `default` is not written."""
    numbers = count(1)

    def change(records: list[Outgoing]) -> list[Outgoing]:
        return [
            record for record in records
            if record.value is None or b'"placement"' not in record.value or next(numbers) % 20
        ]  # fmt: skip

    on_output(settings.recommendations_topic, change)


def on_output(topic: str, change: Callable[[list[Outgoing]], list[Outgoing]]) -> None:
    """Change what is sent to a topic whose ends nobody asks for."""
    send = RecordBatches.send

    async def mutant(self: RecordBatches, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> Any:
        return await send(
            self, {tp: change(list(records)) if tp[0] == topic else records for tp, records in lists.items()}
        )

    patch(RecordBatches, "send", mutant)


def erases(settings: Settings) -> None:
    """One slate in a hundred is removed again, by a tombstone."""
    numbers = count(1)

    def change(records: list[Outgoing]) -> list[Outgoing]:
        return records + [record._replace(value=None) for record in records if next(numbers) % 100 == 0]

    on_output(settings.recommendations_topic, change)


def overclaims(settings: Settings) -> None:
    """Each claim is followed by one whose epoch no takeover comes to."""

    def change(records: list[Outgoing]) -> list[Outgoing]:
        more = []
        for record in records:
            if record.key == CLAIM_KEY:
                claim = fencing_log.decode(record.value)
                epoch = claim.epoch + 10**9
                value = fencing_log.encode(msgspec.structs.replace(claim, epoch=epoch))
                more.append(Outgoing(CLAIM_KEY, value, fencing_log.stamp(epoch)))
        return records + more

    on_changelog(settings, change)


def misleads(settings: Settings) -> None:
    """The slate for anyone unknown begins with the last of its items."""
    popular = popularity.popular_items

    def mutant(*inputs: Any) -> Any:
        return popular(*inputs)[::-1]

    patch(popularity, "popular_items", mutant)


def on_reissued(settings: Settings, change: Callable[[Outgoing, dict[str, Any]], Outgoing]) -> None:
    """Change the slates that are re-issued."""

    def changed(records: list[Outgoing]) -> list[Outgoing]:
        bodies = [json.loads(record.value or b"{}") for record in records]
        return [
            change(record, body) if "withdrawn" in body else record
            for record, body in zip(records, bodies, strict=True)
        ]

    on_output(settings.recommendations_topic, changed)


def reissues_without_reason(settings: Settings) -> None:
    """A re-issued slate names an item that its user's slate did not show."""
    on_reissued(
        settings, lambda record, body: record._replace(value=json.dumps(body | {"withdrawn": ["another"]}).encode())
    )


def reissues_under_an_old_epoch(settings: Settings) -> None:
    """A re-issued slate names the epoch of the partition's owner before."""
    on_reissued(
        settings,
        lambda record, _: record._replace(headers=fencing_log.stamp(fencing_log.epoch_of(record.headers) - 1)),
    )


def reissues_too_little(settings: Settings) -> None:
    """A re-issued slate lacks its first item."""
    on_reissued(
        settings, lambda record, body: record._replace(value=json.dumps(body | {"items": body["items"][1:]}).encode())
    )


def lets_withdrawn_items_stand(settings: Settings) -> None:
    """No slate is re-issued."""
    patch(Reissues, "_look_through", lambda self, count: self._passes.clear())


def skips_republish(settings: Settings) -> None:
    """Killed between the changelog and the slates; then no slate for events that are read again."""
    make, numbers = Pipeline._slates, count(1)

    def mutant(self: Pipeline, batches: Sequence[UserBatch], slates: Any, *rest: Any) -> Any:
        if next(numbers) >= BATCHES and len(batches) >= USERS:
            crash(settings)
        pairs = [(batch, slate) for batch, slate in zip(batches, slates, strict=True) if not batch.redelivered]
        return make(self, [batch for batch, _ in pairs], [slate for _, slate in pairs], *rest)

    patch(Pipeline, "_slates", mutant)


def commits_early(settings: Settings) -> None:
    """Offsets are committed before the changelog has acknowledged; killed between."""
    process, numbers = Pipeline.process, count(1)

    async def mutant(self: Pipeline, batch: MicroBatch) -> None:
        if batch.size and next(numbers) >= BATCHES and not (settings.data_dir / CRASHED).exists():
            consumer = self._consumer()
            consumer.finish({tp: part[-1].offset + 1 for tp, part in batch.parts.items()}, hold=set())
            await consumer.commit_finished()
            crash(settings)
        await process(self, batch)

    patch(Pipeline, "process", mutant)


def disk_first(settings: Settings) -> None:
    """RocksDB is written before the changelog; killed between."""
    send, numbers = Pipeline._send_changelog, count(1)

    async def mutant(self: Pipeline, records: Mapping[tuple[str, int], list[Outgoing]], *rest: Any) -> dict[Any, int]:
        for (_, partition), written in records.items():
            self._store.write(partition, [(record.key or b"", record.value or b"") for record in written], -1)
        if records and next(numbers) >= BATCHES:
            crash(settings)
        return await send(self, records, *rest)

    patch(Pipeline, "_send_changelog", mutant)


def stalls(settings: Settings) -> None:
    """Not against the promise: stopped between the check of the lease and the write, which no lease can guard against.

    The users are scored meanwhile: without the limit of a model call, which would run out at the stop and end the worker first.
    """
    send, numbers = Pipeline._send_changelog, count(1)
    patch(Lease, "check", lambda self: None)

    async def unlimited(self: Pipeline, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    patch(Pipeline, "_run", unlimited)

    async def mutant(self: Pipeline, records: Mapping[tuple[str, int], list[Outgoing]], *rest: Any) -> dict[Any, int]:
        if records and next(numbers) == BATCHES:
            os.kill(os.getpid(), signal.SIGSTOP)
        return await send(self, records, *rest)

    patch(Pipeline, "_send_changelog", mutant)


def slowed(data_dir: Path, seconds: float) -> None:
    """Have the worker `slows` of this folder take so much longer from now on, until the file SLOW is deleted."""
    partial = data_dir / f"{SLOW}.new"
    partial.write_text(str(seconds))
    partial.replace(data_dir / SLOW)


def slows(settings: Settings) -> None:
    """Not against the promise: each model call takes so many seconds longer as the file SLOW in the data folder says, and
    the recurrent one fails on the item POISON."""

    def wait() -> None:
        with suppress(FileNotFoundError):
            time.sleep(float((settings.data_dir / SLOW).read_text()))

    def slow_advance(batches: Sequence[UserBatch], *rest: Any) -> int:
        wait()
        if any(one.item == POISON for batch in batches for one in batch.inputs):
            raise RuntimeError("not this one")
        return advance(batches, *rest)

    def slow_rank(*inputs: Any, **named: Any) -> Any:
        wait()
        return rank(*inputs, **named)

    patch(pipeline, "advance", slow_advance)
    patch(pipeline, "rank", slow_rank)


def stands(settings: Settings) -> None:
    """Not against the promise: the event loop hangs while a file `stand` lies in the data folder."""
    beat = Health.beat

    def mutant(self: Health) -> None:
        while (settings.data_dir / "stand").exists():
            time.sleep(0.1)
        beat(self)

    patch(Health, "beat", mutant)


def loads_late(settings: Settings) -> None:
    """Not against the promise: while the file SLOW is in the data folder, no bundle is loaded."""
    prove = loading.prove

    def mutant(*given: Any) -> Any:
        while (settings.data_dir / SLOW).exists():
            time.sleep(0.1)
        return prove(*given)

    patch(worker, "prove", mutant)


MUTANTS: dict[str, Callable[[Settings], None]] = {
    mutant.__name__: mutant
    for mutant in (
        unmutated, sets_aside, drops, doubles, swaps, skips_record, skips_republish, forks, commits_early, disk_first,
        forgets_seen, muddles_recent, muddles_action, feeds_no_action, forgets_texts, names_epochs_to_come,
        goes_back_to_old_tables, scores_with_its_own_tables, names_another_bundle, switches_silently, switches_late,
        never_switches, drifts, misranks, misleads, erases,
        overclaims,
        reissues_without_reason, reissues_under_an_old_epoch, reissues_too_little,
        lets_withdrawn_items_stand,
        stalls, slows, stands, loads_late, ignores_caps, mispins, unboosts, ranks_by_score, leaves_out,
    )
}  # fmt: skip


if __name__ == "__main__":
    settings = load()
    Path(settings.data_dir).mkdir(parents=True, exist_ok=True)
    MUTANTS[sys.argv[1]](settings)
    run(settings)
