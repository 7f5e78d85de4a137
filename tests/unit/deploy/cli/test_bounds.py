"""Numbers and choices on a command line: each has bounds, and beyond them it is wrong usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from deploy.cli import bounds
from deploy.cli import main as cli
from models.data import generate
from models.data.split import held_last
from stream.core.errors import DataError

EXEMPT = {
    ("worker", "--web-port"),
    ("tally", "--web-port"),
    ("serve", "--port"),
    ("send click", "--rank"),
    ("send click", "--dwell-ms"),
}
"""The settings and the schemas bound them."""
SCALES = {"--rating-scale"}
"""deploy.cli.data_options.scale_of bounds both numbers."""
EVENT_VALUES = {"--value", "--time"}
"""What a setting bounds."""


def options() -> Iterator[tuple[str, Any]]:
    def below(group: Any, before: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            words = f"{before} {name}".strip()
            if hasattr(command, "commands"):
                yield from below(command, words)
            else:
                yield from ((words, one) for one in command.params if one.param_type_name == "option")

    return below(typer.main.get_command(cli.app), "")


NUMBERS = [
    (words, one.opts[0], one.type_descriptor.annotation, one.min, one.max)
    for words, one in options()
    if (words, one.opts[0]) not in EXEMPT
    and one.type_descriptor.annotation in (int, float)
    and (words, one.opts[0]) not in EXEMPT
    and one.opts[0] not in SCALES | EVENT_VALUES
]


def ended(words: str, option: str, value: str) -> Any:
    needed = {"train": ["generated", "--out", "x"], "evaluate": ["generated"], "replay": ["generated"]}
    needed |= {"read-ratings": ["generated", "--out", "x"], "deadletters fix": ["x"]}
    return CliRunner().invoke(cli.app, [*words.split(), *needed.get(words, ()), option, value])


@pytest.mark.parametrize(("words", "option", "kind", "least", "most"), NUMBERS, ids=lambda one: str(one))
def test_every_number_has_bounds_and_what_lies_beyond_is_wrong_usage(
    words: str, option: str, kind: type, least: float | None, most: float | None
) -> None:
    assert least is not None, f"{words} {option}: no least"
    assert most is not None, f"{words} {option}: no most"
    wrong = ["-1", "9" * 23, "word", "nan"] + ([] if kind is int else ["inf", "-inf"])
    for value in wrong:
        found = ended(words, option, value)
        assert found.exit_code == 2, (value, found.exception)


def test_options_with_numbers_are_found() -> None:
    found = {(words, option) for words, option, *_ in NUMBERS}
    assert {("train", "--seed"), ("evaluate", "--seeds"), ("verify", "--wait"), ("replay", "--rate")} <= found
    assert len(found) > 20


@pytest.mark.parametrize(
    "given",
    [
        ("train", "--preset"), ("train", "--choices"), ("train", "--action"), ("train", "--min-time"),
        ("evaluate", "--preset"), ("evaluate", "--protocol"), ("evaluate", "--models"), ("evaluate", "--choices"),
        ("evaluate", "--action"), ("evaluate", "--tables"), ("replay", "--min-time"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["word", "nan", "-1", "9" * 23])
def test_an_unknown_word_is_told_before_anything_is_trained(
    given: tuple[str, str], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("reached")

    monkeypatch.setattr("models.training.train.train", reached)
    monkeypatch.setattr("models.evaluation.evaluate.compare", reached)
    found = ended(*given, value)
    assert found.exit_code == 2 or isinstance(found.exception, DataError), found.exception


def test_the_bounds_are_those_of_the_libraries() -> None:
    np.random.default_rng(bounds.SEED)
    np.random.RandomState(bounds.SEED)
    torch.Generator().manual_seed(bounds.SEED)
    assert not held_last(generate(), bounds.HELD_OUT).any()


def test_a_number_is_finite() -> None:
    assert (bounds.number(None), bounds.number(1.5)) == (None, 1.5)
    for value in (float("nan"), float("inf")):
        with pytest.raises(typer.BadParameter, match=f"found {value}, expected a number"):
            bounds.number(value)
