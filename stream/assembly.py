"""Builds the parts of a worker around its Faust app. `stream.worker` runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from stream.app import InterestApp
from stream.catalogue.bundles import BundlesFollower, BundlesWriter
from stream.catalogue.catalogue import Catalogue, Snapshot
from stream.catalogue.consumer import ItemsFollower
from stream.catalogue.popular_slates import PopularSlates
from stream.core.fencing_log import LeftOut
from stream.core.rules import RuleBook
from stream.inference.bundle import Bundle
from stream.inference.loading import Loaded
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
from stream.pipeline.switches import Switches
from stream.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a worker is made of before its event loop runs.

    Attributes:
        settings: The worker's settings.
        threads: The threads that run the models.
        membership: The worker's place in the group, which belongs to settings.data_dir.
        name: The worker's name, 32 hex digits, new at each start.
        topics: Topic -> its id, if the broker reports ids.
        cluster: The cluster's id.
        room: Source topic -> maximum bytes of a record batch there.
    """

    settings: Settings
    threads: Threads
    membership: Membership
    name: str
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


@dataclass(frozen=True)
class Served:
    """All that a worker has of one bundle. It is exchanged as a whole.

    Attributes:
        loaded: The bundle and its sessions.
        items: Follows the topic `items` for its catalogue.
    """

    loaded: Loaded
    items: ItemsFollower

    @property
    def bundle(self) -> Bundle:
        return self.loaded.bundle

    @property
    def opened(self) -> Opened:
        return self.loaded.opened

    @property
    def catalogue(self) -> Catalogue:
        return self.items.catalogue

    def snapshot(self) -> Snapshot:
        return self.items.catalogue.snapshot


class CountingEncoder:
    """Encodes the texts of comments, and counts them.

    Attributes:
        encoded: Number of texts so far.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.encoded = 0

    def use(self, encoder: Encoder) -> bool:
        """Encode with another bundle's encoder from here on. Return whether it gives the same vectors and ratings."""
        same = encoder.encodes_like(self._encoder)
        self._encoder = encoder
        return same

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
        switches: Says which bundle makes the slates of partitions.
        sent_before: Reads extra records; None if it does not.
        metrics: Counts what happens.
    """

    app: InterestApp
    folder: FolderCheck
    fence: Fence
    changelog: ChangelogReader
    pipeline: Pipeline
    comments: CommentStage
    switches: Switches
    sent_before: SentBefore | None
    metrics: Metrics

    def open_partition(self, partition: int) -> int:
        return self.folder.prepare(partition)

    def drop_partition(self, partition: int) -> None:
        self.app.store.drop(partition)

    async def claim(self, partitions: Iterable[int]) -> None:
        wanted = list(partitions)
        await self.fence.take_over(wanted)
        await self.pipeline.taken_over(wanted)
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
        return self.pipeline.calls_ended() + (self.sent_before.records if self.sent_before is not None else 0)

    def held_up(self) -> str:
        return self.changelog.held

    def on_revoked(self) -> None:
        self.fence.revoked()
        self.switches.forget()
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
        fence: Claims partitions of the changelog.
        switches: Says which bundle makes the slates of partitions.
        dead_letters: Creates dead letters.
        serving: Makes what the pipeline has of a bundle.
    """

    app: InterestApp
    consumer: SourceConsumer
    encoder: CountingEncoder
    comments: CommentStage
    pipeline: Pipeline
    popular_slates: PopularSlates
    fence: Fence
    switches: Switches
    dead_letters: DeadLetters
    serving: Callable[[Served], Serving]

    async def switch(self, served: Served) -> None:
        """Serve another bundle from the next micro-batch and the next slate on.

        No slate is on its way then. Before the first one of the bundle, the topic `bundles` has where it begins.
        """
        async with self.popular_slates.lock, self.pipeline.turn:
            await self.switches.announce(self.fence.partitions(), served.loaded.activation)
            bundle, encoder = served.bundle, served.opened.encoder
            self.pipeline.use(self.serving(served))
            self.popular_slates.use(bundle.id, bundle.popularity)
            self.dead_letters.use(bundle.id)
            same = self.encoder.use(encoder)
            self.comments.use(self.encoder.encode, self.encoder.encode_and_read if encoder.reads else None, same=same)


def assemble(
    inputs: Inputs, served: Served, book: RuleBook, followed: BundlesFollower, writer: BundlesWriter, metrics: Metrics
) -> Parts:
    """Build the app and all that it needs, serving a bundle. Nothing is started."""
    settings, threads = inputs.settings, inputs.threads
    app = InterestApp(settings)
    encoder = CountingEncoder(served.opened.encoder)
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
    switches = Switches(settings, inputs.name, fence, followed, writer.write, app.clock.now_ms)
    letters = DeadLetters(served.bundle.id, app.clock.now_ms)

    def serving(of: Served) -> Serving:
        return _serving(settings, of, standing)

    pipeline = Pipeline(
        PipelineParts(
            settings=settings,
            serving=serving(served),
            consumer=lambda: app.consumer,
            batches=lambda: app.producer.batches,
            fence=fence,
            store=app.store,
            decoder=decoder_of(settings),
            comments=comments,
            dead_letters=letters,
            misplaced=None if sent_before is None else Misplaced(settings.sources, inputs.room),
            sent_before=sent_before,
            rules=lambda: book.current,
            standing=standing,
            announce=switches.announce,
            executor=threads.models,
            metrics=metrics,
            clock=app.clock,
        )
    )
    losses = Losses(settings.accept_loss, metrics.accepted_loss.inc)
    folder = FolderCheck(app.store, inputs.changelog(), inputs.source_ids(), metrics.damaged.inc, losses.lose)
    listener = StateOwner(app, folder, fence, changelog, pipeline, comments, switches, sent_before, metrics)
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
        settings, served.bundle.id, served.bundle.popularity, fence, lambda: app.producer.batches, app.clock,
        lambda: book.current, published, switches.has,
    )  # fmt: skip
    return Parts(app, consumer, encoder, comments, pipeline, popular_slates, fence, switches, letters, serving)


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
        worker=inputs.name,
    )


def _serving(settings: Settings, served: Served, standing: StandingSlates) -> Serving:
    """Return what the pipeline has of a bundle."""
    bundle, spec = served.bundle, served.bundle.spec
    published = published_of(settings, bundle)
    judged = min(published, key=lambda placement: placement.name)  # the default one has the name ""
    return Serving(
        served.loaded.activation, bundle.id, bundle.state_model, bundle.hidden, spec, served.opened.models, published,
        served.snapshot,
        Prequential(standing, judged.name, judged.size, bundle.popularity, spec.chosen(), spec.refused()),
    )  # fmt: skip


def _outputs(settings: Settings) -> dict[str, str]:
    """Return topic -> the name under which its send errors are counted."""
    return {
        **dict.fromkeys(settings.sources, "sources"),
        settings.changelog_topic: "changelog",
        settings.recommendations_topic: "recommendations",
        settings.dead_letters_topic: "dead-letters",
        settings.forgotten_topic: "forgotten",
    }
