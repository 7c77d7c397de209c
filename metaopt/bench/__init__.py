"""The referee: contract, targets, clock, budgets, runner, records, checkpoints."""
