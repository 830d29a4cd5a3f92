import numpy as np
import pytest
import torch

from atypia.features import FeatureRules, PatchFeatures
from atypia.networks.cnn3d import SimpleCNN
from atypia.volume import Volume


def scan(seed: int = 0, shape=(20, 22, 18)) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -np.array(shape)
    brain = np.zeros(shape, bool)
    brain[3:-3, 3:-3, 3:-3] = True
    image = np.where(brain, rng.normal(size=shape), 0).astype(np.float32)
    return Volume(image, affine), Volume(brain, affine, "mask")


RULES = {
    "flatten": {"embedding": "flatten"},
    "max": {"pooling": "max"},
    "mlp": {"embedding": "mlp", "embedding_hidden": (9,), "embedding_length": 8},
    "sum": {"fusion": "sum"},
    "attention": {"fusion": "attention"},
    "random": {"reduction": "random", "dimension": 5},
    "pca": {"reduction": "pca", "dimension": 5},
    "whitened": {"reduction": "whitened", "dimension": 5},
    "place": {"position_weight": 0.5},
}


def described(**values) -> PatchFeatures:
    torch.manual_seed(0)
    return PatchFeatures(FeatureRules.make(values), SimpleCNN((8, 12)))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_gives_vectors_and_loads(name: str) -> None:
    features = described(**RULES[name])
    features.learn([scan(0), scan(1)])
    patches = features.of(*scan(2))
    assert patches.vectors.shape == (len(patches.numbers), features.length)
    assert np.isfinite(patches.vectors).all()
    torch.manual_seed(99)
    again = PatchFeatures(FeatureRules.make(RULES[name]), SimpleCNN((8, 12)), seed=7)
    again.load_state_dict(features.state_dict())
    np.testing.assert_array_equal(again.of(*scan(2)).vectors, patches.vectors)


def test_features_of_learning_scans_are_standardised() -> None:
    features = described()
    features.learn([scan(0), scan(1)])
    vectors = np.concatenate([features.of(*scan(s)).vectors for s in (0, 1)])
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-3)
    varying = (vectors.std(0) > 0) & (features.scale.numpy() > 1.001 * features.scale.min().item())
    assert varying.sum() > 2
    np.testing.assert_allclose(vectors.std(0)[varying], 1, atol=1e-3)


def test_nearly_constant_features_are_not_blown_up() -> None:
    features = described()
    weight = features.network.stages[0][3].weight.data
    weight[0] *= 1e-4
    features.learn([scan(0), scan(1)])
    usual = float(features.scale[torch.isfinite(features.scale)].median())
    assert float(features.scale.min()) >= 0.05 * usual


def test_whitened_components_are_uncorrelated() -> None:
    features = described(reduction="whitened", dimension=4)
    features.learn([scan(0), scan(1)])
    vectors = np.concatenate([features.of(*scan(s)).vectors for s in (0, 1)])
    np.testing.assert_allclose(np.cov(vectors.T), np.eye(4), atol=1e-2)


def test_constant_features_do_not_count() -> None:
    features = described()
    features.network.stages[0][3].weight.data[:3] = 0
    features.learn([scan(0), scan(1)])
    image, brain = scan(2)
    found = features.of(image.with_data(image.data * 50), brain).vectors
    assert np.isfinite(found).all()


def test_memory_is_bounded_without_changing_a_digit() -> None:
    wide = described(embedding="flatten", megabytes=256)
    narrow = described(embedding="flatten", megabytes=1)
    for features in (wide, narrow):
        features.learn([scan(0)])
    one, other = wide.of(*scan(1)), narrow.of(*scan(1))
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-5)


@pytest.mark.parametrize("kind", ["interpolated", "mean", "max", "min"])
def test_scores_land_where_their_patch_lies(kind: str) -> None:
    features = described(score_map=kind, patch_size=4, patch_stride=2)
    image, brain = scan()
    patches = features.of(image, brain)
    scores = np.zeros(len(patches.numbers), np.float32)
    centres = patches.grid.centres()[patches.numbers]
    chosen = int(np.abs(centres - np.array(brain.data.shape) / 2).sum(axis=1).argmin())
    scores[chosen] = 1.0
    found = features.map(scores, patches, brain.data)
    assert found.dtype == np.float32
    assert not found[~brain.data].any()
    centre = centres[chosen]
    if kind == "min":
        assert found.max() <= 1.0
        return
    middle = np.array(np.nonzero(found == found.max())).mean(axis=1)
    assert np.abs(middle - centre).max() <= 1.0


@pytest.mark.parametrize("kind", ["interpolated", "mean", "max", "min"])
def test_all_of_the_brain_gets_a_score(kind: str) -> None:
    features = described(least_brain=1.0, patch_size=2, patch_stride=3, score_map=kind)
    image, brain = scan()
    patches = features.of(image, brain)
    found = features.map(np.ones(len(patches.numbers), np.float32), patches, brain.data)
    np.testing.assert_array_equal(found, brain.data.astype(np.float32))


def test_descriptors_need_no_network() -> None:
    features = PatchFeatures(FeatureRules.make({"descriptors": ("intensity", "texture")}))
    features.learn([scan(0), scan(1)])
    assert features.of(*scan(2)).vectors.shape[1] == features.length == 9


@pytest.mark.parametrize("source", ["descriptors", "simple"])
def test_the_peak_lies_within_half_a_stride_of_a_planted_lesion(source: str) -> None:
    """Fifty places; the reference painted scores of a feature grid into the scan's corner."""
    stride, shape = 2, (32, 34, 30)
    torch.manual_seed(2)
    network = SimpleCNN((16, 16)) if source == "simple" else None
    rules = {"patch_size": 4, "patch_stride": stride, "layers": (0,), "least_brain": 0.5}
    rules["descriptors"] = ("intensity",)
    features = PatchFeatures(FeatureRules.make(rules), network)
    # A little noise, so that every feature has a healthy spread.
    healthy = [scan(seed, shape) for seed in range(3)]
    features.learn([(image.with_data(0.1 * image.data), brain) for image, brain in healthy])
    rng = np.random.default_rng(5)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    for place in rng.integers(8, np.array(shape) - 8, size=(50, 3)):
        image, brain = scan(int(rng.integers(100, 200)), shape)
        apart = sum((axis - p) ** 2 for axis, p in zip(axes, place, strict=True))
        lesion = 3 * np.exp(-apart / (2 * 1.5**2))
        planted = image.with_data((0.01 * image.data + lesion).astype(np.float32))
        patches = features.of(planted, brain)
        found = features.map((patches.vectors**2).mean(1), patches, brain.data)
        peak = np.array(np.nonzero(found == found.max())).mean(axis=1)
        # Centres of patches of four voxels lie between voxels: half a voxel more.
        assert np.abs(peak - place).max() <= stride / 2 + 0.5, (place, peak)
