"""Report: self-contained pages that show what a method found and how scans were prepared."""

from atypia.report.comparison import write_comparison
from atypia.report.curves import write_curves
from atypia.report.montage import write_montage
from atypia.report.page import write_report
from atypia.report.quality import write_quality_page

__all__ = [
    "write_comparison",
    "write_curves",
    "write_montage",
    "write_quality_page",
    "write_report",
]
