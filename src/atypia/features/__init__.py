"""Features: what is said of every patch of a scan, from networks or from written-down descriptors.

`maps` holds feature maps and where their places lie; `embedding` turns a patch of them into one
vector; `patch_features` is the whole way from a scan to its vectors.
"""

from atypia.features.embedding import PatchEmbedding
from atypia.features.maps import FeatureMap, cells_of, network_maps, pooled
from atypia.features.patch_features import FeatureRules, PatchFeatures

__all__ = [
    "FeatureMap",
    "FeatureRules",
    "PatchEmbedding",
    "PatchFeatures",
    "cells_of",
    "network_maps",
    "pooled",
]
