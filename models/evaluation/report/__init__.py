"""An evaluation as files: one self-contained HTML page, and the same figures as JSON and as CSV."""

from models.evaluation.report.files import write_report

__all__ = ["write_report"]
