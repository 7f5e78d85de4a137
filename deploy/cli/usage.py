"""Usage errors quote the user's arguments, which must not control the terminal or change the direction of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
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


def _wrong_number(cause: BaseException | None) -> str:
    """Return what was found and what is expected if a value is no number; "" for any other error."""
    if not isinstance(cause, ValidationError):
        return ""
    first = cause.errors()[0]
    found = str(first["input"])
    if first["type"] == "int_parsing":
        return f"found {found[:40]!r}, expected a whole number"
    if first["type"] != "float_parsing":
        return ""
    comma = re.fullmatch(r"([+-]?[0-9]+),([0-9]+)", found, re.ASCII)
    return f"found {found[:40]!r}, expected a number{f' with a decimal point: {comma[1]}.{comma[2]}' if comma else ''}"


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        if isinstance(text := vars(error).get("message"), str):
            text = _wrong_number(error.__cause__) or text
            vars(error)["message"] = "\n".join(map(printable, text.split("\n")))
        raise
