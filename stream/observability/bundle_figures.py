"""Metrics of the bundle in force and of changing it, in a worker and in a gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from stream.core.bundle_log import CURRENT


class BundleFigures:
    """The metrics.

    Args:
        registry: The process's registry.
        prefix: What their names begin with.
    """

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self.activation = Gauge(
            f"{prefix}_activation",
            "Number of the activation in force; -1: the bundle is that of CURRENT",
            registry=registry,
        )
        self.swaps = Counter(f"{prefix}_swaps", "Switches to another activation", registry=registry)
        self.refusals = Counter(f"{prefix}_refusals", "Activations whose bundle cannot be used here", registry=registry)
        self.refused = Gauge(f"{prefix}_refused", "1 while the newest activation is refused here", registry=registry)
        self.waiting = Gauge(
            f"{prefix}_waiting_seconds",
            "Seconds since an activation has come that is neither switched to nor refused; 0 for none",
            registry=registry,
        )
        self.load = Gauge(f"{prefix}_load_seconds", "Seconds that the last bundle took to load", registry=registry)
        self.activation.set(CURRENT)

    def serve(self, number: int) -> None:
        """Set the activation in force."""
        self.activation.set(number)

    def switched(self) -> None:
        """Count a switch: the newest activation is in force."""
        self.swaps.inc()
        self.refused.set(0)

    def refuse(self) -> None:
        """Count a bundle that cannot be used."""
        self.refusals.inc()
        self.refused.set(1)

    def loaded(self, seconds: float) -> None:
        """Set how long a bundle took to load."""
        self.load.set(seconds)
