"""Budgets, targets and seeds: the units in which the referee measures."""
