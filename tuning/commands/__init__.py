"""The commands of ``python -m tuning``, as functions."""
