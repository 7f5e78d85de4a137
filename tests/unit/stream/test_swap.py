"""How a process comes to the newest activation: load, report, switch; or refuse, and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from stream import swap as module
from stream.core.bundle_log import CURRENT, Activate, Activation, BundleLog, Loaded, Record, Refused, encode, key_of
from stream.core.errors import BrokerError, BundleError, LossError, SettingsError
from stream.inference.loading import Refusal
from stream.observability.bundle_figures import BundleFigures
from stream.swap import Swap, SwapParts

A, B, C = "a" * 64, "b" * 64, "c" * 64
NAME = "1" * 32


class World:
    """A topic, and a process that loads names of bundles."""

    def __init__(self) -> None:
        self.log = BundleLog()
        self.written: list[Record] = []
        self.switched: list[tuple[int, str | None]] = []
        self.prepared: list[str] = []
        self.cancelled: list[str] = []
        self.errors: dict[str, list[Exception]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.registry = CollectorRegistry()
        self.swap: Swap[str] | None = None

    def figure(self, name: str) -> float:
        return self.registry.get_sample_value(f"x_{name}") or 0.0

    def start(self, serving: Activation, refused: Sequence[Refusal] = ()) -> Swap[str]:
        parts = SwapParts[str](
            name=NAME, process="worker", log=lambda: self.log, write=self.write, prepare=self.prepare, switch=self.put,
            figures=BundleFigures(self.registry, "x"), now=lambda: 5,
        )  # fmt: skip
        self.swap = Swap(parts, serving, refused, 1.5)
        self.swap.start()
        return self.swap

    def activate(self, bundle: str) -> int:
        record = Activate(bundle, 5)
        self.log.apply([(self.log.offset + 1, key_of(record), encode(record))])
        if self.swap is not None:
            self.swap.look()
        return self.log.offset

    async def write(self, records: Sequence[Record]) -> None:
        self.written += records

    async def prepare(self, activation: Activation) -> str:
        self.prepared.append(activation.bundle)
        try:
            if gate := self.gates.get(activation.bundle):
                await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(activation.bundle)
            raise
        if errors := self.errors.get(activation.bundle):
            raise errors.pop(0)
        return f"prepared {activation.bundle[0]}"

    async def put(self, activation: Activation, prepared: str | None) -> None:
        self.switched.append((activation.number, prepared))

    def said(self) -> list[tuple[str, int]]:
        return [(type(one).__name__, one.activation) for one in self.written if isinstance(one, Loaded | Refused)]


def check(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World()
        try:
            await test(world)
        finally:
            if world.swap is not None:
                await world.swap.stop()

    asyncio.run(run())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_an_activation_is_loaded_reported_and_switched_to() -> None:
    async def test(world: World) -> None:
        swap = world.start(Activation(CURRENT, A))
        await turns()
        assert (world.written, world.figure("activation")) == ([], CURRENT)
        assert world.activate(B) == 0
        await turns()
        assert (world.said(), world.switched) == ([("Loaded", 0)], [(0, "prepared b")])
        assert (swap.serving.bundle, world.figure("activation"), world.figure("swaps_total")) == (B, 0, 1)
        assert world.activate(B) == 1
        await turns()
        assert world.switched[1:] == [(1, None)], "the same bundle under another number is not loaded again"
        assert world.prepared == [B]

    check(test)


@pytest.mark.parametrize(
    "error", [BundleError("step.onnx: no"), SettingsError("rating_scale: no"), ValueError("a bug")]
)
def test_a_bundle_that_cannot_be_used_is_refused_once_and_the_process_goes_on(error: Exception) -> None:
    async def test(world: World) -> None:
        swap = world.start(Activation(CURRENT, A))
        world.errors[B] = [error]
        world.activate(B)
        await turns()
        assert (world.said(), world.switched, swap.serving.bundle) == ([("Refused", 0)], [], A)
        assert str(error) in world.written[0].reason  # type: ignore[union-attr]
        assert (world.figure("refused"), world.figure("refusals_total"), world.figure("waiting_seconds")) == (1, 1, 0)
        swap.look()
        await turns()
        assert world.prepared == [B]
        world.activate(A)
        await turns()
        assert (world.switched, world.figure("refused")) == ([(1, None)], 0)

    check(test)


def test_a_newer_activation_replaces_one_in_progress() -> None:
    async def test(world: World) -> None:
        world.gates[B] = asyncio.Event()
        world.start(Activation(CURRENT, A))
        world.activate(B)
        await turns()
        assert world.figure("waiting_seconds") > 0
        world.activate(C)
        await turns()
        assert (world.cancelled, world.prepared, world.switched) == ([B], [B, C], [(1, "prepared c")])
        assert world.said() == [("Loaded", 1)]
        assert world.figure("waiting_seconds") == 0

    check(test)


def test_what_was_found_at_the_start_is_reported() -> None:
    async def test(world: World) -> None:
        world.activate(A)
        world.activate(B)
        world.start(Activation(0, A), [Refusal(Activation(1, B), "gone\nand lost")])
        await turns()
        assert world.said() == [("Refused", 1), ("Loaded", 0)]
        assert world.written[0].reason == "gone and lost"  # type: ignore[union-attr]
        assert (world.prepared, world.figure("refused"), world.figure("activation")) == ([], 1, 0)

    check(test)


def test_a_broker_that_does_not_answer_is_no_reason_to_refuse_and_a_loss_ends_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)

    async def test(world: World) -> None:
        world.errors[B] = [BrokerError("no answer")]
        swap = world.start(Activation(CURRENT, A))
        world.activate(B)
        await turns()
        assert (world.prepared, world.switched) == ([B, B], [(0, "prepared b")])
        world.errors[C] = [LossError("cut off")]
        world.activate(C)
        await turns()
        assert swap.task is not None
        assert isinstance(swap.task.exception(), LossError)

    check(test)


def test_a_stop_ends_what_is_loading() -> None:
    async def test(world: World) -> None:
        world.gates[B] = asyncio.Event()
        swap = world.start(Activation(CURRENT, A))
        world.activate(B)
        await turns()
        await swap.stop()
        assert (world.cancelled, world.switched) == ([B], [])

    check(test)
