"""Logs -> cost to target -> scores -> reports: ``python -m analysis``. Never imports JAX."""
