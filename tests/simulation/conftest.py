"""Brains that several tests look at, made once."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.simulation import (
    Anatomy,
    SimulatedSubject,
    SimulationSettings,
    render_anatomy,
    sample_anatomy,
    simulate_subject,
)


@pytest.fixture(scope="session")
def anatomy() -> Anatomy:
    """One healthy brain at 4 mm."""
    return render_anatomy(sample_anatomy(np.random.default_rng(3)), 4.0)


@pytest.fixture(scope="session")
def healthy() -> SimulatedSubject:
    """One healthy T2-weighted scan at 4 mm."""
    return simulate_subject(SimulationSettings(spacing_mm=4), 3)
