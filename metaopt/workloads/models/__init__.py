"""Networks that several workloads share, and flax modules as functions."""
