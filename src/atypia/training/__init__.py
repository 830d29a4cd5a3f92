"""Training networks: one loop on Lightning Fabric that resumes, logs and keeps the best weights."""

from atypia.training.loop import TrainingReport, TrainingSettings, train

__all__ = ["TrainingReport", "TrainingSettings", "train"]
