"""All that a gateway has of one bundle. It is exchanged as a whole; a request that has begun ends with what it began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stream.catalogue.consumer import ItemsFollower
from stream.core.placements import Placement
from stream.core.rules import RuleSet
from stream.gateway.explaining import Explaining
from stream.gateway.items import ItemCatalogue
from stream.gateway.scorer import Scorer
from stream.gateway.withdrawn import Withdrawn
from stream.inference.bundle import Bundle
from stream.inference.loading import Loaded
from stream.inference.serving import Threads, placements_of, published_of
from stream.inference.text_encoder import Encoder
from stream.settings import Settings


@dataclass(frozen=True, eq=False)
class Served:
    """What answers are made with.

    Attributes:
        loaded: The bundle and its sessions.
        catalogue: The items.
        items: Follows the topic `items` for the catalogue.
        scorer: Scores for requests.
        explaining: Explains scores.
        placements: Name -> placement.
        published: The placements for which workers publish slates.
        withdrawn: Knows what slates may show.
    """

    loaded: Loaded
    catalogue: ItemCatalogue
    items: ItemsFollower
    scorer: Scorer
    explaining: Explaining
    placements: dict[str, Placement]
    published: tuple[Placement, ...]
    withdrawn: Withdrawn

    @property
    def bundle(self) -> Bundle:
        return self.loaded.bundle

    @property
    def encoder(self) -> Encoder:
        return self.loaded.opened.encoder


def served(
    settings: Settings,
    loaded: Loaded,
    threads: Threads,
    rules: Callable[[], RuleSet],
    on_batch: Callable[[int, float], None],
    *,
    steps_back: bool = False,
) -> Served:
    """Return what answers are made with. Nothing is started.

    Args:
        settings: The settings.
        loaded: The bundle and its sessions.
        threads: The threads that run them.
        rules: Returns the rules in force.
        on_batch: Called with the size of each batch that is scored, and its seconds.
        steps_back: Whether the items are read at low priority, beside another bundle in use.
    """
    bundle, models = loaded.bundle, loaded.opened.models
    catalogue = ItemCatalogue(bundle, loaded.opened.encoder.item_vectors, settings.popular_by)
    scorer = Scorer(
        models, bundle.spec, bundle.state_model, bundle.hidden, settings.sources, threads.models, rules, on_batch,
    )  # fmt: skip
    return Served(
        loaded,
        catalogue,
        ItemsFollower(settings, catalogue, steps_back=steps_back),
        scorer,
        Explaining(bundle, models, threads.models, catalogue),
        placements_of(settings, bundle),
        published_of(settings, bundle),
        Withdrawn(catalogue, rules),
    )
