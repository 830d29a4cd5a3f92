"""The described patch pipeline by its own names: one thin layer over the parts of atypia.

A program of the reference runs when its import lines say `atypia.patch_pipeline`. What each name
stands for, and where it does something else, is told in `docs/patch-pipeline-api.md`.
"""

from __future__ import annotations

from atypia.patch_pipeline.autoencoders import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    VariationalAutoencoder,
    compute_reconstruction_errors,
)
from atypia.patch_pipeline.embeddings import (
    FeatureEmbedding,
    MultiScaleFeatureEmbedding,
    PatchSampler,
)
from atypia.patch_pipeline.extractors import (
    BasicBlock3D,
    Bottleneck3D,
    FeatureExtractor3D,
    ResNet3D,
    Simple3DCNN,
    resnet3d_18,
    resnet3d_34,
    resnet3d_50,
)
from atypia.patch_pipeline.factories import (
    MODALITIES,
    create_pipeline_for_modality,
    create_resnet_pipeline,
    create_simple_pipeline,
)
from atypia.patch_pipeline.inference import (
    batch_inference,
    create_anomaly_score_map,
    ensemble_inference,
    extract_test_features,
    inference_pipeline,
)
from atypia.patch_pipeline.judging import (
    adaptive_threshold,
    apply_threshold,
    comprehensive_evaluation,
    compute_dice_coefficient,
    compute_optimal_threshold,
    compute_pixel_wise_iou,
    compute_precision_recall,
    compute_roc_auc,
    compute_threshold_from_normal_scores,
    morphological_postprocessing,
    multi_threshold_analysis,
    plot_precision_recall_curves,
    plot_roc_curves,
    plot_score_distributions,
    visualize_threshold_analysis,
)
from atypia.patch_pipeline.pipeline import AnomalyDetectionPipeline
from atypia.patch_pipeline.training import (
    FeatureVectorDataset,
    load_trained_autoencoder,
    plot_training_curves,
    train_autoencoder,
)
from atypia.patch_pipeline.volumes import (
    augment_volume,
    create_patch_grid,
    extract_patches_3d,
    extract_patches_with_coordinates,
    load_and_normalize_volume,
    load_dataset,
    reconstruct_from_patches,
)

__all__ = [
    "MODALITIES",
    "AnomalyDetectionPipeline",
    "Autoencoder",
    "BasicBlock3D",
    "Bottleneck3D",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "FeatureEmbedding",
    "FeatureExtractor3D",
    "FeatureVectorDataset",
    "MultiScaleFeatureEmbedding",
    "PatchSampler",
    "ResNet3D",
    "Simple3DCNN",
    "VariationalAutoencoder",
    "adaptive_threshold",
    "apply_threshold",
    "augment_volume",
    "batch_inference",
    "comprehensive_evaluation",
    "compute_dice_coefficient",
    "compute_optimal_threshold",
    "compute_pixel_wise_iou",
    "compute_precision_recall",
    "compute_reconstruction_errors",
    "compute_roc_auc",
    "compute_threshold_from_normal_scores",
    "create_anomaly_score_map",
    "create_patch_grid",
    "create_pipeline_for_modality",
    "create_resnet_pipeline",
    "create_simple_pipeline",
    "ensemble_inference",
    "extract_patches_3d",
    "extract_patches_with_coordinates",
    "extract_test_features",
    "inference_pipeline",
    "load_and_normalize_volume",
    "load_dataset",
    "load_trained_autoencoder",
    "morphological_postprocessing",
    "multi_threshold_analysis",
    "plot_precision_recall_curves",
    "plot_roc_curves",
    "plot_score_distributions",
    "plot_training_curves",
    "reconstruct_from_patches",
    "resnet3d_18",
    "resnet3d_34",
    "resnet3d_50",
    "train_autoencoder",
    "visualize_threshold_analysis",
]
