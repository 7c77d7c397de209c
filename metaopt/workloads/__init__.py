"""Workloads: data, model, loss, metrics and targets behind AlgoPerf's interface."""
