"""Feature networks by the described names, over `atypia.networks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.features import FeatureMap, network_maps
from atypia.features.maps import cells_in
from atypia.networks.cnn3d import SimpleCNN
from atypia.networks.resnet import DEPTHS, BasicBlock, BottleneckBlock, ResNetEncoder
from atypia.patch_pipeline.tensors import Given, Triple, as_array, as_volume, spatial


class Simple3DCNN(SimpleCNN):
    """A plain network of stages that halve the resolution, with one linear layer on its mean.

    Parameters
    ----------
    in_channels
        Of the scan.
    num_classes
        Outputs of `forward`.
    feature_dims
        Channels of the stages.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 1,
        feature_dims: Sequence[int] = (32, 64, 128, 256),
    ) -> None:
        super().__init__(feature_dims, in_channels)
        self.classifier = nn.Linear(self.channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, D, H, W)` to `(B, num_classes)`."""
        out: Tensor = self.classifier(super().forward(x))
        return out


class BasicBlock3D(BasicBlock):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride, axes=3)


class Bottleneck3D(BottleneckBlock):
    """A 3x3x3 convolution between two of width 1, with four times as many channels at the end."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride, axes=3)


class ResNet3D(ResNetEncoder):
    """A residual network of volumes with strides 4, 8, 16 and 32.

    Parameters
    ----------
    block, layers
        Kind of block, and how many each stage has: those of depth 18, 34 or 50.
    in_channels, num_classes
        Channels in, outputs of the last layer.
    extract_features
        Whether `forward` gives the maps of the stages instead of the last layer's outputs.

    Raises
    ------
    SettingsError
        Blocks of no known depth.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[BottleneckBlock],
        layers: Sequence[int],
        in_channels: int = 1,
        num_classes: int = 1000,
        extract_features: bool = True,
    ) -> None:
        known = [
            depth
            for depth, (kind, counts) in DEPTHS.items()
            if issubclass(block, kind) and counts == tuple(layers)
        ]
        if not known:
            problem = f"{block.__name__} {list(layers)} are of no known depth"
            remedy = "Give those of depth 18, 34 or 50, or a network of your own"
            raise SettingsError("layers", problem, remedy)
        super().__init__(known[0], in_channels, num_classes, axes=3)
        self.extract_features = extract_features

    def forward(self, x: Tensor) -> Any:
        """Map `(B, in_channels, D, H, W)` to maps by name, or to `(B, num_classes)`."""
        if not self.extract_features:
            return super().forward(x)
        return {f"layer{i}": found for i, found in enumerate(self.features(x), 1)}


def resnet3d_18(in_channels: int = 1, **options: Any) -> ResNet3D:
    """Give a `ResNet3D` of depth 18."""
    return ResNet3D(BasicBlock3D, DEPTHS[18].counts, in_channels, **options)


def resnet3d_34(in_channels: int = 1, **options: Any) -> ResNet3D:
    """Give a `ResNet3D` of depth 34."""
    return ResNet3D(BasicBlock3D, DEPTHS[34].counts, in_channels, **options)


def resnet3d_50(in_channels: int = 1, **options: Any) -> ResNet3D:
    """Give a `ResNet3D` of depth 50."""
    return ResNet3D(Bottleneck3D, DEPTHS[50].counts, in_channels, **options)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "simple": Simple3DCNN,
    "resnet18": resnet3d_18,
    "resnet34": resnet3d_34,
    "resnet50": resnet3d_50,
}


class FeatureExtractor3D(nn.Module):
    """Feature maps of a network by the names layer1, layer2, ..., finest first.

    Its weights are random, as described, and random features are weak: for results use the
    detectors `memory_bank`, `padim` or `patch_autoencoder` with descriptors or self-supervision, or
    give a network that was trained.

    Parameters
    ----------
    model_type
        "simple", "resnet18", "resnet34", "resnet50", or a network of your own with `features`,
        `channels`, `strides`, `offsets` and `axes` as `atypia.networks.cnn3d.SimpleCNN` has them.
    kwargs
        Of the network.

    Raises
    ------
    SettingsError
        An unknown model.
    """

    def __init__(self, model_type: str | nn.Module = "simple", **kwargs: Any) -> None:
        super().__init__()
        if isinstance(model_type, str) and model_type not in MODELS:
            raise unknown_name("model_type", model_type, MODELS)
        made = MODELS[model_type](**kwargs) if isinstance(model_type, str) else model_type
        self.network: Any = made
        self.network.requires_grad_(False).eval()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, finest first."""
        return tuple(f"layer{number}" for number in range(1, len(self.network.strides) + 1))

    def forward(self, x: Given) -> dict[str, Tensor]:
        """Give the maps of all layers, as `extract_features`."""
        return self.extract_features(x)

    def extract_features(self, x: Given, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Give the maps of some layers.

        Parameters
        ----------
        x
            `(D, H, W)`, `(C, D, H, W)` or `(B, C, D, H, W)`.
        layers
            Their names; None for all.

        Returns
        -------
        dict of torch.Tensor
            By name, `(C_k, D / s_k, ...)` rounded up, with a batch axis if the input has one.
        """
        values = as_array(x)
        if values.ndim != 5:
            return {name: found.values for name, found in self.maps(x, layers).items()}
        every = [self.extract_features(one, layers) for one in values]
        return {name: torch.stack([found[name] for found in every]) for name in every[0]}

    def maps(self, volume: Given, layers: Sequence[str] | None = None) -> dict[str, FeatureMap]:
        """Give the maps of some layers with the places of their cells in the scan."""
        names = self.layer_names if layers is None else tuple(layers)
        weight = next(self.network.parameters())
        image = as_volume(volume).to(weight)
        if weight.ndim == 5 and weight.shape[1] != len(image):
            problem = f"has {len(image)} channels, the network takes {weight.shape[1]}"
            raise InputError("volume", problem, "Set in_channels")
        found = network_maps(self.network, image, [self._number(name) for name in names])
        return dict(zip(names, found, strict=True))

    def shape_of(self, layer: str, patch_size: Triple) -> tuple[int, Triple]:
        """Give channels and cells that a layer has in a patch of so many voxels of the scan."""
        number, network = self._number(layer), self.network
        stride = float(network.strides[number])
        across = (stride, stride, stride if network.axes == 3 else 1.0)
        return int(network.channels[number]), cells_in(patch_size, across)

    def get_feature_dimensions(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Give the shape `(C_k, x, y, z)` of each layer's map for a volume's shape."""
        network, found = self.network, {}
        for number, name in enumerate(self.layer_names):
            stride = int(network.strides[number])
            last = stride if network.axes == 3 else 1
            steps = zip(spatial(shape), (stride, stride, last), strict=True)
            found[name] = (int(network.channels[number]), *(-(-n // step) for n, step in steps))
        return found

    def keep(self, layers: Sequence[str]) -> None:
        """Drop the stages behind the deepest of some layers, which nothing reads."""
        network, count = self.network, 1 + max(self._number(name) for name in layers)
        if isinstance(network, SimpleCNN | ResNetEncoder):
            network.stages = network.stages[:count]
            for name in ("channels", "strides", "offsets"):
                setattr(network, name, getattr(network, name)[:count])
            # The last layer belongs to the stage that is gone.
            for name in {"head", "classifier"} & dict(network.named_children()).keys():
                delattr(network, name)

    def _number(self, layer: str) -> int:
        if layer not in self.layer_names:
            raise unknown_name("layer", layer, self.layer_names)
        return self.layer_names.index(layer)
