"""Cohort work: fitting with baselines, predicting many scans, evaluating; resumable, reported."""
