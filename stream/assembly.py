"""Builds the parts of a worker around its Faust app. `stream.worker` runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stream.app import InterestApp
from stream.catalogue.catalogue import Catalogue
from stream.catalogue.popular_slates import PopularSlates
from stream.core.fencing_log import LeftOut
from stream.core.rules import RuleBook
from stream.inference.bundle import Bundle
from stream.inference.models import Models
from stream.inference.serving import Opened, Threads, published_of
from stream.inference.text_encoder import Encoder, Vectors
from stream.kafka.changelog_reader import ChangelogReader
from stream.kafka.consumer import SourceConsumer
from stream.kafka.decoding import decoder_of
from stream.kafka.fencing import Fence
from stream.kafka.losses import Losses
from stream.kafka.membership import Membership
from stream.kafka.standing_slates import StandingSlates
from stream.kafka.store_identity import Changelog, FolderCheck
from stream.observability.metrics import Metrics
from stream.pipeline.comments import CommentStage
from stream.pipeline.dead_letter import DeadLetters
from stream.pipeline.misplaced import Misplaced
from stream.pipeline.parts import PipelineParts, Serving
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.prequential import Prequential
from stream.pipeline.sent_before import SentBefore, since_reader
from stream.settings import Settings


@dataclass(frozen=True)
class Inputs:
    """What a worker is made of before its event loop runs.

    Attributes:
        settings: The worker's settings.
        bundle: The loaded bundle.
        opened: The bundle's models, ready to run.
        threads: The threads that run the models.
        membership: The worker's place in the group, which belongs to settings.data_dir.
        topics: Topic -> its id, if the broker reports ids.
        cluster: The cluster's id.
        room: Source topic -> maximum bytes of a record batch there.
    """

    settings: Settings
    bundle: Bundle
    opened: Opened
    threads: Threads
    membership: Membership
    topics: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    room: Mapping[str, int] = field(default_factory=dict)

    def source_ids(self) -> dict[str, str]:
        """Return source topic -> its id, of those whose id is known."""
        return {name: self.topics[name] for name in self.settings.sources if name in self.topics}

    def changelog(self) -> Changelog:
        """Return what identifies the changelog."""
        topic = self.settings.changelog_topic
        return Changelog(self.cluster, topic, self.topics.get(topic, ""))


class CountingEncoder:
    """Encodes the texts of comments, and counts them.

    Attributes:
        encoded: Number of texts so far.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.encoded = 0

    @property
    def reads(self) -> bool:
        """Whether it can read a rating from a text."""
        return self._encoder.reads

    def encode(self, text: str) -> Vectors:
        vector = self._encoder.encode(text)
        self.encoded += 1
        return vector

    def encode_and_read(self, text: str) -> tuple[Vectors, float]:
        found = self._encoder.encode_and_read(text)
        self.encoded += 1
        return found


@dataclass(frozen=True)
class StateOwner:
    """Owns the states of the assigned partitions: the `PartitionListener` of this worker.

    Attributes:
        app: The Faust app.
        folder: Opens partitions of the table.
        fence: Claims partitions of the changelog.
        changelog: Reads the changelog for a takeover.
        pipeline: Processes the micro-batches.
        comments: Holds back events.
        models: Runs the model calls.
        sent_before: Reads extra records; None if it does not.
        metrics: Counts what happens.
    """

    app: InterestApp
    folder: FolderCheck
    fence: Fence
    changelog: ChangelogReader
    pipeline: Pipeline
    comments: CommentStage
    models: Models
    sent_before: SentBefore | None
    metrics: Metrics

    def open_partition(self, partition: int) -> int:
        return self.folder.prepare(partition)

    def drop_partition(self, partition: int) -> None:
        self.app.store.drop(partition)

    async def claim(self, partitions: Iterable[int]) -> None:
        wanted = list(partitions)
        await self.fence.take_over(wanted)
        self.pipeline.reissues.begin(wanted)
        if any(self.app.store.empty(partition, 1) for partition in wanted):
            self.app.consumer.wake()  # there may be no event for long, and they are to be deleted

    def is_claimed(self, partition: int) -> bool:
        return self.app.store.claim(partition).epoch > 0

    def last_written(self, partition: int) -> int:
        return self.fence.written(partition)

    async def drained(self, seconds: float) -> bool:
        return await self.comments.drained(seconds)

    def calls_ended(self) -> int:
        return self.models.ended + (self.sent_before.records if self.sent_before is not None else 0)

    def held_up(self) -> str:
        return self.changelog.held

    def on_revoked(self) -> None:
        self.fence.revoked()
        self.pipeline.revoked()

    def on_committed(self) -> None:
        self.metrics.observe_commit(self.app.clock.now())
        if self.pipeline.committed():
            self.app.consumer.wake()

    def on_left_out(self, records: LeftOut) -> None:
        self.metrics.observe_left_out(records)


@dataclass(frozen=True)
class Parts:
    """What runs in a worker once its catalogue is read.

    Attributes:
        app: The Faust app, ready to start.
        consumer: Its consumer.
        encoder: Encodes the texts of comments.
        comments: Holds back events until their comments are encoded.
        pipeline: Processes the micro-batches.
        popular_slates: Publishes the slate for unknown users.
    """

    app: InterestApp
    consumer: SourceConsumer
    encoder: CountingEncoder
    comments: CommentStage
    pipeline: Pipeline
    popular_slates: PopularSlates


def assemble(inputs: Inputs, catalogue: Catalogue, book: RuleBook, metrics: Metrics) -> Parts:
    """Build the app and all that it needs. Nothing is started."""
    settings, threads = inputs.settings, inputs.threads
    app = InterestApp(settings)
    encoder = CountingEncoder(inputs.opened.encoder)
    comments = CommentStage(
        encoder.encode, threads.texts, settings.comment_cache, encoder.encode_and_read if encoder.reads else None,
        threads.urgent,
    )  # fmt: skip
    changelog = ChangelogReader(settings, app.store.changelog_topic)
    fence = _fence(inputs, app, changelog, metrics)
    sent_before = None
    if settings.misplaced == "forward":
        sent_before = SentBefore(lambda: app.consumer.starts.at_start, since_reader(settings))
    standing = StandingSlates(app.store)
    pipeline = Pipeline(_pipeline_parts(inputs, app, fence, comments, sent_before, standing, catalogue, book, metrics))
    losses = Losses(settings.accept_loss, metrics.accepted_loss.inc)
    folder = FolderCheck(app.store, inputs.changelog(), inputs.source_ids(), metrics.damaged.inc, losses.lose)
    listener = StateOwner(app, folder, fence, changelog, pipeline, comments, inputs.opened.models, sent_before, metrics)
    app.use(inputs.membership, inputs.room, listener, losses)
    app.interest.pipeline = pipeline
    outputs = _outputs(settings)
    app.on_send_error = lambda topic: metrics.send_failed(outputs.get(topic, topic))
    consumer: SourceConsumer = app.consumer  # Faust creates it now
    comments.on_ready = consumer.wake

    def published(partition: int, offset: int) -> None:
        metrics.slates.labels("popularity", "false").inc()
        standing.passed(partition, offset)

    popular_slates = PopularSlates(
        settings, inputs.bundle.id, inputs.bundle.popularity, fence, lambda: app.producer.batches, app.clock,
        lambda: book.current, published,
    )  # fmt: skip
    return Parts(app, consumer, encoder, comments, pipeline, popular_slates)


def _fence(inputs: Inputs, app: InterestApp, changelog: ChangelogReader, metrics: Metrics) -> Fence:
    return Fence(
        app.store,
        lambda: app.producer.batches,
        changelog.read,
        changelog.find,
        inputs.source_ids(),
        inputs.settings.partitions,
        on_left_out=metrics.observe_left_out,
        key=inputs.settings.key,
    )


def _pipeline_parts(
    inputs: Inputs,
    app: InterestApp,
    fence: Fence,
    comments: CommentStage,
    sent_before: SentBefore | None,
    standing: StandingSlates,
    catalogue: Catalogue,
    book: RuleBook,
    metrics: Metrics,
) -> PipelineParts:
    settings, bundle = inputs.settings, inputs.bundle
    published = published_of(settings, bundle)
    judged = min(published, key=lambda placement: placement.name)  # the default one has the name ""
    return PipelineParts(
        settings=settings,
        serving=Serving(bundle.id, bundle.state_model, bundle.hidden, bundle.spec, inputs.opened.models, published),
        consumer=lambda: app.consumer,
        batches=lambda: app.producer.batches,
        fence=fence,
        store=app.store,
        decoder=decoder_of(settings),
        comments=comments,
        dead_letters=DeadLetters(bundle.id, app.clock.now_ms),
        misplaced=None if sent_before is None else Misplaced(settings.sources, inputs.room),
        sent_before=sent_before,
        catalogue=lambda: catalogue.snapshot,
        rules=lambda: book.current,
        standing=standing,
        prequential=Prequential(
            standing, judged.name, judged.size, bundle.popularity, bundle.spec.chosen(), bundle.spec.refused()
        ),
        executor=inputs.threads.models,
        metrics=metrics,
        clock=app.clock,
    )


def _outputs(settings: Settings) -> dict[str, str]:
    """Return topic -> the name under which its send errors are counted."""
    return {
        **dict.fromkeys(settings.sources, "sources"),
        settings.changelog_topic: "changelog",
        settings.recommendations_topic: "recommendations",
        settings.dead_letters_topic: "dead-letters",
        settings.forgotten_topic: "forgotten",
    }
