"""Mahalanobis maps against dense float64 algebra, their identities, and a known Gaussian."""

from __future__ import annotations

import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf, oas

from atypia.errors import InputError, SettingsError
from atypia.scoring import mahalanobis
from atypia.scoring.mahalanobis import (
    WITH_NOISE,
    Covariance,
    Decomposition,
    mahalanobis_distance,
    mahalanobis_map,
    shrinkage_intensity,
)
from atypia.volume import Array
from tests.oracles.mahalanobis import (
    dense_covariance,
    dense_map,
    dense_patch_map,
    literal_float32,
)

WHOLE = [name for name in get_args(Covariance) if name != "patch"]
TOLERANCE = 1e-4


def case(seed: int = 0, count: int = 6, shape: tuple[int, int, int] = (9, 8, 4)) -> dict[str, Any]:
    """A scan, correlated restorations, a ragged brain with one empty slice, a noise variance."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape).astype(np.float64)
    centred = [axis - (n - 1) / 2 for axis, n in zip(places, shape, strict=True)]
    brain = (centred[0] / 4.4) ** 2 + (centred[1] / 4) ** 2 < 1
    brain &= rng.random(shape) < 0.9
    brain[:, :, 1] = False
    smooth = rng.normal(size=(count, 3)) @ rng.normal(size=(3, int(np.prod(shape))))
    restorations = 0.5 + 0.1 * smooth.reshape(count, *shape)
    restorations += 0.03 * rng.normal(size=restorations.shape)
    image = 0.5 + 0.3 * rng.normal(size=shape)
    return {
        "image": image.astype(np.float32),
        "restorations": restorations.astype(np.float32),
        "brain": brain,
        "noise": rng.uniform(0, 0.05, shape).astype(np.float32),
    }


def arrays(found: dict[str, Any]) -> tuple[Array, Array, Array]:
    return found["image"], found["restorations"], found["brain"]


def close(found: Array, expected: Array) -> None:
    """Compare relative to each value; to the largest where the root of a product nears zero."""
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("scope", ["slice", "volume"])
@pytest.mark.parametrize("decomposition", get_args(Decomposition))
@pytest.mark.parametrize("covariance", WHOLE)
def test_equals_dense_algebra(covariance: Any, decomposition: Any, scope: Any) -> None:
    given_ = case()
    noise = given_["noise"] if covariance in WITH_NOISE else None
    found = mahalanobis_map(
        *arrays(given_),
        covariance=covariance,
        decomposition=decomposition,
        scope=scope,
        noise_variance=noise,
    )
    expected = dense_map(*arrays(given_), covariance, decomposition, scope, noise=noise)
    close(found, expected)
    assert found.dtype == np.float32
    assert not found[~given_["brain"]].any()
    assert found.any()


@pytest.mark.parametrize("covariance", WHOLE)
@pytest.mark.parametrize(("count", "ridge"), [(2, 0.01), (60, 0.01), (60, 1e-6)])
def test_few_and_many_restorations(covariance: Any, count: int, ridge: float) -> None:
    given_ = case(count=count)  # a slice has fewer voxels than 60
    assert given_["brain"].sum(axis=(0, 1)).max() < 60
    found = mahalanobis_map(*arrays(given_), ridge=ridge, covariance=covariance)
    close(found, dense_map(*arrays(given_), covariance, "product", "slice", ridge=ridge))


@pytest.mark.parametrize("window", [(3, 3, 1), (3, 3, 3), (1, 1, 1), (5, 3, 1)])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_patches_equal_dense_algebra(
    window: tuple[int, int, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mahalanobis, "PATCH_NUMBERS", 7 * count * 9)  # several chunks a slice
    given_ = case(count=count)
    options: dict[str, Any] = {"covariance": "patch", "patch": window, "ridge": 0.02}
    found = mahalanobis_map(*arrays(given_), **options)
    close(found, dense_patch_map(*arrays(given_), window, 0.02))
    found = mahalanobis_map(*arrays(given_), **options, noise_variance=given_["noise"])
    close(found, dense_patch_map(*arrays(given_), window, 0.02, given_["noise"]))


def test_a_patch_of_one_voxel_is_the_diagonal() -> None:
    given_ = case()
    found = mahalanobis_map(*arrays(given_), covariance="patch", patch=(1, 1, 1))
    close(found, mahalanobis_map(*arrays(given_), covariance="diagonal"))


def test_equals_the_published_arithmetic() -> None:
    given_ = case(shape=(20, 18, 3), count=10)
    found = mahalanobis_map(*arrays(given_))
    literal = literal_float32(*arrays(given_))
    # The literal one is the less exact: its float32 inverse.
    np.testing.assert_allclose(found, literal, atol=2e-2)
    assert np.median(np.abs(found - literal)) < 1e-5


@pytest.mark.parametrize("covariance", WHOLE)
@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_shares_add_up_to_the_distance(covariance: Any, scope: Any) -> None:
    given_ = case(1)
    options: dict[str, Any] = {"covariance": covariance, "scope": scope}
    distance = mahalanobis_distance(*arrays(given_), **options)
    assert distance.shape == ((given_["brain"].shape[2],) if scope == "slice" else (1,))
    sums = {}
    for decomposition in get_args(Decomposition):
        shares = mahalanobis_map(*arrays(given_), **options, decomposition=decomposition)
        squares = np.sign(shares) * shares.astype(np.float64) ** 2
        sums[decomposition] = squares.sum(axis=(0, 1))
        if scope == "volume":
            sums[decomposition] = sums[decomposition].sum(keepdims=True)
    np.testing.assert_allclose(sums["whitened"], distance, rtol=1e-5)
    np.testing.assert_allclose(sums["signed"], distance, rtol=1e-5)
    if covariance != "diagonal":
        # The published one drops negative products, of which there are some here.
        assert (sums["product"] > distance * (1 + 1e-4)).any()


def test_the_distance_is_the_quadratic_form() -> None:
    image, restorations, brain = arrays(case(2))
    inside = brain[:, :, 0]
    samples = restorations[:, inside, 0].astype(np.float64)
    difference = image[inside, 0] - samples.mean(axis=0)
    for name in WHOLE:
        expected = difference @ np.linalg.solve(dense_covariance(samples, name, 0.01), difference)
        found = mahalanobis_distance(image, restorations, brain, covariance=name)  # type: ignore[arg-type]
        assert found[0] == pytest.approx(expected, rel=1e-6)
        assert found[1] == 0


@given(
    st.integers(2, 9),
    st.integers(1, 40),
    st.floats(1e-3, 3),
    st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_shrinkage_is_that_of_scikit_learn(count: int, voxels: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = size * rng.normal(size=(count, voxels)) + rng.normal(size=(count, 1))
    samples -= samples.mean(axis=0)
    gram = samples @ samples.T
    if voxels > 1:  # with one voxel target and covariance are the same
        found = shrinkage_intensity(gram, voxels, "ledoit_wolf")
        assert found == pytest.approx(ledoit_wolf(samples, assume_centered=True)[1], abs=1e-9)
        found = shrinkage_intensity(gram, voxels, "oas")
        assert found == pytest.approx(oas(samples, assume_centered=True)[1], abs=1e-9)


@given(st.permutations(range(6)), st.sampled_from(get_args(Covariance)))
@settings(max_examples=20)
def test_the_order_of_restorations_does_not_matter(order: list[int], covariance: Any) -> None:
    image, restorations, brain = arrays(case(3))
    found = mahalanobis_map(image, restorations[order], brain, covariance=covariance)
    close(found, mahalanobis_map(image, restorations, brain, covariance=covariance))


@pytest.mark.parametrize("decomposition", get_args(Decomposition))
@pytest.mark.parametrize("covariance", WHOLE)
def test_one_restoration_leaves_the_difference(covariance: Any, decomposition: Any) -> None:
    image, restorations, brain = arrays(case(count=1))
    found = mahalanobis_map(
        image, restorations, brain, ridge=0.04, covariance=covariance, decomposition=decomposition
    )
    expected = np.where(brain, np.abs(image - restorations[0]) / 0.2, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("covariance", get_args(Covariance))
@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_without_brain_there_is_nothing(covariance: Any, scope: Any) -> None:
    image, restorations, brain = arrays(case())
    nowhere = np.zeros_like(brain)
    found = mahalanobis_map(image, restorations, nowhere, covariance=covariance, scope=scope)
    assert not found.any()
    if covariance != "patch":
        distance = mahalanobis_distance(
            image, restorations, nowhere, covariance=covariance, scope=scope
        )
        assert not distance.any()


def test_voxels_outside_the_brain_have_no_influence() -> None:
    image, restorations, brain = arrays(case())
    other = restorations + np.where(brain, 0, 7).astype(np.float32)
    for covariance in get_args(Covariance):
        expected = mahalanobis_map(image, restorations, brain, covariance=covariance)
        found = mahalanobis_map(
            np.where(brain, image, -3), other, brain, covariance=covariance, scope="slice"
        )
        np.testing.assert_array_equal(found, expected)


def test_any_memory_order_and_float16() -> None:
    image, restorations, brain = arrays(case())
    expected = mahalanobis_map(image, restorations, brain)
    turned = np.asfortranarray(restorations)
    np.testing.assert_array_equal(
        mahalanobis_map(np.asfortranarray(image), turned, np.asfortranarray(brain)), expected
    )
    half = restorations.astype(np.float16)
    close(
        mahalanobis_map(image, half, brain),
        dense_map(image, half, brain, "low_rank", "product", "slice"),
    )


def test_recovers_a_known_gaussian() -> None:
    """Many samples of a Gaussian with a known covariance give its analytic distance.

    With 40000 samples in 12 dimensions the sample covariance is off by about sqrt(12 / 40000), 2 %
    of an eigenvalue; 5 % of the distance is asked for.
    """
    rng = np.random.default_rng(4)
    voxels, count = 12, 40_000
    factor = rng.normal(size=(voxels, 3))
    noise = rng.uniform(0.5, 1.5, voxels)
    sigma = factor @ factor.T + np.diag(noise)
    restorations = rng.multivariate_normal(np.zeros(voxels), sigma, count, method="cholesky")
    shape = (4, 3, 1)
    brain = np.ones(shape, bool)
    # The volume's covariance by patches: with more samples than voxels that is the small side.
    for _ in range(3):
        image = rng.normal(size=voxels) * 2
        analytic = float(image @ np.linalg.solve(sigma, image))
        found = mahalanobis_map(
            image.reshape(shape),
            restorations.reshape(count, *shape),
            brain,
            covariance="patch",
            patch=(7, 5, 1),
            ridge=1e-9,
        )
        np.testing.assert_allclose(found**2 * voxels, analytic, rtol=0.05)


def test_whitening_a_known_factor_model_gives_unit_variance() -> None:
    """Scans drawn from the restorations' Gaussian have a distance of about one a voxel."""
    rng = np.random.default_rng(5)
    shape, count, rank = (30, 20, 1), 300, 3
    factor = rng.normal(size=(rank, 600))
    draws = rng.normal(size=(count + 20, rank)) @ factor
    restorations = draws[:count].reshape(count, *shape)
    scans = draws[count:] + 0.5 * rng.normal(size=(20, 600))
    brain = np.ones(shape, bool)
    noise = np.full(shape, 0.25)
    distances = [
        mahalanobis_distance(
            scan.reshape(shape),
            restorations,
            brain,
            ridge=0.0,
            covariance="low_rank_diagonal",
            noise_variance=noise,
        )[0]
        / 600
        for scan in scans
    ]
    # Chi-squared with 600 degrees of freedom by 600: standard deviation 0.058, of the mean 0.013.
    assert np.mean(distances) == pytest.approx(1, abs=0.05)
    assert np.std(distances) == pytest.approx(0.058, abs=0.035)


def test_what_cannot_be_computed_is_refused() -> None:
    image, restorations, brain = arrays(case())
    noise = np.ones(image.shape)

    def refused(error: type[Exception], match: str, *, b: Array = brain, **options: Any) -> None:
        with pytest.raises(error, match=match):
            mahalanobis_map(
                options.pop("image", image), options.pop("restorations", restorations), b, **options
            )

    refused(SettingsError, "low_rank", covariance="low_ranks")
    refused(SettingsError, "whitened", decomposition="whitend")
    refused(SettingsError, "volume", scope="volumes")
    refused(SettingsError, "ridge -1", ridge=-1)
    refused(SettingsError, "no noise variance", noise_variance=noise)
    refused(SettingsError, "three odd numbers", covariance="patch", patch=(3, 2, 1))
    refused(InputError, "positive ridge", ridge=0.0)
    refused(InputError, "positive ridge", ridge=0.0, covariance="low_rank_diagonal")
    refused(InputError, "positive ridge", ridge=0.0, covariance="patch")
    refused(
        InputError, "positive ridge", ridge=0.0, restorations=restorations[:1], covariance="oas"
    )
    refused(InputError, "not 3", image=image[0])
    refused(InputError, "not \\(N, X, Y, Z\\)", restorations=restorations[:0])
    refused(InputError, "brain: voxels of shape", b=brain[1:])
    refused(InputError, "not booleans", b=brain.astype(np.float32))
    refused(InputError, "negative", covariance="diagonal", noise_variance=-noise)
    with pytest.raises(SettingsError, match="no distance"):
        mahalanobis_distance(image, restorations, brain, covariance="patch")


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_memory_is_that_of_one_slice_of_restorations(scope: Any) -> None:
    count, shape = 16, (64, 64, 12)
    restorations = np.random.default_rng(6).random((count, *shape), dtype=np.float32)
    brain = np.ones(shape, bool)
    tracemalloc.start()
    mahalanobis_map(restorations[0], restorations, brain, scope=scope)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    one_slice = 8 * count * shape[0] * shape[1]
    # The score and the voxels' indices are of the volume; a dense matrix would be 128 MB.
    assert peak < 4 * one_slice + 12 * brain.size


@pytest.mark.parametrize("covariance", ["ledoit_wolf", "oas", "diagonal"])
def test_some_covariances_need_no_ridge(covariance: Any) -> None:
    given_ = case()
    found = mahalanobis_map(*arrays(given_), ridge=0.0, covariance=covariance)
    close(found, dense_map(*arrays(given_), covariance, "product", "slice", ridge=0.0))
