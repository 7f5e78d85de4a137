"""Everything that operators see: logs, metrics, lag, health and the status page."""
