"""The report of a run as a PDF, made from a `Reconstruction` alone."""

from gem_plugin.report.pdf import write_report

__all__ = ["write_report"]
