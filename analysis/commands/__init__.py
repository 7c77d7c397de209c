"""The commands of ``python -m analysis``, as functions."""
