"""Trials -> costs to target -> scores."""
