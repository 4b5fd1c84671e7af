"""Report: what every finished evaluation of a model found, side by side."""

from llmrepair.stages.report.stage import Report, ReportConfig, collect_evaluations, collect_examined

__all__ = ["Report", "ReportConfig", "collect_evaluations", "collect_examined"]
