"""From images to scores: filters, smoothing, reduction to one number, connected components."""
