"""All settings of freshet in one frozen object, their file, and what a worker requires of topics and brokers."""

from stream.settings.placements import DEFAULT as DEFAULT_PLACEMENT
from stream.settings.placements import Placement
from stream.settings.resolved import placement_of
from stream.settings.settings import Settings, load

__all__ = ["DEFAULT_PLACEMENT", "Placement", "Settings", "load", "placement_of"]
