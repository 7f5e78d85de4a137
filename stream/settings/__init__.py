"""All settings of freshet: one frozen object, the file that it comes from, and what a worker needs of topics and brokers."""

from stream.settings.settings import Settings, load

__all__ = ["Settings", "load"]
