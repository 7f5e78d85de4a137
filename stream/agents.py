"""The one agent: every micro-batch of clicks, ratings and comments goes through the pipeline.

One agent with one task, since several writers on one table lose updates.
"""

from __future__ import annotations

from typing import Any

from stream.errors import SettingsError
from stream.pipeline import Pipeline
from stream.transport import MicroBatch, SourceApp


class InterestAgent:
    """Folds events into interests. `pipeline` is set by the worker before the app starts."""

    def __init__(self, app: SourceApp) -> None:
        self.pipeline: Pipeline | None = None
        self.agent: Any = app.source_agent(
            "interest", self._handle, "Folds clicks, ratings and comments into interests, answers with slates."
        )

    async def _handle(self, batch: MicroBatch) -> None:
        if self.pipeline is None:
            raise SettingsError("no models are loaded: start the worker with `freshet worker`")
        await self.pipeline.process(batch)
