"""Network architectures; volumes are `(B, C, X, Y, Z)`, slices are `(B, C, H, W)`."""
