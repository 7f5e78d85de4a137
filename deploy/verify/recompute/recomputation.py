"""Collects what a bundle's models need, partition by partition, then computes all of it again."""

from __future__ import annotations

from pathlib import Path

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.verify.accepted_settings import Setting
from deploy.verify.recompute.context import Context
from deploy.verify.recompute.epochs import follow as follow_epochs
from deploy.verify.recompute.items import Items
from deploy.verify.recompute.rules import follow
from deploy.verify.recompute.sample import Sample, decoded, parsed
from deploy.verify.recompute.slates import Slates
from deploy.verify.recompute.states import States
from deploy.verify.report import Report
from deploy.verify.source_index import SourceIndex
from stream.inference.bundle import CURRENT, current, load
from stream.inference.models import open_models
from stream.inference.text_encoder import open_encoder
from stream.settings import Settings


class Recomputation:
    """Computes the states and slates of a sample of users again.

    Args:
        bundle: A bundle's folder, or a folder of bundles with CURRENT.
        users: Number of users in the sample; 0: all users.
        log: Where the records come from.
        settings: Settings of the deployment.
        report: Where to add what was found.
    """

    def __init__(self, bundle: Path, users: int, log: Log, settings: Settings, report: Report) -> None:
        loaded = load(current(bundle) if (bundle / CURRENT).exists() else bundle)
        models, encoder = open_models(loaded, "cpu"), open_encoder(loaded, "cpu")
        self._context = Context(loaded, models, encoder, Items(loaded, encoder), settings, report)
        self._log = log
        self._sample = Sample(users, log, settings)

    @property
    def rating_scale(self) -> tuple[float, float]:
        """The rating scale on which the bundle was trained."""
        return self._context.bundle.spec.rating_scale

    def collect(
        self,
        source_index: SourceIndex,
        partitions: int,
        changelog: dict[TopicPartition, Span],
        outputs: dict[TopicPartition, Span],
        envelope: Setting[str],
    ) -> None:
        """Read one partition again and collect the records of the sampled users.

        Args:
            source_index: The source records of the partition.
            partitions: Number of partitions of each topic.
            changelog: The offsets of the changelog.
            outputs: The offsets of the slates.
            envelope: The envelope that events were taken out of.
        """
        self._sample.collect(source_index, partitions, changelog, outputs, envelope)

    def finish(self) -> None:
        """Compute everything that was collected."""
        users = [(user, decoded(user.states), parsed(user.slates)) for user in self._sample.users]
        anyone = [(partition, *found) for partition, record in self._sample.anyone for found in parsed([record])]
        wanted = {state.catalogue for _, states, _ in users for _, state in states}
        wanted |= {slate["catalogue"] for _, _, slates in users for _, slate in slates}
        wanted |= {slate["catalogue"] for _, _, slate in anyone}
        shown = [slate for _, _, slates in users for _, slate in slates] + [slate for _, _, slate in anyone]
        settings = self._context.settings
        at = {slate["rules"] for slate in shown if "rules" in slate}
        self._context.rules = follow(self._log, settings.rules_topic, at, settings.key) if at else {}
        named = {slate["tables"] for slate in shown if "tables" in slate}
        if named:
            self._context.epochs = follow_epochs(self._log, settings.tables_topic, named)
        self._context.items.keep_bodies = bool(at) or any(one.filter for one in settings.placements.values())
        live = self._context.items.follow(self._log, self._context.settings.items_topic, wanted)
        check_states, check_slates = States(self._context), Slates(self._context)
        for partition, offset, slate in anyone:
            check_slates.check_anyone(partition, offset, slate, live[slate["catalogue"]])
        for user, states, slates in users:
            check_states.check(user, states, live)
            check_slates.check(user, states, slates, live)
        check_slates.check_order()
        self._context.note_others()
