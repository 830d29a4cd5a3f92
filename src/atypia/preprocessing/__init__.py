"""Preprocessing as data: steps, the plan made of them, and prepared scans with their cache."""

from atypia.preprocessing.plan import Plan, Prepared, make_plan
from atypia.preprocessing.prepare import Failure, prepare, prepare_all

__all__ = ["Failure", "Plan", "Prepared", "make_plan", "prepare", "prepare_all"]
