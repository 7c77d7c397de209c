"""Tuners and campaigns on top of the referee: ``python -m tuning``."""
