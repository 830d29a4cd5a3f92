import numpy as np
import pytest
import torch

from atypia.errors import SettingsError
from atypia.features.embedding import LayerEmbedding, PatchEmbedding


def test_lengths_and_values() -> None:
    cells = torch.randn(5, 3, 2, 2, 2)
    assert torch.equal(LayerEmbedding(3, (2, 2, 2), "flatten")(cells), cells.reshape(5, 24))
    for pooling, expected in (
        ("avg", cells.mean((2, 3, 4))),
        ("adaptive", cells.mean((2, 3, 4))),
        ("max", cells.amax((2, 3, 4))),
    ):
        pool = LayerEmbedding(3, (2, 2, 2), "pool", pooling)
        assert pool.length == 3
        torch.testing.assert_close(pool(cells), expected)
    mlp = LayerEmbedding(3, (2, 2, 2), "mlp", hidden=(7,), output=4).eval()
    assert mlp(cells).shape == (5, mlp.length) == (5, 4)
    first, _, _, last = mlp.layers
    expected = last(torch.relu(first(cells.flatten(1))))
    torch.testing.assert_close(mlp(cells), expected)


@pytest.mark.parametrize("fusion", ["concat", "sum", "attention"])
def test_layers_of_different_widths_are_fused(fusion: str) -> None:
    torch.manual_seed(0)
    layers = [LayerEmbedding(16, (2, 2, 2)), LayerEmbedding(24, (1, 1, 1))]
    fused = PatchEmbedding(layers, fusion).eval()
    cells = [torch.randn(5, 16, 2, 2, 2), torch.randn(5, 24, 1, 1, 1)]
    found = fused(cells)
    assert found.shape == (5, fused.length)
    one, other = cells[0].mean((2, 3, 4)), cells[1][..., 0, 0, 0]
    if fusion == "concat":
        torch.testing.assert_close(found, torch.cat([one, other], 1))
    if fusion == "sum":
        torch.testing.assert_close(found, one + other[:, :16])
    if fusion == "attention":
        assert fused.length == 16
        # A patch is fused by itself: others in the batch change nothing.
        torch.testing.assert_close(fused([c[2:3] for c in cells])[0], found[2])
        # and both layers have their say.
        for place in (0, 1):
            changed = [c.clone() for c in cells]
            changed[place] += 1
            assert not np.allclose(fused(changed).detach(), found.detach())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"method": "flat"}, "flatten"),
        ({"pooling": "average"}, "avg"),
        ({"method": "mlp"}, "widths"),
    ],
)
def test_wrong_settings_say_what_is_possible(options, problem) -> None:
    with pytest.raises(SettingsError, match=problem):
        LayerEmbedding(3, (2, 2, 2), **options)


def test_unknown_fusion() -> None:
    with pytest.raises(SettingsError, match="concat"):
        PatchEmbedding([LayerEmbedding(3, (1, 1, 1))], "product")
