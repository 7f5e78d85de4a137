"""All settings of freshet: one frozen object, the file that it is read from, and what a worker requires of topics and
brokers."""

from stream.settings.settings import Settings, load

__all__ = ["Settings", "load"]
