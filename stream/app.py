"""The Faust app. `faust -A stream.app agents` and `faust -A stream.app tables` show what it consists of.

The app is created from the settings on first access, never at import. `freshet worker` runs it (stream.worker).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream.core.errors import SettingsError
from stream.kafka.app import SourceApp
from stream.kafka.batch import MicroBatch
from stream.kafka.state_store import InterestStore, interest_table
from stream.pipeline.pipeline import Pipeline
from stream.settings import Settings, load

if TYPE_CHECKING:
    app: SourceApp


class InterestAgent:
    """The only agent. It passes every micro-batch of clicks, ratings and comments to the pipeline.

    It has one task, because several writers on one table lose updates. The worker sets `pipeline` before the app
    starts.
    """

    def __init__(self, app: SourceApp) -> None:
        self.pipeline: Pipeline | None = None
        self.agent: Any = app.source_agent(
            "interest", self._handle, "Folds clicks, ratings and comments into interests and answers with slates."
        )

    async def _handle(self, batch: MicroBatch) -> None:
        if self.pipeline is None:
            raise SettingsError("no models are loaded: start the worker with `freshet worker`")
        await self.pipeline.process(batch)


class InterestApp(SourceApp):
    """The Faust app with its agent `interest` and its table `interest`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.store = InterestStore(interest_table(self, settings.partitions))
        self.interest = InterestAgent(self)


def __getattr__(name: str) -> Any:
    """Return `stream.app.app` for Faust's command line, created from the settings of the environment."""
    if name == "app":
        made = globals()["app"] = InterestApp(load())
        return made
    raise AttributeError(name)
