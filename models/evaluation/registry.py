"""Every model of the comparison by its name.

A model's module is imported only when needed, since each brings a library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from models.interfaces import Model
from models.training.regimes import FROZEN, every
from stream.core.errors import DataError

Factory = Callable[[str, Mapping[str, Any]], Model]
"""Makes a model from (preset, settings of fitting). Models that have neither ignore them."""


def _plain(module: str, name: str) -> Factory:
    return lambda preset, fit: _named(module, name)()


def _network(module: str, name: str) -> Factory:
    return lambda preset, fit: _named(module, name)(preset, fit=fit)


def _following(module: str, name: str, tables: str) -> Model:
    """Make a model without settings whose tables may follow the stream."""
    model: Model = _named(module, name)(tables=tables)
    return model


def _hybrid(preset: str, fit: Mapping[str, Any]) -> Model:
    """Make the hybrid of a recurrent, a collaborative and a content model."""
    recurrent = _named("models.training.sequential.freshet", "Freshet")(
        preset, fit=fit, name="recurrent", collaborative=False
    )
    parts = [recurrent, _plain("models.baselines.item_knn", "ItemKnn")(preset, fit)]
    parts.append(_plain("models.baselines.content", "Content")(preset, fit))
    model: Model = _named("models.baselines.hybrid", "Hybrid")(parts)
    return model


def _changed(part: str) -> Factory:
    return lambda preset, fit: _named("models.evaluation.ablation", "Changed")(part, preset, fit)


CHANGES: Final = ("without-behaviour", "with-scene", "without-value", "without-gap", "without-comment",
                  "without-action", "without-text", "without-text-term", "without-neighbours")  # fmt: skip
"""Rows of models.evaluation.ablation. They are repeated here because that module imports torch."""
COMPARED: Final[dict[str, Factory]] = {
    "popularity": _plain("models.baselines.popularity", "Popularity"),
    "item-knn": _plain("models.baselines.item_knn", "ItemKnn"),
    "sequential-knn": _plain("models.training.sequential.sequential_knn", "SequentialKnn"),
    "als": _plain("models.baselines.factors", "Als"),
    "bpr": _plain("models.baselines.factors", "Bpr"),
    "svd": _plain("models.baselines.svd", "Svd"),
    "svdpp": _plain("models.baselines.svd", "SvdPp"),
    "user-knn": _plain("models.baselines.user_knn", "UserKnn"),
    "content": _plain("models.baselines.content", "Content"),
    "language-model": _plain("models.baselines.language_model", "LanguageModel"),
    "gru4rec": _network("models.evaluation.sequential_baselines", "gru4rec"),
    "sasrec": _network("models.evaluation.sequential_baselines", "sasrec"),
    "hybrid": _hybrid,
    "freshet": _network("models.training.sequential.freshet", "Freshet"),
}
ABLATIONS: Final = {name: _changed(name.partition("-")[2]) for name in CHANGES}
FACTORIES: Final = COMPARED | ABLATIONS
"""All models: those of COMPARED, and freshet with one part left out, or with one that is off by default (ABLATIONS)."""
FOLLOWING: Final[dict[str, Callable[[str, Mapping[str, Any], str], Model]]] = {
    "popularity": lambda preset, fit, tables: _following("models.baselines.popularity", "Popularity", tables),
    "sequential-knn": lambda preset, fit, tables: _following(
        "models.training.sequential.sequential_knn", "SequentialKnn", tables
    ),
    "freshet": lambda preset, fit, tables: _named("models.training.sequential.freshet", "Freshet")(
        preset, fit=fit, tables=tables
    ),
}
"""Models with tables of neighbours or popularity, made from (preset, settings of fitting, tables)."""
GROUPS: Final = {"all": tuple(COMPARED), "ablations": ("freshet", *ABLATIONS)}
UNSEEDED: Final = ("popularity", "item-knn", "sequential-knn", "content", "language-model")
"""Models on which the seed has no effect. They are fitted once, for any number of requested seeds."""
PRESETS: Final = ("auto", "sparse", "dense")


@dataclass(frozen=True)
class Wanted:
    """Which models to make.

    Attributes:
        names: Names of FACTORIES or of GROUPS.
        preset: Preset of the networks.
        max_minutes: Limit of a network's epochs; 0 for no limit.
        tables: The tables of models in FOLLOWING (models.training.regimes.every). There is one model for each.
    """

    names: Sequence[str]
    preset: str = "auto"
    max_minutes: float = 0.0
    tables: Sequence[str] = (FROZEN,)


def make(wanted: Wanted) -> list[Model]:
    """Make the models in the requested order, each once. Raises DataError for an unknown name, preset or tables."""
    names = list(dict.fromkeys(name for asked in wanted.names for name in GROUPS.get(asked, (asked,))))
    unknown = [name for name in names if name not in FACTORIES]
    if unknown or not names:
        raise DataError(
            f"models {', '.join(unknown) or 'none'}: expected {' or '.join(GROUPS)}, or some of {', '.join(FACTORIES)}"
        )
    require_preset(wanted.preset)
    for tables in wanted.tables:
        every(tables)
    fit = {"max_minutes": wanted.max_minutes} if wanted.max_minutes else {}
    made: list[Model] = []
    for name in names:
        if name in FOLLOWING:
            made += [FOLLOWING[name](wanted.preset, fit, tables) for tables in dict.fromkeys(wanted.tables)]
        else:
            made.append(FACTORIES[name](wanted.preset, fit))
    return made


def family_of(model: Model) -> str:
    """Return the model's family, or "other" if it has none.

    The families are popularity, collaborative, content, deep, language model and hybrid.
    """
    return str(getattr(model, "family", "other"))


def without_tables(name: str) -> str:
    """Return a model's name without its tables: `freshet` for `freshet streamed`."""
    return name.partition(" ")[0]


def _named(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def require_preset(name: str) -> None:
    """Raise DataError if no preset has this name."""
    if name not in PRESETS:
        raise DataError(f"preset {name}: expected one of {', '.join(PRESETS)}")
