"""Rehearsals: a submission trains on the miniatures of AlgoPerf's workloads."""
