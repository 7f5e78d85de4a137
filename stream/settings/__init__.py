"""All settings of freshet in one frozen object, their file, and what a worker requires of topics and brokers."""

from stream.settings.settings import Settings, load

__all__ = ["Settings", "load"]
