from typing import Any

import numpy as np
import pytest
from sklearn.covariance import OAS, LedoitWolf

from atypia.scoring.shrinkage import shrinkage_share

FEATURES = 6


@pytest.mark.parametrize(("rule", "theirs"), [("ledoit_wolf", LedoitWolf), ("oas", OAS)])
@pytest.mark.parametrize("count", [2, 3, 14, 200])
def test_many_shares_are_scikit_learns(rule: Any, theirs: Any, count: int) -> None:
    rng = np.random.default_rng(count)
    scales = np.geomspace(0.01, 10, FEATURES) ** rng.uniform(0, 1, (30, 1))
    samples = rng.standard_normal((30, count, FEATURES)) * scales[:, None]
    away = samples - samples.mean(axis=1, keepdims=True)
    covariances = away.transpose(0, 2, 1) @ away / count
    found = shrinkage_share(
        (covariances**2).sum(axis=(1, 2)),
        np.trace(covariances, axis1=1, axis2=2),
        (np.square(away).sum(axis=2) ** 2).mean(axis=1),
        np.full(30, count),
        FEATURES,
        rule,
    )
    expected = [theirs().fit(one).shrinkage_ for one in samples]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    if count == 14:
        assert found.min() < 0.3
        assert found.std() > 0.02


def test_samples_that_are_all_the_same_have_nothing_to_shrink() -> None:
    assert shrinkage_share(0, 0, 0, 5, FEATURES, "ledoit_wolf") == 0
    assert shrinkage_share(0, 0, 0, 5, FEATURES, "oas") == 1
