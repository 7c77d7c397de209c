"""AlgoPerf's interface: what submissions, workloads, tuners and plug-ins implement."""
