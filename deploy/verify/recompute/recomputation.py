"""Collects what the bundles' models need, partition by partition, then computes all of it again.

With a folder of bundles, each slate is scored with the bundle that it names, and each state computed with the bundle whose step
model it names: of several ones, with that of the slate that shows it. One bundle after the other, so that memory holds one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.verify.accepted_settings import Setting
from deploy.verify.recompute.context import Context
from deploy.verify.recompute.epochs import Epochs
from deploy.verify.recompute.epochs import follow as follow_epochs
from deploy.verify.recompute.items import Items
from deploy.verify.recompute.rules import follow
from deploy.verify.recompute.sample import Sample, SampledUser, Slate, decoded, parsed
from deploy.verify.recompute.slates import Slates
from deploy.verify.recompute.states import States
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from stream.core.errors import FreshetError
from stream.core.state import Interest
from stream.inference.bundle import CURRENT, MANIFEST, Bundle, current, load
from stream.inference.models import Models, open_models
from stream.inference.text_encoder import Encoder, open_encoder
from stream.settings import Settings

User = tuple[SampledUser, list[tuple[int, Interest]], list[tuple[int, Slate]]]
"""A user of the sample with the states and slates as (offset, what is in it)."""


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
        self._folder = bundle if (bundle / CURRENT).exists() else None
        self._bundle = load(current(bundle) if self._folder is not None else bundle)
        self._settings = settings
        self._report = report
        self._log = log
        self._sample = Sample(users, log, settings)

    @property
    def rating_scale(self) -> tuple[float, float]:
        """The rating scale on which the bundle was trained."""
        return self._bundle.spec.rating_scale

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
        settings, log = self._settings, self._log
        users: list[User] = [(user, decoded(user.states), parsed(user.slates)) for user in self._sample.users]
        anyone = [(partition, *found) for partition, record in self._sample.anyone for found in parsed([record])]
        shown = [slate for _, _, slates in users for _, slate in slates] + [slate for _, _, slate in anyone]
        at = {slate["rules"] for slate in shown if "rules" in slate}
        rules = follow(log, settings.rules_topic, at, settings.key) if at else {}
        named = {slate["tables"] for slate in shown if "tables" in slate}
        epochs = follow_epochs(log, settings.tables_topic, named) if named else Epochs()
        models = self._models(shown, users)
        _assign(users, models)
        judged = {self._bundle.id}
        for identity in models.keys() - judged:
            loaded = self._loaded(identity)
            if loaded is None:
                for user, _, _ in users:
                    user.makers = {at: "" if maker == identity else maker for at, maker in user.makers.items()}
                continue
            judged.add(identity)
            self._judge(
                Context(*loaded, settings, self._report, rules=rules, epochs=epochs, counts=False), users, anyone
            )
        context = Context(
            *_opened(self._bundle), settings, self._report, rules=rules, epochs=epochs, judged=frozenset(judged)
        )
        self._judge(context, users, anyone)
        context.note_others()

    def _models(self, slates: list[Slate], users: list[User]) -> dict[str, bytes]:
        """Return id -> state model of the bundle and of those in the folder that are named, directly or by their model."""
        found = {self._bundle.id: self._bundle.state_model}
        named = {slate["bundle"] for slate in slates}
        stamps = {state.model for _, states, _ in users for _, state in states}
        for path in sorted(self._folder.glob(f"*/{MANIFEST}")) if self._folder is not None else ():
            try:
                stamp = bytes.fromhex(json.loads(path.read_bytes())["state_model"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # none that a worker could have served
            if path.parent.name in named or (stamp in stamps and stamp not in found.values()):
                found.setdefault(path.parent.name, stamp)
        return found

    def _loaded(self, identity: str) -> tuple[Bundle, Models, Encoder, Items] | None:
        """Return a bundle of the folder with its sessions; None, with a note, if it cannot be used."""
        try:
            return _opened(load((self._folder or Path()) / identity))
        except FreshetError as error:
            message = f"the bundle {identity[:12]} cannot be used, so what it has made is not recomputed: {error}"
            self._report.note(Violation("other-model", message))
            return None

    def _judge(self, context: Context, users: list[User], anyone: list[tuple[int, int, Slate]]) -> None:
        """Check what one bundle has made."""
        identity, settings = context.bundle.id, self._settings
        wanted = {state.catalogue for user, states, _ in users for at, state in states if user.makers[at] == identity}
        shown = [slate for _, _, slates in users for _, slate in slates] + [slate for _, _, slate in anyone]
        wanted |= {slate["catalogue"] for slate in shown if slate["bundle"] == identity}
        context.items.keep_bodies = bool(context.rules) or any(one.filter for one in settings.placements.values())
        live = context.items.follow(self._log, settings.items_topic, wanted)
        check_states, check_slates = States(context), Slates(context)
        for partition, offset, slate in anyone:
            check_slates.check_anyone(partition, offset, slate, live)
        for user, states, slates in users:
            check_states.check(user, states, live)
            check_slates.check(user, states, slates, live)
        if context.counts:
            check_slates.check_order()


def _opened(bundle: Bundle) -> tuple[Bundle, Models, Encoder, Items]:
    models, encoder = open_models(bundle, "cpu"), open_encoder(bundle, "cpu")
    return bundle, models, encoder, Items(bundle, encoder)


def _assign(users: list[User], models: Mapping[str, bytes]) -> None:
    """Say of each state with which bundle it is computed again: that of the slate that shows it, if the model is the same."""
    by_model = {stamp: identity for identity, stamp in reversed([*models.items()])}  # the first of several counts
    for user, states, slates in users:
        by_chain: dict[str, str] = {}
        for _, slate in sorted(
            slates, key=lambda one: not one[1]["events"]
        ):  # first those by the worker that made the state
            by_chain.setdefault(slate["chain"], slate["bundle"])
        for offset, state in states:
            shown = by_chain.get(state.chain.hex(), "")
            user.makers[offset] = shown if models.get(shown) == state.model else by_model.get(state.model, "")
