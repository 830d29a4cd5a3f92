"""Preprocessing as data: steps, the plan made of them, and prepared scans with their cache."""

from atypia.preprocessing.plan import Plan, Prepared
from atypia.preprocessing.prepare import Failure, prepare, prepare_all
from atypia.preprocessing.presets import PRESETS, make_plan

__all__ = ["PRESETS", "Failure", "Plan", "Prepared", "make_plan", "prepare", "prepare_all"]
