"""Gives messages of a data set keys in the form of the setting `key`: models.data writes user ids as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stream.core.errors import DataError, RecordError
from stream.core.keys import FORMS, UTF8, key_of
from stream.core.messages import SOURCE_TOPICS

if TYPE_CHECKING:
    from models.data import Message


def keyed(message: Message, form: str) -> Message:
    """Return an event's message with its user's key in this form, and any other message unchanged.

    Raises RecordError if the user has no key in this form.
    """
    if form == UTF8 or message.topic not in SOURCE_TOPICS:
        return message
    return message._replace(key=key_of(message.key.decode(), form))


def require_keys(name: str, users: Iterable[str], form: str) -> None:
    """Check that all users have a key in this form.

    Args:
        name: Name of the data set.
        users: Users of its events.
        form: Form of the keys.

    Raises:
        DataError: A user has none. It reports how many have none.
    """
    without = sorted({user for user in users if FORMS[form].write(user) is None})
    if not without:
        return
    try:
        key_of(without[0], form)
    except RecordError as error:
        more = f"; and {len(without) - 1:,} more" if len(without) > 1 else ""
        raise DataError(f"{name}: user: {error}{more}") from None
