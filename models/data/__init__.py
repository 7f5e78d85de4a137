"""Data sets: one structure for all of them (`DataSet`), a reader per form, splits, and a generated world."""

from models.data.dataset import DataSet, Message, event_messages, item_messages
from models.data.folders import read
from models.data.generated import generate
from models.data.split import Split, split_last

__all__ = ["DataSet", "Message", "Split", "event_messages", "generate", "item_messages", "read", "split_last"]
