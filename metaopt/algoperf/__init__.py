"""AlgoPerf, both ways: our workloads under its runner, its workloads under ours.

AlgoPerf is an optional companion. Nothing here needs it to be imported, and nothing else in the
project imports it but :mod:`metaopt.bench.contract.spec`.
"""
