"""An evaluation as files: one HTML page that needs nothing else, the same figures as JSON and as CSV."""

from models.evaluation.report.files import write_report

__all__ = ["write_report"]
