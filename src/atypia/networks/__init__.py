"""Network architectures; tensors are `(B, C, X, Y, Z)`."""
