"""Usage errors quote the user's arguments, which must not control the terminal or change the direction of the text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from deploy.clients.printable import printable


class Commands(TyperGroup):
    """The group of all commands. It makes the usage errors of every command printable."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Do what typer does, with printable usage errors."""
        with _printable():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Do what typer does, with printable usage errors."""
        with _printable():
            return super().invoke(ctx)


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        if isinstance(text := vars(error).get("message"), str):
            vars(error)["message"] = "\n".join(map(printable, text.split("\n")))
        raise
