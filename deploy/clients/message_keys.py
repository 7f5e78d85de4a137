"""Messages of a data set under the keys that the setting `key` says: models.data writes user ids as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stream.core.errors import DataError, RecordError
from stream.core.keys import FORMS, UTF8, key_of
from stream.core.messages import SOURCE_TOPICS

if TYPE_CHECKING:
    from models.data import Message


def keyed(message: Message, form: str) -> Message:
    """An event's message with its user's key in this form; any other as it is. Raises RecordError where the user has none."""
    if form == UTF8 or message.topic not in SOURCE_TOPICS:
        return message
    return message._replace(key=key_of(message.key.decode(), form))


def require_keys(name: str, users: Iterable[str], form: str) -> None:
    """name: of a data set; users: of its events. Raises DataError where one has no key in this form, with how many have none."""
    without = sorted({user for user in users if FORMS[form].write(user) is None})
    if not without:
        return
    try:
        key_of(without[0], form)
    except RecordError as error:
        more = f"; and {len(without) - 1:,} more" if len(without) > 1 else ""
        raise DataError(f"{name}: user: {error}{more}") from None
