"""Storing and updating arrays fast under XLA: rings, precision, convolutions, meshes."""
