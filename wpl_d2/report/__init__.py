"""A report of runs that a person looks at: one HTML file, and its numbers as JSON."""

from .build import default_page, evaluate_run, lacks_evidence, make_report, report_training, write_report

__all__ = ["default_page", "evaluate_run", "lacks_evidence", "make_report", "report_training", "write_report"]
