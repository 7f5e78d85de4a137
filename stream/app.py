"""The Faust app. `faust -A stream.app agents` and `faust -A stream.app tables` show what it consists of.

The app is made from the settings when it is asked for, never at import; `freshet worker` runs it (stream.worker).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream.agents import InterestAgent
from stream.settings import Settings, load
from stream.store import InterestStore, interest_table
from stream.transport import SourceApp

if TYPE_CHECKING:
    app: SourceApp


class InterestApp(SourceApp):
    """The app with its agent `interest` and its table `interest`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.store = InterestStore(interest_table(self, settings.partitions))
        self.interest = InterestAgent(self)


def __getattr__(name: str) -> Any:
    """`stream.app.app`, for Faust's command line: made from the settings of the environment."""
    if name == "app":
        made = globals()["app"] = InterestApp(load())
        return made
    raise AttributeError(name)
