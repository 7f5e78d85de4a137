"""What is said of wrong usage repeats somebody's arguments: nothing in them may steer the terminal, or turn the text around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from deploy.clients.printable import printable


class Commands(TyperGroup):
    """All commands; their usage errors are printable, whichever of them raises one."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """As typer does."""
        with _printable():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """As typer does."""
        with _printable():
            return super().invoke(ctx)


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        if isinstance(said := vars(error).get("message"), str):
            vars(error)["message"] = "\n".join(map(printable, said.split("\n")))
        raise
