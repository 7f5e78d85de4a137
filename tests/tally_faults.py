"""A tally with faults that a file in its folder switches on, for the tests of alerts.

python -m tests.tally_faults      a real `stream.tally.process.run` with the settings of the environment
"""

from __future__ import annotations

import asyncio
from typing import Any

from stream.settings import load
from stream.tally.process import TallyProcess, run
from stream.tally.sources import Sources
from tests.patching import patch

HOLDS = "holds"
"""While this file is there, it publishes nothing."""
CRAWLS = "crawls"
"""While this file is there, it reads one record every fifth of a second."""


def main() -> None:
    """Run the tally."""
    settings, publish, take = load(), TallyProcess._publish, Sources.take

    async def _publish(self: TallyProcess) -> None:
        if not (settings.tally_dir / HOLDS).exists():
            await publish(self)

    async def slow_take(self: Sources, most: int = 1) -> Any:
        if (settings.tally_dir / CRAWLS).exists():
            await asyncio.sleep(0.2)
            most = 1
        return await take(self, most)

    patch(TallyProcess, "_publish", _publish)
    patch(Sources, "take", slow_take)
    run(settings)


if __name__ == "__main__":
    main()
