"""Report: self-contained pages that show what a method found and how scans were prepared."""

from atypia.report.comparison import write_comparison
from atypia.report.curves import write_curves
from atypia.report.montage import write_montage
from atypia.report.page import write_report
from atypia.report.quality import write_quality_page
from atypia.report.results import read_results
from atypia.report.subject_page import write_subject_page
from atypia.report.training_page import write_training_page

__all__ = [
    "read_results",
    "write_comparison",
    "write_curves",
    "write_montage",
    "write_quality_page",
    "write_report",
    "write_subject_page",
    "write_training_page",
]
