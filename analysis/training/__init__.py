"""Curves, episodes, last values, hyperparameters."""
