"""When the tables of a model (neighbours and popularity) are counted: once, or again as the stream goes on."""

from __future__ import annotations

from typing import Final

from stream.core.errors import DataError

FROZEN: Final = "frozen"
UNDECAYED: Final = "undecayed"
STREAMED: Final = "streamed"
EPOCHS: Final = "epochs:"
MOST_EVENTS: Final = 10**9


def every(tables: str) -> int:
    """Return after how many events tables are renewed: 0 for never, 1 for streamed, N for epochs:N.

    FROZEN is what `freshet train` makes, with a half-life if validation chose one. UNDECAYED is the same without one.
    Raises DataError for other texts.
    """
    if tables in (FROZEN, UNDECAYED, STREAMED):
        return int(tables == STREAMED)
    number = tables.removeprefix(EPOCHS)
    if tables.startswith(EPOCHS) and number.isascii() and number.isdigit() and 0 < int(number) <= MOST_EVENTS:
        return int(number)
    raise DataError(
        f"tables {tables}: expected {FROZEN}, {UNDECAYED}, {STREAMED}, or {EPOCHS}N with N from 1 to {MOST_EVENTS:,}, such "
        f"as {EPOCHS}1000"
    )


def named(model: str, tables: str) -> str:
    """Return the name of a model with these tables: the model's own if they are frozen."""
    return model if tables == FROZEN else f"{model} {tables}"
