"""Real T1w brains: train on healthy ones, score MS and glioma, healthy scores per source beside."""
