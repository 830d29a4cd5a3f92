"""Which deviations count."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.scoring.residual import Sign, signed


@pytest.mark.parametrize(
    ("sign", "expected"), [("both", [2, 0, 3]), ("bright", [0, 0, 3]), ("dark", [2, 0, 0])]
)
def test_signs(sign: Sign, expected: list[float]) -> None:
    assert signed(np.array([-2.0, 0.0, 3.0]), sign).tolist() == expected
