"""Report: one self-contained page that shows what a method found, scan by scan."""

from atypia.report.curves import write_curves
from atypia.report.montage import write_montage
from atypia.report.page import write_report

__all__ = ["write_curves", "write_montage", "write_report"]
