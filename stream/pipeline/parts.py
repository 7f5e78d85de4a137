"""What the pipeline works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass

from stream.core.bundle_log import Activation
from stream.core.decoder import EventDecoder
from stream.core.features import InputSpec
from stream.core.fold import Catalogue, InterestModels
from stream.core.placements import Placement
from stream.core.rules import RuleSet
from stream.kafka.broker_clock import Clock
from stream.kafka.consumer import SourceConsumer
from stream.kafka.fencing import Fence
from stream.kafka.producer import RecordBatches
from stream.kafka.standing_slates import StandingSlates
from stream.kafka.state_store import InterestStore
from stream.observability.metrics import Metrics
from stream.pipeline.comments import CommentStage
from stream.pipeline.dead_letter import DeadLetters
from stream.pipeline.misplaced import Misplaced
from stream.pipeline.prequential import Prequential
from stream.pipeline.sent_before import SentBefore
from stream.settings import Settings


@dataclass(frozen=True)
class Serving:
    """What the pipeline has of one bundle. It is exchanged as a whole, between two micro-batches.

    Attributes:
        activation: The activation that named it.
        bundle: Hex id of the bundle.
        state_model: 16 bytes that mark every state.
        hidden: Width of h and c.
        spec: The form of the models' inputs.
        models: The models.
        published: The placements for which slates are published, in the order in which they are written.
        catalogue: Returns the current snapshot.
        prequential: Judges the standing slates by what their users do next.
    """

    activation: Activation
    bundle: str
    state_model: bytes
    hidden: int
    spec: InputSpec
    models: InterestModels
    published: tuple[Placement, ...]
    catalogue: Callable[[], Catalogue]
    prequential: Prequential


@dataclass(frozen=True, kw_only=True)
class PipelineParts:
    """What a pipeline works with.

    Attributes:
        settings: The worker's settings.
        serving: What is served at first.
        consumer: Returns the consumer. It is called at each use, because Faust creates the consumer after the pipeline.
        batches: Returns the object that sends record batches, likewise at each use.
        fence: Claims and checks partitions of the changelog.
        store: The table's partitions.
        decoder: Decodes the source records.
        comments: Holds back events behind comments to be encoded.
        dead_letters: Creates dead letters.
        misplaced: Creates the copies of records on wrong partitions. None: such records become dead letters.
        sent_before: Knows which of them have been forwarded. None: no check.
        rules: Returns the rules in force.
        standing: The standing slates of the users.
        announce: Says which bundle makes the slates of partitions from here on (stream.pipeline.switches).
        executor: Runs the models, one call at a time.
        metrics: Counts and times the steps.
        clock: The brokers' clock.
    """

    settings: Settings
    serving: Serving
    consumer: Callable[[], SourceConsumer]
    batches: Callable[[], RecordBatches]
    fence: Fence
    store: InterestStore
    decoder: EventDecoder
    comments: CommentStage
    dead_letters: DeadLetters
    misplaced: Misplaced | None
    sent_before: SentBefore | None
    rules: Callable[[], RuleSet]
    standing: StandingSlates
    announce: Callable[[Collection[int], Activation], Awaitable[None]]
    executor: Executor
    metrics: Metrics
    clock: Clock
